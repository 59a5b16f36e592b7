//! Progress tokens that keep their JSON type.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{RequestId, meta_of};

/// The longest token that is worked with, in bytes. A longer one passes, but nothing is made to hang on it.
const MOST_BYTES: usize = 128;

/// The token under which a request wants to hear of its progress: a string or an integer, like a request id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProgressToken(RequestId);

impl ProgressToken {
    /// A token that is a string.
    pub fn new(token: impl Into<String>) -> Self {
        Self(RequestId::Text(token.into()))
    }

    /// The `_meta.progressToken` of `params`; `None` if there is none, and for one that is neither a short string nor an
    /// integer.
    #[must_use]
    pub fn of(params: Option<&RawValue>) -> Option<Self> {
        let token = meta_of(params)?.remove("progressToken")?;
        let token: Self = serde_json::from_value(token).ok()?;
        token.is_short().then_some(token)
    }

    /// The token as text. The reference SDK writes numbers as text in its frames, so `1` and `"1"` are one key.
    #[must_use]
    pub fn key(&self) -> String {
        match &self.0 {
            RequestId::Number(token) => token.to_string(),
            RequestId::Text(token) => token.clone(),
        }
    }

    pub(super) fn is_short(&self) -> bool {
        !matches!(&self.0, RequestId::Text(token) if token.len() > MOST_BYTES || token.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(params: &str) -> Option<String> {
        let params = RawValue::from_string(params.to_owned()).unwrap();
        let token = ProgressToken::of(Some(&params))?;
        Some(serde_json::to_string(&token).unwrap())
    }

    #[test]
    fn a_token_keeps_its_type_and_nonsense_is_none() {
        assert_eq!(token(r#"{"_meta":{"progressToken":1}}"#).unwrap(), "1");
        assert_eq!(
            token(r#"{"_meta":{"progressToken":"1"}}"#).unwrap(),
            "\"1\""
        );
        for params in [
            "{}",
            r#"{"_meta":{}}"#,
            r#"{"_meta":{"progressToken":null}}"#,
            r#"{"_meta":{"progressToken":{}}}"#,
            r#"{"_meta":{"progressToken":""}}"#,
            "[]",
        ] {
            assert_eq!(token(params), None, "{params}");
        }
        let long = "x".repeat(MOST_BYTES + 1);
        assert_eq!(
            token(&format!(r#"{{"_meta":{{"progressToken":"{long}"}}}}"#)),
            None
        );
    }
}
