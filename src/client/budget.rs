//! What may be spent: reserved before a payment, spent or given back after it, and held while its outcome is unknown.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::event::DeclineReason;
use crate::payment::{Amount, Unit};

/// A limit on all payments together and on each of them. Clones share it.
#[derive(Debug, Clone)]
pub struct Budget {
    shared: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    total: Amount,
    per_call: Amount,
    spent: Amount,
    /// Payments under way, and those whose outcome is unknown.
    reserved: Amount,
}

/// How a budget stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spending {
    /// The most that may be spent.
    pub total: Amount,
    /// What was spent.
    pub spent: Amount,
    /// What is held for payments under way and for those of unknown outcome.
    pub reserved: Amount,
}

/// A part of the budget, held for one payment.
///
/// Dropping it without a word means that nobody knows what became of the payment: the money stays reserved.
#[derive(Debug)]
#[must_use]
pub struct Reservation {
    budget: Budget,
    amount: Amount,
}

impl Budget {
    /// At most `total`, and at most `per_call` for one call. Both must be in one unit, else nothing can be spent.
    #[must_use]
    pub fn new(total: Amount, per_call: Amount) -> Self {
        let unit = total.unit().clone();
        let state = State {
            spent: Amount::zero(unit.clone()),
            reserved: Amount::zero(unit),
            total,
            per_call,
        };
        Self {
            shared: Arc::new(Mutex::new(state)),
        }
    }

    /// Nothing may be spent.
    #[must_use]
    pub fn none() -> Self {
        Self::new(Amount::zero(Unit::SATS), Amount::zero(Unit::SATS))
    }

    /// How it stands now.
    #[must_use]
    pub fn spending(&self) -> Spending {
        let state = self.state();
        Spending {
            total: state.total.clone(),
            spent: state.spent.clone(),
            reserved: state.reserved.clone(),
        }
    }

    /// Holds `amount` for one payment. Atomic: of many at once, only as many as fit get theirs.
    ///
    /// # Errors
    ///
    /// The rule that forbids it.
    pub fn reserve(&self, amount: &Amount) -> Result<Reservation, DeclineReason> {
        let mut state = self.state();
        let asked = amount.clone();
        if state.total.value() == 0 {
            let left = state.total.clone();
            return Err(DeclineReason::AboveBudget { asked, left });
        }
        match state.per_call.covers(amount) {
            None => return Err(DeclineReason::OtherUnit { asked }),
            Some(false) => {
                return Err(DeclineReason::AbovePerCall {
                    asked,
                    limit: state.per_call.clone(),
                });
            }
            Some(true) => {}
        }
        let used = state.spent.checked_add(&state.reserved);
        let left = used.and_then(|used| state.total.checked_sub(&used));
        let left = left.unwrap_or_else(|| Amount::zero(state.total.unit().clone()));
        match left.covers(amount) {
            None => return Err(DeclineReason::OtherUnit { asked }),
            Some(false) => return Err(DeclineReason::AboveBudget { asked, left }),
            Some(true) => {}
        }
        // Cannot fail: it fits into the total.
        if let Some(reserved) = state.reserved.checked_add(amount) {
            state.reserved = reserved;
        }
        drop(state);
        Ok(Reservation {
            budget: self.clone(),
            amount: amount.clone(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// The money is gone.
    pub fn spend(self) {
        let mut state = self.budget.state();
        state.release(&self.amount);
        if let Some(spent) = state.spent.checked_add(&self.amount) {
            state.spent = spent;
        }
    }

    /// No money moved, and none will.
    pub fn give_back(self) {
        self.budget.state().release(&self.amount);
    }

    /// Nobody knows: the money stays reserved.
    pub fn hold(self) {}

    /// What is left of the budget beside this.
    #[must_use]
    pub fn left(&self) -> Amount {
        let state = self.budget.state();
        let used = state.spent.checked_add(&state.reserved);
        used.and_then(|used| state.total.checked_sub(&used))
            .unwrap_or_else(|| Amount::zero(state.total.unit().clone()))
    }
}

impl State {
    fn release(&mut self, amount: &Amount) {
        if let Some(reserved) = self.reserved.checked_sub(amount) {
            self.reserved = reserved;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sats(value: u64) -> Amount {
        Amount::new(value, Unit::SATS).unwrap()
    }

    #[test]
    fn a_budget_is_never_overdrawn_however_payments_overlap() {
        let budget = Budget::new(sats(100), sats(60));
        let first = budget.reserve(&sats(60)).unwrap();
        assert!(
            matches!(budget.reserve(&sats(60)), Err(DeclineReason::AboveBudget { left, .. }) if left == sats(40))
        );
        let second = budget.reserve(&sats(40)).unwrap();
        first.give_back();
        second.spend();
        let third = budget.reserve(&sats(60)).unwrap();
        third.hold();
        assert!(
            budget.reserve(&sats(1)).is_err(),
            "an unknown outcome keeps its money"
        );
        let spending = budget.spending();
        assert_eq!((spending.spent, spending.reserved), (sats(40), sats(60)));
    }

    #[test]
    fn a_dropped_reservation_stays_reserved() {
        let budget = Budget::new(sats(10), sats(10));
        drop(budget.reserve(&sats(10)).unwrap());
        assert!(budget.reserve(&sats(1)).is_err());
    }

    #[test]
    fn limits_and_units_are_told_apart() {
        let budget = Budget::new(sats(100), sats(10));
        assert!(matches!(
            budget.reserve(&sats(11)),
            Err(DeclineReason::AbovePerCall { .. })
        ));
        assert!(matches!(
            budget.reserve(&"0.01 usd".parse().unwrap()),
            Err(DeclineReason::OtherUnit { .. })
        ));
        assert!(Budget::none().reserve(&sats(1)).is_err());
    }

    #[test]
    fn many_threads_share_one_budget() {
        let budget = Budget::new(sats(500), sats(100));
        let granted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..20)
                .map(|_| scope.spawn(|| budget.reserve(&sats(100)).map(Reservation::spend)))
                .collect();
            threads
                .into_iter()
                .map(|thread| usize::from(thread.join().unwrap().is_ok()))
                .sum()
        });
        assert_eq!(granted, 5);
    }
}
