//! What a client tells about its payments, as they happen.

use std::fmt;

use super::ledger::{Attempt, AttemptId};
use crate::payment::{Amount, Pmi, PriceRange, RequestEventId, ServerPubkey, Timestamp};

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

/// A payment that was made, or may have been made, before.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Earlier {
    /// Its number in the books.
    pub attempt: AttemptId,
    /// How much.
    pub amount: Amount,
    /// When it was reserved.
    pub at: Timestamp,
}

impl Earlier {
    pub(super) fn of(attempt: &Attempt) -> Self {
        Self {
            attempt: attempt.id,
            amount: attempt.amount().clone(),
            at: attempt.new.at,
        }
    }
}

impl fmt::Display for Earlier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "payment {} of {}", self.attempt, self.amount)
    }
}

/// Why a client does not pay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeclineReason {
    /// The demand cannot be read: an amount that is no positive integer, a missing field.
    Malformed,
    /// No handler for the payment method.
    NoHandler(Pmi),
    /// The handler will not pay it.
    NotHandled,
    /// The payment request is wrong in itself.
    Invalid {
        /// What is wrong, in the words of the wallet's handler.
        why: String,
    },
    /// The payment request itself says another amount than the server.
    AmountDiffers {
        /// What the server says.
        said: Amount,
        /// What the payment request asks for.
        asked: Amount,
    },
    /// The payment request can no longer be paid.
    Expired,
    /// The call has no canonical identity, so nobody could tell whether it was paid for before.
    NoIdentity,
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
    /// More than is left under a limit of the policy.
    AboveLimit {
        /// The limit, as the policy calls it.
        rule: String,
        /// What was asked.
        asked: Amount,
        /// The limit.
        limit: Amount,
        /// What is left under it.
        left: Amount,
    },
    /// A limit, or the advertised price, is in a unit that there is no rate for now.
    NoRate {
        /// The limit, as the policy calls it.
        rule: String,
        /// What was asked.
        asked: Amount,
        /// The limit.
        limit: Amount,
    },
    /// More than the server has advertised.
    AboveAdvertised {
        /// What was asked.
        asked: Amount,
        /// What was advertised.
        advertised: PriceRange,
    },
    /// Only advertised prices are paid, and none was seen.
    NotAdvertised,
    /// The policy denies this server.
    ServerDenied(ServerPubkey),
    /// The policy allows other servers.
    ServerNotAllowed(ServerPubkey),
    /// The server took money, or may have taken it, several times in a row without a result.
    Breaker {
        /// How often.
        payments: u32,
        /// How often it may.
        limit: u32,
        /// How much.
        amounts: Vec<Amount>,
    },
    /// The same payment request was paid before, or may have been.
    PaidBefore(Earlier),
    /// An earlier payment for the same call has an unknown outcome.
    EarlierUnknown(Earlier),
    /// The same call is being paid for, or waits for its answer, somewhere else.
    UnderWay(Earlier),
    /// The call has made as many payments as it may, and has no answer.
    MaxPayments {
        /// How many it made.
        made: u32,
        /// How many it may make.
        limit: u32,
        /// The last of them.
        last: Earlier,
    },
    /// A person has to agree first, and nobody can be asked.
    AskFirst {
        /// What was asked.
        asked: Amount,
        /// From where on a person is asked.
        above: Amount,
        /// What is left under the tightest limit.
        left: Option<Amount>,
    },
    /// A person was asked, and did not agree in time.
    NotApproved {
        /// What was asked.
        asked: Amount,
    },
    /// The books cannot be written, so nothing may be paid.
    NoBooks,
    /// Explicit gating was asked for, and the server wants to be paid transparently (N-50).
    NotExplicit,
    /// The wallet said no.
    Refused,
}

impl DeclineReason {
    /// The rule that forbids the payment, as the policy, the flags and the errors call it.
    #[must_use]
    pub fn rule(&self) -> &str {
        match self {
            Self::Malformed => "malformed",
            Self::NoHandler(_) => "no_wallet",
            Self::NotHandled => "not_handled",
            Self::Invalid { .. } => "invalid",
            Self::AmountDiffers { .. } => "amount_differs",
            Self::Expired => "expired",
            Self::NoIdentity => "no_identity",
            Self::AbovePerCall { .. } => "per_call",
            Self::AboveBudget { .. } | Self::OtherUnit { .. } => "budget",
            Self::AboveLimit { rule, .. } | Self::NoRate { rule, .. } => rule,
            Self::AboveAdvertised { .. } | Self::NotAdvertised => "advertised",
            Self::ServerDenied(_) => "deny",
            Self::ServerNotAllowed(_) => "allow",
            Self::Breaker { .. } => "breaker",
            Self::PaidBefore(_) => "paid_before",
            Self::EarlierUnknown(_) => "earlier_unknown",
            Self::UnderWay(_) => "under_way",
            Self::MaxPayments { .. } => "max_payments",
            Self::AskFirst { .. } | Self::NotApproved { .. } => "ask_above",
            Self::NoBooks => "no_books",
            Self::NotExplicit => "payment_interaction",
            Self::Refused => "wallet",
        }
    }
}

impl fmt::Display for DeclineReason {
    #[expect(clippy::too_many_lines, reason = "a table")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the payment demand cannot be read"),
            Self::NoHandler(pmi) => write!(f, "no wallet for the payment method {pmi}"),
            Self::NotHandled => f.write_str("the payment request is not what it claims to be"),
            Self::Invalid { why } => write!(f, "the payment request cannot be paid: {why}"),
            Self::AmountDiffers { said, asked } => write!(
                f,
                "the server says {said}, and its payment request asks for {asked}"
            ),
            Self::Expired => f.write_str("the payment request has expired"),
            Self::NoIdentity => f.write_str(
                "the params of the call are ambiguous, so a second payment could not be told",
            ),
            Self::AbovePerCall { asked, limit } => {
                write!(f, "{asked} is more than one call may cost ({limit})")
            }
            Self::AboveBudget { asked, left } => {
                write!(f, "{asked} is more than is left of the budget ({left})")
            }
            Self::OtherUnit { asked } => write!(f, "the budget is in another unit than {asked}"),
            Self::AboveLimit {
                rule,
                asked,
                limit,
                left,
            } => write!(
                f,
                "{asked} is more than is left under the limit {rule} ({left} of {limit})"
            ),
            Self::NoRate { rule, asked, limit } => write!(
                f,
                "the limit {rule} is {limit}, and there is no rate to convert {asked}"
            ),
            Self::AboveAdvertised { asked, advertised } => {
                write!(
                    f,
                    "{asked} is more than the advertised price ({advertised})"
                )
            }
            Self::NotAdvertised => f.write_str(
                "the policy pays advertised prices only, and no price was seen (advertised)",
            ),
            Self::ServerDenied(server) => {
                write!(f, "the policy denies the server {} (deny)", server.short())
            }
            Self::ServerNotAllowed(server) => write!(
                f,
                "the policy allows other servers, not {} (allow)",
                server.short()
            ),
            Self::Breaker {
                payments,
                limit,
                amounts,
            } => {
                write!(
                    f,
                    "the server took money, or may have, {payments} times in a row without a result (breaker {limit}):"
                )?;
                for (at, amount) in amounts.iter().take(5).enumerate() {
                    write!(f, "{} {amount}", if at == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Self::PaidBefore(earlier) => {
                write!(f, "the same payment request was paid before ({earlier})")
            }
            Self::EarlierUnknown(earlier) => write!(
                f,
                "an earlier payment for the same call has an unknown outcome ({earlier})"
            ),
            Self::UnderWay(earlier) => {
                write!(f, "the same call is being paid for elsewhere ({earlier})")
            }
            Self::MaxPayments { made, limit, last } => write!(
                f,
                "the call was paid for before and has no answer ({made} of max_payments {limit}, the last was {last})"
            ),
            Self::AskFirst { asked, above, .. } => write!(
                f,
                "{asked} is above {above}, and there is nobody to ask (ask_above)"
            ),
            Self::NotApproved { asked } => {
                write!(f, "nobody agreed to pay {asked} (ask_above)")
            }
            Self::NoBooks => {
                f.write_str("the books of payments cannot be written, so nothing is paid")
            }
            Self::NotExplicit => f.write_str("explicit_gating was not accepted by the server"),
            Self::Refused => f.write_str("the wallet refused"),
        }
    }
}
