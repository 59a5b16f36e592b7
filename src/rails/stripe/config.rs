//! Which account of Stripe, where, and how patiently.

use std::fmt;
use std::time::Duration;

use reqwest::Url;

use super::key::StripeKey;
use crate::error::{Error, Result};
use crate::rails::http::parse_url;

/// The version of Stripe's API that this was written against.
pub const API_VERSION: &str = "2026-10-28.endive";

/// Where Stripe is.
const BASE: &str = "https://api.stripe.com";
/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(6);
/// How long a question may take with everything that is tried again.
const PATIENCE: Duration = Duration::from_secs(9);

/// An account of Stripe, and how it is reached.
#[derive(Clone)]
pub struct StripeConfig {
    pub(super) key: StripeKey,
    pub(super) base: Url,
    pub(super) version: String,
    pub(super) timeout: Duration,
    pub(super) patience: Duration,
}

impl StripeConfig {
    /// The account of `key`. A key that moves money is refused unless `live` is said, so that nobody takes money by mistake.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a live key without `live`, or `live` without a live key.
    pub fn new(key: StripeKey, live: bool) -> Result<Self> {
        match (key.is_live(), live) {
            (true, false) => {
                return Err(Error::config(
                    "the key is a live one, which moves money: say so (live = true, or --stripe-live)",
                ));
            }
            (false, true) => {
                return Err(Error::config(
                    "live is asked for, but the key is a test key, whose money is not real",
                ));
            }
            _ => {}
        }
        Ok(Self {
            key,
            base: parse_url(BASE)?,
            version: API_VERSION.to_owned(),
            timeout: TIMEOUT,
            patience: PATIENCE,
        })
    }

    /// Asks at `url` instead of Stripe itself: a fake, or a proxy of one's own. `http://` is for this machine only, because the
    /// key travels with each question.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for what is no address, and for `http://` to another machine.
    pub fn base_url(mut self, url: &str) -> Result<Self> {
        let base = parse_url(url)
            .map_err(|error| Error::config(format!("the address of Stripe {error}")))?;
        if crate::rails::http::is_in_the_clear(&base) {
            return Err(Error::config(
                "the address of Stripe must begin with https://, or be on this machine: the key travels with each question",
            ));
        }
        if base.query().is_some() || base.fragment().is_some() {
            return Err(Error::config(
                "the address of Stripe must stand alone, without ? and #",
            ));
        }
        self.base = base;
        Ok(self)
    }

    /// Speaks another version of the API than [`API_VERSION`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for what is no version.
    pub fn api_version(mut self, version: &str) -> Result<Self> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if version.is_empty() || version.len() > 64 || !version.bytes().all(legal) {
            return Err(Error::config(
                "the version of Stripe's API must look like 2026-10-28.endive",
            ));
        }
        version.clone_into(&mut self.version);
        Ok(self)
    }

    /// How long one answer may take (6 s unless said otherwise), and a question with everything that is tried again (9 s).
    #[must_use]
    pub fn timeouts(mut self, one: Duration, all: Duration) -> Self {
        self.timeout = one;
        self.patience = all;
        self
    }

    /// What the key is known by where it must not be seen.
    #[must_use]
    pub fn key_fingerprint(&self) -> String {
        self.key.fingerprint()
    }

    /// Whether money is moved.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.key.is_live()
    }
}

impl fmt::Debug for StripeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StripeConfig")
            .field("host", &self.base.host_str())
            .field("version", &self.version)
            .field("live", &self.is_live())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_moved_only_if_it_is_said() {
        let of = |key: &str, live| StripeConfig::new(StripeKey::parse(key).unwrap(), live);
        assert!(of("sk_test_5ec7e7", false).is_ok());
        assert!(of("sk_live_5ec7e7", true).is_ok());
        for (key, live) in [("sk_live_5ec7e7", false), ("sk_test_5ec7e7", true)] {
            let error = of(key, live).unwrap_err().to_string();
            assert!(
                error.contains("live") && !error.contains("5ec7e7"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_key_goes_nowhere_in_the_clear() {
        let config = StripeConfig::new(StripeKey::parse("sk_test_5ec7e7").unwrap(), false).unwrap();
        for (url, taken) in [
            ("http://127.0.0.1:12111", true),
            ("https://stripe.example.com/v", true),
            ("http://stripe.example.com", false),
            ("https://stripe.example.com/?x", false),
            ("stripe.example.com", false),
        ] {
            assert_eq!(config.clone().base_url(url).is_ok(), taken, "{url}");
        }
        assert!(config.clone().api_version("2026-07-29.preview").is_ok());
        assert!(config.clone().api_version("new\r\nline").is_err());
        assert!(!format!("{config:?}").contains("5ec7e7"));
    }
}
