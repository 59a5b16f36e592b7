//! Lightning over an [LNbits](https://lnbits.com) server: invoices are made and paid by its REST interface, on both sides
//! of the gate. Written against LNbits 1.6.
//!
//! What it says is believed when it is asked; what it, or somebody in its name, says unasked is only a reason to ask.
//! Neither its websocket (whoever knows the invoice key can write to it) nor its webhook (which is not signed, and comes
//! twice) settles anything.

// What is said to it.
mod api;
mod config;
mod error;
mod payment;

// Hints.
mod hints;
mod webhook;
mod websocket;

// The two sides.
mod handler;
mod processor;

pub use config::LnbitsConfig;
pub use handler::LnbitsHandler;
pub use processor::LnbitsProcessor;
