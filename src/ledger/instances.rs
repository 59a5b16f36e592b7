//! Several processes that serve one public key on one ledger: who takes a request, and who takes over.
//!
//! Every request reaches every instance, and whoever takes its event first serves it. An instance holds its place by a
//! heartbeat that the ledger times. One that falls silent loses its place, and with it everything that it was doing, to the
//! others; whatever it still writes is refused. A ledger that only one process serves from has no instances, and the gate
//! does nothing of this.

use std::fmt::Debug;

use async_trait::async_trait;

use super::Entry;
use crate::error::Result;
use crate::payment::{ClientPubkey, RequestEventId};

/// The outcome of [`Instances::take`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "callers must handle each of these")]
pub enum Taken {
    /// Nobody had it before: it is ours.
    First,
    /// It has been ours.
    Again,
    /// Whoever had it is gone: it is ours now.
    Inherited,
    /// Another instance has it, and will answer.
    Elsewhere,
}

/// How many instances there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a number and a place")]
pub struct Crowd {
    /// How many hold their place, ourselves included. At least 1.
    pub live: u32,
    /// Whether we are the one that does what only one should do.
    pub first: bool,
}

/// The place of this process among the instances that share a ledger.
#[async_trait]
pub trait Instances: Debug + Send + Sync {
    /// Takes a new place. Whatever this process did under its former one is there for the [heirs](Self::inherit).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn join(&self) -> Result<()>;

    /// Gives the place up, so that the others need not wait until they miss us.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn leave(&self) -> Result<()>;

    /// Takes a request event. Of all instances one gets it; an instance that is gone loses what it took.
    ///
    /// Kept for [`ANSWERED_FOR`](super::ANSWERED_FOR), by which time the event is too old to be let in. Survives the end of this
    /// process, but not for sure that of the database.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written; then it may be anybody's.
    async fn take(&self, event: RequestEventId) -> Result<Taken>;

    /// Unfinished entries of instances that are gone, which are ours from now on. At most `limit`, so call again until there are
    /// none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written; then nothing was taken over.
    async fn inherit(&self, limit: usize) -> Result<Vec<Entry>>;

    /// Whether our place is gone for good. What this process has in memory is then somebody else's business.
    fn is_lost(&self) -> bool;

    /// Whether nobody else can have taken our place up to now, and for some seconds more. Asks the ledger, if it has been too long
    /// since it said so; `false` if it cannot be asked.
    async fn holds(&self) -> bool;

    /// How many there are.
    fn crowd(&self) -> Crowd;

    /// Open offers of `client` that their own requests wait for, whichever instance they wait at.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if they could not be read.
    async fn waiting_of(&self, client: &ClientPubkey) -> Result<Vec<Entry>>;
}
