//! The preimage of a payment hash: what the payer of an invoice holds when it is paid.

use nostr::hashes::{Hash, sha256};

/// What a wallet's word about a preimage is worth.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Preimage {
    /// The wallet gave none. Some write an empty text, or zeros.
    Absent,
    /// It is the one: here it is, as 64 hex digits.
    Matches(String),
    /// What the wallet gave is not a preimage of the hash.
    Differs,
}

/// Never the preimage itself.
impl std::fmt::Debug for Preimage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Matches(_) => "Matches(hidden)",
            Self::Differs => "Differs",
        })
    }
}

/// Holds what a wallet gave as preimage against the payment hash (64 hex digits).
#[must_use]
pub fn judge_preimage(given: Option<&str>, payment_hash: &str) -> Preimage {
    let given = given.unwrap_or_default().trim();
    if given.bytes().all(|b| b == b'0') {
        return Preimage::Absent;
    }
    let Some(bytes) = unhex(given) else {
        return Preimage::Differs;
    };
    let hash = sha256::Hash::hash(&bytes).to_string();
    if hash.eq_ignore_ascii_case(payment_hash) {
        Preimage::Matches(given.to_ascii_lowercase())
    } else {
        Preimage::Differs
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let mut digits = pair.iter().map(|digit| char::from(*digit).to_digit(16));
        let value = digits.next()?? * 16 + digits.next()??;
        *byte = u8::try_from(value).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_preimage_of_the_hash_matches() {
        // The payment hash of the examples of BOLT 11, whose preimage nobody published, and a pair of our own.
        let preimage = "01".repeat(32);
        let hash = sha256::Hash::hash(&[1; 32]).to_string();
        assert_eq!(
            judge_preimage(Some(&preimage), &hash),
            Preimage::Matches(preimage.clone())
        );
        let shouted = judge_preimage(Some(&hash.to_uppercase()), &hash);
        assert_eq!(shouted, Preimage::Differs, "the hash itself proves nothing");
        for absent in [None, Some(""), Some("  "), Some(&*"0".repeat(64))] {
            assert_eq!(judge_preimage(absent, &hash), Preimage::Absent);
        }
        for wrong in ["01", "lnbc10u1…", &"zz".repeat(32), &"02".repeat(32), "é"] {
            assert_eq!(
                judge_preimage(Some(wrong), &hash),
                Preimage::Differs,
                "{wrong}"
            );
        }
        assert!(!format!("{:?}", judge_preimage(Some(&preimage), &hash)).contains(&preimage));
    }
}
