//! The offer ended unpaid: the request is refused, and the payment stays watched.

use std::sync::Arc;

use super::Gate;
use super::log::log_money;
use crate::error::Result;
use crate::ledger::{Applied, Transition};
use crate::payment::{PaymentHappening, RequestEventId};
use crate::transport::Inbound;
use crate::wire::Message;

impl Gate {
    /// Ends the offer of `id`, after asking the rail one last time. Money that comes later becomes an authorization.
    pub(super) async fn offer_ended(self: &Arc<Self>, id: RequestEventId) -> Result<()> {
        let Some(entry) = self.ledger.get(&id).await? else {
            return Ok(());
        };
        if !entry.state.is_open_offer() || self.ask_again(&entry).await? {
            return Ok(());
        }
        let applied = self
            .ledger
            .apply(&id, vec![Transition::Expire], self.clock.now())
            .await?;
        let waiting = self.waiting.take(&id);
        if let Applied::Moved(entry) = applied {
            log_money(&entry, "offer ended unpaid");
            self.observe(PaymentHappening::Failed, &entry, "expired");
            if let Some(Inbound {
                message: Message::Request(request),
                origin,
            }) = waiting
            {
                self.refuse_expired(&request.id, &origin.reply_to, &entry)
                    .await;
            }
        }
        Ok(())
    }
}
