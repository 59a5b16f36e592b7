//! The scenarios of the conformance list (C-xx) that need no relay, and one test per server defect (D-xx) that other
//! implementations have. Everything runs in memory and in paused time.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    reason = "helpers of tests are tests, and what they take reads best by value"
)]

mod balances;
mod books;
mod credentials;
mod defects;
mod direct;
mod duplicates;
mod entitlements;
mod explicit;
mod failing_ledger;
mod failures;
mod fiat;
mod mandates;
mod metered;
mod observers;
mod prices;
mod time;
mod wire;

/// The price list of most tests: the one of the conformance list.
const PRICES: [&str; 1] = ["tool:add=7 sat"];
