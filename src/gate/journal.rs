//! Which events have been let in without an entry in the ledger: free and waived requests.
//!
//! Replays of priced requests are the ledger's business. These only keep a copy of a free request, or a replay of it, from
//! running twice, so memory is enough: bounded by age, because older events are refused anyway, and by number.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::payment::{RequestEventId, Timestamp};

/// How far the clock of a client may be off (N-135). An event that is older or newer is not let in for the first time.
pub(super) const CLOCK_SKEW: Duration = Duration::from_secs(600);

/// The most events that are remembered.
const MOST: usize = 200_000;

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
