//! The client's end on Nostr, tied to one server.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use nostr::{Event, JsonUtil, Keys, PublicKey};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::client_intake::{Answers, Knowledge, Support};
use super::config::{EncryptionMode, GiftWrapMode, Settings};
use super::gift_wrap::Wrap;
use super::inbound::{self, Acceptance};
use super::keys::{self, NostrKeys};
use super::outbound::{self, Route};
use super::oversized;
use crate::error::{Error, ErrorKind, Result};
use crate::payment::ServerPubkey;
use crate::relays::Relays;
use crate::transport::{ClientInbound, ClientTransport, Introduction, Prepared};
use crate::wire::{
    Message, OversizedFrame, ProgressToken, Request, Tag, meta_of, method, with_meta,
};

/// How long a server may take to say that it takes a message in pieces.
const ACCEPTS_WITHIN: Duration = Duration::from_secs(10);

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

    /// How each relay is, once all are ready or `patience` is over: its address and `ready`, `connected` (but not
    /// subscribed) or `down`.
    pub async fn relay_health(&self, patience: Duration) -> Vec<(String, &'static str)> {
        self.relays.all_ready(patience).await;
        self.relays.health()
    }

    fn route(&self) -> Route {
        if self.settings.encryption == EncryptionMode::Disabled {
            return Route::plain();
        }
        Route::wrapped(match self.settings.gift_wrap {
            GiftWrapMode::Ephemeral => Wrap::Ephemeral,
            GiftWrapMode::Persistent => Wrap::Persistent,
            GiftWrapMode::Optional if self.knowledge.ephemeral.load(Ordering::Relaxed) => {
                Wrap::Ephemeral
            }
            GiftWrapMode::Optional => Wrap::Persistent,
        })
    }

    fn is_first(&self, request: &Request) -> bool {
        request.method == method::INITIALIZE || !self.introduced.load(Ordering::Relaxed)
    }

    /// A request without a progress token gets one, where that lets a large answer come in pieces. Not where servers
    /// stream to whoever has a token (CEP-41): the host did not ask for that.
    fn with_token<'a>(&self, request: &'a Request) -> Cow<'a, Request> {
        let asks = !matches!(request.method.as_str(), method::INITIALIZE | method::PING);
        let known = self.knowledge.takes_pieces() == Support::Yes && !self.knowledge.streams();
        if asks && known && self.settings.oversized {
            self.with_own_token(request)
        } else {
            Cow::Borrowed(request)
        }
    }

    fn with_own_token<'a>(&self, request: &'a Request) -> Cow<'a, Request> {
        let mut meta = meta_of(request.params.as_deref()).unwrap_or_default();
        if meta.contains_key("progressToken") {
            return Cow::Borrowed(request);
        }
        let Ok(token) = serde_json::to_value(self.knowledge.own_token()) else {
            return Cow::Borrowed(request);
        };
        meta.insert("progressToken".to_owned(), token);
        match with_meta(request.params.clone(), &meta) {
            Ok(params) => Cow::Owned(Request {
                id: request.id.clone(),
                method: request.method.clone(),
                params,
            }),
            Err(_) => Cow::Borrowed(request),
        }
    }

    /// Signs `request`: as it is if that can be, else in pieces if the server takes them.
    fn sign(&self, request: &Request, introduction: &Introduction) -> Result<Vec<Event>> {
        let keys = self.settings.keys();
        let server = self.server.to_hex();
        let route = self.route();
        let first = self.is_first(request);
        let tags = outbound::request_tags(&server, first, &self.settings, introduction);
        let request = self.with_token(request);
        let content = Message::from(request.clone().into_owned()).to_json();
        let event = sign_anew(keys, content, tags.clone());
        let fits = outbound::check_size(&event, &route);
        let support = self.knowledge.takes_pieces();
        let in_pieces = self.settings.oversized
            && match support {
                Support::Yes => oversized::is_worth_splitting(&event, &route),
                // Asking for leave takes a while, and may be in vain.
                Support::Unknown => fits.is_err(),
                Support::No => false,
            };
        if !in_pieces {
            return fits.map(|()| vec![event]);
        }
        let request = self.with_own_token(&request);
        let Some(token) = ProgressToken::of(request.params.as_deref()) else {
            return fits.map(|()| vec![event]);
        };
        let whole = Message::from(request.into_owned()).to_json();
        let mut tags = tags;
        let mut events = Vec::new();
        for frame in oversized::split(&whole, &token, support == Support::Yes)? {
            let content = Message::from(frame).to_json();
            events.push(sign_anew(keys, content, tags));
            tags = vec![Tag::new(["p", &server])];
        }
        Ok(events)
    }

    /// If the server must say first that it takes pieces: what it says.
    fn asks_for_leave(&self, events: &[Event]) -> Option<oneshot::Receiver<bool>> {
        let [start, _, ..] = events else { return None };
        if self.knowledge.takes_pieces() == Support::Yes {
            return None;
        }
        let Ok(Message::Notification(notification)) = Message::parse(&start.content) else {
            return None;
        };
        let frame = OversizedFrame::read(&notification).ok()??;
        Some(self.knowledge.accepted(&frame.token))
    }
}

/// The events of a prepared message: one, or the frames of one that goes in pieces.
fn read_prepared(signed: &str) -> std::result::Result<Vec<Event>, serde_json::Error> {
    if signed.starts_with('[') {
        serde_json::from_str(signed)
    } else {
        Ok(vec![serde_json::from_str(signed)?])
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

    /// Whether messages that are too large for one event are taken and sent in pieces (CEP-22); they are unless told
    /// otherwise.
    #[must_use]
    pub fn oversized_transfer(mut self, on: bool) -> Self {
        self.settings.oversized = on;
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
        let knowledge = Arc::new(Knowledge::new());
        let acceptance = Acceptance::new(&settings, Some(server));
        let intake = Answers::new(knowledge.clone(), settings.oversized);
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

/// Signs `content` so that the id is a new one: two equal messages of one key within a second, from this process or from
/// another, would be one event (N-98).
fn sign_anew(keys: &Keys, content: String, mut tags: Vec<Tag>) -> Event {
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
        if introduction.licence.is_some() && self.route().wrap.is_none() {
            let text = "a licence is only sent encrypted: whoever reads it on a relay could use it";
            return Err(Error::config(text));
        }
        let events = match message {
            Message::Request(request) => self.sign(request, introduction)?,
            Message::Notification(_) | Message::Response(_) => {
                let tags = vec![Tag::new(["p", &self.server.to_hex()])];
                let event = sign_anew(self.settings.keys(), message.to_json(), tags);
                outbound::check_size(&event, &self.route())?;
                vec![event]
            }
        };
        let last = events.last().ok_or_else(|| Error::wire("no message"))?;
        // The server answers the last frame (N-6).
        let id = last.id;
        if self.route().wrap.is_some() {
            self.knowledge.sent_encrypted(id);
        }
        let signed = match events.as_slice() {
            [event] => event.as_json(),
            frames => serde_json::to_string(frames)
                .map_err(|source| Error::wire("frames cannot be written").with_source(source))?,
        };
        Ok(Prepared::new(keys::event_of(&id), signed))
    }

    async fn publish(&self, prepared: &Prepared) -> Result<()> {
        let unusable =
            || Error::transport("a prepared message is not a signed event of this client");
        let events =
            read_prepared(&prepared.signed).map_err(|source| unusable().with_source(source))?;
        let last = events.last().ok_or_else(unusable)?;
        let own = self.settings.keys.public();
        if events.iter().any(|event| event.pubkey != own)
            || keys::event_of(&last.id) != prepared.event
        {
            return Err(unusable());
        }
        let is_request =
            events.len() > 1 || matches!(Message::parse(&last.content), Ok(Message::Request(_)));
        let route = self.route();
        if route.wrap.is_some() {
            self.knowledge.sent_encrypted(last.id);
        }
        let mut leave = self.asks_for_leave(&events);
        for event in events {
            self.relays
                .publish(&outbound::carrier(event, &self.server, &route)?)
                .await?;
            if let Some(leave) = leave.take()
                && !matches!(timeout(ACCEPTS_WITHIN, leave).await, Ok(Ok(true)))
            {
                let text = "the server does not take messages that are too large for one event";
                return Err(Error::new(ErrorKind::TooLarge, text));
            }
        }
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
            .map(|_| sign_anew(&keys, "{}".to_owned(), vec![Tag::new(["p", "x"])]))
            .map(|event| keys::event_of(&event.id))
            .collect();
        assert_eq!(ids.len(), 50);
    }
}
