//! The money is there: write it down, then serve.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::Gate;
use super::log::log_money;
use super::watch::Watched;
use crate::error::Result;
use crate::ledger::{Applied, Entry, EntryState, Transition};
use crate::payment::{Amount, PaymentHappening, RequestEventId, Settlement, Timestamp};
use crate::transport::{Inbound, ReplyTo};
use crate::wire::{PaymentAcceptedParams, PaymentNotification};

/// How many settlements are worked on at once. They share the ledger's commits.
const SETTLED_AT_ONCE: usize = 512;

/// How long the client's notice may hold up the call that it paid for.
pub(super) const NOTICE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long after it could not be written down the end of an offer is tried again. A settlement is looked up again anyway.
const AGAIN: Duration = Duration::from_secs(10);

/// Acts on what the watch learns until the gate closes.
pub(super) async fn act_on(gate: Arc<Gate>, mut learned: mpsc::Receiver<Watched>) {
    let slots = Arc::new(Semaphore::new(SETTLED_AT_ONCE));
    while let Some(watched) = learned.recv().await {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let (acting, slots) = (Arc::clone(&gate), Arc::clone(&slots));
        gate.tasks.spawn(Box::pin(async move {
            match watched {
                Watched::Settled { id, asked, settlement } => {
                    if let Err(error) = acting.settled(id, &asked, settlement).await {
                        // Still watched, so it is looked up, and comes here again.
                        tracing::error!(entry = %id, error = &error as &dyn std::error::Error, "a settlement could not be written down");
                    }
                    drop(slot);
                }
                Watched::OfferEnded(id) => acting.end_offer(id, slot, &slots).await,
                Watched::UnderWay { id, until } => {
                    if let Err(error) = acting.under_way(id, until).await {
                        // Said again at the next look-up.
                        tracing::error!(entry = %id, error = &error as &dyn std::error::Error, "it could not be written down that money is on its way");
                    }
                    drop(slot);
                }
            }
        }));
    }
}

impl Gate {
    /// Ends the offer of `id`, as soon as the ledger takes it: the watch says so only once, and its client waits.
    async fn end_offer(
        self: &Arc<Self>,
        id: RequestEventId,
        slot: OwnedSemaphorePermit,
        slots: &Arc<Semaphore>,
    ) {
        let mut slot = Some(slot);
        while let Err(error) = self.offer_ended(id).await {
            tracing::error!(entry = %id, error = &error as &dyn std::error::Error, "the end of an offer could not be written down");
            // Others may go on meanwhile.
            drop(slot.take());
            let again = async {
                tokio::time::sleep(AGAIN).await;
                Arc::clone(slots).acquire_owned().await.ok()
            };
            slot = self.closing.run_until_cancelled(again).await.flatten();
            if slot.is_none() {
                return;
            }
        }
    }

    /// Writes a settlement down and serves the request that waits for it. Money that nobody waits for is an authorization
    /// for the same call, and the client is told.
    ///
    /// `asked` is what the payment request asked for. Safe to repeat: the ledger makes each move once.
    pub(super) async fn settled(
        self: &Arc<Self>,
        id: RequestEventId,
        asked: &Amount,
        settlement: Settlement,
    ) -> Result<()> {
        if settlement.amount.covers(asked) != Some(true) {
            tracing::error!(
                entry = %id, amount = asked.value(), unit = %asked.unit(), arrived = ?settlement.amount,
                "less arrived than was asked for; the call is not served"
            );
            return Ok(());
        }
        let waiting = self.waiting.take(&id);
        let (applied, waiting) = match self.settle_for(id, settlement, waiting.is_some()).await {
            Ok((applied, served)) => (applied, waiting.filter(|_| served)),
            Err(error) => {
                // The request waits on; the settlement is reported again.
                if let Some(inbound) = waiting {
                    self.waiting.put_back(id, inbound);
                }
                return Err(error);
            }
        };
        self.watcher.forget(applied.entry()).await;
        if let Applied::Moved(entry) = &applied {
            self.observe(PaymentHappening::Succeeded, entry, "");
        }
        match (applied, waiting) {
            (Applied::Moved(entry), Some(inbound)) => Box::pin(self.serve(&entry, inbound)).await,
            (Applied::Moved(entry), None) => {
                log_money(
                    &entry,
                    "paid after its request stopped waiting; kept as an authorization",
                );
                self.detach(&entry).await?;
                // The name of a charge is no request that the client knows.
                if !self.is_charge(&entry) {
                    self.accepted(&entry).await;
                }
            }
            (Applied::Already(_), _) => {}
            (Applied::Refused(entry), _) => {
                tracing::warn!(entry = %id, state = entry.state.as_str(), "a settlement changed nothing");
            }
        }
        Ok(())
    }

    /// The money for `id` is on its way, and may take until then: until it is known what became of it, its payment is watched,
    /// its entry kept, and its client not asked to pay again.
    pub(super) async fn under_way(&self, id: RequestEventId, until: Timestamp) -> Result<()> {
        let until = until.plus(self.settings.watch_grace);
        let moves = vec![Transition::UnderWay { until }];
        let applied = self.ledger.apply(&id, moves, self.clock.now()).await?;
        if let Applied::Moved(entry) = &applied {
            log_money(entry, "the money is on its way");
        }
        if !matches!(applied, Applied::Refused(_)) {
            self.watcher.watch(applied.entry()).await;
        }
        Ok(())
    }

    /// Writes a settlement down, and claims it for the request that is parked here, if one is. Says whether that request is to be served:
    /// the books decide, should it have been taken back by way of another process.
    async fn settle_for(
        &self,
        id: RequestEventId,
        settlement: Settlement,
        parked: bool,
    ) -> Result<(Applied, bool)> {
        let settle = Transition::Settle(settlement);
        if !parked {
            return Ok((self.apply_claim(&id, vec![settle], id).await?, false));
        }
        let moves = vec![settle.clone(), Transition::Serve];
        let (moves, served) = match self.apply_claim(&id, moves, id).await? {
            Applied::Refused(entry) if entry.state == EntryState::Expired => {
                // Its offer ends at this very moment, and nobody has told its client yet.
                (vec![settle, Transition::Claim { by: id }], true)
            }
            Applied::Refused(entry) if entry.state == EntryState::Issued => (vec![settle], false),
            applied => return Ok((applied, true)),
        };
        Ok((self.apply_claim(&id, moves, id).await?, served))
    }

    /// Tells the client, then forwards the call that is paid and claimed.
    pub(super) async fn serve(self: &Arc<Self>, entry: &Entry, inbound: Inbound) {
        log_money(entry, "paid");
        if tokio::time::timeout(NOTICE_TIMEOUT, self.accepted(entry))
            .await
            .is_err()
        {
            tracing::warn!(entry = %entry.id, "payment_accepted is taking long; serving the call without it");
        }
        self.forward_parked(entry, inbound).await;
    }

    /// Settled money whose own request no longer waits becomes claimable by the next request for the same call.
    async fn detach(&self, entry: &Entry) -> Result<()> {
        if entry.state == EntryState::Settled && entry.waiting {
            let reason = "its request no longer waits".to_owned();
            self.ledger
                .apply(
                    &entry.id,
                    vec![Transition::Detach { reason }],
                    self.clock.now(),
                )
                .await?;
        }
        Ok(())
    }

    /// Sends `payment_accepted`: a courtesy, whose failure stops nothing (N-69).
    pub(super) async fn accepted(&self, entry: &Entry) {
        let reply_to = ReplyTo::new(entry.client, entry.id, entry.route.clone());
        let params = PaymentAcceptedParams::new(entry.amount.value(), entry.pmi.clone());
        self.tell(&reply_to, &PaymentNotification::Accepted(params))
            .await;
    }
}
