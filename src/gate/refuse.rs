//! Every way to say no. Each is terminal and clear to the client, and none carries a word of a wallet, a path or a cause
//! (N-72, N-129).

use std::sync::Arc;

use super::Gate;
use super::door::Knock;
use crate::error::Result;
use crate::ledger::Entry;
use crate::payment::{Amount, PaymentInteraction, PaymentInteractionPolicy, PaymentProcessor};
use crate::transport::{Outbound, ReplyTo};
use crate::wire::{
    ErrorObject, PaymentNotification, PaymentRejectedParams, RequestId, Response,
    SERVER_ERROR_CODE, Tag, UnsupportedInteractionData,
};

impl Gate {
    /// `resolve_price` said no.
    pub(super) async fn refuse_by_policy(&self, knock: &Knock, message: Option<String>) {
        let error = message
            .clone()
            .unwrap_or_else(|| "Payment rejected by policy".to_owned());
        let error = match knock.negotiated.effective {
            PaymentInteraction::ExplicitGating => error,
            _ => message.as_ref().map_or_else(
                || "Payment rejected".to_owned(),
                |m| format!("Payment rejected: {m}"),
            ),
        };
        self.refuse(knock, Some(knock.listed.price.min()), message, &error)
            .await;
    }

    /// Client and server have no payment method in common; nothing was minted.
    pub(super) async fn refuse_pmi(&self, knock: &Knock, amount: &Amount) {
        let text = format!(
            "No compatible payment method; server supports: {}",
            self.supported_pmis()
        );
        self.refuse(knock, Some(amount.clone()), Some(text.clone()), &text)
            .await;
    }

    /// Something of ours failed; nothing was charged.
    pub(super) async fn refuse_failed(&self, knock: &Knock, entry: Option<&Entry>) {
        let text = "Payment could not be set up; nothing was charged";
        let amount = entry.map(|entry| entry.amount.clone());
        self.refuse(knock, amount, Some(text.to_owned()), text)
            .await;
    }

    /// An earlier offer of the same call may have been paid, and nobody can tell yet: another might be paid beside it.
    pub(super) async fn refuse_unsettled(&self, knock: &Knock, entry: &Entry) -> Result<()> {
        // Nobody who sends this again later shall get what its author has paid for (D-12).
        self.ledger
            .note_answered(&knock.origin.event, self.clock.now())
            .await?;
        if knock.negotiated.effective == PaymentInteraction::ExplicitGating {
            let (id, reply_to) = (&knock.request.id, &knock.origin.reply_to);
            self.answer_unsettled(id, reply_to, entry, knock.negotiated)
                .await;
        } else {
            let text = "An earlier payment for this call is not decided yet, retry later";
            self.refuse(knock, None, Some(text.to_owned()), text).await;
        }
        Ok(())
    }

    /// Too many open offers; nothing was minted (N-125).
    pub(super) async fn refuse_at_capacity(&self, knock: &Knock) {
        let text = "Payment capacity reached, retry later";
        self.refuse(knock, None, Some(text.to_owned()), text).await;
    }

    /// The client asked for explicit gating, which is not on offer (N-42 to N-44).
    pub(super) async fn refuse_interaction(&self, knock: &Knock) {
        let supported = match self.settings.interaction {
            PaymentInteractionPolicy::Transparent => vec![PaymentInteraction::Transparent],
            PaymentInteractionPolicy::Optional => {
                vec![
                    PaymentInteraction::Transparent,
                    PaymentInteraction::ExplicitGating,
                ]
            }
        };
        let error = UnsupportedInteractionData::new(PaymentInteraction::ExplicitGating, supported)
            .to_error();
        self.answer_error(&knock.request.id, &knock.origin.reply_to, &error)
            .await;
    }

    /// The offer ended unpaid.
    pub(super) async fn refuse_expired(&self, id: &RequestId, reply_to: &ReplyTo, entry: &Entry) {
        let text = "Payment expired";
        let rejected = PaymentRejectedParams::new(
            entry.pmi.clone(),
            Some(entry.amount.value()),
            Some(text.to_owned()),
        );
        self.tell(reply_to, &PaymentNotification::Rejected(rejected))
            .await;
        self.answer_error(id, reply_to, &ErrorObject::new(SERVER_ERROR_CODE, text))
            .await;
    }

    /// The books cannot be kept right now; nothing was forwarded.
    pub(super) async fn answer_unavailable(&self, id: &RequestId, reply_to: &ReplyTo) {
        let error = ErrorObject::new(SERVER_ERROR_CODE, "Payments are unavailable, retry later");
        self.answer_error(id, reply_to, &error).await;
    }

    /// Answers with a JSON-RPC error.
    pub(super) async fn answer_error(
        &self,
        id: &RequestId,
        reply_to: &ReplyTo,
        error: &ErrorObject,
    ) {
        self.send(
            reply_to,
            Outbound::new(Response::from_error(id.clone(), error)),
        )
        .await;
    }

    /// Transparent: `payment_rejected`, then the error that ends the request. Explicit gating: the error alone.
    async fn refuse(
        &self,
        knock: &Knock,
        amount: Option<Amount>,
        message: Option<String>,
        error: &str,
    ) {
        let reply_to = &knock.origin.reply_to;
        let mut tags = Vec::new();
        if knock.negotiated.effective == PaymentInteraction::Transparent {
            if let Some(processor) = self.refused_processor(knock) {
                // The number is read in the unit of the method: cents must not pass for sats.
                let amount = amount.filter(|amount| processor.accepts(amount.unit()));
                let amount = amount.map(|amount| amount.value());
                let pmi = processor.pmi().clone();
                let rejected = PaymentRejectedParams::new(pmi, amount, message);
                self.tell(reply_to, &PaymentNotification::Rejected(rejected))
                    .await;
            }
        } else {
            tags.extend(knock.negotiated.disclose.map(Tag::payment_interaction));
        }
        let error = ErrorObject::new(SERVER_ERROR_CODE, error);
        let outbound =
            Outbound::new(Response::from_error(knock.request.id.clone(), &error)).with_tags(tags);
        self.send(reply_to, outbound).await;
    }

    /// The method that a `payment_rejected` names: the one that would have been used, else the server's first.
    fn refused_processor(&self, knock: &Knock) -> Option<&Arc<dyn PaymentProcessor>> {
        let picked = self.pick_processor(
            &knock.origin.pmis,
            knock.negotiated.effective,
            &knock.listed.price.min(),
        );
        picked.or_else(|| self.processors.first())
    }
}
