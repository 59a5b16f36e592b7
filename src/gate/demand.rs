//! Asks the client for the money: `payment_required`, `-32042`, `-32043`.

use serde_json::{Map, Value};

use super::Gate;
use super::challenge::Challenged;
use super::negotiate::Negotiated;
use crate::ledger::{Entry, EntryState};
use crate::payment::Timestamp;
use crate::transport::{Outbound, ReplyTo};
use crate::wire::mpp::{Problem, with_challenges};
use crate::wire::{
    ENTITLEMENTS_KEY, ErrorObject, PaymentNotification, PaymentOption, PaymentPendingData,
    PaymentRequiredData, PaymentRequiredParams, RequestId, Response, Tag,
};

/// When a client that waits should ask again, in seconds.
const RETRY_AFTER: u64 = 2;

impl Gate {
    /// Sends `payment_required`. Failing to send it is not the end: the client may ask for it again with the same event.
    pub(super) async fn demand(&self, reply_to: &ReplyTo, entry: &Entry) {
        let Some(params) = option(entry, self.clock.now()) else {
            return;
        };
        self.tell(reply_to, &PaymentNotification::Required(params))
            .await;
    }

    /// Answers `-32042` with the option of `entry`.
    pub(super) async fn answer_payment_required(
        &self,
        id: &RequestId,
        reply_to: &ReplyTo,
        entry: &Entry,
        negotiated: Negotiated,
    ) {
        let options = option(entry, self.clock.now()).into_iter().collect();
        let mut data = PaymentRequiredData::new(options);
        data.entitlements = entitlements(entry);
        let challenges = match negotiated.challenged {
            Challenged::No => Vec::new(),
            _ => self.challenges_for(entry, negotiated.bearer),
        };
        let error = match negotiated.failed {
            Some(problem) => problem.with_offer(&data, &challenges),
            None => {
                with_challenges(&mut data, &challenges);
                data.to_error()
            }
        };
        self.answer_gated(id, reply_to, &error, negotiated).await;
    }

    /// Answers `-32043` and repeats the option that is still open: the client may have lost the first answer (N-85).
    pub(super) async fn answer_pending(
        &self,
        id: &RequestId,
        reply_to: &ReplyTo,
        entry: &Entry,
        negotiated: Negotiated,
    ) {
        if self.is_charge(entry) {
            // There is nothing that anybody could pay.
            return self
                .answer_gated(id, reply_to, &Problem::Unsettled.to_error(None), negotiated)
                .await;
        }
        let offered = entry.state == EntryState::Issued;
        if offered && (negotiated.challenged == Challenged::Only || negotiated.failed.is_some()) {
            // Clients that pay by challenge do not wait: they are told the same offer again.
            return self
                .answer_payment_required(id, reply_to, entry, negotiated)
                .await;
        }
        let options = option(entry, self.clock.now()).into_iter().collect();
        self.answer_gated(
            id,
            reply_to,
            &PaymentPendingData::new(RETRY_AFTER, options).to_error(),
            negotiated,
        )
        .await;
    }

    /// Answers `-32043` without an offer: `entry` may have been paid, and nobody can tell yet.
    pub(super) async fn answer_unsettled(
        &self,
        id: &RequestId,
        reply_to: &ReplyTo,
        entry: &Entry,
        negotiated: Negotiated,
    ) {
        if entry.state == EntryState::Issued {
            return self.answer_pending(id, reply_to, entry, negotiated).await;
        }
        let by_challenge = negotiated.challenged == Challenged::Only || negotiated.failed.is_some();
        let error = match by_challenge {
            true => Problem::Unsettled.to_error(None),
            false => PaymentPendingData::new(RETRY_AFTER, Vec::new()).to_error(),
        };
        self.answer_gated(id, reply_to, &error, negotiated).await;
    }

    pub(super) async fn answer_gated(
        &self,
        id: &RequestId,
        reply_to: &ReplyTo,
        error: &ErrorObject,
        negotiated: Negotiated,
    ) {
        let tags = negotiated
            .disclose
            .map(Tag::payment_interaction)
            .into_iter()
            .collect();
        let outbound = Outbound::new(Response::from_error(id.clone(), error)).with_tags(tags);
        self.send(reply_to, outbound).await;
    }

    /// Sends a payment notification; a failure is logged and stops nothing.
    pub(super) async fn tell(&self, reply_to: &ReplyTo, notification: &PaymentNotification) {
        match notification.to_message() {
            Ok(message) => self.send(reply_to, Outbound::new(message)).await,
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "a notification could not be written"
            ),
        }
    }

    pub(super) async fn send(&self, reply_to: &ReplyTo, outbound: Outbound) {
        if let Err(error) = self.transport.send(reply_to, outbound).await {
            tracing::warn!(
                request_event_id = %reply_to.event, client_pubkey = reply_to.client.short(),
                error = &error as &dyn std::error::Error, "a message to the client could not be sent"
            );
        }
    }
}

/// The offer of `entry` as it stands at `now`: always the same `pay_req`, with the time that is left.
fn option(entry: &Entry, now: Timestamp) -> Option<PaymentOption> {
    let made = entry.payment_request.as_ref()?;
    let mut params =
        PaymentRequiredParams::new(entry.amount.value(), made.pay_req.clone(), made.pmi.clone());
    params.description = Some(entry.description.clone());
    // A clock that was set back must not promise more than the offer ever had.
    let most = entry.deadline.since(entry.quoted_at);
    params.ttl = Some(offer_ends(entry).since(now).min(most).as_secs().max(1));
    params.meta = entry
        .meta
        .as_deref()
        .and_then(|meta| serde_json::from_str(meta).ok());
    Some(params)
}

/// What the entitlements said that do not cover the call, as it was when the price was named.
fn entitlements(entry: &Entry) -> Map<String, Value> {
    let meta: Option<Map<String, Value>> = entry
        .meta
        .as_deref()
        .and_then(|meta| serde_json::from_str(meta).ok());
    match meta.and_then(|mut meta| meta.remove(ENTITLEMENTS_KEY)) {
        Some(Value::Object(said)) => said,
        _ => Map::new(),
    }
}

/// When the client must have paid: the offer's end, or the payment request's own if that is sooner.
pub(super) fn offer_ends(entry: &Entry) -> Timestamp {
    let expires_at = entry
        .payment_request
        .as_ref()
        .and_then(|made| made.expires_at);
    expires_at.map_or(entry.deadline, |at| at.min(entry.deadline))
}
