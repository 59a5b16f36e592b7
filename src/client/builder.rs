//! How a client pays.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::task::TaskTracker;

use super::ask::AskBuyer;
use super::budget::Reservation;
use super::event::DeclineReason;
use super::ledger::{
    AttemptFilter, AttemptId, AttemptState, BuyerLedger, MemoryBuyerLedger, Settled,
};
use super::policy::Policy;
use super::receipt::{Receipt, ReceiptFolder};
use super::{Budget, PaymentEvent};
use crate::error::{Error, Result};
use crate::payment::{
    Amount, BearerToken, Clock, Margin, PaymentHandler, PaymentInteraction, Pmi, Rate, RateSource,
    SystemClock, Unit,
};

/// How long a rate may take.
const RATE_PATIENCE: Duration = Duration::from_secs(5);

/// What a server may ask beyond what its listed price comes to at this client's rate, in hundredths of a percent: its own
/// rate is of another moment, perhaps from another source, and may have a margin on top.
const OTHER_RATE: u32 = 500;

/// Told about payments as they happen. Must not block.
pub(super) type Observer = Arc<dyn Fn(&PaymentEvent) + Send + Sync>;

/// How a client pays. Made by [`ClientPayments::builder`].
#[derive(Clone)]
pub struct ClientPayments {
    pub(super) handlers: Vec<Arc<dyn PaymentHandler>>,
    pub(super) budget: Budget,
    pub(super) policy: Arc<Policy>,
    pub(super) ledger: Arc<dyn BuyerLedger>,
    pub(super) asker: Option<Arc<dyn AskBuyer>>,
    pub(super) interaction: Option<PaymentInteraction>,
    pub(super) licence: Option<BearerToken>,
    pub(super) pay_gated: bool,
    pub(super) observer: Observer,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) longest_wait: Duration,
    /// What is being written down in the background.
    pub(super) writing: TaskTracker,
    receipts: Option<Receipts>,
    /// Where rates come from, and how old they may be.
    rates: Option<(Arc<dyn RateSource>, Duration)>,
    /// Parts of the budget that are held for payments of unknown outcome.
    held: Arc<Mutex<HashMap<AttemptId, Reservation>>>,
}

/// The folder of receipts, written by one at a time.
#[derive(Clone)]
struct Receipts {
    folder: ReceiptFolder,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl ClientPayments {
    /// Starts with no wallet and a budget of zero: nothing is ever paid unasked.
    pub fn builder() -> ClientPaymentsBuilder {
        ClientPaymentsBuilder {
            handlers: Vec::new(),
            budget: None,
            total: None,
            per_call: None,
            policy: Policy::default(),
            ledger: None,
            asker: None,
            receipts: None,
            rates: None,
            interaction: None,
            licence: None,
            pay_gated: false,
            observer: Arc::new(|_| {}),
            clock: Arc::new(SystemClock),
        }
    }

    /// The budget, shared with the client.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The wallet for a payment method.
    pub(super) fn handler_of(&self, pmi: &Pmi) -> Option<&Arc<dyn PaymentHandler>> {
        self.handlers.iter().find(|handler| handler.pmi() == pmi)
    }

    /// The rules.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The books.
    #[must_use]
    pub fn ledger(&self) -> &Arc<dyn BuyerLedger> {
        &self.ledger
    }

    /// What `amount` is worth in the currencies that limits and the budget are in, as far as there are rates.
    pub(super) async fn worths(&self, amount: &Amount) -> Vec<Amount> {
        let mut worths = Vec::new();
        for unit in self.policy.currencies() {
            worths.extend(self.worth(amount, &unit).await);
        }
        worths
    }

    /// The most that a listed `price` may come to in `unit`; `None` without a rate that is young enough.
    pub(super) async fn at_most(&self, price: &Amount, unit: &Unit) -> Option<Amount> {
        let rate = self.rate(price.unit(), unit).await?;
        rate.convert(price, Margin::new(OTHER_RATE).ok()?).ok()
    }

    /// What one of `from` is worth in `to`; `None` without a rate that is young enough.
    async fn rate(&self, from: &Unit, to: &Unit) -> Option<Rate> {
        let (source, max_age) = self.rates.as_ref()?;
        if from == to || !source.covers(from, to) {
            return None;
        }
        let asked = tokio::time::timeout(RATE_PATIENCE, source.rate(from, to)).await;
        let rate = asked.ok()?.ok()?;
        let now = self.clock.now();
        let old = rate.seen().is_some_and(|seen| now.since(seen) > *max_age);
        (!old && rate.from().unit() == from && rate.to().unit() == to).then_some(rate)
    }

    /// What `amount` is worth in `unit`, rounded up; `None` without a rate that is young enough.
    async fn worth(&self, amount: &Amount, unit: &Unit) -> Option<Amount> {
        let rate = self.rate(unit, amount.unit()).await?;
        let scaled = u128::from(amount.value())
            .saturating_mul(u128::from(rate.from().value()))
            .div_ceil(u128::from(rate.to().value().max(1)));
        Amount::new(u64::try_from(scaled).ok()?, unit.clone()).ok()
    }

    /// Holds a part of the budget of this run, which may be in another unit than the price.
    pub(super) async fn reserve_budget(
        &self,
        amount: &Amount,
    ) -> Result<Reservation, DeclineReason> {
        let unit = self.budget.spending().total.unit().clone();
        if unit != *amount.unit()
            && let Some(worth) = self.worth(amount, &unit).await
        {
            return self.budget.reserve(&worth);
        }
        self.budget.reserve(amount)
    }

    /// Keeps `reservation` until it is known what became of `attempt`.
    pub(super) fn hold(&self, attempt: AttemptId, reservation: Reservation) {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(attempt, reservation);
    }

    /// It is known now.
    pub(super) fn release(&self, attempt: AttemptId, state: AttemptState) {
        let held = self
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&attempt);
        match (held, state) {
            (Some(reservation), AttemptState::Paid) => reservation.spend(),
            (Some(reservation), AttemptState::Refused) => reservation.give_back(),
            (Some(reservation), _) => self.hold(attempt, reservation),
            (None, _) => {}
        }
    }

    /// Writes down what became of an attempt. `false` if that failed: then the books still say that it is open.
    pub(super) async fn settle(&self, attempt: AttemptId, end: Settled) -> bool {
        if let Err(error) = self.ledger.settle(attempt, end, self.clock.now()).await {
            tracing::error!(%attempt, error = &error as &dyn std::error::Error, "the outcome of a payment was not written down");
            return false;
        }
        self.keep_receipt(attempt);
        true
    }

    /// Writes the receipt of an attempt anew, if it was paid and receipts are kept, in the background.
    pub(super) fn keep_receipt(&self, attempt: AttemptId) {
        if let Some(receipts) = self.receipts.clone() {
            let payments = self.clone();
            self.writing
                .spawn(async move { payments.write_receipt(receipts, attempt).await });
        }
    }

    async fn write_receipt(&self, receipts: Receipts, attempt: AttemptId) {
        // Read and written in turn, so that an older state never replaces a newer one.
        let _turn = receipts.turn.lock().await;
        let listed = self.ledger.list(&AttemptFilter::one(attempt)).await;
        let receipt = listed.ok().and_then(|listed| Receipt::of(listed.first()?));
        let Some(receipt) = receipt else { return };
        let folder = receipts.folder.clone();
        let kept = tokio::task::spawn_blocking(move || folder.keep(&receipt)).await;
        if !matches!(kept, Ok(Ok(_))) {
            tracing::warn!(%attempt, "the receipt of a payment was not written; the books have it");
        }
    }
}

impl fmt::Debug for ClientPayments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientPayments")
            .field("handlers", &self.handlers)
            .field("budget", &self.budget)
            .field("policy", &self.policy)
            .field("interaction", &self.interaction)
            .finish_non_exhaustive()
    }
}

/// Builds [`ClientPayments`].
#[must_use]
pub struct ClientPaymentsBuilder {
    handlers: Vec<Arc<dyn PaymentHandler>>,
    budget: Option<Budget>,
    total: Option<Amount>,
    per_call: Option<Amount>,
    policy: Policy,
    ledger: Option<Arc<dyn BuyerLedger>>,
    asker: Option<Arc<dyn AskBuyer>>,
    receipts: Option<ReceiptFolder>,
    rates: Option<(Arc<dyn RateSource>, Duration)>,
    interaction: Option<PaymentInteraction>,
    licence: Option<BearerToken>,
    pay_gated: bool,
    observer: Observer,
    clock: Arc<dyn Clock>,
}

impl ClientPaymentsBuilder {
    /// Adds a wallet, preferred less than those added before.
    pub fn handler(mut self, handler: impl PaymentHandler + 'static) -> Self {
        self.handlers.push(Arc::new(handler));
        self
    }

    /// Adds a wallet that is shared or boxed already.
    pub fn shared_handler(mut self, handler: Arc<dyn PaymentHandler>) -> Self {
        self.handlers.push(handler);
        self
    }

    /// The most that may be spent in all, by this client as long as it lives. Zero unless set.
    pub fn budget(mut self, total: Amount) -> Self {
        self.total = Some(total);
        self
    }

    /// The most that one call may cost; the whole budget unless set.
    pub fn per_call(mut self, most: Amount) -> Self {
        self.per_call = Some(most);
        self
    }

    /// Shares the budget of another client, instead of having one.
    pub fn shared_budget(mut self, budget: Budget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// The rules, beside the budget.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Where payments are written down before they are made. In memory unless set: then a restart begins anew.
    pub fn ledger(mut self, ledger: Arc<dyn BuyerLedger>) -> Self {
        self.ledger = Some(ledger);
        self
    }

    /// Who is asked about payments above [`Policy::ask_above`]. Unless set, such payments are not made.
    pub fn ask(mut self, asker: Arc<dyn AskBuyer>) -> Self {
        self.asker = Some(asker);
        self
    }

    /// Holds limits and a budget in other money against what prices are worth at these rates, none of which may be older
    /// than `max_age`. Without a rate, such a limit lets nothing pass.
    pub fn rates(mut self, source: Arc<dyn RateSource>, max_age: Duration) -> Self {
        self.rates = Some((source, max_age));
        self
    }

    /// Keeps a receipt of every payment in this folder.
    pub fn receipts(mut self, folder: ReceiptFolder) -> Self {
        self.receipts = Some(folder);
        self
    }

    /// Asks the server for this lifecycle. Unless set, the server's default applies, which is transparent.
    pub fn interaction(mut self, interaction: PaymentInteraction) -> Self {
        self.interaction = Some(interaction);
        self
    }

    /// Shows this licence with each request. A transport that others can read refuses to carry it.
    pub fn licence(mut self, licence: BearerToken) -> Self {
        self.licence = Some(licence);
        self
    }

    /// Pays what explicit gating offers (`-32042`) within the budget and the policy, and sends the call again until it is
    /// served. Unless set, the offer goes to the caller as it is.
    pub fn pay_explicit_gating(mut self) -> Self {
        self.pay_gated = true;
        self
    }

    /// Is told about payments as they happen. Must not block.
    pub fn on_event(mut self, observer: impl Fn(&PaymentEvent) + Send + Sync + 'static) -> Self {
        self.observer = Arc::new(observer);
        self
    }

    /// Tells the time for limits and expiry; the machine's clock unless set.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Checks what can be checked beforehand.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for two wallets of one payment method, for a limit per call in
    /// another unit than the budget, and for a policy that cannot be kept.
    pub fn build(self) -> Result<ClientPayments> {
        for (at, handler) in self.handlers.iter().enumerate() {
            if self.handlers[..at]
                .iter()
                .any(|before| before.pmi() == handler.pmi())
            {
                return Err(Error::config(format!(
                    "two wallets for the payment method {}",
                    handler.pmi()
                )));
            }
        }
        self.policy.check()?;
        let budget = match (self.budget, self.total, self.per_call) {
            (Some(shared), None, None) => shared,
            (Some(_), _, _) => {
                return Err(Error::config("a budget is shared or set, not both"));
            }
            (None, None, None) => Budget::none(),
            (None, None, Some(_)) => return Err(Error::config("a limit per call needs a budget")),
            (None, Some(total), per_call) => {
                let per_call = per_call.unwrap_or_else(|| total.clone());
                if per_call.unit() != total.unit() {
                    return Err(Error::config(
                        "the limit per call must be in the unit of the budget",
                    ));
                }
                Budget::new(total, per_call)
            }
        };
        Ok(ClientPayments {
            handlers: self.handlers,
            budget,
            policy: Arc::new(self.policy),
            ledger: self
                .ledger
                .unwrap_or_else(|| Arc::new(MemoryBuyerLedger::new())),
            asker: self.asker,
            interaction: self.interaction,
            licence: self.licence,
            pay_gated: self.pay_gated,
            observer: self.observer,
            clock: self.clock,
            longest_wait: Duration::from_secs(3600),
            writing: TaskTracker::new(),
            receipts: self.receipts.map(|folder| Receipts {
                folder,
                turn: Arc::default(),
            }),
            rates: self.rates,
            held: Arc::default(),
        })
    }
}

impl fmt::Debug for ClientPaymentsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientPaymentsBuilder")
            .field("handlers", &self.handlers)
            .field("total", &self.total)
            .finish_non_exhaustive()
    }
}
