//! What the writer remembers of the entries that move: a move follows a move within moments, and reading a row back and
//! understanding it costs as much as writing it.
//!
//! Nothing here is more than a copy of a row inside the writer's own transaction. Whoever else changes rows, another process or
//! a rollback, has the copies thrown away first.

use std::collections::HashMap;

use super::rows::Stored;
use crate::ledger::Entry;
use crate::payment::RequestEventId;

/// The most text, in bytes, that one generation of copies may hold.
const MOST_BYTES: usize = 4 << 20;

/// An entry with more text than this is read from its row each time.
const LARGE: usize = 16 << 10;

/// About what a copy takes beside its text.
const OVERHEAD: usize = 1 << 10;

/// Two generations: when the younger is full, the older is forgotten.
#[derive(Debug, Default)]
pub(super) struct Recent {
    young: Generation,
    old: Generation,
}

#[derive(Debug, Default)]
struct Generation {
    copies: HashMap<RequestEventId, Stored>,
    bytes: usize,
}

impl Recent {
    /// Takes the copy of `id` out.
    pub(super) fn take(&mut self, id: &RequestEventId) -> Option<Stored> {
        self.young.take(id).or_else(|| self.old.take(id))
    }

    /// Keeps a copy of what was just written, unless it will not move again.
    pub(super) fn keep(&mut self, stored: Stored) {
        let bytes = text_of(&stored.entry);
        if stored.entry.state.is_final() || bytes > LARGE {
            return;
        }
        if self.young.bytes + bytes + OVERHEAD > MOST_BYTES {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.bytes += bytes + OVERHEAD;
        self.young.copies.insert(stored.entry.id, stored);
    }

    /// Forgets everything.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

impl Generation {
    fn take(&mut self, id: &RequestEventId) -> Option<Stored> {
        let stored = self.copies.remove(id)?;
        let bytes = text_of(&stored.entry) + OVERHEAD;
        self.bytes = self.bytes.saturating_sub(bytes);
        Some(stored)
    }
}

/// About how much text a copy of `entry` holds.
fn text_of(entry: &Entry) -> usize {
    let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let made = entry.payment_request.as_ref();
    let made = made.map_or(0, |made| made.pay_req.as_str().len() + made.reference.len());
    let notes = entry.history.iter().map(|moment| optional(&moment.note));
    entry.description.len()
        + optional(&entry.request)
        + optional(&entry.meta)
        + made
        + notes.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::sqlite::tests::{event, new};

    fn stored(n: u16, request: usize) -> Stored {
        let mut entry = Entry::quoted(new(n, "tool:a"));
        entry.request = Some("x".repeat(request));
        Stored {
            number: n.into(),
            entry,
        }
    }

    #[test]
    fn memory_is_bounded_and_what_is_recent_stays() {
        let mut recent = Recent::default();
        for n in 0..5000 {
            recent.keep(stored(n, 9_000));
            assert!(recent.young.bytes <= MOST_BYTES && recent.old.bytes <= MOST_BYTES);
        }
        assert!(recent.take(&event(0)).is_none());
        assert!(recent.take(&event(4999)).is_some());
        assert!(recent.take(&event(4999)).is_none(), "taken out");
        recent.keep(stored(1, LARGE + 1));
        assert!(recent.take(&event(1)).is_none(), "too large to keep");
        recent.forget();
        assert!(recent.take(&event(4998)).is_none());
    }
}
