//! The price of one bitcoin from a JSON document on the web, asked for again and again.
//!
//! A source is a stranger: it may be down, hang, be wrong by a factor of a hundred million, or be taken over. It can keep a
//! server from selling, and no more: what it says counts only inside the bounds that the operator set, a sudden change
//! counts only once a second answer confirms it, and the gate quotes nothing at a rate that is too old.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Url;
use reqwest::header::HeaderMap;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::document::{Pointer, number_at};
use crate::error::{Error, ErrorKind, Result};
use crate::payment::{Clock, Rate, RateSource, SystemClock, Unit};
use crate::rails::http::{Http, is_in_the_clear, parse_url};

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest document that is read: several times what price services send.
const LONGEST: usize = 256 * 1024;
/// How soon a failed attempt is repeated, at first; twice as long each time, up to the usual pace.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// A change by more than this from one answer to the next is believed when the next one confirms it.
const SUDDEN_PERCENT: u32 = 10;

/// Where a rate comes from, and what is believed of it.
#[derive(Clone)]
pub struct HttpRateConfig {
    unit: Unit,
    decimals: u32,
    url: Url,
    pointer: Pointer,
    least: Rate,
    most: Rate,
    every: Duration,
    clock: Arc<dyn Clock>,
}

impl HttpRateConfig {
    /// The price of one bitcoin in `currency` (`usd`), as the document at `url` says it. What follows `#` in `url` is a JSON
    /// pointer to the number: `https://example.com/prices#/USD`.
    ///
    /// `least` and `most` are what one bitcoin may cost, as plain numbers: an answer outside is not believed. They are what
    /// keeps a pointer to the wrong number, or a source that was taken over, from giving the goods away.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for whatever cannot be read.
    pub fn new(currency: &str, url: &str, least: &str, most: &str) -> Result<Self> {
        let (unit, decimals) = Unit::from_word(currency)?;
        if unit == Unit::SATS {
            return Err(Error::config("sats need no rate"));
        }
        let (url, pointer) = url.split_once('#').unwrap_or((url, ""));
        let url = parse_url(url)
            .map_err(|error| Error::config(format!("the address of the rate {error}")))?;
        let pointer = Pointer::parse(pointer).ok_or_else(|| {
            Error::config("what follows # must be a JSON pointer, such as #/USD or #/data/amount")
        })?;
        let least = Rate::of_one_bitcoin(least, &unit, decimals)?;
        let most = Rate::of_one_bitcoin(most, &unit, decimals)?;
        if !is_at_least(&most, &least) {
            return Err(Error::config(
                "the least that a bitcoin may cost must not be above the most",
            ));
        }
        Ok(Self {
            unit,
            decimals,
            url,
            pointer,
            least,
            most,
            every: Duration::from_secs(60),
            clock: Arc::new(SystemClock),
        })
    }

    /// Asks this often; once a minute unless said otherwise.
    #[must_use]
    pub fn every(mut self, pace: Duration) -> Self {
        self.every = pace.max(Duration::from_millis(100));
        self
    }

    /// Dates what is seen by this clock; for tests.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The unit that is converted from.
    #[must_use]
    pub fn unit(&self) -> &Unit {
        &self.unit
    }

    fn believable(&self, rate: &Rate) -> Result<()> {
        if is_at_least(rate, &self.least) && is_at_least(&self.most, rate) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Price,
            format!(
                "the source says {rate}, which is not between {} and {}",
                self.least.from(),
                self.most.from()
            ),
        ))
    }
}

/// The host alone: the rest of an address may hold a token.
impl fmt::Debug for HttpRateConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRateConfig")
            .field("unit", &self.unit)
            .field("host", &self.url.host_str().unwrap_or_default())
            .finish_non_exhaustive()
    }
}

/// Whether one bitcoin costs at least as much by `one` as by `other`.
fn is_at_least(one: &Rate, other: &Rate) -> bool {
    u128::from(one.from().value()) * u128::from(other.to().value())
        >= u128::from(other.from().value()) * u128::from(one.to().value())
}

/// What is known so far.
#[derive(Debug, Clone, Default)]
struct Known {
    rate: Option<Rate>,
    /// Whether there was an answer, or none, to the first question.
    asked: bool,
}

/// A rate that is kept fresh by a task of its own, which ends with this.
pub struct HttpRate {
    unit: Unit,
    known: watch::Receiver<Known>,
    _task: DropGuard,
}

impl HttpRate {
    /// Begins to ask. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the HTTP client cannot be set up.
    pub fn start(config: HttpRateConfig) -> Result<Self> {
        if is_in_the_clear(&config.url) {
            tracing::warn!(
                unit = %config.unit, host = config.url.host_str(),
                "the rate comes over http: whoever is on the way can change it, within the bounds"
            );
        }
        let http = Http::new(HeaderMap::new(), TIMEOUT)?;
        let (known, receiver) = watch::channel(Known::default());
        let stop = CancellationToken::new();
        let unit = config.unit.clone();
        let task = keep_fresh(config, http, known);
        let stopped = stop.clone();
        tokio::spawn(async move {
            stopped.run_until_cancelled(task).await;
        });
        Ok(Self {
            unit,
            known: receiver,
            _task: stop.drop_guard(),
        })
    }

    /// The latest rate; before that, waits for the answer to the first question, or for the want of one.
    pub async fn latest(&self) -> Option<Rate> {
        let mut known = self.known.clone();
        let known = known.wait_for(|known| known.asked).await.ok()?;
        known.rate.clone()
    }
}

impl fmt::Debug for HttpRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRate")
            .field("unit", &self.unit)
            .field("rate", &self.known.borrow().rate)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl RateSource for HttpRate {
    fn covers(&self, from: &Unit, to: &Unit) -> bool {
        *from == self.unit && *to == Unit::SATS
    }

    async fn rate(&self, from: &Unit, to: &Unit) -> Result<Rate> {
        let known = if self.covers(from, to) {
            self.latest().await
        } else {
            None
        };
        // How old it is, is for whoever asks to judge.
        known.ok_or_else(|| {
            Error::new(
                ErrorKind::Price,
                format!("no rate from {from} to {to} has been seen yet"),
            )
        })
    }
}

async fn keep_fresh(config: HttpRateConfig, http: Http, known: watch::Sender<Known>) {
    let mut failures = 0u32;
    // A sudden change that nothing has confirmed yet.
    let mut sudden: Option<Rate> = None;
    loop {
        let seen = ask(&config, &http).await;
        let before = known.borrow().rate.clone();
        let pause = match seen {
            Ok(rate) => {
                failures = 0;
                let calm = |to: &Rate| to.is_near(&rate, SUDDEN_PERCENT);
                if before.as_ref().is_none_or(calm) || sudden.as_ref().is_some_and(calm) {
                    sudden = None;
                    known.send_replace(Known {
                        rate: Some(rate),
                        asked: true,
                    });
                    config.every
                } else {
                    tracing::warn!(
                        unit = %config.unit, %rate,
                        "the rate has changed suddenly; it counts if the next answer confirms it"
                    );
                    sudden = Some(rate);
                    config.every.min(Duration::from_secs(15))
                }
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                tracing::warn!(
                    unit = %config.unit, host = config.url.host_str(), failures,
                    error = &error as &dyn std::error::Error, "no rate could be had"
                );
                known.send_modify(|known| known.asked = true);
                let doubled = FIRST_RETRY.saturating_mul(1 << failures.min(16).saturating_sub(1));
                doubled.min(config.every)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn ask(config: &HttpRateConfig, http: &Http) -> Result<Rate> {
    let failed = |what: String| Error::new(ErrorKind::Price, what);
    // Dated when it was asked for: it was not seen later than the source wrote it.
    let asked_at = config.clock.now();
    let answer = http
        .send(http.get(config.url.clone()), LONGEST)
        .await
        .map_err(|error| failed(error.to_string()).with_source(error))?;
    match answer.status {
        200 => {}
        300..400 => {
            let to = if answer.location.is_some() {
                "; name the address that it leads to"
            } else {
                ""
            };
            return Err(failed(format!(
                "the source redirects, which is not followed{to}"
            )));
        }
        status => return Err(failed(format!("the source answered with status {status}"))),
    }
    let number = number_at(&answer.body, &config.pointer)?;
    let rate = Rate::of_one_bitcoin(&number, &config.unit, config.decimals).map_err(|error| {
        failed("the source names no price of one bitcoin".to_owned()).with_source(error)
    })?;
    config.believable(&rate)?;
    Ok(rate.observed_at(asked_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str, least: &str, most: &str) -> Result<HttpRateConfig> {
        HttpRateConfig::new("usd", url, least, most)
    }

    #[test]
    fn a_source_is_checked_before_it_is_asked() {
        assert!(config("https://example.com/prices#/USD", "20000", "200000").is_ok());
        for (currency, url, least, most) in [
            ("usd", "example.com#/USD", "1", "2"),
            ("usd", "ftp://example.com#/USD", "1", "2"),
            ("usd", "https://a:b@example.com#/USD", "1", "2"),
            ("usd", "https://example.com#USD", "1", "2"),
            ("usd", "https://example.com#/USD", "2", "1"),
            ("usd", "https://example.com#/USD", "0", "1"),
            ("usd", "https://example.com#/USD", "1", "much"),
            ("sats", "https://example.com#/USD", "1", "2"),
            ("U$D", "https://example.com#/USD", "1", "2"),
        ] {
            assert!(
                HttpRateConfig::new(currency, url, least, most).is_err(),
                "{currency} {url} {least} {most}"
            );
        }
    }

    #[test]
    fn only_what_lies_between_the_bounds_is_believed() {
        let config = config("https://example.com/?token=secret#/USD", "20000", "200000").unwrap();
        let rate = |price| Rate::of_one_bitcoin(price, &Unit::USD_CENTS, 2).unwrap();
        for (price, believed) in [
            ("19999.99", false),
            ("20000", true),
            ("65000.1234", true),
            ("200000.00", true),
            ("200000.0001", false),
            // Sats for a dollar, taken for dollars for a bitcoin.
            ("1538.46", false),
            ("6500000", false),
        ] {
            assert_eq!(config.believable(&rate(price)).is_ok(), believed, "{price}");
        }
        assert!(!format!("{config:?}").contains("secret"));
    }
}
