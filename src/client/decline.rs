//! Ends a call that is not paid for: the caller gets an error that says so, and nothing goes to the server (N-75).

use serde_json::json;

use super::calls::Payment;
use super::channel::Shared;
use super::event::DeclineReason;
use super::intercept::finish;
use crate::payment::RequestEventId;
use crate::wire::{ErrorObject, Response, SERVER_ERROR_CODE};

/// This client will not pay.
pub(super) async fn declined(shared: &Shared, event: &RequestEventId, reason: &DeclineReason) {
    fail(shared, event, &format!("Payment declined: {reason}")).await;
}

/// The server rejected the call.
pub(super) async fn rejected(shared: &Shared, event: &RequestEventId, message: Option<&str>) {
    let text = message.map_or_else(
        || "Payment rejected".to_owned(),
        |message| format!("Payment rejected: {message}"),
    );
    fail(shared, event, &text).await;
}

async fn fail(shared: &Shared, event: &RequestEventId, text: &str) {
    let Some(call) = shared.calls.end(event) else {
        return;
    };
    let spent = match &*call.payment.borrow() {
        Payment::Paid(amount) => {
            json!({"spent": {"amount": amount.value(), "unit": amount.unit()}})
        }
        Payment::Paying(amount) | Payment::Unknown(amount) => {
            json!({"unknown": {"amount": amount.value(), "unit": amount.unit()}})
        }
        Payment::None | Payment::Checking => json!({"spent": {"amount": 0, "unit": "sats"}}),
    };
    let mut data = json!({"method": call.method});
    if let (Some(data), Some(spent)) = (data.as_object_mut(), spent.as_object()) {
        data.extend(spent.clone());
    }
    let error = ErrorObject::new(SERVER_ERROR_CODE, text).with_data(&data);
    let response = Response::from_error(call.id.clone(), &error);
    finish(shared, call, response).await;
}
