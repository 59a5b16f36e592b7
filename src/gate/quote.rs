//! The price is known: write the entry, have the payment request made, and ask for the money.

use std::sync::Arc;
use std::time::Duration;

use super::Gate;
use super::door::Knock;
use crate::error::Result;
use crate::ledger::{Applied, Entry, EntryState, NewEntry, Opened, Transition};
use crate::payment::{PaymentInteraction, PaymentProcessor, Quote};
use crate::transport::Inbound;
use crate::wire::Message;

/// How long the watch of a payment waits for the demand to be out.
const DEMAND_TIMEOUT: Duration = Duration::from_secs(2);

impl Gate {
    /// Offers `knock` for the quoted price.
    ///
    /// Order matters: the entry is durable before the processor is asked, the payment request is durable before anything
    /// leaves, and the payment is watched before the client can pay it.
    pub(super) async fn quote(self: &Arc<Self>, knock: Knock, quote: Quote) -> Result<()> {
        if self.knocks.is_cancelled(&knock.origin.event) {
            return Ok(());
        }
        let Some(processor) = self.pick_processor(&knock.origin.pmis, quote.amount.unit()) else {
            self.refuse_pmi(&knock, &quote.amount).await;
            return Ok(());
        };
        let processor = Arc::clone(processor);
        if !self.pace.allows(
            knock.origin.client,
            self.settings.offers_per_minute,
            self.clock.now(),
        ) {
            self.refuse_at_capacity(&knock).await;
            return Ok(());
        }
        let new = self.new_entry(&knock, quote, &processor);
        match self.ledger.open(new, self.settings.limits).await? {
            Opened::New(entry) => self.issue(knock, entry, processor).await,
            // Another copy of the same event was faster.
            Opened::Exists(entry) => self.resume(knock, entry).await,
            Opened::Outstanding(entry) => {
                // Nobody who sends this poll again later shall get what its author pays for meanwhile (D-12).
                self.ledger
                    .note_answered(&knock.origin.event, self.clock.now())
                    .await?;
                self.answer_pending(
                    &knock.request.id,
                    &knock.origin.reply_to,
                    &entry,
                    knock.negotiated,
                )
                .await;
                Ok(())
            }
            Opened::Full => {
                tracing::warn!(
                    client_pubkey = knock.origin.client.short(),
                    "too many open offers; nothing was minted"
                );
                self.refuse_at_capacity(&knock).await;
                Ok(())
            }
        }
    }

    #[expect(
        clippy::too_many_lines,
        reason = "one order of steps, each durable before the next"
    )]
    async fn issue(
        self: &Arc<Self>,
        knock: Knock,
        entry: Entry,
        processor: Arc<dyn PaymentProcessor>,
    ) -> Result<()> {
        let payment_request = match self.mint(&entry, &processor).await {
            Ok(payment_request) => payment_request,
            Err(error) => {
                tracing::error!(
                    entry = %entry.id, pmi = %entry.pmi, amount = entry.amount.value(), unit = %entry.amount.unit(),
                    error = &error as &dyn std::error::Error, "no payment request could be made"
                );
                let abandon = Transition::Abandon {
                    reason: "no payment request could be made".to_owned(),
                };
                self.ledger
                    .apply(&entry.id, vec![abandon], self.clock.now())
                    .await?;
                self.refuse_failed(&knock, Some(&entry)).await;
                return Ok(());
            }
        };
        let ends = payment_request
            .expires_at
            .map_or(entry.deadline, |at| at.max(entry.deadline));
        let watch_until = ends.plus(self.settings.watch_grace);
        let issue = Transition::Issue {
            payment_request,
            watch_until,
        };
        let issued = self
            .ledger
            .apply(&entry.id, vec![issue], self.clock.now())
            .await;
        let entry = match issued {
            Ok(Applied::Moved(entry)) => entry,
            Ok(Applied::Refused(entry)) if entry.state == EntryState::Quoted => {
                tracing::error!(
                    entry = %entry.id, pmi = %entry.pmi, "the processor returned a payment request that another call has"
                );
                self.withdraw(&entry).await;
                self.refuse_failed(&knock, Some(&entry)).await;
                return Ok(());
            }
            Ok(Applied::Already(entry) | Applied::Refused(entry)) => {
                return self.resume(knock, entry).await;
            }
            Err(error) => {
                self.withdraw(&entry).await;
                return Err(error);
            }
        };
        self.log(&entry, "payment requested");
        let (id, reply_to, negotiated) = (
            knock.request.id.clone(),
            knock.origin.reply_to.clone(),
            knock.negotiated,
        );
        if entry.interaction == PaymentInteraction::Transparent {
            self.parked()
                .insert(entry.id, Inbound::new(knock.request.into(), knock.origin));
        }
        if self.knocks.is_cancelled(&entry.id) {
            self.parked().remove(&entry.id);
            let reason = "cancelled by the client".to_owned();
            self.watcher.watch(&entry).await;
            self.ledger
                .apply(
                    &entry.id,
                    vec![Transition::Detach { reason }],
                    self.clock.now(),
                )
                .await?;
            return Ok(());
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
                entry = %entry.id, error = &error as &dyn std::error::Error, "an offer could not be withdrawn; the next start does it"
            ),
        }
    }

    fn new_entry(
        &self,
        knock: &Knock,
        quote: Quote,
        processor: &Arc<dyn PaymentProcessor>,
    ) -> NewEntry {
        let now = self.clock.now();
        let interaction = knock.negotiated.effective;
        let description = quote
            .description
            .or_else(|| knock.listed.description.clone())
            .unwrap_or_else(|| knock.listed.capability.to_string());
        // Under explicit gating the client asks again, so its request need not be kept.
        let request = (interaction == PaymentInteraction::Transparent)
            .then(|| Message::Request(knock.request.clone()).to_json());
        NewEntry {
            id: knock.origin.event,
            client: knock.origin.client,
            identity: knock.invocation.identity,
            capability: knock.listed.capability.to_string(),
            interaction,
            pmi: processor.pmi().clone(),
            amount: quote.amount,
            description,
            meta: quote
                .meta
                .and_then(|meta| serde_json::to_string(&meta).ok()),
            request,
            route: knock.origin.reply_to.route.clone(),
            deadline: now.plus(self.settings.payment_ttl),
            quoted_at: now,
        }
    }

    /// One `info` line per change of money state.
    #[expect(clippy::unused_self, reason = "it is the gate that says it")]
    pub(super) fn log(&self, entry: &Entry, what: &'static str) {
        tracing::info!(
            entry = %entry.id, client_pubkey = entry.client.short(), capability = entry.capability,
            pmi = %entry.pmi, amount = entry.amount.value(), unit = %entry.amount.unit(), state = entry.state.as_str(),
            "{what}"
        );
    }
}
