//! The way in as one call, for fuzzers: no socket, no queue, no task.

use nostr::{JsonUtil, RelayMessage};

use super::NostrKeys;
use super::config::Settings;
use super::inbound::Acceptance;
use crate::wire::Message;

/// Takes a frame as if a relay had sent it to whoever has `keys`: what a reader and then the inbound queue make of it.
#[doc(hidden)]
#[must_use]
pub fn read_frame(keys: &NostrKeys, frame: &str) -> Option<Message> {
    let Ok(RelayMessage::Event { event, .. }) = RelayMessage::from_json(frame) else {
        return None;
    };
    let acceptance = Acceptance::new(&Settings::new(keys.clone()), None);
    acceptance.read_event(event.into_owned())
}
