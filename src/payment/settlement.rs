//! What is known about money that was asked for.

use serde::{Deserialize, Serialize};

use super::{Amount, Timestamp};

/// Money that arrived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Settlement {
    /// How much arrived, in the unit that was asked for.
    pub amount: Amount,
    /// The rail's proof or name of the payment, for the books (never a preimage in clear).
    pub reference: String,
    /// When, by the rail's clock if it says so.
    pub settled_at: Option<Timestamp>,
}

impl Settlement {
    /// `amount` arrived.
    #[must_use]
    pub fn new(amount: Amount, reference: impl Into<String>) -> Self {
        Self {
            amount,
            reference: reference.into(),
            settled_at: None,
        }
    }
}

/// What a rail says about a payment request, right now.
///
/// Only [`Settled`](Self::Settled) and [`Failed`](Self::Failed) end the questions. An error or a time-out of a wallet is
/// [`Unknown`](Self::Unknown), and is asked again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettlementStatus {
    /// Not paid yet; it still can be.
    Pending,
    /// Somebody has paid, and the money is on its way: it comes, or fails to, until then at the latest (the same moment whenever
    /// it is asked for). It is waited for, and nobody is asked to pay again meanwhile.
    UnderWay(Timestamp),
    /// Paid.
    Settled(Settlement),
    /// Not paid, and by the rail's own word it no longer can be. Asked again until the grace is over, because wallets err.
    Expired,
    /// Refused by the rail for good.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// A rail's own message that something was paid.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettlementNotice {
    /// The [`reference`](super::PaymentRequest::reference) of the payment request.
    pub reference: String,
    /// What arrived. `None`: the notice is only a hint, and the gate looks the payment up.
    pub settlement: Option<Settlement>,
}

impl SettlementNotice {
    /// A notice.
    #[must_use]
    pub fn new(reference: impl Into<String>, settlement: Option<Settlement>) -> Self {
        Self {
            reference: reference.into(),
            settlement,
        }
    }
}
