//! Units of money. Two units never compare or add.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// The unit that an amount counts, by its label in config and on the wire: `sats`, `usd-cents`, `eur-cents`, …
///
/// The label names the smallest unit, so that amounts are whole numbers.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Unit(Cow<'static, str>);

/// Currencies that people may write in whole units ("0.05 usd"): ISO code, label of the minor unit.
const CENT_CURRENCIES: [(&str, &str); 6] = [
    ("usd", "usd-cents"),
    ("eur", "eur-cents"),
    ("gbp", "gbp-pence"),
    ("chf", "chf-rappen"),
    ("cad", "cad-cents"),
    ("aud", "aud-cents"),
];

impl Unit {
    /// Satoshis, the unit of CEP-8's Lightning amounts.
    pub const SATS: Self = Self(Cow::Borrowed("sats"));

    /// Hundredths of a US dollar.
    pub const USD_CENTS: Self = Self(Cow::Borrowed("usd-cents"));

    /// The label.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The unit that a person means by `word`, with the number of decimals that an amount may have: `sat` has none, `usd`
    /// has two and counts cents. Any other word is a label that counts whole.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for what is no label.
    pub fn from_word(word: &str) -> Result<(Self, u32)> {
        let lower = word.to_ascii_lowercase();
        if matches!(lower.as_str(), "sat" | "sats" | "satoshi" | "satoshis") {
            return Ok((Self::SATS, 0));
        }
        if let Some((_, label)) = CENT_CURRENCIES.iter().find(|(code, _)| *code == lower) {
            return Ok((Self(Cow::Borrowed(label)), 2));
        }
        Ok((lower.parse()?, 0))
    }

    /// The label and the sign-less amount for people: `7 sats`, `0.05 usd`.
    pub(super) fn display(&self, value: u64) -> String {
        match CENT_CURRENCIES
            .iter()
            .find(|(_, label)| *label == self.as_str())
        {
            Some((code, _)) => format!("{}.{:02} {code}", value / 100, value % 100),
            None => format!("{value} {self}"),
        }
    }
}

impl FromStr for Unit {
    type Err = Error;

    /// Reads a label as it stands on the wire: `[a-z0-9-]+`, at most 32 characters.
    fn from_str(label: &str) -> Result<Self> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if label.is_empty() || label.len() > 32 || !label.bytes().all(legal) {
            let shown: String = label.chars().take(32).collect();
            return Err(Error::config(format!(
                "unit {shown:?} must be a label such as sats, usd-cents or eur-cents"
            )));
        }
        Ok(match label {
            "sats" => Self::SATS,
            "usd-cents" => Self::USD_CENTS,
            _ => Self(Cow::Owned(label.to_owned())),
        })
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Unit {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Unit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
