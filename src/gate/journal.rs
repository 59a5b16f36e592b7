//! Which events have been let in without an entry in the ledger: free and waived requests.
//!
//! Replays of priced requests are the ledger's business. These keep a copy of a free request, or a replay of it, from
//! running twice. Memory decides, bounded by age, because older events are refused anyway, and by number. What it lets in is
//! written down a moment later, many at a time, so that a free call never waits for a disk; a restart reads it back. So a
//! process that is killed forgets the free requests of its last moments, at most [`GATHER`] and a flush, and no others.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

use super::Gate;
use crate::error::Result;
use crate::ledger::{LET_IN_AT_MOST, LetIn};
use crate::payment::{RequestEventId, Timestamp};

/// How far the clock of a client may be off (N-135). An event that is older or newer is not let in for the first time.
pub(super) const CLOCK_SKEW: Duration = Duration::from_secs(600);

/// The most events that are remembered.
const MOST: usize = LET_IN_AT_MOST;

/// How many events may wait to be written down. Beyond that they are remembered in memory only.
const QUEUE: usize = 16_384;

/// The most events in one write: a paid call must not wait long behind it.
const TOGETHER: usize = 1_024;

/// How long events are gathered for one write.
pub(super) const GATHER: Duration = Duration::from_millis(50);

#[derive(Debug, Default)]
pub(super) struct Journal {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    ids: HashSet<RequestEventId>,
    in_order: VecDeque<(Timestamp, RequestEventId)>,
}

impl Journal {
    /// Whether `event` was let in.
    pub(super) fn holds(&self, event: &RequestEventId) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.ids.contains(event)
    }

    /// Notes that `event` is let in; `false` if it was before.
    pub(super) fn first_time(&self, event: RequestEventId, now: Timestamp) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((at, oldest)) = seen.in_order.front().copied() {
            // Both sides of the window: an event from the future stays fresh for twice the skew.
            if now.since(at) <= 2 * CLOCK_SKEW && seen.in_order.len() < MOST {
                break;
            }
            seen.in_order.pop_front();
            seen.ids.remove(&oldest);
        }
        let first = seen.ids.insert(event);
        if first {
            seen.in_order.push_back((now, event));
        }
        first
    }
}

/// Whether an event of that age may be let in for the first time.
pub(super) fn is_fresh(created_at: Timestamp, now: Timestamp) -> bool {
    now.since(created_at) <= CLOCK_SKEW && created_at.since(now) <= CLOCK_SKEW
}

/// The line to the task that writes events down.
#[derive(Debug)]
pub(super) struct Scribe {
    events: mpsc::Sender<LetIn>,
}

impl Scribe {
    /// A line, and the end of it that [`write_down`] reads.
    pub(super) fn new() -> (Self, mpsc::Receiver<LetIn>) {
        let (events, queue) = mpsc::channel(QUEUE);
        (Self { events }, queue)
    }

    /// Has `event` written down in a while.
    pub(super) fn note(&self, event: RequestEventId, at: Timestamp) {
        if self.events.try_send(LetIn { event, at }).is_err() {
            tracing::debug!("the journal lags behind; a free request is remembered in memory only");
        }
    }
}

/// Writes down what is let in, until the gate closes, and then the rest.
pub(super) async fn write_down(gate: Arc<Gate>, mut queue: mpsc::Receiver<LetIn>) {
    let mut events = Vec::new();
    while let Some(Some(first)) = gate.closing.run_until_cancelled(queue.recv()).await {
        events.push(first);
        // Others join; a gate that closes does not wait for them.
        let _ = gate
            .closing
            .run_until_cancelled(tokio::time::sleep(GATHER))
            .await;
        gate.write_all(&mut events, &mut queue).await;
    }
    gate.write_all(&mut events, &mut queue).await;
}

impl Gate {
    async fn write_all(&self, events: &mut Vec<LetIn>, queue: &mut mpsc::Receiver<LetIn>) {
        loop {
            while events.len() < TOGETHER {
                match queue.try_recv() {
                    Ok(event) => events.push(event),
                    Err(_) => break,
                }
            }
            if events.is_empty() {
                return;
            }
            if let Err(error) = self.ledger.note_let_in(std::mem::take(events)).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "free requests could not be written down; after a restart a replay of them would run again"
                );
            }
        }
    }

    /// Remembers what the last process let in.
    pub(super) async fn remember_let_in(&self) -> Result<()> {
        let now = self.clock.now();
        for noted in self.ledger.let_in_since(now.minus(2 * CLOCK_SKEW)).await? {
            self.journal.first_time(noted.event, noted.at.min(now));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(n: u32) -> RequestEventId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        RequestEventId::from_bytes(bytes)
    }

    #[test]
    fn an_event_is_let_in_once_while_it_is_fresh() {
        let journal = Journal::default();
        let now = Timestamp::from_secs(10_000);
        assert!(journal.first_time(event(1), now));
        assert!(!journal.first_time(event(1), now.plus(2 * CLOCK_SKEW)));
        assert!(is_fresh(now.minus(CLOCK_SKEW), now) && is_fresh(now.plus(CLOCK_SKEW), now));
        assert!(!is_fresh(
            now.minus(CLOCK_SKEW + Duration::from_secs(1)),
            now
        ));
        assert!(!is_fresh(
            now.plus(CLOCK_SKEW + Duration::from_secs(1)),
            now
        ));
    }

    #[test]
    fn memory_is_bounded_by_number_and_by_age() {
        let journal = Journal::default();
        let now = Timestamp::from_secs(10_000);
        for n in 0..(MOST as u32 + 10) {
            journal.first_time(event(n), now);
        }
        assert!(journal.seen.lock().unwrap().ids.len() <= MOST);
        journal.first_time(event(u32::MAX), now.plus(3 * CLOCK_SKEW));
        assert_eq!(journal.seen.lock().unwrap().ids.len(), 1);
    }
}
