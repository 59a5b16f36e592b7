//! The wallet is asked: in a task of its own, that nothing drops half-way, and that writes down what it says.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::ClientPayments;
use super::budget::Reservation;
use super::channel::Shared;
use super::ledger::{AttemptId, AttemptState, Settled};
use crate::payment::{PayOutcome, PaymentHandler, PaymentRequest, RailErrorKind};

/// After this long without an answer the outcome is unknown. What the wallet says later still counts.
const LONGEST: Duration = Duration::from_secs(900);

/// Pays, once, and says what became of it. It is in the books by then.
pub(super) async fn pay(
    shared: &Arc<Shared>,
    handler: Arc<dyn PaymentHandler>,
    request: PaymentRequest,
    attempt: AttemptId,
    reservation: Reservation,
) -> AttemptState {
    let payments = shared.payments.clone();
    let closing = shared.closing.clone();
    let asking = tokio::spawn(async move {
        let end = ask(&handler, &request, &closing).await;
        // Whoever closes waits for what the wallet said to be written down, not for the wallet.
        let _writing = payments.writing.token();
        conclude(&payments, attempt, end, reservation).await
    });
    let unknown = |note: &'static str| async move {
        let end = Settled::new(AttemptState::Unknown, note);
        shared.payments.settle(attempt, end).await;
        AttemptState::Unknown
    };
    match tokio::time::timeout(LONGEST, asking).await {
        Ok(Ok(state)) => state,
        Ok(Err(_)) => unknown("the wallet's handler broke down").await,
        Err(_) => unknown("the wallet does not answer").await,
    }
}

async fn ask(
    handler: &Arc<dyn PaymentHandler>,
    request: &PaymentRequest,
    closing: &CancellationToken,
) -> Settled {
    match handler.handle(request, closing).await {
        Ok(PayOutcome::Paid(proof)) => {
            Settled::new(AttemptState::Paid, "the wallet said so").with_proof(proof)
        }
        Ok(PayOutcome::Refused) => Settled::new(AttemptState::Refused, "the wallet said no"),
        Ok(PayOutcome::Unknown) => {
            Settled::new(AttemptState::Unknown, "the wallet's answer was lost")
        }
        Err(error) if error.kind() == RailErrorKind::Unknown => {
            tracing::error!(pmi = %request.pmi, error = &error as &dyn std::error::Error, "the outcome of a payment is unknown");
            Settled::new(AttemptState::Unknown, "the wallet gave no usable answer")
        }
        Err(error) => {
            tracing::warn!(pmi = %request.pmi, error = &error as &dyn std::error::Error, "the wallet did not pay");
            Settled::new(AttemptState::Refused, "the wallet did not pay")
        }
    }
}

/// Books first, then the budget: what the books do not know is not given back.
async fn conclude(
    payments: &ClientPayments,
    attempt: AttemptId,
    end: Settled,
    reservation: Reservation,
) -> AttemptState {
    let state = end.state;
    let written = payments.settle(attempt, end).await;
    match state {
        AttemptState::Paid => reservation.spend(),
        AttemptState::Refused if written => reservation.give_back(),
        AttemptState::Refused | AttemptState::Reserved | AttemptState::Unknown => {
            payments.hold(attempt, reservation);
        }
    }
    state
}
