//! The ledger in PostgreSQL, on a server of its own: what every ledger must do, and what only this one can get wrong.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is a test")]

#[path = "../support/life.rs"]
mod life;
#[path = "../support/postgres.rs"]
mod postgres;

mod command;
mod conforms;
mod gates;
mod lives;
mod outages;
mod patient;
mod places;

use std::sync::Arc;

use postgres::{PASSWORD, Postgres};
use tollkeeper::ledger::{
    EntryState, Ledger, NewEntry, OpenLimits, Opened, PostgresConfig, PostgresLedger, Transition,
};
use tollkeeper::payment::{
    Amount, ClientPubkey, InvocationIdentity, PayReq, PaymentInteraction, PaymentRequest,
    RequestEventId, Settlement, Timestamp, Unit,
};

const AT: Timestamp = Timestamp::from_secs(1_000);
const LIMITS: OpenLimits = OpenLimits::new(100_000, 100_000);

fn config(url: &str) -> PostgresConfig {
    PostgresConfig::parse(url).unwrap().password(PASSWORD)
}

async fn open(url: &str) -> Arc<PostgresLedger> {
    Arc::new(PostgresLedger::open(&config(url)).await.unwrap())
}

fn event(n: u32) -> RequestEventId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    RequestEventId::from_bytes(bytes)
}

fn client(n: u8) -> ClientPubkey {
    ClientPubkey::from_bytes([n; 32])
}

fn new(n: u32, interaction: PaymentInteraction) -> NewEntry {
    NewEntry {
        id: event(n),
        client: client(1),
        identity: InvocationIdentity::from_bytes([1; 32]),
        capability: "tool:add".to_owned(),
        interaction,
        pmi: "fake".parse().unwrap(),
        amount: Amount::new(7, Unit::SATS).unwrap(),
        description: "add".to_owned(),
        meta: None,
        request: Some("{}".to_owned()),
        route: String::new(),
        deadline: AT,
        quoted_at: AT,
    }
}

fn issue(n: u32) -> Transition {
    let amount = Amount::new(7, Unit::SATS).unwrap();
    let pay_req = PayReq::new(format!("fake:{n}"));
    Transition::Issue {
        payment_request: PaymentRequest::new(
            "fake".parse().unwrap(),
            amount,
            pay_req,
            n.to_string(),
        ),
        watch_until: AT,
    }
}

fn settle(n: u32) -> Transition {
    Transition::Settle(Settlement::new(
        Amount::new(7, Unit::SATS).unwrap(),
        n.to_string(),
    ))
}

/// Opens the entry `n`, and pays it.
async fn paid(ledger: &dyn Ledger, n: u32) {
    let opened = ledger
        .open(new(n, PaymentInteraction::Transparent), LIMITS)
        .await
        .unwrap();
    assert!(matches!(opened, Opened::New(_)), "{opened:?}");
    let applied = ledger
        .apply(&event(n), vec![issue(n), settle(n)], AT)
        .await
        .unwrap();
    assert_eq!(applied.entry().state, EntryState::Settled);
}
