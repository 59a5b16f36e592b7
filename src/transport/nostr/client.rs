//! The client's end on Nostr, tied to one server.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lru::LruCache;
use nostr::{Event, EventId, JsonUtil, Keys, PublicKey};
use tokio::sync::mpsc;

use super::config::{EncryptionMode, GiftWrapMode, Settings};
use super::dedup::Verdict;
use super::gift_wrap::Wrap;
use super::inbound::{self, Acceptance, Intake, Opened};
use super::keys::{self, NostrKeys};
use super::outbound::{self, Route, SUPPORT_EPHEMERAL};
use crate::error::{Error, Result};
use crate::payment::ServerPubkey;
use crate::relays::Relays;
use crate::transport::{ClientInbound, ClientTransport, Introduction, Prepared};
use crate::wire::{Message, Tag};

/// Requests whose answers must be encrypted, remembered at most.
const MOST_ENCRYPTED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);

/// Asks one MCP server over Nostr relays.
pub struct NostrClientTransport {
    settings: Settings,
    server: PublicKey,
    relays: Relays,
    knowledge: Arc<Knowledge>,
    /// The first request went out: what has to be said once was said.
    introduced: AtomicBool,
    inbound: tokio::sync::Mutex<mpsc::Receiver<ClientInbound>>,
}

/// What the two directions tell each other.
struct Knowledge {
    /// The server takes ephemeral wraps.
    ephemeral: AtomicBool,
    /// Requests that were sent encrypted: a plaintext answer to one is none of the server's.
    encrypted: Mutex<LruCache<EventId, ()>>,
}

/// Says how a [`NostrClientTransport`] is to be.
#[derive(Debug, Clone)]
pub struct NostrClientBuilder {
    settings: Settings,
    server: ServerPubkey,
}

impl NostrClientTransport {
    /// A client that signs with `keys` and talks to `server`.
    #[must_use]
    pub fn builder(keys: NostrKeys, server: ServerPubkey) -> NostrClientBuilder {
        NostrClientBuilder {
            settings: Settings::new(keys),
            server,
        }
    }

    /// Writes out what is left and closes the connections, in about a second at most. Nothing can be sent afterwards.
    /// Dropping the transport does the same in the background, as long as the runtime lives.
    pub async fn shutdown(&self) {
        self.relays.shutdown().await;
    }

    fn route(&self) -> Route {
        if self.settings.encryption == EncryptionMode::Disabled {
            return Route(None);
        }
        Route(Some(match self.settings.gift_wrap {
            GiftWrapMode::Ephemeral => Wrap::Ephemeral,
            GiftWrapMode::Persistent => Wrap::Persistent,
            GiftWrapMode::Optional if self.knowledge.ephemeral.load(Ordering::Relaxed) => {
                Wrap::Ephemeral
            }
            GiftWrapMode::Optional => Wrap::Persistent,
        }))
    }
}

impl NostrClientBuilder {
    /// The relays to ask on, as `wss://` or `ws://` addresses.
    #[must_use]
    pub fn relays(mut self, relays: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.settings.relays = relays.into_iter().map(Into::into).collect();
        self
    }

    /// Which messages travel encrypted.
    #[must_use]
    pub fn encryption(mut self, mode: EncryptionMode) -> Self {
        self.settings.encryption = mode;
        self
    }

    /// Which gift wraps are used.
    #[must_use]
    pub fn gift_wrap(mut self, mode: GiftWrapMode) -> Self {
        self.settings.gift_wrap = mode;
        self
    }

    /// How long [`connect`](Self::connect) waits for the first relay; 30 s unless told otherwise.
    #[must_use]
    pub fn ready_timeout(mut self, patience: Duration) -> Self {
        self.settings.ready_timeout = patience;
        self
    }

    /// Connects, and returns once one relay has confirmed the subscription; the others follow when they can.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) for relays that are none, [`Transport`](crate::ErrorKind::Transport) if
    /// none was ready in time.
    pub async fn connect(self) -> Result<Arc<NostrClientTransport>> {
        let Self { settings, server } = self;
        let server = keys::public_key(server.as_bytes());
        let (relays, deliveries) = Relays::spawn(settings.relay_urls()?, &settings.subscription());
        let knowledge = Arc::new(Knowledge {
            ephemeral: AtomicBool::new(false),
            encrypted: Mutex::new(LruCache::new(MOST_ENCRYPTED)),
        });
        let acceptance = Acceptance::new(&settings, Some(server));
        let intake = Answers(knowledge.clone());
        let inbound = inbound::spawn(acceptance, deliveries, relays.deaf(), intake);
        relays.ready(settings.ready_timeout).await?;
        Ok(Arc::new(NostrClientTransport {
            settings,
            server,
            relays,
            knowledge,
            introduced: AtomicBool::new(false),
            inbound: tokio::sync::Mutex::new(inbound),
        }))
    }
}

/// Turns verified messages into what the caller sees.
struct Answers(Arc<Knowledge>);

impl Intake for Answers {
    type Output = ClientInbound;

    fn wants(&self, opened: &Opened) -> bool {
        // A plaintext answer to a secret: not even remembered, so that it cannot hide the real one.
        opened.wrap.is_some() || !answered(&opened.event).is_some_and(|id| self.0.was_encrypted(id))
    }

    fn take(&self, opened: Opened, verdict: Verdict) -> Option<ClientInbound> {
        // What the server sends again it signs again: a known event is a relay's echo.
        if verdict != Verdict::New {
            return None;
        }
        let mut tags = opened.tags();
        tags.retain(|tag| !matches!(tag.name(), "p" | "e"));
        let says = tags
            .iter()
            .any(|tag| tag.name() == SUPPORT_EPHEMERAL && tag.parts().len() == 1);
        if says || opened.wrap == Some(Wrap::Ephemeral) {
            self.0.ephemeral.store(true, Ordering::Relaxed);
        }
        let in_reply_to = answered(&opened.event).map(keys::event_of);
        let mut inbound = ClientInbound::new(opened.message, in_reply_to);
        inbound.tags = tags;
        inbound.signed = opened.event.as_json();
        Some(inbound)
    }
}

/// The request that `event` is about.
fn answered(event: &Event) -> Option<&EventId> {
    event.tags.event_ids().next()
}

impl Knowledge {
    fn was_encrypted(&self, id: &EventId) -> bool {
        self.encrypted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(id)
    }

    fn sent_encrypted(&self, id: EventId) {
        self.encrypted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .put(id, ());
    }
}

/// Signs `content` so that the id is a new one: two equal messages of one key within a second, from this process or from
/// another, would be one event (N-98).
fn sign_anew(keys: &Keys, content: String, mut tags: Vec<Tag>) -> Result<Event> {
    let mut nonce = nostr::SecretKey::generate().to_secret_hex();
    nonce.truncate(16);
    tags.push(Tag::new(["nonce".to_owned(), nonce]));
    outbound::message(keys, content, &tags)
}

#[async_trait]
impl ClientTransport for NostrClientTransport {
    fn server(&self) -> ServerPubkey {
        ServerPubkey::from_bytes(self.server.to_bytes())
    }

    async fn prepare(&self, message: &Message, introduction: &Introduction) -> Result<Prepared> {
        let server = self.server.to_hex();
        let tags = match message {
            Message::Request(request) => {
                let first =
                    request.method == "initialize" || !self.introduced.load(Ordering::Relaxed);
                outbound::request_tags(&server, first, &self.settings, introduction)
            }
            Message::Notification(_) | Message::Response(_) => vec![Tag::new(["p", &server])],
        };
        let event = sign_anew(self.settings.keys(), message.to_json(), tags)?;
        let route = self.route();
        outbound::check_size(&event, route)?;
        if route.0.is_some() {
            self.knowledge.sent_encrypted(event.id);
        }
        Ok(Prepared::new(keys::event_of(&event.id), event.as_json()))
    }

    async fn publish(&self, prepared: &Prepared) -> Result<()> {
        let unusable =
            || Error::transport("a prepared message is not a signed event of this client");
        let event =
            Event::from_json(&prepared.signed).map_err(|source| unusable().with_source(source))?;
        if event.pubkey != self.settings.keys.public()
            || keys::event_of(&event.id) != prepared.event
        {
            return Err(unusable());
        }
        let is_request = matches!(Message::parse(&event.content), Ok(Message::Request(_)));
        let route = self.route();
        if route.0.is_some() {
            self.knowledge.sent_encrypted(event.id);
        }
        self.relays
            .publish(&outbound::carrier(event, &self.server, route)?)
            .await?;
        if is_request {
            self.introduced.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn recv(&self) -> Option<ClientInbound> {
        self.inbound.lock().await.recv().await
    }

    async fn close(&self) {
        self.relays.close_intake();
    }
}

impl fmt::Debug for NostrClientTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NostrClientTransport")
            .field("settings", &self.settings)
            .field("server", &self.server().short())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::payment::RequestEventId;

    #[test]
    fn equal_messages_never_get_the_same_id() {
        let keys = Keys::generate();
        let ids: HashSet<RequestEventId> = (0..50)
            .map(|_| sign_anew(&keys, "{}".to_owned(), vec![Tag::new(["p", "x"])]).unwrap())
            .map(|event| keys::event_of(&event.id))
            .collect();
        assert_eq!(ids.len(), 50);
    }
}
