//! Rates of exchange that somebody else knows.

mod document;
mod source;

pub use source::{HttpRate, HttpRateConfig};
