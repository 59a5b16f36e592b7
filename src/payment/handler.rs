//! The contract of a rail on the client's side.

use std::fmt;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{Amount, PaymentRequest, Pmi, RailError, Timestamp, Unit};

/// Pays payment requests of one payment method.
///
/// It is asked only after the client's own checks and budget have agreed, and at most once for one payment request.
#[async_trait]
pub trait PaymentHandler: fmt::Debug + Send + Sync {
    /// The payment method.
    fn pmi(&self) -> &Pmi;

    /// The unit that the amounts of this method count on the wire (CEP-8 leaves it to the method). Sats unless said
    /// otherwise.
    fn unit(&self) -> Unit {
        Unit::SATS
    }

    /// What `request` says by itself, read from its `pay_req` without asking anybody. The client compares it with what the
    /// server says, and remembers the payment under its id.
    ///
    /// # Errors
    ///
    /// A [`RailError`] of kind [`Invalid`](super::RailErrorKind::Invalid): it cannot be read, and is not paid.
    fn examine(&self, request: &PaymentRequest) -> Result<Examined, RailError> {
        Ok(Examined::new(request.pay_req.as_str()))
    }

    /// Whether this handler would pay `request` at all: it decodes, and asks for what it says it asks for. No money moves.
    async fn can_handle(&self, request: &PaymentRequest) -> bool {
        let _ = request;
        true
    }

    /// Pays `request`, once.
    ///
    /// Dropping the future or cancelling the token does not undo a payment: the outcome is then
    /// [`PayOutcome::Unknown`], and the budget stays reserved.
    ///
    /// # Errors
    ///
    /// A [`RailError`]; one of kind [`Unknown`](super::RailErrorKind::Unknown) counts as [`PayOutcome::Unknown`], every
    /// other as refused.
    async fn handle(
        &self,
        request: &PaymentRequest,
        cancel: &CancellationToken,
    ) -> Result<PayOutcome, RailError>;

    /// Which wallet pays: the same text for the same books, another for others, and no secret in it. It is kept with each
    /// payment, so that no other wallet is believed that a payment was never made.
    ///
    /// `None`, unless said otherwise: there is only one that could be meant.
    fn wallet(&self) -> Option<String> {
        None
    }

    /// Asks the wallet what became of an attempt to pay `request`, now. May be asked at any time and any number of times,
    /// also after a restart; no money moves. A wallet that cannot say leaves it [`PayOutcome::Unknown`].
    ///
    /// [`PayOutcome::Refused`] only if it can no longer happen: the wallet never took it and the payment request has
    /// expired, or the wallet says that it failed for good.
    ///
    /// # Errors
    ///
    /// A [`RailError`], which the client reads as [`PayOutcome::Unknown`].
    async fn lookup_payment(&self, request: &PaymentRequest) -> Result<PayOutcome, RailError> {
        let _ = request;
        Ok(PayOutcome::Unknown)
    }
}

/// What a payment request says by itself.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Examined {
    /// What is the same in all forms of one payment, and in no other: a payment hash, a session id.
    pub payment_id: String,
    /// How much it asks for, if it says so, in the unit of the handler. What is no whole number of them cannot be read.
    pub amount: Option<Amount>,
    /// When it can no longer be paid, if it says so.
    pub expires_at: Option<Timestamp>,
    /// What is bought, in the seller's words, if it says so.
    pub description: Option<String>,
}

impl Examined {
    /// A payment request that says nothing but which one it is.
    pub fn new(payment_id: impl Into<String>) -> Self {
        Self {
            payment_id: payment_id.into(),
            amount: None,
            expires_at: None,
            description: None,
        }
    }
}

impl fmt::Debug for Examined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Examined")
            .field("amount", &self.amount)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// What came of an attempt to pay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PayOutcome {
    /// The money is gone, for this.
    Paid(PaymentProof),
    /// No money moved, and none will.
    Refused,
    /// Nobody knows: the answer was lost. Must be looked up before anything else is paid for the same call.
    Unknown,
}

/// What the payer holds as proof: a preimage, a reference. Shown to nobody by default.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct PaymentProof(String);

impl PaymentProof {
    /// From its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for a receipt.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PaymentProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PaymentProof(hidden)")
    }
}

/// Object safety is part of the contract: handlers are looked up by PMI at run time.
const _: fn(&dyn PaymentHandler) = |_| {};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_not_printed() {
        assert!(!format!("{:?}", PaymentProof::new("preimage")).contains("preimage"));
    }
}
