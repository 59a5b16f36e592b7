//! Units of ours and currencies of Stripe, with the least that can be charged.

use crate::payment::{Amount, Unit};

/// A currency as Stripe writes it: three lower-case letters.
pub type Currency = &'static str;

/// Currency, and the least that a card can be charged in it, in its minor unit. From Stripe's table of minimum charges;
/// what is not in it cannot be charged here.
const MINIMUMS: [(Currency, u64); 21] = [
    ("usd", 50),
    ("eur", 50),
    ("gbp", 30),
    ("aud", 50),
    ("cad", 50),
    ("chf", 50),
    ("nzd", 50),
    ("sgd", 50),
    ("jpy", 50),
    ("sek", 300),
    ("nok", 300),
    ("dkk", 250),
    ("hkd", 400),
    ("mxn", 1000),
    ("pln", 200),
    ("ron", 200),
    ("aed", 200),
    ("myr", 200),
    ("czk", 1500),
    ("huf", 17_500),
    ("thb", 1000),
];

/// Currencies without a minor unit.
const WHOLE: [Currency; 1] = ["jpy"];

/// The currency whose minor unit `unit` is: `usd-cents` is `usd`. A currency without one is written as it is: `jpy`.
#[must_use]
pub fn currency_of(unit: &Unit) -> Option<Currency> {
    let label = unit.as_str();
    let (code, minor) = match label.split_once('-') {
        Some((code, minor)) => (code, !minor.is_empty()),
        None => (label, false),
    };
    let (currency, _) = MINIMUMS.iter().find(|(currency, _)| *currency == code)?;
    (minor != WHOLE.contains(currency)).then_some(*currency)
}

/// The unit of ours that counts the minor unit of `currency`: that of [`Unit::from_word`], else `<currency>-minor`.
pub(super) fn unit_of(currency: &str) -> Option<Unit> {
    let (known, _) = MINIMUMS.iter().find(|(known, _)| *known == currency)?;
    let (unit, decimals) = Unit::from_word(known).ok()?;
    if decimals > 0 || WHOLE.contains(known) {
        return Some(unit);
    }
    format!("{known}-minor").parse().ok()
}

/// The least that can be charged in `unit`; `None` if nothing can.
#[must_use]
pub fn minimum_of(unit: &Unit) -> Option<Amount> {
    let currency = currency_of(unit)?;
    let (_, least) = MINIMUMS.iter().find(|(known, _)| *known == currency)?;
    Amount::new(*least, unit.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_the_minor_unit_of_a_currency_or_is_not_charged() {
        for (unit, currency, least) in [
            ("usd-cents", Some("usd"), 50),
            ("gbp-pence", Some("gbp"), 30),
            ("chf-rappen", Some("chf"), 50),
            ("jpy", Some("jpy"), 50),
            ("usd", None, 0),
            ("jpy-sen", None, 0),
            ("sats", None, 0),
            ("xxx-cents", None, 0),
        ] {
            let unit: Unit = unit.parse().unwrap();
            assert_eq!(currency_of(&unit), currency, "{unit}");
            let minimum = minimum_of(&unit).map_or(0, |amount| amount.value());
            assert_eq!(minimum, least, "{unit}");
        }
        for (currency, _) in MINIMUMS {
            let unit = unit_of(currency).unwrap();
            assert_eq!(currency_of(&unit), Some(currency), "{unit}");
        }
        assert_eq!(unit_of("usd").unwrap().as_str(), "usd-cents");
        assert_eq!(unit_of("xxx"), None);
    }
}
