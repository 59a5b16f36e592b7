//! A paid server over a relay with faults, and clients that say exactly what the test wants (`C-xx` are the scenarios).
//!
//! Nobody passes unpaid, nobody pays twice, nobody who paid is turned away: each file tries to break that in its own way.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "this is a test")]
#![allow(
    clippy::needless_pass_by_value,
    reason = "`json!` is written where it is passed"
)]

#[path = "../support/faulty_relay.rs"]
mod faulty_relay;

mod raw;
mod tools;
mod world;

mod duplicates;
mod gating;
mod hostile_server;
mod isolation;
mod licences;
mod messages;
mod money;
mod negotiation;
mod oversized;
mod paying_client;
mod prices;
