//! The licences that were taken back: a set of a million of them in some tens of megabytes.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use sha2::{Digest, Sha256};

use crate::payment::Timestamp;

/// 96 bits of the hash of an issuer and a name: enough that no two of a million are alike, and nobody but the issuer
/// chooses names.
type Name = [u32; 3];

/// Until when each is remembered, in seconds since the epoch. Small on purpose: see `bench licence`.
#[derive(Debug, Default)]
pub struct RevokedSet(RwLock<HashMap<Name, u32>>);

impl RevokedSet {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds licences of `issuer` with the moments when they would have run out.
    pub fn extend<'a>(
        &self,
        issuer: &str,
        revoked: impl IntoIterator<Item = (&'a str, Timestamp)>,
    ) {
        let mut set = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (id, until) in revoked {
            let until = u32::try_from(until.as_secs()).unwrap_or(u32::MAX);
            let held = set.entry(name(issuer, id)).or_default();
            *held = until.max(*held);
        }
    }

    /// Whether the licence `id` of `issuer` was taken back.
    #[must_use]
    pub fn contains(&self, issuer: &str, id: &str) -> bool {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&name(issuer, id))
    }

    /// Forgets those that would have run out before `before`.
    pub fn forget(&self, before: Timestamp) {
        let before = u32::try_from(before.as_secs()).unwrap_or(u32::MAX);
        let mut set = self.0.write().unwrap_or_else(PoisonError::into_inner);
        set.retain(|_, until| *until >= before);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the set takes in memory, in bytes, as far as it can be told.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let set = self.0.read().unwrap_or_else(PoisonError::into_inner);
        // A table of powers of two, at most seven eighths full, with a byte for each place.
        let places = (set.capacity() * 8 / 7).next_power_of_two();
        places * (size_of::<(Name, u32)>() + 1)
    }
}

fn name(issuer: &str, id: &str) -> Name {
    let mut hash = Sha256::new();
    hash.update(issuer.as_bytes());
    hash.update([0]);
    hash.update(id.as_bytes());
    let hash = hash.finalize();
    let mut words = hash
        .chunks_exact(4)
        .map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
    std::array::from_fn(|_| words.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_belong_to_their_issuer_and_are_held_until_they_run_out() {
        let set = RevokedSet::new();
        set.extend(
            "a",
            [
                ("1", Timestamp::from_secs(100)),
                ("2", Timestamp::from_secs(200)),
            ],
        );
        // The later date counts, whichever came last.
        set.extend("a", [("2", Timestamp::from_secs(50))]);
        assert!(set.contains("a", "1") && !set.contains("b", "1"));
        set.forget(Timestamp::from_secs(150));
        assert!(!set.contains("a", "1") && set.contains("a", "2"));
        assert_eq!(set.len(), 1);
    }
}
