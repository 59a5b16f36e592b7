//! One durable row per payment request: the only truth about money. Everything in memory is a cache of it.
//!
//! A row is written before the processor is asked, again before anything leaves for the client, and again before the
//! request is forwarded. Whatever dies in between, the row says what is owed. The moves a row can make are one pure
//! [table](EntryState::after); the ledgers only store what it says.

mod accounts;
mod entry;
mod free_calls;
mod instances;
mod licence_books;
mod purchases;
mod revenue;
mod transition;

mod memory;
/// The locks of what is shared; [`interleavings`] puts others in their place.
mod sync {
    pub(super) use std::sync::{Mutex, MutexGuard, PoisonError};
}
#[cfg(test)]
mod interleavings;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod intercepted;

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

pub use accounts::{
    Account, Accounts, BALANCE, Credit, Drawn, GiveBack, Movement, MovementKind, top_up_key,
};
pub use entry::{Entry, EntryState, Moment, NewEntry, PRICE_META, UNDER_WAY};
pub use free_calls::{FreeCall, FreeCallFilter, FreeCalls, FreeLimits, FreeSpend};
pub use instances::{Crowd, Instances, Taken};
pub use licence_books::{FeedPosition, IssuedLicence, LicenceBooks, Revocation};
pub use memory::MemoryLedger;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresConfig, PostgresLedger};
pub use purchases::{
    Begun, LATEST_WORD, Purchase, PurchaseBooks, PurchaseFilter, PurchaseName, PurchaseState,
    PurchaseWord, RailNotice, Reported, Usage,
};
pub use revenue::{MOST_GROUPS, Revenue, RevenueBy, RevenueLine, Takings};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteLedger;
#[cfg(feature = "sqlite")]
pub(crate) use sqlite::file;
pub use transition::{Move, Transition, TransitionKind};

use crate::error::Result;
use crate::payment::{
    ClientPubkey, InvocationIdentity, PaymentInteraction, RequestEventId, Timestamp,
};

/// Keeps entries. Each method is atomic, and what it reports is durable when it returns.
///
/// Several instances may share one ledger: everything that decides is decided inside one of these calls.
#[async_trait]
pub trait Ledger: FreeCalls + Accounts + Debug + Send + Sync {
    /// Writes a new entry in state `Quoted`, unless the request has opened or claimed one already, there is an authorization
    /// that it may claim, the same call is outstanding (explicit gating), or the limits are reached.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written; then nothing was.
    async fn open(&self, new: NewEntry, limits: OpenLimits) -> Result<Opened>;

    /// Makes one or more moves, all or none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if there is no such entry or it could not be written.
    async fn apply(
        &self,
        id: &RequestEventId,
        moves: Vec<Transition>,
        at: Timestamp,
    ) -> Result<Applied>;

    /// Claims the oldest authorization of `client` for `identity`: a settled entry whose own request does not wait for
    /// it. One bought under explicit gating is claimed only by a request under explicit gating (N-52). A request that has
    /// opened or claimed an entry already claims no other.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written; then nothing was claimed.
    async fn claim_authorization(
        &self,
        caller: &Caller,
        interaction: PaymentInteraction,
        at: Timestamp,
    ) -> Result<Option<Entry>>;

    /// What is on the books for a request that knocks: the entry of this very event, and those of the same call by the
    /// same client that are not finished.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be read.
    async fn standing(&self, caller: &Caller) -> Result<Standing>;

    /// Notes that `event` was answered without an entry of its own: with `-32043`, with a rejection, by a waiver. `false` if
    /// that was noted before. Kept for [`ANSWERED_FOR`], by which time the event is too old to be let in.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn note_answered(&self, event: &RequestEventId, at: Timestamp) -> Result<bool>;

    /// Notes events that were let in without an entry because they cost nothing, so that a replay is known after a restart.
    /// Nothing waits for it: it is called for many at a time, and after the fact.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if they could not be written; then none was.
    async fn note_let_in(&self, events: Vec<LetIn>) -> Result<()>;

    /// The latest [`LET_IN_AT_MOST`] events that were let in without an entry, since `since`, oldest first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if they could not be read.
    async fn let_in_since(&self, since: Timestamp) -> Result<Vec<LetIn>>;

    /// Forgets what stands for no money and is older than `retention` allows: entries that ended unpaid, the stored responses of
    /// those that were delivered, events that were answered or let in without an entry, and of the latter all but the latest
    /// [`LET_IN_AT_MOST`]. A delivered entry itself stays: it is the audit log. Returns how many
    /// rows were changed; a call does a bounded amount of work, so call again until that is 0.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn prune(&self, retention: Retention) -> Result<usize>;

    /// The entry of the request `id`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be read.
    async fn get(&self, id: &RequestEventId) -> Result<Option<Entry>>;

    /// Entries, oldest first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be read.
    async fn list(&self, filter: &EntryFilter) -> Result<Vec<Entry>>;

    /// The place of this process among those that serve from this ledger; `None` if it is the only one.
    fn instances(&self) -> Option<&dyn Instances> {
        None
    }
}

/// Who knocks, with which call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caller {
    /// The client.
    pub client: ClientPubkey,
    /// The event of the request.
    pub event: RequestEventId,
    /// What it calls.
    pub identity: InvocationIdentity,
}

impl Caller {
    /// `client` calls `identity` with the request `event`.
    #[must_use]
    pub const fn new(
        client: ClientPubkey,
        event: RequestEventId,
        identity: InvocationIdentity,
    ) -> Self {
        Self {
            client,
            event,
            identity,
        }
    }
}

/// How many offers may be open (`Quoted` or `Issued`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenLimits {
    /// For one client.
    pub per_client: usize,
    /// For all clients together.
    pub total: usize,
}

impl OpenLimits {
    /// At most `per_client` and `total` open offers.
    #[must_use]
    pub const fn new(per_client: usize, total: usize) -> Self {
        Self { per_client, total }
    }
}

impl Default for OpenLimits {
    /// 20 for one client, 10,000 in all.
    fn default() -> Self {
        Self::new(20, 10_000)
    }
}

/// The outcome of [`Ledger::open`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Opened {
    /// A new entry was written.
    New(Entry),
    /// The request has opened or claimed this entry already.
    Exists(Entry),
    /// The same call is paid for: there is an authorization that the request may claim.
    Authorized,
    /// The same call has an open offer under explicit gating.
    Outstanding(Entry),
    /// Too many open offers; nothing was written.
    Full,
}

/// The outcome of [`Ledger::apply`].
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "callers must handle each of these")]
pub enum Applied {
    /// At least one move was made.
    Moved(Entry),
    /// Everything had happened before; nothing was written.
    Already(Entry),
    /// The entry is in a state that does not allow the moves; nothing was written.
    Refused(Entry),
}

impl Applied {
    /// The entry as it is now.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        match self {
            Self::Moved(entry) | Self::Already(entry) | Self::Refused(entry) => entry,
        }
    }
}

/// What [`Ledger::standing`] found.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Standing {
    /// The entry that this very event opened or claimed.
    pub of_event: Option<Entry>,
    /// Whether the event was [answered without an entry](Ledger::note_answered), or let through without paying.
    pub answered: bool,
    /// Entries of the same call by the same client, not delivered and not abandoned: authorizations first, oldest first, so
    /// that none hides behind what was never paid; then the others, newest first. At most [`STANDING_AT_MOST`].
    pub of_identity: Vec<Entry>,
}

/// How long an event that was answered without an entry is remembered: longer than an event is let in, by either clock.
pub const ANSWERED_FOR: Duration = Duration::from_secs(25 * 60);

/// How many events that were let in without an entry are remembered.
pub const LET_IN_AT_MOST: usize = 200_000;

/// An event that was let in without an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what, and when")]
pub struct LetIn {
    /// The event.
    pub event: RequestEventId,
    /// When.
    pub at: Timestamp,
}

/// What [`Ledger::prune`] may forget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retention {
    /// Entries that ended unpaid, were quoted before this, and could be paid until before this.
    pub unpaid_before: Timestamp,
    /// Stored responses that were given before this.
    pub responses_before: Timestamp,
    /// Events that were answered or let in without an entry before this.
    pub answered_before: Timestamp,
}

impl Retention {
    /// Forgets unpaid entries, stored responses and answered events from before these moments.
    #[must_use]
    pub const fn new(
        unpaid_before: Timestamp,
        responses_before: Timestamp,
        answered_before: Timestamp,
    ) -> Self {
        Self {
            unpaid_before,
            responses_before,
            answered_before,
        }
    }
}

/// How many entries of one call [`Ledger::standing`] reports.
pub const STANDING_AT_MOST: usize = 16;

/// Which entries [`Ledger::list`] lists.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EntryFilter {
    /// Only these states; empty for all.
    pub states: Vec<EntryState>,
    /// Only this client.
    pub client: Option<ClientPubkey>,
    /// Only what was quoted after this entry: the last of the page before.
    pub after: Option<(Timestamp, RequestEventId)>,
    /// At most so many.
    pub limit: usize,
}

impl EntryFilter {
    /// Entries in one of `states` (all if empty), a page of `limit`.
    #[must_use]
    pub fn new(states: Vec<EntryState>, limit: usize) -> Self {
        Self {
            states,
            client: None,
            after: None,
            limit,
        }
    }

    /// Starts behind `entry`.
    #[must_use]
    pub fn after(mut self, entry: &Entry) -> Self {
        self.after = Some((entry.quoted_at, entry.id));
        self
    }
}

/// Object safety is part of the contract.
const _: fn(&dyn Ledger) = |_| {};
