//! Claims an authorization: the right to one execution of this call that the client has paid for already.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::Gate;
use super::door::Knock;
use super::log::log_money;
use super::watch::look_up;
use crate::error::Result;
use crate::ledger::{Applied, Entry, EntryState, Transition};
use crate::payment::{
    PaymentHappening, PaymentInteraction, RequestEventId, Settlement, SettlementStatus, Timestamp,
};

/// A payment is asked about out of turn at most this often.
const ASKED_EVERY: Duration = Duration::from_secs(2);

/// How many such questions are remembered.
const ASKED_AT_MOST: usize = 10_000;

/// What came of claiming an entry whose money a request has brought, or has proven to be there.
pub(super) enum Claim {
    /// It is executed for the request.
    Made(Entry),
    /// It was executed, or is being, or it is not to be claimed.
    NotMade(Entry),
    /// The client took the request back meanwhile: the payment is an authorization.
    TakenBack,
}

/// What a request finds that may have been paid for before.
pub(super) enum PaidBefore {
    /// This authorization, which is now claimed for it.
    Authorization(Box<Entry>),
    /// An authorization that it does not get, because it was answered before.
    Withheld,
    /// This payment, which was made or is being made for all that anybody knows.
    Unsettled(Box<Entry>),
    /// Nothing that would be of use to it.
    Nothing,
}

/// What a rail last said of a payment that it was asked about out of turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    Paid,
    NotPaid,
    /// The money is on its way.
    UnderWay,
    /// Nothing that could be made use of, or not yet.
    Nothing,
}

/// `entry`, if the claim by `by` that was tried at `at` is what it says: the time tells it from one of another process.
pub(super) fn written_after_all(
    entry: Option<Entry>,
    by: RequestEventId,
    at: Timestamp,
) -> Option<Entry> {
    entry.filter(|entry| {
        entry.state == EntryState::Claimed
            && entry.claimed_by == Some(by)
            && entry.updated_at() == at
    })
}

impl Gate {
    /// The authorization that `knock` may use up, claimed for it by one compare-and-set. A request that was answered before
    /// gets none (D-12).
    ///
    /// `standing` are the unfinished entries of the same call. Before a client is asked to pay again, every old offer of
    /// the call that no request waits for is asked about once more: the money may have come in unnoticed. What nobody knows is
    /// not taken for a no: whoever paid would be asked to pay again.
    pub(super) async fn claim(
        self: &Arc<Self>,
        knock: &Knock,
        standing: &[Entry],
    ) -> Result<PaidBefore> {
        let (interaction, now) = (knock.negotiated.effective, self.clock.now());
        let (mut paid, mut unsettled) = (false, None);
        for entry in standing {
            let of_use = entry.interaction == PaymentInteraction::Transparent
                || interaction == PaymentInteraction::ExplicitGating;
            let old_offer = matches!(entry.state, EntryState::Issued | EntryState::Expired);
            if !old_offer || entry.waiting {
                paid |= entry.is_claimable_under(interaction);
                continue;
            }
            let perhaps_paid = match self.hear_again(entry).await? {
                Heard::Paid => {
                    paid |= of_use;
                    false
                }
                Heard::NotPaid => false,
                Heard::UnderWay => true,
                // Not for ever, and not of a rail that nobody can ask any more.
                Heard::Nothing => {
                    entry.watch_until.is_some_and(|until| now <= until)
                        && self.processor(&entry.pmi).is_some()
                }
            };
            // A charge that is not decided is asked for again by the mandate that it is for, and keeps other demands away by itself.
            let is_charging = entry.state == EntryState::Issued && self.is_charge(entry);
            if perhaps_paid && of_use && !is_charging {
                // A wallet that does not answer is not waited for once for each old offer.
                unsettled = Some(entry);
                break;
            }
        }
        if paid && knock.replayed {
            return Ok(PaidBefore::Withheld);
        }
        if paid && let Some(entry) = self.claim_oldest(knock).await? {
            return Ok(PaidBefore::Authorization(Box::new(entry)));
        }
        Ok(unsettled.map_or(PaidBefore::Nothing, |entry| {
            PaidBefore::Unsettled(Box::new(entry.clone()))
        }))
    }

    /// Claims the oldest authorization that `knock` may use up.
    pub(super) async fn claim_oldest(&self, knock: &Knock) -> Result<Option<Entry>> {
        let (interaction, now) = (knock.negotiated.effective, self.clock.now());
        let caller = knock.caller();
        let claimed = self.ledger.claim_authorization(&caller, interaction, now);
        let claimed = match claimed.await {
            Ok(claimed) => claimed,
            Err(error) => {
                let standing = self.ledger.standing(&caller).await.ok();
                let entry = standing.and_then(|standing| standing.of_event);
                Some(written_after_all(entry, caller.event, now).ok_or(error)?)
            }
        };
        if let Some(entry) = &claimed {
            log_money(entry, "authorization claimed");
        }
        Ok(claimed)
    }

    /// Writes down that `entry` is paid, and claims it for `knock`, in one write: whoever comes second finds it made.
    pub(super) async fn claim_paid(
        self: &Arc<Self>,
        knock: &Knock,
        entry: Entry,
        settlement: Settlement,
    ) -> Result<Claim> {
        let by = knock.origin.event;
        let claimable = [EntryState::Issued, EntryState::Expired, EntryState::Settled];
        if entry.waiting || !claimable.contains(&entry.state) {
            return Ok(Claim::NotMade(entry));
        }
        if self.waiting.is_cancelled(&by) {
            self.settled(entry.id, &entry.amount, settlement).await?;
            return Ok(Claim::TakenBack);
        }
        let unsettled = entry.settlement.is_none();
        let moves = vec![Transition::Settle(settlement), Transition::Claim { by }];
        let applied = self.apply_claim(&entry.id, moves, by).await?;
        self.watcher.forget(applied.entry()).await;
        match applied {
            Applied::Moved(entry) => {
                log_money(&entry, "proven to be paid, and claimed");
                if unsettled {
                    self.observe(PaymentHappening::Succeeded, &entry, "");
                }
                Ok(Claim::Made(entry))
            }
            Applied::Already(entry) | Applied::Refused(entry) => Ok(Claim::NotMade(entry)),
        }
    }

    /// As [`Ledger::apply`](crate::ledger::Ledger::apply) with moves that end in a claim by `by`. A ledger that reports an error may
    /// have written all the same; nobody would then serve the call before the next start. So it is asked.
    pub(super) async fn apply_claim(
        &self,
        id: &RequestEventId,
        moves: Vec<Transition>,
        by: RequestEventId,
    ) -> Result<Applied> {
        let now = self.clock.now();
        match self.ledger.apply(id, moves, now).await {
            Err(error) => {
                let entry = self.ledger.get(id).await.ok().flatten();
                written_after_all(entry, by, now)
                    .map(Applied::Moved)
                    .ok_or(error)
            }
            applied => applied,
        }
    }

    /// Looks one payment up out of turn and writes down what is learned. `true` if it is paid.
    pub(super) async fn ask_again(self: &Arc<Self>, entry: &Entry) -> Result<bool> {
        Ok(self.whether_paid(entry).await? == Some(true))
    }

    /// The same, which tells "not paid" from "nobody knows": the wallet was asked just now, or cannot tell.
    pub(super) async fn whether_paid(self: &Arc<Self>, entry: &Entry) -> Result<Option<bool>> {
        if !self.may_ask_again(entry.id) {
            return Ok(None);
        }
        Ok(match self.hear(entry).await? {
            Heard::Paid => Some(true),
            Heard::NotPaid => Some(false),
            Heard::UnderWay | Heard::Nothing => None,
        })
    }

    /// Looks one payment up out of turn, or remembers what was said of it just now.
    async fn hear_again(self: &Arc<Self>, entry: &Entry) -> Result<Heard> {
        if self.may_ask_again(entry.id) {
            return self.hear(entry).await;
        }
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(asked
            .get(&entry.id)
            .map_or(Heard::Nothing, |(_, heard)| *heard))
    }

    async fn hear(self: &Arc<Self>, entry: &Entry) -> Result<Heard> {
        let Some(request) = entry.payment_request.clone() else {
            return Ok(Heard::NotPaid);
        };
        let Some(processor) = self.processor(&entry.pmi).cloned() else {
            return Ok(Heard::Nothing);
        };
        let heard = match look_up(processor, request, self.settings.processor_timeout).await {
            SettlementStatus::Settled(settlement) => {
                self.settled(entry.id, &entry.amount, settlement).await?;
                Heard::Paid
            }
            SettlementStatus::UnderWay(until) if until > self.clock.now() => {
                self.under_way(entry.id, until).await?;
                Heard::UnderWay
            }
            SettlementStatus::Unknown => Heard::Nothing,
            _ => Heard::NotPaid,
        };
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, last)) = asked.get_mut(&entry.id) {
            *last = heard;
        }
        Ok(heard)
    }

    /// Clients that poll must not make the wallet be polled at their pace.
    fn may_ask_again(&self, id: RequestEventId) -> bool {
        let now = self.clock.now();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked
            .get(&id)
            .is_some_and(|(at, _)| now.since(*at) < ASKED_EVERY)
        {
            return false;
        }
        if asked.len() >= ASKED_AT_MOST {
            asked.retain(|_, (at, _)| now.since(*at) < ASKED_EVERY);
        }
        if asked.len() < ASKED_AT_MOST {
            asked.insert(id, (now, Heard::Nothing));
        }
        true
    }
}
