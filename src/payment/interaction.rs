//! Who sees the gate: the two lifecycles of CEP-8.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// How a priced request and its payment are tied together (CEP-8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PaymentInteraction {
    /// The request waits for its payment and is then executed.
    #[default]
    Transparent,
    /// The request is answered with `-32042`; the client pays and asks again.
    ExplicitGating,
}

impl PaymentInteraction {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transparent => "transparent",
            Self::ExplicitGating => "explicit_gating",
        }
    }
}

impl fmt::Display for PaymentInteraction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for PaymentInteraction {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "transparent" => Ok(Self::Transparent),
            "explicit_gating" => Ok(Self::ExplicitGating),
            _ => Err(Error::config(
                "payment interaction must be transparent or explicit_gating",
            )),
        }
    }
}

/// Which lifecycles a server accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PaymentInteractionPolicy {
    /// Transparent by default, explicit gating for a client that asks for it.
    Optional,
    /// Transparent only; a request for explicit gating is refused with `-32602`.
    Transparent,
}
