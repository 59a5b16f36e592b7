//! Where LNbits is, and with which of its keys it is asked.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;

use crate::error::{Error, Result};
use crate::rails::http::parse_url;
use crate::rails::lightning::Network;
use crate::rails::lightning::wallet_name::wallet_name;

/// One wallet of one LNbits server.
///
/// Each wallet of LNbits has two keys. The *invoice key* makes invoices and looks them up: it is all that a seller needs,
/// and it cannot spend. The *admin key* also pays: a buyer needs it.
#[derive(Clone)]
pub struct LnbitsConfig {
    pub(super) url: Url,
    pub(super) key: ApiKey,
    pub(super) network: Network,
    pub(super) webhook: Option<WebhookConfig>,
    pub(super) timeout: Duration,
    pub(super) payment_timeout: Duration,
}

/// How long an answer may take: minting has to fit into what the gate allows for it, with a look-up behind it.
const TIMEOUT: Duration = Duration::from_secs(6);
/// How long a payment may take to answer: LNbits waits some seconds for its node before it says "pending".
const PAYMENT_TIMEOUT: Duration = Duration::from_secs(30);

/// Where LNbits is told to call, and where that call arrives.
#[derive(Clone)]
pub(super) struct WebhookConfig {
    pub(super) listen: SocketAddr,
    pub(super) public_url: Url,
}

impl LnbitsConfig {
    /// Which wallet it is: its key, at its address.
    pub(super) fn wallet_name(&self) -> String {
        wallet_name("lnbits", &[self.url.as_str(), self.key.reveal()])
    }

    /// The wallet that `key` opens, at `url`: the address at which LNbits shows its front page.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for an address or a key that cannot be one. The key is not repeated.
    pub fn new(url: &str, key: &str) -> Result<Self> {
        let url = parse_url(url)
            .map_err(|error| Error::config(format!("the address of LNbits {error}")))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Error::config(
                "the address of LNbits must stand alone, without ? and #",
            ));
        }
        Ok(Self {
            url,
            key: ApiKey::parse(key)?,
            network: Network::default(),
            webhook: None,
            timeout: TIMEOUT,
            payment_timeout: PAYMENT_TIMEOUT,
        })
    }

    /// The network that its invoices are for; the Bitcoin network unless said otherwise.
    #[must_use]
    pub fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Lets LNbits say when something was paid, by a webhook that arrives at `listen` and that LNbits reaches under
    /// `public_url`. It is a hint only, and without it nothing is lost: the websocket and look-ups find every payment.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a `public_url` that cannot be one.
    pub fn webhook(mut self, listen: SocketAddr, public_url: &str) -> Result<Self> {
        let public_url = parse_url(public_url)
            .map_err(|error| Error::config(format!("the address of the webhook {error}")))?;
        if public_url.query().is_some() || public_url.fragment().is_some() {
            return Err(Error::config(
                "the address of the webhook must be without ? and #",
            ));
        }
        self.webhook = Some(WebhookConfig { listen, public_url });
        Ok(self)
    }

    /// How long LNbits may take to answer (6 s unless said otherwise), and how long to answer to a payment (30 s), whose
    /// outcome is asked for twice as long after that.
    #[must_use]
    pub fn timeouts(mut self, answer: Duration, payment: Duration) -> Self {
        self.timeout = answer;
        self.payment_timeout = payment;
        self
    }

    /// Host and port: what of it may be printed.
    #[must_use]
    pub fn host(&self) -> String {
        host_of(&self.url)
    }
}

/// Host and port of `url`: what may be printed of it.
pub(super) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

impl fmt::Debug for LnbitsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LnbitsConfig")
            .field("host", &self.host())
            .field("network", &self.network)
            .field("webhook", &self.webhook.is_some())
            .finish_non_exhaustive()
    }
}

/// A key of a wallet of LNbits. It is never printed.
#[derive(Clone)]
pub(super) struct ApiKey(String);

impl ApiKey {
    fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > 128 || !text.bytes().all(legal) {
            return Err(Error::config(
                "a key of an LNbits wallet must be 32 hex digits, as its page shows them",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The key, to be sent.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// The key as the value of a header, which does not print it either.
    pub(super) fn header(&self) -> Result<HeaderValue> {
        let mut value =
            HeaderValue::from_str(&self.0).map_err(|_| Error::config("the key cannot be sent"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_told_without_the_key() {
        for (url, key) in [
            (
                "https://lnbits.example.com",
                "0123 4567\n89abcdef0123456789abcdef",
            ),
            ("https://lnbits.example.com", ""),
            ("https://lnbits.example.com?usr=0123", "0123"),
            ("https://lnbits.example.com/#0123", "0123"),
            ("lnbits.example.com", "0123"),
        ] {
            let error = LnbitsConfig::new(url, key).unwrap_err().to_string();
            assert!(!error.contains("0123"), "{error}");
        }
    }

    #[test]
    fn a_key_is_not_printed() {
        let config = LnbitsConfig::new("https://x.example.com:8443/sub/", " 5ec7e7 ").unwrap();
        assert_eq!(config.key.reveal(), "5ec7e7");
        assert_eq!(config.host(), "x.example.com:8443");
        let printed = format!("{config:?} {:?} {:?}", config.key, config.key.header());
        assert!(!printed.contains("5ec7e7"), "{printed}");
    }
}
