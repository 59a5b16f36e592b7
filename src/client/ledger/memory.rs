//! Books in memory: for tests, and for programs that keep their own. They are forgotten with the process.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{
    AnswerState, Attempt, AttemptFilter, AttemptId, AttemptState, BooksStand, BuyerLedger, Heard,
    NewAttempt, Settled, Tally, Used,
};
use crate::client::event::DeclineReason;
use crate::client::policy::Case;
use crate::error::{Error, Result};
use crate::payment::{Amount, InvocationIdentity, MAX_AMOUNT, ServerPubkey, Timestamp};

/// The most refused attempts that are kept: they stand for no money.
const MOST_REFUSED: usize = 1000;

/// Keeps attempts in memory.
#[derive(Debug, Default)]
pub struct MemoryBuyerLedger {
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    attempts: Vec<Attempt>,
    last: u64,
}

impl MemoryBuyerLedger {
    /// Empty books.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn counted(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.attempts
            .iter()
            .filter(|attempt| attempt.state != AttemptState::Refused)
    }

    fn stand(&self, new: &NewAttempt, tallies: &[Tally]) -> BooksStand {
        let same_payment = self.counted().find(|attempt| {
            attempt.new.payment.pmi == new.payment.pmi
                && attempt.new.payment.reference == new.payment.reference
        });
        let same_call = self.counted().filter(|attempt| {
            attempt.new.server == new.server
                && attempt.new.identity == new.identity
                && attempt.blocks_its_call()
        });
        let unserved: Vec<&Attempt> = self
            .counted()
            .rev()
            .filter(|attempt| {
                attempt.new.server == new.server
                    && (attempt.answer.is_unserved() || attempt.answer == AnswerState::Result)
            })
            .take_while(|attempt| attempt.answer.is_unserved())
            .collect();
        BooksStand {
            same_payment: same_payment.cloned(),
            same_call: same_call.cloned().collect(),
            used: self.used(tallies),
            unserved: u32::try_from(unserved.len()).unwrap_or(u32::MAX),
            unserved_amounts: add_up(unserved.iter().map(|attempt| used(attempt)))
                .into_iter()
                .map(|used| used.amount)
                .collect(),
        }
    }

    fn used(&self, tallies: &[Tally]) -> Vec<Vec<Used>> {
        tallies
            .iter()
            .map(|tally| {
                let fits = |attempt: &&Attempt| {
                    tally
                        .server
                        .is_none_or(|server| server == attempt.new.server)
                        && tally
                            .capability
                            .as_ref()
                            .is_none_or(|pattern| pattern.matches(&attempt.new.capability))
                        && tally.since.is_none_or(|since| attempt.new.at > since)
                };
                add_up(self.counted().filter(fits).map(used))
            })
            .collect()
    }

    fn change(&mut self, id: AttemptId, change: impl FnOnce(&mut Attempt)) -> Result<()> {
        let attempt = self
            .attempts
            .iter_mut()
            .find(|attempt| attempt.id == id)
            .ok_or_else(|| Error::ledger("there is no such payment"))?;
        change(attempt);
        Ok(())
    }

    fn forget_refused(&mut self) {
        let refused = |attempt: &Attempt| attempt.state == AttemptState::Refused;
        let mut surplus = self
            .attempts
            .iter()
            .filter(|it| refused(it))
            .count()
            .saturating_sub(MOST_REFUSED);
        self.attempts.retain(|attempt| {
            let goes = surplus > 0 && refused(attempt);
            surplus -= usize::from(goes);
            !goes
        });
    }
}

fn used(attempt: &Attempt) -> Used {
    Used::new(attempt.amount().clone(), attempt.new.worth.clone())
}

/// One sum for each pair of units.
fn add_up(each: impl IntoIterator<Item = Used>) -> Vec<Used> {
    let mut sums: Vec<Used> = Vec::new();
    for one in each {
        let unit = |used: &Used| {
            let worth = used.worth.as_ref().map(|worth| worth.unit().clone());
            (used.amount.unit().clone(), worth)
        };
        let Some(sum) = sums.iter_mut().find(|sum| unit(sum) == unit(&one)) else {
            sums.push(one);
            continue;
        };
        sum.amount = plus(&sum.amount, &one.amount);
        sum.worth = match (&sum.worth, &one.worth) {
            (Some(a), Some(b)) => Some(plus(a, b)),
            _ => None,
        };
    }
    sums
}

/// The sum of two amounts of one unit. One beyond the largest amount stays at it, which is above every limit.
fn plus(a: &Amount, b: &Amount) -> Amount {
    a.checked_add(b)
        .or_else(|| Amount::new(MAX_AMOUNT, a.unit().clone()).ok())
        .unwrap_or_else(|| a.clone())
}

#[async_trait]
impl BuyerLedger for MemoryBuyerLedger {
    async fn reserve(
        &self,
        new: NewAttempt,
        case: Case,
    ) -> Result<Result<AttemptId, DeclineReason>> {
        let mut books = self.books();
        let stand = books.stand(&new, &case.tallies());
        if let Err(reason) = case.judge(&stand) {
            return Ok(Err(reason));
        }
        books.last += 1;
        let id = AttemptId::new(books.last);
        books.attempts.push(Attempt::reserved(id, new));
        Ok(Ok(id))
    }

    async fn settle(&self, id: AttemptId, end: Settled, at: Timestamp) -> Result<()> {
        let mut books = self.books();
        books.change(id, |attempt| attempt.settle(end, at))?;
        books.forget_refused();
        Ok(())
    }

    async fn note(&self, id: AttemptId, heard: Heard) -> Result<()> {
        self.books().change(id, |attempt| attempt.hear(heard))
    }

    async fn make_up(
        &self,
        server: &ServerPubkey,
        identity: Option<InvocationIdentity>,
        answer: AnswerState,
    ) -> Result<usize> {
        let mut made_up = 0;
        for attempt in &mut self.books().attempts {
            let fits = attempt.new.server == *server
                && identity.is_none_or(|identity| identity == attempt.new.identity)
                && attempt.state != AttemptState::Refused
                && attempt.answer != AnswerState::Waiting
                && (attempt.answer.is_unserved() || attempt.answer.is_open());
            if fits {
                attempt.answer = answer;
                made_up += 1;
            }
        }
        Ok(made_up)
    }

    async fn list(&self, filter: &AttemptFilter) -> Result<Vec<Attempt>> {
        let books = self.books();
        let listed = books.attempts.iter().filter(|attempt| {
            (filter.states.is_empty() || filter.states.contains(&attempt.state))
                && filter.id.is_none_or(|id| id == attempt.id)
                && (!filter.unserved || attempt.is_unserved())
                && filter.after.is_none_or(|after| attempt.id > after)
                && filter
                    .server
                    .is_none_or(|server| server == attempt.new.server)
        });
        Ok(listed
            .take(filter.limit.unwrap_or(usize::MAX))
            .cloned()
            .collect())
    }

    async fn used(&self, tallies: Vec<Tally>) -> Result<Vec<Vec<Used>>> {
        Ok(self.books().used(&tallies))
    }
}
