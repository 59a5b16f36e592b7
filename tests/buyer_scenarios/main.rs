//! The paying client against servers and wallets that are not honest; in memory and in paused time.
//!
//! Each test names the row of the list of known faults (`D-xx`, `N-xx`, `C-xx`) that it tries to bring about.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "assertions and their helpers"
)]
#![allow(
    clippy::needless_pass_by_value,
    reason = "`json!` is written where it is passed"
)]

mod stage;

mod asking;
mod demands;
mod fiat;
mod gating;
mod once;
mod policy;
mod properties;
mod receipts;
