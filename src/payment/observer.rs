//! Hooks for whoever wants to hear of payments: an alarm, a dashboard, an audit log of one's own.
//!
//! They hear of what has happened and is on the books, and cannot change it. They run beside the calls, one after the other: a
//! hook that panics stops nothing, and one that is slower than the calls misses some. Keep them short, and hand on what takes
//! long. What must not be missed is in the ledger.

use std::fmt;

use super::{Amount, ClientPubkey, Pmi, RequestEventId};

/// Hears of payments. Every method does nothing unless it is written.
pub trait PaymentObserver: fmt::Debug + Send + Sync {
    /// A call was offered for money (`challenge.created`).
    fn challenge_created(&self, payment: &ObservedPayment) {
        let _ = payment;
    }

    /// A payment has come in (`payment.success`, `machine_payment.succeeded`).
    fn payment_succeeded(&self, payment: &ObservedPayment) {
        let _ = payment;
    }

    /// A payment was not made, or what was presented for one was not taken (`payment.failed`, `machine_payment.failed`).
    /// `reason` is a word for programs.
    fn payment_failed(&self, payment: &ObservedPayment, reason: &str) {
        let _ = (payment, reason);
    }
}

/// What is told of a payment: nothing that could be spent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObservedPayment {
    /// What was sold: `tool:search`.
    pub capability: String,
    /// Who pays: the wallet, in the words of some.
    pub payer: ClientPubkey,
    /// The entry in the ledger.
    pub entry: RequestEventId,
    /// The payment method.
    pub rail: Pmi,
    /// How much.
    pub amount: Amount,
    /// The rail's name for the payment: the charge, in the words of some.
    pub reference: Option<String>,
}

impl ObservedPayment {
    /// A payment of `amount` by `payer` for `capability`, which `entry` is about.
    #[must_use]
    pub fn new(
        capability: impl Into<String>,
        payer: ClientPubkey,
        entry: RequestEventId,
        rail: Pmi,
        amount: Amount,
    ) -> Self {
        Self {
            capability: capability.into(),
            payer,
            entry,
            rail,
            amount,
            reference: None,
        }
    }

    /// The tool, if one was sold.
    #[must_use]
    pub fn tool(&self) -> Option<&str> {
        self.capability.strip_prefix("tool:")
    }
}

/// What happened to a payment, for those who dispatch on names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PaymentHappening {
    /// It was asked for.
    Created,
    /// It came in.
    Succeeded,
    /// It did not.
    Failed,
}

impl PaymentHappening {
    /// The name that mppx gives it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "challenge.created",
            Self::Succeeded => "payment.success",
            Self::Failed => "payment.failed",
        }
    }

    /// Reads its name, by whomever.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "challenge.created" => Some(Self::Created),
            "payment.success" | "payment.succeeded" | "machine_payment.succeeded" => {
                Some(Self::Succeeded)
            }
            "payment.failed" | "machine_payment.failed" => Some(Self::Failed),
            _ => None,
        }
    }
}

/// Object safety is part of the contract.
const _: fn(&dyn PaymentObserver) = |_| {};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_happening_has_the_names_that_are_in_use() {
        use PaymentHappening::{Created, Failed, Succeeded};
        for happening in [Created, Succeeded, Failed] {
            assert_eq!(
                PaymentHappening::from_name(happening.as_str()),
                Some(happening)
            );
        }
        for (alias, happening) in [
            ("machine_payment.succeeded", Some(Succeeded)),
            ("machine_payment.failed", Some(Failed)),
            ("machine_wallet.balance_low", None),
        ] {
            assert_eq!(PaymentHappening::from_name(alias), happening);
        }
    }
}
