//! The price is known, and the client may have paid ahead: its account pays, if there is enough on it.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Gate;
use super::door::Knock;
use super::log::log_money;
use super::settle::NOTICE_TIMEOUT;
use crate::error::Result;
use crate::ledger::{BALANCE, Drawn, Entry};
use crate::payment::{Amount, Pmi, Quote};
use crate::transport::ReplyTo;
use crate::wire::{PaymentAcceptedParams, PaymentNotification};

/// Where `_meta` of `payment_accepted` says what is left.
const LEFT: &str = "tollkeeper/balance";

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
                self.tell_what_is_left(&entry, &left).await;
                self.forward_claimed(knock, entry).await?;
                Ok(None)
            }
            // What stands in the way of a new entry is dealt with where an offer would be made.
            Drawn::Short | Drawn::Refused(_) => Ok(Some((knock, quote))),
        }
    }

    async fn tell_what_is_left(&self, entry: &Entry, left: &Amount) {
        let reply_to = ReplyTo::new(entry.client, entry.id, entry.route.clone());
        let mut params = PaymentAcceptedParams::new(entry.amount.value(), entry.pmi.clone());
        let left: Value = json!({ "amount": left.value(), "unit": left.unit() });
        params.meta = Some(Map::from_iter([(LEFT.to_owned(), left)]));
        let accepted = PaymentNotification::Accepted(params);
        let told = self.tell(&reply_to, &accepted);
        // A courtesy: it does not hold up what it is about.
        if tokio::time::timeout(NOTICE_TIMEOUT, told).await.is_err() {
            tracing::warn!(entry = %entry.id, "payment_accepted is taking long; serving the call without it");
        }
    }
}
