//! A licence token: a JWT (RFC 7519) under HMAC-SHA-256 (RFC 7515), read and written by hand.
//!
//! One algorithm is spoken. `none`, a public-key algorithm with the secret as its key, and whatever else a header may ask
//! for are refused before anything is computed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::LicenceError;
use super::keys::Key;

const ALGORITHM: &str = "HS256";

pub(super) type HmacSha256 = Hmac<Sha256>;

/// A token, taken apart and not believed yet.
pub(super) struct Unverified<'a> {
    /// Which key it says it was signed with.
    pub(super) kid: String,
    signed: &'a str,
    claims: &'a str,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    kid: Option<String>,
    /// Extensions that must be understood: we understand none (RFC 7515, 4.1.11).
    #[serde(default)]
    crit: Option<IgnoredAny>,
}

impl<'a> Unverified<'a> {
    /// Takes `token` apart.
    pub(super) fn parse(token: &'a str) -> Result<Self, LicenceError> {
        let malformed = || LicenceError::invalid("jwt malformed");
        let (signed, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or_else(malformed)?;
        if claims.contains('.') {
            return Err(malformed());
        }
        let header: Header = serde_json::from_slice(&decode(header).ok_or_else(malformed)?)
            .map_err(|_| LicenceError::invalid("invalid token"))?;
        if header.alg != ALGORITHM {
            return Err(LicenceError::invalid("invalid algorithm"));
        }
        if header
            .typ
            .is_some_and(|typ| !typ.eq_ignore_ascii_case("JWT"))
            || header.crit.is_some()
        {
            return Err(LicenceError::invalid("invalid token"));
        }
        let kid = header
            .kid
            .filter(|kid| !kid.is_empty())
            .ok_or_else(|| LicenceError::invalid("kid is missing"))?;
        Ok(Self {
            kid,
            signed,
            claims,
            signature: decode(signature).ok_or_else(malformed)?,
        })
    }

    /// Its claims, if `key` signed them. Compared in constant time.
    pub(super) fn verify(&self, key: &Key) -> Result<Map<String, Value>, LicenceError> {
        let mut mac = key.mac();
        mac.update(self.signed.as_bytes());
        mac.verify_slice(&self.signature)
            .map_err(|_| LicenceError::invalid("invalid signature"))?;
        let claims = decode(self.claims).ok_or_else(|| LicenceError::invalid("jwt malformed"))?;
        serde_json::from_slice(&claims).map_err(|_| LicenceError::invalid("invalid token"))
    }
}

/// Signs `claims` with `key`, under the name `kid`.
pub(super) fn sign(claims: &Value, kid: &str, key: &Key) -> String {
    let header = json!({ "alg": ALGORITHM, "typ": "JWT", "kid": kid });
    let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
    token.push('.');
    token.push_str(&URL_SAFE_NO_PAD.encode(claims.to_string()));
    let mut mac = key.mac();
    mac.update(token.as_bytes());
    let signature = mac.finalize().into_bytes();
    token.push('.');
    token.push_str(&URL_SAFE_NO_PAD.encode(signature));
    token
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}
