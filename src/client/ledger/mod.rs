//! The buyer's books: one durable row per attempt to pay, written before the wallet is asked.
//!
//! ```text
//!              ┌──► Paid            the wallet said so, or was asked later and said so; for ever
//! Reserved ────┼──► Refused         no money moved, and none will; the budget is free again
//!    │         └──► Unknown ──┬──► Paid
//!    │                ▲       └──► Refused
//!    └── its process ─┘
//!        died
//! ```
//!
//! A row that is not `Refused` counts against every limit. Whether a payment may be made is decided by a
//! [`Case`] inside the same transaction that writes the row, so no two tasks or processes can both be right.

mod attempt;
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(any(test, feature = "testing"))]
pub mod conformance;

use std::fmt::Debug;

use async_trait::async_trait;

pub use attempt::{AnswerState, Attempt, AttemptId, AttemptState, NewAttempt};
pub use memory::MemoryBuyerLedger;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteBuyerLedger;

use super::event::DeclineReason;
use super::policy::Case;
use crate::error::Result;
use crate::payment::{
    Amount, CapabilityPattern, InvocationIdentity, PaymentProof, RequestEventId, ServerPubkey,
    Timestamp,
};

/// Keeps attempts to pay. Each method is atomic, and what it reports is durable when it returns.
///
/// Several tasks and processes may share one: everything that decides is decided inside one of these calls.
#[async_trait]
pub trait BuyerLedger: Debug + Send + Sync {
    /// Whether there may be anything in the books, as far as can be told without opening them.
    fn has_books(&self) -> bool {
        true
    }

    /// Writes `new` as [`Reserved`](AttemptState::Reserved) if `case` agrees, given how the books stand at this moment.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written; then nothing was, and nothing may be paid.
    async fn reserve(
        &self,
        new: NewAttempt,
        case: Case,
    ) -> Result<Result<AttemptId, DeclineReason>>;

    /// Notes what became of an attempt, and why that is known. What is [`Paid`](AttemptState::Paid) stays so.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn settle(&self, id: AttemptId, end: Settled, at: Timestamp) -> Result<()>;

    /// Notes what is known of the answer to the call that an attempt paid for.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn note(&self, id: AttemptId, heard: Heard) -> Result<()>;

    /// Notes that the server came round: `answer` for every attempt of this call that was without a result. Without an
    /// identity, for all attempts at that server.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn make_up(
        &self,
        server: &ServerPubkey,
        identity: Option<InvocationIdentity>,
        answer: AnswerState,
    ) -> Result<usize>;

    /// The attempts that `filter` wants, oldest first. Those whose process has died are no longer `Reserved`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be read.
    async fn list(&self, filter: &AttemptFilter) -> Result<Vec<Attempt>>;

    /// What counts against each of `tallies`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be read.
    async fn used(&self, tallies: Vec<Tally>) -> Result<Vec<Vec<Used>>>;
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settled {
    /// The new state.
    pub state: AttemptState,
    /// The proof, if there is one.
    pub proof: Option<PaymentProof>,
    /// How that is known.
    pub note: String,
}

impl Settled {
    /// `state`, known by `note`.
    pub fn new(state: AttemptState, note: impl Into<String>) -> Self {
        Self {
            state,
            proof: None,
            note: note.into(),
        }
    }

    /// The same, with proof.
    #[must_use]
    pub fn with_proof(mut self, proof: PaymentProof) -> Self {
        self.proof = Some(proof);
        self
    }
}

/// What is known of the answer to a call that was paid for.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Heard {
    /// The same call was sent once more, as this signed request.
    Retried(RequestEventId, String),
    /// The server says that the money is there, in this signed message.
    Accepted(String),
    /// The call ended like this, with this signed message if there was one.
    Ended(AnswerState, Option<String>),
}

impl std::fmt::Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Retried(event, _) => write!(f, "Retried({event:?})"),
            Self::Accepted(_) => f.write_str("Accepted"),
            Self::Ended(answer, _) => write!(f, "Ended({answer:?})"),
        }
    }
}

/// Which attempts to list.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct AttemptFilter {
    /// Only in these states; any if empty.
    pub states: Vec<AttemptState>,
    /// Only this one.
    pub id: Option<AttemptId>,
    /// Only at this server.
    pub server: Option<ServerPubkey>,
    /// Only those that were paid, or may have been, and have brought no result, as far as is known.
    pub unserved: bool,
    /// Only those that come behind this one.
    pub after: Option<AttemptId>,
    /// At most so many; all if `None`.
    pub limit: Option<usize>,
}

impl AttemptFilter {
    /// Attempts in `states`; all if empty.
    #[must_use]
    pub fn states(states: &[AttemptState]) -> Self {
        Self {
            states: states.to_vec(),
            ..Self::default()
        }
    }

    /// One attempt.
    #[must_use]
    pub fn one(id: AttemptId) -> Self {
        Self {
            id: Some(id),
            ..Self::default()
        }
    }
}

/// Which attempts to add up: those that are not refused, and that fit everything that is set.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Tally {
    /// At this server.
    pub server: Option<ServerPubkey>,
    /// For capabilities that match, in CEP-8's notation (`tool:search*`).
    pub capability: Option<CapabilityPattern>,
    /// Reserved after this moment.
    pub since: Option<Timestamp>,
}

/// A sum of attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Used {
    /// What they asked for.
    pub amount: Amount,
    /// What that was worth in the currency of the limits when it was reserved, where that was computed.
    pub worth: Option<Amount>,
}

impl Used {
    /// A sum.
    #[must_use]
    pub fn new(amount: Amount, worth: Option<Amount>) -> Self {
        Self { amount, worth }
    }
}

/// How the books stand for one payment, at the moment of its decision.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct BooksStand {
    /// An attempt, not refused, to pay the same thing.
    pub same_payment: Option<Attempt>,
    /// Attempts for the same call (server and identity) that [stand in its way](Attempt::blocks_its_call).
    pub same_call: Vec<Attempt>,
    /// What counts against each of the tallies that the case asks for, in its order.
    pub used: Vec<Vec<Used>>,
    /// How many payments in a row the server took, or may have taken, without a result.
    pub unserved: u32,
    /// What they were, together.
    pub unserved_amounts: Vec<Amount>,
}
