//! Why a licence does not count, in the words that verifiers of such licences use.

use std::borrow::Cow;
use std::fmt;

use serde_json::{Value, json};

/// Why a licence does not count. The text forms are part of the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LicenceError {
    /// None was presented.
    MissingToken,
    /// It is for another server.
    ServerMismatch,
    /// It was taken back.
    Revoked,
    /// It is not what it should be.
    InvalidToken {
        /// What is wrong with it; no part of the token.
        reason: Cow<'static, str>,
    },
}

impl LicenceError {
    pub(super) fn invalid(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::InvalidToken {
            reason: reason.into(),
        }
    }

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::MissingToken => "missing_token",
            Self::ServerMismatch => "server_mismatch",
            Self::Revoked => "revoked",
            Self::InvalidToken { .. } => "invalid_token",
        }
    }

    /// `{"error": …}`, with a `reason` where there is one: the body of a 401, and what goes with a price.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::InvalidToken { reason } => json!({ "error": self.as_str(), "reason": reason }),
            _ => json!({ "error": self.as_str() }),
        }
    }
}

impl fmt::Display for LicenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        match self {
            Self::InvalidToken { reason } => write!(f, ": {reason}"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for LicenceError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bodies_are_fixed() {
        for (error, body) in [
            (LicenceError::MissingToken, r#"{"error":"missing_token"}"#),
            (
                LicenceError::ServerMismatch,
                r#"{"error":"server_mismatch"}"#,
            ),
            (LicenceError::Revoked, r#"{"error":"revoked"}"#),
            (
                LicenceError::invalid("jwt expired"),
                r#"{"error":"invalid_token","reason":"jwt expired"}"#,
            ),
        ] {
            assert_eq!(error.to_json().to_string(), body);
        }
    }
}
