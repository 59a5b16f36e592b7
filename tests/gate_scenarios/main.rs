//! The scenarios of the conformance list (C-xx) that need no relay, and one test per server defect (D-xx) that other
//! implementations have. Everything runs in memory and in paused time.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod balances;
mod books;
mod credentials;
mod defects;
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
