//! The price is known: write the entry.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use super::Gate;
use super::challenge::Challenged;
use super::door::Knock;
use crate::error::Result;
use crate::ledger::{Entry, EntryState, NewEntry, Opened};
use crate::payment::{PaymentInteraction, Pmi, Quote};
use crate::wire::{ENTITLEMENTS_KEY, Message};

/// How soon it is looked again whether a payment request has been made.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl Gate {
    /// Offers `knock` for the quoted price.
    ///
    /// Order matters: the entry is durable before the processor is asked, and the payment request is durable before
    /// anything leaves.
    pub(super) async fn quote(self: &Arc<Self>, knock: Box<Knock>, quote: Quote) -> Result<()> {
        if self.waiting.is_cancelled(&knock.origin.event) {
            return Ok(());
        }
        let Some(processor) = self.pick_processor(
            &knock.origin.pmis,
            knock.negotiated.effective,
            &quote.amount,
        ) else {
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
        let quote = match self.convert(quote, &processor).await {
            Ok(quote) => quote,
            Err(error) => {
                tracing::error!(
                    request_event_id = %knock.origin.event, capability = %knock.listed.capability, pmi = %processor.pmi(),
                    error = &error as &dyn std::error::Error, "the price could not be converted; nothing was minted"
                );
                self.refuse_failed(&knock, None).await;
                return Ok(());
            }
        };
        let new = self.new_entry(&knock, quote, processor.pmi());
        loop {
            return match self.ledger.open(new.clone(), self.settings.limits).await? {
                Opened::New(entry) => Box::pin(self.issue(knock, entry, processor)).await,
                // Another copy of the same event was faster.
                Opened::Exists(entry) => Box::pin(self.resume(knock, entry)).await,
                // The money for an earlier offer has come in since the door looked: nobody pays twice.
                Opened::Authorized if knock.replayed => Box::pin(self.refuse_replay(knock)).await,
                Opened::Authorized => match self.claim_oldest(&knock).await? {
                    Some(entry) => Box::pin(self.forward_claimed(knock, entry)).await,
                    // Somebody else was faster, or another copy of this event: what is there now?
                    None => continue,
                },
                Opened::Outstanding(entry) => {
                    Box::pin(self.answer_outstanding(&knock, &entry)).await
                }
                Opened::Full => {
                    tracing::warn!(
                        client_pubkey = knock.origin.client.short(),
                        "too many open offers; nothing was minted"
                    );
                    self.refuse_at_capacity(&knock).await;
                    Ok(())
                }
            };
        }
    }

    async fn answer_outstanding(&self, knock: &Knock, entry: &Entry) -> Result<()> {
        // Nobody who sends this poll again later shall get what its author pays for meanwhile (D-12).
        self.ledger
            .note_answered(&knock.origin.event, self.clock.now())
            .await?;
        let made = self.made_soon(knock, entry).await?;
        let entry = made.as_ref().unwrap_or(entry);
        let (id, reply_to) = (&knock.request.id, &knock.origin.reply_to);
        self.answer_pending(id, reply_to, entry, knock.negotiated)
            .await;
        Ok(())
    }

    /// `entry` as soon as it can be paid, for a client that is told the same offer again rather than to wait: its own payment
    /// request may be being made right now, for another request.
    async fn made_soon(&self, knock: &Knock, entry: &Entry) -> Result<Option<Entry>> {
        if knock.negotiated.challenged != Challenged::Only {
            return Ok(None);
        }
        let mut made = entry.clone();
        let until = Instant::now() + self.settings.processor_timeout;
        while made.state == EntryState::Quoted && Instant::now() < until {
            tokio::time::sleep(LOOK_AGAIN).await;
            match self.ledger.get(&entry.id).await? {
                Some(entry) => made = entry,
                None => break,
            }
        }
        Ok(Some(made))
    }

    pub(super) fn new_entry(&self, knock: &Knock, quote: Quote, pmi: &Pmi) -> NewEntry {
        let now = self.clock.now();
        let wanted = self.settings.payment_ttl;
        let stands = self.processor(pmi).map_or(wanted, |p| p.offer_ttl(wanted));
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
            pmi: pmi.clone(),
            amount: quote.amount,
            description,
            meta: told(quote.meta, &knock.invocation.entitlements),
            request,
            route: knock.origin.reply_to.route.clone(),
            deadline: now.plus(stands),
            quoted_at: now,
        }
    }
}

/// `_meta` of a quote, with what the entitlements said that do not cover the call.
fn told(meta: Option<Map<String, Value>>, entitlements: &Map<String, Value>) -> Option<String> {
    if meta.is_none() && entitlements.is_empty() {
        return None;
    }
    let mut meta = meta.unwrap_or_default();
    if !entitlements.is_empty() {
        meta.insert(ENTITLEMENTS_KEY.to_owned(), entitlements.clone().into());
    }
    serde_json::to_string(&meta).ok()
}
