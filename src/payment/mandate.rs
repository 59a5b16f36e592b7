//! Mandates: what a client presents is not the proof of a payment but the right to take one.
//!
//! A payment request is paid by the client; a mandate is charged by the server. So the order is turned round: the charge is on
//! the books before it is asked for, and what cannot be told of it is asked again, never charged anew.

use std::fmt;

use async_trait::async_trait;

use super::{Amount, PaymentOrder, Pmi, PresentedProof, ProofTerms, RailError, Settlement};

/// What came of a charge.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "callers must handle each of these")]
pub enum Charged {
    /// The money is there.
    Paid(Settlement),
    /// Taken on, and not decided: it is no failure.
    Pending,
    /// Nothing was taken, and for this order nothing will be.
    Refused,
    /// Nobody knows.
    Unknown(RailError),
}

/// Charges mandates. The part of a [`PaymentProcessor`](super::PaymentProcessor) whose payment method is nothing else: it makes
/// no payment requests, and [accepts](super::PaymentProcessor::accepts) no unit for one.
#[async_trait]
pub trait ChargeMandate: fmt::Debug + Send + Sync {
    /// The name of the way of paying, and what it is for, as in the [terms](Self::terms).
    fn method(&self) -> (&str, &str);

    /// How a charge of `amount` is put to clients; `None` if so much cannot be charged. The same amount always gives the same
    /// terms.
    fn terms(&self, amount: &Amount) -> Option<ProofTerms>;

    /// Whether `mandate` can be one.
    fn is_mandate(&self, mandate: &PresentedProof) -> bool;

    /// Charges `order` to `mandate`. May be called again with both, at any time: at most one charge comes of an order, whatever
    /// is lost on the way.
    async fn charge(&self, order: &PaymentOrder, mandate: &PresentedProof) -> Charged;

    /// The payment method under which a mandate may come with the request itself (CEP-8, `direct_payment`). Its name ends in
    /// `-direct`. `None`: it may not.
    fn direct(&self) -> Option<&Pmi> {
        None
    }

    /// The mandate that comes as `payload` then; `None` if it is none. There must be one way of writing each: a payload is
    /// known again by its text, and is taken once.
    fn read_direct(&self, payload: &str) -> Option<PresentedProof> {
        let _ = payload;
        None
    }
}

/// Object safety is part of the contract.
const _: fn(&dyn ChargeMandate) = |_| {};
