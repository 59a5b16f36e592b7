//! Tells the copies of one sending from a second sending.
//!
//! Several relays deliver one event several times: that is noise. An author who sends an event again wants an answer
//! again: that is a retry, and passed on as such. Both are recognised by the carrier, the event as it crossed the relay
//! (the wrap of an encrypted message). The nth delivery by one relay belongs to the nth sending; so a delivery is a
//! retry exactly if no relay has delivered the carrier that often before.
//!
//! Only what was verified and understood is remembered here, so junk cannot push anything out. What is forgotten is not
//! lost money: the ledger knows every request that was paid for.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::relays::Phase;

/// How many carriers are remembered.
const MOST: usize = 100_000;
/// How long: the time in which a message is fresh enough to be acted on, and some.
const KEEP: Duration = Duration::from_secs(20 * 60);
/// Copies of one sending arrive within this time. A first delivery that is later than that is a second sending whose
/// other copies were lost.
const SPREAD: Duration = Duration::from_secs(30);

type Id = [u8; 32];

/// What a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not seen before.
    New,
    /// Sent again.
    Redelivered,
    /// One more copy of what was passed on already.
    Copy,
}

#[derive(Debug)]
struct Carrier {
    first: Instant,
    /// Deliveries per relay, at the relay's index.
    counts: Vec<u16>,
}

/// The memory of one transport.
#[derive(Debug)]
pub(super) struct Seen {
    most: usize,
    carriers: HashMap<Id, Carrier>,
    /// Inner ids, and how many remembered carriers held each.
    inners: HashMap<Id, u32>,
    order: VecDeque<(Id, Id, Instant)>,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self::with_capacity(MOST)
    }

    fn with_capacity(most: usize) -> Self {
        Self {
            most,
            carriers: HashMap::new(),
            inners: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Whether a delivery, by its claimed id, is a mere copy, which need not even be verified. Remembers nothing that it
    /// did not know: the most that a lying relay gets is that its own next copy counts as a retry.
    pub(super) fn drop_copy(
        &mut self,
        carrier: &Id,
        relay: usize,
        phase: Phase,
        now: Instant,
    ) -> bool {
        let Some(known) = self.carriers.get_mut(carrier) else {
            return false;
        };
        let copy = known.judge(relay, phase, now) == Verdict::Copy;
        if copy {
            known.count_copy(relay, phase);
        }
        copy
    }

    /// Judges a verified delivery and remembers it.
    pub(super) fn admit(
        &mut self,
        carrier: Id,
        inner: Id,
        relay: usize,
        phase: Phase,
        now: Instant,
    ) -> Verdict {
        if let Some(known) = self.carriers.get_mut(&carrier) {
            let verdict = known.judge(relay, phase, now);
            known.count_copy(relay, phase);
            return verdict;
        }
        self.forget(now);
        let mut fresh = Carrier {
            first: now,
            counts: Vec::new(),
        };
        fresh.count(relay);
        self.carriers.insert(carrier, fresh);
        self.order.push_back((carrier, inner, now));
        let holders = self.inners.entry(inner).or_insert(0);
        *holders += 1;
        if *holders == 1 {
            Verdict::New
        } else {
            Verdict::Redelivered
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some((carrier, inner, at)) = self.order.front().copied() {
            if self.order.len() < self.most && now.duration_since(at) <= KEEP {
                break;
            }
            self.order.pop_front();
            self.carriers.remove(&carrier);
            if let Some(holders) = self.inners.get_mut(&inner) {
                *holders -= 1;
                if *holders == 0 {
                    self.inners.remove(&inner);
                }
            }
        }
    }
}

impl Carrier {
    fn judge(&self, relay: usize, phase: Phase, now: Instant) -> Verdict {
        if phase != Phase::Live {
            return Verdict::Copy;
        }
        let here = self.counts.get(relay).copied().unwrap_or(0);
        let most = self.counts.iter().copied().max().unwrap_or(0);
        let late = now.duration_since(self.first) > SPREAD;
        if here < most && !late {
            Verdict::Copy
        } else {
            Verdict::Redelivered
        }
    }

    /// What a relay replays from its store is at most its first delivery: counting more would hide a sending.
    fn count_copy(&mut self, relay: usize, phase: Phase) {
        if phase == Phase::Live || self.counts.get(relay).is_none_or(|count| *count == 0) {
            self.count(relay);
        }
    }

    fn count(&mut self, relay: usize) {
        if self.counts.len() <= relay {
            self.counts.resize(relay + 1, 0);
        }
        self.counts[relay] = self.counts[relay].saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Id = [1; 32];
    const B: Id = [2; 32];

    fn live(seen: &mut Seen, carrier: Id, inner: Id, relay: usize) -> Verdict {
        seen.admit(carrier, inner, relay, Phase::Live, Instant::now())
    }

    #[test]
    fn copies_from_several_relays_are_dropped_and_a_second_sending_is_not() {
        let mut seen = Seen::new();
        assert_eq!(live(&mut seen, A, A, 0), Verdict::New);
        assert!(seen.drop_copy(&A, 1, Phase::Live, Instant::now()));
        assert!(
            !seen.drop_copy(&B, 1, Phase::Live, Instant::now()),
            "only what is known is a copy"
        );
        assert_eq!(live(&mut seen, A, A, 1), Verdict::Redelivered);
        assert_eq!(
            live(&mut seen, A, A, 0),
            Verdict::Copy,
            "the copy of the second sending"
        );
        assert_eq!(live(&mut seen, A, A, 0), Verdict::Redelivered);
    }

    #[test]
    fn a_new_wrap_around_a_known_message_is_a_second_sending() {
        let mut seen = Seen::new();
        assert_eq!(live(&mut seen, A, [9; 32], 0), Verdict::New);
        assert_eq!(live(&mut seen, B, [9; 32], 0), Verdict::Redelivered);
        assert_eq!(live(&mut seen, B, [9; 32], 1), Verdict::Copy);
    }

    #[test]
    fn what_a_relay_replays_after_a_reconnect_is_a_copy_unless_it_was_missed() {
        let mut seen = Seen::new();
        let now = Instant::now();
        assert_eq!(live(&mut seen, A, A, 0), Verdict::New);
        assert!(seen.drop_copy(&A, 0, Phase::Replay, now));
        assert_eq!(seen.admit(A, A, 0, Phase::Replay, now), Verdict::Copy);
        assert_eq!(seen.admit(B, B, 0, Phase::Replay, now), Verdict::New);
        assert_eq!(live(&mut seen, A, A, 0), Verdict::Redelivered);
    }

    #[test]
    fn a_first_copy_that_is_late_is_a_second_sending() {
        let mut seen = Seen::new();
        let start = Instant::now();
        seen.admit(A, A, 0, Phase::Live, start);
        assert_eq!(
            seen.admit(A, A, 1, Phase::Live, start + SPREAD * 2),
            Verdict::Redelivered
        );
    }

    #[test]
    fn memory_is_bounded_by_count_and_by_time() {
        let mut seen = Seen::with_capacity(3);
        let start = Instant::now();
        for n in 0..10u8 {
            seen.admit([n; 32], [n; 32], 0, Phase::Live, start);
        }
        assert_eq!(
            (seen.carriers.len(), seen.inners.len(), seen.order.len()),
            (3, 3, 3)
        );
        seen.admit([99; 32], [99; 32], 0, Phase::Live, start + KEEP * 2);
        assert_eq!(
            (seen.carriers.len(), seen.inners.len(), seen.order.len()),
            (1, 1, 1)
        );
    }
}
