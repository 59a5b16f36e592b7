//! The price of one bitcoin from a service on loopback that is down, slow, wrong, or taken over.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "support/http_service.rs"]
mod http_service;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tollkeeper::payment::{Clock, Rate, RateSource, SystemClock, Unit};
use tollkeeper::rails::rates::{HttpRate, HttpRateConfig};

use http_service::{HttpService, Reply};

/// A service whose next answers are set by the test.
struct Exchange {
    service: HttpService,
    /// What comes next; the last one stays.
    replies: Arc<Mutex<VecDeque<Reply>>>,
    asked: Arc<AtomicUsize>,
}

impl Exchange {
    async fn saying(reply: Reply) -> Self {
        let replies = Arc::new(Mutex::new(VecDeque::from([reply])));
        let asked = Arc::new(AtomicUsize::new(0));
        let (next, count) = (Arc::clone(&replies), Arc::clone(&asked));
        let service = HttpService::answering(move |asked| {
            assert_eq!(asked.path, "/prices?token=secret");
            count.fetch_add(1, Ordering::SeqCst);
            let mut replies = next.lock().unwrap();
            match replies.len() {
                1 => replies[0].clone(),
                _ => replies.pop_front().unwrap(),
            }
        })
        .await;
        Self {
            service,
            replies,
            asked,
        }
    }

    fn now(&self, reply: Reply) {
        self.then([reply]);
    }

    fn then(&self, replies: impl IntoIterator<Item = Reply>) {
        *self.replies.lock().unwrap() = replies.into_iter().collect();
    }

    fn config(&self) -> HttpRateConfig {
        let url = format!("{}/prices?token=secret#/USD", self.service.url());
        HttpRateConfig::new("usd", &url, "20000", "200000")
            .unwrap()
            .every(Duration::from_millis(100))
    }

    /// Waits until it was asked `more` times from now on, and until that has had its effect.
    async fn asked(&self, more: usize) {
        let until = self.asked.load(Ordering::SeqCst) + more + 1;
        let began = Instant::now();
        while self.asked.load(Ordering::SeqCst) < until {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "it must be asked"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn says(price: &str) -> Reply {
    Reply::Answer(200, format!(r#"{{"time":1,"USD":{price},"EUR":1}}"#))
}

fn price_of(rate: &Rate) -> u64 {
    rate.from().value()
}

async fn rate(source: &HttpRate) -> Option<u64> {
    let rate = source.rate(&Unit::USD_CENTS, &Unit::SATS).await.ok()?;
    assert_eq!(rate.to().value(), 100_000_000);
    Some(price_of(&rate))
}

#[tokio::test]
async fn a_rate_is_read_dated_and_kept_fresh() {
    let exchange = Exchange::saying(says("65000.5")).await;
    let began = SystemClock.now();
    let source = HttpRate::start(exchange.config()).unwrap();
    assert!(source.covers(&Unit::USD_CENTS, &Unit::SATS));
    assert!(!source.covers(&Unit::SATS, &Unit::USD_CENTS));
    let first = source.latest().await.unwrap();
    assert_eq!(price_of(&first), 6_500_050);
    let seen = first.seen().unwrap();
    assert!(seen >= began && seen <= SystemClock.now());

    exchange.now(says("66000"));
    exchange.asked(1).await;
    let next = source.latest().await.unwrap();
    assert_eq!(price_of(&next), 6_600_000);
    assert!(next.seen().unwrap() > seen);
    assert_eq!(
        exchange.service.connections(),
        1,
        "one connection serves them all"
    );
    assert!(!format!("{source:?}").contains("secret"));
    assert!(source.rate(&Unit::SATS, &Unit::USD_CENTS).await.is_err());
}

#[tokio::test]
async fn a_source_that_fails_leaves_the_last_rate_as_old_as_it_is() {
    let exchange = Exchange::saying(says("65000")).await;
    let source = HttpRate::start(exchange.config()).unwrap();
    let first = source.latest().await.unwrap();
    for reply in [
        Reply::Answer(500, "oops".to_owned()),
        Reply::Answer(429, r#"{"USD":65000}"#.to_owned()),
        Reply::Redirect(302, "https://evil.example.com/".to_owned()),
        Reply::Answer(200, "<html>".to_owned()),
        Reply::Answer(200, r#"{"EUR":65000}"#.to_owned()),
        Reply::Drop,
        Reply::Half(r#"{"USD":65000}"#.to_owned()),
        Reply::Huge(1024 * 1024),
        says("null"),
        says("-65000"),
        says("1e5"),
        // Outside of what the operator believes: too much, too little, another number of the document.
        says("200000.01"),
        says("19999.99"),
        says("1538.46"),
    ] {
        exchange.now(reply.clone());
        exchange.asked(1).await;
        let latest = source.latest().await.unwrap();
        assert_eq!(latest, first, "{reply:?} must not change or freshen it");
    }
    exchange.now(says("65001"));
    exchange.asked(1).await;
    assert_eq!(rate(&source).await, Some(6_500_100));
}

#[tokio::test]
async fn without_any_answer_there_is_no_rate() {
    let exchange = Exchange::saying(Reply::Answer(503, String::new())).await;
    let source = HttpRate::start(exchange.config()).unwrap();
    assert_eq!(rate(&source).await, None);
    let error = source
        .rate(&Unit::USD_CENTS, &Unit::SATS)
        .await
        .unwrap_err();
    assert!(!error.to_string().contains("secret"));
    exchange.now(says("65000"));
    exchange.asked(1).await;
    assert_eq!(rate(&source).await, Some(6_500_000));
}

/// A single answer that is far off is a glitch until the next one says the same.
#[tokio::test]
async fn a_sudden_change_counts_when_it_is_confirmed() {
    let exchange = Exchange::saying(says("60000")).await;
    let source = HttpRate::start(exchange.config()).unwrap();
    assert_eq!(rate(&source).await, Some(6_000_000));

    // One glitch, then back to normal: at no moment does the glitch count.
    exchange.then([says("120000"), says("60100")]);
    let until = exchange.asked.load(Ordering::SeqCst) + 3;
    while exchange.asked.load(Ordering::SeqCst) < until {
        assert_ne!(rate(&source).await, Some(12_000_000));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(rate(&source).await, Some(6_010_000));

    // A real change stays.
    exchange.now(says("90000"));
    exchange.asked(3).await;
    assert_eq!(rate(&source).await, Some(9_000_000));
}

#[tokio::test]
async fn it_stops_asking_when_nobody_needs_it() {
    let exchange = Exchange::saying(says("65000")).await;
    let source = HttpRate::start(exchange.config()).unwrap();
    exchange.asked(1).await;
    drop(source);
    // What was under way ends.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let asked = exchange.asked.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(exchange.asked.load(Ordering::SeqCst), asked);
}
