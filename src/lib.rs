#![doc = include_str!("../README.md")]

pub mod error;
pub mod payment;
pub mod wire;

pub mod ledger;
#[cfg(feature = "nostr")]
mod relays;
pub mod transport;

pub mod client;
pub mod gate;
pub mod rails;
pub mod server;

#[cfg(feature = "gateway")]
pub mod gateway;
#[cfg(feature = "testing")]
pub mod testing;

pub use error::{Error, ErrorKind, Result};
pub use payment::{
    Amount, Capability, ClientPubkey, Invocation, PayOutcome, PaymentHandler, PaymentInteraction,
    PaymentProcessor, Pmi, PriceDecision, PriceRange, PricedCapability, Quote, RequestEventId,
    ResolvePrice,
};
