//! Amounts of money and ranges of price: whole numbers with their unit.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Unit;
use crate::error::{Error, Result};

/// The largest amount: 2^53 - 1, the largest integer that every JSON peer reads exactly (N-62).
pub const MAX_AMOUNT: u64 = 9_007_199_254_740_991;

/// So much money: a whole number of the smallest unit.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Plain")]
pub struct Amount {
    value: u64,
    unit: Unit,
}

#[derive(Deserialize)]
struct Plain {
    value: u64,
    unit: Unit,
}

impl TryFrom<Plain> for Amount {
    type Error = Error;

    fn try_from(plain: Plain) -> Result<Self> {
        Self::new(plain.value, plain.unit)
    }
}

impl Amount {
    /// `value` of `unit`. Zero is an amount (of a budget); a price is at least 1.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) above [`MAX_AMOUNT`].
    pub fn new(value: u64, unit: Unit) -> Result<Self> {
        if value > MAX_AMOUNT {
            return Err(Error::config(format!(
                "an amount must be at most {MAX_AMOUNT}"
            )));
        }
        Ok(Self { value, unit })
    }

    /// Nothing, in `unit`.
    #[must_use]
    pub const fn zero(unit: Unit) -> Self {
        Self { value: 0, unit }
    }

    /// How many of the unit.
    #[must_use]
    pub const fn value(&self) -> u64 {
        self.value
    }

    /// Of what.
    #[must_use]
    pub const fn unit(&self) -> &Unit {
        &self.unit
    }

    /// The sum, if the units agree and the sum is still an amount.
    #[must_use]
    pub fn checked_add(&self, other: &Self) -> Option<Self> {
        if self.unit != other.unit {
            return None;
        }
        Self::new(self.value.checked_add(other.value)?, self.unit.clone()).ok()
    }

    /// The rest, if the units agree and `other` is not more.
    #[must_use]
    pub fn checked_sub(&self, other: &Self) -> Option<Self> {
        if self.unit != other.unit {
            return None;
        }
        Some(Self {
            value: self.value.checked_sub(other.value)?,
            unit: self.unit.clone(),
        })
    }

    /// Whether this is at least as much as `other`; `None` if the units differ, because then there is no answer.
    #[must_use]
    pub fn covers(&self, other: &Self) -> Option<bool> {
        (self.unit == other.unit).then_some(self.value >= other.value)
    }
}

/// For people: `7 sats`, `0.05 usd`. [`FromStr`] reads it back.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.unit.display(self.value))
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Amount({} {})", self.value, self.unit)
    }
}

/// Reads what people write: `10 sat`, `10sats`, `0.05 usd`, `5 usd-cents`.
impl FromStr for Amount {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (number, word) = split_number(text)?;
        let (unit, decimals) = Unit::from_word(word)?;
        Self::new(parse_decimal(number, decimals, text)?, unit)
    }
}

/// `"10 sat"` → `("10", "sat")`.
fn split_number(text: &str) -> Result<(&str, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-'))
        .unwrap_or(text.len());
    let (number, word) = (text[..end].trim(), text[end..].trim());
    if number.is_empty() || word.is_empty() {
        return Err(Error::config(format!(
            "amount {:?} must be a number and a unit, such as '10 sats' or '0.05 usd'",
            text.chars().take(40).collect::<String>()
        )));
    }
    Ok((number, word))
}

/// A decimal number as a count of the smallest unit, exactly: more decimals than the unit has are refused, not rounded.
fn parse_decimal(number: &str, decimals: u32, shown: &str) -> Result<u64> {
    let wrong = || {
        Error::config(format!(
            "amount {:?} must be a positive number with at most {decimals} decimals",
            shown.trim().chars().take(40).collect::<String>()
        ))
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > decimals as usize
    {
        return Err(wrong());
    }
    let scale = 10u64.pow(decimals);
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let padded = format!("{fraction:0<width$}", width = decimals as usize);
    let fraction: u64 = if padded.is_empty() {
        0
    } else {
        padded.parse().map_err(|_| wrong())?
    };
    whole
        .checked_mul(scale)
        .and_then(|value| value.checked_add(fraction))
        .ok_or_else(wrong)
}

/// An advertised price: fixed, or anything from a minimum to a maximum, both inclusive (CEP-8).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PriceRange {
    min: u64,
    max: u64,
    unit: Unit,
}

impl PriceRange {
    /// A fixed price.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a price below 1.
    pub fn fixed(price: Amount) -> Result<Self> {
        Self::new(price.clone(), price)
    }

    /// From `min` to `max`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) unless 1 ≤ min ≤ max and both have one unit.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "amounts are values, and both ends are one kind of argument"
    )]
    pub fn new(min: Amount, max: Amount) -> Result<Self> {
        if min.unit != max.unit {
            return Err(Error::config(format!(
                "a price range must have one unit, not {} and {}",
                min.unit, max.unit
            )));
        }
        if min.value == 0 {
            return Err(Error::config(
                "a price must be at least 1; to give something away, waive it",
            ));
        }
        if min.value > max.value {
            return Err(Error::config(format!(
                "the maximum {} must not be below the minimum {}",
                max.value, min.value
            )));
        }
        Ok(Self {
            min: min.value,
            max: max.value,
            unit: min.unit,
        })
    }

    /// The least that may be charged; the price where it is fixed.
    #[must_use]
    pub fn min(&self) -> Amount {
        Amount {
            value: self.min,
            unit: self.unit.clone(),
        }
    }

    /// The most that may be charged.
    #[must_use]
    pub fn max(&self) -> Amount {
        Amount {
            value: self.max,
            unit: self.unit.clone(),
        }
    }

    /// The unit of both ends.
    #[must_use]
    pub fn unit(&self) -> &Unit {
        &self.unit
    }

    /// Whether `amount` has this unit and lies inside.
    #[must_use]
    pub fn contains(&self, amount: &Amount) -> bool {
        amount.unit == self.unit && (self.min..=self.max).contains(&amount.value)
    }
}

impl fmt::Display for PriceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "{}", self.min())
        } else {
            write!(f, "{} to {}", self.min(), self.max())
        }
    }
}

/// Reads `10 sat` and `10-50 sat`.
impl FromStr for PriceRange {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (number, word) = split_number(text)?;
        let (unit, decimals) = Unit::from_word(word)?;
        let (min, max) = number.split_once('-').unwrap_or((number, number));
        let amount = |number| Amount::new(parse_decimal(number, decimals, text)?, unit.clone());
        Self::new(amount(min)?, amount(max)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_may_write_amounts_as_they_say_them() {
        for (text, value, unit) in [
            ("10 sat", 10, "sats"),
            ("10sats", 10, "sats"),
            ("0.05 usd", 5, "usd-cents"),
            ("1.5 EUR", 150, "eur-cents"),
            ("5 usd-cents", 5, "usd-cents"),
            ("0 sats", 0, "sats"),
        ] {
            let amount: Amount = text.parse().unwrap();
            assert_eq!(
                (amount.value(), amount.unit().as_str()),
                (value, unit),
                "{text}"
            );
            assert_eq!(amount.to_string().parse::<Amount>().unwrap(), amount);
        }
    }

    #[test]
    fn nothing_is_rounded_guessed_or_wrapped() {
        for text in [
            "",
            "10",
            "sats",
            "1.5 sats",
            "0.005 usd",
            "-5 sats",
            "1e3 sats",
            "٣ sats",
            "99999999999999999999 sats",
            "9007199254740992 sats",
            ".5 usd",
            "1.2.3 usd",
        ] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
    }

    #[test]
    fn two_units_never_meet() {
        let (sats, cents): (Amount, Amount) =
            ("5 sats".parse().unwrap(), "0.05 usd".parse().unwrap());
        assert_eq!(sats.checked_add(&cents), None);
        assert_eq!(sats.checked_sub(&cents), None);
        assert_eq!(sats.covers(&cents), None);
        assert_eq!(sats.covers(&sats), Some(true));
    }

    #[test]
    fn a_price_range_is_ordered_and_at_least_one() {
        assert!(
            "10-50 sat"
                .parse::<PriceRange>()
                .unwrap()
                .contains(&"50 sats".parse().unwrap())
        );
        assert!(
            !"10-50 sat"
                .parse::<PriceRange>()
                .unwrap()
                .contains(&"51 sats".parse().unwrap())
        );
        for text in [
            "0 sat",
            "50-10 sat",
            "0-5 sat",
            "10- sat",
            "-10 sat",
            "1-2-3 sat",
        ] {
            assert!(text.parse::<PriceRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_amount_from_disk_is_checked_like_any_other() {
        assert!(
            serde_json::from_str::<Amount>(r#"{"value":9007199254740992,"unit":"sats"}"#).is_err()
        );
    }
}
