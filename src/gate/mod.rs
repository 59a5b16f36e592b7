//! The server side of CEP-8, one file per stage. This list is the map: a paid request walks it from top to bottom.

// At the door: what is this message, and may it come in?
mod check_call;
mod door;
mod journal;
mod match_price;
mod negotiate;
mod presented;
mod price_list;
mod resume;
mod waiting;
mod waive;

// A price is named and asked for.
mod challenge;
mod convert;
mod demand;
mod draw;
mod issue;
mod mint;
mod pick_processor;
mod quote;
mod rate;
mod resolve_price;

// The money comes, or does not.
mod cancel;
mod charge;
mod claim;
mod credential;
mod direct;
mod expire;
mod mandate;
mod settle;
mod watch;

// The call is served, or refused.
mod deliver;
mod describe;
mod forward;
mod left;
mod metered;
mod open_calls;
mod refuse;
mod write_later;

// What a restart finds, what is written in passing, and what may be forgotten.
mod free_calls;
mod housekeep;
mod instances;

mod log;
mod observe;
mod recover;

/// The locks of what is shared; [`interleavings`] puts others in their place.
mod sync {
    pub(super) use std::sync::{Mutex, MutexGuard, PoisonError};
}
#[cfg(test)]
mod interleavings;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::challenge::ChallengeIssuer;
use self::challenge::Declared;
use self::claim::Heard;
pub(crate) use self::convert::can_charge;
pub(crate) use self::direct::direct_of;
use self::free_calls::FreeCallLog;
use self::journal::{Journal, Scribe};
use self::negotiate::Modes;
use self::observe::Observers;
use self::open_calls::OpenCalls;
use self::presented::Presented;
pub use self::price_list::{Listed, PriceList};
use self::rate::Pace;
use self::waiting::Waiting;
use self::watch::Watcher;
use crate::ledger::{Ledger, OpenLimits};
use crate::payment::{
    CheckCall, Clock, Entitlement, Margin, PaymentInteractionPolicy, PaymentObserver,
    PaymentProcessor, RateSource, RequestEventId, ResolvePrice, Timestamp,
};
use crate::transport::{Inbound, ServerTransport};

/// How many priced requests are looked at in parallel (waiting for money is not counted).
const ADMITTED_AT_ONCE: usize = 1024;

/// How long saying goodbye to other instances may take.
const LEAVE: Duration = Duration::from_millis(300);

/// How many messages may wait for the handler to take them.
const FORWARD_QUEUE: usize = 1024;

/// The numbers and rules that a gate follows.
#[derive(Debug, Clone)]
#[expect(
    clippy::exhaustive_structs,
    reason = "made by the builder in `server`, field by field"
)]
pub struct GateSettings {
    /// Which lifecycles are accepted.
    pub interaction: PaymentInteractionPolicy,
    /// How long an offer stands: the `ttl` on the wire and the expiry asked of the wallet.
    pub payment_ttl: Duration,
    /// How long after the end of an offer a settlement still serves the waiting request.
    pub settlement_grace: Duration,
    /// How long beyond its end a payment request is watched. At least an hour.
    pub watch_grace: Duration,
    /// How long `resolve_price` may take, and a rate.
    pub price_timeout: Duration,
    /// Whether clients may pay ahead, and calls are paid from what they have.
    pub balances: bool,
    /// After how long without a movement the rest of an account lapses; never if `None`.
    pub balances_lapse_after: Option<Duration>,
    /// How long an entitlement may take.
    pub entitlement_timeout: Duration,
    /// How old a rate may be that a price is converted at. Older ones quote nothing.
    pub rate_max_age: Duration,
    /// What is added to a converted price.
    pub rate_margin: Margin,
    /// How long a processor may take to make a payment request, or to answer a question about one.
    pub processor_timeout: Duration,
    /// How many offers may be open.
    pub limits: OpenLimits,
    /// How many offers one client may ask for in a minute, and at once.
    pub offers_per_minute: u32,
    /// How long it is kept why a call was free, and how many such records at most.
    pub keep_free_calls: (Duration, usize),
    /// How long an entry that ended unpaid is kept.
    pub keep_unpaid: Duration,
    /// How long a delivered response is kept for the same event to be answered again.
    pub keep_responses: Duration,
    /// The largest response that is kept for the same event to be answered again, in bytes.
    pub stored_response_bytes: usize,
    /// Whether handlers see who calls, as `params._meta.clientPubkey` (CEP-16).
    pub inject_client_pubkey: bool,
    /// Whether a client that declared that it pays by challenge, and said nothing of CEP-8, is asked to pay by an answer rather
    /// than by notifications, which it would not understand.
    pub challenges_imply_gating: bool,
}

impl Default for GateSettings {
    fn default() -> Self {
        Self {
            interaction: PaymentInteractionPolicy::Optional,
            payment_ttl: Duration::from_secs(600),
            settlement_grace: Duration::from_secs(30),
            watch_grace: Duration::from_secs(3600),
            price_timeout: Duration::from_secs(5),
            balances: false,
            balances_lapse_after: None,
            entitlement_timeout: Duration::from_secs(3),
            rate_max_age: Duration::from_secs(600),
            rate_margin: Margin::default(),
            processor_timeout: Duration::from_secs(10),
            limits: OpenLimits::default(),
            offers_per_minute: 600,
            keep_free_calls: (Duration::from_secs(30 * 86_400), 1_000_000),
            keep_unpaid: Duration::from_secs(7 * 86_400),
            keep_responses: Duration::from_secs(7 * 86_400),
            // As much as a transport carries in pieces: what was paid for can be had again.
            stored_response_bytes: 16 * 1024 * 1024,
            inject_client_pubkey: false,
            challenges_imply_gating: true,
        }
    }
}

/// What a gate works with.
#[expect(
    clippy::exhaustive_structs,
    reason = "made by the builder in `server`, field by field"
)]
#[expect(
    missing_debug_implementations,
    reason = "holds the price hook, which need not have one"
)]
pub struct GateParts {
    /// What costs how much.
    pub prices: PriceList,
    /// Decides the price of each call.
    pub resolver: Arc<dyn ResolvePrice>,
    /// Keeps clients from paying for calls that cannot succeed.
    pub check: Option<Arc<dyn CheckCall>>,
    /// What lets calls through without paying, in the order in which it is asked.
    pub entitlements: Vec<Arc<dyn Entitlement>>,
    /// The ways of being paid, in order of preference.
    pub processors: Vec<Arc<dyn PaymentProcessor>>,
    /// What prices in other money are worth in sats.
    pub rates: Option<Arc<dyn RateSource>>,
    /// How offers are put as challenges, if they are.
    pub challenges: Option<ChallengeIssuer>,
    /// Who hears of payments.
    pub observers: Vec<Arc<dyn PaymentObserver>>,
    /// The books.
    pub ledger: Arc<dyn Ledger>,
    /// Where requests come from.
    pub transport: Arc<dyn ServerTransport>,
    /// The time that the books are kept in.
    pub clock: Arc<dyn Clock>,
    /// Numbers and rules.
    pub settings: GateSettings,
}

/// Holds priced requests until they are paid, and forwards each exactly once.
pub struct Gate {
    prices: PriceList,
    resolver: Arc<dyn ResolvePrice>,
    check: Option<Arc<dyn CheckCall>>,
    entitlements: Vec<Arc<dyn Entitlement>>,
    processors: Vec<Arc<dyn PaymentProcessor>>,
    rates: Option<Arc<dyn RateSource>>,
    challenges: Option<ChallengeIssuer>,
    ledger: Arc<dyn Ledger>,
    transport: Arc<dyn ServerTransport>,
    clock: Arc<dyn Clock>,
    settings: GateSettings,
    /// To the handler.
    forwarded: mpsc::Sender<Inbound>,
    /// Requests that their client may still take back: those that wait for their money are here.
    waiting: Waiting,
    /// Requests that the handler has not answered yet.
    open_calls: OpenCalls,
    /// Events that were let in without an entry.
    journal: Journal,
    /// What clients presented when they opened their sessions.
    presented: Presented,
    /// Why calls were free, on its way to the ledger.
    free_calls: FreeCallLog,
    /// Who hears of payments.
    observers: Observers,
    /// Has them written down.
    scribe: Scribe,
    /// Priced requests that have knocked: a replay of one does not get at an authorization (T-27).
    knocked: Journal,
    /// The payment interaction that each session is in.
    modes: Modes,
    /// The sessions that pay by challenge.
    declared: Declared,
    /// When payments were last asked about out of turn, and what was said.
    asked: Mutex<HashMap<RequestEventId, (Timestamp, Heard)>>,
    /// How fast each client asks for offers.
    pace: Pace,
    watcher: Watcher,
    admission: Arc<Semaphore>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Gate {
    /// A gate that listens for money. Call [`recover`](Self::recover) before anything is let in.
    ///
    /// Returns the gate and the end of the line from which the handler takes what may be executed. Must be called inside
    /// a Tokio runtime.
    #[must_use]
    pub fn new(parts: GateParts) -> (Arc<Self>, mpsc::Receiver<Inbound>) {
        let (forwarded, to_handler) = mpsc::channel(FORWARD_QUEUE);
        let closing = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (scribe, let_in) = Scribe::new();
        let (watcher, watched) = watch::start(&parts, &tasks, &closing);
        let free_calls = free_calls::start(Arc::clone(&parts.ledger), &tasks, &closing);
        let observers = observe::start(parts.observers, &tasks, &closing);
        let gate = Arc::new(Self {
            prices: parts.prices,
            resolver: parts.resolver,
            check: parts.check,
            entitlements: parts.entitlements,
            processors: parts.processors,
            rates: parts.rates,
            challenges: parts.challenges,
            ledger: parts.ledger,
            transport: parts.transport,
            clock: parts.clock,
            settings: parts.settings,
            forwarded,
            waiting: Waiting::default(),
            open_calls: OpenCalls::default(),
            journal: Journal::default(),
            presented: Presented::default(),
            free_calls,
            observers,
            scribe,
            knocked: Journal::default(),
            modes: Modes::default(),
            declared: Declared::default(),
            asked: Mutex::default(),
            pace: Pace::default(),
            watcher,
            admission: Arc::new(Semaphore::new(ADMITTED_AT_ONCE)),
            tasks,
            closing,
        });
        gate.tasks.spawn(settle::act_on(Arc::clone(&gate), watched));
        gate.tasks.spawn(housekeep::housekeep(Arc::clone(&gate)));
        gate.tasks
            .spawn(journal::write_down(Arc::clone(&gate), let_in));
        gate.tasks.spawn(instances::attend(Arc::clone(&gate)));
        (gate, to_handler)
    }

    /// The price list.
    #[must_use]
    pub fn prices(&self) -> &PriceList {
        &self.prices
    }

    /// The token that stops the gate.
    #[must_use]
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Stops taking messages in, then waits until what was begun is written down, at most `within`.
    pub async fn close(&self, within: Duration) {
        self.closing.cancel();
        self.tasks.close();
        if tokio::time::timeout(within, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                tasks = self.tasks.len(),
                "closed while tasks were running; the ledger knows them"
            );
        }
        if let Some(instances) = self.ledger.instances()
            && !matches!(
                tokio::time::timeout(LEAVE, instances.leave()).await,
                Ok(Ok(()))
            )
        {
            tracing::warn!("the others were not told that this instance ends; they find out");
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("priced", &self.prices.entries().len())
            .field("parked", &self.waiting.parked())
            .finish_non_exhaustive()
    }
}
