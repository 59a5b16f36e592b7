//! Tells observers of payments, beside the calls: they are code that is not ours.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Gate;
use crate::ledger::Entry;
use crate::payment::{ObservedPayment, PaymentHappening, PaymentObserver};
use crate::wire::mpp::Challenge;

/// How many happenings may wait to be told. Beyond that they are missed: the ledger has them.
const QUEUE: usize = 4096;

type Happened = (PaymentHappening, ObservedPayment, &'static str);

/// The end of the line that happenings are left at; `None` if nobody listens.
#[derive(Debug)]
pub(super) struct Observers(Option<mpsc::Sender<Happened>>);

/// Starts telling `observers` until `closing`, and then tells the rest.
pub(super) fn start(
    observers: Vec<Arc<dyn PaymentObserver>>,
    tasks: &TaskTracker,
    closing: &CancellationToken,
) -> Observers {
    if observers.is_empty() {
        return Observers(None);
    }
    let (line, mut happened) = mpsc::channel(QUEUE);
    let closing = closing.clone();
    tasks.spawn(async move {
        while let Some(Some(next)) = closing.run_until_cancelled(happened.recv()).await {
            tell(&observers, &next);
        }
        while let Ok(next) = happened.try_recv() {
            tell(&observers, &next);
        }
    });
    Observers(Some(line))
}

fn tell(observers: &[Arc<dyn PaymentObserver>], (what, payment, reason): &Happened) {
    for observer in observers {
        let told = catch_unwind(AssertUnwindSafe(|| match what {
            PaymentHappening::Created => observer.challenge_created(payment),
            PaymentHappening::Succeeded => observer.payment_succeeded(payment),
            PaymentHappening::Failed => observer.payment_failed(payment, reason),
        }));
        if told.is_err() {
            tracing::error!(?observer, "an observer of payments panicked");
        }
    }
}

impl Gate {
    /// Tells what happened to the payment of `entry`.
    pub(super) fn observe(&self, what: PaymentHappening, entry: &Entry, reason: &'static str) {
        if self.observers.0.is_none() {
            return;
        }
        let mut payment = ObservedPayment::new(
            entry.capability.clone(),
            entry.client,
            entry.id,
            entry.pmi.clone(),
            entry.amount.clone(),
        );
        let settled = entry.settlement.as_ref();
        let made = entry.payment_request.as_ref();
        payment.reference = settled
            .map(|settlement| settlement.reference.clone())
            .or_else(|| made.map(|made| made.reference.clone()));
        self.leave((what, payment, reason));
    }

    /// Tells that the credential for `challenge` was not taken, if it is about a payment that is on the books.
    pub(super) async fn observe_refusal(&self, challenge: &Challenge, reason: &'static str) {
        if self.observers.0.is_none() {
            return;
        }
        if let Some(binding) = challenge.binding()
            && let Ok(Some(entry)) = self.ledger.get(&binding.entry).await
        {
            self.observe(PaymentHappening::Failed, &entry, reason);
        }
    }

    fn leave(&self, happened: Happened) {
        if let Some(line) = &self.observers.0
            && line.try_send(happened).is_err()
        {
            tracing::warn!("observers of payments lag behind, and miss one; the ledger has it");
        }
    }
}
