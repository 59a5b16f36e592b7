//! Sending one event to all relays: the first that takes it decides, a slow or dead one delays nobody.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use nostr::{Event, Filter, JsonUtil, Kind, RelayUrl};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::link::{self, LinkConfig, LinkState, RelayLink};
use super::outbox::{Outcome, Post};
use super::reader::Delivery;
use super::{KEEP_TRYING, MAX_FRAME, SILENCE, Subscription};
use crate::error::{Error, ErrorKind, Result};

/// Events in the queue between the links and whoever works them off.
const QUEUE: usize = 1024;
/// Bytes of them, over all relays.
const QUEUE_BYTES: usize = 32 * MAX_FRAME;

/// The links to a set of relays. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Relays {
    links: Vec<RelayLink>,
    #[cfg_attr(
        not(feature = "lightning"),
        expect(dead_code, reason = "only wallets are asked for something meanwhile")
    )]
    meanwhile: watch::Sender<Option<Filter>>,
    deaf: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
    _guard: DropGuard,
}

impl Relays {
    /// Connects to the relays and subscribes; what they deliver comes out of the receiver.
    pub(crate) fn spawn(
        urls: Vec<RelayUrl>,
        subscription: &Subscription,
    ) -> (Self, mpsc::Receiver<Delivery>) {
        let (deliveries, queue) = mpsc::channel(QUEUE);
        let (deaf, stop) = (CancellationToken::new(), CancellationToken::new());
        let room = Arc::new(Semaphore::new(QUEUE_BYTES));
        let tasks = TaskTracker::new();
        let (meanwhile, wanted) = watch::channel(None);
        let links = urls
            .into_iter()
            .enumerate()
            .map(|(index, url)| {
                let config = LinkConfig {
                    index,
                    url,
                    subscription: subscription.clone(),
                    meanwhile: wanted.clone(),
                    deliveries: deliveries.clone(),
                    room: room.clone(),
                    deaf: deaf.clone(),
                    stop: stop.clone(),
                };
                link::spawn(config, &tasks)
            })
            .collect();
        tasks.close();
        let relays = Self {
            links,
            meanwhile,
            deaf,
            _guard: stop.clone().drop_guard(),
            stop,
            tasks,
        };
        (relays, queue)
    }

    /// Waits until one relay has confirmed the subscription: a message that is answered earlier would be lost.
    pub(crate) async fn ready(&self, patience: Duration) -> Result<()> {
        let first = select_all(self.links.iter().map(|link| {
            let mut state = link.state.clone();
            Box::pin(async move {
                state
                    .wait_for(|state| *state == LinkState::Ready)
                    .await
                    .is_ok()
            })
        }));
        match timeout(patience, first).await {
            Ok((true, ..)) => Ok(()),
            _ => {
                let names: Vec<String> = self
                    .links
                    .iter()
                    .map(|link| link::shown(&link.url))
                    .collect();
                let text = format!(
                    "no relay is ready after {} s: {}",
                    patience.as_secs(),
                    names.join(", ")
                );
                Err(Error::new(ErrorKind::Transport, text))
            }
        }
    }

    /// Where to say what is wanted for a while, beside the subscription. It is asked for before anything that is published
    /// afterwards.
    #[cfg(feature = "lightning")]
    pub(crate) fn meanwhile(&self) -> watch::Sender<Option<Filter>> {
        self.meanwhile.clone()
    }

    /// Waits until every relay has told what it has kept, or for `patience`; true if every one has.
    pub(crate) async fn all_ready(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        for link in &self.links {
            let mut state = link.state.clone();
            let ready = state.wait_for(|state| *state == LinkState::Ready);
            if !matches!(timeout_at(deadline, ready).await, Ok(Ok(_))) {
                return false;
            }
        }
        true
    }

    /// How each relay is at the moment: its address, without what may be secret in it, and a word.
    pub(crate) fn health(&self) -> Vec<(String, &'static str)> {
        let word = |link: &RelayLink| match *link.state.borrow() {
            LinkState::Down => "down",
            LinkState::Connected => "connected",
            LinkState::Ready => "ready",
        };
        self.links
            .iter()
            .map(|link| (link::shown(&link.url), word(link)))
            .collect()
    }

    /// Wants no more events. Sending goes on.
    pub(crate) fn close_intake(&self) {
        self.deaf.cancel();
    }

    /// Writes out what is left and closes the connections.
    pub(crate) async fn shutdown(&self) {
        self.deaf.cancel();
        self.stop.cancel();
        self.tasks.wait().await;
    }

    /// Is cancelled once no more events are wanted.
    pub(crate) fn deaf(&self) -> CancellationToken {
        self.deaf.clone()
    }

    /// The addresses of the relays.
    pub(crate) fn urls(&self) -> impl Iterator<Item = &nostr::RelayUrl> {
        self.links.iter().map(|link| &link.url)
    }

    /// Sends `event` to every relay.
    ///
    /// An ephemeral event is done once it went over the wire to one relay, because not every relay confirms those; any
    /// other once one relay took it, or kept silent for a while. Refusals that may pass are tried again by the link.
    pub(crate) async fn publish(&self, event: &Event) -> Result<()> {
        self.send(event, false).await
    }

    /// As [`publish`](Self::publish), but what was written is never written again to the same relay, not even when the
    /// connection was lost on the way: for what must not be acted on twice.
    #[cfg_attr(
        not(feature = "lightning"),
        expect(dead_code, reason = "only payments are like that")
    )]
    pub(crate) async fn publish_once(&self, event: &Event) -> Result<()> {
        self.send(event, true).await
    }

    async fn send(&self, event: &Event, once: bool) -> Result<()> {
        let ephemeral = is_ephemeral(event.kind);
        let started = Instant::now();
        let deadline = started + KEEP_TRYING;
        let frame: tokio_tungstenite::tungstenite::Utf8Bytes =
            format!("[\"EVENT\",{}]", event.as_json()).into();
        let (report, mut outcomes) = mpsc::channel(self.links.len() * 4);
        let post = || Post {
            id: event.id,
            frame: frame.clone(),
            since: started,
            ephemeral,
            once,
            report: report.clone(),
        };
        let mut open = self
            .links
            .iter()
            .filter(|link| link.posts.try_send(post()).is_ok())
            .count();
        if open == 0 {
            // Every link is behind: wait for the first that has room again.
            let waiting = select_all(
                self.links
                    .iter()
                    .map(|link| Box::pin(link.posts.send(post()))),
            );
            match timeout_at(deadline, waiting).await {
                Ok((Ok(()), ..)) => open = 1,
                _ => return Err(Error::transport("no relay takes messages")),
            }
        }
        drop(report);
        let mut patience = deadline;
        let mut written = false;
        let mut refusal = "";
        loop {
            match timeout_at(patience, outcomes.recv()).await {
                Ok(Some(Outcome::Accepted)) => return Ok(()),
                Ok(Some(Outcome::Written)) if ephemeral => return Ok(()),
                Ok(Some(Outcome::Written)) => {
                    if !written {
                        written = true;
                        patience = deadline.min(Instant::now() + SILENCE);
                    }
                }
                Ok(Some(outcome)) => {
                    if let Outcome::Refused(reason) = outcome {
                        refusal = reason;
                    }
                    open -= 1;
                    if open == 0 {
                        break;
                    }
                }
                // The link gave the event up after it was written, or silence lasted long enough to be consent.
                Ok(None) | Err(_) if written => return Ok(()),
                Ok(None) | Err(_) => break,
            }
        }
        let text = if refusal.is_empty() {
            "no relay could be reached".to_owned()
        } else {
            format!("every relay refused the message ({refusal})")
        };
        Err(Error::transport(text))
    }
}

fn is_ephemeral(kind: Kind) -> bool {
    (20_000..30_000).contains(&kind.as_u16())
}
