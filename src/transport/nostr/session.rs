//! What a server remembers about each client: how to talk to it, nothing that stands for money.
//!
//! The least recently heard client is forgotten first, and then introduced to again.

use std::num::NonZeroUsize;

use lru::LruCache;

use super::gift_wrap::Wrap;
use super::oversized::SUPPORT_OVERSIZED;
use crate::payment::{ClientPubkey, Pmi};
use crate::wire::{Message, Tag};

const MOST: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);

#[derive(Debug, Default)]
struct Session {
    /// Payment methods of the first message (N-58).
    pmis: Vec<Pmi>,
    /// The server has introduced itself.
    introduced: bool,
    /// The client said that it is ready for notifications.
    initialized: bool,
    /// The client takes ephemeral wraps.
    ephemeral: bool,
    /// The client takes messages in pieces.
    oversized: bool,
    /// How its last encrypted message was wrapped, if it ever encrypted.
    wrap: Option<Wrap>,
}

/// What a message told, and what was known.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) pmis: Vec<Pmi>,
    pub(super) ephemeral: bool,
    pub(super) oversized: bool,
}

/// The sessions of a server.
#[derive(Debug)]
pub(super) struct Sessions(LruCache<ClientPubkey, Session>);

impl Sessions {
    pub(super) fn new() -> Self {
        Self(LruCache::new(MOST))
    }

    /// Learns from a message of `client`. A message that is not `fresh` may be replayed by somebody else, so it changes
    /// nothing that is known already.
    pub(super) fn hear(
        &mut self,
        client: ClientPubkey,
        message: &Message,
        tags: &[Tag],
        wrap: Option<Wrap>,
        fresh: bool,
    ) -> Heard {
        let own = Tag::pmis(tags);
        let first = self.0.peek(&client).is_none();
        let session = self.0.get_or_insert_mut(client, Session::default);
        match message {
            Message::Request(request) if fresh && request.method == "initialize" => {
                // A client that starts over knows nothing any more.
                session.wrap = None;
                session.introduced = false;
                session.initialized = false;
                session.oversized = false;
                session.pmis.clone_from(&own);
            }
            Message::Notification(notification)
                if fresh && notification.method == "notifications/initialized" =>
            {
                session.initialized = true;
            }
            _ if first => session.pmis.clone_from(&own),
            _ => {}
        }
        let says = |name: &str| {
            tags.iter()
                .any(|tag| tag.name() == name && tag.parts().len() == 1)
        };
        session.ephemeral |= wrap == Some(Wrap::Ephemeral) || says("support_encryption_ephemeral");
        session.oversized |= says(SUPPORT_OVERSIZED);
        // A client that has used encryption is not fallen back to plaintext for.
        session.wrap = wrap.or(session.wrap);
        let pmis = if own.is_empty() {
            session.pmis.clone()
        } else {
            own
        };
        Heard {
            pmis,
            ephemeral: session.ephemeral,
            oversized: session.oversized,
        }
    }

    /// Whether the message that goes out to `client` now has to introduce the server. True once.
    pub(super) fn introduce(&mut self, client: ClientPubkey) -> bool {
        let session = self.0.get_or_insert_mut(client, Session::default);
        !std::mem::replace(&mut session.introduced, true)
    }

    /// The introduction did not get out.
    pub(super) fn not_introduced(&mut self, client: &ClientPubkey) {
        if let Some(session) = self.0.peek_mut(client) {
            session.introduced = false;
        }
    }

    /// How to send `client` what answers nothing.
    pub(super) fn habit(&self, client: &ClientPubkey) -> Option<Habit> {
        self.0.peek(client).map(|session| Habit {
            wrap: session.wrap,
            ephemeral: session.ephemeral,
        })
    }

    /// The clients that asked for notifications.
    pub(super) fn initialized(&self) -> Vec<ClientPubkey> {
        self.0
            .iter()
            .filter(|(_, session)| session.initialized)
            .map(|(client, _)| *client)
            .collect()
    }
}

/// How a client's last message was wrapped, and whether it takes ephemeral wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Habit {
    pub(super) wrap: Option<Wrap>,
    pub(super) ephemeral: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Notification, Request};

    const CLIENT: ClientPubkey = ClientPubkey::from_bytes([1; 32]);

    fn request(method: &str) -> Message {
        Request::new(1, method, &serde_json::json!({}))
            .unwrap()
            .into()
    }

    fn pmi(name: &str) -> Pmi {
        name.parse().unwrap()
    }

    #[test]
    fn the_first_message_sets_the_baseline_and_a_tag_on_the_message_wins() {
        let mut sessions = Sessions::new();
        sessions.hear(
            CLIENT,
            &request("initialize"),
            &[Tag::pmi(&pmi("a"))],
            None,
            true,
        );
        assert_eq!(
            sessions
                .hear(CLIENT, &request("tools/call"), &[], None, true)
                .pmis,
            [pmi("a")]
        );
        assert_eq!(
            sessions
                .hear(
                    CLIENT,
                    &request("tools/call"),
                    &[Tag::pmi(&pmi("b"))],
                    None,
                    true
                )
                .pmis,
            [pmi("b")]
        );
        assert_eq!(
            sessions
                .hear(CLIENT, &request("tools/call"), &[], None, true)
                .pmis,
            [pmi("a")]
        );
    }

    #[test]
    fn the_server_introduces_itself_once_until_the_client_starts_over() {
        let mut sessions = Sessions::new();
        sessions.hear(CLIENT, &request("tools/call"), &[], None, true);
        assert!(sessions.introduce(CLIENT));
        assert!(!sessions.introduce(CLIENT));
        sessions.not_introduced(&CLIENT);
        assert!(sessions.introduce(CLIENT));
        sessions.hear(CLIENT, &request("initialize"), &[], None, true);
        assert!(sessions.introduce(CLIENT));
    }

    #[test]
    fn a_replay_changes_nothing() {
        let mut sessions = Sessions::new();
        sessions.hear(
            CLIENT,
            &request("tools/call"),
            &[Tag::pmi(&pmi("a"))],
            Some(Wrap::Ephemeral),
            true,
        );
        assert!(sessions.introduce(CLIENT));
        sessions.hear(
            CLIENT,
            &request("initialize"),
            &[Tag::pmi(&pmi("b"))],
            None,
            false,
        );
        assert!(!sessions.introduce(CLIENT));
        assert_eq!(
            sessions.hear(CLIENT, &request("x"), &[], None, true).pmis,
            [pmi("a")]
        );
        assert_eq!(sessions.habit(&CLIENT).unwrap().wrap, Some(Wrap::Ephemeral));
    }

    #[test]
    fn only_initialized_clients_are_broadcast_to() {
        let mut sessions = Sessions::new();
        sessions.hear(CLIENT, &request("tools/call"), &[], None, true);
        assert!(sessions.initialized().is_empty());
        let done: Message = Notification {
            method: "notifications/initialized".into(),
            params: None,
        }
        .into();
        sessions.hear(CLIENT, &done, &[], None, true);
        assert_eq!(sessions.initialized(), [CLIENT]);
    }

    #[test]
    fn ephemeral_wraps_are_learned_from_the_tag_or_by_example() {
        let mut sessions = Sessions::new();
        let other = ClientPubkey::from_bytes([2; 32]);
        assert!(
            !sessions
                .hear(CLIENT, &request("x"), &[], Some(Wrap::Persistent), true)
                .ephemeral
        );
        assert!(
            sessions
                .hear(
                    CLIENT,
                    &request("x"),
                    &[Tag::new(["support_encryption_ephemeral"])],
                    None,
                    true
                )
                .ephemeral
        );
        assert!(
            sessions
                .hear(other, &request("x"), &[], Some(Wrap::Ephemeral), true)
                .ephemeral
        );
    }

    #[test]
    fn strangers_cannot_make_it_grow() {
        let mut sessions = Sessions::new();
        for n in 0..MOST.get() as u32 + 10 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&n.to_be_bytes());
            sessions.hear(
                ClientPubkey::from_bytes(key),
                &request("x"),
                &[],
                None,
                true,
            );
        }
        assert_eq!(sessions.0.len(), MOST.get());
    }
}
