//! What the client's end makes of verified messages: answers as the caller sees them, whole or put together from pieces.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use nostr::{Event, EventId, JsonUtil};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::dedup::Verdict;
use super::gift_wrap::Wrap;
use super::inbound::{Intake, Opened};
use super::keys;
use super::outbound::SUPPORT_EPHEMERAL;
use super::oversized::{
    Key, Limits, Placed, Reassembly, SUPPORT_OPEN_STREAM, SUPPORT_OVERSIZED, Step,
};
use crate::transport::ClientInbound;
use crate::wire::{
    ErrorObject, Message, OversizedFrame, ProgressToken, RequestId, Response, SERVER_ERROR_CODE,
    Tag, method,
};

/// Requests whose answers must be encrypted, remembered at most.
const MOST_ENCRYPTED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);

/// Answers in pieces that may be under way. They come from the one server that was asked.
const LIMITS: Limits = Limits {
    message: 64 * 1024 * 1024,
    bytes: 128 * 1024 * 1024,
    per_author: 64,
    transfers: 64,
};

/// Tags of an introduction: a server that sent one of them has said everything that it says about itself (N-28).
const INTRODUCTION: [&str; 5] = [
    "name",
    "about",
    "website",
    "support_encryption",
    SUPPORT_OPEN_STREAM,
];

/// Whether a server takes messages in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Support {
    Yes,
    No,
    /// It has not introduced itself.
    Unknown,
}

/// What the two directions tell each other.
#[derive(Debug)]
pub(super) struct Knowledge {
    /// The server takes ephemeral wraps.
    pub(super) ephemeral: AtomicBool,
    introduced: AtomicBool,
    oversized: AtomicBool,
    open_stream: AtomicBool,
    /// Requests that were sent encrypted: a plaintext answer to one is none of the server's.
    encrypted: Mutex<LruCache<EventId, ()>>,
    /// By token: who waits for the server to take a request in pieces.
    accepts: Mutex<HashMap<String, oneshot::Sender<bool>>>,
    /// What the tokens begin with that this transport puts into requests without one.
    own: String,
    tokens: AtomicU64,
}

impl Knowledge {
    pub(super) fn new() -> Self {
        let mut own = nostr::SecretKey::generate().to_secret_hex();
        own.truncate(16);
        Self {
            ephemeral: AtomicBool::new(false),
            introduced: AtomicBool::new(false),
            oversized: AtomicBool::new(false),
            open_stream: AtomicBool::new(false),
            encrypted: Mutex::new(LruCache::new(MOST_ENCRYPTED)),
            accepts: Mutex::default(),
            own: format!("tollkeeper-{own}-"),
            tokens: AtomicU64::new(0),
        }
    }

    fn was_encrypted(&self, id: &EventId) -> bool {
        let encrypted = self.encrypted.lock();
        encrypted
            .unwrap_or_else(PoisonError::into_inner)
            .contains(id)
    }

    pub(super) fn sent_encrypted(&self, id: EventId) {
        let encrypted = self.encrypted.lock();
        encrypted
            .unwrap_or_else(PoisonError::into_inner)
            .put(id, ());
    }

    pub(super) fn takes_pieces(&self) -> Support {
        if self.oversized.load(Ordering::Relaxed) {
            Support::Yes
        } else if self.introduced.load(Ordering::Relaxed) {
            Support::No
        } else {
            Support::Unknown
        }
    }

    pub(super) fn streams(&self) -> bool {
        self.open_stream.load(Ordering::Relaxed)
    }

    /// A progress token for a request that has none.
    pub(super) fn own_token(&self) -> ProgressToken {
        let number = self.tokens.fetch_add(1, Ordering::Relaxed);
        ProgressToken::new(format!("{}{number}", self.own))
    }

    /// What becomes of the request in pieces under `token`: it is taken, or not.
    pub(super) fn accepted(&self, token: &ProgressToken) -> oneshot::Receiver<bool> {
        let (accepted, receiver) = oneshot::channel();
        let mut waiting = self.accepts();
        // Whoever does not wait any more is forgotten.
        waiting.retain(|_, waiter| !waiter.is_closed());
        waiting.insert(token.key(), accepted);
        receiver
    }

    fn accepts(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<bool>>> {
        self.accepts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, tags: &[Tag], wrap: Option<Wrap>) {
        for tag in tags {
            let flag = tag.parts().len() == 1;
            match tag.name() {
                SUPPORT_EPHEMERAL if flag => self.ephemeral.store(true, Ordering::Relaxed),
                SUPPORT_OVERSIZED if flag => self.oversized.store(true, Ordering::Relaxed),
                SUPPORT_OPEN_STREAM if flag => self.open_stream.store(true, Ordering::Relaxed),
                _ => {}
            }
            if INTRODUCTION.contains(&tag.name()) {
                self.introduced.store(true, Ordering::Relaxed);
            }
        }
        if wrap == Some(Wrap::Ephemeral) {
            self.ephemeral.store(true, Ordering::Relaxed);
        }
    }

    /// Whether `message` is progress that nobody asked for but this transport.
    fn is_own_progress(&self, message: &Message) -> bool {
        let Message::Notification(notification) = message else {
            return false;
        };
        let Some(params) = &notification.params else {
            return false;
        };
        notification.method == method::PROGRESS
            && params.get().contains(&self.own)
            && serde_json::from_str::<serde_json::Value>(params.get()).is_ok_and(|params| {
                let token = params.get("progressToken").and_then(|token| token.as_str());
                token.is_some_and(|token| token.starts_with(&self.own))
            })
    }
}

/// What is kept of the first and the last frame of an answer in pieces.
struct Seen {
    tags: Vec<Tag>,
    signed: String,
}

/// Turns verified messages into what the caller sees.
pub(super) struct Answers {
    knowledge: Arc<Knowledge>,
    /// `None`: messages in pieces are not taken.
    pieces: Option<Mutex<Reassembly<Seen>>>,
}

impl Answers {
    pub(super) fn new(knowledge: Arc<Knowledge>, oversized: bool) -> Self {
        Self {
            knowledge,
            pieces: oversized.then(|| Mutex::new(Reassembly::new(LIMITS))),
        }
    }

    fn frame(
        &self,
        opened: &Opened,
        frame: OversizedFrame,
        tags: Vec<Tag>,
    ) -> Option<ClientInbound> {
        let about = answered(&opened.event).copied();
        let key = Key {
            author: opened.event.pubkey,
            about,
            token: frame.token.key(),
        };
        let token = key.token.clone();
        let placed = Placed {
            frame,
            event: opened.event.id,
            created_at: opened.event.created_at.as_secs(),
            fresh: true,
            context: Seen {
                tags,
                signed: opened.event.as_json(),
            },
        };
        let mut pieces = self
            .pieces
            .as_ref()?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let step = pieces.take(key, placed, Instant::now());
        drop(pieces);
        let about = about.map(|id| keys::event_of(&id));
        match step {
            Step::Whole { text, start, end } => {
                let message = Message::parse(&text).ok()?;
                let mut inbound = ClientInbound::new(message, about);
                inbound.tags = start.tags;
                inbound.tags.extend(end.tags);
                // Its digest is signed with it, so it proves the whole.
                inbound.signed = start.signed;
                Some(inbound)
            }
            Step::Answered(accepted) => {
                if let Some(waiter) = self.knowledge.accepts().remove(&token) {
                    let _ = waiter.send(accepted);
                }
                None
            }
            // Nobody should wait for an answer of which it is known that it does not come.
            Step::Refused(why) => {
                tracing::warn!(why, "an answer in pieces cannot be put together");
                let text = format!("The answer cannot be put together: {why}");
                let error = ErrorObject::new(SERVER_ERROR_CODE, text);
                let response = Response::from_error(RequestId::Number(0), &error);
                about.map(|about| ClientInbound::broken(response.into(), about))
            }
            Step::Begun | Step::Nothing => None,
        }
    }
}

impl Intake for Answers {
    type Output = ClientInbound;

    fn wants(&self, opened: &Opened) -> bool {
        // A plaintext answer to a secret: not even remembered, so that it cannot hide the real one.
        opened.wrap.is_some()
            || !answered(&opened.event).is_some_and(|id| self.knowledge.was_encrypted(id))
    }

    fn take(&self, opened: Opened, verdict: Verdict) -> Option<ClientInbound> {
        // What the server sends again it signs again: a known event is a relay's echo.
        if verdict != Verdict::New {
            return None;
        }
        let mut tags = opened.tags();
        tags.retain(|tag| !matches!(tag.name(), "p" | "e"));
        self.knowledge.learn(&tags, opened.wrap);
        if self.pieces.is_some()
            && let Message::Notification(notification) = &opened.message
        {
            match OversizedFrame::read(notification) {
                Ok(Some(frame)) => return self.frame(&opened, frame, tags),
                Ok(None) => {}
                Err(_) => return None,
            }
        }
        if self.knowledge.is_own_progress(&opened.message) {
            return None;
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
