//! Random lives of a paid server: whatever happens in whatever order, the money adds up.
//!
//! `TOLLKEEPER_MODEL_CASES` sets how many lives are tried.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "support/life.rs"]
mod life;

use std::sync::Arc;

use tollkeeper::ledger::MemoryLedger;

#[test]
fn whatever_happens_every_payment_is_one_execution_or_one_authorization() {
    life::live_all(life::cases(128), 20_000, || Arc::new(MemoryLedger::new()));
}
