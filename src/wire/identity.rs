//! The canonical identity of an invocation (CEP-8, RFC 8785).

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::StrictJson;
use crate::error::{Error, Result};
use crate::payment::InvocationIdentity;

#[derive(Serialize)]
struct Canonical<'a> {
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<&'a Value>,
}

/// SHA-256 over the canonical JSON (RFC 8785) of `{"method":…,"params":…}`, where a `_meta` at the top of an object
/// `params` is left out, nested ones stay, and absent params leave the key out (N-86).
///
/// Computed from what the client sent, before anything is injected.
///
/// # Errors
///
/// [`ErrorKind::Wire`](crate::ErrorKind::Wire) if a number is beyond ±(2^53 - 1): two different calls could then have one
/// identity, and one would be served for the other's money.
pub fn invocation_identity(
    method: &str,
    params: Option<&StrictJson>,
) -> Result<InvocationIdentity> {
    if params.is_some_and(|params| params.has_unsafe_number) {
        return Err(Error::wire("a number in params is beyond 2^53 - 1"));
    }
    let stripped;
    let params = match params.map(|params| &params.value) {
        Some(Value::Object(object)) if object.contains_key("_meta") => {
            let mut object = object.clone();
            object.remove("_meta");
            stripped = Value::Object(object);
            Some(&stripped)
        }
        other => other,
    };
    let canonical = serde_json_canonicalizer::to_vec(&Canonical { method, params })
        .map_err(|source| Error::wire("params have no canonical form").with_source(source))?;
    Ok(InvocationIdentity::from_bytes(
        Sha256::digest(&canonical).into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::super::parse_strict;
    use super::*;

    fn identity(method: &str, params: &str) -> InvocationIdentity {
        invocation_identity(method, Some(&parse_strict(params).unwrap())).unwrap()
    }

    /// SHA-256 of the canonical bytes written out by hand, so that a change of library cannot change an identity.
    #[test]
    fn the_bytes_that_are_hashed_are_fixed() {
        for (params, canonical) in [
            (
                r#"{"b":2,"a":1,"_meta":{"progressToken":1}}"#,
                r#"{"method":"tools/call","params":{"a":1,"b":2}}"#,
            ),
            (r#"{"_meta":{}}"#, r#"{"method":"tools/call","params":{}}"#),
            (
                r#"{"arguments":{"_meta":1}}"#,
                r#"{"method":"tools/call","params":{"arguments":{"_meta":1}}}"#,
            ),
            (
                r#"{"x":1.0,"y":1e0,"z":-0}"#,
                r#"{"method":"tools/call","params":{"x":1,"y":1,"z":0}}"#,
            ),
            (
                r#"{"é":"\u20ac","a":null}"#,
                "{\"method\":\"tools/call\",\"params\":{\"a\":null,\"é\":\"€\"}}",
            ),
            (r#"{"n":[56.0,0.000001,1e21]}"#, ""),
        ] {
            if canonical.is_empty() {
                assert!(
                    invocation_identity("tools/call", Some(&parse_strict(params).unwrap()))
                        .is_err()
                );
                continue;
            }
            let expected =
                InvocationIdentity::from_bytes(Sha256::digest(canonical.as_bytes()).into());
            assert_eq!(identity("tools/call", params), expected, "{params}");
        }
    }

    #[test]
    fn absent_params_and_empty_params_differ() {
        let absent = invocation_identity("tools/list", None).unwrap();
        let expected =
            InvocationIdentity::from_bytes(Sha256::digest(br#"{"method":"tools/list"}"#).into());
        assert_eq!(absent, expected);
        assert_ne!(absent, identity("tools/list", "{}"));
    }

    #[test]
    fn neighbours_beyond_2_53_are_refused_rather_than_confused() {
        let params = parse_strict(r#"{"id":9007199254740993}"#).unwrap();
        assert!(invocation_identity("tools/call", Some(&params)).is_err());
    }
}
