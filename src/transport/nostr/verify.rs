//! Is this text a message that its author signed? For receipts, offline and long after.

use nostr::{Event, JsonUtil};

use super::config::MESSAGE;
use super::event::has_own_id;
use super::keys;
use crate::error::{Error, Result};
use crate::payment::{RequestEventId, Timestamp};
use crate::wire::Message;

/// A message whose id and signature are right.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SignedMessage {
    /// The id of the event.
    pub id: RequestEventId,
    /// The public key of who signed it, as hex.
    pub author: String,
    /// The public keys that it is addressed to, as hex.
    pub to: Vec<String>,
    /// The event that it is about.
    pub about: Option<RequestEventId>,
    /// When it was signed, by the author's clock.
    pub created_at: Timestamp,
    /// What it says.
    pub message: Message,
}

/// Reads a signed event and verifies its id and its signature.
///
/// # Errors
///
/// [`ErrorKind::Wire`](crate::ErrorKind::Wire), saying which of them is wrong.
pub fn verify_signed(json: &str) -> Result<SignedMessage> {
    let event = Event::from_json(json)
        .map_err(|source| Error::wire("it is no signed event").with_source(source))?;
    if !has_own_id(&event) {
        return Err(Error::wire("its id is not that of its content"));
    }
    if !event.verify_signature() {
        return Err(Error::wire("its signature is not that of its author"));
    }
    if event.kind.as_u16() != MESSAGE {
        return Err(Error::wire("it is no MCP message"));
    }
    let message = Message::parse(&event.content)?;
    Ok(SignedMessage {
        id: keys::event_of(&event.id),
        author: event.pubkey.to_hex(),
        to: event.tags.public_keys().map(|key| key.to_hex()).collect(),
        about: event.tags.event_ids().next().map(keys::event_of),
        created_at: Timestamp::from_secs(event.created_at.as_secs()),
        message,
    })
}

#[cfg(test)]
mod tests {
    use nostr::{EventBuilder, Keys, Kind, Tag};

    use super::*;

    fn signed(kind: u16, content: &str) -> Event {
        let keys = Keys::generate();
        EventBuilder::new(Kind::from(kind), content)
            .tag(Tag::public_key(keys.public_key()))
            .sign_with_keys(&Keys::generate())
            .unwrap()
    }

    const REQUEST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;

    #[test]
    fn only_what_was_signed_is_believed() {
        let event = signed(25910, REQUEST);
        let read = verify_signed(&event.as_json()).unwrap();
        assert_eq!(read.author, event.pubkey.to_hex());
        assert!(matches!(read.message, Message::Request(_)));

        let mut other = event.clone();
        other.content = REQUEST.replace("tools", "prompts");
        assert!(verify_signed(&other.as_json()).is_err(), "other content");
        let mut other = event.clone();
        other.pubkey = Keys::generate().public_key();
        assert!(verify_signed(&other.as_json()).is_err(), "other author");
        let mut other = event;
        other.sig = signed(25910, REQUEST).sig;
        assert!(verify_signed(&other.as_json()).is_err(), "other signature");
        assert!(verify_signed(&signed(1, REQUEST).as_json()).is_err());
        assert!(verify_signed(&signed(25910, "hello").as_json()).is_err());
        assert!(verify_signed("{}").is_err());
    }
}
