//! The client's side: agrees to pay, and pays nothing.

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::processor::fake_pmi;
use crate::payment::{PayOutcome, PaymentHandler, PaymentProof, PaymentRequest, Pmi, RailError};

/// Says that it paid every payment request of the fake rail. No money moves.
#[derive(Debug)]
pub struct FakeHandler {
    pmi: Pmi,
}

impl FakeHandler {
    /// A handler.
    #[must_use]
    pub fn new() -> Self {
        Self { pmi: fake_pmi() }
    }
}

impl Default for FakeHandler {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl PaymentHandler for FakeHandler {
    fn pmi(&self) -> &Pmi {
        &self.pmi
    }

    async fn can_handle(&self, request: &PaymentRequest) -> bool {
        request.pay_req.as_str().starts_with("fake:")
    }

    async fn handle(
        &self,
        request: &PaymentRequest,
        _cancel: &CancellationToken,
    ) -> Result<PayOutcome, RailError> {
        Ok(PayOutcome::Paid(PaymentProof::new(
            request.pay_req.as_str(),
        )))
    }

    /// What is asked for on this rail settles by itself, whatever became of the payer.
    async fn lookup_payment(&self, request: &PaymentRequest) -> Result<PayOutcome, RailError> {
        Ok(PayOutcome::Paid(PaymentProof::new(
            request.pay_req.as_str(),
        )))
    }
}
