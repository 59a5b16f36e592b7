//! What a client tells about its payments, as they happen.

use std::fmt;

use crate::payment::{Amount, Pmi, RequestEventId};

/// Something happened to the payment of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PaymentEvent {
    /// The server asks for money.
    Required {
        /// For this request.
        event: RequestEventId,
        /// So much.
        amount: Amount,
        /// By this method.
        pmi: Pmi,
        /// For this, in the server's words.
        description: Option<String>,
    },
    /// The wallet paid.
    Paid {
        /// For this request.
        event: RequestEventId,
        /// So much.
        amount: Amount,
    },
    /// Nobody knows whether the wallet paid. The budget stays reserved.
    Unknown {
        /// For this request.
        event: RequestEventId,
        /// So much.
        amount: Amount,
    },
    /// The server says that the money is there.
    Accepted {
        /// For this request.
        event: RequestEventId,
        /// So much, in the unit of the payment method.
        amount: u64,
    },
    /// The server will not execute the request.
    Rejected {
        /// This request.
        event: RequestEventId,
        /// Why, in the server's words.
        message: Option<String>,
    },
    /// This client will not pay.
    Declined {
        /// For this request.
        event: RequestEventId,
        /// Why.
        reason: DeclineReason,
    },
}

/// Why a client does not pay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeclineReason {
    /// The demand cannot be read: an amount that is no positive integer, a missing field.
    Malformed,
    /// No handler for the payment method.
    NoHandler(Pmi),
    /// The handler will not pay it: what it decodes differs from what was asked.
    NotHandled,
    /// More than one call may cost.
    AbovePerCall {
        /// What was asked.
        asked: Amount,
        /// What one call may cost.
        limit: Amount,
    },
    /// More than is left of the budget.
    AboveBudget {
        /// What was asked.
        asked: Amount,
        /// What is left.
        left: Amount,
    },
    /// The budget is in another unit.
    OtherUnit {
        /// What was asked.
        asked: Amount,
    },
    /// An earlier payment for the same call has an unknown outcome.
    EarlierUnknown,
    /// Explicit gating was asked for, and the server wants to be paid transparently (N-50).
    NotExplicit,
    /// The wallet said no.
    Refused,
}

impl fmt::Display for DeclineReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the payment demand cannot be read"),
            Self::NoHandler(pmi) => write!(f, "no wallet for the payment method {pmi}"),
            Self::NotHandled => f.write_str("the payment request is not what it claims to be"),
            Self::AbovePerCall { asked, limit } => {
                write!(f, "{asked} is more than one call may cost ({limit})")
            }
            Self::AboveBudget { asked, left } => {
                write!(f, "{asked} is more than is left of the budget ({left})")
            }
            Self::OtherUnit { asked } => write!(f, "the budget is in another unit than {asked}"),
            Self::EarlierUnknown => {
                f.write_str("an earlier payment for the same call has an unknown outcome")
            }
            Self::NotExplicit => f.write_str("explicit_gating was not accepted by the server"),
            Self::Refused => f.write_str("the wallet refused"),
        }
    }
}
