//! The end of a call: its answer is handed to whoever waits, and what was paid for is written down.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::call::Answer;
use super::calls::{Call, Payment, Sink};
use super::channel::Shared;
use super::ledger::{AnswerState, AttemptId, Heard};
use crate::payment::{Amount, InvocationIdentity};
use crate::wire::{ErrorObject, PAYMENT_PENDING_CODE, PAYMENT_REQUIRED_CODE, Payload, Response};

/// Hands the answer of an ended call to whoever waits for it. `signed` is the server's own message; without one
/// there is no answer, whatever is said in its place, and what was paid for is still owed.
///
/// What was paid for is written down once it is handed over, in a task of its own: a process that dies in between asks the
/// server for the same answer again rather than pay again. [`close`](crate::transport::MessageChannel::close) waits for it.
pub(super) async fn finish(
    shared: &Arc<Shared>,
    call: Call,
    response: Response,
    signed: Option<String>,
) {
    let payment_error =
        |error: ErrorObject| matches!(error.code, PAYMENT_REQUIRED_CODE | PAYMENT_PENDING_CODE);
    let answer = match &response.payload {
        _ if signed.is_none() => AnswerState::Missing,
        Payload::Result(_) => AnswerState::Result,
        // "Pay" and "wait" answer nothing: what was paid is still owed.
        Payload::Error(_) if response.error().is_some_and(payment_error) => AnswerState::Missing,
        Payload::Error(_) => AnswerState::Error,
    };
    finish_as(shared, call, response, answer, signed).await;
}

/// The same, for an end that is neither the server's result nor its error.
pub(super) async fn finish_as(
    shared: &Arc<Shared>,
    call: Call,
    response: Response,
    answer: AnswerState,
    signed: Option<String>,
) {
    if call.attempts.is_empty() {
        make_up(shared, &call, answer);
        deliver(shared, call, response).await;
        return;
    }
    let told = Told {
        attempts: call.attempts.clone(),
        identity: call.identity,
    };
    let writing = Arc::clone(shared);
    // Counted before the answer is handed over, so that whoever has it and closes waits for it to be written down.
    let token = shared.payments.writing.token();
    deliver(shared, call, response).await;
    tokio::spawn(async move {
        writing.told().await;
        note(&writing, &told.attempts, Heard::Ended(answer, signed)).await;
        remember_unserved(&writing, told.identity, answer);
        writing.noted.notify_waiters();
        drop(token);
    });
}

/// How long whoever was handed an answer has to show it to somebody before it counts as told.
const TELLING: Duration = Duration::from_millis(100);

impl Shared {
    /// Waits until an answer that was just handed over was likely told, the client closes, or somebody needs to know that
    /// the call has ended.
    async fn told(&self) {
        tokio::select! {
            () = tokio::time::sleep(TELLING) => {}
            () = self.closing.cancelled() => {}
            () = self.asked.notified() => {}
        }
    }
}

/// What of a call is still needed once it was answered.
struct Told {
    attempts: Vec<AttemptId>,
    identity: Option<InvocationIdentity>,
}

/// A result for a call that was paid for earlier: the server has come round.
fn make_up(shared: &Arc<Shared>, call: &Call, answer: AnswerState) {
    let Some(identity) = call.identity else {
        return;
    };
    if answer != AnswerState::Result || !shared.is_unserved(Some(identity)) {
        return;
    }
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let server = shared.transport.server();
        let ledger = &shared.payments.ledger;
        match ledger.make_up(&server, Some(identity), answer).await {
            Ok(_) => {
                let mut unserved = shared
                    .unserved
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                unserved.remove(&identity);
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "not written down")
            }
        }
    });
}

fn remember_unserved(shared: &Shared, identity: Option<InvocationIdentity>, answer: AnswerState) {
    /// More than this is not remembered; the books know better, and it is a kindness to the server.
    const MOST: usize = 10_000;
    let Some(identity) = identity else {
        return;
    };
    let mut unserved = shared
        .unserved
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if answer == AnswerState::Result {
        unserved.remove(&identity);
    } else if unserved.len() < MOST {
        unserved.insert(identity);
    }
}

/// Writes down what was heard of a call, for each of its payments.
async fn note(shared: &Shared, attempts: &[AttemptId], heard: Heard) {
    for attempt in attempts {
        if let Err(error) = shared.payments.ledger.note(*attempt, heard.clone()).await {
            // The money is on the books; what is lost is a part of the receipt.
            tracing::error!(%attempt, error = &error as &dyn std::error::Error, "an answer was not written down");
        }
        shared.payments.keep_receipt(*attempt);
    }
}

/// The call ended here without an answer.
pub(super) async fn note_missing(shared: &Arc<Shared>, call: Option<Call>) {
    if let Some(call) = call.filter(|call| !call.attempts.is_empty()) {
        let heard = Heard::Ended(AnswerState::Missing, None);
        note(shared, &call.attempts, heard).await;
        remember_unserved(shared, call.identity, AnswerState::Missing);
    }
}

/// The same, from where nothing can be awaited. What is not written any more counts as interrupted at the next start.
pub(super) fn missing(shared: &Arc<Shared>, call: Option<Call>) {
    if call.as_ref().is_some_and(|call| !call.attempts.is_empty())
        && let Ok(runtime) = tokio::runtime::Handle::try_current()
    {
        let (shared, token) = (Arc::clone(shared), shared.payments.writing.token());
        runtime.spawn(async move {
            note_missing(&shared, call).await;
            drop(token);
        });
    }
}

/// Every open call ends here without an answer, because its client does. That is not for the server to answer for.
pub(super) fn all_interrupted(shared: &Arc<Shared>) {
    // Counted before the calls are taken, so that whoever closes and finds none waits for those that were taken here.
    let token = shared.payments.writing.token();
    let calls = shared.calls.end_all();
    let attempts: Vec<AttemptId> = calls.into_iter().flat_map(|call| call.attempts).collect();
    if attempts.is_empty() {
        return;
    }
    // Without a runtime the process is at its end, which says the same.
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let shared = Arc::clone(shared);
        runtime.spawn(async move {
            let heard = Heard::Ended(AnswerState::Interrupted, None);
            note(&shared, &attempts, heard).await;
            drop(token);
        });
    }
}

async fn deliver(shared: &Shared, call: Call, response: Response) {
    match call.sink {
        Sink::Channel => {
            let payment = call.payment.borrow().clone();
            let response = with_cost(response, &payment);
            let _ = shared.to_caller.send(response.into()).await;
        }
        Sink::Waiter(waiter) => {
            let _ = waiter.send(Answer {
                response,
                payment: call.payment.subscribe(),
            });
        }
    }
}

/// What a call has cost, as `error.data` says it.
pub(super) fn cost(payment: &Payment) -> Map<String, Value> {
    let money = |amount: &Amount| json!({"amount": amount.value(), "unit": amount.unit()});
    let mut cost = Map::new();
    if let Some(paid) = &payment.paid {
        cost.insert("spent".to_owned(), money(paid));
    }
    if let Some(open) = &payment.open {
        cost.insert("unknown".to_owned(), money(open));
    }
    cost
}

/// The server's error, with what the call has cost: hosts show a model the message and drop the rest.
fn with_cost(response: Response, payment: &Payment) -> Response {
    let Some(mut error) = response.error().filter(|_| payment.cost_something()) else {
        return response;
    };
    let data: Option<Value> = error
        .data
        .as_ref()
        .and_then(|data| serde_json::from_str(data.get()).ok());
    let mut data = match data {
        Some(Value::Object(data)) => data,
        Some(other) => Map::from_iter([("data".to_owned(), other)]),
        None => Map::new(),
    };
    // What was spent is not for the server to say.
    data.remove("spent");
    data.remove("unknown");
    data.extend(cost(payment));
    if let Some(words) = cost_in_words(payment) {
        error.message = format!("{} ({words})", error.message);
    }
    let error = ErrorObject::new(error.code, error.message).with_data(&data);
    Response::from_error(response.id, &error)
}

/// What a call has cost, as a model reads it.
pub(super) fn cost_in_words(payment: &Payment) -> Option<String> {
    match (&payment.paid, &payment.open) {
        (Some(paid), None) => Some(format!("{paid} were paid for this call")),
        (Some(paid), Some(open)) => Some(format!(
            "{paid} were paid for this call, and nobody knows yet whether {open} more were"
        )),
        (None, Some(open)) => Some(format!(
            "nobody knows yet whether {open} were paid for this call; do not repeat it until that is known"
        )),
        (None, None) => None,
    }
}
