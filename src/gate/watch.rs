//! Watches every payment request that could still be paid, whatever happened to the request it was made for.
//!
//! One task for all rails. Pushes come first; behind them a schedule of look-ups, whose rate is limited, so that the cost
//! does not grow with the number of open payment requests. Nothing here decides anything: what is learned goes to
//! [`settle`](super::settle), and a payment leaves the watch only when its fate is in the ledger.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::GateParts;
use super::demand::offer_ends;
use super::resolve_price::guarded;
use crate::ledger::{Entry, EntryState, Ledger};
use crate::payment::{
    Amount, Clock, PaymentProcessor, PaymentRequest, Pmi, RequestEventId, Settlement,
    SettlementNotice, SettlementStatus, Timestamp,
};

/// How many commands, notices and events may wait. Senders wait when it is full; nothing is dropped.
const QUEUE: usize = 1024;

/// How many look-ups are under way at once.
const LOOKUPS_AT_ONCE: usize = 8;

/// At least this long between two look-ups: at most 20 a second, however many payments are watched.
const BETWEEN_LOOKUPS: Duration = Duration::from_millis(50);

/// How many notices are kept whose payment is not watched yet: a push may be faster than the ledger's answer.
const EARLY_NOTICES: usize = 1024;

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
}

/// The gate's end of the watch.
#[derive(Debug)]
pub(super) struct Watcher {
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
enum Command {
    Watch(Box<Payment>),
    Forget(RequestEventId),
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
            pmi: made.pmi.clone(),
            reference: made.reference.clone(),
            asked: made.amount.clone(),
            offer_ends: (entry.state == EntryState::Issued).then(|| offer_ends(entry)),
            made_at: entry.quoted_at,
            watch_until,
            first_lookup,
            next_lookup: Instant::now(),
        };
        // The task ends only when the gate closes, and then recovery takes over.
        let _ = self.commands.send(Command::Watch(Box::new(payment))).await;
    }

    /// Ends the watch: the money is on the books.
    pub(super) async fn forget(&self, id: RequestEventId) {
        let _ = self.commands.send(Command::Forget(id)).await;
    }
}

/// What must be at hand for each of perhaps a hundred thousand. The rest is in the ledger.
#[derive(Debug)]
struct Payment {
    id: RequestEventId,
    pmi: Pmi,
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

/// Starts the watch.
pub(super) fn start(
    parts: &GateParts,
    tasks: &TaskTracker,
    closing: &CancellationToken,
) -> (Watcher, mpsc::Receiver<Watched>) {
    let (commands, command_queue) = mpsc::channel(QUEUE);
    let (learned, events) = mpsc::channel(QUEUE);
    let (notices, notice_queue) = mpsc::channel(QUEUE);
    for processor in &parts.processors {
        if let Some(mut stream) = processor.settlements() {
            let (pmi, notices, closing) =
                (processor.pmi().clone(), notices.clone(), closing.clone());
            tasks.spawn(async move {
                while let Some(Some(notice)) = closing.run_until_cancelled(stream.recv()).await {
                    if notices.send((pmi.clone(), notice)).await.is_err() {
                        break;
                    }
                }
            });
        }
    }
    let watch = Watch {
        processors: parts.processors.clone(),
        ledger: Arc::clone(&parts.ledger),
        clock: Arc::clone(&parts.clock),
        settlement_grace: parts.settings.settlement_grace,
        lookup_timeout: parts.settings.processor_timeout,
        payments: HashMap::new(),
        by_reference: HashMap::new(),
        offers: BinaryHeap::new(),
        schedule: BinaryHeap::new(),
        early: VecDeque::new(),
        lookups: JoinSet::new(),
        next_lookup: Instant::now(),
        learned,
    };
    tasks.spawn(watch.run(command_queue, notice_queue, closing.clone()));
    (Watcher { commands }, events)
}

struct Watch {
    processors: Vec<Arc<dyn PaymentProcessor>>,
    ledger: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
    settlement_grace: Duration,
    lookup_timeout: Duration,
    payments: HashMap<RequestEventId, Payment>,
    by_reference: HashMap<(Pmi, String), RequestEventId>,
    /// When offers end.
    offers: BinaryHeap<Reverse<(Instant, RequestEventId)>>,
    /// When payments are looked up.
    schedule: BinaryHeap<Reverse<(Instant, RequestEventId)>>,
    early: VecDeque<(Pmi, SettlementNotice)>,
    lookups: JoinSet<(RequestEventId, SettlementStatus)>,
    next_lookup: Instant,
    learned: mpsc::Sender<Watched>,
}

impl Watch {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut notices: mpsc::Receiver<(Pmi, SettlementNotice)>,
        closing: CancellationToken,
    ) {
        loop {
            let (offer_ends, lookup) = (self.next_offer_end(), self.next_lookup());
            tokio::select! {
                () = closing.cancelled() => return,
                Some(command) = commands.recv() => self.obey(command).await,
                Some((pmi, notice)) = notices.recv() => self.notice(pmi, notice).await,
                Some(answer) = self.lookups.join_next() => {
                    if let Ok((id, status)) = answer {
                        self.answer(id, status).await;
                    }
                }
                () = sleep_until(offer_ends) => self.end_an_offer().await,
                () = sleep_until(lookup) => self.start_a_lookup(),
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Forget(id) => self.forget(id),
            // It is watched already, and its timers run.
            Command::Watch(payment) if self.payments.contains_key(&payment.id) => {}
            Command::Watch(payment) => {
                let id = payment.id;
                let reference = (payment.pmi.clone(), payment.reference.clone());
                let (now, wall) = (Instant::now(), self.clock.now());
                if let Some(ends) = payment.offer_ends {
                    let end = ends.plus(self.settlement_grace);
                    // Never longer than the offer was meant to stand, should the clock have been set back.
                    let left = end.since(wall).min(end.since(payment.made_at));
                    self.offers.push(Reverse((now + left, id)));
                }
                let after = payment.first_lookup;
                let first_lookup = now + after.unwrap_or_else(|| pace(payment.made_at, wall));
                self.by_reference.insert(reference.clone(), id);
                self.payments.insert(id, *payment);
                self.look_up_at(id, first_lookup);
                let early = self
                    .early
                    .iter()
                    .position(|(pmi, n)| *pmi == reference.0 && n.reference == reference.1);
                if let Some((pmi, notice)) = early.and_then(|at| self.early.remove(at)) {
                    self.notice(pmi, notice).await;
                }
            }
        }
    }

    fn forget(&mut self, id: RequestEventId) {
        if let Some(payment) = self.payments.remove(&id) {
            self.by_reference.remove(&(payment.pmi, payment.reference));
        }
    }

    async fn notice(&mut self, pmi: Pmi, notice: SettlementNotice) {
        let key = (pmi, notice.reference);
        let Some(id) = self.by_reference.get(&key).copied() else {
            if self.early.len() >= EARLY_NOTICES {
                // The look-ups find what is dropped here.
                self.early.pop_front();
            }
            self.early
                .push_back((key.0, SettlementNotice::new(key.1, notice.settlement)));
            return;
        };
        match notice.settlement {
            Some(settlement) => self.report_settled(id, settlement).await,
            None => self.look_up_at(id, Instant::now()),
        }
    }

    async fn answer(&mut self, id: RequestEventId, status: SettlementStatus) {
        let Some(payment) = self.payments.get(&id) else {
            return;
        };
        let wall = self.clock.now();
        match status {
            SettlementStatus::Settled(settlement) => {
                // Looked up again if the ledger could not take it; forgotten when it has.
                self.look_up_at(id, Instant::now() + Duration::from_secs(5));
                self.report_settled(id, settlement).await;
            }
            // Not even a clear no ends the watch before its time: wallets err, and money may still come.
            SettlementStatus::Pending
            | SettlementStatus::Expired
            | SettlementStatus::Failed
            | SettlementStatus::Unknown => {
                if wall > payment.watch_until {
                    self.forget(id);
                } else {
                    let again = Instant::now() + pace(payment.made_at, wall);
                    self.look_up_at(id, again);
                }
            }
        }
    }

    async fn report_settled(&self, id: RequestEventId, settlement: Settlement) {
        if let Some(payment) = self.payments.get(&id) {
            let asked = payment.asked.clone();
            self.report(Watched::Settled {
                id,
                asked,
                settlement,
            })
            .await;
        }
    }

    async fn report(&self, watched: Watched) {
        let _ = self.learned.send(watched).await;
    }

    fn look_up_at(&mut self, id: RequestEventId, at: Instant) {
        if let Some(payment) = self.payments.get_mut(&id) {
            payment.next_lookup = at;
            self.schedule.push(Reverse((at, id)));
        }
    }

    fn next_offer_end(&self) -> Instant {
        self.offers.peek().map_or_else(idle, |Reverse((at, _))| *at)
    }

    fn next_lookup(&self) -> Instant {
        match self.schedule.peek() {
            Some(Reverse((at, _))) if self.lookups.len() < LOOKUPS_AT_ONCE => {
                (*at).max(self.next_lookup)
            }
            _ => idle(),
        }
    }

    async fn end_an_offer(&mut self) {
        let Some(Reverse((_, id))) = self.offers.pop() else {
            return;
        };
        let Some(payment) = self.payments.get_mut(&id) else {
            return;
        };
        // The timer decides: a wall clock that is set back while it runs must not keep the caller waiting (C-25).
        if payment.offer_ends.take().is_none() {
            return;
        }
        self.report(Watched::OfferEnded(id)).await;
    }

    fn start_a_lookup(&mut self) {
        let Some(Reverse((at, id))) = self.schedule.pop() else {
            return;
        };
        let Some(payment) = self
            .payments
            .get(&id)
            .filter(|payment| payment.next_lookup == at)
        else {
            return;
        };
        let Some(processor) = self
            .processors
            .iter()
            .find(|p| *p.pmi() == payment.pmi)
            .cloned()
        else {
            return;
        };
        let (ledger, limit) = (Arc::clone(&self.ledger), self.lookup_timeout);
        self.next_lookup = Instant::now() + BETWEEN_LOOKUPS;
        self.lookups.spawn(async move {
            let made = ledger
                .get(&id)
                .await
                .ok()
                .flatten()
                .and_then(|entry| entry.payment_request);
            let status = match made {
                Some(request) => look_up(processor, request, limit).await,
                None => SettlementStatus::Unknown,
            };
            (id, status)
        });
    }
}

/// So far away that something else comes first.
fn idle() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// Asks `processor` how `request` stands. Whatever goes wrong is `Unknown`, and is asked again.
pub(super) async fn look_up(
    processor: Arc<dyn PaymentProcessor>,
    request: PaymentRequest,
    limit: Duration,
) -> SettlementStatus {
    let pmi = request.pmi.clone();
    let asked = guarded(limit, "lookup_payment", async move {
        processor.lookup_payment(&request).await
    })
    .await;
    let error: Box<dyn std::error::Error> = match asked {
        Ok(Ok(status)) => return status,
        Ok(Err(error)) => error.into(),
        Err(error) => error.into(),
    };
    tracing::warn!(%pmi, error = &*error, "a payment could not be looked up");
    SettlementStatus::Unknown
}

/// How long until a payment of that age is looked up next: a tenth of its age, from 1 s to 10 s while it is young, up to
/// 5 min when it is old.
fn pace(made_at: Timestamp, now: Timestamp) -> Duration {
    let age = now.since(made_at);
    let most = if age < Duration::from_secs(600) {
        Duration::from_secs(10)
    } else {
        Duration::from_secs(300)
    };
    (age / 10).clamp(Duration::from_secs(1), most)
}
