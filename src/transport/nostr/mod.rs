//! MCP over Nostr relays (ContextVM): the only place, beside the Lightning rail, that knows Nostr.
//!
//! The way in: `socket` → `relay` → `reader` → `inbound` (`gift_wrap`, `dedup`) → `server` or `client`.
//! The way out: `server` or `client` → `outbound` (`session`, `gift_wrap`) → `publish` → `outbox` →
//! `relay`.
//!
//! The links to relays are made here, on the types of the `nostr` crate, rather than with the pool of `nostr-sdk`. For a
//! service that moves money the pool does too much and too little: its cache of verified ids lets a malicious relay
//! forge an author, it verifies under one lock, hands over through channels that drop when they lag, writes the whole
//! text of a bad event to the log, waits for the slowest relay, and notices a dead link after a minute.

mod config;
mod keys;

// Links to relays.
mod outbox;
mod publish;
mod reader;
mod relay;
mod socket;

// Messages in.
mod dedup;
mod gift_wrap;
mod inbound;
mod session;

// Messages out.
mod announce;
mod outbound;

// The two ends.
mod client;
mod server;

// Afterwards: was this really said?
mod verify;

#[cfg(feature = "dev-relay")]
mod dev_relay;
#[cfg(feature = "testing")]
mod fuzzing;

pub use announce::Announcement;
pub use client::{NostrClientBuilder, NostrClientTransport};
pub use config::{EncryptionMode, GiftWrapMode, ServerInfo};
#[cfg(feature = "dev-relay")]
pub use dev_relay::DevRelay;
#[cfg(feature = "testing")]
pub use fuzzing::read_frame;
pub use keys::{NostrKeys, parse_server};
pub use server::{NostrServerBuilder, NostrServerTransport};
pub use verify::{SignedMessage, verify_signed};
