//! The price is known, and the client may have paid ahead: its account pays, if there is enough on it.

use std::sync::Arc;

use super::Gate;
use super::door::Knock;
use super::log::log_money;
use crate::error::Result;
use crate::ledger::{BALANCE, Drawn};
use crate::payment::{Pmi, Quote};

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
        let may = self.settings.balances && knock.listed.waivable && !knock.replayed;
        let Some(pmi) = may.then(|| BALANCE.parse::<Pmi>().ok()).flatten() else {
            return Ok(Some((knock, quote)));
        };
        if self.waiting.is_cancelled(&knock.origin.event) {
            return Ok(None);
        }
        let new = self.new_entry(&knock, quote.clone(), &pmi);
        match self.ledger.draw(new, self.clock.now()).await? {
            Drawn::Paid { entry, left } => {
                log_money(&entry, "paid from the client's account");
                let said = &knock.invocation.entitlements;
                self.tell_what_is_left(&entry, &left, said).await;
                self.forward_claimed(knock, entry).await?;
                Ok(None)
            }
            // What stands in the way of a new entry is dealt with where an offer would be made.
            Drawn::Short | Drawn::Refused(_) => Ok(Some((knock, quote))),
        }
    }
}
