//! The server's end on Nostr.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use nostr::PublicKey;
use tokio::sync::mpsc;

use super::announce::Announcer;
use super::config::{EncryptionMode, GiftWrapMode, ServerInfo, Settings};
use super::dedup::Verdict;
use super::inbound::{self, Acceptance, Intake, Opened};
use super::keys::{self, NostrKeys};
use super::outbound::{self, Route};
use super::session::Sessions;
use crate::error::Result;
use crate::payment::{ClientPubkey, RequestEventId, ServerPubkey, Timestamp};
use crate::relays::{Phase, Relays};
use crate::transport::{Advertisement, Inbound, Origin, Outbound, ReplyTo, ServerTransport};
use crate::wire::{Message, Tag};

/// Answers MCP requests that arrive over Nostr relays.
pub struct NostrServerTransport {
    pub(super) settings: Settings,
    pub(super) info: ServerInfo,
    pub(super) relays: Relays,
    pub(super) advertisement: RwLock<Advertisement>,
    pub(super) announcer: Announcer,
    sessions: Arc<Mutex<Sessions>>,
    inbound: tokio::sync::Mutex<mpsc::Receiver<Inbound>>,
}

/// Says how a [`NostrServerTransport`] is to be.
#[derive(Debug, Clone)]
pub struct NostrServerBuilder {
    settings: Settings,
    info: ServerInfo,
}

impl NostrServerTransport {
    /// A server that signs with `keys`.
    #[must_use]
    pub fn builder(keys: NostrKeys) -> NostrServerBuilder {
        NostrServerBuilder {
            settings: Settings::new(keys),
            info: ServerInfo::default(),
        }
    }

    /// The public key that clients address.
    #[must_use]
    pub fn server(&self) -> ServerPubkey {
        self.settings.keys.server_pubkey()
    }

    /// Writes out what is left and closes the connections, in about a second at most. Nothing can be sent afterwards.
    /// Dropping the transport does the same in the background, as long as the runtime lives.
    pub async fn shutdown(&self) {
        self.relays.shutdown().await;
    }

    pub(super) fn discovery(&self) -> Vec<Tag> {
        let payments = self
            .advertisement
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        outbound::discovery(&self.info, &self.settings, &payments)
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn post(
        &self,
        client: ClientPubkey,
        request: Option<&RequestEventId>,
        route: Route,
        message: &Message,
        own: Vec<Tag>,
    ) -> Result<()> {
        let content = message.to_json();
        let recipient = keys::public_key(client.as_bytes());
        let first = self.sessions().introduce(client);
        let introduction = if first { self.discovery() } else { Vec::new() };
        let request = request.map(ToString::to_string);
        let tags =
            outbound::server_tags(&client.to_string(), request.as_deref(), introduction, own);
        let sent = self
            .sign_and_publish(content, &tags, &recipient, route)
            .await;
        if first && sent.is_err() {
            self.sessions().not_introduced(&client);
        }
        sent
    }

    async fn sign_and_publish(
        &self,
        content: String,
        tags: &[Tag],
        to: &PublicKey,
        route: Route,
    ) -> Result<()> {
        let event = outbound::message(self.settings.keys(), content, tags)?;
        self.relays
            .publish(&outbound::carrier(event, to, route)?)
            .await
    }
}

impl NostrServerBuilder {
    /// The relays to serve on, as `wss://` or `ws://` addresses.
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

    /// How the server introduces itself.
    #[must_use]
    pub fn server_info(mut self, info: ServerInfo) -> Self {
        self.info = info;
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
    pub async fn connect(self) -> Result<Arc<NostrServerTransport>> {
        let Self { settings, info } = self;
        let started = Timestamp::from_secs(nostr::Timestamp::now().as_secs());
        let (relays, deliveries) = Relays::spawn(settings.relay_urls()?, &settings.subscription());
        let sessions = Arc::new(Mutex::new(Sessions::new()));
        let intake = Requests {
            sessions: sessions.clone(),
            gift_wrap: settings.gift_wrap,
            started,
        };
        let acceptance = Acceptance::new(&settings, None);
        let inbound = inbound::spawn(acceptance, deliveries, relays.deaf(), intake);
        relays.ready(settings.ready_timeout).await?;
        Ok(Arc::new(NostrServerTransport {
            settings,
            info,
            relays,
            advertisement: RwLock::default(),
            announcer: Announcer::default(),
            sessions,
            inbound: tokio::sync::Mutex::new(inbound),
        }))
    }
}

/// Turns verified messages into what the gate sees.
struct Requests {
    sessions: Arc<Mutex<Sessions>>,
    gift_wrap: GiftWrapMode,
    started: Timestamp,
}

impl Intake for Requests {
    type Output = Inbound;

    fn wants(&self, opened: &Opened) -> bool {
        !matches!(opened.message, Message::Response(_))
    }

    fn take(&self, opened: Opened, verdict: Verdict) -> Option<Inbound> {
        let tags = opened.tags();
        let client = keys::client_of(&opened.event.pubkey);
        let event = keys::event_of(&opened.event.id);
        let created_at = Timestamp::from_secs(opened.event.created_at.as_secs());
        // What a relay kept from before our start may have been answered by our predecessor.
        let stale = opened.phase == Phase::FirstReplay && created_at < self.started;
        let redelivered = verdict == Verdict::Redelivered || stale;
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = sessions.hear(client, &opened.message, &tags, opened.wrap, !redelivered);
        drop(sessions);
        let mut origin = Origin::new(client, event, created_at);
        origin.redelivered = redelivered;
        origin.pmis = heard.pmis;
        origin.interaction = Tag::interaction(&tags);
        let route = Route::reply(opened.wrap, heard.ephemeral, self.gift_wrap);
        origin.reply_to = ReplyTo::new(client, event, route.as_str());
        Some(Inbound::new(opened.message, origin))
    }
}

#[async_trait]
impl ServerTransport for NostrServerTransport {
    async fn recv(&self) -> Option<Inbound> {
        self.inbound.lock().await.recv().await
    }

    async fn send(&self, to: &ReplyTo, outbound: Outbound) -> Result<()> {
        let route = Route::parse(&to.route, &self.settings);
        self.post(
            to.client,
            Some(&to.event),
            route,
            &outbound.message,
            outbound.tags,
        )
        .await
    }

    async fn notify(&self, client: Option<&ClientPubkey>, message: Message) -> Result<()> {
        let clients = client.map_or_else(|| self.sessions().initialized(), |client| vec![*client]);
        let mut outcome = Ok(());
        for client in clients {
            let habit = self.sessions().habit(&client);
            let route = habit.map_or_else(
                || Route::unknown(&self.settings),
                |habit| Route::reply(habit.wrap, habit.ephemeral, self.settings.gift_wrap),
            );
            let sent = self.post(client, None, route, &message, Vec::new()).await;
            // One client that cannot be reached does not keep the message from the others.
            outcome = outcome.and(sent);
        }
        outcome
    }

    fn can_carry(&self, to: &ReplyTo, outbound: &Outbound) -> bool {
        let route = Route::parse(&to.route, &self.settings);
        let content = outbound.message.to_json();
        // As if it were the first of its session: it may be by the time it is sent.
        let tags = outbound::server_tags(
            &to.client.to_string(),
            Some(&to.event.to_string()),
            self.discovery(),
            outbound.tags.clone(),
        );
        outbound::can_carry(self.settings.keys(), content, &tags, route)
    }

    fn advertise(&self, payments: Advertisement) {
        *self
            .advertisement
            .write()
            .unwrap_or_else(PoisonError::into_inner) = payments;
    }

    async fn close(&self) {
        self.relays.close_intake();
    }
}

impl fmt::Debug for NostrServerTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NostrServerTransport")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
