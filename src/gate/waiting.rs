//! Requests that their client may still take back: those that are looked at, between the door and the ledger, and those that
//! are parked until their money comes.
//!
//! Both are under one lock, so that there is no moment at which a request is neither: whoever takes it back finds it in one
//! of the two, and what was taken back is never handed out to be served.

use std::collections::HashMap;

use super::sync::{Mutex, MutexGuard, PoisonError};
use crate::payment::{ClientPubkey, RequestEventId};
use crate::transport::Inbound;
use crate::wire::{Message, RequestId};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Waiting {
    requests: Mutex<Requests>,
}

#[derive(Debug, Default)]
struct Requests {
    /// Bounded by how many are admitted at once.
    looked_at: HashMap<RequestEventId, LookedAt>,
    /// Each has an open entry in the ledger, whose limits bound this map.
    parked: HashMap<RequestEventId, Inbound>,
}

#[derive(Debug)]
struct LookedAt {
    client: ClientPubkey,
    id: RequestId,
    cancelled: bool,
    /// Copies of one event are looked at side by side.
    copies: usize,
}

/// What a client took back.
#[derive(Debug, Default)]
pub(super) struct TakenBack {
    /// A request that is being looked at: it will not be parked.
    pub(super) looked_at: bool,
    /// A request that was parked, and is no longer.
    pub(super) parked: Option<(RequestEventId, Inbound)>,
}

impl Waiting {
    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the request `event` is being looked at.
    pub(super) fn enter(&self, event: RequestEventId, client: ClientPubkey, id: &RequestId) {
        let mut requests = self.requests();
        let looked_at = requests.looked_at.entry(event).or_insert_with(|| LookedAt {
            client,
            id: id.clone(),
            cancelled: false,
            copies: 0,
        });
        looked_at.copies += 1;
    }

    /// A copy of it is done with.
    pub(super) fn leave(&self, event: &RequestEventId) {
        let mut requests = self.requests();
        if let Some(looked_at) = requests.looked_at.get_mut(event) {
            looked_at.copies -= 1;
            if looked_at.copies == 0 {
                requests.looked_at.remove(event);
            }
        }
    }

    /// Whether another copy of it is being looked at beside this one.
    pub(super) fn is_beside_another(&self, event: &RequestEventId) -> bool {
        let requests = self.requests();
        let looked_at = requests.looked_at.get(event);
        looked_at.is_some_and(|it| it.copies > 1)
    }

    /// Whether it was taken back while it was looked at.
    pub(super) fn is_cancelled(&self, event: &RequestEventId) -> bool {
        self.requests().is_cancelled(event)
    }

    /// Parks the request `event` until its money comes. `false` if it was taken back meanwhile: then it is not parked.
    pub(super) fn park(&self, event: RequestEventId, inbound: Inbound) -> bool {
        let mut requests = self.requests();
        if requests.is_cancelled(&event) {
            return false;
        }
        requests.parked.entry(event).or_insert(inbound);
        true
    }

    /// Parks again what was taken out in vain.
    pub(super) fn put_back(&self, event: RequestEventId, inbound: Inbound) {
        self.requests().parked.insert(event, inbound);
    }

    /// Takes the request out, to serve it or to refuse it. Of all who try, one gets it.
    pub(super) fn take(&self, event: &RequestEventId) -> Option<Inbound> {
        self.requests().parked.remove(event)
    }

    /// The client takes its request `id` back.
    pub(super) fn take_back(&self, client: &ClientPubkey, id: &RequestId) -> TakenBack {
        let mut requests = self.requests();
        let mut taken = TakenBack::default();
        for looked_at in requests.looked_at.values_mut() {
            if looked_at.client == *client && looked_at.id == *id {
                looked_at.cancelled = true;
                taken.looked_at = true;
            }
        }
        let is_it = |inbound: &Inbound| match &inbound.message {
            Message::Request(request) => inbound.origin.client == *client && request.id == *id,
            _ => false,
        };
        let parked = &mut requests.parked;
        let found = parked
            .iter()
            .find_map(|(event, inbound)| is_it(inbound).then_some(*event));
        taken.parked = found.and_then(|event| Some((event, parked.remove(&event)?)));
        taken
    }

    /// How many are parked.
    pub(super) fn parked(&self) -> usize {
        self.requests().parked.len()
    }
}

impl Requests {
    fn is_cancelled(&self, event: &RequestEventId) -> bool {
        self.looked_at.get(event).is_some_and(|it| it.cancelled)
    }
}
