//! Who a client is that signs nothing.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::payment::{ClientPubkey, RequestEventId};

/// What a client's name begins with, by what it is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KnownBy {
    /// It is whoever started this process.
    Pipe,
    /// A name that a proxy in front of us has verified.
    Proxy,
    /// A secret that it shows with each request.
    Bearer,
    /// Its session.
    Session,
    /// One request.
    Nothing,
}

impl KnownBy {
    const fn word(self) -> &'static str {
        match self {
            Self::Pipe => "pipe",
            Self::Proxy => "proxy",
            Self::Bearer => "bearer",
            Self::Session => "session",
            Self::Nothing => "nothing",
        }
    }
}

/// The secret that makes a client's key out of what the client is known by.
///
/// The books know clients by 32 bytes, over relays the public key that they sign with. For a client without one these are a
/// keyed hash, so the same client is the same after a restart, nobody can make himself another's, no client of a
/// relay can have such a key, and the books do not tell what a client is known by.
#[derive(Clone)]
pub struct PlainKey([u8; 32]);

impl PlainKey {
    /// The key that belongs to `secret`, which must stay the same as long as the ledger.
    #[must_use]
    pub fn derived_from(secret: &[u8]) -> Self {
        Self(mac(secret, &[b"tollkeeper plain clients 1"]))
    }

    pub(super) fn client(&self, by: KnownBy, name: &[u8]) -> ClientPubkey {
        ClientPubkey::from_bytes(self.mac(by.word(), &[name]))
    }

    /// Proves that something was made with this key.
    pub(super) fn mac(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut all = vec![purpose.as_bytes()];
        all.extend_from_slice(parts);
        mac(&self.0, &all)
    }
}

impl fmt::Debug for PlainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainKey")
    }
}

/// HMAC-SHA256 over `parts`, each with its length in front, so that they cannot flow into each other.
fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // A key of any length will do: it is hashed if it is long.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return [0; 32];
    };
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Numbers that no run has given before and none will give again: where nothing is signed, they name requests and sessions.
#[derive(Debug)]
pub(super) struct Fresh {
    run: [u8; 16],
    next: AtomicU64,
}

impl Fresh {
    pub(super) fn new() -> Self {
        let random = RandomState::new();
        let mut run = [0; 16];
        run[..8].copy_from_slice(&random.hash_one(1_u8).to_be_bytes());
        run[8..].copy_from_slice(&random.hash_one(2_u8).to_be_bytes());
        Self {
            run,
            next: AtomicU64::new(0),
        }
    }

    pub(super) fn number(&self) -> [u8; 24] {
        let mut number = [0; 24];
        number[..16].copy_from_slice(&self.run);
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        number[16..].copy_from_slice(&next.to_be_bytes());
        number
    }

    /// A name for a request of `client`.
    pub(super) fn event(&self, key: &PlainKey, client: &ClientPubkey) -> RequestEventId {
        RequestEventId::from_bytes(key.mac("request", &[client.as_bytes(), &self.number()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_the_same_after_a_restart_and_under_no_other_key() {
        let (key, again) = (PlainKey::derived_from(b"s"), PlainKey::derived_from(b"s"));
        let name = |key: &PlainKey, by, name: &str| key.client(by, name.as_bytes());
        let ann = name(&key, KnownBy::Proxy, "ann");
        assert_eq!(ann, name(&again, KnownBy::Proxy, "ann"));
        assert_ne!(ann, name(&key, KnownBy::Proxy, "bob"));
        assert_ne!(ann, name(&key, KnownBy::Bearer, "ann"));
        assert_ne!(
            ann,
            name(&PlainKey::derived_from(b"t"), KnownBy::Proxy, "ann")
        );
        assert!(!format!("{key:?}").contains('['));
    }

    #[test]
    fn requests_are_never_named_alike() {
        let (key, client) = (
            PlainKey::derived_from(b"s"),
            ClientPubkey::from_bytes([1; 32]),
        );
        let (run, other) = (Fresh::new(), Fresh::new());
        let names = [
            run.event(&key, &client),
            run.event(&key, &client),
            other.event(&key, &client),
        ];
        assert!(names[0] != names[1] && names[1] != names[2] && names[0] != names[2]);
    }
}
