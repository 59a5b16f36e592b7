//! What the server's end makes of verified messages: requests as the gate sees them, whole or put together from pieces.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::config::{GiftWrapMode, Settings};
use super::dedup::Verdict;
use super::gift_wrap::Wrap;
use super::inbound::{Intake, Opened};
use super::keys;
use super::outbound::Route;
use super::oversized::{Key, Limits, Placed, Reassembly, Step};
use super::session::Sessions;
use crate::payment::{ClientPubkey, RequestEventId, Timestamp};
use crate::relays::Phase;
use crate::transport::{Inbound, Origin, ReplyTo};
use crate::wire::{FrameKind, Message, Notification, OversizedFrame, ProgressToken, Tag};

/// Requests in pieces that may be under way.
const LIMITS: Limits = Limits {
    message: 16 * 1024 * 1024,
    bytes: 128 * 1024 * 1024,
    per_author: 8,
    transfers: 512,
};

/// What comes in.
pub(super) enum Received {
    /// For the gate.
    Message(Box<Inbound>),
    /// The transport itself has something to say to a client.
    Say {
        to: ClientPubkey,
        route: Route,
        notification: Notification,
    },
}

/// What is kept of the first and the last frame of a request in pieces.
struct Seen {
    tags: Vec<Tag>,
    event: RequestEventId,
    created_at: Timestamp,
    wrap: Option<Wrap>,
    redelivered: bool,
}

/// Turns verified messages into what the gate sees.
pub(super) struct Requests {
    sessions: Arc<Mutex<Sessions>>,
    gift_wrap: GiftWrapMode,
    started: Timestamp,
    /// `None`: messages in pieces are not taken.
    pieces: Option<Mutex<Reassembly<Seen>>>,
}

impl Requests {
    pub(super) fn new(
        settings: &Settings,
        sessions: Arc<Mutex<Sessions>>,
        started: Timestamp,
    ) -> Self {
        Self {
            sessions,
            gift_wrap: settings.gift_wrap,
            started,
            pieces: settings
                .oversized
                .then(|| Mutex::new(Reassembly::new(LIMITS))),
        }
    }

    fn inbound(
        &self,
        client: ClientPubkey,
        message: Message,
        tags: &[Tag],
        seen: &Seen,
        in_pieces: bool,
    ) -> Inbound {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = sessions.hear(client, &message, tags, seen.wrap, !seen.redelivered);
        drop(sessions);
        let mut origin = Origin::new(client, seen.event, seen.created_at);
        origin.redelivered = seen.redelivered;
        origin.pmis = heard.pmis;
        origin.interaction = Tag::interaction(tags);
        origin.tokens = Tag::tokens(tags);
        origin.direct_payments = Tag::direct_payments(tags);
        origin.confidential = seen.wrap.is_some();
        let token = match &message {
            // Who speaks in pieces understands them.
            Message::Request(request) if heard.oversized || in_pieces => {
                ProgressToken::of(request.params.as_deref()).filter(|_| self.pieces.is_some())
            }
            _ => None,
        };
        let route = Route::reply(seen.wrap, heard.ephemeral, self.gift_wrap).in_frames(token);
        origin.reply_to = ReplyTo::new(client, seen.event, route.to_text());
        Inbound::new(message, origin)
    }

    fn frame(&self, opened: &Opened, frame: OversizedFrame, seen: Seen) -> Option<Received> {
        let client = keys::client_of(&opened.event.pubkey);
        let key = Key {
            author: opened.event.pubkey,
            about: None,
            token: frame.token.key(),
        };
        let (token, place, wrap) = (frame.token.clone(), frame.progress, seen.wrap);
        let fresh = !seen.redelivered;
        let placed = Placed {
            frame,
            event: opened.event.id,
            created_at: opened.event.created_at.as_secs(),
            fresh,
            context: seen,
        };
        let mut pieces = self
            .pieces
            .as_ref()?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let step = pieces.take(key, placed, Instant::now());
        drop(pieces);
        let say = |kind| {
            let frame = OversizedFrame::new(token, place.saturating_add(1), kind);
            Some(Received::Say {
                to: client,
                route: Route::reply(wrap, wrap == Some(Wrap::Ephemeral), self.gift_wrap),
                notification: frame.to_notification().ok()?,
            })
        };
        match step {
            Step::Whole { text, start, end } => {
                // Only requests are worth so much; what else is in there was never asked for.
                let Ok(Message::Request(request)) = Message::parse(&text) else {
                    return None;
                };
                // The payment methods and the mode are those of the start (N-121), the id is that of the end (N-6).
                let mut inbound = self.inbound(client, request.into(), &start.tags, &end, true);
                // What the start carries is no secret because the end is encrypted.
                inbound.origin.confidential &= start.wrap.is_some();
                Some(Received::Message(Box::new(inbound)))
            }
            Step::Begun if fresh => say(FrameKind::Accept),
            Step::Refused(why) if fresh => {
                tracing::debug!(
                    client_pubkey = client.short(),
                    why,
                    "refused a message in pieces"
                );
                say(FrameKind::Abort {
                    reason: Some(why.to_owned()),
                })
            }
            Step::Begun | Step::Refused(_) | Step::Answered(_) | Step::Nothing => None,
        }
    }
}

impl Intake for Requests {
    type Output = Received;

    fn wants(&self, opened: &Opened) -> bool {
        !matches!(opened.message, Message::Response(_))
    }

    fn take(&self, opened: Opened, verdict: Verdict) -> Option<Received> {
        let created_at = Timestamp::from_secs(opened.event.created_at.as_secs());
        // What a relay kept from before our start may have been answered by our predecessor.
        let stale = opened.phase == Phase::FirstReplay && created_at < self.started;
        let seen = Seen {
            tags: opened.tags(),
            event: keys::event_of(&opened.event.id),
            created_at,
            wrap: opened.wrap,
            redelivered: verdict == Verdict::Redelivered || stale,
        };
        if self.pieces.is_some()
            && let Message::Notification(notification) = &opened.message
        {
            match OversizedFrame::read(notification) {
                Ok(Some(frame)) => return self.frame(&opened, frame, seen),
                Ok(None) => {}
                Err(_) => return None,
            }
        }
        let client = keys::client_of(&opened.event.pubkey);
        let inbound = self.inbound(client, opened.message, &seen.tags, &seen, false);
        Some(Received::Message(Box::new(inbound)))
    }
}
