//! One call, waited for.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::calls::{CallId, Payment, Sink};
use super::channel::Shared;
use super::{PaidClient, answer};
use crate::error::Result;
use crate::payment::Amount;
use crate::wire::{ErrorObject, Notification, Request, RequestId, Response, method};

/// JSON-RPC error code that MCP clients use for a request that timed out.
const TIMED_OUT_CODE: i64 = -32001;

/// How long an answer waits for the wallet's word on what was paid for it.
const WALLET_WAIT: Duration = Duration::from_secs(30);

/// The answer to a call, with how its payment stood when it came.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) payment: watch::Receiver<Payment>,
}

/// What came of a call.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CallOutcome {
    /// The server's response, or an error of this client: declined (`-32000`), timed out (`-32001`).
    pub response: Response,
    /// What was paid for it, in this call.
    pub paid: Option<Amount>,
    /// What may have been paid for it: the wallet's answer was lost.
    pub unknown: Option<Amount>,
}

impl PaidClient {
    /// Sends `request` and waits for its answer, paying within the budget if asked to. Waits for `timeout`, and longer
    /// once a payment is made, because then there is something to wait for.
    ///
    /// After a time-out nothing is paid any more for this call, and the server is told that nobody waits.
    ///
    /// # Errors
    ///
    /// When the request could not be sent. What happens after that is in the outcome.
    pub async fn call(&self, request: Request, timeout: Duration) -> Result<CallOutcome> {
        let id = request.id.clone();
        let (waiter, answer) = oneshot::channel();
        let (deadline, mut until) = watch::channel(Some(Instant::now() + timeout));
        let call = self
            .shared
            .open_call(request, Sink::Waiter(waiter), deadline)
            .await?;
        let _ended = EndOnDrop {
            client: Arc::clone(&self.shared),
            call,
        };
        // Outlives the call, so that an end without an answer says what was spent, too.
        let payment = self
            .shared
            .calls
            .with(call, |call| call.payment.subscribe());
        let closed = || {
            let payment = payment.as_ref().map(|payment| payment.borrow().clone());
            let payment = payment.unwrap_or_default();
            outcome(
                failure(&id, -32000, "The client was closed", &payment),
                payment,
            )
        };
        tokio::pin!(answer);
        loop {
            let at = *until.borrow_and_update();
            let at = at.unwrap_or_else(|| Instant::now() + timeout);
            tokio::select! {
                biased;
                answer = &mut answer => return Ok(match answer {
                    Ok(answer) => outcome(answer.response, decided(answer.payment).await),
                    Err(_) => closed(),
                }),
                changed = until.changed() => if changed.is_err() {
                    // The call has ended; its answer is on its way to the channel, or lost.
                    let answer = (&mut answer).await;
                    return Ok(match answer {
                        Ok(answer) => outcome(answer.response, decided(answer.payment).await),
                        Err(_) => closed(),
                    });
                },
                () = sleep_until(at) => {
                    if until.has_changed().unwrap_or(false) {
                        continue;
                    }
                    return Ok(self.time_out(&id, call).await);
                }
            }
        }
    }

    async fn time_out(&self, id: &RequestId, call: CallId) -> CallOutcome {
        let ended = self.shared.calls.end(call);
        let payment = ended
            .as_ref()
            .map(|call| call.payment.borrow().clone())
            .unwrap_or_default();
        if payment.cost_something() {
            answer::note_missing(&self.shared, ended).await;
        } else if let Ok(cancelled) = Notification::new(
            method::CANCELLED,
            &json!({"requestId": id, "reason": "timed out"}),
        ) {
            let _ = self.shared.notify(cancelled).await;
        }
        let response = failure(id, TIMED_OUT_CODE, "Request timed out", &payment);
        outcome(response, payment)
    }
}

/// How the payment ended, as far as the wallet says so in time.
async fn decided(mut payment: watch::Receiver<Payment>) -> Payment {
    // Either it is decided, or the time is over, or whoever paid is gone: what stands then is what is known.
    let _ = tokio::time::timeout(WALLET_WAIT, payment.wait_for(Payment::is_decided)).await;
    payment.borrow().clone()
}

fn outcome(response: Response, payment: Payment) -> CallOutcome {
    CallOutcome {
        response,
        paid: payment.paid,
        unknown: payment.open,
    }
}

/// An error of this client, which says whether money was spent.
pub(super) fn failure(id: &RequestId, code: i64, message: &str, payment: &Payment) -> Response {
    let mut error = ErrorObject::new(code, message);
    if payment.cost_something() {
        error = error.with_data(&answer::cost(payment));
    }
    Response::from_error(id.clone(), &error)
}

/// A caller that stops waiting must not be paid for.
struct EndOnDrop {
    client: Arc<Shared>,
    call: CallId,
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        answer::missing(&self.client, self.client.calls.end(self.call));
    }
}
