//! Questions to Stripe's API: one at a time, bounded in time and size, repeated only where that is safe.
//!
//! Every POST carries an idempotency key that is derived from what is on our books, so asking twice does one thing. Without a
//! key nothing can be posted.

use std::fmt;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{RequestBuilder, Url};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};

use super::config::StripeConfig;
use super::error::{Cause, StripeError};
use super::form::Form;
use crate::error::{Error, Result};
use crate::rails::http::{Answer, Http, HttpError};

/// The longest answer: a page of a hundred objects.
const LONGEST: usize = 4 * 1024 * 1024;
/// The longest idempotency key that Stripe takes.
const LONGEST_KEY: usize = 255;
/// How long is waited before a question is put again.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(1000)];

const VERSION: HeaderName = HeaderName::from_static("stripe-version");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// One account of Stripe. Clones share its connections.
#[derive(Clone)]
pub struct StripeClient {
    http: Http,
    base: Url,
    version: HeaderValue,
    patience: Duration,
    live: bool,
}

impl StripeClient {
    /// A client of the account that `config` names. Nothing is asked yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if TLS cannot be set up.
    pub fn new(config: &StripeConfig) -> Result<Self> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, config.key.header()?);
        let version = HeaderValue::from_str(&config.version)
            .map_err(|_| Error::config("the version of Stripe's API cannot be sent"))?;
        Ok(Self {
            http: Http::new(headers, config.timeout)?,
            base: config.base.clone(),
            version,
            patience: config.patience,
            live: config.is_live(),
        })
    }

    /// Whether money is moved.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.live
    }

    /// The same account under another version of the API.
    pub(super) fn with_version(mut self, version: HeaderValue) -> Self {
        self.version = version;
        self
    }

    /// GET of `path` (its parts) with `query`.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &Form,
    ) -> Result<T, StripeError> {
        let mut url = self.url(path)?;
        if !query.as_str().is_empty() {
            url.set_query(Some(query.as_str()));
        }
        self.ask(|| self.http.get(url.clone())).await
    }

    /// POST of `form` to `path`, under `key`: the same key again is the same deed.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        form: &Form,
        key: &str,
    ) -> Result<T, StripeError> {
        let url = self.url(path)?;
        let legal = !key.is_empty() && key.len() <= LONGEST_KEY;
        let key = HeaderValue::from_str(key).ok().filter(|_| legal);
        let key = key.ok_or(StripeError::invalid(
            "an idempotency key that cannot be sent",
        ))?;
        let request = || {
            self.http
                .post(url.clone())
                .header(IDEMPOTENCY_KEY, key.clone())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form.as_str().to_owned())
        };
        self.ask(request).await
    }

    fn url(&self, path: &[&str]) -> Result<Url, StripeError> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| StripeError::invalid("its address cannot be used"))?
            .pop_if_empty()
            .push("v1")
            .extend(path);
        Ok(url)
    }

    /// Asks, and asks again what may be answered otherwise in a moment, as long as patience lasts.
    async fn ask<T: DeserializeOwned>(
        &self,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<T, StripeError> {
        let deadline = Instant::now() + self.patience;
        let mut pauses = PAUSES.iter();
        loop {
            let error = match self.ask_once(request(), deadline).await {
                Ok(answer) => {
                    return serde_json::from_slice(&answer.body).map_err(|_| {
                        StripeError::invalid("it answered something that cannot be read")
                    });
                }
                Err(error) => error,
            };
            let pause = pauses.next().copied();
            let Some(pause) = pause.filter(|_| error.may_pass()) else {
                return Err(error);
            };
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            sleep(pause).await;
        }
    }

    async fn ask_once(
        &self,
        request: RequestBuilder,
        deadline: Instant,
    ) -> Result<Answer, StripeError> {
        let request = request.header(VERSION, self.version.clone());
        let answered = timeout_at(deadline, self.http.send(request, LONGEST)).await;
        let answer = answered.map_err(|_| StripeError(Cause::Http(HttpError::TooLate)))??;
        if answer.status == 200 {
            return Ok(answer);
        }
        Err(StripeError::of(&answer))
    }
}

impl fmt::Debug for StripeClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StripeClient")
            .field("host", &self.base.host_str())
            .field("live", &self.live)
            .finish_non_exhaustive()
    }
}
