//! What one relay still has to be told, and what it has not confirmed yet.
//!
//! Survives a lost connection: what was never written, and what was written shortly before the connection was found
//! dead, is written to the next one. Bounded in number, bytes and time.

use std::collections::VecDeque;
use std::time::Duration;

use nostr::EventId;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::KEEP_TRYING;

/// Events that wait to be written, at most.
const MOST_WAITING: usize = 1024;
/// Bytes of them, at most.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// Events without an OK, at most; some relays never send one, so the oldest are given up first.
const MOST_WRITTEN: usize = 1024;
/// How long an OK is waited for, and how far back a new connection repeats.
const UNCONFIRMED: Duration = Duration::from_secs(20);
/// When an ephemeral event is said again after a reconnect: whoever it is for lost the same relay, and may have been later
/// in coming back.
const SAY_AGAIN: [Duration; 2] = [Duration::from_secs(3), Duration::from_secs(9)];
/// How long after a reconnect others may still be missing.
const RETURNING: Duration = Duration::from_secs(5);
/// First pause after a refusal that may pass.
const PAUSE: Duration = Duration::from_secs(1);

/// What became of an event at one relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It went over the wire.
    Written,
    /// The relay took it.
    Accepted,
    /// The relay refused it; the word before the colon of its reason.
    Refused(&'static str),
    /// It was given up.
    Dropped,
}

/// An event on its way to one relay.
pub(super) struct Post {
    pub(super) id: EventId,
    pub(super) frame: Utf8Bytes,
    pub(super) since: Instant,
    /// Relays do not keep it for those who come later.
    pub(super) ephemeral: bool,
    /// Once written it is not written again: whoever it is for might act on it again.
    pub(super) once: bool,
    pub(super) report: mpsc::Sender<Outcome>,
}

impl Post {
    fn tell(&self, outcome: Outcome) {
        // Nobody listens any more, or enough was said: both are fine.
        let _ = self.report.try_send(outcome);
    }

    /// The same event without anybody who waits for it.
    fn echo(&self) -> Self {
        let (report, _) = mpsc::channel(1);
        Self {
            id: self.id,
            frame: self.frame.clone(),
            since: self.since,
            ephemeral: self.ephemeral,
            once: self.once,
            report,
        }
    }
}

struct Entry {
    post: Post,
    attempts: u32,
    /// When it may be written, or when it was.
    at: Instant,
}

/// See the [module](self).
#[derive(Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Entry>,
    /// Refused for now, or to be said again.
    later: VecDeque<Entry>,
    written: VecDeque<Entry>,
    bytes: usize,
    reconnected: Option<Instant>,
}

impl Outbox {
    /// Takes an event in, or tells its sender that there is no room.
    pub(super) fn add(&mut self, post: Post, now: Instant) {
        // What is only waiting for an OK makes room first.
        while self.bytes + post.frame.len() > MOST_BYTES
            && let Some(oldest) = self.written.pop_front()
        {
            self.bytes -= oldest.post.frame.len();
        }
        if self.waiting.len() >= MOST_WAITING || self.bytes + post.frame.len() > MOST_BYTES {
            post.tell(Outcome::Dropped);
            return;
        }
        self.bytes += post.frame.len();
        if post.ephemeral
            && !post.once
            && self
                .reconnected
                .is_some_and(|at| now.duration_since(at) < RETURNING)
        {
            self.say_again(&post, &SAY_AGAIN[..1], now);
        }
        self.waiting.push_back(Entry {
            post,
            attempts: 0,
            at: now,
        });
    }

    fn say_again(&mut self, post: &Post, pauses: &[Duration], now: Instant) {
        for pause in pauses {
            if self.later.len() >= MOST_WAITING || self.bytes + post.frame.len() > MOST_BYTES {
                return;
            }
            self.bytes += post.frame.len();
            self.later.push_back(Entry {
                post: post.echo(),
                attempts: 0,
                at: now + *pause,
            });
        }
    }

    /// The frame to write next. It counts as unconfirmed from here on; call [`flushed`](Self::flushed) once it is out.
    pub(super) fn next(&mut self, now: Instant) -> Option<Utf8Bytes> {
        if let Some(due) = self.later.iter().position(|entry| entry.at <= now)
            && let Some(entry) = self.later.remove(due)
        {
            self.waiting.push_front(entry);
        }
        let mut entry = self.waiting.pop_front()?;
        entry.at = now;
        entry.attempts += 1;
        let frame = entry.post.frame.clone();
        self.written.push_back(entry);
        if self.written.len() > MOST_WRITTEN
            && let Some(oldest) = self.written.pop_front()
        {
            self.bytes -= oldest.post.frame.len();
        }
        Some(frame)
    }

    /// The last `count` frames reached the socket.
    pub(super) fn flushed(&self, count: usize) {
        for entry in self.written.iter().rev().take(count) {
            entry.post.tell(Outcome::Written);
        }
    }

    /// When there is something to write that has to wait now.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.later.iter().map(|entry| entry.at).min()
    }

    /// The relay's word on an event; `reason` is the prefix of its message.
    pub(super) fn answered(
        &mut self,
        id: &EventId,
        accepted: bool,
        reason: &'static str,
        now: Instant,
    ) {
        let Some(index) = self.written.iter().position(|entry| entry.post.id == *id) else {
            return;
        };
        let Some(mut entry) = self.written.remove(index) else {
            return;
        };
        if accepted || reason == "duplicate" {
            self.bytes -= entry.post.frame.len();
            entry.post.tell(Outcome::Accepted);
            return;
        }
        let pause = PAUSE * 2u32.saturating_pow(entry.attempts.min(5) - 1);
        let passing = matches!(reason, "rate-limited" | "error" | "auth-required");
        let again = now + pause;
        if passing
            && again.duration_since(entry.post.since) < KEEP_TRYING
            && self.later.len() < MOST_WAITING
        {
            entry.at = again;
            self.later.push_back(entry);
            return;
        }
        tracing::warn!(reason, "a relay refused a message");
        self.bytes -= entry.post.frame.len();
        entry.post.tell(Outcome::Refused(reason));
    }

    /// The connection is a new one: what the old one may have lost is due again.
    pub(super) fn rewind(&mut self, now: Instant) {
        self.expire(now);
        while let Some(entry) = self.written.pop_back() {
            if entry.post.once {
                self.bytes -= entry.post.frame.len();
                entry.post.tell(Outcome::Dropped);
            } else {
                self.waiting.push_front(entry);
            }
        }
        let ephemeral: Vec<Post> = self
            .waiting
            .iter()
            .filter(|entry| entry.post.ephemeral && !entry.post.once)
            .map(|entry| entry.post.echo())
            .collect();
        for post in ephemeral {
            self.say_again(&post, &SAY_AGAIN, now);
        }
        self.reconnected = Some(now);
    }

    /// Gives up what is too old.
    pub(super) fn expire(&mut self, now: Instant) {
        let mut freed = 0;
        self.written.retain(|entry| {
            let keep = now.duration_since(entry.at) <= UNCONFIRMED;
            freed += if keep { 0 } else { entry.post.frame.len() };
            keep
        });
        for queue in [&mut self.waiting, &mut self.later] {
            queue.retain(|entry| {
                let keep = now.duration_since(entry.post.since) <= KEEP_TRYING;
                if !keep {
                    entry.post.tell(Outcome::Dropped);
                    freed += entry.post.frame.len();
                }
                keep
            });
        }
        self.bytes -= freed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(n: u8, since: Instant) -> (Post, mpsc::Receiver<Outcome>) {
        let (report, outcomes) = mpsc::channel(4);
        (
            Post {
                id: EventId::from_byte_array([n; 32]),
                frame: "frame".into(),
                since,
                ephemeral: n >= 100,
                once: n == 200,
                report,
            },
            outcomes,
        )
    }

    #[test]
    fn an_event_is_reported_written_then_accepted() {
        let now = Instant::now();
        let (sent, mut outcomes) = post(1, now);
        let id = sent.id;
        let mut outbox = Outbox::default();
        outbox.add(sent, now);
        assert!(outbox.next(now).is_some());
        outbox.flushed(1);
        outbox.answered(&id, true, "", now);
        assert_eq!(outcomes.try_recv(), Ok(Outcome::Written));
        assert_eq!(outcomes.try_recv(), Ok(Outcome::Accepted));
        assert_eq!(outbox.bytes, 0);
    }

    #[test]
    fn a_passing_refusal_is_tried_again_and_a_final_one_is_not() {
        let now = Instant::now();
        let (sent, mut outcomes) = post(1, now);
        let id = sent.id;
        let mut outbox = Outbox::default();
        outbox.add(sent, now);
        outbox.next(now);
        outbox.answered(&id, false, "rate-limited", now);
        assert!(outbox.next(now).is_none());
        let due = outbox.wake().unwrap();
        assert!(outbox.next(due).is_some());
        outbox.answered(&id, false, "blocked", due);
        assert_eq!(outcomes.try_recv(), Ok(Outcome::Refused("blocked")));
        assert_eq!(outbox.bytes, 0);
    }

    #[test]
    fn a_new_connection_repeats_what_was_not_confirmed_in_order() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        let reports: Vec<_> = (0..3u8)
            .map(|n| {
                let (sent, outcomes) = post(n, now);
                outbox.add(sent, now);
                outbox.next(now);
                outcomes
            })
            .collect();
        outbox.rewind(now);
        assert_eq!(
            outbox
                .waiting
                .iter()
                .map(|entry| entry.post.id.to_bytes()[0])
                .collect::<Vec<_>>(),
            [0, 1, 2]
        );
        drop(reports);
    }

    #[test]
    fn after_a_reconnect_ephemeral_events_are_said_again() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        let (sent, mut outcomes) = post(100, now);
        let id = sent.id;
        outbox.add(sent, now);
        assert_eq!(outbox.wake(), None, "not before there was a reconnect");
        outbox.rewind(now);
        for at in [now, now + SAY_AGAIN[0], now + SAY_AGAIN[1]] {
            assert!(outbox.next(at).is_some());
            assert!(outbox.next(at).is_none());
            outbox.answered(&id, true, "", at);
        }
        assert_eq!(outcomes.try_recv(), Ok(Outcome::Accepted));
        assert!(outcomes.try_recv().is_err(), "whoever waits is told once");
        assert_eq!(outbox.bytes, 0);
    }

    #[test]
    fn what_may_be_said_once_only_is_not_said_again() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        let (sent, mut outcomes) = post(200, now);
        outbox.rewind(now);
        outbox.add(sent, now);
        assert!(
            outbox.next(now).is_some(),
            "it waited for a connection, and was not written yet"
        );
        outbox.flushed(1);
        outbox.rewind(now);
        for at in [now, now + SAY_AGAIN[0], now + SAY_AGAIN[1]] {
            assert!(outbox.next(at).is_none());
        }
        assert_eq!(outcomes.try_recv(), Ok(Outcome::Written));
        assert_eq!(outbox.bytes, 0);
    }

    #[test]
    fn nothing_is_kept_forever_and_nothing_grows_without_end() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        let (sent, mut outcomes) = post(1, now);
        outbox.add(sent, now);
        outbox.expire(now + KEEP_TRYING * 2);
        assert_eq!(outcomes.try_recv(), Ok(Outcome::Dropped));
        for _ in 0..MOST_WAITING * 3 {
            let (sent, _) = post(2, now);
            outbox.add(sent, now);
        }
        assert_eq!(outbox.waiting.len(), MOST_WAITING);
        while outbox.next(now).is_some() {}
        assert!(outbox.written.len() <= MOST_WRITTEN);
        outbox.expire(now + UNCONFIRMED * 2);
        assert_eq!(outbox.bytes, 0);
    }
}
