//! Until when a child may answer: long for what it was asked, short for what its client has cancelled.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::wire::RequestId;

/// How long a child may take to answer a request.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60 * 60);
/// How long a child may still answer a request that was cancelled.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);

/// When each open request must have ended, by its label. Labels count up, so the first is the earliest.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    open: BTreeMap<i64, Instant>,
    cancelled: BTreeMap<i64, Instant>,
}

/// A request that has waited too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Its client wants no answer any more.
    Cancelled(RequestId),
    /// Its client still waits.
    Unanswered(RequestId),
}

impl Deadlines {
    pub(super) fn opened(&mut self, label: i64) {
        self.open.insert(label, Instant::now() + ANSWER_PATIENCE);
    }

    pub(super) fn cancelled(&mut self, label: i64) {
        self.cancelled
            .entry(label)
            .or_insert_with(|| Instant::now() + CANCEL_PATIENCE);
    }

    pub(super) fn ended(&mut self, label: i64) {
        self.open.remove(&label);
        self.cancelled.remove(&label);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// When to look again.
    pub(super) fn next(&self) -> Option<Instant> {
        [&self.open, &self.cancelled]
            .into_iter()
            .filter_map(|waiting| waiting.first_key_value())
            .map(|(_, at)| *at)
            .min()
    }

    /// A request that has waited too long; it is forgotten here.
    pub(super) fn overdue(&mut self) -> Option<Overdue> {
        let now = Instant::now();
        let first = |waiting: &BTreeMap<i64, Instant>| {
            let (label, at) = waiting.first_key_value()?;
            (*at <= now).then_some(*label)
        };
        if let Some(label) = first(&self.cancelled) {
            self.ended(label);
            return Some(Overdue::Cancelled(RequestId::Number(label)));
        }
        let label = first(&self.open)?;
        self.ended(label);
        Some(Overdue::Unanswered(RequestId::Number(label)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_request_ends_soon_and_an_answered_one_is_not_overdue() {
        let mut deadlines = Deadlines::default();
        for label in 1..=3 {
            deadlines.opened(label);
        }
        deadlines.cancelled(2);
        deadlines.ended(3);
        assert_eq!(deadlines.overdue(), None);
        assert_eq!(deadlines.next(), Some(Instant::now() + CANCEL_PATIENCE));
        tokio::time::advance(CANCEL_PATIENCE).await;
        assert_eq!(deadlines.overdue(), Some(Overdue::Cancelled(2.into())));
        assert_eq!(deadlines.overdue(), None);
        tokio::time::advance(ANSWER_PATIENCE).await;
        assert_eq!(deadlines.overdue(), Some(Overdue::Unanswered(1.into())));
        assert_eq!((deadlines.overdue(), deadlines.next()), (None, None));
    }
}
