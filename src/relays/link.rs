//! The link to one relay: connected for as long as it is wanted, subscribed, and never trusted.
//!
//! A task owns the connection. Its [`Reader`] hands events on, its writer sends what the [`Outbox`] holds.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use nostr::{ClientMessage, EventBuilder, Filter, JsonUtil, RelayUrl, SubscriptionId, Timestamp};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::meanwhile::Meanwhile;
use super::outbox::{Outbox, Post};
use super::reader::{Delivery, Note, Phase, Reader};
use super::socket::{self, Socket};
use super::{Interest, SKEW, Subscription};
use crate::error::{Error, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of a connection may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// The pause before a relay is tried again: first, and at most. A relay that was gone is back within the minute for which
/// a message is kept.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(15);
/// A connection that lasted so long was a good one: the next pause is the first again.
const GOOD: Duration = Duration::from_secs(30);
const PING: Duration = Duration::from_secs(5);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const RESUBSCRIBE_FIRST: Duration = Duration::from_secs(1);
const RESUBSCRIBE_MOST: Duration = Duration::from_secs(60);
/// Frames written between two flushes, at most.
const BATCH: usize = 64;
/// Challenges answered on one connection, at most: each costs a signature.
const AUTHS: u32 = 4;
pub(super) const SUBSCRIPTION: &str = "tollkeeper";

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
    pub(super) subscription: Subscription,
    /// What is wanted for a while, beside it.
    pub(super) meanwhile: watch::Receiver<Option<Filter>>,
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
pub(super) fn spawn(config: LinkConfig, tasks: &TaskTracker) -> RelayLink {
    let (posts, waiting) = mpsc::channel(256);
    let (state, states) = watch::channel(LinkState::Down);
    let url = config.url.clone();
    let link = Link {
        config,
        posts: waiting,
        outbox: Outbox::default(),
        state,
        subscribed_before: false,
        connected_before: false,
    };
    tasks.spawn(link.run());
    RelayLink {
        url,
        posts,
        state: states,
    }
}

struct Link {
    config: LinkConfig,
    posts: mpsc::Receiver<Post>,
    outbox: Outbox,
    state: watch::Sender<LinkState>,
    subscribed_before: bool,
    connected_before: bool,
}

impl Link {
    async fn run(mut self) {
        let stop = self.config.stop.clone();
        let mut pause = RETRY;
        while let Some(socket) = stop.run_until_cancelled(self.connect()).await {
            let since = Instant::now();
            self.state.send_replace(LinkState::Connected);
            tracing::info!(relay = shown(&self.config.url), "connected");
            let (mut sink, mut stream) = socket.split();
            let (notes, heard) = mpsc::channel(256);
            let reader = Reader {
                index: self.config.index,
                deliveries: self.config.deliveries.clone(),
                room: self.config.room.clone(),
                deaf: self.config.deaf.clone(),
                notes,
                phase: if self.subscribed_before {
                    Phase::Replay
                } else {
                    Phase::FirstReplay
                },
            };
            let ended = tokio::select! {
                ended = reader.run(&mut stream) => ended,
                ended = self.write(&mut sink, heard) => ended,
                () = stop.cancelled() => {
                    // Closed in an orderly way: what was written last would be lost with a connection that is reset.
                    let _ = timeout(FAREWELL, self.part(sink, stream)).await;
                    return;
                }
            };
            self.state.send_replace(LinkState::Down);
            let cause = ended
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            tracing::info!(relay = shown(&self.config.url), cause, "disconnected");
            // A relay that takes connections and ends them is not asked for them every second.
            if since.elapsed() >= GOOD {
                pause = RETRY;
            }
            if stop
                .run_until_cancelled(self.collect_during(sleep(spread(pause))))
                .await
                .is_none()
            {
                return;
            }
            pause = (pause * 2).min(RETRY_MOST);
        }
    }

    /// Writes what is left, and closes.
    async fn part(
        &mut self,
        mut sink: SplitSink<Socket, Frame>,
        mut stream: SplitStream<Socket>,
    ) -> Result<()> {
        let now = Instant::now();
        self.collect(now);
        while let Some(frame) = self.outbox.next(now) {
            within(sink.feed(Frame::Text(frame))).await?;
        }
        within(sink.close()).await?;
        while let Some(Ok(_)) = stream.next().await {}
        Ok(())
    }

    async fn connect(&mut self) -> Socket {
        let mut said = false;
        let mut pause = RETRY;
        loop {
            let url = self.config.url.clone();
            let attempt = timeout(CONNECT_TIMEOUT, socket::connect(&url));
            match self.collect_during(attempt).await {
                Ok(Ok(socket)) => return socket,
                _ if !said => {
                    said = true;
                    tracing::warn!(
                        relay = shown(&url),
                        most_secs = RETRY_MOST.as_secs(),
                        "cannot connect; trying again, less and less often"
                    );
                }
                _ => {}
            }
            self.outbox.expire(Instant::now());
            self.collect_during(sleep(spread(pause))).await;
            pause = (pause * 2).min(RETRY_MOST);
        }
    }

    /// Takes in what is to be sent.
    fn collect(&mut self, now: Instant) {
        while let Ok(post) = self.posts.try_recv() {
            self.outbox.add(post, now);
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

    async fn write(
        &mut self,
        sink: &mut SplitSink<Socket, Frame>,
        mut notes: mpsc::Receiver<Note>,
    ) -> Result<()> {
        if self.connected_before {
            self.outbox.rewind(Instant::now());
        }
        self.connected_before = true;
        let mut ping = tokio::time::interval(PING);
        // Who asks for nothing only sends.
        let listens = !self.config.subscription.interests.is_empty();
        let mut subscribe_at = (listens && !self.config.deaf.is_cancelled()).then(Instant::now);
        let mut pause = RESUBSCRIBE_FIRST;
        let mut auths = 0;
        let deaf = self.config.deaf.clone();
        let mut told_deaf = deaf.is_cancelled();
        let mut meanwhile = Meanwhile::new(&self.config.meanwhile);
        loop {
            let now = Instant::now();
            // Before anything is published: an answer must not be faster than the question for it.
            if let Some(frame) = meanwhile.news() {
                put(sink, Frame::text(frame)).await?;
            }
            if subscribe_at.is_some_and(|at| at <= now) {
                subscribe_at = None;
                put(sink, Frame::text(self.subscription())).await?;
            }
            let mut batch = 0;
            while batch < BATCH
                && let Some(frame) = self.outbox.next(now)
            {
                within(sink.feed(Frame::Text(frame))).await?;
                batch += 1;
            }
            if batch > 0 {
                within(sink.flush()).await?;
                self.outbox.flushed(batch);
            }
            let more = if batch == BATCH { Some(now) } else { None };
            let wake = [more, self.outbox.wake(), subscribe_at]
                .into_iter()
                .flatten()
                .min();
            tokio::select! {
                Some(post) = self.posts.recv() => {
                    self.outbox.add(post, now);
                    self.collect(now);
                }
                Some(note) = notes.recv() => match note {
                    Note::Ok { id, accepted, reason } => self.outbox.answered(&id, accepted, reason, Instant::now()),
                    Note::Eose => {
                        self.subscribed_before = true;
                        pause = RESUBSCRIBE_FIRST;
                        self.state.send_replace(LinkState::Ready);
                    }
                    Note::Closed => {
                        tracing::warn!(relay = shown(&self.config.url), "the relay closed the subscription; asking again");
                        self.state.send_replace(LinkState::Connected);
                        if !deaf.is_cancelled() {
                            subscribe_at = Some(Instant::now() + pause);
                        }
                        pause = (pause * 2).min(RESUBSCRIBE_MOST);
                    }
                    Note::Auth(challenge) if auths < AUTHS => {
                        auths += 1;
                        if let Some(frame) = self.authentication(challenge) {
                            put(sink, Frame::text(frame)).await?;
                        }
                    }
                    Note::Auth(_) => {}
                },
                () = meanwhile.changed() => {}
                _ = ping.tick() => {
                    self.outbox.expire(Instant::now());
                    put(sink, Frame::Ping(Vec::new().into())).await?;
                }
                () = deaf.cancelled(), if !told_deaf => {
                    told_deaf = true;
                    subscribe_at = None;
                    put(sink, Frame::text(ClientMessage::close(SubscriptionId::new(SUBSCRIPTION)).as_json())).await?;
                }
                () = async { tokio::time::sleep_until(wake.unwrap_or(now)).await }, if wake.is_some() => {}
            }
        }
    }

    fn subscription(&self) -> String {
        let since = Timestamp::from(Timestamp::now().as_secs().saturating_sub(SKEW.as_secs()));
        let filters = self.config.subscription.interests.iter();
        let filters = filters.map(|interest| match interest {
            Interest::Recent(filter) => Cow::Owned(filter.clone().since(since)),
            Interest::Kept(filter) => Cow::Borrowed(filter),
        });
        ClientMessage::Req {
            subscription_id: Cow::Owned(SubscriptionId::new(SUBSCRIPTION)),
            filters: filters.collect(),
        }
        .as_json()
    }

    fn authentication(&self, challenge: String) -> Option<String> {
        let event = EventBuilder::auth(challenge, self.config.url.clone())
            .sign_with_keys(&self.config.subscription.keys);
        event.ok().map(|event| ClientMessage::auth(event).as_json())
    }
}

/// A pause that is not the same for everybody whom a relay lost at once: a quarter more or less.
fn spread(pause: Duration) -> Duration {
    let random = u32::try_from(RandomState::new().hash_one(()) % 512).unwrap_or_default();
    pause * (768 + random) / 1024
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

/// The address without path, query and user: those may hold an access token.
pub(crate) fn shown(url: &RelayUrl) -> String {
    let address: &nostr::Url = url.into();
    let host = address.host_str().unwrap_or_default();
    match address.port() {
        Some(port) => format!("{}://{host}:{port}", address.scheme()),
        None => format!("{}://{host}", address.scheme()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_differ_by_a_quarter_at_most() {
        for _ in 0..100 {
            let pause = spread(Duration::from_secs(8));
            assert!((6000..=10_000).contains(&pause.as_millis()), "{pause:?}");
        }
    }

    #[test]
    fn an_address_is_shown_without_what_may_be_secret() {
        let url =
            RelayUrl::parse("wss://user:secret@relay.example.com:4/secret?key=secret").unwrap();
        assert_eq!(shown(&url), "wss://relay.example.com:4");
    }
}
