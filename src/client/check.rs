//! Is this demand one that could be paid? Pure: no money, no time, no wallet.

use std::sync::Arc;

use super::event::DeclineReason;
use crate::payment::{Amount, PayReq, PaymentHandler, PaymentRequest};
use crate::wire::PaymentRequiredParams;

/// The payment request of a demand, and the wallet that it is for.
///
/// A `pay_req` is never read under another payment method than its own (N-59).
pub(super) fn check(
    handlers: &[Arc<dyn PaymentHandler>],
    params: Option<PaymentRequiredParams>,
) -> Result<(PaymentRequest, Arc<dyn PaymentHandler>), DeclineReason> {
    let params = params.ok_or(DeclineReason::Malformed)?;
    let handler = handlers
        .iter()
        .find(|handler| *handler.pmi() == params.pmi)
        .ok_or_else(|| DeclineReason::NoHandler(params.pmi.clone()))?;
    if params.pay_req.as_str().is_empty() {
        return Err(DeclineReason::Malformed);
    }
    let amount =
        Amount::new(params.amount, handler.unit()).map_err(|_| DeclineReason::Malformed)?;
    let pay_req = PayReq::new(params.pay_req.as_str());
    Ok((
        PaymentRequest::new(params.pmi, amount, pay_req, ""),
        Arc::clone(handler),
    ))
}
