//! This event has been here before: its current state again, never a second charge, never a second execution (N-66, N-67).

use std::sync::Arc;
use std::time::Duration;

use super::Gate;
use super::door::Knock;
use super::journal::is_fresh;
use crate::error::Result;
use crate::ledger::{Applied, Entry, EntryState, Transition};
use crate::payment::{PaymentInteraction, RequestEventId};
use crate::transport::{Inbound, Outbound};
use crate::wire::{ErrorObject, Message, Response, SERVER_ERROR_CODE};

/// How old an event may be to be evaluated once more although it was answered with a payment error (T-27): some clients
/// send the identical event again when they retry within the same second. Older ones may be replays by somebody else.
const RETRY_WINDOW: Duration = Duration::from_secs(10);

/// The answer that `entry` paid for, under the id of this request; `None` if it is no longer kept.
pub(super) fn stored_response(knock: &Knock, entry: &Entry) -> Option<Response> {
    let Message::Response(mut response) = Message::parse(entry.response.as_deref()?).ok()? else {
        return None;
    };
    response.id = knock.request.id.clone();
    Some(response)
}

impl Gate {
    /// Answers a request whose event opened or claimed `entry`.
    pub(super) async fn resume(self: &Arc<Self>, knock: Box<Knock>, entry: Entry) -> Result<()> {
        match entry.state {
            EntryState::Issued if entry.interaction == PaymentInteraction::ExplicitGating => {
                if self.is_a_retry(&knock) && self.ask_again(&entry).await? {
                    return self.claim_own(knock, entry).await;
                }
                self.answer_pending(
                    &knock.request.id,
                    &knock.origin.reply_to,
                    &entry,
                    knock.negotiated,
                )
                .await;
            }
            EntryState::Issued if entry.waiting => return self.wait_on(knock, entry.id).await,
            EntryState::Settled if self.may_claim_own(&knock, &entry) => {
                return self.claim_own(knock, entry).await;
            }
            EntryState::Delivered => self.answer_again(&knock, &entry).await,
            EntryState::Expired if entry.interaction == PaymentInteraction::Transparent => {
                self.refuse_expired(&knock.request.id, &knock.origin.reply_to, &entry)
                    .await;
            }
            EntryState::Expired => {
                self.answer_pending(
                    &knock.request.id,
                    &knock.origin.reply_to,
                    &entry,
                    knock.negotiated,
                )
                .await;
            }
            EntryState::Abandoned => self.refuse_failed(&knock, Some(&entry)).await,
            // Being minted, settled or executed right now, or cancelled: the answer is on its way, or not wanted.
            EntryState::Quoted | EntryState::Issued | EntryState::Settled | EntryState::Claimed => {
            }
        }
        Ok(())
    }

    /// The request waits for its money, here as well: its payment may have been issued by another process, or written down
    /// without a word.
    async fn wait_on(self: &Arc<Self>, knock: Box<Knock>, id: RequestEventId) -> Result<()> {
        let reply_to = knock.origin.reply_to.clone();
        let inbound = Inbound::new(knock.request.into(), knock.origin);
        if !self.waiting.park(id, inbound) {
            return Ok(());
        }
        // Read again behind the parking: what was paid, cancelled or ended before it must not wait.
        match self.ledger.get(&id).await? {
            Some(entry) if entry.state == EntryState::Issued && entry.waiting => {
                self.watcher.watch(&entry).await;
                self.demand(&reply_to, &entry).await;
            }
            _ => {
                self.waiting.take(&id);
            }
        }
        Ok(())
    }

    /// Whether the event that opened `entry` may itself use the authorization that became of it: after a restored
    /// execution, or as a same-event retry under explicit gating.
    fn may_claim_own(&self, knock: &Knock, entry: &Entry) -> bool {
        let fresh = match entry.interaction {
            PaymentInteraction::ExplicitGating => self.is_a_retry(knock),
            _ => is_fresh(knock.origin.created_at, self.clock.now()),
        };
        fresh && entry.is_claimable_under(knock.negotiated.effective)
    }

    pub(super) fn is_a_retry(&self, knock: &Knock) -> bool {
        self.clock.now().since(knock.origin.created_at) <= RETRY_WINDOW
    }

    async fn claim_own(self: &Arc<Self>, knock: Box<Knock>, entry: Entry) -> Result<()> {
        let by = knock.origin.event;
        match self
            .apply_claim(&entry.id, vec![Transition::Claim { by }], by)
            .await?
        {
            Applied::Moved(entry) => self.forward_claimed(knock, entry).await,
            Applied::Already(_) | Applied::Refused(_) => Ok(()),
        }
    }

    async fn answer_again(&self, knock: &Knock, entry: &Entry) {
        let reply_to = &knock.origin.reply_to;
        if entry.claimed_by != Some(knock.origin.event) {
            // What this event paid for late was used up by a later request.
            return self
                .refuse_expired(&knock.request.id, reply_to, entry)
                .await;
        }
        match entry.response.as_deref().map(Message::parse) {
            Some(Ok(message)) => self.send(reply_to, Outbound::new(message)).await,
            Some(Err(_)) | None => {
                let error = ErrorObject::new(
                    SERVER_ERROR_CODE,
                    "The result was delivered and is no longer kept",
                );
                self.answer_error(&knock.request.id, reply_to, &error).await;
            }
        }
    }
}
