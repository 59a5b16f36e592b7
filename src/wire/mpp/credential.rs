//! What a client sends back: the challenge that it was given, and its proof.

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::super::{meta_of, with_meta};
use super::Challenge;

/// The key of `_meta` under which a credential comes.
pub const CREDENTIAL_KEY: &str = "org.paymentauth/credential";

/// Other proofs of payment that come in `_meta`. They are nothing to us, and nothing to the handler either.
const OTHERS: [&str; 1] = ["x402/payment"];

/// A credential, read and not believed yet.
#[derive(Clone, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct Credential {
    /// The challenge, as it was sent back.
    pub challenge: Challenge,
    /// The proof, in the words of the method. A secret: whoever holds it can use it.
    pub payload: Map<String, Value>,
    /// Who the payer says it is.
    #[serde(default)]
    pub source: Option<String>,
}

impl Credential {
    /// Reads what came under [`CREDENTIAL_KEY`]; `None` if it is not a credential.
    #[must_use]
    pub fn read(value: Value) -> Option<Self> {
        serde_json::from_value(value).ok()
    }
}

/// Without the proof.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("challenge", &self.challenge.id)
            .field("method", &self.challenge.method)
            .finish_non_exhaustive()
    }
}

/// Takes a credential out of `params._meta`. Everything else keeps its text; a `_meta` that held nothing else goes with it.
#[must_use]
pub fn take_credential(params: Option<Box<RawValue>>) -> (Option<Box<RawValue>>, Option<Value>) {
    let Some(text) = params.as_deref().map(RawValue::get) else {
        return (params, None);
    };
    // Nearly all have none: a search is cheaper than a parse. An escaped spelling has a backslash.
    let may_hold = |key: &str| text.contains(key);
    let may = may_hold("payment") || may_hold("_meta") && may_hold("\\");
    if !may {
        return (params, None);
    }
    let Some(mut meta) = meta_of(params.as_deref()) else {
        return (params, None);
    };
    let before = meta.len();
    for key in OTHERS {
        meta.remove(key);
    }
    let credential = meta.remove(CREDENTIAL_KEY);
    if meta.len() == before {
        return (params, None);
    }
    // A map of strings and values is always JSON; if it were not, what is left of it must not go on.
    (with_meta(params, &meta).unwrap_or_default(), credential)
}

/// Moves a credential from the `_meta` beside `params` into the one inside, unless there is one already: then there is one
/// place to look.
#[must_use]
pub fn lift_credential(
    params: Option<Box<RawValue>>,
    beside: Option<&RawValue>,
) -> Option<Box<RawValue>> {
    let credential = beside
        .and_then(|meta| serde_json::from_str::<Map<String, Value>>(meta.get()).ok())
        .and_then(|mut meta| meta.remove(CREDENTIAL_KEY));
    let Some(credential) = credential else {
        return params;
    };
    let mut meta = meta_of(params.as_deref()).unwrap_or_default();
    meta.entry(CREDENTIAL_KEY).or_insert(credential);
    match with_meta(params.clone(), &meta) {
        Ok(lifted) => lifted,
        Err(_) => params,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> (String, Option<Value>) {
        let (params, credential) =
            take_credential(Some(RawValue::from_string(text.to_owned()).unwrap()));
        (params.unwrap().get().to_owned(), credential)
    }

    #[test]
    fn a_credential_is_taken_out_and_the_rest_keeps_its_text() {
        for key in [
            CREDENTIAL_KEY,
            r"org.paymentauth\u002fcredential",
            r"or\u0067.p\u0061ymentauth/credential",
        ] {
            let text = format!(r#"{{"a":1.0,"_meta":{{"{key}":{{"x":1}},"progressToken":7}}}}"#);
            let (params, credential) = taken(&text);
            assert_eq!(params, r#"{"_meta":{"progressToken":7},"a":1.0}"#, "{key}");
            assert_eq!(credential.unwrap()["x"], 1);
        }
        let (params, credential) = taken(r#"{"_meta":{"x402/payment":"secret"}}"#);
        assert_eq!((params.as_str(), credential), ("{}", None));
    }

    #[test]
    fn other_params_are_not_touched() {
        for text in [
            r#"{"name":"payment","_meta":{"b":1,"a":2}}"#,
            r#"{"arguments":{"_meta":{"org.paymentauth/credential":{}}}}"#,
            r#"["org.paymentauth/credential"]"#,
            "{}",
        ] {
            assert_eq!(taken(text), (text.to_owned(), None));
        }
        assert!(take_credential(None).0.is_none());
    }

    #[test]
    fn a_credential_beside_the_params_is_moved_into_them() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let beside = raw(r#"{"org.paymentauth/credential":{"x":1},"other":2}"#);
        let lifted = lift_credential(None, Some(&beside)).unwrap();
        assert_eq!(
            lifted.get(),
            r#"{"_meta":{"org.paymentauth/credential":{"x":1}}}"#
        );
        let inside = raw(r#"{"_meta":{"org.paymentauth/credential":{"x":2}},"a":1}"#);
        let lifted = lift_credential(Some(inside), Some(&beside)).unwrap();
        assert_eq!(
            taken(lifted.get()).1.unwrap()["x"],
            2,
            "the one inside stays"
        );
        let array = raw("[1]");
        assert_eq!(
            lift_credential(Some(array), Some(&beside)).unwrap().get(),
            "[1]"
        );
    }

    #[test]
    fn what_is_no_credential_is_none_and_the_proof_is_never_printed() {
        for bad in [
            serde_json::json!("x"),
            serde_json::json!({"challenge": {}, "payload": {}}),
            serde_json::json!({"payload": {}}),
        ] {
            assert!(Credential::read(bad).is_none());
        }
        let challenge = Challenge::new("r", "m", "charge", Map::new());
        let credential = Credential::read(serde_json::json!({
            "challenge": challenge, "payload": {"preimage": "hush"}, "source": "did:x"
        }))
        .unwrap();
        assert!(!format!("{credential:?}").contains("hush"));
    }
}
