//! Money that clients have paid ahead: one account for each client and unit, and every movement of it, for ever.
//!
//! What is on an account is the sum of its movements. A movement has a name, and happens once under it, however often it is
//! asked for: a top-up that was written down right before a crash is not credited again after it.

use std::fmt::Debug;

use async_trait::async_trait;

use super::{Applied, Entry, NewEntry, Opened};
use crate::error::Result;
use crate::payment::{
    Amount, ClientPubkey, PayReq, PaymentRequest, RequestEventId, Settlement, Timestamp, Unit,
};

use super::Transition;

/// What stands in for a payment method where a call is paid from an account.
pub const BALANCE: &str = "balance";

/// What a client has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "who has what, since when")]
pub struct Account {
    /// Whose it is.
    pub client: ClientPubkey,
    /// How much is on it.
    pub amount: Amount,
    /// When it was last moved.
    pub touched_at: Timestamp,
}

/// Why an account moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MovementKind {
    /// Money was paid ahead.
    TopUp,
    /// A call was paid.
    Draw,
    /// A call that was paid for failed.
    GivenBack,
    /// A call used less than was paid for.
    Unused,
    /// The payment that it came of was given back, or is wanted back.
    TakenBack,
    /// Nothing was moved for so long that the rest lapsed.
    Expired,
    /// The operator moved it.
    Manual,
}

impl MovementKind {
    /// The word in the books.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TopUp => "top_up",
            Self::Draw => "draw",
            Self::GivenBack => "given_back",
            Self::Unused => "unused",
            Self::TakenBack => "taken_back",
            Self::Expired => "expired",
            Self::Manual => "manual",
        }
    }

    /// Reads the word in the books.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [
            Self::TopUp,
            Self::Draw,
            Self::GivenBack,
            Self::Unused,
            Self::TakenBack,
            Self::Expired,
            Self::Manual,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == word)
    }
}

/// Money that comes onto an account.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made field by field")]
pub struct Credit {
    /// Whose account.
    pub client: ClientPubkey,
    /// How much.
    pub amount: Amount,
    /// Why.
    pub kind: MovementKind,
    /// The name of the movement, which happens once under it.
    pub key: String,
    /// When.
    pub at: Timestamp,
}

/// How an entry ends of which money goes back onto its client's account.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made field by field")]
pub struct GiveBack {
    /// The response, as in [`Transition::Deliver`].
    pub response: Option<String>,
    /// How much of the price was not used; all of it if `None`, because the call failed.
    pub unused: Option<Amount>,
}

/// One line of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a line of a statement")]
pub struct Movement {
    /// Its place in the books.
    pub number: u64,
    /// Why.
    pub kind: MovementKind,
    /// Its name: of a draw or what came back, it ends in the id of the entry.
    pub key: String,
    /// How much went off.
    pub off: u64,
    /// How much came on.
    pub on: u64,
    /// What was on the account afterwards.
    pub left: u64,
    /// When.
    pub at: Timestamp,
}

/// The outcome of [`Accounts::draw`].
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "callers must handle each of these")]
pub enum Drawn {
    /// The call is paid, and claimed for its request.
    Paid {
        /// Its entry.
        entry: Entry,
        /// What is left on the account.
        left: Amount,
    },
    /// There is not enough on the account; nothing was written.
    Short,
    /// The books do not allow an entry; nothing was written.
    Refused(Opened),
}

/// Keeps the accounts. A part of every [`Ledger`](super::Ledger). Each method is atomic, and what it reports is durable.
#[async_trait]
pub trait Accounts: Debug + Send + Sync {
    /// Pays for `new` from the account of its client: the entry is written down as settled and claimed by its own request, and
    /// its amount goes off the account, or nothing happens.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written; then nothing was.
    async fn draw(&self, new: NewEntry, at: Timestamp) -> Result<Drawn>;

    /// Credits an account, once for each [`key`](Credit::key), and tells what is on it now.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written; then nothing was.
    async fn credit(&self, credit: Credit) -> Result<Account>;

    /// Ends the entry `id`, and puts what was paid for it, or a part of that, onto the account of its client, or neither. A part
    /// in other money than the price, or of more than it, is refused.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written; then nothing was.
    async fn give_back(
        &self,
        id: &RequestEventId,
        back: GiveBack,
        at: Timestamp,
    ) -> Result<Applied>;

    /// Takes off its client's account what the entry `id` has put there (a top-up, or what was not used), because its own payment
    /// was taken back: as much of it as is left, once. What was spent is not owed. Returns what was taken; `None` if there was
    /// nothing to take, or that was done before.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written; then nothing was.
    async fn take_back(&self, id: &RequestEventId, at: Timestamp) -> Result<Option<Amount>>;

    /// The account of `client` in `unit`; `None` if there never was one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be read.
    async fn account(&self, client: &ClientPubkey, unit: &Unit) -> Result<Option<Account>>;

    /// Accounts in the order of their clients and units, behind `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if they could not be read.
    async fn accounts(
        &self,
        after: Option<(ClientPubkey, Unit)>,
        limit: usize,
    ) -> Result<Vec<Account>>;

    /// The movements of one account behind the number `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if they could not be read.
    async fn movements(
        &self,
        client: &ClientPubkey,
        unit: &Unit,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Movement>>;

    /// The latest movements of one account, newest first, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if they could not be read.
    async fn latest_movements(
        &self,
        client: &ClientPubkey,
        unit: &Unit,
        limit: usize,
    ) -> Result<Vec<Movement>>;

    /// Takes what is left off accounts that were not moved since `since`. Returns how many lapsed; a call does a bounded amount
    /// of work, so call again until that is 0.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written.
    async fn expire_accounts(&self, since: Timestamp, at: Timestamp) -> Result<usize>;
}

/// What an entry goes through that is paid from an account.
pub(super) fn paid_at_once(entry: &Entry, at: Timestamp) -> Vec<Transition> {
    let reference = draw_key(&entry.id);
    let payment_request = PaymentRequest::new(
        entry.pmi.clone(),
        entry.amount.clone(),
        PayReq::new(BALANCE),
        &reference,
    );
    vec![
        Transition::Issue {
            payment_request,
            watch_until: at,
        },
        Transition::Settle(Settlement::new(entry.amount.clone(), reference)),
        Transition::Claim { by: entry.id },
    ]
}

/// The name of the movement that pays for `entry`.
pub(super) fn draw_key(entry: &RequestEventId) -> String {
    format!("draw:{entry}")
}

/// The name of the movement that gives back what was paid for `entry`.
pub(super) fn give_back_key(entry: &RequestEventId) -> String {
    format!("back:{entry}")
}

/// The name of the movement that credits what `entry` paid ahead.
#[must_use]
pub fn top_up_key(entry: &RequestEventId) -> String {
    format!("top_up:{entry}")
}

/// The name of the movement that takes off again what `entry` put onto an account.
pub(super) fn taken_back_key(entry: &RequestEventId) -> String {
    format!("taken_back:{entry}")
}

/// What is taken off the account of `client` again, of which `put` came of `entry` and `on` is on it now.
pub(super) fn taken_back(
    entry: &RequestEventId,
    client: ClientPubkey,
    (put, on): (u64, u64),
    unit: Unit,
    at: Timestamp,
) -> Result<Credit> {
    let amount = match put.min(on) {
        0 => Amount::zero(unit),
        taken => Amount::new(taken, unit)?,
    };
    Ok(Credit {
        client,
        amount,
        kind: MovementKind::TakenBack,
        key: taken_back_key(entry),
        at,
    })
}

impl GiveBack {
    /// What comes onto the account of the client of `entry`; `None` if that is not allowed. Nothing is not a movement.
    pub(super) fn credit(&self, entry: &Entry, at: Timestamp) -> Option<Credit> {
        let price = entry.price();
        let (amount, kind) = match &self.unused {
            None => (price, MovementKind::GivenBack),
            Some(unused) if price.covers(unused) == Some(true) => {
                (unused.clone(), MovementKind::Unused)
            }
            Some(_) => return None,
        };
        Some(Credit {
            client: entry.client,
            amount,
            kind,
            key: give_back_key(&entry.id),
            at,
        })
    }
}

/// Why an account cannot be moved.
pub(super) fn too_much() -> crate::Error {
    crate::Error::ledger("an account cannot hold so much")
}

/// Why a part cannot be given back.
pub(super) fn more_than_paid() -> crate::Error {
    crate::Error::ledger("more than the price of a call cannot be given back")
}

/// Why a name cannot be used again.
pub(super) fn already_elsewhere() -> crate::Error {
    crate::Error::ledger("a movement of that name was made on another account")
}
