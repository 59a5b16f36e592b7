//! What comes from one relay, as long as one connection lasts.
//!
//! Events go to a bounded queue, and the reader waits there: back-pressure reaches the relay, and nothing is lost to a
//! lagging channel. A half-open connection is noticed by its silence within seconds.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::SplitStream;
use nostr::{Event, EventId, JsonUtil, RelayMessage};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_util::sync::CancellationToken;

use super::MAX_FRAME;
use super::link::SUBSCRIPTION;
use super::socket::Socket;
use crate::error::{Error, Result};

/// A relay that has not even answered a ping for so long is gone.
const SILENT: Duration = Duration::from_secs(15);

/// When an event was delivered, seen from the subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// From the relay's store, before the first EOSE of this process.
    FirstReplay,
    /// From the relay's store, after a reconnect.
    Replay,
    /// As it was published.
    Live,
}

/// An event as a relay delivered it: nothing about it is verified.
pub(crate) struct Delivery {
    pub(crate) relay: usize,
    pub(crate) phase: Phase,
    pub(crate) event: Event,
    /// Room in memory that the event takes until it is worked off.
    _room: OwnedSemaphorePermit,
}

/// `["EVENT", subscription, event]`, read in one pass: the type of the library for all messages makes a tree of values first,
/// and this is what nearly all messages are.
struct Published(Event);

#[derive(Deserialize)]
enum Word {
    #[serde(rename = "EVENT")]
    Event,
}

impl<'de> Deserialize<'de> for Published {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (_, _, event) = <(Word, IgnoredAny, Event)>::deserialize(deserializer)?;
        Ok(Self(event))
    }
}

/// What the reader tells the writer.
pub(crate) enum Note {
    Ok {
        id: EventId,
        accepted: bool,
        reason: &'static str,
    },
    Eose,
    Closed,
    Auth(String),
}

/// See the [module](self).
pub(crate) struct Reader {
    pub(crate) index: usize,
    pub(crate) deliveries: mpsc::Sender<Delivery>,
    pub(crate) room: Arc<Semaphore>,
    pub(crate) deaf: CancellationToken,
    pub(crate) notes: mpsc::Sender<Note>,
    pub(crate) phase: Phase,
}

impl Reader {
    pub(crate) async fn run(mut self, stream: &mut SplitStream<Socket>) -> Result<()> {
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
            tracing::debug!(
                relay = self.index,
                bytes = text.len(),
                "dropped a frame unread"
            );
            return Ok(());
        }
        if let Ok(Published(event)) = serde_json::from_str(text) {
            return self.deliver(event, text.len()).await;
        }
        let Ok(message) = RelayMessage::from_json(text) else {
            tracing::debug!(
                relay = self.index,
                bytes = text.len(),
                "dropped a frame that is no relay message"
            );
            return Ok(());
        };
        let note = match message {
            RelayMessage::Event { event, .. } => {
                return self.deliver(event.into_owned(), text.len()).await;
            }
            RelayMessage::Ok {
                event_id,
                status,
                message,
            } => Note::Ok {
                id: event_id,
                accepted: status,
                reason: prefix(&message),
            },
            // Only the lasting subscription says how far the link is.
            RelayMessage::EndOfStoredEvents(id) if id.as_str() == SUBSCRIPTION => {
                self.phase = Phase::Live;
                Note::Eose
            }
            RelayMessage::Closed {
                subscription_id, ..
            } if subscription_id.as_str() == SUBSCRIPTION => {
                self.phase = Phase::Replay;
                Note::Closed
            }
            RelayMessage::Auth { challenge } => Note::Auth(challenge.into_owned()),
            _ => return Ok(()),
        };
        self.notes
            .send(note)
            .await
            .map_err(|_| Error::closed("the writer is gone"))
    }

    async fn deliver(&self, event: Event, bytes: usize) -> Result<()> {
        if self.deaf.is_cancelled() {
            return Ok(());
        }
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(permits).await;
        let room = room.map_err(|_| Error::closed("the transport is gone"))?;
        let delivery = Delivery {
            relay: self.index,
            phase: self.phase,
            event,
            _room: room,
        };
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
    KNOWN
        .into_iter()
        .find(|known| *known == word)
        .unwrap_or("unknown")
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
