//! When a rail is asked for all its settlements together, and from when on.

use std::time::Duration;

use tokio::time::Instant;

use super::pace;
use crate::payment::Timestamp;

/// While somebody may be waiting, a settlement without a notice is listed after at most this long.
const OFTEN: Duration = Duration::from_secs(10);

/// How often the list covers everything that is watched, not the young payments alone.
const SELDOM: Duration = Duration::from_secs(60);

/// How soon a list that failed is asked for again: an outage of a wallet must not cost a payer a minute.
const RETRY: Duration = Duration::from_secs(5);

/// How far a wallet's clock may be from ours.
const SKEW: Duration = Duration::from_secs(600);

/// The listing of one rail.
#[derive(Debug)]
pub(super) struct Listing {
    ability: Ability,
    next: Instant,
    next_full: Instant,
    /// A list was asked for and has not come yet.
    under_way: bool,
    /// By how many processes the rail is asked.
    shared_by: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ability {
    /// Not asked yet.
    Untried,
    /// It lists.
    Lists,
    /// It said that it cannot. Not asked again until the next start.
    Cannot,
}

/// How a list went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listed {
    /// It came.
    All,
    /// The rail cannot list.
    Never,
    /// It did not come, this time.
    Failed,
}

impl Listing {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            ability: Ability::Untried,
            next: now,
            next_full: now,
            under_way: false,
            shared_by: 1,
        }
    }

    /// From now on so many processes ask for lists, each for what it watches.
    pub(super) fn share(&mut self, processes: u32) {
        self.shared_by = processes.max(1);
    }

    /// Whether this rail lists: then look-ups of single payments are only a safety net.
    pub(super) fn works(&self) -> bool {
        self.ability == Ability::Lists
    }

    /// When to list next; `None` while there is nothing to ask about, or nobody to ask.
    pub(super) fn next(&self, anything_watched: bool) -> Option<Instant> {
        let possible = self.ability != Ability::Cannot && !self.under_way;
        (anything_watched && possible).then_some(self.next)
    }

    /// If it is time to list: from when on. `watched` are the moments at which the watched payments were made.
    pub(super) fn take(
        &mut self,
        now: Instant,
        wall: Timestamp,
        watched: impl Iterator<Item = Timestamp>,
    ) -> Option<Timestamp> {
        if self.ability == Ability::Cannot || self.under_way || now < self.next {
            return None;
        }
        self.next = now + OFTEN * self.shared_by;
        let full = now >= self.next_full;
        let oldest = watched
            .filter(|made_at| full || pace::is_young(*made_at, wall))
            .min()?;
        if full {
            self.next_full = now + SELDOM * self.shared_by;
        }
        self.under_way = true;
        Some(oldest.minus(SKEW))
    }

    /// The list that was taken at `now` has ended.
    pub(super) fn ended(&mut self, now: Instant, how: Listed) {
        self.under_way = false;
        match how {
            Listed::All => self.ability = Ability::Lists,
            Listed::Never => self.ability = Ability::Cannot,
            Listed::Failed => {
                // Whatever was missed is covered by the next one.
                self.next = now + RETRY;
                self.next_full = self.next;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: Timestamp = Timestamp::from_secs(1_000_000);

    fn ago(secs: u64) -> Timestamp {
        WALL.minus(Duration::from_secs(secs))
    }

    fn later(start: Instant, secs: u64) -> Instant {
        start + Duration::from_secs(secs)
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_list_covers_everything_and_then_mostly_the_young() {
        let start = Instant::now();
        let mut listing = Listing::new(start);
        let mut take = |secs| {
            let watched = [ago(5_000), ago(100)].into_iter();
            let taken = listing.take(later(start, secs), WALL, watched);
            listing.ended(later(start, secs), Listed::All);
            taken
        };
        assert_eq!(take(0), Some(ago(5_000).minus(SKEW)));
        assert_eq!(take(1), None, "not yet");
        assert_eq!(take(10), Some(ago(100).minus(SKEW)));
        assert_eq!(take(20), Some(ago(100).minus(SKEW)));
        assert_eq!(take(60), Some(ago(5_000).minus(SKEW)));
    }

    #[tokio::test(start_paused = true)]
    async fn old_payments_alone_are_listed_once_a_minute() {
        let start = Instant::now();
        let mut listing = Listing::new(start);
        let taken = (0..180)
            .filter(|secs| {
                let watched = [ago(5_000)].into_iter();
                let now = later(start, *secs);
                let taken = listing.take(now, WALL, watched);
                listing.ended(now, Listed::All);
                taken.is_some()
            })
            .count();
        assert_eq!(taken, 3);
        assert_eq!(listing.next(false), None, "and nothing is asked for nobody");
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_failed_is_asked_for_again_soon_and_whole() {
        let start = Instant::now();
        let mut listing = Listing::new(start);
        let watched = || [ago(5_000), ago(100)].into_iter();
        listing.take(start, WALL, watched()).unwrap();
        let twice = listing.take(start + RETRY, WALL, watched());
        assert_eq!(twice, None, "one at a time");
        listing.ended(start, Listed::Failed);
        assert!(!listing.works());
        let again = listing.take(start + RETRY, WALL, watched());
        assert_eq!(again, Some(ago(5_000).minus(SKEW)));
        listing.ended(start + RETRY, Listed::All);
        assert!(listing.works());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rail_that_cannot_list_is_asked_once() {
        let start = Instant::now();
        let mut listing = Listing::new(start);
        listing.take(start, WALL, [WALL].into_iter()).unwrap();
        listing.ended(start, Listed::Never);
        assert_eq!(listing.next(true), None);
        let again = listing.take(later(start, 3600), WALL, [WALL].into_iter());
        assert_eq!(again, None);
    }
}
