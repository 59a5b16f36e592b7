//! HTTP as rails use it: one client, bounded in time and in size, that goes nowhere but where it was sent.
//!
//! No redirects: they would take a key to somebody else. No proxies from the environment. The TLS provider and the roots
//! are named, as for relays, so that no other crate of the program can change them. Nothing here prints an address or a
//! header: an address may hold a token.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, LOCATION};
use reqwest::{Client, RequestBuilder, Url, redirect};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::error::{Error, Result};

/// A connection that speaks something else than HTTP from now on.
#[cfg(feature = "lnbits")]
pub(super) use reqwest::Upgraded;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(60);
const USER_AGENT: &str = concat!("tollkeeper/", env!("CARGO_PKG_VERSION"));

/// A client. Clones share its connections.
#[derive(Clone)]
pub(super) struct Http(Client);

/// What came back, whatever it is.
pub(super) struct Answer {
    pub(super) status: u16,
    /// Where to, if it is a redirect.
    pub(super) location: Option<String>,
    pub(super) body: Vec<u8>,
}

/// Why no answer came back.
#[derive(Debug)]
pub(super) enum HttpError {
    /// No connection: nothing was sent.
    NotSent(reqwest::Error),
    /// It was sent, or may have been, and the answer was lost.
    Lost(reqwest::Error),
    /// The answer was longer than it may be. What was asked for may have happened.
    TooLarge(usize),
    /// Patience ran out before the answer came.
    #[cfg(feature = "stripe")]
    TooLate,
}

impl Http {
    /// A client that sends `headers` with each request and waits `timeout` for each answer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if TLS cannot be set up.
    pub(super) fn new(headers: HeaderMap, timeout: Duration) -> Result<Self> {
        let failed = || Error::config("the HTTP client cannot be set up");
        Client::builder()
            .tls_backend_preconfigured(tls()?)
            .default_headers(headers)
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            .pool_idle_timeout(IDLE)
            .build()
            .map(Self)
            .map_err(|source| failed().with_source(source.without_url()))
    }

    /// A GET of `url`.
    pub(super) fn get(&self, url: Url) -> RequestBuilder {
        self.0.get(url)
    }

    /// A POST to `url`.
    #[cfg(any(feature = "lnbits", feature = "stripe"))]
    pub(super) fn post(&self, url: Url) -> RequestBuilder {
        self.0.post(url)
    }

    /// Sends `request`, and takes at most `most` bytes back.
    ///
    /// # Errors
    ///
    /// As [`HttpError`] tells them apart.
    pub(super) async fn send(
        &self,
        request: RequestBuilder,
        most: usize,
    ) -> Result<Answer, HttpError> {
        let mut response = request.send().await.map_err(HttpError::of)?;
        let status = response.status().as_u16();
        let location = response.headers().get(LOCATION);
        let location = location.and_then(|location| location.to_str().ok().map(str::to_owned));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(HttpError::of)? {
            if body.len() + chunk.len() > most {
                return Err(HttpError::TooLarge(most));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status,
            location,
            body,
        })
    }
}

/// Without the client's default headers, which hold keys.
impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http")
    }
}

impl HttpError {
    /// What an error of the client means. Its address is left out.
    pub(super) fn of(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if error.is_connect() {
            Self::NotSent(error)
        } else {
            Self::Lost(error)
        }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(_) => f.write_str("no connection could be made"),
            Self::Lost(error) if error.is_timeout() => f.write_str("no answer came in time"),
            Self::Lost(_) => f.write_str("the connection broke before the answer was complete"),
            Self::TooLarge(most) => write!(f, "the answer was longer than {most} bytes"),
            #[cfg(feature = "stripe")]
            Self::TooLate => f.write_str("no answer came in time"),
        }
    }
}

impl StdError for HttpError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::NotSent(error) | Self::Lost(error) => Some(error),
            Self::TooLarge(_) => None,
            #[cfg(feature = "stripe")]
            Self::TooLate => None,
        }
    }
}

/// TLS as this crate does it.
///
/// # Errors
///
/// [`ErrorKind::Config`](crate::ErrorKind::Config) if the provider knows no safe version, which does not happen.
pub(super) fn tls() -> Result<ClientConfig> {
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    Ok(
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|source| Error::config("TLS is not available").with_source(source))?
            .with_root_certificates(roots)
            .with_no_client_auth(),
    )
}

/// Reads the address of a service: `https://`, or `http://` for one on this machine or in a network of one's own. It must
/// not carry a password, which would end up in logs.
///
/// # Errors
///
/// [`ErrorKind::Config`](crate::ErrorKind::Config) that does not repeat the text.
pub(super) fn parse_url(text: &str) -> Result<Url> {
    let wrong = |what: &'static str| Err(Error::config(what));
    let Ok(url) = Url::parse(text.trim()) else {
        return wrong("must be an address that begins with https:// or http://");
    };
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
        return wrong("must be an address that begins with https:// or http://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("must not hold a user name or a password");
    }
    Ok(url)
}

/// Whether everybody between here and `url` can read and change what is said.
pub(super) fn is_in_the_clear(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let here = host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    // An onion address is its own key.
    url.scheme() == "http" && !here && !host.ends_with(".onion")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_of_the_web_and_holds_no_password() {
        for good in [
            "https://lnbits.example.com",
            " http://127.0.0.1:5000/sub/ ",
            "https://[::1]:1",
        ] {
            assert!(parse_url(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "lnbits.example.com",
            "ws://x",
            "file:///etc/passwd",
            "https://user:hunter2@x",
            "https://user@x",
            "https://",
        ] {
            let error = parse_url(bad).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn what_travels_in_the_clear_is_known() {
        for (url, clear) in [
            ("https://example.com", false),
            ("http://127.0.0.1:5000", false),
            ("http://[::1]:5000", false),
            ("http://localhost", false),
            ("http://abc.onion", false),
            ("http://example.com", true),
            ("http://10.0.0.1", true),
        ] {
            assert_eq!(is_in_the_clear(&parse_url(url).unwrap()), clear, "{url}");
        }
    }

    #[test]
    fn tls_can_be_set_up_without_a_default_provider() {
        assert!(Http::new(HeaderMap::new(), Duration::from_secs(1)).is_ok());
    }
}
