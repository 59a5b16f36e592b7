//! The price is known, and the client may have paid ahead: its account pays, if there is enough on it.

use std::sync::Arc;

use super::Gate;
use super::claim::written_after_all;
use super::door::Knock;
use super::log::log_money;
use crate::error::Result;
use crate::ledger::{BALANCE, Drawn, NewEntry, Opened};
use crate::payment::{Amount, PaymentHappening, Pmi, Quote};

impl Gate {
    /// Pays `quote` from the client's account and forwards the call. Gives both back if there is not enough on it.
    ///
    /// Entry, claim and account are one write: whatever happens next, the call is paid for once, and if it is not executed the
    /// entry is an authorization like any other.
    pub(super) async fn draw(
        self: &Arc<Self>,
        knock: Box<Knock>,
        quote: Quote,
    ) -> Result<Option<(Box<Knock>, Quote)>> {
        // What was here before may be sent by anybody who saw it; where nobody can see it, it is its client's.
        let own = !knock.known || knock.origin.answers_only;
        let may = self.settings.balances && knock.listed.waivable && own;
        let Some(pmi) = may.then(|| BALANCE.parse::<Pmi>().ok()).flatten() else {
            return Ok(Some((knock, quote)));
        };
        if self.waiting.is_cancelled(&knock.origin.event) {
            return Ok(None);
        }
        let new = self.new_entry(&knock, quote.clone(), &pmi);
        match self.try_draw(new).await? {
            Drawn::Paid { entry, left } => {
                log_money(&entry, "paid from the client's account");
                self.observe(PaymentHappening::Succeeded, &entry, "");
                let said = &knock.invocation.entitlements;
                self.tell_what_is_left(&entry, &left, said).await;
                self.forward_claimed(knock, entry).await?;
                Ok(None)
            }
            // Another copy of the same event was faster.
            Drawn::Refused(Opened::Exists(entry)) => {
                self.resume(knock, entry).await?;
                Ok(None)
            }
            // The money for an earlier offer has come in since the door looked.
            Drawn::Refused(Opened::Authorized) => match self.claim_oldest(&knock).await? {
                Some(entry) => {
                    self.forward_claimed(knock, entry).await?;
                    Ok(None)
                }
                None => Ok(Some((knock, quote))),
            },
            // What else stands in the way of a new entry is dealt with where an offer would be made.
            Drawn::Short | Drawn::Refused(_) => Ok(Some((knock, quote))),
        }
    }

    /// Draws. A ledger that reports an error may have written all the same; the money would then be gone for nothing until the next
    /// start. So it is asked.
    async fn try_draw(&self, new: NewEntry) -> Result<Drawn> {
        let (event, client, now) = (new.id, new.client, self.clock.now());
        match self.ledger.draw(new, now).await {
            Err(error) => {
                let entry = self.ledger.get(&event).await.ok().flatten();
                let entry = written_after_all(entry, event, now).ok_or(error)?;
                let unit = entry.amount.unit();
                let account = self.ledger.account(&client, unit).await.ok().flatten();
                let left = account.map_or_else(|| Amount::zero(unit.clone()), |a| a.amount);
                Ok(Drawn::Paid { entry, left })
            }
            drawn => drawn,
        }
    }
}
