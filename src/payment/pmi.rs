//! Payment method identifiers (CEP-8, CEP-21).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// The PMI of a BOLT11 invoice on the Bitcoin Lightning network.
pub const BITCOIN_LIGHTNING_BOLT11: &str = "bitcoin-lightning-bolt11";

/// The PMI of a page of Stripe Checkout, where a person pays by card and what else Stripe takes. Ours: CEP-8 lists none.
pub const STRIPE_CHECKOUT_URL: &str = "stripe-checkout-url";

/// The PMI of a shared payment token of Stripe that comes with the request. Ours, too; CEP-8 has such names end in `-direct`.
pub const STRIPE_SPT_DIRECT: &str = "stripe-spt-direct";

/// The PMI of the fake rail. It is not money.
pub const FAKE: &str = "fake";

/// A payment method identifier: `[a-z0-9-]+`, at most 64 characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pmi(Arc<str>);

impl Pmi {
    /// Whether it is the name of a method whose money comes with the request (CEP-8).
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.0.ends_with("-direct")
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Pmi {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() || text.len() > 64 || !text.bytes().all(legal) {
            let shown: String = text.chars().take(64).collect();
            return Err(Error::config(format!(
                "payment method identifier {shown:?} must be 1 to 64 characters out of a-z, 0-9 and '-'"
            )));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Pmi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Pmi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pmi({})", self.0)
    }
}

impl Serialize for Pmi {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pmi {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_alphabet_of_cep_8_is_accepted() {
        assert_eq!(
            BITCOIN_LIGHTNING_BOLT11.parse::<Pmi>().unwrap().as_str(),
            BITCOIN_LIGHTNING_BOLT11
        );
        for bad in ["", "Fake", "a b", "a_b", "é", &"a".repeat(65)] {
            assert!(bad.parse::<Pmi>().is_err(), "{bad}");
        }
    }
}
