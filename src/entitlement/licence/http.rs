//! HTTP as licences use it: JSON to and from one issuer, bounded in time and in size. No redirects, which would take a key
//! to somebody else; no proxies from the environment. Nothing here prints an address or a header.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, HeaderValue};
use reqwest::{Client, RequestBuilder, Url, redirect};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::moment;
use crate::error::{Error, ErrorKind, Result};
use crate::payment::Timestamp;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const USER_AGENT: &str = concat!("tollkeeper/", env!("CARGO_PKG_VERSION"));

/// The longest answer that is read.
const LONGEST: usize = 16 << 20;

/// A client of one issuer.
#[derive(Clone)]
pub(super) struct Http {
    client: Client,
    base: Url,
}

/// An answer, with the time at the other end if it says one.
pub(super) struct Answer<T> {
    pub(super) body: T,
    pub(super) date: Option<Timestamp>,
}

impl Http {
    /// A client of the issuer at `base`, which shows `api_key` if there is one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for an address or a key that cannot be used; the text repeats neither.
    pub(super) fn new(base: &str, api_key: Option<&str>, timeout: Duration) -> Result<Self> {
        let mut headers = HeaderMap::new();
        if let Some(key) = api_key {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                .map_err(|_| Error::config("the API key holds what no header can"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let failed = || Error::config("the HTTP client cannot be set up");
        let client = Client::builder()
            .tls_backend_preconfigured(tls()?)
            .default_headers(headers)
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            .build()
            .map_err(|source| failed().with_source(source.without_url()))?;
        Ok(Self {
            client,
            base: parse_base(base)?,
        })
    }

    /// Asks for `path` below the base, with `query`.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<Answer<T>> {
        let mut url = self.url(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.send(self.client.get(url)).await
    }

    /// Sends `body` to `path` below the base.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<Answer<T>> {
        let request = self
            .client
            .post(self.url(path)?)
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .body(body.to_string());
        self.send(request).await
    }

    fn url(&self, path: &str) -> Result<Url> {
        let mut url = self.base.clone();
        let below = format!("{}{path}", url.path().trim_end_matches('/'));
        url.set_path(&below);
        Ok(url)
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<Answer<T>> {
        let failed = |source: reqwest::Error| {
            Error::transport("the issuer of licences cannot be reached")
                .with_source(source.without_url())
        };
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        let date = response.headers().get(DATE);
        let date = date.and_then(|date| moment::parse_http_date(date.to_str().ok()?));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > LONGEST {
                return Err(Error::new(
                    ErrorKind::TooLarge,
                    "the issuer of licences answered at too great a length",
                ));
            }
            body.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            return Err(Error::transport(format!(
                "the issuer of licences answered with status {}",
                status.as_u16()
            )));
        }
        let body = serde_json::from_slice(&body).map_err(|_| {
            Error::transport("the issuer of licences answered with something else than expected")
        })?;
        Ok(Answer { body, date })
    }
}

/// Without the base, which may hold what is nobody's business, and without the headers.
impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http")
    }
}

fn tls() -> Result<ClientConfig> {
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

/// Keys and tokens travel there: `https://`, or `http://` on this very machine.
fn parse_base(text: &str) -> Result<Url> {
    let wrong = || {
        Error::config(
            "the address of an issuer must begin with https:// (http:// on this machine only) and hold no password",
        )
    };
    let url = Url::parse(text.trim()).map_err(|_| wrong())?;
    let host = url.host_str().ok_or_else(wrong)?;
    let here = host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    let private = url.scheme() == "https" || url.scheme() == "http" && here;
    let bare = url.username().is_empty() && url.password().is_none();
    if private && bare {
        Ok(url)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_nowhere_in_the_clear() {
        for good in [
            "https://aicoach.pw",
            "http://127.0.0.1:1/x/",
            "http://[::1]:1",
            "http://localhost",
        ] {
            assert!(parse_base(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "aicoach.pw",
            "http://aicoach.pw",
            "https://a:hunter2@x",
            "file:///x",
            "http://10.0.0.1",
        ] {
            let error = parse_base(bad).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
