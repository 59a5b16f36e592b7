//! Priced requests between the door and the ledger: a price is being resolved, a payment request made. A client may take
//! its request back in that time, before there is anything to detach.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::payment::{ClientPubkey, RequestEventId};
use crate::wire::RequestId;

/// The requests that are being looked at. Bounded by how many are admitted at once.
#[derive(Debug, Default)]
pub(super) struct Knocks {
    knocks: Mutex<HashMap<RequestEventId, Looking>>,
}

#[derive(Debug)]
struct Looking {
    client: ClientPubkey,
    id: RequestId,
    cancelled: bool,
    /// Copies of one event are looked at side by side.
    copies: usize,
}

impl Knocks {
    fn knocks(&self) -> MutexGuard<'_, HashMap<RequestEventId, Looking>> {
        self.knocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the request `event` is being looked at.
    pub(super) fn enter(&self, event: RequestEventId, client: ClientPubkey, id: &RequestId) {
        let mut knocks = self.knocks();
        let looking = knocks.entry(event).or_insert_with(|| Looking {
            client,
            id: id.clone(),
            cancelled: false,
            copies: 0,
        });
        looking.copies += 1;
    }

    /// A copy of it is done with.
    pub(super) fn leave(&self, event: &RequestEventId) {
        let mut knocks = self.knocks();
        if let Some(looking) = knocks.get_mut(event) {
            looking.copies -= 1;
            if looking.copies == 0 {
                knocks.remove(event);
            }
        }
    }

    /// The client takes its request `id` back. `false` if no such request is being looked at.
    pub(super) fn cancel(&self, client: &ClientPubkey, id: &RequestId) -> bool {
        let mut any = false;
        for looking in self.knocks().values_mut() {
            if looking.client == *client && looking.id == *id {
                looking.cancelled = true;
                any = true;
            }
        }
        any
    }

    /// Whether it was taken back meanwhile.
    pub(super) fn is_cancelled(&self, event: &RequestEventId) -> bool {
        self.knocks().get(event).is_some_and(|it| it.cancelled)
    }
}
