//! Proofs of payment that a client presents with its call, for rails that can check them.
//!
//! A rail's own word (a notice, a look-up) and a proof are two witnesses of one payment. The gate takes whichever comes first,
//! and the ledger lets one payment serve one call.

use std::fmt;

use serde_json::{Map, Value};

use super::{PaymentRequest, Settlement};

/// How a payment request is put to clients that prove that they paid it: a challenge, but for what ties it to a call.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ProofTerms {
    /// The name of the way of paying, in the clients' protocol: `lightning`.
    pub method: String,
    /// What the payment is for: `charge`.
    pub intent: String,
    /// What to pay, in the words of the method.
    pub request: Map<String, Value>,
}

impl ProofTerms {
    /// `charge` by `method` for what `request` says.
    #[must_use]
    pub fn charge(method: impl Into<String>, request: Map<String, Value>) -> Self {
        Self {
            method: method.into(),
            intent: "charge".to_owned(),
            request,
        }
    }
}

/// A proof as the client sent it. A secret: whoever holds it can use it. Never printed.
#[derive(Clone, PartialEq)]
pub struct PresentedProof(Map<String, Value>);

impl PresentedProof {
    /// From its fields.
    #[must_use]
    pub const fn new(fields: Map<String, Value>) -> Self {
        Self(fields)
    }

    /// Its fields, for a digest that tells one from another.
    #[must_use]
    pub const fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The text in the field `name`, for the rail that checks it.
    #[must_use]
    pub fn reveal(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }
}

impl fmt::Debug for PresentedProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresentedProof")
    }
}

/// What a proof is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "callers must handle each of these")]
pub enum Proven {
    /// The payment request was paid.
    Paid(Settlement),
    /// That does not follow from it.
    NotPaid,
    /// It is no proof of this method at all.
    Malformed,
}

/// Checks proofs. The part of a [`PaymentProcessor`](super::PaymentProcessor) for rails whose payers hold something that nobody
/// has who did not pay. It asks nobody: what only the wallet knows is found by looking the payment up.
pub trait CheckProof: fmt::Debug + Send + Sync {
    /// The name of the way of paying, and what it is for, as in the [terms](Self::terms).
    fn method(&self) -> (&str, &str);

    /// How `request` is put to clients; `None` if no proof of it could be checked. The same request always gives the same terms.
    fn terms(&self, request: &PaymentRequest) -> Option<ProofTerms>;

    /// What `proof` says about `request`.
    fn check(&self, request: &PaymentRequest, proof: &PresentedProof) -> Proven;
}

/// Object safety is part of the contract.
const _: fn(&dyn CheckProof) = |_| {};
