//! Claims an authorization: the right to one execution of this call that the client has paid for already.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::Gate;
use super::door::Knock;
use super::log::log_money;
use super::watch::look_up;
use crate::error::Result;
use crate::ledger::{Entry, EntryState};
use crate::payment::{RequestEventId, SettlementStatus};

/// A payment is asked about out of turn at most this often.
const ASKED_EVERY: Duration = Duration::from_secs(2);

/// How many such questions are remembered.
const ASKED_AT_MOST: usize = 10_000;

impl Gate {
    /// The authorization that `knock` may use up, claimed for it by one compare-and-set; `None` if there is none.
    ///
    /// `standing` are the unfinished entries of the same call. Before a client is asked to pay again, every old offer of
    /// the call that no request waits for is asked about once more: the money may have come in unnoticed.
    pub(super) async fn claim(
        self: &Arc<Self>,
        knock: &Knock,
        standing: &[Entry],
    ) -> Result<Option<Entry>> {
        let mut claimable = false;
        for entry in standing {
            claimable |= match entry.state {
                EntryState::Settled => true,
                EntryState::Issued | EntryState::Expired if !entry.waiting => {
                    self.ask_again(entry).await?
                }
                _ => false,
            };
        }
        if !claimable {
            return Ok(None);
        }
        self.claim_oldest(knock).await
    }

    /// Claims the oldest authorization that `knock` may use up.
    pub(super) async fn claim_oldest(&self, knock: &Knock) -> Result<Option<Entry>> {
        let interaction = knock.negotiated.effective;
        let claimed = self
            .ledger
            .claim_authorization(&knock.caller(), interaction, self.clock.now())
            .await?;
        if let Some(entry) = &claimed {
            log_money(entry, "authorization claimed");
        }
        Ok(claimed)
    }

    /// Looks one payment up out of turn and writes down what is learned. `true` if it is paid.
    pub(super) async fn ask_again(self: &Arc<Self>, entry: &Entry) -> Result<bool> {
        if !self.may_ask_again(entry.id) {
            return Ok(false);
        }
        let Some(request) = entry.payment_request.clone() else {
            return Ok(false);
        };
        let Some(processor) = self.processor(&entry.pmi).cloned() else {
            return Ok(false);
        };
        match look_up(processor, request, self.settings.processor_timeout).await {
            SettlementStatus::Settled(settlement) => {
                self.settled(entry.id, &entry.amount, settlement).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Clients that poll must not make the wallet be polled at their pace.
    fn may_ask_again(&self, id: RequestEventId) -> bool {
        let now = self.clock.now();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked
            .get(&id)
            .is_some_and(|at| now.since(*at) < ASKED_EVERY)
        {
            return false;
        }
        if asked.len() >= ASKED_AT_MOST {
            asked.retain(|_, at| now.since(*at) < ASKED_EVERY);
        }
        if asked.len() < ASKED_AT_MOST {
            asked.insert(id, now);
        }
        true
    }
}
