//! Why was this call free? One record for each priced call that was let through without paying.
//!
//! A record stands for no money, so most are written in batches, after the call, and the oldest are forgotten. The
//! exception is what a client has a limited number of: that is counted by its records, each written before its call.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::error::Result;
use crate::payment::{ClientPubkey, RequestEventId, Timestamp};

/// A priced call that was let through without paying.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "made by the gate and by entitlements, field by field"
)]
pub struct FreeCall {
    /// The request; it has one record at most.
    pub event: RequestEventId,
    /// Who called.
    pub client: ClientPubkey,
    /// What: the entry of the price list.
    pub capability: String,
    /// The entitlement that covered it.
    pub by: String,
    /// In its words.
    pub why: String,
    /// When.
    pub at: Timestamp,
}

/// How many free calls there are in a day (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FreeLimits {
    /// For one client.
    pub per_client: u32,
    /// For all clients together: keys cost nothing, so a limit for each client alone limits nobody.
    pub total: u32,
}

impl FreeLimits {
    /// At most `per_client` and `total` a day.
    #[must_use]
    pub const fn new(per_client: u32, total: u32) -> Self {
        Self { per_client, total }
    }
}

/// The outcome of [`FreeCalls::spend_free`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "callers must handle each of these")]
pub enum FreeSpend {
    /// Counted; this was the client's `nth` of the day, from 1.
    Spent {
        /// Which of the day.
        nth: u32,
    },
    /// The request has a record already; nothing was counted.
    Already,
    /// The client has used up its calls of the day.
    UsedUp,
    /// All clients together have.
    AllUsedUp,
}

/// Which records [`FreeCalls::free_calls`] lists.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FreeCallFilter {
    /// Only this client.
    pub client: Option<ClientPubkey>,
    /// Only what came after this record: the last of the page before.
    pub after: Option<(Timestamp, RequestEventId)>,
    /// At most so many.
    pub limit: usize,
}

impl FreeCallFilter {
    /// All records, a page of `limit`.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            client: None,
            after: None,
            limit,
        }
    }

    /// Starts behind `call`.
    #[must_use]
    pub fn after(mut self, call: &FreeCall) -> Self {
        self.after = Some((call.at, call.event));
        self
    }
}

/// Keeps the records of free calls. A part of every [`Ledger`](super::Ledger).
#[async_trait]
pub trait FreeCalls: Debug + Send + Sync {
    /// Writes records down, in one write. A request that has a record keeps it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if they could not be written.
    async fn note_free(&self, calls: Vec<FreeCall>) -> Result<()>;

    /// Counts `call` against the limits of its day and of its `by`, and writes it down; all or nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written; then nothing was counted.
    async fn spend_free(&self, call: FreeCall, limits: FreeLimits) -> Result<FreeSpend>;

    /// The record of `event`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be read.
    async fn free_call(&self, event: &RequestEventId) -> Result<Option<FreeCall>>;

    /// Records, oldest first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if they could not be read.
    async fn free_calls(&self, filter: &FreeCallFilter) -> Result<Vec<FreeCall>>;

    /// Forgets records from before `before`, and the oldest beyond `keep`, but none that may still count: those of the last
    /// two days. Returns how many went; a call does a bounded amount of work, so call again until that is 0.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn forget_free(&self, before: Timestamp, keep: usize) -> Result<usize>;
}

/// The day that `at` is in, counted from the epoch.
pub(super) const fn day_of(at: Timestamp) -> u64 {
    at.as_secs() / 86_400
}
