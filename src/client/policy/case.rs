//! One payment before the rules.

use std::sync::Arc;

use super::limits::Cap;
use super::{Policy, advertised, ask_above, breaker, limits, same_call, servers};
use crate::client::event::DeclineReason;
use crate::client::ledger::{BooksStand, Tally};
use crate::payment::{Amount, PriceRange, RequestEventId, ServerPubkey, Timestamp, Unit};

/// What is known of a payment that is about to be made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Facts {
    /// Who is to be paid.
    pub server: ServerPubkey,
    /// For what, in CEP-8's notation.
    pub capability: String,
    /// For which call.
    pub call: RequestEventId,
    /// How much, as the payment request itself says.
    pub amount: Amount,
    /// What that is worth in other units, as far as is known.
    pub worths: Vec<Amount>,
    /// The price that the server has advertised for it.
    pub advertised: Option<PriceRange>,
    /// The most that this price may come to in the unit of the payment, where it is in other money and there is a rate.
    pub advertised_at_rate: Option<Amount>,
    /// When it can no longer be paid.
    pub expires_at: Option<Timestamp>,
    /// A person has agreed to this very payment.
    pub approved: bool,
    /// The budget of this run has refused it already.
    pub refused: Option<DeclineReason>,
    /// Now.
    pub now: Timestamp,
}

impl Facts {
    /// A payment of `amount` to `server` for `capability`, now.
    #[must_use]
    pub fn new(
        server: ServerPubkey,
        capability: impl Into<String>,
        call: RequestEventId,
        amount: Amount,
        now: Timestamp,
    ) -> Self {
        Self {
            server,
            capability: capability.into(),
            call,
            amount,
            worths: Vec::new(),
            advertised: None,
            advertised_at_rate: None,
            expires_at: None,
            approved: false,
            refused: None,
            now,
        }
    }

    /// How much it is in `unit`, if that is known.
    pub(super) fn amount_in(&self, unit: &Unit) -> Option<&Amount> {
        std::iter::once(&self.amount)
            .chain(&self.worths)
            .find(|amount| amount.unit() == unit)
    }
}

/// One payment, with the rules that apply to it. What it decides depends on nothing else than how the books stand.
#[derive(Debug, Clone)]
pub struct Case {
    pub(super) policy: Arc<Policy>,
    pub(super) facts: Facts,
    pub(super) caps: Vec<Cap>,
}

impl Case {
    /// `facts` before `policy`.
    #[must_use]
    pub fn new(policy: Arc<Policy>, facts: Facts) -> Self {
        let caps = limits::caps(&policy, &facts);
        Self {
            policy,
            facts,
            caps,
        }
    }

    /// What has to be added up for it.
    #[must_use]
    pub fn tallies(&self) -> Vec<Tally> {
        self.caps.iter().map(|cap| cap.tally.clone()).collect()
    }

    /// Whether the payment may be made.
    ///
    /// # Errors
    ///
    /// The first rule that forbids it, with the number that broke it.
    pub fn judge(&self, stand: &BooksStand) -> Result<(), DeclineReason> {
        servers::check(self)?;
        // Before the budget: what was paid for already costs nothing more.
        same_call::check(self, stand)?;
        if let Some(refused) = &self.facts.refused {
            return Err(refused.clone());
        }
        if self
            .facts
            .expires_at
            .is_some_and(|end| end <= self.facts.now)
        {
            return Err(DeclineReason::Expired);
        }
        advertised::check(self)?;
        limits::check(self, stand)?;
        breaker::check(self, stand)?;
        ask_above::check(self, stand)
    }
}
