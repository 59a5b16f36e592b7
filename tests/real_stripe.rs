//! The fake Stripe of our tests, driven by the official library of Stripe, from npm: so that it is not only our idea of Stripe.
//! And webhooks, signed by one and verified by the other.
//!
//! `tests/real/setup` installs it, once. Where that cannot be done this is skipped and says so, but not in CI.

#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]
#![allow(dead_code, reason = "of what the tests share, this one needs a part")]

#[path = "support/binary.rs"]
mod binary;
#[path = "support/counterparts.rs"]
mod counterparts;
#[path = "support/fake_stripe.rs"]
mod fake_stripe;
#[path = "support/http_service.rs"]
mod http_service;

use serde_json::Value;
use tollkeeper::payment::{Clock, SystemClock};
use tollkeeper::rails::stripe::{About, WebhookEvent, WebhookSecrets};

use binary::Scratch;
use counterparts::Counterparts;
use fake_stripe::{FakeStripe, KEY, WEBHOOK_SECRET, now, signed};

#[tokio::test(flavor = "multi_thread")]
async fn the_official_library_finds_the_fake_to_be_stripe() {
    let installed = tokio::task::spawn_blocking(Counterparts::get)
        .await
        .unwrap();
    let Some(counterparts) = installed else {
        return;
    };
    let stripe = FakeStripe::start().await;
    let body = stripe
        .event("checkout.session.completed", "nothing")
        .to_string();
    let header = signed(&body, now(), WEBHOOK_SECRET);
    let scratch = Scratch::new();
    let mut command = counterparts.script(&scratch, "node", "stripe.mjs", "library");
    command.args([&stripe.url(), KEY, &body, &header, WEBHOOK_SECRET]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let done: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(done["kind"], "checkout.session.completed");

    // The library has signed this, with spaces and line breaks in it.
    let payload = done["payload"].as_str().unwrap();
    let secrets = WebhookSecrets::parse(WEBHOOK_SECRET).unwrap();
    let signature = done["signature"].as_str();
    let verify = |body: &str| secrets.verify(signature, body.as_bytes(), SystemClock.now());
    assert_eq!(verify(payload), Ok(()));
    assert!(verify(&payload.replace(' ', "")).is_err());
    let event = WebhookEvent::parse(payload.as_bytes()).unwrap().unwrap();
    assert!(matches!(event.about, About::Session(id) if id.starts_with("cs_test_")));
}
