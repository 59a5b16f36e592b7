//! Is this demand one that could be paid? Pure: no money, no time, no wallet.

use std::sync::Arc;

use super::event::DeclineReason;
use crate::payment::{Amount, PayReq, PaymentHandler, PaymentRequest};
use crate::wire::PaymentRequiredParams;

/// The payment request of a demand, and the wallet that it is for. Its reference is the id of the payment.
///
/// A `pay_req` is never read under another payment method than its own (N-59), and never paid if it asks for something
/// else than the server says (N-130).
pub(super) fn check(
    handlers: &[Arc<dyn PaymentHandler>],
    params: Option<PaymentRequiredParams>,
) -> Result<(PaymentRequest, Arc<dyn PaymentHandler>), DeclineReason> {
    let params = params.ok_or(DeclineReason::Malformed)?;
    let handler = handlers
        .iter()
        .find(|handler| *handler.pmi() == params.pmi)
        .ok_or_else(|| DeclineReason::NoHandler(params.pmi.clone()))?;
    if params.pay_req.as_str().is_empty() || params.amount == 0 {
        return Err(DeclineReason::Malformed);
    }
    let said = Amount::new(params.amount, handler.unit()).map_err(|_| DeclineReason::Malformed)?;
    let pay_req = PayReq::new(params.pay_req.as_str());
    let mut request = PaymentRequest::new(params.pmi, said.clone(), pay_req, "");
    let examined = handler
        .examine(&request)
        .map_err(|error| DeclineReason::Invalid {
            why: error.to_string(),
        })?;
    if let Some(asked) = examined.amount.filter(|asked| *asked != said) {
        return Err(DeclineReason::AmountDiffers { said, asked });
    }
    if examined.payment_id.is_empty() {
        return Err(DeclineReason::NotHandled);
    }
    request.reference = examined.payment_id;
    request.expires_at = examined.expires_at;
    Ok((request, Arc::clone(handler)))
}
