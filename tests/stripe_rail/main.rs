//! The Stripe rail against a Stripe that fails, lies and comes late.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/fake_stripe.rs"]
mod fake_stripe;
#[path = "../support/http_service.rs"]
mod http_service;

mod checkout;
mod mandates;
mod paid_tool;
mod shop;
mod tokens;
mod webhooks;

use std::time::Duration;

use fake_stripe::{FakeStripe, KEY};
use tollkeeper::rails::stripe::{StripeClient, StripeConfig, StripeKey};

/// A client of `stripe` that is not patient.
fn client(stripe: &FakeStripe) -> StripeClient {
    let config = StripeConfig::new(StripeKey::parse(KEY).unwrap(), false)
        .unwrap()
        .base_url(&stripe.url())
        .unwrap()
        .timeouts(Duration::from_millis(500), Duration::from_secs(3));
    StripeClient::new(&config).unwrap()
}
