//! Random lives of a paid server whose books are in PostgreSQL, as `tests/gate_model.rs` does with those in memory.

use std::sync::Arc;

use super::life::{cases, live_all};
use super::patient::Patient;
use super::{Postgres, open};

#[test]
fn whatever_happens_every_payment_is_one_execution_or_one_authorization() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let there = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    live_all(cases(4), 20, || {
        let url = server.database();
        let ledger = there.block_on(async { open(&url).await });
        let there = there.handle().clone();
        Arc::new(Patient::new(ledger, there))
    });
}
