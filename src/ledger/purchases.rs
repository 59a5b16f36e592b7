//! What clients have bought that is not one call: a capability for good, a subscription, metered use. Beside each purchase
//! stands what is needed to keep it true: who a client is to the rail, what the rail has said and has not been acted upon
//! yet, and what was used and has not been reported yet.
//!
//! The rail has the truth about its subscriptions, and says it in any order, late, twice. So a purchase is not moved by
//! events: it *learns* how things stand, with the moment at which that was asked for, and an older word never replaces a
//! younger one.
//!
//! | state | the call is covered | becomes |
//! |---|---|---|
//! | `Open` | no: a page waits to be paid | `Held`, `Lapsed`, `Over` |
//! | `Held` | yes | `Held`, `Lapsed`, `Over` |
//! | `Lapsed` | no: not paid, or not paid on | `Held`, `Lapsed`, `Over` |
//! | `Over` | no: given back, disputed, cancelled | nothing |

use std::fmt::Debug;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::OpenLimits;
use crate::error::{Error, Result};
use crate::payment::{Amount, ClientPubkey, RequestEventId, Timestamp};

/// How late a word may come: no question takes as long. One that is older than the last by more is not late, but was asked for
/// after a clock had been put back, and counts.
pub const LATEST_WORD: Duration = Duration::from_secs(3600);

/// How a purchase stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "callers must handle each of these")]
pub enum PurchaseState {
    /// It can be paid.
    Open,
    /// It counts.
    Held,
    /// It does not count, and may again.
    Lapsed,
    /// It does not count, for good.
    Over,
}

impl PurchaseState {
    /// The word in the books.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Held => "held",
            Self::Lapsed => "lapsed",
            Self::Over => "over",
        }
    }
}

impl FromStr for PurchaseState {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        [Self::Open, Self::Held, Self::Lapsed, Self::Over]
            .into_iter()
            .find(|state| state.as_str() == word)
            .ok_or_else(|| Error::config(format!("{word:?} is not a state of a purchase")))
    }
}

/// Something that a client buys, or has bought.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::exhaustive_structs,
    reason = "made by ledgers and entitlements, field by field"
)]
pub struct Purchase {
    /// The request that began it: one request begins at most one.
    pub id: RequestEventId,
    /// Who buys.
    pub client: ClientPubkey,
    /// What, by its name in the config.
    pub plan: String,
    /// What must arrive for it. `None`: the rail charges as it goes, and says itself whether it is paid for.
    pub amount: Option<Amount>,
    /// How it stands.
    pub state: PurchaseState,
    /// The rail's own word for that.
    pub status: String,
    /// Where it is paid. Never printed.
    pub url: Option<String>,
    /// The rail's name of the page where it is paid.
    pub session: Option<String>,
    /// The rail's name of the payment.
    pub payment: Option<String>,
    /// The rail's name of the subscription.
    pub subscription: Option<String>,
    /// Who the client is to the rail.
    pub customer: Option<String>,
    /// Until when it can be paid.
    pub open_until: Timestamp,
    /// Until when it is paid for, where that ends.
    pub held_until: Option<Timestamp>,
    /// What was paid for until then was given back: it counts again when more is paid for.
    pub withdrawn_until: Option<Timestamp>,
    /// When it began.
    pub made_at: Timestamp,
    /// When the rail was asked whose word this is.
    pub seen_at: Timestamp,
}

/// How a rail says that a purchase stands. What it does not mention stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made field by field")]
pub struct PurchaseWord {
    /// How it stands.
    pub state: PurchaseState,
    /// In the rail's own word.
    pub status: String,
    /// The payment.
    pub payment: Option<String>,
    /// The subscription.
    pub subscription: Option<String>,
    /// The customer.
    pub customer: Option<String>,
    /// Until when it can be paid, if that changes.
    pub open_until: Option<Timestamp>,
    /// Until when it is paid for.
    pub held_until: Option<Timestamp>,
    /// What is paid for until then was given back.
    pub withdrawn_until: Option<Timestamp>,
    /// When the rail was asked.
    pub seen_at: Timestamp,
}

impl PurchaseWord {
    /// It stands like this, as of `seen_at`.
    pub fn new(state: PurchaseState, status: impl Into<String>, seen_at: Timestamp) -> Self {
        Self {
            state,
            status: status.into(),
            payment: None,
            subscription: None,
            customer: None,
            open_until: None,
            held_until: None,
            withdrawn_until: None,
            seen_at,
        }
    }
}

impl Purchase {
    /// The purchase after `word`; `None` if that changes nothing, because it is old, or because the purchase is over. The whole
    /// life of a purchase is this function; ledgers only store what it says.
    #[must_use]
    pub fn after(&self, word: &PurchaseWord) -> Option<Self> {
        let age = self.seen_at.since(word.seen_at);
        let is_late = age > Duration::ZERO && age <= LATEST_WORD;
        if self.state == PurchaseState::Over || is_late {
            return None;
        }
        let reopens = word.state == PurchaseState::Open && self.state != PurchaseState::Open;
        if reopens {
            return None;
        }
        let kept = |new: &Option<String>, old: &Option<String>| new.clone().or(old.clone());
        let mut next = self.clone();
        next.state = word.state;
        next.status.clone_from(&word.status);
        next.payment = kept(&word.payment, &self.payment);
        next.subscription = kept(&word.subscription, &self.subscription);
        next.customer = kept(&word.customer, &self.customer);
        next.open_until = word.open_until.unwrap_or(self.open_until);
        next.held_until = word.held_until.or(self.held_until);
        next.withdrawn_until = word.withdrawn_until.or(self.withdrawn_until);
        next.seen_at = word.seen_at;
        if next.state == PurchaseState::Held
            && let Some(withdrawn) = next.withdrawn_until
        {
            if next.held_until.is_some_and(|until| until > withdrawn) {
                next.withdrawn_until = None;
            } else {
                // The rail goes on saying that the period is paid for, and its money was given back.
                next.state = PurchaseState::Lapsed;
                next.status.clone_from(&self.status);
            }
        }
        if next.state != PurchaseState::Open {
            next.url = None;
        }
        Some(next)
    }

    /// Whether its page can still be paid at `at`.
    #[must_use]
    pub fn is_payable(&self, at: Timestamp) -> bool {
        self.state == PurchaseState::Open && at < self.open_until
    }
}

/// Without where it is paid.
impl std::fmt::Debug for Purchase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Purchase")
            .field("id", &self.id)
            .field("client", &self.client)
            .field("plan", &self.plan)
            .field("state", &self.state)
            .field("status", &self.status)
            .field("seen_at", &self.seen_at)
            .finish_non_exhaustive()
    }
}

/// The outcome of [`PurchaseBooks::begin_purchase`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "callers must handle each of these")]
pub enum Begun {
    /// It was written.
    New(Purchase),
    /// The client holds this plan already, or has a page open for it.
    Standing(Purchase),
    /// Too many pages are open; nothing was written.
    Full,
}

/// By which name a purchase is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the names that a purchase has")]
pub enum PurchaseName {
    /// Ours.
    Id(RequestEventId),
    /// The rail's name of the page.
    Session(String),
    /// The rail's name of the payment.
    Payment(String),
    /// The rail's name of the subscription.
    Subscription(String),
}

/// Which purchases [`PurchaseBooks::purchases`] lists.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurchaseFilter {
    /// Only these states; empty for all.
    pub states: Vec<PurchaseState>,
    /// Only those of which the rail was asked last before this.
    pub seen_before: Option<Timestamp>,
    /// And, with [`seen_before`](Self::seen_before), those of which it was asked after this: by a clock that was ahead.
    pub or_after: Option<Timestamp>,
    /// Only what comes after this purchase: the last of the page before.
    pub after: Option<(Timestamp, RequestEventId)>,
    /// At most so many.
    pub limit: usize,
}

impl PurchaseFilter {
    /// Purchases in one of `states` (all if empty), a page of `limit`.
    #[must_use]
    pub const fn new(states: Vec<PurchaseState>, limit: usize) -> Self {
        Self {
            states,
            seen_before: None,
            or_after: None,
            after: None,
            limit,
        }
    }

    /// Starts behind `purchase`.
    #[must_use]
    pub fn after(mut self, purchase: &Purchase) -> Self {
        self.after = Some((purchase.made_at, purchase.id));
        self
    }
}

/// Something that a rail said unasked (a webhook), to be acted upon once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made field by field")]
pub struct RailNotice {
    /// The rail's name of it: the same name again is the same notice.
    pub id: String,
    /// What it is about, in the rail's word.
    pub kind: String,
    /// The rail's name of what it is about.
    pub object: String,
    /// When it came.
    pub at: Timestamp,
}

/// Use that is to be reported to the rail, which charges for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made field by field")]
pub struct Usage {
    /// The request that was served: it is counted once.
    pub event: RequestEventId,
    /// What is counted, in the rail's word.
    pub meter: String,
    /// Who is charged, in the rail's word.
    pub customer: String,
    /// How much.
    pub value: u64,
    /// When.
    pub at: Timestamp,
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "it was taken or it was not")]
pub enum Reported {
    /// The rail has it.
    Taken,
    /// The rail will never take it, for this reason.
    Refused(String),
}

/// Keeps purchases. Each method is atomic, and what it reports is durable. Several instances may share one set of books.
#[async_trait]
pub trait PurchaseBooks: Debug + Send + Sync {
    /// Writes down who `client` is to `account` of the rail. Whoever was written down first stays, and is returned.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn keep_customer(
        &self,
        account: &str,
        client: &ClientPubkey,
        customer: &str,
    ) -> Result<String>;

    /// Who `client` is to `account` of the rail.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be read.
    async fn customer_of(&self, account: &str, client: &ClientPubkey) -> Result<Option<String>>;

    /// Writes down that money may be taken for `account` of the rail, as of `at`. The first time stands, and is returned.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn allow_live(&self, account: &str, at: Timestamp) -> Result<Timestamp>;

    /// Since when money may be taken for `account` of the rail; `None` if that was never said.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be read.
    async fn live_since(&self, account: &str) -> Result<Option<Timestamp>>;

    /// Writes `new`, which is `Open`, unless its request has begun one already (which is then returned as `Standing`), the
    /// client holds the plan, has a page open for it that can be paid at `new.made_at`, or has (or all have) as many pages
    /// open that can be paid then as `limits` allow.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written; then nothing was.
    async fn begin_purchase(&self, new: Purchase, limits: OpenLimits) -> Result<Begun>;

    /// Writes down where the purchase `id` is paid: `session`, its `url`, and until when. A purchase that has a session keeps
    /// it. Returns the purchase as it is now; `None` if there is none, or another purchase has that session.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn offer_purchase(
        &self,
        id: &RequestEventId,
        session: &str,
        url: &str,
        open_until: Timestamp,
    ) -> Result<Option<Purchase>>;

    /// Lets the purchase `id` learn how it stands, as [`Purchase::after`] says. Returns it as it is now, and whether the word
    /// counted; `None` if there is none of that name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn learn_purchase(
        &self,
        id: &RequestEventId,
        word: PurchaseWord,
    ) -> Result<Option<(Purchase, bool)>>;

    /// The purchase of that name.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be read.
    async fn purchase(&self, name: &PurchaseName) -> Result<Option<Purchase>>;

    /// What `client` has of `plan`: the one that is held, else the open one, else the latest of the others. It is asked on the way
    /// of every call that a plan covers.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be read.
    async fn standing_purchase(
        &self,
        client: &ClientPubkey,
        plan: &str,
    ) -> Result<Option<Purchase>>;

    /// Purchases, oldest first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if they could not be read.
    async fn purchases(&self, filter: &PurchaseFilter) -> Result<Vec<Purchase>>;

    /// Writes a notice down, to be acted upon; `false` if it was written down before.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn take_in(&self, notice: RailNotice) -> Result<bool>;

    /// Notices that were not acted upon yet, oldest first, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if they could not be read.
    async fn untreated(&self, limit: usize) -> Result<Vec<RailNotice>>;

    /// The notice `id` was acted upon.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn treated(&self, id: &str) -> Result<()>;

    /// Writes down use that is to be reported; `false` if this request was counted before, and nothing is written.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn note_usage(&self, usage: Usage) -> Result<bool>;

    /// Use that was not reported yet, oldest first, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be read.
    async fn unreported(&self, limit: usize) -> Result<Vec<Usage>>;

    /// Writes down what became of the report about `event`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn reported(&self, event: &RequestEventId, how: Reported) -> Result<()>;

    /// Forgets what stands for no money any more and is from before `before`: notices that were acted upon, use that was
    /// reported, and pages that nobody paid (`Lapsed`, with neither payment nor subscription). Returns how many rows went; a
    /// call does a bounded amount of work, so call again until that is 0.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn forget_purchases(&self, before: Timestamp) -> Result<usize>;
}

/// Object safety is part of the contract.
const _: fn(&dyn PurchaseBooks) = |_| {};
