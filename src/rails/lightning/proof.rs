//! The preimage as proof: who paid a BOLT11 invoice holds it, and so does its payee, and nobody else.
//!
//! That is true of invoices that settle when they are paid. A hold invoice does not: its payee knows the preimage long before
//! it takes the money. No rail here makes any.

use serde_json::{Map, Value, json};

use super::bolt11::{Invoice, Network};
use super::preimage::{Preimage, judge_preimage};
use crate::payment::{
    CheckProof, PaymentRequest, PresentedProof, ProofTerms, Proven, Settlement, Unit,
};

const METHOD: &str = "lightning";
const INTENT: &str = "charge";

/// Checks preimages against the invoices that were made.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "it holds nothing")]
pub struct PreimageProofs;

impl CheckProof for PreimageProofs {
    fn method(&self) -> (&str, &str) {
        (METHOD, INTENT)
    }

    fn terms(&self, request: &PaymentRequest) -> Option<ProofTerms> {
        let invoice = Invoice::parse(request.pay_req.as_str()).ok()?;
        // The networks that the method knows; a client must be able to tell them apart.
        let known = matches!(
            invoice.network,
            Network::Mainnet | Network::Regtest | Network::Signet
        );
        let ours = invoice.payment_hash == request.reference
            && *request.amount.unit() == Unit::SATS
            && invoice.sats().ok() == Some(request.amount.value());
        (known && ours).then(|| terms(request, &invoice))
    }

    fn check(&self, request: &PaymentRequest, proof: &PresentedProof) -> Proven {
        let Some(given) = proof.reveal("preimage") else {
            return Proven::Malformed;
        };
        // Some write it in capitals.
        if given.len() != 64 || !given.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Proven::Malformed;
        }
        match judge_preimage(Some(&given.to_ascii_lowercase()), &request.reference) {
            Preimage::Matches(_) => Proven::Paid(Settlement::new(
                request.amount.clone(),
                request.reference.clone(),
            )),
            _ => Proven::NotPaid,
        }
    }
}

fn terms(request: &PaymentRequest, invoice: &Invoice) -> ProofTerms {
    let details = json!({
        "invoice": request.pay_req.as_str(),
        "paymentHash": invoice.payment_hash,
        "network": invoice.network.as_str(),
    });
    let fields: Map<String, Value> = Map::from_iter([
        (
            "amount".to_owned(),
            request.amount.value().to_string().into(),
        ),
        ("currency".to_owned(), "sat".into()),
        ("methodDetails".to_owned(), details),
    ]);
    ProofTerms::charge(METHOD, fields)
}

#[cfg(test)]
mod tests {
    use nostr::hashes::{Hash, sha256};

    use super::*;
    use crate::payment::{BITCOIN_LIGHTNING_BOLT11, PayReq};

    fn request(reference: &str) -> PaymentRequest {
        PaymentRequest::new(
            BITCOIN_LIGHTNING_BOLT11.parse().unwrap(),
            "7 sats".parse().unwrap(),
            PayReq::new("lnbc"),
            reference,
        )
    }

    fn proof(preimage: &Value) -> PresentedProof {
        PresentedProof::new(Map::from_iter([("preimage".to_owned(), preimage.clone())]))
    }

    #[test]
    fn only_the_preimage_of_the_invoice_proves_its_payment() {
        let hash = sha256::Hash::hash(&[1; 32]).to_string();
        let request = request(&hash);
        let paid = PreimageProofs.check(&request, &proof(&"01".repeat(32).into()));
        let Proven::Paid(settlement) = paid else {
            panic!("{paid:?}")
        };
        assert_eq!(settlement.amount, request.amount);
        assert_eq!(settlement.reference, hash, "never the preimage");
        for wrong in ["02".repeat(32), hash.clone(), "00".repeat(32)] {
            let proven = PreimageProofs.check(&request, &proof(&wrong.into()));
            assert_eq!(proven, Proven::NotPaid);
        }
        for malformed in [json!("01"), json!("é".repeat(32)), json!(1), json!(null)] {
            let proven = PreimageProofs.check(&request, &proof(&malformed));
            assert_eq!(proven, Proven::Malformed, "{malformed}");
        }
        let nothing = PresentedProof::new(Map::new());
        assert_eq!(PreimageProofs.check(&request, &nothing), Proven::Malformed);
    }

    #[test]
    fn what_cannot_be_read_is_not_offered() {
        assert_eq!(PreimageProofs.terms(&request("x")), None);
    }
}
