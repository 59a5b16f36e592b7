//! The fake rail's proof: whoever repeats what was to be paid has paid it. It is not money.

use serde_json::{Map, Value};

use crate::payment::{CheckProof, PaymentRequest, PresentedProof, ProofTerms, Proven, Settlement};

/// Takes the payment request itself for a proof.
#[derive(Debug)]
pub(super) struct FakeProofs;

impl CheckProof for FakeProofs {
    fn method(&self) -> (&str, &str) {
        ("fake", "charge")
    }

    fn terms(&self, request: &PaymentRequest) -> Option<ProofTerms> {
        let details = Map::from_iter([("pay".to_owned(), request.pay_req.as_str().into())]);
        let fields = [
            ("amount", Value::from(request.amount.value().to_string())),
            ("currency", request.amount.unit().as_str().into()),
            ("methodDetails", details.into()),
        ];
        let fields = fields.map(|(name, value)| (name.to_owned(), value));
        Some(ProofTerms::charge("fake", Map::from_iter(fields)))
    }

    fn check(&self, request: &PaymentRequest, proof: &PresentedProof) -> Proven {
        match proof.reveal("paid") {
            None => Proven::Malformed,
            Some(paid) if paid == request.pay_req.as_str() => {
                Proven::Paid(Settlement::new(request.amount.clone(), "fake"))
            }
            Some(_) => Proven::NotPaid,
        }
    }
}
