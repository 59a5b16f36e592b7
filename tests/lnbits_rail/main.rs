//! The LNbits rail against an LNbits on loopback that fails, lies, hangs and stutters, around every answer that it gives.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/fake_lnbits.rs"]
mod fake_lnbits;
#[path = "../support/http_service.rs"]
mod http_service;

mod buyer;
mod hints;
mod seller;

use std::time::Duration;

use tollkeeper::Amount;
use tollkeeper::payment::{PaymentOrder, Unit};
use tollkeeper::rails::lightning::lnbits::{LnbitsConfig, LnbitsHandler, LnbitsProcessor};

use fake_lnbits::{ADMIN_KEY, FakeLnbits, INVOICE_KEY};

/// How long an answer is waited for in these tests, and how long for that to a payment.
const ANSWER: Duration = Duration::from_millis(1500);
const PAYMENT: Duration = Duration::from_millis(1500);

fn sats(value: u64) -> Amount {
    Amount::new(value, Unit::SATS).unwrap()
}

fn order(key: &str, amount: u64) -> PaymentOrder {
    let ttl = Duration::from_secs(600);
    PaymentOrder::new(key.to_owned(), sats(amount), "a\nsearch".to_owned(), ttl)
}

fn config(lnbits: &FakeLnbits, key: &str) -> LnbitsConfig {
    LnbitsConfig::new(&lnbits.url(), key)
        .unwrap()
        .timeouts(ANSWER, PAYMENT)
}

async fn processor(lnbits: &FakeLnbits) -> LnbitsProcessor {
    LnbitsProcessor::connect(config(lnbits, INVOICE_KEY))
        .await
        .unwrap()
}

fn handler(lnbits: &FakeLnbits) -> LnbitsHandler {
    LnbitsHandler::new(&config(lnbits, ADMIN_KEY)).unwrap()
}

/// Neither key is in `text`.
fn no_key_in(text: &str) {
    assert!(
        !text.contains(INVOICE_KEY) && !text.contains(ADMIN_KEY),
        "{text}"
    );
}

/// An error with its causes, as a log would show it.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(&format!(" / {next} {next:?}"));
        cause = next.source();
    }
    text
}
