//! What a licence claims, and what must be true of it.

use std::time::Duration;

use serde_json::{Map, Value};

use super::LicenceError;
use crate::payment::{Capability, ClientPubkey, PricedCapability, Timestamp};

/// What a licence must allow, where it says what it allows.
const SCOPE: &str = "mcp:invoke";

/// Claims whose signature is genuine.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims(pub(super) Map<String, Value>);

/// What the claims are held against.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    pub(super) issuer: String,
    pub(super) server_id: String,
    pub(super) leeway: Duration,
}

impl Claims {
    /// The name of the licence.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.text("jti")
    }

    /// When it runs out.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.time("exp")
    }

    /// All of them.
    #[must_use]
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Holds the claims against what is expected at `now`, but for revocation and binding.
    pub(super) fn check(&self, expected: &Expected, now: Timestamp) -> Result<(), LicenceError> {
        let Expected {
            issuer,
            server_id,
            leeway,
        } = expected;
        if self.text("iss") != Some(issuer) {
            let reason = format!("jwt issuer invalid. expected: {issuer}");
            return Err(LicenceError::invalid(reason));
        }
        let audience = format!("mcp_server:{server_id}");
        if !self.holds("aud", &audience) {
            let reason = format!("jwt audience invalid. expected: {audience}");
            return Err(LicenceError::invalid(reason));
        }
        let expires_at = self
            .expires_at()
            .ok_or_else(|| LicenceError::invalid("exp is missing"))?;
        if expires_at.plus(*leeway) <= now {
            return Err(LicenceError::invalid("jwt expired"));
        }
        for begins in ["nbf", "iat"] {
            if self.0.contains_key(begins)
                && self
                    .time(begins)
                    .is_none_or(|begins| begins > now.plus(*leeway))
            {
                return Err(LicenceError::invalid("jwt not active"));
            }
        }
        if self.text("serverId") != Some(server_id) {
            return Err(LicenceError::ServerMismatch);
        }
        let unscoped = !self.0.contains_key("scope");
        if !(unscoped || self.words("scope").any(|word| word == SCOPE)) {
            return Err(LicenceError::invalid("insufficient scope"));
        }
        if self.id().is_none_or(str::is_empty) {
            return Err(LicenceError::invalid("jti is missing"));
        }
        Ok(())
    }

    /// The key that alone may use it (RFC 7800), if it says one; `Err` if what it says cannot be read.
    pub(super) fn holder(&self) -> Result<Option<ClientPubkey>, LicenceError> {
        let Some(confirmed) = self.0.get("cnf") else {
            return Ok(None);
        };
        let key = confirmed.get("nostr").and_then(Value::as_str);
        key.and_then(|key| key.parse().ok())
            .map(Some)
            .ok_or_else(|| LicenceError::invalid("cnf cannot be read"))
    }

    /// Whether the licence is good for `listed`: for everything, unless it says for what (`capabilities`).
    pub(super) fn allow(&self, listed: &PricedCapability) -> bool {
        if !self.0.contains_key("capabilities") {
            return true;
        }
        self.words("capabilities")
            .filter_map(|word| word.parse::<Capability>().ok())
            .any(|allowed| covers(&allowed, &listed.capability))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    fn time(&self, name: &str) -> Option<Timestamp> {
        let secs = self.0.get(name)?.as_f64()?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be a time that exists"
        )]
        let millis = (0.0..=1e13)
            .contains(&secs)
            .then_some((secs * 1000.0) as u64)?;
        Some(Timestamp::from_millis(millis))
    }

    /// Whether a claim that is a text or a list of texts holds `wanted`.
    fn holds(&self, name: &str, wanted: &str) -> bool {
        match self.0.get(name) {
            Some(Value::String(text)) => text == wanted,
            Some(Value::Array(texts)) => texts.iter().any(|text| text == wanted),
            _ => false,
        }
    }

    /// The words of a claim: of a text, divided by spaces, or of a list.
    fn words(&self, name: &str) -> impl Iterator<Item = &str> {
        let (text, list) = match self.0.get(name) {
            Some(Value::String(text)) => (text.as_str(), [].as_slice()),
            Some(Value::Array(list)) => ("", list.as_slice()),
            _ => ("", [].as_slice()),
        };
        text.split_ascii_whitespace()
            .chain(list.iter().filter_map(Value::as_str))
    }
}

/// Whether `allowed` covers the whole entry `listed` of a price list: its pattern matches the entry's own.
pub(super) fn covers(allowed: &Capability, listed: &Capability) -> bool {
    if allowed.method != listed.method {
        return false;
    }
    match (&allowed.name, &listed.name) {
        (None, _) => true,
        (Some(_), None) => false,
        // A star matches any text, a star included.
        (Some(allowed), Some(listed)) => allowed.matches(listed.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_lies_inside_it() {
        for (allowed, listed, expected) in [
            ("tool:*", "tool:search", true),
            ("tool:*", "tool:sea*", true),
            ("tool:search", "tool:search", true),
            ("tool:search", "tool:sea*", false),
            ("tool:sea*", "tool:*", false),
            ("tool:*", "prompt:x", false),
            ("method:tools/call", "tool:x", true),
            ("tool:*", "method:tools/call", false),
        ] {
            let [allowed, listed] = [allowed, listed].map(|text| text.parse::<Capability>());
            let (allowed, listed) = (allowed.unwrap(), listed.unwrap());
            assert_eq!(covers(&allowed, &listed), expected, "{allowed} {listed}");
        }
    }
}
