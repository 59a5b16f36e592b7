//! The link to one relay: connected for as long as the transport lives, subscribed, and never trusted.
//!
//! A task owns the connection. Its reader hands events to a bounded queue and waits there, so that back-pressure reaches
//! the relay and nothing is lost to a lagging channel; its writer sends what the [`Outbox`] holds. A half-open
//! connection is noticed by its silence within seconds.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use nostr::{
    ClientMessage, Event, EventBuilder, EventId, Filter, JsonUtil, Kind, RelayMessage, RelayUrl, SubscriptionId,
    Timestamp,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_util::sync::CancellationToken;

use super::config::{MAX_FRAME, SKEW};
use super::keys::NostrKeys;
use super::outbox::{Outbox, Post};
use super::socket::{self, Socket};
use crate::error::{Error, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);
const PING: Duration = Duration::from_secs(5);
const SILENT: Duration = Duration::from_secs(15);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const RESUBSCRIBE_FIRST: Duration = Duration::from_secs(1);
const RESUBSCRIBE_MOST: Duration = Duration::from_secs(60);
/// Frames written between two flushes, at most.
const BATCH: usize = 64;
/// Challenges answered on one connection, at most: each costs a signature.
const AUTHS: u32 = 4;
const SUBSCRIPTION: &str = "tollkeeper";

/// When an event was delivered, seen from the subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// From the relay's store, before the first EOSE of this process.
    FirstReplay,
    /// From the relay's store, after a reconnect.
    Replay,
    /// As it was published.
    Live,
}

/// An event as a relay delivered it: nothing about it is verified.
pub(super) struct Delivery {
    pub(super) relay: usize,
    pub(super) phase: Phase,
    pub(super) event: Event,
    /// Room in memory that the event takes until it is worked off.
    _room: OwnedSemaphorePermit,
}

/// How far a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LinkState {
    Down,
    Connected,
    /// The subscription is live.
    Ready,
}

/// What reader and writer of a connection share.
pub(super) struct LinkConfig {
    pub(super) index: usize,
    pub(super) url: RelayUrl,
    pub(super) keys: NostrKeys,
    pub(super) kinds: Vec<Kind>,
    pub(super) deliveries: mpsc::Sender<Delivery>,
    pub(super) room: Arc<Semaphore>,
    /// No more events are wanted; sending goes on.
    pub(super) deaf: CancellationToken,
    /// The end.
    pub(super) stop: CancellationToken,
}

/// The handle of a link.
#[derive(Debug)]
pub(super) struct RelayLink {
    pub(super) url: RelayUrl,
    pub(super) posts: mpsc::Sender<Post>,
    pub(super) state: watch::Receiver<LinkState>,
}

/// Starts a link.
pub(super) fn spawn(config: LinkConfig) -> RelayLink {
    let (posts, waiting) = mpsc::channel(256);
    let (state, states) = watch::channel(LinkState::Down);
    let url = config.url.clone();
    let stop = config.stop.clone();
    let link = Link { config, posts: waiting, outbox: Outbox::default(), state, subscribed_before: false, connected_before: false };
    tokio::spawn(async move {
        stop.run_until_cancelled(link.run()).await;
    });
    RelayLink { url, posts, state: states }
}

struct Link {
    config: LinkConfig,
    posts: mpsc::Receiver<Post>,
    outbox: Outbox,
    state: watch::Sender<LinkState>,
    subscribed_before: bool,
    connected_before: bool,
}

/// What the reader tells the writer.
enum Note {
    Ok { id: EventId, accepted: bool, reason: &'static str },
    Eose,
    Closed,
    Auth(String),
}

impl Link {
    async fn run(mut self) {
        loop {
            let socket = self.connect().await;
            self.state.send_replace(LinkState::Connected);
            tracing::info!(relay = %self.config.url, "connected");
            let (sink, stream) = socket.split();
            let (notes, heard) = mpsc::channel(256);
            let phase = if self.subscribed_before { Phase::Replay } else { Phase::FirstReplay };
            let reader = Reader {
                index: self.config.index,
                deliveries: self.config.deliveries.clone(),
                room: self.config.room.clone(),
                deaf: self.config.deaf.clone(),
                notes,
                phase,
            };
            let ended = tokio::select! {
                ended = reader.run(stream) => ended,
                ended = self.write(sink, heard) => ended,
            };
            self.state.send_replace(LinkState::Down);
            let cause = ended.err().map(|error| error.to_string()).unwrap_or_default();
            tracing::info!(relay = %self.config.url, cause, "disconnected");
            self.collect_during(sleep(RETRY)).await;
        }
    }

    async fn connect(&mut self) -> Socket {
        let mut said = false;
        loop {
            let url = self.config.url.clone();
            let attempt = timeout(CONNECT_TIMEOUT, socket::connect(&url));
            match self.collect_during(attempt).await {
                Ok(Ok(socket)) => return socket,
                _ if !said => {
                    said = true;
                    tracing::warn!(relay = %url, "cannot connect; trying again every second");
                }
                _ => {}
            }
            self.outbox.expire(Instant::now());
            self.collect_during(sleep(RETRY)).await;
        }
    }

    /// Waits for `future` and takes in what is to be sent meanwhile.
    async fn collect_during<F: Future>(&mut self, future: F) -> F::Output {
        tokio::pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return output,
                Some(post) = self.posts.recv() => self.outbox.add(post, Instant::now()),
            }
        }
    }

    async fn write(&mut self, mut sink: SplitSink<Socket, Frame>, mut notes: mpsc::Receiver<Note>) -> Result<()> {
        if self.connected_before {
            self.outbox.rewind(Instant::now());
        }
        self.connected_before = true;
        let mut ping = tokio::time::interval(PING);
        let mut subscribe_at = (!self.config.deaf.is_cancelled()).then(Instant::now);
        let mut pause = RESUBSCRIBE_FIRST;
        let mut auths = 0;
        let deaf = self.config.deaf.clone();
        let mut told_deaf = deaf.is_cancelled();
        loop {
            let now = Instant::now();
            if subscribe_at.is_some_and(|at| at <= now) {
                subscribe_at = None;
                put(&mut sink, Frame::text(self.subscription())).await?;
            }
            let mut batch = 0;
            while batch < BATCH && let Some(frame) = self.outbox.next(now) {
                within(sink.feed(Frame::Text(frame))).await?;
                batch += 1;
            }
            if batch > 0 {
                within(sink.flush()).await?;
                self.outbox.flushed(batch);
            }
            let more = if batch == BATCH { Some(now) } else { None };
            let wake = [more, self.outbox.wake(), subscribe_at].into_iter().flatten().min();
            tokio::select! {
                Some(post) = self.posts.recv() => {
                    self.outbox.add(post, now);
                    while let Ok(post) = self.posts.try_recv() {
                        self.outbox.add(post, now);
                    }
                }
                Some(note) = notes.recv() => match note {
                    Note::Ok { id, accepted, reason } => self.outbox.answered(&id, accepted, reason, Instant::now()),
                    Note::Eose => {
                        self.subscribed_before = true;
                        pause = RESUBSCRIBE_FIRST;
                        self.state.send_replace(LinkState::Ready);
                    }
                    Note::Closed => {
                        tracing::warn!(relay = %self.config.url, "the relay closed the subscription; asking again");
                        self.state.send_replace(LinkState::Connected);
                        if !deaf.is_cancelled() {
                            subscribe_at = Some(Instant::now() + pause);
                        }
                        pause = (pause * 2).min(RESUBSCRIBE_MOST);
                    }
                    Note::Auth(challenge) if auths < AUTHS => {
                        auths += 1;
                        if let Some(frame) = self.authentication(challenge) {
                            put(&mut sink, Frame::text(frame)).await?;
                        }
                    }
                    Note::Auth(_) => {}
                },
                _ = ping.tick() => {
                    self.outbox.expire(Instant::now());
                    put(&mut sink, Frame::Ping(Vec::new().into())).await?;
                }
                () = deaf.cancelled(), if !told_deaf => {
                    told_deaf = true;
                    subscribe_at = None;
                    put(&mut sink, Frame::text(ClientMessage::close(SubscriptionId::new(SUBSCRIPTION)).as_json())).await?;
                }
                () = async { tokio::time::sleep_until(wake.unwrap_or(now)).await }, if wake.is_some() => {}
            }
        }
    }

    fn subscription(&self) -> String {
        let since = Timestamp::from(Timestamp::now().as_secs().saturating_sub(SKEW.as_secs()));
        let filter = Filter::new().pubkey(self.config.keys.public()).kinds(self.config.kinds.clone()).since(since);
        ClientMessage::req(SubscriptionId::new(SUBSCRIPTION), filter).as_json()
    }

    fn authentication(&self, challenge: String) -> Option<String> {
        let event = EventBuilder::auth(challenge, self.config.url.clone()).sign_with_keys(self.config.keys.inner());
        event.ok().map(|event| ClientMessage::auth(event).as_json())
    }
}

async fn put(sink: &mut SplitSink<Socket, Frame>, frame: Frame) -> Result<()> {
    within(sink.send(frame)).await
}

/// A relay that takes no bytes is as good as gone.
async fn within(
    write: impl Future<Output = std::result::Result<(), tokio_tungstenite::tungstenite::Error>>,
) -> Result<()> {
    match timeout(WRITE_TIMEOUT, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Error::transport("cannot write")),
        Err(_) => Err(Error::transport("the relay takes nothing")),
    }
}

struct Reader {
    index: usize,
    deliveries: mpsc::Sender<Delivery>,
    room: Arc<Semaphore>,
    deaf: CancellationToken,
    notes: mpsc::Sender<Note>,
    phase: Phase,
}

impl Reader {
    async fn run(mut self, mut stream: SplitStream<Socket>) -> Result<()> {
        loop {
            // Only the wait for the relay is timed: while our own queue is full, the relay is not silent.
            let frame = match timeout(SILENT, stream.next()).await {
                Err(_) => return Err(Error::transport("the relay is silent")),
                Ok(None) => return Err(Error::transport("the relay closed the connection")),
                Ok(Some(Err(_))) => return Err(Error::transport("cannot read")),
                Ok(Some(Ok(frame))) => frame,
            };
            if let Frame::Text(text) = frame {
                self.take(&text).await?;
            }
        }
    }

    async fn take(&mut self, text: &str) -> Result<()> {
        if text.len() > MAX_FRAME || !text.starts_with('[') {
            tracing::debug!(relay = self.index, bytes = text.len(), "dropped a frame unread");
            return Ok(());
        }
        let Ok(message) = RelayMessage::from_json(text) else {
            tracing::debug!(relay = self.index, bytes = text.len(), "dropped a frame that is no relay message");
            return Ok(());
        };
        let note = match message {
            RelayMessage::Event { event, .. } => return self.deliver(event.into_owned(), text.len()).await,
            RelayMessage::Ok { event_id, status, message } => {
                Note::Ok { id: event_id, accepted: status, reason: prefix(&message) }
            }
            RelayMessage::EndOfStoredEvents(_) => {
                self.phase = Phase::Live;
                Note::Eose
            }
            RelayMessage::Closed { .. } => {
                self.phase = Phase::Replay;
                Note::Closed
            }
            RelayMessage::Auth { challenge } => Note::Auth(challenge.into_owned()),
            _ => return Ok(()),
        };
        self.notes.send(note).await.map_err(|_| Error::closed("the writer is gone"))
    }

    async fn deliver(&self, event: Event, bytes: usize) -> Result<()> {
        if self.deaf.is_cancelled() {
            return Ok(());
        }
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(permits).await;
        let room = room.map_err(|_| Error::closed("the transport is gone"))?;
        let delivery = Delivery { relay: self.index, phase: self.phase, event, _room: room };
        // A closed queue means that nobody wants events any more; the link still sends.
        let _ = self.deliveries.send(delivery).await;
        Ok(())
    }
}

/// The machine-readable word that a relay's message begins with. Only known words are kept: the rest is a stranger's
/// text.
fn prefix(message: &str) -> &'static str {
    const KNOWN: [&str; 9] = [
        "duplicate",
        "pow",
        "blocked",
        "rate-limited",
        "invalid",
        "error",
        "restricted",
        "auth-required",
        "unsupported",
    ];
    let word = message.split(':').next().unwrap_or_default().trim();
    KNOWN.into_iter().find(|known| *known == word).unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_words_of_a_relay_are_repeated() {
        assert_eq!(prefix("rate-limited: slow down"), "rate-limited");
        assert_eq!(prefix("<script>: x"), "unknown");
        assert_eq!(prefix(""), "unknown");
    }
}
