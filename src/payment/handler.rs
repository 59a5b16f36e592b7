//! The contract of a rail on the client's side.

use std::fmt;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{PaymentRequest, Pmi, RailError, Unit};

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
