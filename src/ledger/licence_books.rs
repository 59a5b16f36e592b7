//! What has to be remembered about licences: which were taken back, how far their feed was read, and who uses them.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::error::Result;
use crate::payment::{ClientPubkey, Timestamp};

/// A licence that was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "a name and a moment")]
pub struct Revocation {
    /// Its name (`jti`).
    pub id: String,
    /// When it would have run out: until then it has to be remembered.
    pub expires_at: Timestamp,
}

/// How far a feed of revocations was read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a place and a moment")]
pub struct FeedPosition {
    /// Where to read on, in the words of the feed.
    pub cursor: String,
    /// When the feed was last read to its end.
    pub read_at: Option<Timestamp>,
}

/// A licence of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made field by field")]
pub struct IssuedLicence {
    /// Its name.
    pub id: String,
    /// Who alone can use it.
    pub holder: ClientPubkey,
    /// The purchase that it came of.
    pub purchase: String,
    /// What it is good for, as capabilities divided by spaces; everything if empty.
    pub capabilities: String,
    /// When it began.
    pub issued_at: Timestamp,
    /// When it runs out.
    pub expires_at: Timestamp,
    /// When it was taken back, and as the how-manieth, from 1.
    pub revoked: Option<(Timestamp, u64)>,
}

/// Keeps what must not be forgotten about licences. Each method is atomic, and what it reports is durable.
#[async_trait]
pub trait LicenceBooks: Debug + Send + Sync {
    /// Writes revocations of `issuer` down. One that is known keeps the later of its dates.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if they could not be written.
    async fn note_revoked(&self, issuer: &str, revoked: Vec<Revocation>) -> Result<()>;

    /// Revocations of `issuer` in the order of their names, behind `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if they could not be read.
    async fn revoked(
        &self,
        issuer: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Revocation>>;

    /// Forgets licences that would have run out before `before`. Returns how many went; call again until that is 0.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn forget_revoked(&self, before: Timestamp) -> Result<usize>;

    /// Writes down how far the feed of `issuer` was read. Only after what was read is written down.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn set_position(&self, issuer: &str, position: FeedPosition) -> Result<()>;

    /// How far the feed of `issuer` was read; `None` if it never was.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be read.
    async fn position(&self, issuer: &str) -> Result<Option<FeedPosition>>;

    /// Notes that `client` uses the licence `id` of `issuer`; `false`, and nothing is noted, if `most` others use it already.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn admit_holder(
        &self,
        issuer: &str,
        id: &str,
        client: ClientPubkey,
        most: usize,
    ) -> Result<bool>;

    /// Writes down that a licence was issued. One that is known by its name stays as it is, and is returned.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn note_issued(&self, licence: IssuedLicence) -> Result<IssuedLicence>;

    /// Takes a licence back; `None` if there is none of that name. One that was taken back before stays so.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn take_back(&self, id: &str, at: Timestamp) -> Result<Option<IssuedLicence>>;

    /// Licences that were issued, in the order of their names, behind `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if they could not be read.
    async fn issued(&self, after: Option<&str>, limit: usize) -> Result<Vec<IssuedLicence>>;

    /// Licences that were taken back, in that order, behind the `after`th, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if they could not be read.
    async fn taken_back(&self, after: u64, limit: usize) -> Result<Vec<IssuedLicence>>;
}
