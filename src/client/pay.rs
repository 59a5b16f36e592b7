//! A demand for money: checked, budgeted, paid at most once, whatever the server sends (N-133).

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::calls::Payment;
use super::channel::Shared;
use super::check::check;
use super::decline;
use super::event::{DeclineReason, PaymentEvent};
use super::keep_alive;
use crate::payment::{
    InvocationIdentity, PayOutcome, PaymentHandler, PaymentInteraction, PaymentRequest,
    RailErrorKind, RequestEventId,
};
use crate::wire::PaymentRequiredParams;

/// How long a call is waited for once it is asked to pay and the server does not say how long its offer stands.
const DEFAULT_TTL: Duration = Duration::from_secs(300);

/// The server asks for money for the open call `event`. `None`: in a way that cannot be read.
///
/// The first demand closes the door: every further one for the same call, with whatever amount or `pay_req`, is ignored.
pub(super) async fn demanded(
    shared: &Arc<Shared>,
    event: RequestEventId,
    params: Option<PaymentRequiredParams>,
) {
    let open = shared.calls.with(&event, |call| {
        let first = call.payment.send_if_modified(|payment| {
            let first = *payment == Payment::None;
            if first {
                *payment = Payment::Checking;
            }
            first
        });
        let paying = Paying {
            event,
            identity: call.identity,
            ended: call.ended.clone(),
            payment: Arc::clone(&call.payment),
        };
        (first, paying)
    });
    let Some((true, paying)) = open else {
        tracing::debug!(request_event_id = %event, "ignored a further demand for the same call");
        return;
    };
    let shared = Arc::clone(shared);
    // The wallet may take minutes; other messages must not wait for it.
    tokio::spawn(async move {
        let ttl = params
            .as_ref()
            .and_then(|params| params.ttl)
            .map_or(DEFAULT_TTL, Duration::from_secs);
        if let Err(reason) = decide_and_pay(&shared, &paying, params, ttl).await {
            // No money moved. Until the call has ended that must not open it to another demand.
            paying.payment.send_replace(Payment::Checking);
            (shared.payments.observer)(&PaymentEvent::Declined {
                event,
                reason: reason.clone(),
            });
            decline::declined(&shared, &event, &reason).await;
            paying.payment.send_replace(Payment::None);
        }
    });
}

/// A call that is being paid for. It may end meanwhile; the payment does not.
struct Paying {
    event: RequestEventId,
    identity: Option<InvocationIdentity>,
    ended: CancellationToken,
    payment: Arc<watch::Sender<Payment>>,
}

async fn decide_and_pay(
    shared: &Arc<Shared>,
    paying: &Paying,
    params: Option<PaymentRequiredParams>,
    ttl: Duration,
) -> Result<(), DeclineReason> {
    let event = paying.event;
    let description = params
        .as_ref()
        .and_then(|params| params.description.clone());
    let (request, handler) = check(&shared.payments.handlers, params)?;
    (shared.payments.observer)(&PaymentEvent::Required {
        event,
        amount: request.amount.clone(),
        pmi: request.pmi.clone(),
        description,
    });
    if shared.payments.interaction == Some(PaymentInteraction::ExplicitGating) {
        return Err(DeclineReason::NotExplicit);
    }
    if shared.is_unresolved(paying.identity) {
        return Err(DeclineReason::EarlierUnknown);
    }
    let reservation = shared.payments.budget.reserve(&request.amount)?;
    if !handler.can_handle(&request).await {
        reservation.give_back();
        return Err(DeclineReason::NotHandled);
    }
    // Said before it is looked whether the call has ended: whoever ends it now either keeps it from being paid, or sees
    // that it may have been.
    paying
        .payment
        .send_replace(Payment::Paying(request.amount.clone()));
    if paying.ended.is_cancelled() {
        // Answered, cancelled or timed out meanwhile: there is nothing to pay for (N-76).
        reservation.give_back();
        paying.payment.send_replace(Payment::None);
        return Ok(());
    }
    let wait = ttl.min(shared.payments.longest_wait);
    extend(shared, &event, wait);
    keep_alive::start(shared, &event, wait);
    match pay(&handler, &request, &shared.closing).await {
        PayOutcome::Paid(_) => {
            reservation.spend();
            paying
                .payment
                .send_replace(Payment::Paid(request.amount.clone()));
            (shared.payments.observer)(&PaymentEvent::Paid {
                event,
                amount: request.amount,
            });
            Ok(())
        }
        PayOutcome::Refused => {
            reservation.give_back();
            Err(DeclineReason::Refused)
        }
        PayOutcome::Unknown => {
            reservation.hold();
            if let Some(identity) = paying.identity {
                shared
                    .unresolved
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(identity);
            }
            paying
                .payment
                .send_replace(Payment::Unknown(request.amount.clone()));
            (shared.payments.observer)(&PaymentEvent::Unknown {
                event,
                amount: request.amount,
            });
            Ok(())
        }
    }
}

/// Pays, once. The future is never dropped half-way: an outcome that nobody waits for is still an outcome.
async fn pay(
    handler: &Arc<dyn PaymentHandler>,
    request: &PaymentRequest,
    closing: &CancellationToken,
) -> PayOutcome {
    match handler.handle(request, closing).await {
        Ok(outcome) => outcome,
        Err(error) if error.kind() == RailErrorKind::Unknown => {
            tracing::error!(pmi = %request.pmi, error = &error as &dyn std::error::Error, "the outcome of a payment is unknown");
            PayOutcome::Unknown
        }
        Err(error) => {
            tracing::warn!(pmi = %request.pmi, error = &error as &dyn std::error::Error, "the wallet did not pay");
            PayOutcome::Refused
        }
    }
}

/// There is something to wait for now: at least as long as the offer stands.
fn extend(shared: &Shared, event: &RequestEventId, wait: Duration) {
    let until = Instant::now() + wait;
    shared.calls.with(event, |call| {
        call.deadline.send_if_modified(|deadline| match deadline {
            Some(at) if *at < until => {
                *at = until;
                true
            }
            _ => false,
        });
    });
}
