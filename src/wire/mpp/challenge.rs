//! One way to pay for one call, signed by the server that offers it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ChallengeKeys, canonical_base64, from_base64};
use crate::payment::{ClientPubkey, InvocationIdentity, RequestEventId};

/// The most that a challenge may take, in bytes: some clients read no more.
pub const CHALLENGE_ROOM: usize = 8 * 1024;

/// A challenge, as an element of `error.data.challenges` and, sent back, in a credential.
///
/// Clients drop what they do not know when they send it back, so whatever must come back is in
/// [`opaque`](Self::opaque).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Challenge {
    /// The HMAC over all that follows, but for the description.
    pub id: String,
    /// Who asks.
    pub realm: String,
    /// How to pay: `lightning`, `stripe`, …
    pub method: String,
    /// What for: `charge`.
    pub intent: String,
    /// What to pay, in the words of the method.
    pub request: Map<String, Value>,
    /// Until when, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Of the body of the request, over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What the challenge is bound to: see [`ChallengeBinding`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opaque: Option<String>,
    /// What is bought, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What a challenge of ours is bound to: a map of texts, as canonical JSON in base64url.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChallengeBinding {
    /// The call, by its canonical identity.
    pub op: InvocationIdentity,
    /// The entry in the ledger that it asks for the money of.
    pub entry: RequestEventId,
    /// The client; `None` where nobody vouches for who the client is, and whoever holds the proof may use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pk: Option<ClientPubkey>,
}

impl ChallengeBinding {
    /// Bound to the call `op`, and to the money of `entry`.
    #[must_use]
    pub const fn new(
        op: InvocationIdentity,
        entry: RequestEventId,
        pk: Option<ClientPubkey>,
    ) -> Self {
        Self { op, entry, pk }
    }
}

impl Challenge {
    /// A challenge of `realm` to pay what `request` says by `method` for `intent`. It has no id until it is
    /// [signed](Self::signed).
    #[must_use]
    pub fn new(realm: &str, method: &str, intent: &str, request: Map<String, Value>) -> Self {
        Self {
            id: String::new(),
            realm: realm.to_owned(),
            method: method.to_owned(),
            intent: intent.to_owned(),
            request,
            expires: None,
            digest: None,
            opaque: None,
            description: None,
        }
    }

    /// Bound to `binding`.
    #[must_use]
    pub fn bound_to(mut self, binding: &ChallengeBinding) -> Self {
        self.opaque = canonical_base64(binding);
        self
    }

    /// Signed by the first of `keys`; `None` if it cannot be signed so that it is read in one way only, or is too large.
    #[must_use]
    pub fn signed(mut self, keys: &ChallengeKeys) -> Option<Self> {
        self.id = keys.id_of(&self)?;
        let size = serde_json::to_string(&self).ok()?.len();
        (size < CHALLENGE_ROOM).then_some(self)
    }

    /// The bytes of its id, by which it is known for ever.
    #[must_use]
    pub fn name(&self) -> Option<[u8; 32]> {
        from_base64(&self.id)?.try_into().ok()
    }

    /// What it is bound to, if it is one of ours. Believe it only if [`ChallengeKeys::signed`] says so.
    #[must_use]
    pub fn binding(&self) -> Option<ChallengeBinding> {
        serde_json::from_slice(&from_base64(self.opaque.as_deref()?)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_sent_is_read_back_and_still_signed() {
        let keys = ChallengeKeys::new(["k".repeat(32)]).unwrap();
        let binding = ChallengeBinding::new(
            InvocationIdentity::from_bytes([1; 32]),
            RequestEventId::from_bytes([2; 32]),
            Some(ClientPubkey::from_bytes([3; 32])),
        );
        let request = json!({"amount": "7", "currency": "sat"});
        let request = request.as_object().cloned().unwrap();
        let mut challenge =
            Challenge::new("nostr:x", "lightning", "charge", request).bound_to(&binding);
        challenge.expires = Some("2026-11-21T10:05:00Z".into());
        let challenge = challenge.signed(&keys).unwrap();
        let text = serde_json::to_string(&challenge).unwrap();
        assert!(!text.contains("null"), "{text}");
        let read: Challenge = serde_json::from_str(&text).unwrap();
        assert_eq!(read, challenge);
        assert!(keys.signed(&read));
        assert_eq!(read.binding(), Some(binding));
    }

    #[test]
    fn one_without_a_client_says_so_and_one_that_is_too_large_is_none() {
        let keys = ChallengeKeys::new(["k".repeat(32)]).unwrap();
        let binding = ChallengeBinding::new(
            InvocationIdentity::from_bytes([1; 32]),
            RequestEventId::from_bytes([2; 32]),
            None,
        );
        let challenge = Challenge::new("r", "m", "charge", Map::new()).bound_to(&binding);
        assert_eq!(challenge.binding().unwrap().pk, None);
        let mut large = challenge;
        large.description = Some("x".repeat(CHALLENGE_ROOM));
        assert_eq!(large.signed(&keys), None);
    }
}
