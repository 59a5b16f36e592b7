//! MCP over Nostr relays (ContextVM): with the links to relays and the Lightning rail the only place that knows Nostr.
//!
//! The way in: `relays` → `inbound` (`gift_wrap`, `dedup`) → `server` or `client` (`oversized`). The way out: `server` or
//! `client` → `outbound` (`session`, `oversized`, `gift_wrap`) → `relays`.

mod config;
mod keys;

// Messages in.
mod dedup;
mod event;
mod gift_wrap;
mod inbound;
mod oversized;
mod session;

// Messages out.
mod announce;
mod outbound;

// Who serves, and where.
mod discover;

// The two ends.
mod client;
mod client_intake;
mod server;
mod server_intake;

// Afterwards: was this really said?
mod verify;

#[cfg(feature = "dev-relay")]
mod dev_relay;
#[cfg(feature = "testing")]
mod fuzzing;

pub use announce::{Announcement, Profile};
pub use client::{NostrClientBuilder, NostrClientTransport};
pub use config::{EncryptionMode, GiftWrapMode, ServerInfo};
#[cfg(feature = "dev-relay")]
pub use dev_relay::DevRelay;
pub use discover::{AnnouncedServer, discover, find_events, find_relays};
#[cfg(feature = "testing")]
pub use fuzzing::read_frame;
pub use keys::{NostrKeys, parse_server};
pub use server::{NostrServerBuilder, NostrServerTransport};
pub use verify::{SignedMessage, verify_signed};
