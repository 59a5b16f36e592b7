//! Watches every payment request that could still be paid, whatever happened to the request it was made for.
//!
//! A task for each rail. Pushes come first; behind them the rail is asked for its settlements together, and behind that
//! single payments are looked up, at a rate that does not grow with their number. Nothing here decides anything: what is
//! learned goes to [`settle`](super::settle), and a payment leaves the watch only when its fate is in the ledger.

mod ask;
mod listing;
mod pace;
mod rail;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(super) use self::ask::look_up;
use self::rail::RailWatch;
use super::GateParts;
use super::demand::offer_ends;
use crate::ledger::{Entry, EntryState};
use crate::payment::{Amount, PaymentProcessor, Pmi, RequestEventId, Settlement, Timestamp};

/// How many commands and events may wait. Senders wait when it is full; nothing is dropped.
const QUEUE: usize = 1024;

/// What the watch has learned.
#[derive(Debug)]
pub(super) enum Watched {
    /// A rail says that it was paid.
    Settled {
        id: RequestEventId,
        /// What the payment request asked for.
        asked: Amount,
        settlement: Settlement,
    },
    /// The offer has ended, the grace for the waiting request included.
    OfferEnded(RequestEventId),
    /// A rail says that the money is on its way, until then at the latest.
    UnderWay {
        id: RequestEventId,
        until: Timestamp,
    },
}

/// The gate's end of the watch.
#[derive(Debug)]
pub(super) struct Watcher {
    rails: Vec<(Pmi, mpsc::Sender<Command>)>,
    /// Payments of rails that are not configured any more.
    former_rails: mpsc::Sender<Command>,
}

#[derive(Debug)]
enum Command {
    Watch(Box<Payment>),
    Forget(RequestEventId),
}

/// What must be at hand for each of perhaps a hundred thousand. The rest is in the ledger.
#[derive(Debug)]
struct Payment {
    id: RequestEventId,
    reference: String,
    asked: Amount,
    /// When the offer ends; `None` once that has been reported.
    offer_ends: Option<Timestamp>,
    made_at: Timestamp,
    watch_until: Timestamp,
    /// When it is looked up first, if not by its age.
    first_lookup: Option<Duration>,
    /// When it is looked up next. What else stands in the queue for it is outdated.
    next_lookup: Instant,
}

impl Watcher {
    /// Watches the payment of `entry` from now on. Returns when it is watched for sure.
    pub(super) async fn watch(&self, entry: &Entry) {
        self.watch_after(entry, None).await;
    }

    /// As [`watch`](Self::watch), with the first look-up after `first_lookup` instead of by age.
    pub(super) async fn watch_after(&self, entry: &Entry, first_lookup: Option<Duration>) {
        let (Some(made), Some(watch_until)) = (&entry.payment_request, entry.watch_until) else {
            return;
        };
        let payment = Payment {
            id: entry.id,
            reference: made.reference.clone(),
            asked: made.amount.clone(),
            offer_ends: (entry.state == EntryState::Issued).then(|| offer_ends(entry)),
            made_at: entry.quoted_at,
            watch_until,
            first_lookup,
            next_lookup: Instant::now(),
        };
        // The task ends only when the gate closes, and then recovery takes over.
        let command = Command::Watch(Box::new(payment));
        let _ = self.rail(&made.pmi).send(command).await;
    }

    /// Ends the watch of the payment of `entry`: the money is on the books.
    pub(super) async fn forget(&self, entry: &Entry) {
        let _ = self.rail(&entry.pmi).send(Command::Forget(entry.id)).await;
    }

    fn rail(&self, pmi: &Pmi) -> &mpsc::Sender<Command> {
        self.rails
            .iter()
            .find(|(of, _)| of == pmi)
            .map_or(&self.former_rails, |(_, commands)| commands)
    }
}

/// Starts the watch.
pub(super) fn start(
    parts: &GateParts,
    tasks: &TaskTracker,
    closing: &CancellationToken,
) -> (Watcher, mpsc::Receiver<Watched>) {
    let (learned, events) = mpsc::channel(QUEUE);
    let limits = (
        parts.settings.settlement_grace,
        parts.settings.processor_timeout,
    );
    let start = |processor: Option<&Arc<dyn PaymentProcessor>>| {
        let (commands, queue) = mpsc::channel(QUEUE);
        let notices = processor.and_then(|processor| processor.settlements());
        let watch = RailWatch::new(
            processor.cloned(),
            Arc::clone(&parts.ledger),
            Arc::clone(&parts.clock),
            limits,
            learned.clone(),
        );
        tasks.spawn(watch.run(queue, notices, closing.clone()));
        commands
    };
    let rails = parts
        .processors
        .iter()
        .map(|processor| (processor.pmi().clone(), start(Some(processor))))
        .collect();
    let watcher = Watcher {
        rails,
        former_rails: start(None),
    };
    (watcher, events)
}
