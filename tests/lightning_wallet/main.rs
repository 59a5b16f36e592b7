//! The Lightning rail, both ends, with wallets that fail in every way that a wallet can fail: whatever they do, nobody passes
//! unpaid, nobody pays twice, and nobody who paid is turned away.
//!
//! A paid server and a paying client over a relay, each with a wallet for development over another one. After each story
//! the books are held against the wallets and the tool: `world::World::balance_the_books`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../support/faulty_relay.rs"]
mod faulty_relay;
mod world;

mod buyer_wallet;
mod honest;
mod hostile_server;
mod outages;
mod seller_wallet;
