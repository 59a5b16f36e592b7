//! [Stripe](https://stripe.com): cards and what else people pay with. A client of its API, typed as far as it is needed; a
//! Checkout page as a payment method of CEP-8; charges of shared payment tokens; and the signatures of its webhooks.
//!
//! What Stripe says is believed when it is asked. What it, or somebody in its name, says unasked is only a reason to ask: a
//! webhook names an object, and the object is fetched before anything is granted.

// What is said to it.
mod client;
mod config;
mod error;
mod form;
mod key;
mod money;
mod objects;

// The ways of being paid.
mod checkout;
mod granted_token;
mod plans;
mod shared_token;

// What it says unasked.
mod webhook;

pub use checkout::{CheckoutHints, StripeCheckout};
pub use client::StripeClient;
pub use config::{API_VERSION, StripeConfig};
pub use error::StripeError;
pub use granted_token::{GrantedToken, TokenCharge, TokenCharger, TokenParam};
pub use key::StripeKey;
pub use money::{Currency, currency_of, minimum_of};
pub use plans::{
    Expected, MeterReport, PaymentReport, PlanMode, PlanOrder, PlanPage, PurchaseReport, Standing,
    StripePrice, check_return_url,
};
pub use shared_token::SharedTokenProcessor;
pub use webhook::{About, WebhookEvent, WebhookSecrets};
