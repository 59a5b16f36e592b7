//! Receipts: one self-contained file per payment, with everything that both sides signed about it.
//!
//! A receipt is made from a row of the books, again whenever something is added to it. Losing one loses nothing that the
//! books do not have.

mod folder;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use folder::ReceiptFolder;

use super::ledger::{AnswerState, Attempt, AttemptId, AttemptState};
use crate::payment::{Amount, InvocationIdentity, Pmi, RequestEventId, ServerPubkey, Timestamp};

/// The version of the format.
const VERSION: u32 = 1;

/// What one payment was for, and what proves it.
///
/// The signed events are as they were sent and received, so that anybody can verify them; see `docs/buying.md`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Receipt {
    /// The version of the format.
    pub tollkeeper_receipt: u32,
    /// The number of the payment in the books.
    pub payment: AttemptId,
    /// Who was paid.
    pub server: ServerPubkey,
    /// For what, in CEP-8's notation.
    pub capability: String,
    /// The canonical identity of the call.
    pub identity: InvocationIdentity,
    /// The event of the request that was paid for.
    pub request_event: RequestEventId,
    /// The event of the last request for the same call after the payment, if there was one (explicit gating).
    pub retry_event: Option<RequestEventId>,
    /// How much.
    pub amount: u64,
    /// Of what.
    pub unit: String,
    /// The payment method.
    pub pmi: Pmi,
    /// The payment hash, or what else names the payment.
    pub payment_id: String,
    /// When it was written down.
    pub reserved_at_ms: Timestamp,
    /// When it was known to be paid.
    pub paid_at_ms: Option<Timestamp>,
    /// What came back.
    pub answer: AnswerState,
    /// How the payment is known.
    pub note: String,
    /// The request, signed by the buyer.
    pub request: Option<Box<RawValue>>,
    /// The last request for the same call after the payment, signed by the buyer.
    pub retry: Option<Box<RawValue>>,
    /// The demand for payment, signed by the server.
    pub demand: Option<Box<RawValue>>,
    /// The server's word that the money is there, signed by it.
    pub acceptance: Option<Box<RawValue>>,
    /// The answer, signed by the server.
    pub response: Option<Box<RawValue>>,
    /// The proof of payment: a preimage, a reference. A secret.
    pub proof: Option<String>,
    /// What was left out of this copy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redacted: Vec<String>,
}

impl Receipt {
    /// The receipt of an attempt; `None` if nothing was paid, as far as is known.
    #[must_use]
    pub fn of(attempt: &Attempt) -> Option<Self> {
        if attempt.state != AttemptState::Paid {
            return None;
        }
        let event = |text: &str| RawValue::from_string(text.to_owned()).ok();
        let new = &attempt.new;
        Some(Self {
            tollkeeper_receipt: VERSION,
            payment: attempt.id,
            server: new.server,
            capability: new.capability.clone(),
            identity: new.identity,
            request_event: new.event,
            retry_event: attempt.retry.as_ref().map(|(event, _)| *event),
            amount: new.payment.amount.value(),
            unit: new.payment.amount.unit().to_string(),
            pmi: new.payment.pmi.clone(),
            payment_id: new.payment.reference.clone(),
            reserved_at_ms: new.at,
            paid_at_ms: attempt.decided_at,
            answer: attempt.answer,
            note: attempt.note.clone(),
            request: event(&new.request),
            retry: attempt.retry.as_ref().and_then(|(_, it)| event(it)),
            demand: event(&new.demand),
            acceptance: attempt.acceptance.as_deref().and_then(event),
            response: attempt.response.as_deref().and_then(event),
            proof: attempt
                .proof
                .as_ref()
                .map(|proof| proof.reveal().to_owned()),
            redacted: Vec::new(),
        })
    }

    /// A copy to hand out: without the proof, and without what was asked and answered, unless wanted.
    #[must_use]
    pub fn redacted(mut self, with_proof: bool, with_contents: bool) -> Self {
        if !with_proof && self.proof.take().is_some() {
            self.redacted.push("proof".to_owned());
        }
        if !with_contents {
            for (name, event) in [
                ("request", &mut self.request),
                ("retry", &mut self.retry),
                ("response", &mut self.response),
            ] {
                if event.take().is_some() {
                    self.redacted.push(name.to_owned());
                }
            }
        }
        self
    }

    /// How much.
    #[must_use]
    pub fn price(&self) -> Option<Amount> {
        Amount::new(self.amount, self.unit.parse().ok()?).ok()
    }

    /// The name of its file, without the extension: when it was written down, and its number in the books.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}", self.reserved_at_ms.as_millis(), self.payment)
    }
}
