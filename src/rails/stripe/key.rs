//! Secret keys of a Stripe account: for play money or for money, and never printed.

use std::fmt;

use reqwest::header::HeaderValue;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// A secret (`sk_…`) or restricted (`rk_…`) key.
#[derive(Clone)]
pub struct StripeKey {
    text: String,
    live: bool,
}

impl StripeKey {
    /// Reads a key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) that does not repeat it.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let secret = text
            .strip_prefix("sk_")
            .or_else(|| text.strip_prefix("rk_"));
        let mode = secret.and_then(|rest| rest.split_once('_'));
        match mode {
            Some((mode @ ("test" | "live"), rest))
                if !rest.is_empty() && text.len() <= 255 && text.bytes().all(legal) =>
            {
                Ok(Self {
                    text: text.to_owned(),
                    live: mode == "live",
                })
            }
            _ => Err(Error::config(
                "must be a secret or restricted key of a Stripe account: sk_test_…, sk_live_…, rk_test_… or rk_live_…",
            )),
        }
    }

    /// Whether it moves money.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.live
    }

    /// What the key is known by where it must not be seen: the beginning of a hash, which leads back to no key.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"tollkeeper stripe key 1:");
        hash.update(self.text.as_bytes());
        let digest = hash.finalize();
        let bytes = digest.iter().take(8);
        bytes.map(|byte| format!("{byte:02x}")).collect()
    }

    /// As a header, which does not print it either.
    pub(super) fn header(&self) -> Result<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.text))
            .map_err(|_| Error::config("the key cannot be sent"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for StripeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.live { "live" } else { "test" };
        write!(f, "StripeKey({mode}, hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_and_live_keys_are_told_apart_and_neither_is_printed() {
        for (text, live) in [
            ("sk_test_5ec7e7", false),
            (" rk_test_5ec7e7\n", false),
            ("sk_live_5ec7e7", true),
            ("rk_live_5ec7e7", true),
        ] {
            let key = StripeKey::parse(text).unwrap();
            assert_eq!(key.is_live(), live, "{text}");
            let printed = format!("{key:?} {:?}", key.header().unwrap());
            assert!(!printed.contains("5ec7e7"), "{printed}");
        }
        for bad in [
            "",
            "pk_live_5ec7e7",
            "sk_5ec7e7",
            "sk_prod_5ec7e7",
            "sk_live_",
            "sk_live_5ec 7e7",
            "whsec_5ec7e7",
        ] {
            let error = StripeKey::parse(bad).unwrap_err().to_string();
            assert!(!error.contains("5ec7e7"), "{error}");
        }
    }
}
