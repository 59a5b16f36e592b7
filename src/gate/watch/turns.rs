//! Whose turn it is to be looked up: a queue per rail, whose rate is limited however long it is.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::time::Duration;

use tokio::time::Instant;

use crate::payment::{RequestEventId, Timestamp};

/// So many look-ups may be made at once after a quiet time. Between them they cost no more than the rate allows.
const BURST: u32 = 16;

/// Of so many turns one goes to the oldest payment, so that a stream of young ones does not starve it.
const OLDEST_EVERY: u32 = 4;

/// Whether the rail itself has said that there is something to know.
type Hinted = bool;

/// The queue of one rail.
#[derive(Debug)]
pub(super) struct Turns {
    /// Not due yet. What was rescheduled since is skipped when it comes up.
    waiting: BinaryHeap<Reverse<(Instant, Timestamp, RequestEventId)>>,
    /// Due: first those that the rail itself points at, then by age, the youngest first, because somebody waits for it.
    due: BTreeSet<(Hinted, Timestamp, RequestEventId)>,
    taken: u32,
    /// At least this long between two, on average.
    interval: Duration,
    /// By how many processes the rate is kept together.
    shared_by: u32,
    /// When all that was taken so far would have been paid for at the rate.
    paid_for_at: Instant,
}

impl Turns {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            waiting: BinaryHeap::new(),
            due: BTreeSet::new(),
            taken: 0,
            interval,
            shared_by: 1,
            paid_for_at: Instant::now(),
        }
    }

    /// From now on the rail is asked by so many processes, which keep the rate together.
    pub(super) fn share(&mut self, processes: u32) {
        self.shared_by = processes.max(1);
    }

    /// From now on, at least `interval` between two on average.
    pub(super) fn slow_down_to(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// Gives the payment `id` a turn at `at`.
    pub(super) fn give(&mut self, id: RequestEventId, made_at: Timestamp, at: Instant) {
        self.forget(id, made_at);
        self.waiting.push(Reverse((at, made_at, id)));
    }

    /// Gives the payment `id` the next turn: the rail says that there is something to know.
    pub(super) fn give_first(&mut self, id: RequestEventId, made_at: Timestamp) {
        self.forget(id, made_at);
        self.due.insert((true, made_at, id));
    }

    /// Takes back a turn that is due.
    pub(super) fn forget(&mut self, id: RequestEventId, made_at: Timestamp) {
        for hinted in [false, true] {
            self.due.remove(&(hinted, made_at, id));
        }
    }

    /// The next time that something happens here, if it does.
    pub(super) fn next(&self) -> Option<Instant> {
        if self.due.is_empty() {
            let Reverse((at, ..)) = self.waiting.peek()?;
            return Some((*at).max(self.allowed_at()));
        }
        Some(self.allowed_at())
    }

    /// The payment whose turn it is, if there is one now. `is_meant` says whether a turn at that time still stands.
    pub(super) fn take(
        &mut self,
        now: Instant,
        is_meant: impl Fn(&RequestEventId, Instant) -> bool,
    ) -> Option<RequestEventId> {
        while let Some(Reverse((at, made_at, id))) = self.waiting.peek().copied()
            && at <= now
        {
            self.waiting.pop();
            if is_meant(&id, at) {
                self.due.insert((false, made_at, id));
            }
        }
        if now < self.allowed_at() {
            return None;
        }
        let oldest = self.taken % OLDEST_EVERY == OLDEST_EVERY - 1;
        let (_, _, id) = if oldest {
            self.due.pop_first()
        } else {
            self.due.pop_last()
        }?;
        self.taken = self.taken.wrapping_add(1);
        self.paid_for_at = self.paid_for_at.max(now) + self.interval * self.shared_by;
        Some(id)
    }

    fn allowed_at(&self) -> Instant {
        let ahead = self.interval * self.shared_by * (BURST - 1);
        self.paid_for_at
            .checked_sub(ahead)
            .unwrap_or(self.paid_for_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn id(number: u16) -> RequestEventId {
        format!("{number:064x}").parse().unwrap()
    }

    fn take_all(turns: &mut Turns, now: Instant) -> Vec<RequestEventId> {
        std::iter::from_fn(|| turns.take(now, |_, _| true)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_however_many_are_due() {
        let mut turns = Turns::new(SECOND / 2);
        let start = Instant::now();
        for number in 0..10_000 {
            turns.give(id(number), Timestamp::from_secs(number.into()), start);
        }
        let burst = take_all(&mut turns, start).len();
        assert_eq!(burst, BURST as usize);
        for second in 1..=60 {
            let taken = take_all(&mut turns, start + SECOND * second).len();
            assert_eq!(taken, 2, "second {second}");
        }
        assert_eq!(
            turns.next(),
            Some(start + SECOND * 60 + SECOND / 2),
            "no busy loop meanwhile"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_youngest_go_first_and_the_oldest_is_not_starved() {
        let mut turns = Turns::new(SECOND);
        let start = Instant::now();
        for number in 0..100 {
            turns.give(id(number), Timestamp::from_secs(number.into()), start);
        }
        let taken = take_all(&mut turns, start);
        assert_eq!(taken[..5], [id(99), id(98), id(97), id(0), id(96)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hint_goes_before_age() {
        let mut turns = Turns::new(SECOND);
        let start = Instant::now();
        for number in 0..100 {
            turns.give(id(number), Timestamp::from_secs(number.into()), start);
        }
        turns.give_first(id(50), Timestamp::from_secs(50));
        let taken = take_all(&mut turns, start);
        assert_eq!(taken[..2], [id(50), id(99)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_was_moved_is_taken_once() {
        let mut turns = Turns::new(SECOND);
        let start = Instant::now();
        let later = start + SECOND * 10;
        turns.give(id(1), Timestamp::from_secs(1), start);
        turns.give(id(1), Timestamp::from_secs(1), later);
        let is_meant = |_: &RequestEventId, at: Instant| at == later;
        assert_eq!(turns.take(start, is_meant), None);
        assert_eq!(turns.next(), Some(later));
        assert_eq!(turns.take(later, is_meant), Some(id(1)));
        assert_eq!(turns.next(), None);
    }
}
