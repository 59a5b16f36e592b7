//! What LNbits says unasked: that something may have been paid. Only the name of the payment is read, and the gate looks
//! it up.

use std::fmt;

use serde_json::Value;
use tokio::sync::mpsc;

use crate::payment::{SettlementNotice, SettlementStream};

/// How many hints may wait. One that finds no room is found by a look-up.
const QUEUE: usize = 1024;

/// Where hints go.
#[derive(Clone)]
pub(super) struct Hints(mpsc::Sender<SettlementNotice>);

impl Hints {
    pub(super) fn channel() -> (Self, SettlementStream) {
        let (sender, stream) = mpsc::channel(QUEUE);
        (Self(sender), stream)
    }

    /// Passes on that `payment_hash` may have been paid.
    pub(super) fn may_be_paid(&self, payment_hash: String) {
        let _ = self.0.try_send(SettlementNotice::new(payment_hash, None));
    }
}

impl fmt::Debug for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hints")
    }
}

/// The payment hash in a message of the websocket: `{"payment": {…}, "wallet_balance": …}`.
pub(super) fn of_websocket(message: &str) -> Option<String> {
    let message: Value = serde_json::from_str(message).ok()?;
    of_payment(message.get("payment")?)
}

/// The payment hash in the body of a webhook: a payment as JSON, or, as LNbits 1.6 sends it, as a JSON string that holds
/// JSON.
pub(super) fn of_webhook(body: &[u8]) -> Option<String> {
    match serde_json::from_slice(body).ok()? {
        Value::String(inner) => of_payment(&serde_json::from_str(&inner).ok()?),
        payment => of_payment(&payment),
    }
}

fn of_payment(payment: &Value) -> Option<String> {
    // What goes out is none of the seller's concern.
    if payment.get("amount").and_then(Value::as_i64)? <= 0 {
        return None;
    }
    let hash = payment.get("payment_hash")?.as_str()?;
    let hex = hash.len() == 64
        && hash
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    hex.then(|| hash.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_a_payment_hash_and_nothing_else() {
        let hash = "ab".repeat(32);
        let payment = format!(r#"{{"payment_hash":"{hash}","amount":21000,"status":"success"}}"#);
        let wrapped = serde_json::to_string(&payment).unwrap();
        let pushed = format!(r#"{{"wallet_balance":7,"payment":{payment}}}"#);
        assert_eq!(of_webhook(payment.as_bytes()), Some(hash.clone()));
        assert_eq!(of_webhook(wrapped.as_bytes()), Some(hash.clone()));
        assert_eq!(of_websocket(&pushed), Some(hash));
        for body in [
            "",
            "null",
            "[]",
            "\"\"",
            "\"\\\"\\\"\"",
            r#"{"amount":1}"#,
            r#"{"payment_hash":"abc","amount":1}"#,
        ] {
            assert_eq!(of_webhook(body.as_bytes()), None, "{body}");
            assert_eq!(of_websocket(body), None, "{body}");
        }
        let outgoing = payment.replace("21000", "-21000");
        assert_eq!(of_webhook(outgoing.as_bytes()), None);
    }

    #[tokio::test]
    async fn hints_that_nobody_takes_are_dropped() {
        let (hints, mut stream) = Hints::channel();
        for at in 0..QUEUE * 2 {
            hints.may_be_paid(format!("{at:064}"));
        }
        let mut taken = 0;
        while stream.try_recv().is_ok() {
            taken += 1;
        }
        assert_eq!(taken, QUEUE);
    }
}
