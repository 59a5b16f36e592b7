//! What wallets write, read leniently: the JSON of NIP-47 as it is spoken, not only as it is specified.
//!
//! Wallets leave fields out, write `null`, an empty text or a zero for "none", and numbers as texts. What is read loosely
//! here is form only. Whether money moved hangs on two fields, and a wallet that says neither has not said it: `state`,
//! and where there is none, `settled_at`. A preimage is no sign of settlement: whoever made an invoice knows it from the
//! beginning.

use serde_json::Value;

use super::error::NwcError;
use crate::rails::lightning::bolt11::{Invoice, Network};

/// Reads an answer to `method`.
pub(super) fn read_answer(text: &str, method: &str) -> Result<Value, NwcError> {
    let Ok(Value::Object(mut answer)) = serde_json::from_str(text) else {
        return Err(NwcError::Garbage("it is no JSON object"));
    };
    if let Some(error) = answer.get("error").filter(|error| !is_nothing(error)) {
        let (code, words) = match error {
            Value::String(words) => ("OTHER", words.as_str()),
            error => (
                text_of(error, "code").unwrap_or("OTHER"),
                text_of(error, "message").unwrap_or_default(),
            ),
        };
        return Err(NwcError::said(code, words));
    }
    match answer.get("result_type") {
        Some(Value::String(kind)) if kind != method => {
            return Err(NwcError::Garbage("it answers another method"));
        }
        _ => {}
    }
    match answer.remove("result") {
        Some(result @ (Value::Object(_) | Value::Array(_))) => Ok(result),
        _ => Err(NwcError::Garbage("it has neither a result nor an error")),
    }
}

/// Whether money came or went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Incoming,
    Outgoing,
}

/// How a transaction stands, by the wallet's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Settled,
    Expired,
    Failed,
}

/// An invoice or a payment, as a wallet describes it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Transaction {
    pub(super) direction: Option<Direction>,
    pub(super) state: State,
    /// `state` is the wallet's own word, and not concluded from what it leaves out.
    pub(super) says_state: bool,
    /// Lower case.
    pub(super) payment_hash: Option<String>,
    pub(super) invoice: Option<String>,
    pub(super) preimage: Option<String>,
    pub(super) amount_msat: Option<u64>,
    pub(super) created_at: Option<u64>,
    pub(super) settled_at: Option<u64>,
}

impl Transaction {
    pub(super) fn read(value: &Value) -> Option<Self> {
        if !value.is_object() {
            return None;
        }
        let time = |key| number_of(value, key).filter(|secs| *secs > 0);
        let owned = |key| text_of(value, key).map(str::to_owned);
        let settled_at = time("settled_at");
        let said = text_of(value, "state").map(str::to_ascii_lowercase);
        let state = match said.as_deref() {
            Some("settled") => State::Settled,
            Some("expired" | "canceled" | "cancelled") => State::Expired,
            Some("failed") => State::Failed,
            // "accepted" is a held payment: on its way, not there.
            Some(_) => State::Pending,
            None if settled_at.is_some() => State::Settled,
            None => State::Pending,
        };
        let invoice = owned("invoice");
        let hash = text_of(value, "payment_hash")
            .map(str::to_ascii_lowercase)
            .or_else(|| Some(Invoice::parse(invoice.as_deref()?).ok()?.payment_hash));
        Some(Self {
            direction: match text_of(value, "type") {
                Some("incoming") => Some(Direction::Incoming),
                Some("outgoing") => Some(Direction::Outgoing),
                _ => None,
            },
            state,
            says_state: said.is_some(),
            payment_hash: hash,
            preimage: owned("preimage"),
            amount_msat: number_of(value, "amount").filter(|msat| *msat > 0),
            created_at: time("created_at"),
            settled_at,
            invoice,
        })
    }

    /// Whether this could be about the payment of `hash`. A wallet that does not say which payment it describes is
    /// believed to describe the one that was asked for.
    pub(super) fn is_about(&self, hash: &str) -> bool {
        self.payment_hash.as_deref().is_none_or(|own| own == hash)
    }
}

/// The transactions of a listing.
pub(super) fn read_listing(result: &Value) -> Result<Vec<Transaction>, NwcError> {
    let listed = match result {
        Value::Array(listed) => listed,
        result => match result.get("transactions") {
            Some(Value::Array(listed)) => listed,
            Some(Value::Null) => return Ok(Vec::new()),
            _ => return Err(NwcError::Garbage("it lists no transactions")),
        },
    };
    Ok(listed.iter().filter_map(Transaction::read).collect())
}

/// What a wallet says that it can do for this connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Abilities {
    /// `None`: it does not say.
    pub(super) methods: Option<Vec<String>>,
    pub(super) notifications: Vec<String>,
    pub(super) network: Option<Network>,
}

impl Abilities {
    /// From the result of `get_info`.
    pub(super) fn read(result: &Value) -> Self {
        Self {
            methods: result
                .get("methods")
                .map(words)
                .filter(|words| !words.is_empty()),
            notifications: result.get("notifications").map(words).unwrap_or_default(),
            network: text_of(result, "network").and_then(|name| name.parse().ok()),
        }
    }

    /// From the content of an info event, and its `notifications` tag.
    pub(super) fn of_info_event(content: &str, notifications: &str) -> Self {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        Self {
            methods: Some(words(content)).filter(|words: &Vec<String>| !words.is_empty()),
            notifications: words(notifications),
            network: None,
        }
    }

    /// Whether a method may be called; one that nothing is said about may be tried.
    pub(super) fn may(&self, method: &str) -> bool {
        let named = |methods: &Vec<String>| methods.iter().any(|own| own == method);
        self.methods.as_ref().is_none_or(named)
    }

    pub(super) fn notifies(&self, kind: &str) -> bool {
        self.notifications.iter().any(|own| own == kind)
    }
}

/// A list of words, or one text of them.
fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => text.split_whitespace().map(str::to_owned).collect(),
        Value::Array(items) => items
            .iter()
            .filter_map(Value::as_str)
            .flat_map(str::split_whitespace)
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    }
}

/// A text that is there and not empty.
pub(super) fn text_of<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    let text = value.get(key)?.as_str()?.trim();
    (!text.is_empty()).then_some(text)
}

/// A whole number that is not negative, however it is written.
fn number_of(value: &Value, key: &str) -> Option<u64> {
    match value.get(key)? {
        Value::String(text) => text.trim().parse().ok(),
        number => number.as_u64().or_else(|| whole(number.as_f64()?)),
    }
}

/// `1000.0` is 1000; what is no whole number is none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a whole number between zero and 2^53"
)]
fn whole(number: f64) -> Option<u64> {
    let fits = number.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&number);
    fits.then_some(number as u64)
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::error::Code;
    use super::*;

    fn answer(value: &Value) -> Result<Value, NwcError> {
        read_answer(&value.to_string(), "make_invoice")
    }

    #[test]
    fn answers_are_read_as_wallets_write_them() {
        let result = json!({"invoice": "x"});
        for error in [json!(null), json!({}), json!("")] {
            let good = json!({"result_type": "make_invoice", "error": error, "result": result});
            assert_eq!(answer(&good), Ok(result.clone()));
        }
        assert_eq!(answer(&json!({"result": result})), Ok(result.clone()));
        let refused = json!({"error": {"code": "RATE_LIMITED", "message": "slow"}, "result": null});
        assert_eq!(
            answer(&refused).unwrap_err().code(),
            Some(Code::RateLimited)
        );
        let odd = json!({"error": "no", "result": result});
        assert_eq!(answer(&odd).unwrap_err().code(), Some(Code::Other));
    }

    #[test]
    fn what_makes_no_sense_is_garbage() {
        for text in [
            "",
            "x",
            "[]",
            "null",
            "1",
            "{}",
            r#"{"result":null}"#,
            r#"{"result":"x"}"#,
        ] {
            assert!(
                matches!(read_answer(text, "get_info"), Err(NwcError::Garbage(_))),
                "{text}"
            );
        }
        let other = json!({"result_type": "pay_invoice", "result": {}});
        assert!(matches!(answer(&other), Err(NwcError::Garbage(_))));
        let deep = "[".repeat(100_000);
        assert!(matches!(
            read_answer(&deep, "get_info"),
            Err(NwcError::Garbage(_))
        ));
    }

    #[test]
    fn settled_is_what_a_wallet_says_is_settled() {
        let state = |value: Value| Transaction::read(&value).unwrap().state;
        assert_eq!(state(json!({"state": "settled"})), State::Settled);
        assert_eq!(
            state(json!({"state": "SETTLED", "settled_at": null})),
            State::Settled
        );
        assert_eq!(state(json!({"settled_at": 1_700_000_000})), State::Settled);
        assert_eq!(state(json!({"settled_at": "1700000000"})), State::Settled);
        for unsettled in [
            json!({}),
            json!({"settled_at": 0}),
            json!({"settled_at": null}),
            json!({"settled_at": ""}),
            json!({"settled_at": -1}),
            // Its maker knows the preimage of an invoice that nobody has paid.
            json!({"preimage": "11".repeat(32)}),
            json!({"state": "pending", "settled_at": 1_700_000_000}),
            json!({"state": "accepted"}),
            json!({"state": "news"}),
        ] {
            assert_eq!(state(unsettled.clone()), State::Pending, "{unsettled}");
        }
        assert_eq!(state(json!({"state": "failed"})), State::Failed);
        assert_eq!(state(json!({"state": "expired"})), State::Expired);
        assert!(Transaction::read(&json!("settled")).is_none());
    }

    #[test]
    fn numbers_are_whole_however_they_are_written() {
        let amount = |value: Value| {
            Transaction::read(&json!({"amount": value}))
                .unwrap()
                .amount_msat
        };
        assert_eq!(amount(json!(1000)), Some(1000));
        assert_eq!(amount(json!(1000.0)), Some(1000));
        assert_eq!(amount(json!("1000")), Some(1000));
        for none in [
            json!(null),
            json!(0),
            json!(-1000),
            json!(0.5),
            json!(1e30),
            json!("x"),
            json!([]),
        ] {
            assert_eq!(amount(none.clone()), None, "{none}");
        }
    }

    #[test]
    fn a_transaction_is_about_the_payment_that_it_names() {
        let named = Transaction::read(&json!({"payment_hash": "AB"})).unwrap();
        assert!(named.is_about("ab") && !named.is_about("cd"));
        assert!(Transaction::read(&json!({})).unwrap().is_about("cd"));
    }

    #[test]
    fn listings_come_in_two_forms() {
        let one = json!([{"payment_hash": "ab"}, "junk"]);
        assert_eq!(
            read_listing(&json!({"transactions": one})).unwrap().len(),
            1
        );
        assert_eq!(read_listing(&one).unwrap().len(), 1);
        assert!(
            read_listing(&json!({"transactions": null}))
                .unwrap()
                .is_empty()
        );
        assert!(read_listing(&json!({})).is_err());
    }

    #[test]
    fn abilities_are_lists_or_texts_and_silence_forbids_nothing() {
        let info = json!({"methods": ["pay_invoice", "make_invoice"], "network": "regtest", "notifications": "payment_received x"});
        let abilities = Abilities::read(&info);
        assert!(abilities.may("make_invoice") && !abilities.may("lookup_invoice"));
        assert!(abilities.notifies("payment_received") && !abilities.notifies("payment_sent"));
        assert_eq!(abilities.network, Some(Network::Regtest));
        assert!(Abilities::read(&json!({})).may("make_invoice"));
        assert!(Abilities::read(&json!({"methods": []})).may("make_invoice"));
        let event = Abilities::of_info_event("make_invoice lookup_invoice", "payment_received");
        assert!(
            event.may("lookup_invoice")
                && !event.may("pay_invoice")
                && event.notifies("payment_received")
        );
    }
}
