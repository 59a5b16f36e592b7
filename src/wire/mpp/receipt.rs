//! What a client gets with a result that it paid for by a credential.

use serde::{Deserialize, Serialize};

use super::super::{Message, Payload, meta_of, with_meta};

/// The key of `result._meta` under which a receipt is.
pub const RECEIPT_KEY: &str = "org.paymentauth/receipt";

/// Says that a credential was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Receipt {
    /// `success`.
    pub status: String,
    /// The method that was paid by.
    pub method: String,
    /// When the payment was taken, in RFC 3339.
    pub timestamp: String,
    /// The payment, by its public name: a payment hash, the id of a charge. Never a proof.
    pub reference: String,
    /// The challenge that it answers.
    #[serde(rename = "challengeId")]
    pub challenge_id: String,
}

impl Receipt {
    /// For the challenge `challenge_id`, paid by `method` at `timestamp` as `reference`.
    #[must_use]
    pub fn new(challenge_id: &str, method: &str, timestamp: String, reference: String) -> Self {
        Self {
            status: "success".to_owned(),
            method: method.to_owned(),
            timestamp,
            reference,
            challenge_id: challenge_id.to_owned(),
        }
    }
}

/// `message` with `receipt`, if it is a result; an error has none.
#[must_use]
pub fn with_receipt(message: Message, receipt: &Receipt) -> Message {
    let Message::Response(mut response) = message else {
        return message;
    };
    if let Payload::Result(result) = &response.payload
        && let Ok(receipt) = serde_json::to_value(receipt)
    {
        let mut meta = meta_of(Some(result)).unwrap_or_default();
        meta.insert(RECEIPT_KEY.to_owned(), receipt);
        // A result that is no object has no room for it, and stays as it is.
        if let Ok(Some(result)) = with_meta(Some(result.clone()), &meta) {
            response.payload = Payload::Result(result);
        }
    }
    response.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> String {
        let receipt = Receipt::new(
            "id",
            "lightning",
            "2026-11-21T10:05:00Z".into(),
            "ab".into(),
        );
        with_receipt(Message::parse(text).unwrap(), &receipt).to_json()
    }

    #[test]
    fn a_result_gets_its_receipt_and_an_error_none() {
        let text = with(
            r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"_meta":{"a":1},"isError":true}}"#,
        );
        let result: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            result["result"]["_meta"]["org.paymentauth/receipt"],
            serde_json::json!({
                "challengeId": "id", "method": "lightning", "reference": "ab", "status": "success",
                "timestamp": "2026-11-21T10:05:00Z",
            })
        );
        assert!(text.contains(r#""a":1"#) && text.contains(r#""isError":true"#));
        for other in [
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":[1]}"#,
        ] {
            assert_eq!(with(other), other);
        }
    }
}
