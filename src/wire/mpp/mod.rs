//! The Machine Payments Protocol over MCP: challenges, credentials, receipts, as JSON.
//!
//! A challenge says what to pay and is signed by an HMAC, so that nothing about it has to be remembered to know it again. A
//! credential is a challenge sent back with a proof. A receipt says that the proof was taken. That each proof counts once is
//! not decided here: an HMAC tells where a challenge comes from, not how often it was used.

mod capability;
mod challenge;
mod credential;
mod keys;
mod pricing;
mod problem;
mod receipt;

pub use capability::{declares_payment, payment_capability, with_payment_capability};
pub use challenge::{CHALLENGE_ROOM, Challenge, ChallengeBinding};
pub use credential::{CREDENTIAL_KEY, Credential, lift_credential, take_credential};
pub use keys::{ChallengeKeys, SHORTEST_SECRET};
pub use pricing::{
    PAYMENT_INFO_KEY, PRICING_KEY, ToolPrice, currency_and_unit, offer, pricing, with_prices,
};
pub use problem::{Problem, VERIFICATION_FAILED_CODE, with_challenges};
pub use receipt::{RECEIPT_KEY, Receipt, with_receipt};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// `value` as canonical JSON (RFC 8785) in base64url; `None` if it has no canonical form.
fn canonical_base64(value: &impl Serialize) -> Option<String> {
    let canonical = serde_json_canonicalizer::to_vec(value).ok()?;
    Some(URL_SAFE_NO_PAD.encode(canonical))
}

/// What tells one proof from another, and gives nothing of it away: a digest of its canonical JSON.
#[must_use]
pub fn proof_digest(fields: &Map<String, Value>) -> String {
    let canonical = serde_json_canonicalizer::to_vec(fields).unwrap_or_default();
    format!(
        "sha-256={}",
        URL_SAFE_NO_PAD.encode(Sha256::digest(canonical))
    )
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}
