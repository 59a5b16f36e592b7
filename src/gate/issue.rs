//! The entry is on the books: have its payment request made, write that down, and ask for the money.

use std::sync::Arc;
use std::time::Duration;

use super::Gate;
use super::door::Knock;
use super::log::log_money;
use crate::error::Result;
use crate::ledger::{Applied, Entry, EntryState, Transition};
use crate::payment::{PaymentHappening, PaymentInteraction, PaymentProcessor, PaymentRequest};
use crate::transport::Inbound;

/// How long the watch of a payment waits for the demand to be out.
const DEMAND_TIMEOUT: Duration = Duration::from_secs(2);

impl Gate {
    /// Has the payment request of `entry` made and offers it to the client.
    pub(super) async fn issue(
        self: &Arc<Self>,
        knock: Box<Knock>,
        entry: Entry,
        processor: Arc<dyn PaymentProcessor>,
    ) -> Result<()> {
        let made = match self.mint(&entry, &processor).await {
            Ok(made) => made,
            Err(error) => {
                tracing::error!(
                    entry = %entry.id, pmi = %entry.pmi, amount = entry.amount.value(), unit = %entry.amount.unit(),
                    error = &error as &dyn std::error::Error, "no payment request could be made"
                );
                let reason = "no payment request could be made".to_owned();
                let abandon = Transition::Abandon { reason };
                self.ledger
                    .apply(&entry.id, vec![abandon], self.clock.now())
                    .await?;
                self.refuse_failed(&knock, Some(&entry)).await;
                return Ok(());
            }
        };
        match self.write_down(&entry, made).await {
            Ok(Applied::Moved(entry)) => Box::pin(self.offer(knock, entry)).await,
            Ok(Applied::Refused(entry)) if entry.state == EntryState::Quoted => {
                tracing::error!(
                    entry = %entry.id, pmi = %entry.pmi, "the processor returned a payment request that another call has"
                );
                self.withdraw(&entry).await;
                self.refuse_failed(&knock, Some(&entry)).await;
                Ok(())
            }
            Ok(Applied::Already(entry) | Applied::Refused(entry)) => {
                Box::pin(self.resume(knock, entry)).await
            }
            Err(error) => {
                self.withdraw(&entry).await;
                Err(error)
            }
        }
    }

    async fn write_down(&self, entry: &Entry, payment_request: PaymentRequest) -> Result<Applied> {
        let ends = payment_request
            .expires_at
            .map_or(entry.deadline, |at| at.max(entry.deadline));
        let watch_until = ends.plus(self.settings.watch_grace);
        let issue = Transition::Issue {
            payment_request,
            watch_until,
        };
        self.ledger
            .apply(&entry.id, vec![issue], self.clock.now())
            .await
    }

    /// Parks the request (transparent), asks for the money, and watches for it.
    async fn offer(self: &Arc<Self>, knock: Box<Knock>, entry: Entry) -> Result<()> {
        log_money(&entry, "payment requested");
        self.observe(PaymentHappening::Created, &entry, "");
        let (id, reply_to, negotiated) = (
            knock.request.id.clone(),
            knock.origin.reply_to.clone(),
            knock.negotiated,
        );
        let stands = match entry.interaction {
            PaymentInteraction::Transparent => {
                let inbound = Inbound::new(knock.request.into(), knock.origin);
                self.waiting.park(entry.id, inbound)
            }
            _ => !self.waiting.is_cancelled(&entry.id),
        };
        if !stands {
            return self.detach_cancelled(&entry).await;
        }
        // The client must hear the demand before it hears that it was paid. A notice that comes meanwhile is kept, and the
        // first look-up follows; but no payment stays unwatched because a relay is slow.
        let demand = async {
            match entry.interaction {
                PaymentInteraction::ExplicitGating => {
                    self.answer_payment_required(&id, &reply_to, &entry, negotiated)
                        .await;
                }
                _ => self.demand(&reply_to, &entry).await,
            }
        };
        tokio::pin!(demand);
        let told = tokio::time::timeout(DEMAND_TIMEOUT, &mut demand)
            .await
            .is_ok();
        self.watcher.watch(&entry).await;
        if !told {
            demand.await;
        }
        Ok(())
    }

    /// The client took the request back while its payment request was made. It is not told of it, but it is watched.
    async fn detach_cancelled(&self, entry: &Entry) -> Result<()> {
        self.watcher.watch(entry).await;
        let reason = "cancelled by the client".to_owned();
        self.ledger
            .apply(
                &entry.id,
                vec![Transition::Detach { reason }],
                self.clock.now(),
            )
            .await?;
        Ok(())
    }

    /// The payment request could not be written down, so it is not offered, and its offer must not count any longer. If it
    /// was written all the same, it is watched like any other.
    async fn withdraw(&self, entry: &Entry) {
        let reason = "the payment request could not be written down".to_owned();
        let abandon = vec![Transition::Abandon { reason }];
        match self
            .ledger
            .apply(&entry.id, abandon, self.clock.now())
            .await
        {
            Ok(applied) => self.watcher.watch(applied.entry()).await,
            Err(error) => tracing::error!(
                entry = %entry.id, error = &error as &dyn std::error::Error,
                "an offer could not be withdrawn; the next start does it"
            ),
        }
    }
}
