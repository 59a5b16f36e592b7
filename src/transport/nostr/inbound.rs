//! From what a relay delivered to a verified message, in the order of arrival.
//!
//! Nothing a relay says is believed: an event is taken at its word only after its id and its author's signature were
//! checked here. Verification runs on several tasks at once, what comes of it is used in order.

use std::sync::{Arc, Mutex, PoisonError};

use nostr::{Event, Keys, PublicKey};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::config::{EncryptionMode, GiftWrapMode, MESSAGE, Settings};
use super::dedup::{Seen, Verdict};
use super::event;
use super::gift_wrap::{self, Wrap};
use crate::relays::{Delivery, Phase};
use crate::wire::{Message, Tag};

/// Events that are verified at the same time: this many, or as many as there are cores.
const AT_ONCE: usize = 4;
/// Messages that wait to be received.
const READY: usize = 256;
/// 1 January 2100: no clock is that wrong, so such a time is an attack on whoever computes with it.
const FAR_FUTURE: u64 = 4_102_444_800;

/// A verified message.
pub(super) struct Opened {
    pub(super) message: Message,
    /// The signed event itself, never a wrap.
    pub(super) event: Event,
    /// How it was wrapped, if it was.
    pub(super) wrap: Option<Wrap>,
    pub(super) phase: Phase,
    carrier: [u8; 32],
    relay: usize,
}

impl Opened {
    /// The tags as the rest of the crate knows them.
    pub(super) fn tags(&self) -> Vec<Tag> {
        self.event
            .tags
            .iter()
            .map(|tag| Tag::new(tag.as_slice()))
            .collect()
    }
}

/// What is let in.
#[derive(Clone)]
pub(super) struct Acceptance {
    keys: Keys,
    encryption: EncryptionMode,
    gift_wrap: GiftWrapMode,
    /// The only author that counts, if there is only one.
    author: Option<PublicKey>,
}

impl Acceptance {
    pub(super) fn new(settings: &Settings, author: Option<PublicKey>) -> Self {
        Self {
            keys: settings.keys().clone(),
            encryption: settings.encryption,
            gift_wrap: settings.gift_wrap,
            author,
        }
    }

    /// Whether the mode admits this kind: asked before anything is computed.
    fn admits(&self, event: &Event) -> bool {
        match Wrap::from_kind(event.kind.as_u16()) {
            Some(Wrap::Persistent) => {
                self.encryption.takes_wraps() && self.gift_wrap.takes_persistent()
            }
            Some(Wrap::Ephemeral) => {
                self.encryption.takes_wraps() && self.gift_wrap.takes_ephemeral()
            }
            None => event.kind.as_u16() == MESSAGE && self.encryption.takes_plain(),
        }
    }

    /// Verifies and reads; says why not otherwise.
    fn open(&self, delivery: Delivery) -> Result<Opened, &'static str> {
        let Delivery {
            relay,
            phase,
            event,
            ..
        } = delivery;
        let carrier = event.id.to_bytes();
        let (message, event, wrap) = self.read(event)?;
        Ok(Opened {
            message,
            event,
            wrap,
            phase,
            carrier,
            relay,
        })
    }

    /// The message in an event, the event that was signed, and how that one was wrapped.
    fn read(&self, event: Event) -> Result<(Message, Event, Option<Wrap>), &'static str> {
        let wrap = Wrap::from_kind(event.kind.as_u16());
        // The id commits to everything but the signature. A wrap's own signature says nothing: its key is thrown away.
        if !event::has_own_id(&event) {
            return Err("its id is not its own");
        }
        let inner = match wrap {
            Some(_) => {
                gift_wrap::unwrap(&self.keys, &event).map_err(|_| "it cannot be unwrapped")?
            }
            None if self.author.is_some_and(|author| author != event.pubkey) => {
                return Err("it is by somebody else");
            }
            None if !event.verify_signature() => return Err("it is not signed by its author"),
            None => event,
        };
        if self.author.is_some_and(|author| author != inner.pubkey) {
            return Err("it is by somebody else");
        }
        let own = self.keys.public_key();
        let mut recipients = inner.tags.public_keys();
        let addressed = match recipients.next() {
            None => wrap.is_some(),
            Some(first) => *first == own || recipients.any(|key| *key == own),
        };
        drop(recipients);
        if !addressed {
            return Err("it is for somebody else");
        }
        if inner.created_at.as_secs() >= FAR_FUTURE {
            return Err("its time is absurd");
        }
        let message =
            Message::parse(&inner.content).map_err(|_| "it is not one JSON-RPC message")?;
        Ok((message, inner, wrap))
    }

    /// The message in an event, if it is let in. For fuzzers.
    #[cfg(feature = "testing")]
    pub(super) fn read_event(&self, event: Event) -> Option<Message> {
        if !self.admits(&event) {
            return None;
        }
        self.read(event).ok().map(|(message, ..)| message)
    }
}

/// What an end makes of verified messages.
pub(super) trait Intake: Send + 'static {
    type Output: Send + 'static;

    /// Whether the message counts at all. One that does not is not remembered either.
    fn wants(&self, opened: &Opened) -> bool;

    /// Turns a message that is no copy into what is received.
    fn take(&self, opened: Opened, verdict: Verdict) -> Option<Self::Output>;
}

/// Runs the way from `deliveries` to the receiver, in order.
pub(super) fn spawn<I: Intake>(
    acceptance: Acceptance,
    mut deliveries: mpsc::Receiver<Delivery>,
    deaf: CancellationToken,
    intake: I,
) -> mpsc::Receiver<I::Output> {
    let seen = Arc::new(Mutex::new(Seen::new()));
    let (started, mut opening) = mpsc::channel::<JoinHandle<Option<Opened>>>(at_once());
    let (ready, received) = mpsc::channel(READY);
    let known = seen.clone();
    tokio::spawn(async move {
        loop {
            let delivery = tokio::select! {
                biased;
                () = deaf.cancelled(), if !deliveries.is_closed() => {
                    // What arrived so far is still worked off.
                    deliveries.close();
                    continue;
                }
                delivery = deliveries.recv() => delivery,
            };
            let Some(delivery) = delivery else { return };
            if !acceptance.admits(&delivery.event) || is_copy(&known, &delivery) {
                continue;
            }
            let acceptance = acceptance.clone();
            // Reserved first, so that no more verifications run.
            let Ok(slot) = started.reserve().await else {
                return;
            };
            slot.send(tokio::spawn(async move {
                let (id, relay) = (delivery.event.id.to_bytes(), delivery.relay);
                acceptance
                    .open(delivery)
                    .map_err(|why| {
                        tracing::debug!(event = short(&id), relay, why, "dropped an event")
                    })
                    .ok()
            }));
        }
    });
    tokio::spawn(async move {
        while let Some(handle) = opening.recv().await {
            let Ok(Some(opened)) = handle.await else {
                continue;
            };
            if !intake.wants(&opened) {
                continue;
            }
            let verdict = seen.lock().unwrap_or_else(PoisonError::into_inner).admit(
                opened.carrier,
                opened.event.id.to_bytes(),
                opened.relay,
                opened.phase,
                Instant::now(),
            );
            if verdict == Verdict::Copy {
                continue;
            }
            if let Some(output) = intake.take(opened, verdict)
                && ready.send(output).await.is_err()
            {
                return;
            }
        }
    });
    received
}

fn at_once() -> usize {
    std::thread::available_parallelism().map_or(AT_ONCE, |cores| cores.get().max(AT_ONCE))
}

fn is_copy(seen: &Mutex<Seen>, delivery: &Delivery) -> bool {
    let Delivery {
        relay,
        phase,
        event,
        ..
    } = delivery;
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.drop_copy(&event.id.to_bytes(), *relay, *phase, Instant::now())
}

fn short(id: &[u8; 32]) -> String {
    id[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}
