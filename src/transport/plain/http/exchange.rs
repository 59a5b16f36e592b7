//! A request that came in by POST, and the answer that its connection waits for.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use tokio::sync::mpsc;

use super::body::Event;
use crate::payment::RequestEventId;

/// The most requests that wait for an answer at a time.
const MOST: usize = 4096;
/// Messages about one request that its client may lag behind.
const LAG: usize = 64;
/// How long a client may leave us waiting with one.
const PUT_TIMEOUT: Duration = Duration::from_secs(10);
/// How many requests are remembered, to tell one that is sent again.
const REMEMBERED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(65_535);

/// Requests whose connections wait.
pub(super) struct Exchanges {
    open: Arc<Mutex<HashMap<RequestEventId, mpsc::Sender<Event>>>>,
    seen: Mutex<LruCache<RequestEventId, bool>>,
}

impl Default for Exchanges {
    fn default() -> Self {
        Self {
            open: Arc::default(),
            seen: Mutex::new(LruCache::new(REMEMBERED)),
        }
    }
}

/// What a request is, among those that came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// For the first time.
    First,
    /// Again, while it is being worked on: its answer goes to whoever asked last.
    Meanwhile,
    /// Again, after it was answered.
    Afterwards,
}

/// The wait for one answer. Dropping it ends the wait.
pub(super) struct Wait {
    pub(super) came: Came,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) hang_up: HangUp,
}

impl Exchanges {
    /// Waits for what is said about `event`. `None` if there is no room.
    pub(super) fn wait(&self, event: RequestEventId) -> Option<Wait> {
        let (to, events) = mpsc::channel(LAG);
        let mut open = self.open();
        if open.len() >= MOST && !open.contains_key(&event) {
            return None;
        }
        let came = match self.seen().get(&event) {
            None => Came::First,
            Some(false) => Came::Meanwhile,
            Some(true) => Came::Afterwards,
        };
        let hang_up = HangUp {
            of: Arc::clone(&self.open),
            event,
            to: to.downgrade(),
        };
        open.insert(event, to);
        Some(Wait {
            came,
            events,
            hang_up,
        })
    }

    /// Notes that `event` has come in, and is being worked on until it is answered. Not before it has: a connection that breaks on the
    /// way in must not make its repetition wait for ever.
    pub(super) fn let_in(&self, event: RequestEventId) {
        let mut seen = self.seen();
        // It may be answered already.
        let answered = !self.open().contains_key(&event);
        seen.put(event, answered);
    }

    /// Says something about `event`. `false` if nobody waits for it.
    pub(super) async fn put(&self, event: &RequestEventId, json: String, last: bool) -> bool {
        let to = if last {
            self.seen().put(*event, true);
            self.open().remove(event)
        } else {
            self.open().get(event).cloned()
        };
        let Some(to) = to else { return false };
        let sent = to.send_timeout(Event { json, last }, PUT_TIMEOUT);
        sent.await.is_ok()
    }

    #[cfg(test)]
    pub(super) fn waits_for(&self, event: &RequestEventId) -> bool {
        self.open().contains_key(event)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<RequestEventId, mpsc::Sender<Event>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, LruCache<RequestEventId, bool>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a wait off the list when its connection is gone.
pub(super) struct HangUp {
    of: Arc<Mutex<HashMap<RequestEventId, mpsc::Sender<Event>>>>,
    event: RequestEventId,
    to: mpsc::WeakSender<Event>,
}

impl Drop for HangUp {
    fn drop(&mut self) {
        let mut open = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        // A newer wait for the same request stays.
        if let (Some(to), Some(ours)) = (open.get(&self.event), self.to.upgrade())
            && to.same_channel(&ours)
        {
            open.remove(&self.event);
        }
    }
}
