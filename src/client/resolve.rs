//! Unknown outcomes: the wallet is asked later what became of a payment, and no money moves.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::ClientPayments;
use super::channel::Shared;
use super::ledger::{Attempt, AttemptFilter, AttemptId, AttemptState, Settled};
use crate::error::Result;
use crate::payment::{PayOutcome, ServerPubkey};

/// How long a wallet has to say what became of one payment.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// What is noted where another wallet's books say nothing, or something without a proof.
const ANOTHER: &str = "another wallet was asked to pay, or it is not known which; what this one says of it does not count";

/// With the start of a client: what a former run left unknown, and which calls the server still owes.
pub(super) async fn at_start(shared: Arc<Shared>) {
    let payments = &shared.payments;
    if let Err(error) = payments.resolve_unknown().await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "payments of former runs were not looked up"
        );
        return;
    }
    let owed = AttemptFilter {
        server: Some(shared.transport.server()),
        unserved: true,
        ..AttemptFilter::default()
    };
    if let Ok(owed) = payments.ledger.list(&owed).await {
        shared
            .unserved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(owed.iter().map(|attempt| attempt.new.identity));
    }
}

impl ClientPayments {
    /// Asks the wallets what became of every payment whose outcome is unknown. Returns those payments as they are now
    /// known. No money moves.
    ///
    /// # Errors
    ///
    /// When the books cannot be read.
    pub async fn resolve_unknown(&self) -> Result<Vec<Attempt>> {
        let unknown = AttemptFilter::states(&[AttemptState::Unknown]);
        let mut resolved = Vec::new();
        for attempt in self.ledger.list(&unknown).await? {
            look_up(self, attempt.id).await;
            resolved.extend(self.ledger.list(&AttemptFilter::one(attempt.id)).await?);
        }
        Ok(resolved)
    }
}

/// Asks the wallet what became of the latest attempts to pay `server`, as far as there is time.
pub(super) async fn look_up_at(payments: &ClientPayments, server: ServerPubkey) {
    let mut unknown = AttemptFilter::states(&[AttemptState::Unknown]);
    unknown.server = Some(server);
    let Ok(unknown) = payments.ledger.list(&unknown).await else {
        return;
    };
    let until = Instant::now() + PATIENCE;
    for attempt in unknown.iter().rev() {
        if Instant::now() >= until {
            return;
        }
        look_up(payments, attempt.id).await;
    }
}

/// Asks the wallet what became of one attempt, and writes it down if it knows.
///
/// What is in no book of a wallet was never paid by that one. Only the wallet that was asked can say so; a proof of payment
/// is one from anybody.
pub(super) async fn look_up(payments: &ClientPayments, id: AttemptId) {
    let found = match payments.ledger.list(&AttemptFilter::one(id)).await {
        Ok(mut found) => found.pop(),
        Err(_) => None,
    };
    let Some(attempt) = found.filter(|attempt| attempt.state == AttemptState::Unknown) else {
        return;
    };
    let request = &attempt.new.payment;
    let Some(handler) = payments.handler_of(&request.pmi) else {
        return;
    };
    let is_the_one = handler.wallet() == attempt.new.wallet;
    let answer = tokio::time::timeout(PATIENCE, handler.lookup_payment(request)).await;
    let end = match answer {
        Ok(Ok(PayOutcome::Paid(proof))) if is_the_one || !proof.reveal().is_empty() => {
            Settled::new(
                AttemptState::Paid,
                "the wallet said so when it was asked later",
            )
            .with_proof(proof)
        }
        Ok(Ok(PayOutcome::Refused)) if is_the_one => Settled::new(
            AttemptState::Refused,
            "the wallet said later that it was never paid and never will be",
        ),
        Ok(Ok(PayOutcome::Paid(_) | PayOutcome::Refused)) if attempt.note != ANOTHER => {
            tracing::warn!(attempt = %id, "another wallet was asked to pay than the one that can be asked now");
            Settled::new(AttemptState::Unknown, ANOTHER)
        }
        Ok(Ok(_) | Err(_)) | Err(_) => return,
    };
    let state = end.state;
    if payments.settle(id, end).await {
        payments.release(id, state);
    }
}
