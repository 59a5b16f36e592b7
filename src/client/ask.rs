//! Asking a person before something is paid.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::payment::{Amount, ServerPubkey};

/// Asks whoever holds the purse. Implemented by whatever can reach a person; never by a model.
#[async_trait]
pub trait AskBuyer: Debug + Send + Sync {
    /// Whether this may be paid: `true` for a clear yes, `false` for everything else. The future is dropped when the time
    /// is over or nobody waits for the call any more, which counts as no.
    async fn ask(&self, question: &PaymentQuestion) -> bool;
}

/// What a person needs to know to decide. None of it is the server's description, which may say anything.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PaymentQuestion {
    /// Who is to be paid.
    pub server: ServerPubkey,
    /// For what, in CEP-8's notation.
    pub capability: String,
    /// How much, as the payment request itself says.
    pub amount: Amount,
    /// What would be left of the budget of this run.
    pub left_of_budget: Amount,
    /// What would be left under the tightest limit of the policy.
    pub left_of_policy: Option<Amount>,
    /// How long there is to answer.
    pub within: Duration,
}
