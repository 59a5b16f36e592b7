//! The watch of one rail's payments: a task that hears notices, lists, looks up, and lets offers end.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::ask::{list_settled, look_up};
use super::listing::{Listed, Listing};
use super::pace::pace;
use super::turns::Turns;
use super::{Command, Payment, Watched};
use crate::ledger::Ledger;
use crate::payment::{
    Clock, PaymentProcessor, RequestEventId, Settlement, SettlementNotice, SettlementStatus,
    SettlementStream, Timestamp,
};

/// How many look-ups are under way at once.
const LOOKUPS_AT_ONCE: usize = 8;

/// Between two look-ups, on average: at most two questions a second, however many payments are watched.
const BETWEEN_LOOKUPS: Duration = Duration::from_millis(500);

/// The same where listing works, which takes its own share of the questions.
const BETWEEN_LOOKUPS_LISTED: Duration = Duration::from_secs(1);

/// How long beyond its watch a payment is asked about of which the rail has not said how it stands: an outage must not hide what
/// was paid. As long as entries that ended unpaid are kept.
const UNHEARD: Duration = Duration::from_secs(7 * 86_400);

/// A list may take several questions, one a page.
const LIST_PATIENCE: u32 = 3;

/// How many notices are kept whose payment is not watched yet: a push may be faster than the ledger's answer.
const EARLY_NOTICES: usize = 1024;

/// So many timers of offers that are no more are left alone.
const FEW_OFFERS: usize = 1024;

/// What an answer of the rail is about.
enum Answer {
    LookedUp(RequestEventId, SettlementStatus),
    Listed(Listed, Vec<SettlementNotice>),
}

pub(super) struct RailWatch {
    /// `None`: payments of a rail that is not configured any more. Their offers end, and nobody can be asked.
    pub(super) processor: Option<Arc<dyn PaymentProcessor>>,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settlement_grace: Duration,
    pub(super) answer_within: Duration,
    pub(super) learned: mpsc::Sender<Watched>,
    payments: HashMap<RequestEventId, Payment>,
    by_reference: HashMap<String, RequestEventId>,
    /// When offers end.
    offers: BinaryHeap<Reverse<(Instant, RequestEventId)>>,
    turns: Turns,
    listing: Listing,
    early: VecDeque<SettlementNotice>,
    lookups: usize,
    asking: JoinSet<Answer>,
}

impl RailWatch {
    pub(super) fn new(
        processor: Option<Arc<dyn PaymentProcessor>>,
        ledger: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
        (settlement_grace, answer_within): (Duration, Duration),
        learned: mpsc::Sender<Watched>,
    ) -> Self {
        Self {
            processor,
            ledger,
            clock,
            settlement_grace,
            answer_within,
            learned,
            payments: HashMap::new(),
            by_reference: HashMap::new(),
            offers: BinaryHeap::new(),
            turns: Turns::new(BETWEEN_LOOKUPS),
            listing: Listing::new(Instant::now()),
            early: VecDeque::new(),
            lookups: 0,
            asking: JoinSet::new(),
        }
    }

    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut notices: Option<SettlementStream>,
        closing: CancellationToken,
    ) {
        loop {
            let wake = self.next_wake();
            tokio::select! {
                () = closing.cancelled() => return,
                Some(command) = commands.recv() => self.obey(command).await,
                notice = next_notice(&mut notices) => match notice {
                    Some(notice) => self.noticed(notice).await,
                    // The rail pushes no more. What it would have said is listed and looked up.
                    None => notices = None,
                },
                Some(answer) = self.asking.join_next() => match answer {
                    Ok(answer) => self.answered(answer).await,
                    Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "a question to a rail was lost"),
                },
                () = sleep_until(wake) => {
                    self.end_offers().await;
                    self.ask();
                }
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Forget(id) => self.forget(id),
            Command::Watch(payment) => match self.payments.get_mut(&payment.id) {
                // It is watched already, and its timers run.
                Some(watched) => watched.watch_until = watched.watch_until.max(payment.watch_until),
                None => self.watch(*payment).await,
            },
        }
    }

    async fn watch(&mut self, payment: Payment) {
        let (id, reference) = (payment.id, payment.reference.clone());
        let (now, wall) = (Instant::now(), self.clock.now());
        if let Some(ends) = payment.offer_ends {
            let end = ends.plus(self.settlement_grace);
            // Never longer than the offer was meant to stand, should the clock have been set back.
            let left = end.since(wall).min(end.since(payment.made_at));
            self.offers.push(Reverse((now + left, id)));
            self.forget_ended_offers();
        }
        let first = payment
            .first_lookup
            .unwrap_or_else(|| self.pace(&payment, wall));
        self.by_reference.insert(reference.clone(), id);
        self.payments.insert(id, payment);
        self.look_up_at(id, now + first);
        let early = self.early.iter().position(|n| n.reference == reference);
        if let Some(notice) = early.and_then(|at| self.early.remove(at)) {
            self.noticed(notice).await;
        }
    }

    /// What was paid leaves its timer behind. Under load these would be most of what is in memory, so they go together, as soon
    /// as they are the greater part.
    fn forget_ended_offers(&mut self) {
        if self.offers.len() > 2 * self.payments.len() + FEW_OFFERS {
            let payments = &self.payments;
            self.offers
                .retain(|Reverse((_, id))| payments.contains_key(id));
        }
    }

    fn forget(&mut self, id: RequestEventId) {
        if let Some(payment) = self.payments.remove(&id) {
            self.by_reference.remove(&payment.reference);
            self.turns.forget(id, payment.made_at);
        }
    }

    /// The rail says by itself that something was paid.
    async fn noticed(&mut self, notice: SettlementNotice) {
        if self.by_reference.contains_key(&notice.reference) {
            self.settled(notice).await;
            return;
        }
        if self.early.len() >= EARLY_NOTICES {
            // Listing and look-ups find what is dropped here.
            self.early.pop_front();
        }
        self.early.push_back(notice);
    }

    async fn settled(&mut self, notice: SettlementNotice) {
        let Some(id) = self.by_reference.get(&notice.reference).copied() else {
            return;
        };
        match notice.settlement {
            Some(settlement) => self.report_settled(id, settlement).await,
            None => self.look_up_first(id),
        }
    }

    async fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::LookedUp(id, status) => {
                self.lookups = self.lookups.saturating_sub(1);
                self.looked_up(id, status).await;
            }
            Answer::Listed(how, notices) => {
                self.listing.ended(Instant::now(), how);
                if self.listing.works() {
                    self.turns.slow_down_to(BETWEEN_LOOKUPS_LISTED);
                }
                for notice in notices {
                    self.settled(notice).await;
                }
            }
        }
    }

    async fn looked_up(&mut self, id: RequestEventId, status: SettlementStatus) {
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
            SettlementStatus::UnderWay(until) if until > wall => {
                let is_new = until > payment.watch_until;
                self.look_up_again(id, wall);
                // The watch is as long when it is on the books.
                if is_new {
                    let _ = self.learned.send(Watched::UnderWay { id, until }).await;
                }
            }
            // Who does not answer has not said no. He is asked for as long as the books keep the entry, and no longer.
            SettlementStatus::Unknown if wall <= payment.watch_until.plus(UNHEARD) => {
                self.look_up_again(id, wall);
            }
            // Not even a clear no ends the watch before its time: wallets err, and money may still come.
            _ if wall <= payment.watch_until => self.look_up_again(id, wall),
            _ => self.forget(id),
        }
    }

    /// Looks a payment up when it is its turn again.
    fn look_up_again(&mut self, id: RequestEventId, wall: Timestamp) {
        if let Some(payment) = self.payments.get(&id) {
            let again = Instant::now() + self.pace(payment, wall);
            self.look_up_at(id, again);
        }
    }

    async fn report_settled(&self, id: RequestEventId, settlement: Settlement) {
        if let Some(payment) = self.payments.get(&id) {
            let asked = payment.asked.clone();
            let _ = self
                .learned
                .send(Watched::Settled {
                    id,
                    asked,
                    settlement,
                })
                .await;
        }
    }

    fn pace(&self, payment: &Payment, wall: Timestamp) -> Duration {
        pace(payment.made_at, wall, self.listing.works())
    }

    fn look_up_at(&mut self, id: RequestEventId, at: Instant) {
        if let Some(payment) = self.payments.get_mut(&id) {
            payment.next_lookup = at;
            self.turns.give(id, payment.made_at, at);
        }
    }

    fn look_up_first(&mut self, id: RequestEventId) {
        if let Some(payment) = self.payments.get_mut(&id) {
            payment.next_lookup = Instant::now();
            self.turns.give_first(id, payment.made_at);
        }
    }

    fn next_wake(&self) -> Instant {
        let offer = self.offers.peek().map(|Reverse((at, _))| *at);
        let lookup = self.turns.next().filter(|_| self.lookups < LOOKUPS_AT_ONCE);
        let list = self.listing.next(!self.payments.is_empty());
        [offer, lookup, list.filter(|_| self.processor.is_some())]
            .into_iter()
            .flatten()
            .min()
            // So far away that something else comes first.
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    async fn end_offers(&mut self) {
        while let Some(Reverse((at, id))) = self.offers.peek().copied()
            && at <= Instant::now()
        {
            self.offers.pop();
            // The timer decides: a wall clock that is set back while it runs must not keep the caller waiting (C-25).
            let ended = self
                .payments
                .get_mut(&id)
                .and_then(|payment| payment.offer_ends.take());
            if ended.is_some() {
                let _ = self.learned.send(Watched::OfferEnded(id)).await;
            }
        }
    }

    /// Asks what may be asked now.
    fn ask(&mut self) {
        let now = Instant::now();
        let Some(processor) = self.processor.clone() else {
            self.turns.take(now, |_, _| false);
            return;
        };
        let processes = self
            .ledger
            .instances()
            .map_or(1, |instances| instances.crowd().live);
        self.turns.share(processes);
        self.listing.share(processes);
        let watched = self.payments.values().map(|payment| payment.made_at);
        if let Some(since) = self.listing.take(now, self.clock.now(), watched) {
            let (asked, limit) = (Arc::clone(&processor), self.answer_within * LIST_PATIENCE);
            self.asking.spawn(async move {
                let (how, notices) = list_settled(asked, since, limit).await;
                Answer::Listed(how, notices)
            });
        }
        while self.lookups < LOOKUPS_AT_ONCE {
            let payments = &self.payments;
            let is_meant = |id: &RequestEventId, at: Instant| {
                payments.get(id).is_some_and(|p| p.next_lookup == at)
            };
            let Some(id) = self.turns.take(now, is_meant) else {
                return;
            };
            self.start_a_lookup(id, Arc::clone(&processor));
        }
    }

    fn start_a_lookup(&mut self, id: RequestEventId, processor: Arc<dyn PaymentProcessor>) {
        let (ledger, limit) = (Arc::clone(&self.ledger), self.answer_within);
        self.lookups += 1;
        self.asking.spawn(async move {
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
            Answer::LookedUp(id, status)
        });
    }
}

/// The next notice; never, for a rail that has none.
async fn next_notice(notices: &mut Option<SettlementStream>) -> Option<SettlementNotice> {
    match notices {
        Some(stream) => stream.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::MemoryLedger;
    use crate::payment::SystemClock;

    #[tokio::test(start_paused = true)]
    async fn what_was_paid_leaves_little_behind() {
        let (learned, _events) = mpsc::channel(1);
        let ledger = Arc::new(MemoryLedger::new());
        let limits = (Duration::from_secs(30), Duration::from_secs(10));
        let mut watch = RailWatch::new(None, ledger, Arc::new(SystemClock), limits, learned);
        let now = SystemClock.now();
        let payment = |n: u32, asked: &str| {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&n.to_be_bytes());
            Payment {
                id: RequestEventId::from_bytes(id),
                reference: n.to_string(),
                asked: asked.parse().unwrap(),
                offer_ends: Some(now.plus(Duration::from_secs(600))),
                made_at: now,
                watch_until: now.plus(Duration::from_secs(4200)),
                first_lookup: None,
                next_lookup: Instant::now(),
            }
        };
        let open = payment(0, "1 sats");
        let id = open.id;
        watch.watch(open).await;
        for n in 1..10_000 {
            let paid = payment(n, "1 sats");
            let id = paid.id;
            watch.watch(paid).await;
            watch.forget(id);
        }
        assert!(watch.offers.len() <= FEW_OFFERS + 4);
        assert!(watch.offers.iter().any(|Reverse((_, of))| *of == id));
    }
}
