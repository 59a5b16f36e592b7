//! What a payer must pay: ordered by the gate, made by a processor.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Amount, Pmi, Timestamp};

/// The `pay_req` of CEP-8: what a wallet of the right kind can pay (a BOLT11 invoice, a checkout URL, …). Opaque to all
/// but the rail that made it, and never printed.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PayReq(String);

impl PayReq {
    /// From its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the wire and for wallets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PayReq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PayReq({} bytes)", self.0.len())
    }
}

/// What the gate asks a [`PaymentProcessor`](super::PaymentProcessor) for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PaymentOrder {
    /// The name of the order, chosen and written down by the gate before the processor is asked. The same key is the same
    /// order: a processor that is asked twice must not make two things that can both be paid.
    pub idempotency_key: String,
    /// How much must arrive.
    pub amount: Amount,
    /// What is bought, for the buyer to read.
    pub description: String,
    /// How long the offer should stand.
    pub ttl: Duration,
}

impl PaymentOrder {
    /// An order.
    #[must_use]
    pub fn new(
        idempotency_key: String,
        amount: Amount,
        description: String,
        ttl: Duration,
    ) -> Self {
        Self {
            idempotency_key,
            amount,
            description,
            ttl,
        }
    }
}

/// A payment request that can be paid: what a processor made of an order, and what a handler is asked to pay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PaymentRequest {
    /// The payment method that `pay_req` belongs to.
    pub pmi: Pmi,
    /// How much it asks for.
    pub amount: Amount,
    /// What the wallet pays.
    pub pay_req: PayReq,
    /// The rail's own name for it (a payment hash, a session id), by which it is looked up.
    pub reference: String,
    /// When it can no longer be paid, if it ends.
    pub expires_at: Option<Timestamp>,
}

impl PaymentRequest {
    /// A payment request that does not end.
    #[must_use]
    pub fn new(pmi: Pmi, amount: Amount, pay_req: PayReq, reference: impl Into<String>) -> Self {
        Self {
            pmi,
            amount,
            pay_req,
            reference: reference.into(),
            expires_at: None,
        }
    }

    /// The same, which can be paid until `at`.
    #[must_use]
    pub fn expiring(mut self, at: Timestamp) -> Self {
        self.expires_at = Some(at);
        self
    }
}
