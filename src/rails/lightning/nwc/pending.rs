//! The requests that wait for an answer of the wallet.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nostr::{Event, EventId, Filter, Kind, PublicKey};
use tokio::sync::{oneshot, watch};

use super::RESPONSE;
use super::error::NwcError;

/// Requests that wait for an answer, at most.
const MOST_PENDING: usize = 4096;

/// What the wallet said, or why that cannot be read.
pub(super) type Answer = std::result::Result<String, &'static str>;

/// Requests that are named when answers are asked for by request, at most: no rail has so many under way.
const MOST_NAMED: usize = 256;

/// The requests that wait for an answer.
///
/// Answers are asked for by the key that they are for. Some wallets leave it out (the wallet service of `@getalby/sdk`
/// 7.0.0 does) and name the request only, so until an answer was seen that is addressed as NIP-47 says, answers are asked
/// for by request as well.
pub(super) struct Pending {
    requests: Mutex<HashMap<EventId, oneshot::Sender<Answer>>>,
    wallet: PublicKey,
    addressed: AtomicBool,
    meanwhile: watch::Sender<Option<Filter>>,
}

/// A request that waits; dropping it forgets the request.
pub(super) struct Expected {
    id: EventId,
    pending: Arc<Pending>,
    pub(super) answer: oneshot::Receiver<Answer>,
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut requests = lock(&self.pending.requests);
        if requests.remove(&self.id).is_some() {
            self.pending.ask_by_request(&requests);
        }
    }
}

impl Pending {
    pub(super) fn new(wallet: PublicKey, meanwhile: watch::Sender<Option<Filter>>) -> Self {
        Self {
            requests: Mutex::default(),
            wallet,
            addressed: AtomicBool::new(false),
            meanwhile,
        }
    }

    /// Asks for the answers to `requests` by their ids, while that may be needed.
    fn ask_by_request<T>(&self, requests: &HashMap<EventId, T>) {
        if requests.len() > MOST_NAMED {
            return;
        }
        let needed = !requests.is_empty() && !self.addressed.load(Ordering::Relaxed);
        let filter = needed.then(|| {
            Filter::new()
                .author(self.wallet)
                .kind(Kind::from(RESPONSE))
                .events(requests.keys().copied())
        });
        self.meanwhile.send_if_modified(|wanted| {
            let changed = *wanted != filter;
            *wanted = filter;
            changed
        });
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.requests).is_empty()
    }

    pub(super) fn expect(self: &Arc<Self>, id: EventId) -> std::result::Result<Expected, NwcError> {
        let (give, answer) = oneshot::channel();
        let mut requests = lock(&self.requests);
        if requests.len() >= MOST_PENDING {
            return Err(NwcError::NotSent("too many requests wait for the wallet"));
        }
        requests.insert(id, give);
        self.ask_by_request(&requests);
        Ok(Expected {
            id,
            pending: Arc::clone(self),
            answer,
        })
    }

    /// Hands an answer to whoever waits for it. `addressed`: it was addressed as NIP-47 says.
    pub(super) fn answer(&self, id: &EventId, answer: Answer, addressed: bool) {
        if addressed {
            self.addressed.store(true, Ordering::Relaxed);
        }
        let mut requests = lock(&self.requests);
        let waiting = requests.remove(id);
        self.ask_by_request(&requests);
        drop(requests);
        if let Some(waiting) = waiting {
            // Whoever asked may have gone meanwhile.
            let _ = waiting.send(answer);
        }
    }

    /// Which waiting request an event claims to answer.
    pub(super) fn answered_by(&self, event: &Event) -> Option<EventId> {
        let requests = lock(&self.requests);
        event
            .tags
            .event_ids()
            .find(|id| requests.contains_key(id))
            .copied()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_given_up_is_forgotten_and_there_is_a_limit() {
        let wallet = nostr::Keys::generate().public_key();
        let pending = Arc::new(Pending::new(wallet, watch::Sender::new(None)));
        drop(pending.expect(EventId::from_byte_array([1; 32])).unwrap());
        assert!(pending.is_empty());
        let id = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            EventId::from_byte_array(bytes)
        };
        let waiting: Vec<Expected> = (0..MOST_PENDING)
            .map(|n| pending.expect(id(n)).unwrap())
            .collect();
        assert!(matches!(
            pending.expect(id(MOST_PENDING)),
            Err(NwcError::NotSent(_))
        ));
        drop(waiting);
    }
}
