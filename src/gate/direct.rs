//! The client sends the money along with its request (CEP-8, direct payment): a mandate, which is charged.
//!
//! The charge is named by what was sent, so a payment is taken once, whoever sends it with whatever request, and whatever is
//! lost on the way. It is looked at last: who need not pay, or has paid, or has an account that covers the price, keeps it.
//!
//! | what was sent | answer |
//! |---|---|
//! | a payment that is taken | `payment_accepted` with the price, then the call |
//! | one that nobody knows of whether it was taken | `-32043`, never an offer; the same again finds the one charge |
//! | one that was refused; one that others could read; one for another call or of another client | `payment_rejected`, nothing is taken |
//! | one for a price that the rail cannot charge | the offer that everybody gets |

use std::sync::Arc;
use std::time::Duration;

use super::Gate;
use super::charge::{Fate, Mandate, Opening};
use super::claim::Claim;
use super::door::Knock;
use super::resume::stored_response;
use super::settle::NOTICE_TIMEOUT;
use crate::error::Result;
use crate::ledger::{Entry, EntryState, NewEntry};
use crate::payment::{PaymentProcessor, Pmi, Quote, RequestEventId, Settlement};
use crate::transport::{Outbound, ReplyTo};
use crate::wire::mpp::Problem;
use crate::wire::{
    DirectPayment, ErrorObject, PaymentAcceptedParams, PaymentNotification, PaymentRejectedParams,
    Response, SERVER_ERROR_CODE, Tag,
};

/// How often one payment may be begun with. Another attempt follows only one that was given up before the rail was asked: each
/// is a process that died at that moment.
const ATTEMPTS: u32 = 8;

/// For how long a payment that is sent again is asked for again, under its one order: rails remember the keys of orders for a
/// day at least. What is older is only looked for.
const RENEWED_FOR: Duration = Duration::from_secs(23 * 3600);

/// Why a payment is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NotTaken {
    Exposed,
    Malformed,
    Declined,
    Elsewhere,
    Used,
    Late,
}

impl NotTaken {
    const fn text(self) -> &'static str {
        match self {
            Self::Exposed => {
                "it came unencrypted and was not taken; others could read it: revoke it, and send another one encrypted"
            }
            Self::Malformed => "it cannot be read; nothing was taken",
            Self::Declined => "it was declined; nothing was taken",
            Self::Elsewhere => {
                "it was sent before, with another call or by another client; it is not taken again"
            }
            Self::Used => "it was used, and its result is no longer kept; it is not taken again",
            Self::Late => {
                "this request was here before, and its payment was not taken then; send it with a new request"
            }
        }
    }
}

/// The payment method of `processor` for money that comes with the request, if it takes any.
pub(crate) fn direct_of(processor: &Arc<dyn PaymentProcessor>) -> Option<&Pmi> {
    processor.mandates()?.direct()
}

impl Gate {
    /// The first of `sent` whose method is supported (N-103), with who takes it.
    fn supported(
        &self,
        sent: Vec<DirectPayment>,
    ) -> Option<(DirectPayment, Arc<dyn PaymentProcessor>)> {
        sent.into_iter().find_map(|payment| {
            let mut processors = self.processors.iter();
            let taker = processors.find(|rail| direct_of(rail) == Some(&payment.pmi))?;
            Some((payment, Arc::clone(taker)))
        })
    }

    /// Serves `knock` by the payment that it brought. Gives it back with its `quote` if it brought none that could pay this.
    pub(super) async fn redeem(
        self: &Arc<Self>,
        mut knock: Box<Knock>,
        quote: Quote,
    ) -> Result<Option<(Box<Knock>, Quote)>> {
        let sent = std::mem::take(&mut knock.shown.direct);
        let Some((payment, rail)) = self.supported(sent) else {
            return Ok(Some((knock, quote)));
        };
        if !knock.origin.confidential {
            return self
                .reject(&knock, &payment, &quote, NotTaken::Exposed)
                .await;
        }
        let mandates = rail.mandates();
        if mandates.and_then(|m| m.terms(&quote.amount)).is_none() {
            tracing::debug!(
                request_event_id = %knock.origin.event, pmi = %payment.pmi, amount = quote.amount.value(),
                unit = %quote.amount.unit(), "a direct payment cannot pay this price; it is left alone"
            );
            return Ok(Some((knock, quote)));
        }
        let Some(proof) = mandates.and_then(|m| m.read_direct(payment.reveal())) else {
            return self
                .reject(&knock, &payment, &quote, NotTaken::Malformed)
                .await;
        };
        let mandate = Mandate {
            proof,
            rail,
            // What somebody else sends again does not take what was refused, or given up, before.
            renewed_for: match knock.replayed {
                true => Duration::ZERO,
                false => RENEWED_FOR,
            },
        };
        for attempt in 0..ATTEMPTS {
            let id = payment.name(attempt);
            match self.ledger.get(&id).await? {
                Some(charge) if charge.state == EntryState::Abandoned => {}
                Some(charge) => {
                    let direct = (payment, quote);
                    return self.redeem_by(knock, direct, &mandate, charge).await;
                }
                None => {
                    return self
                        .begin_redeeming(knock, (payment, quote), &mandate, id)
                        .await;
                }
            }
        }
        self.reject(&knock, &payment, &quote, NotTaken::Elsewhere)
            .await
    }

    /// The payment is not on the books: writes down that it is about to be taken.
    async fn begin_redeeming(
        self: &Arc<Self>,
        knock: Box<Knock>,
        (payment, quote): (DirectPayment, Quote),
        mandate: &Mandate,
        id: RequestEventId,
    ) -> Result<Option<(Box<Knock>, Quote)>> {
        let event = knock.origin.event;
        if self.waiting.is_cancelled(&event) {
            return Ok(None);
        }
        if knock.known {
            // Whoever saw the request go by could send it again, at a time when its client wants it no more.
            if self.waiting.is_beside_another(&event) {
                // The other one takes it, and answers.
                return Ok(None);
            }
            return self.reject(&knock, &payment, &quote, NotTaken::Late).await;
        }
        if knock.charging {
            return self.answer_undecided(&knock, Problem::Unsettled).await;
        }
        if !self.pace.allows(
            knock.origin.client,
            self.settings.offers_per_minute,
            self.clock.now(),
        ) {
            self.refuse_at_capacity(&knock).await;
            return Ok(None);
        }
        let new = NewEntry {
            id,
            // What is charged is not kept: it is served now, or is an authorization.
            request: None,
            ..self.new_entry(&knock, quote.clone(), mandate.rail.pmi())
        };
        match self.open_charge(&knock, new).await? {
            Opening::Charge(charge) => {
                self.redeem_by(knock, (payment, quote), mandate, charge)
                    .await
            }
            Opening::Paid(entry) => {
                self.forward_claimed(knock, entry).await?;
                Ok(None)
            }
            Opening::Full => {
                self.refuse_at_capacity(&knock).await;
                Ok(None)
            }
            Opening::Busy => self.answer_undecided(&knock, Problem::Unsettled).await,
        }
    }

    /// The charge is on the books, from now or from before: takes it further, and serves `knock` if it is its own.
    async fn redeem_by(
        self: &Arc<Self>,
        knock: Box<Knock>,
        (payment, quote): (DirectPayment, Quote),
        mandate: &Mandate,
        charge: Entry,
    ) -> Result<Option<(Box<Knock>, Quote)>> {
        let own =
            charge.client == knock.origin.client && charge.identity == knock.invocation.identity;
        if !own {
            return self
                .reject(&knock, &payment, &quote, NotTaken::Elsewhere)
                .await;
        }
        match self.take_further(charge, mandate).await? {
            Fate::Paid(entry, settlement) => {
                self.serve_redeemed(knock, (payment, quote), *entry, settlement)
                    .await
            }
            Fate::Refused => {
                self.reject(&knock, &payment, &quote, NotTaken::Declined)
                    .await
            }
            Fate::OfAnother => {
                self.reject(&knock, &payment, &quote, NotTaken::Elsewhere)
                    .await
            }
            Fate::GivenUp | Fate::Unsettled => {
                self.answer_undecided(&knock, Problem::Unsettled).await
            }
        }
    }

    /// The money is there: what it paid for is executed, is being executed, or was.
    async fn serve_redeemed(
        self: &Arc<Self>,
        knock: Box<Knock>,
        (payment, quote): (DirectPayment, Quote),
        entry: Entry,
        settlement: Settlement,
    ) -> Result<Option<(Box<Knock>, Quote)>> {
        if entry.state == EntryState::Settled && knock.replayed {
            return self.refuse_replay(knock).await.map(|()| None);
        }
        let entry = match self.claim_paid(&knock, entry, settlement).await? {
            Claim::Made(entry) => {
                self.accepted_direct(&knock.origin.reply_to, &entry, &payment.pmi)
                    .await;
                self.forward_claimed(knock, entry).await?;
                return Ok(None);
            }
            Claim::TakenBack => return Ok(None),
            Claim::NotMade(entry) => entry,
        };
        match entry.state {
            // Another copy of this very request is a step ahead, and answers.
            EntryState::Claimed if entry.claimed_by == Some(knock.origin.event) => Ok(None),
            EntryState::Claimed | EntryState::Settled => {
                self.answer_undecided(&knock, Problem::InUse).await
            }
            EntryState::Delivered => match stored_response(&knock, &entry) {
                Some(response) => {
                    self.note_answered(&knock).await?;
                    let reply_to = &knock.origin.reply_to;
                    self.send(reply_to, Outbound::new(response)).await;
                    Ok(None)
                }
                None => self.reject(&knock, &payment, &quote, NotTaken::Used).await,
            },
            _ => self.answer_undecided(&knock, Problem::Unsettled).await,
        }
    }

    /// Says that the payment was taken, and for how much: a courtesy, as every `payment_accepted`.
    async fn accepted_direct(&self, reply_to: &ReplyTo, entry: &Entry, pmi: &Pmi) {
        let params = PaymentAcceptedParams::new(entry.amount.value(), pmi.clone());
        let accepted = PaymentNotification::Accepted(params);
        let told = tokio::time::timeout(NOTICE_TIMEOUT, self.tell(reply_to, &accepted));
        if told.await.is_err() {
            tracing::warn!(entry = %entry.id, "payment_accepted is taking long; serving the call without it");
        }
    }

    /// Says that nothing can be said yet, and nothing is to be paid.
    pub(super) async fn answer_undecided<T>(
        &self,
        knock: &Knock,
        problem: Problem,
    ) -> Result<Option<T>> {
        self.note_answered(knock).await?;
        let error = problem.to_error(None);
        let (id, reply_to) = (&knock.request.id, &knock.origin.reply_to);
        self.answer_gated(id, reply_to, &error, knock.negotiated)
            .await;
        Ok(None)
    }

    /// Says that the payment was not taken, and ends the request (N-105).
    async fn reject<T>(
        &self,
        knock: &Knock,
        payment: &DirectPayment,
        quote: &Quote,
        why: NotTaken,
    ) -> Result<Option<T>> {
        tracing::warn!(
            request_event_id = %knock.origin.event, client_pubkey = knock.origin.client.short(),
            capability = %knock.listed.capability, pmi = %payment.pmi, reason = ?why, "a direct payment was not taken"
        );
        self.note_answered(knock).await?;
        let text = format!("Direct payment: {}", why.text());
        let amount = Some(quote.amount.value());
        let rejected = PaymentRejectedParams::new(payment.pmi.clone(), amount, Some(text.clone()));
        let reply_to = &knock.origin.reply_to;
        self.tell(reply_to, &PaymentNotification::Rejected(rejected))
            .await;
        let error = ErrorObject::new(SERVER_ERROR_CODE, format!("Payment rejected: {text}"));
        let disclosed = knock.negotiated.disclose.map(Tag::payment_interaction);
        let response = Response::from_error(knock.request.id.clone(), &error);
        let outbound = Outbound::new(response).with_tags(disclosed.into_iter().collect());
        self.send(reply_to, outbound).await;
        Ok(None)
    }

    /// Nobody who sends this again later shall get what its author pays for meanwhile (D-12).
    async fn note_answered(&self, knock: &Knock) -> Result<()> {
        let now = self.clock.now();
        self.ledger
            .note_answered(&knock.origin.event, now)
            .await
            .map(drop)
    }
}
