//! Has the payment request made, and believes only what was ordered.

use std::sync::Arc;

use super::Gate;
use super::resolve_price::guarded;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::Entry;
use crate::payment::{PaymentOrder, PaymentProcessor, PaymentRequest};

impl Gate {
    /// Asks `processor` for the payment request of `entry`.
    ///
    /// The order's key is the entry's, which is already on disk: whatever happens here, the same order is never placed
    /// under two names.
    pub(super) async fn mint(
        &self,
        entry: &Entry,
        processor: &Arc<dyn PaymentProcessor>,
    ) -> Result<PaymentRequest> {
        let order = PaymentOrder::new(
            entry.idempotency_key(),
            entry.amount.clone(),
            entry.description.clone(),
            entry.deadline.since(entry.quoted_at),
        );
        let asked = Arc::clone(processor);
        let made = guarded(
            self.settings.processor_timeout,
            "create_payment_required",
            async move { asked.create_payment_required(&order).await },
        )
        .await?
        .map_err(|error| Error::new(ErrorKind::Rail, "the processor failed").with_source(error))?;
        let wrong = |what: &str| {
            Err(Error::new(
                ErrorKind::Rail,
                format!("the processor returned {what}"),
            ))
        };
        if made.pmi != entry.pmi {
            return wrong("another payment method than its own");
        }
        if made.amount != entry.amount {
            return wrong("another amount than ordered");
        }
        if made.pay_req.as_str().is_empty() {
            return wrong("an empty pay_req");
        }
        if made.reference.is_empty() {
            return wrong("nothing to look the payment up by");
        }
        if made.expires_at.is_some_and(|at| at <= self.clock.now()) {
            return wrong("a payment request that has expired");
        }
        Ok(made)
    }
}
