//! MCP over Nostr relays (ContextVM): with the links to relays and the Lightning rail the only place that knows Nostr.
//!
//! The way in: [`relays`](crate::relays) → `inbound` (`gift_wrap`, `dedup`) → `server` or `client`. The way out: `server`
//! or `client` → `outbound` (`session`, `gift_wrap`) → [`relays`](crate::relays).

mod config;
mod keys;

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
