//! Sessions that need no memory: a session's id proves that we gave it, so it is good after a restart too, and nobody can make us
//! hold anything for it. What is remembered is which ones were ended.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;

use super::super::identity::{Fresh, PlainKey};

/// How many ended sessions are remembered.
const ENDED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);

const ID: usize = 24;
const PROOF: usize = 16;

/// A session whose id was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Session([u8; ID]);

impl Session {
    pub(super) fn name(&self) -> &[u8] {
        &self.0
    }
}

pub(super) struct Sessions {
    key: PlainKey,
    fresh: Fresh,
    ended: Mutex<LruCache<Session, ()>>,
}

impl Sessions {
    pub(super) fn new(key: PlainKey) -> Self {
        Self {
            key,
            fresh: Fresh::new(),
            ended: Mutex::new(LruCache::new(ENDED)),
        }
    }

    /// A new session, and the id that its client shows with each request.
    pub(super) fn begin(&self) -> (Session, String) {
        let session = Session(self.fresh.number());
        let id = hex(session.name()) + &hex(&self.proof(&session));
        (session, id)
    }

    /// The session with this id; `None` if we never gave it, or it was ended.
    pub(super) fn find(&self, id: &str) -> Option<Session> {
        let bytes = unhex(id)?;
        let (name, proof) = bytes.split_at_checked(ID)?;
        let session = Session(name.try_into().ok()?);
        let same = constant_time_eq(&self.proof(&session), proof);
        (same && !self.ended().contains(&session)).then_some(session)
    }

    pub(super) fn end(&self, session: Session) {
        self.ended().put(session, ());
    }

    fn proof(&self, session: &Session) -> [u8; PROOF] {
        let mut proof = [0; PROOF];
        proof.copy_from_slice(&self.key.mac("session", &[session.name()])[..PROOF]);
        proof
    }

    fn ended(&self) -> std::sync::MutexGuard<'_, LruCache<Session, ()>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long this takes does not depend on where the two differ.
fn constant_time_eq(one: &[u8], other: &[u8]) -> bool {
    let differing = one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
    one.len() == other.len() && std::hint::black_box(differing) == 0
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let plain = text.len() == 2 * (ID + PROOF) && text.bytes().all(|b| b.is_ascii_hexdigit());
    let pairs = plain.then(|| text.as_bytes().chunks_exact(2))?;
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_survives_a_restart_and_cannot_be_made_up() {
        let sessions = Sessions::new(PlainKey::derived_from(b"s"));
        let (session, id) = sessions.begin();
        assert_eq!(sessions.find(&id), Some(session));
        let restarted = Sessions::new(PlainKey::derived_from(b"s"));
        assert_eq!(restarted.find(&id), Some(session));
        assert_eq!(Sessions::new(PlainKey::derived_from(b"t")).find(&id), None);
        for at in [0, 47, 79] {
            let mut other = id.clone().into_bytes();
            other[at] = if other[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(sessions.find(std::str::from_utf8(&other).unwrap()), None);
        }
        for wrong in ["", "zz", &id[..78], &format!("{id}00"), &"é".repeat(40)] {
            assert_eq!(sessions.find(wrong), None);
        }
        sessions.end(session);
        assert_eq!(sessions.find(&id), None);
        assert_ne!(sessions.begin().1, sessions.begin().1);
    }
}
