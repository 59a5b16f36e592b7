//! The secrets that challenges are signed with.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::challenge::Challenge;
use super::{canonical_base64, from_base64};
use crate::error::{Error, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The shortest secret that is taken, in bytes.
pub const SHORTEST_SECRET: usize = 32;

/// Between the parts of what is signed.
const JOINT: &str = "|";

/// What a secret is derived for. Another purpose has another word, and so another secret.
const PURPOSE: &[u8] = b"tollkeeper challenge 1";

/// Secrets that challenges are signed with: the first signs, all are accepted, so that one can be exchanged for another while
/// challenges of the former are still out. Never printed.
#[derive(Clone)]
pub struct ChallengeKeys(Arc<[Vec<u8>]>);

impl ChallengeKeys {
    /// `secrets`, the one that signs first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if there is none, or one is shorter than [`SHORTEST_SECRET`]. The message
    /// does not repeat it.
    pub fn new<S: Into<String>>(secrets: impl IntoIterator<Item = S>) -> Result<Self> {
        let secrets: Vec<Vec<u8>> = secrets
            .into_iter()
            .map(|secret| secret.into().into_bytes())
            .collect();
        if secrets.is_empty() {
            return Err(Error::config("challenges need a secret to be signed with"));
        }
        if secrets.iter().any(|secret| secret.len() < SHORTEST_SECRET) {
            return Err(Error::config(format!(
                "a secret that challenges are signed with must have at least {SHORTEST_SECRET} bytes"
            )));
        }
        Ok(Self(secrets.into()))
    }

    /// A secret of their own, made from another one that is kept anyway. It tells nothing about that one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `secret` is shorter than [`SHORTEST_SECRET`].
    pub fn derived_from(secret: &[u8]) -> Result<Self> {
        if secret.len() < SHORTEST_SECRET {
            return Err(Error::config("there is too little to derive a secret from"));
        }
        Ok(Self([sign(secret, PURPOSE)].into()))
    }

    /// The same, which accept what `others` have signed, too.
    #[must_use]
    pub fn accepting(&self, others: &Self) -> Self {
        Self(self.0.iter().chain(others.0.iter()).cloned().collect())
    }

    /// The id that `challenge` gets: an HMAC over everything that binds it.
    #[must_use]
    pub(super) fn id_of(&self, challenge: &Challenge) -> Option<String> {
        let signed = what_is_signed(challenge)?;
        let id = sign(self.0.first()?, signed.as_bytes());
        Some(URL_SAFE_NO_PAD.encode(id))
    }

    /// Whether `challenge` is one of ours, unchanged. Compares in constant time.
    #[must_use]
    pub fn signed(&self, challenge: &Challenge) -> bool {
        let (Some(signed), Some(id)) = (what_is_signed(challenge), from_base64(&challenge.id))
        else {
            return false;
        };
        let mut found = false;
        for secret in self.0.iter() {
            if let Some(mut mac) = mac(secret) {
                mac.update(signed.as_bytes());
                found |= mac.verify_slice(&id).is_ok();
            }
        }
        found
    }
}

impl fmt::Debug for ChallengeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChallengeKeys({})", self.0.len())
    }
}

/// The seven parts, in their order; one that is absent is empty.
fn what_is_signed(challenge: &Challenge) -> Option<String> {
    let request = canonical_base64(&challenge.request)?;
    let absent = String::new();
    let parts = [
        &challenge.realm,
        &challenge.method,
        &challenge.intent,
        &request,
        challenge.expires.as_ref().unwrap_or(&absent),
        challenge.digest.as_ref().unwrap_or(&absent),
        challenge.opaque.as_ref().unwrap_or(&absent),
    ];
    // A joint inside a part could move what is signed from one part into another.
    let ambiguous = parts.iter().any(|part| part.contains(JOINT));
    (!ambiguous).then(|| parts.map(String::as_str).join(JOINT))
}

fn mac(secret: &[u8]) -> Option<Hmac<Sha256>> {
    // An HMAC takes a key of any length.
    Hmac::new_from_slice(secret).ok()
}

fn sign(secret: &[u8], what: &[u8]) -> Vec<u8> {
    mac(secret)
        .map(|mac| mac.chain_update(what).finalize().into_bytes().to_vec())
        .unwrap_or_default()
}

#[cfg(test)]
#[allow(
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    reason = "vectors read best as they are written"
)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// As `new`, for the vectors, whose secret is shorter than ours may be.
    fn vectors() -> ChallengeKeys {
        ChallengeKeys([b"test-vector-secret".to_vec()].into())
    }

    fn challenge(request: Value) -> Challenge {
        Challenge {
            id: String::new(),
            realm: "api.example.com".into(),
            method: "tempo".into(),
            intent: "charge".into(),
            request: request.as_object().cloned().unwrap(),
            expires: None,
            digest: None,
            opaque: None,
            description: None,
        }
    }

    fn opaque(value: Value) -> Option<String> {
        canonical_base64(&value)
    }

    /// The vectors that the SDKs of the protocol share (wevm/mppx, src/Challenge.test.ts; tempoxyz/mpp-rs,
    /// src/protocol/core/challenge.rs).
    #[test]
    fn the_ids_are_those_of_the_vectors() {
        const EXPIRES: &str = "2025-01-06T12:00:00Z";
        const DIGEST: &str = "sha-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE";
        type Change = fn(&mut Challenge);
        let plain = || json!({"amount": "1000000"});
        let vectors: Vec<(Value, Change, &str)> = vec![
            (
                plain(),
                |_| {},
                "X6v1eo7fJ76gAxqY0xN9Jd__4lUyDDYmriryOM-5FO4",
            ),
            (
                plain(),
                |c| c.expires = Some(EXPIRES.into()),
                "ChPX33RkKSZoSUyZcu8ai4hhkvjZJFkZVnvWs5s0iXI",
            ),
            (
                plain(),
                |c| c.digest = Some(DIGEST.into()),
                "JHB7EFsPVb-xsYCo8LHcOzeX1gfXWVoUSzQsZhKAfKM",
            ),
            (
                plain(),
                |c| {
                    c.expires = Some(EXPIRES.into());
                    c.digest = Some(DIGEST.into());
                },
                "m39jbWWCIfmfJZSwCfvKFFtBl0Qwf9X4nOmDb21peLA",
            ),
            (
                plain(),
                |c| c.opaque = opaque(json!({"pi": "pi_3abc123XYZ"})),
                "rxzKZ2qjXvinqCH96RORTZEPs1KXsA-0AUjrCAPFOWc",
            ),
            (
                plain(),
                |c| {
                    c.opaque = opaque(json!({"pi": "pi_3abc123XYZ"}));
                    c.expires = Some(EXPIRES.into());
                },
                "KAfoMrA4fnzS1DPWN_cUv_b3_yHxCizdp6OhH7gluMY",
            ),
            (
                plain(),
                |c| c.opaque = opaque(json!({})),
                "vb4IyH-0LdJ3s7L0QAw8jIzcZkyxksPhIvEfmHmzA9k",
            ),
            (
                plain(),
                |c| c.opaque = opaque(json!({"deposit": "dep_456", "pi": "pi_3abc123XYZ"})),
                "aKskU8sadR5ZuFbUCsIwhO-ENxuVpTw17FdwHEXsJDk",
            ),
            (
                json!({"methodDetails": {"chainId": 42431}, "amount": "1000000", "currency": "0x1234"}),
                |_| {},
                "TqujwpuDDg_zsWGINAd5XObO2rRe6uYufpqvtDmr6N8",
            ),
            (
                json!({}),
                |_| {},
                "yLN7yChAejW9WNmb54HpJIWpdb1WWXeA3_aCx4dxmkU",
            ),
            (
                plain(),
                |c| c.method = "stripe".into(),
                "o0ra2sd7HcB4Ph0Vns69gRDUhSj5WNOnUopcDqKPLz4",
            ),
            (
                plain(),
                |c| c.intent = "session".into(),
                "aAY7_IEDzsznNYplhOSE8cERQxvjFcT4Lcn-7FHjLVE",
            ),
            (
                plain(),
                |c| c.realm = "payments.other.com".into(),
                "3F5bOo2a9RUihdwKk4hGRvBvzQmVPBMDvW0YM-8GD00",
            ),
        ];
        for (request, change, id) in vectors {
            let mut challenge = challenge(request);
            change(&mut challenge);
            assert_eq!(super::tests::vectors().id_of(&challenge).unwrap(), id);
            challenge.id = id.to_owned();
            assert!(super::tests::vectors().signed(&challenge));
        }
    }

    #[test]
    fn whatever_is_changed_is_noticed() {
        let keys = ChallengeKeys::new(["a".repeat(32)]).unwrap();
        let mut ours = challenge(json!({"amount": "100", "currency": "sat"}));
        ours.expires = Some("2026-11-21T10:05:00Z".into());
        ours.opaque = opaque(json!({"op": "x"}));
        ours.id = keys.id_of(&ours).unwrap();
        assert!(keys.signed(&ours));
        let changes: [fn(&mut Challenge); 8] = [
            |c| c.id = "x".repeat(43),
            |c| c.id.clear(),
            |c| c.realm.push('x'),
            |c| c.method = "stripe".into(),
            |c| c.intent = "session".into(),
            |c| {
                c.request.insert("amount".into(), "1".into());
            },
            |c| c.expires = Some("2027-11-21T10:05:00Z".into()),
            |c| c.opaque = None,
        ];
        for change in changes {
            let mut forged = ours.clone();
            change(&mut forged);
            assert!(!keys.signed(&forged), "{forged:?}");
        }
        // From one part into its neighbour.
        let mut moved = challenge(json!({}));
        moved.realm = "a|b".into();
        assert_eq!(keys.id_of(&moved), None);
        let mut described = ours.clone();
        described.description = Some("in other words".into());
        assert!(keys.signed(&described), "the description is not bound");
    }

    #[test]
    fn a_secret_is_exchanged_while_challenges_are_out() {
        let (old, new) = ("o".repeat(32), "n".repeat(32));
        let mut out = challenge(json!({"amount": "1"}));
        out.id = ChallengeKeys::new([&*old]).unwrap().id_of(&out).unwrap();
        assert!(!ChallengeKeys::new([&*new]).unwrap().signed(&out));
        let both = ChallengeKeys::new([&*new, &*old]).unwrap();
        assert!(both.signed(&out));
        assert_ne!(both.id_of(&out).unwrap(), out.id);
        let derived = ChallengeKeys::derived_from(&[7; 32]).unwrap();
        assert!(!derived.signed(&out) && derived.accepting(&both).signed(&out));
    }

    #[test]
    fn short_secrets_are_refused_and_none_is_printed() {
        assert!(ChallengeKeys::new(Vec::<String>::new()).is_err());
        let error = ChallengeKeys::new(["hunter2"]).unwrap_err().to_string();
        assert!(
            error.contains("32") && !error.contains("hunter2"),
            "{error}"
        );
        let secret = "s3cret".repeat(8);
        let keys = ChallengeKeys::new([&*secret]).unwrap();
        assert!(!format!("{keys:?}").contains("s3cret"));
    }
}
