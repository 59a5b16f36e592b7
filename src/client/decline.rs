//! Ends a call that is not paid for: the caller gets an error that says so, and nothing goes to the server (N-75).

use std::sync::Arc;

use serde_json::{Value, json};

use super::answer;
use super::calls::CallId;
use super::channel::Shared;
use super::event::DeclineReason;
use super::ledger::AnswerState;
use crate::wire::{ErrorObject, Response, SERVER_ERROR_CODE};

/// This client will not pay.
pub(super) async fn declined(shared: &Arc<Shared>, id: CallId, reason: &DeclineReason) {
    let text = format!("Payment declined: {reason}");
    fail(shared, id, &text, Some(reason.rule()), None).await;
}

/// The server rejected the call.
pub(super) async fn rejected(
    shared: &Arc<Shared>,
    id: CallId,
    message: Option<&str>,
    signed: String,
) {
    let text = message.map_or_else(
        || "Payment rejected".to_owned(),
        |message| format!("Payment rejected: {message}"),
    );
    fail(shared, id, &text, None, Some(signed)).await;
}

/// The call cannot go on, for a reason that is nobody's decision.
pub(super) async fn failed(shared: &Arc<Shared>, id: CallId, text: &str) {
    fail(shared, id, text, None, None).await;
}

async fn fail(
    shared: &Arc<Shared>,
    id: CallId,
    text: &str,
    rule: Option<&str>,
    signed: Option<String>,
) {
    let Some(call) = shared.calls.end(id) else {
        return;
    };
    let payment = call.payment.borrow().clone();
    let mut data = json!({"method": call.request.method});
    if let Some(rule) = rule {
        data["rule"] = rule.into();
    }
    if let Value::Object(data) = &mut data {
        if payment.cost_something() {
            data.extend(answer::cost(&payment));
        } else {
            data.insert("spent".to_owned(), json!({"amount": 0, "unit": "sats"}));
        }
    }
    let error = ErrorObject::new(SERVER_ERROR_CODE, text).with_data(&data);
    let response = Response::from_error(call.id().clone(), &error);
    // A rejection is an answer; this client's own decision is none.
    let ended = match signed {
        Some(_) => AnswerState::Error,
        None => AnswerState::Missing,
    };
    answer::finish_as(shared, call, response, ended, signed).await;
}
