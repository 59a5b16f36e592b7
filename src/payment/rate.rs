//! What money of one unit is worth in another, so that a price in dollars can be charged in sats.
//!
//! Whole numbers only: a rate is a fraction, and a conversion rounds up, once, at its end.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Amount, MAX_AMOUNT, Timestamp, Unit};
use crate::error::{Error, ErrorKind, Result};

/// How many sats one bitcoin is.
const SATS_PER_BITCOIN: u64 = 100_000_000;

/// How many decimals beyond the smallest unit are read of a price of one bitcoin. The rest is dropped.
const EXTRA_DECIMALS: usize = 4;

/// One, in basis points.
const ONE: u32 = 10_000;

/// So much of one unit is worth so much of another, at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    from: Amount,
    to: Amount,
    observed_at: Option<Timestamp>,
}

impl Rate {
    /// `from` is worth `to`, until somebody says otherwise.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if one of them is nothing, or if both have one unit.
    pub fn new(from: Amount, to: Amount) -> Result<Self> {
        if from.unit() == to.unit() {
            return Err(Error::config(format!(
                "a rate must have two units, not {} twice",
                from.unit()
            )));
        }
        if from.value() == 0 || to.value() == 0 {
            return Err(Error::config("a rate must have at least 1 on both sides"));
        }
        Ok(Self {
            from,
            to,
            observed_at: None,
        })
    }

    /// One bitcoin costs `price`, a plain decimal number, of the currency whose smallest unit is `unit` and has `decimals`
    /// decimals, as [`Unit::from_word`] says.
    ///
    /// Decimals far beyond the smallest unit are dropped: that makes the bitcoin cheaper, and what is charged never less.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for anything that is not a positive number of a possible size.
    pub fn of_one_bitcoin(price: &str, unit: &Unit, decimals: u32) -> Result<Self> {
        let wrong = || {
            let shown: String = price.chars().take(40).collect();
            Error::config(format!(
                "{shown:?} must be the price of one bitcoin as a plain number such as 65000 or 65000.25"
            ))
        };
        let (whole, fraction) = price.split_once('.').unwrap_or((price, "0"));
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(wrong());
        }
        let decimals = decimals as usize;
        let fraction = fraction.trim_end_matches('0');
        let kept = fraction
            .get(..fraction.len().min(decimals + EXTRA_DECIMALS))
            .unwrap_or(fraction);
        let places = kept.len().max(decimals);
        let value: u64 = format!("{whole}{kept:0<places$}")
            .parse()
            .map_err(|_| wrong())?;
        let scale = u32::try_from(places - decimals)
            .ok()
            .and_then(|extra| 10u64.checked_pow(extra));
        let sats = scale.and_then(|scale| SATS_PER_BITCOIN.checked_mul(scale));
        let from = Amount::new(value, unit.clone()).map_err(|_| wrong())?;
        let to = Amount::new(sats.ok_or_else(wrong)?, Unit::SATS).map_err(|_| wrong())?;
        if value == 0 {
            return Err(wrong());
        }
        Self::new(from, to)
    }

    /// The same, as it was seen at `at`: it ages from then on.
    #[must_use]
    pub fn observed_at(mut self, at: Timestamp) -> Self {
        self.observed_at = Some(at);
        self
    }

    /// What is worth [`to`](Self::to).
    #[must_use]
    pub fn from(&self) -> &Amount {
        &self.from
    }

    /// What [`from`](Self::from) is worth.
    #[must_use]
    pub fn to(&self) -> &Amount {
        &self.to
    }

    /// When it was seen; `None` if it was set by hand and does not age.
    #[must_use]
    pub fn seen(&self) -> Option<Timestamp> {
        self.observed_at
    }

    /// What `price` is in the other unit, with `margin` on top: the least whole number that is not less.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Price`] if the price is nothing or in another unit, or if what comes out is no amount.
    pub fn convert(&self, price: &Amount, margin: Margin) -> Result<Amount> {
        let wrong = |what: String| Err(Error::new(ErrorKind::Price, what));
        if price.unit() != self.from.unit() {
            return wrong(format!(
                "a rate from {} cannot convert {}",
                self.from.unit(),
                price.unit()
            ));
        }
        // Amounts are below 2^53 and the margin is below 2^15: the products stay below 2^121.
        let times = u128::from(price.value())
            * u128::from(self.to.value())
            * u128::from(ONE + margin.basis_points());
        let by = u128::from(self.from.value()) * u128::from(ONE);
        match u64::try_from(times.div_ceil(by)) {
            Ok(value) if (1..=MAX_AMOUNT).contains(&value) => {
                Amount::new(value, self.to.unit().clone())
            }
            _ => wrong(format!(
                "{price} is no possible amount of {} at this rate",
                self.to.unit()
            )),
        }
    }

    /// Whether `other` is within `percent` of this one, in either direction.
    #[must_use]
    pub fn is_near(&self, other: &Self, percent: u32) -> bool {
        if self.from.unit() != other.from.unit() || self.to.unit() != other.to.unit() {
            return false;
        }
        // Cross-multiplied: below 2^106, and the hundreds below 2^114.
        let ours = u128::from(self.from.value()) * u128::from(other.to.value());
        let theirs = u128::from(other.from.value()) * u128::from(self.to.value());
        let (low, high) = (ours.min(theirs), ours.max(theirs));
        high * 100 <= low * (100 + u128::from(percent.min(10_000)))
    }
}

/// For people: `1 bitcoin = 65000.00 usd`, or both sides as they are.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self.to.unit() == Unit::SATS && self.to.value() == SATS_PER_BITCOIN {
            write!(f, "1 bitcoin = {}", self.from)
        } else {
            write!(f, "{} = {}", self.to, self.from)
        }
    }
}

/// What is added to a converted price, for the time between the quote and the exchange: 0 to 100 percent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Margin(u32);

impl Margin {
    /// In hundredths of a percent, at most 10,000.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] above that.
    pub fn new(basis_points: u32) -> Result<Self> {
        if basis_points > ONE {
            return Err(Error::config("a margin must be at most 100%"));
        }
        Ok(Self(basis_points))
    }

    /// In hundredths of a percent.
    #[must_use]
    pub const fn basis_points(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Margin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 100 {
            0 => write!(f, "{}%", self.0 / 100),
            rest => write!(f, "{}.{rest:02}%", self.0 / 100),
        }
    }
}

impl fmt::Debug for Margin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Margin({self})")
    }
}

/// Reads `1%`, `1.5 %` and `0.25%`.
impl FromStr for Margin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            let shown: String = text.chars().take(20).collect();
            Error::config(format!(
                "margin {shown:?} must be a percentage from 0% to 100% with at most two decimals, such as '1.5%'"
            ))
        };
        let number = text.trim().strip_suffix('%').ok_or_else(wrong)?.trim_end();
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 2 {
            return Err(wrong());
        }
        let basis_points = format!("{whole}{fraction:0<2}")
            .parse()
            .map_err(|_| wrong())?;
        Self::new(basis_points).map_err(|_| wrong())
    }
}

/// Says what money of one unit is worth in another.
///
/// The gate asks for each quote that it has to convert, under a time limit, and decides by itself whether the answer is
/// still young enough; so answer from memory, and say truly when the rate was seen.
#[async_trait]
pub trait RateSource: fmt::Debug + Send + Sync {
    /// Whether this source is meant to know rates from `from` to `to`. Asked at start and for each quote; without I/O.
    fn covers(&self, from: &Unit, to: &Unit) -> bool;

    /// The latest rate from `from` to `to`.
    ///
    /// # Errors
    ///
    /// When there is none: nothing is quoted by this rate then. The text goes to the log, never to a client.
    async fn rate(&self, from: &Unit, to: &Unit) -> Result<Rate>;
}

/// Object safety is part of the contract.
const _: fn(&dyn RateSource) = |_| {};

/// Rates that were set by hand, and do not age.
#[derive(Debug, Clone, Default)]
pub struct FixedRates(Vec<Rate>);

impl FixedRates {
    /// These rates; of two for the same units, the first counts.
    #[must_use]
    pub fn new(rates: Vec<Rate>) -> Self {
        Self(rates)
    }

    fn find(&self, from: &Unit, to: &Unit) -> Option<&Rate> {
        self.0
            .iter()
            .find(|rate| rate.from.unit() == from && rate.to.unit() == to)
    }
}

#[async_trait]
impl RateSource for FixedRates {
    fn covers(&self, from: &Unit, to: &Unit) -> bool {
        self.find(from, to).is_some()
    }

    async fn rate(&self, from: &Unit, to: &Unit) -> Result<Rate> {
        self.find(from, to)
            .cloned()
            .ok_or_else(|| no_rate(from, to))
    }
}

/// Several sources: for each pair of units, the first that covers it.
#[async_trait]
impl RateSource for Vec<Arc<dyn RateSource>> {
    fn covers(&self, from: &Unit, to: &Unit) -> bool {
        self.iter().any(|source| source.covers(from, to))
    }

    async fn rate(&self, from: &Unit, to: &Unit) -> Result<Rate> {
        match self.iter().find(|source| source.covers(from, to)) {
            Some(source) => source.rate(from, to).await,
            None => Err(no_rate(from, to)),
        }
    }
}

fn no_rate(from: &Unit, to: &Unit) -> Error {
    Error::new(
        ErrorKind::Price,
        format!("there is no rate from {from} to {to}"),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cents(value: u64) -> Amount {
        Amount::new(value, Unit::USD_CENTS).unwrap()
    }

    fn bitcoin(price: &str) -> Rate {
        Rate::of_one_bitcoin(price, &Unit::USD_CENTS, 2).unwrap()
    }

    #[test]
    fn a_price_is_rounded_up_once_at_the_end() {
        for (price, bitcoin_price, margin, sats) in [
            (1, "100000", "0%", 10),
            (5, "65000", "0%", 77),       // 76.92
            (5, "65000", "1%", 78),       // 77.69
            (5, "65000.00", "1.5%", 79),  // 78.07
            (1, "1000000", "0%", 1),      // exactly 1
            (1, "1000000.01", "0%", 1),   // 0.99999999
            (1, "999999.99", "0%", 2),    // 1.00000001
            (1, "99999999999", "0%", 1),  // next to nothing
            (1, "1000000", "0.01%", 2),   // 1.0001
            (100, "50000", "100%", 4000), // twice 2000
        ] {
            let margin = margin.parse().unwrap();
            let sats_of = bitcoin(bitcoin_price).convert(&cents(price), margin);
            assert_eq!(
                sats_of.unwrap().value(),
                sats,
                "{price} at {bitcoin_price} with {margin}"
            );
        }
    }

    #[test]
    fn decimals_are_read_exactly_and_those_too_many_are_dropped() {
        assert_eq!(bitcoin("65000").from().value(), 6_500_000);
        assert_eq!(bitcoin("65000.1").from().value(), 6_500_010);
        let fine = bitcoin("65000.123");
        assert_eq!(
            (fine.from().value(), fine.to().value()),
            (65_000_123, 1_000_000_000)
        );
        assert_eq!(
            bitcoin("65000.1234569999999999999999").from().value(),
            65_000_123_456
        );
        let yen = Rate::of_one_bitcoin("9500000.5", &"jpy".parse().unwrap(), 0).unwrap();
        assert_eq!(
            (yen.from().value(), yen.to().value()),
            (95_000_005, 1_000_000_000)
        );
        assert_eq!(bitcoin("65000").to_string(), "1 bitcoin = 65000.00 usd");
    }

    #[test]
    fn what_is_no_price_is_refused() {
        for text in [
            "",
            "0",
            "0.00",
            "0.00000001",
            "-1",
            "+1",
            "1e5",
            "1,000",
            "NaN",
            "Infinity",
            ".5",
            "5.",
            "99999999999999999999",
            "90071992547410.00",
            "٣",
            " 1",
        ] {
            let rate = Rate::of_one_bitcoin(text, &Unit::USD_CENTS, 2);
            assert!(rate.is_err(), "{text}: {rate:?}");
        }
    }

    #[test]
    fn a_rate_has_two_units_and_something_on_both_sides() {
        assert!(Rate::new(cents(1), cents(1)).is_err());
        assert!(Rate::new(cents(0), Amount::new(1, Unit::SATS).unwrap()).is_err());
        assert!(Rate::new(cents(1), Amount::zero(Unit::SATS)).is_err());
        let rate = bitcoin("65000");
        assert!(
            rate.convert(&"5 eur-cents".parse().unwrap(), Margin::default())
                .is_err()
        );
        assert!(rate.convert(&cents(0), Margin::default()).is_err());
    }

    #[test]
    fn margins_are_percentages() {
        for (text, basis_points, shown) in [
            ("0%", 0, "0%"),
            ("1%", 100, "1%"),
            ("1.5 %", 150, "1.50%"),
            ("0.05%", 5, "0.05%"),
            ("100%", 10_000, "100%"),
        ] {
            let margin: Margin = text.parse().unwrap();
            assert_eq!(
                (margin.basis_points(), margin.to_string().as_str()),
                (basis_points, shown)
            );
        }
        for text in ["", "1", "%", "-1%", "1.234%", "100.01%", "1e2%", "٣%"] {
            assert!(text.parse::<Margin>().is_err(), "{text}");
        }
    }

    #[test]
    fn nearness_is_the_same_in_both_directions() {
        let (low, high) = (bitcoin("50000"), bitcoin("60000"));
        assert!(low.is_near(&high, 20) && high.is_near(&low, 20));
        assert!(!low.is_near(&high, 19) && !high.is_near(&low, 19));
        assert!(low.is_near(&bitcoin("50000.0001"), 1));
    }

    proptest! {
        /// Never less than the price is worth, never a whole sat more than that and its margin.
        #[test]
        fn a_conversion_never_undercharges(
            price in 1..=MAX_AMOUNT,
            from in 1..=MAX_AMOUNT,
            to in 1..=MAX_AMOUNT,
            margin in 0..=ONE,
        ) {
            let rate = Rate::new(cents(from), Amount::new(to, Unit::SATS).unwrap()).unwrap();
            let converted = rate.convert(&cents(price), Margin::new(margin).unwrap());
            let exact = u128::from(price) * u128::from(to) * u128::from(ONE + margin);
            let by = u128::from(from) * u128::from(ONE);
            match converted {
                Ok(sats) => {
                    let charged = u128::from(sats.value()) * by;
                    prop_assert!(charged >= exact, "undercharged");
                    prop_assert!(charged - exact < by, "overcharged");
                    prop_assert!(sats.value() >= 1 && sats.value() <= MAX_AMOUNT);
                }
                Err(_) => prop_assert!(exact > u128::from(MAX_AMOUNT) * by, "refused what is possible"),
            }
        }

        /// Whatever a source writes is a rate or an error, and a rate from a decimal text is never above that text.
        #[test]
        fn any_text_is_a_rate_or_an_error(text in "[0-9]{1,16}(\\.[0-9]{0,12})?|.{0,20}") {
            if let Ok(rate) = Rate::of_one_bitcoin(&text, &Unit::USD_CENTS, 2) {
                let cents_per_bitcoin = rate.from().value() as f64 / (rate.to().value() as f64 / 1e8);
                let written: f64 = text.parse().unwrap();
                prop_assert!(cents_per_bitcoin <= written * 100.0 * (1.0 + 1e-12) + 1e-9);
                prop_assert!(cents_per_bitcoin >= written * 100.0 * (1.0 - 1e-12) - 1.0);
            }
        }
    }
}
