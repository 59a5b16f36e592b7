//! The server's end on Nostr.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use nostr::PublicKey;
use tokio::sync::{Semaphore, mpsc};

use super::announce::Announcer;
use super::config::{EncryptionMode, GiftWrapMode, ServerInfo, Settings};
use super::inbound::{self, Acceptance};
use super::keys::{self, NostrKeys};
use super::outbound::{self, Route};
use super::oversized;
use super::server_intake::{Received, Requests};
use super::session::Sessions;
use crate::error::Result;
use crate::payment::{ClientPubkey, RequestEventId, ServerPubkey, Timestamp};
use crate::relays::{Relays, Subscription, parse_urls};
use crate::transport::{Advertisement, Inbound, Outbound, ReplyTo, ServerTransport};
use crate::wire::{Message, Notification, Tag};

/// What the transport itself has to say to clients at a time; beyond that it says nothing.
const ASIDES: usize = 64;

/// Answers MCP requests that arrive over Nostr relays.
pub struct NostrServerTransport {
    pub(super) settings: Settings,
    pub(super) info: ServerInfo,
    pub(super) relays: Arc<Relays>,
    /// Relays that are told where the server is, and nothing else.
    pub(super) bootstrap: Option<Relays>,
    pub(super) advertisement: RwLock<Advertisement>,
    pub(super) announcer: Announcer,
    /// What an introduction takes in an event, so that it need not be made to be measured.
    introduction_bytes: AtomicUsize,
    sessions: Arc<Mutex<Sessions>>,
    inbound: tokio::sync::Mutex<mpsc::Receiver<Received>>,
    asides: Arc<Semaphore>,
}

/// Says how a [`NostrServerTransport`] is to be.
#[derive(Debug, Clone)]
pub struct NostrServerBuilder {
    settings: Settings,
    info: ServerInfo,
    bootstrap: Vec<String>,
}

impl NostrServerTransport {
    /// A server that signs with `keys`.
    #[must_use]
    pub fn builder(keys: NostrKeys) -> NostrServerBuilder {
        NostrServerBuilder {
            settings: Settings::new(keys),
            info: ServerInfo::default(),
            bootstrap: Vec::new(),
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
        match &self.bootstrap {
            None => self.relays.shutdown().await,
            Some(bootstrap) => {
                tokio::join!(self.relays.shutdown(), bootstrap.shutdown());
            }
        }
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
        route: &Route,
        message: &Message,
        own: Vec<Tag>,
    ) -> Result<()> {
        let content = message.to_json();
        let recipient = keys::public_key(client.as_bytes());
        let first = self.sessions().introduce(client);
        let introduction = if first { self.discovery() } else { Vec::new() };
        let request = request.map(ToString::to_string);
        let address = Address {
            client: client.to_string(),
            request,
            recipient,
        };
        let tags = outbound::server_tags(
            &address.client,
            address.request.as_deref(),
            introduction,
            own,
        );
        let sent = self.sign_and_publish(content, &tags, &address, route).await;
        if first && sent.is_err() {
            self.sessions().not_introduced(&client);
        }
        sent
    }

    async fn sign_and_publish(
        &self,
        content: String,
        tags: &[Tag],
        to: &Address,
        route: &Route,
    ) -> Result<()> {
        let event = outbound::message(self.settings.keys(), content, tags);
        if let Some(token) = &route.frames
            && oversized::is_worth_splitting(&event, route)
        {
            let frames = oversized::split(&event.content, token, true)?;
            return self.publish_frames(frames, tags, to, route).await;
        }
        self.relays
            .publish(&outbound::carrier(event, &to.recipient, route)?)
            .await
    }

    /// One frame behind the other: the tags of the message are on the first (N-28).
    async fn publish_frames(
        &self,
        frames: Vec<Notification>,
        tags: &[Tag],
        to: &Address,
        route: &Route,
    ) -> Result<()> {
        let plain =
            outbound::server_tags(&to.client, to.request.as_deref(), Vec::new(), Vec::new());
        let mut tags = tags;
        for frame in frames {
            let content = Message::from(frame).to_json();
            let event = outbound::message(self.settings.keys(), content, tags);
            let carrier = outbound::carrier(event, &to.recipient, route)?;
            self.relays.publish(&carrier).await?;
            tags = &plain;
        }
        Ok(())
    }

    /// Says something that no request waits for, and that nothing depends on: beside everything else, or not at all.
    fn say_aside(&self, to: ClientPubkey, route: Route, notification: Notification) {
        let Ok(permit) = Arc::clone(&self.asides).try_acquire_owned() else {
            return;
        };
        let (relays, keys) = (Arc::clone(&self.relays), self.settings.keys.clone());
        tokio::spawn(async move {
            let content = Message::from(notification).to_json();
            let tags = [Tag::new(["p", &to.to_string()])];
            let recipient = keys::public_key(to.as_bytes());
            let event = outbound::message(keys.inner(), content, &tags);
            if let Ok(carrier) = outbound::carrier(event, &recipient, &route) {
                let _ = relays.publish(&carrier).await;
            }
            drop(permit);
        });
    }
}

/// Where a message goes, in the words that tags and wraps need.
struct Address {
    client: String,
    request: Option<String>,
    recipient: PublicKey,
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

    /// Whether messages that are too large for one event are taken and sent in pieces (CEP-22); they are unless told
    /// otherwise.
    #[must_use]
    pub fn oversized_transfer(mut self, on: bool) -> Self {
        self.settings.oversized = on;
        self
    }

    /// How the server introduces itself.
    #[must_use]
    pub fn server_info(mut self, info: ServerInfo) -> Self {
        self.info = info;
        self
    }

    /// Relays that announcements, the list of relays and the profile are published on as well, so that the server is found
    /// by those who do not know its own relays.
    #[must_use]
    pub fn bootstrap_relays(mut self, relays: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.bootstrap = relays.into_iter().map(Into::into).collect();
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
        let Self {
            settings,
            info,
            bootstrap,
        } = self;
        let bootstrap = match bootstrap.as_slice() {
            [] => None,
            urls => Some(parse_urls(urls)?),
        };
        let started = Timestamp::from_secs(nostr::Timestamp::now().as_secs());
        let (relays, deliveries) = Relays::spawn(settings.relay_urls()?, &settings.subscription());
        let sessions = Arc::new(Mutex::new(Sessions::new()));
        let intake = Requests::new(&settings, sessions.clone(), started);
        let acceptance = Acceptance::new(&settings, None);
        let inbound = inbound::spawn(acceptance, deliveries, relays.deaf(), intake);
        relays.ready(settings.ready_timeout).await?;
        let nothing = Subscription {
            keys: settings.keys().clone(),
            interests: Vec::new(),
        };
        let unpaid = outbound::discovery(&info, &settings, &Advertisement::default());
        Ok(Arc::new(NostrServerTransport {
            introduction_bytes: AtomicUsize::new(outbound::tag_bytes(&unpaid)),
            bootstrap: bootstrap.map(|urls| Relays::spawn(urls, &nothing).0),
            settings,
            info,
            relays: Arc::new(relays),
            advertisement: RwLock::default(),
            announcer: Announcer::default(),
            sessions,
            inbound: tokio::sync::Mutex::new(inbound),
            asides: Arc::new(Semaphore::new(ASIDES)),
        }))
    }
}

#[async_trait]
impl ServerTransport for NostrServerTransport {
    async fn recv(&self) -> Option<Inbound> {
        let mut inbound = self.inbound.lock().await;
        loop {
            match inbound.recv().await? {
                Received::Message(inbound) => return Some(*inbound),
                Received::Say {
                    to,
                    route,
                    notification,
                } => self.say_aside(to, route, notification),
            }
        }
    }

    async fn send(&self, to: &ReplyTo, outbound: Outbound) -> Result<()> {
        let route = Route::parse(&to.route, &self.settings);
        self.post(
            to.client,
            Some(&to.event),
            &route,
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
            let sent = self.post(client, None, &route, &message, Vec::new()).await;
            // One client that cannot be reached does not keep the message from the others.
            outcome = outcome.and(sent);
        }
        outcome
    }

    fn can_carry(&self, to: &ReplyTo, outbound: &Outbound) -> bool {
        /// The tags `p` and `e`.
        const ADDRESS: usize = 256;
        let tags = ADDRESS
            + outbound::tag_bytes(&outbound.tags)
            + self.introduction_bytes.load(Ordering::Relaxed);
        if outbound::surely_fits(outbound.message.json_at_most(), tags) {
            return true;
        }
        let route = Route::parse(&to.route, &self.settings);
        let content = outbound.message.to_json();
        // As if it were the first of its session: it may be by the time it is sent.
        let tags = outbound::server_tags(
            &to.client.to_string(),
            Some(&to.event.to_string()),
            self.discovery(),
            outbound.tags.clone(),
        );
        outbound::can_carry(self.settings.keys(), content, &tags, &route)
    }

    fn advertise(&self, payments: Advertisement) {
        *self
            .advertisement
            .write()
            .unwrap_or_else(PoisonError::into_inner) = payments;
        self.introduction_bytes
            .store(outbound::tag_bytes(&self.discovery()), Ordering::Relaxed);
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
