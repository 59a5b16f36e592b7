//! Clients that listen for what belongs to no request of theirs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::super::outbound::on_one_line;
use super::body::{AtTheEnd, Event};
use super::session::Session;
use crate::payment::ClientPubkey;
use crate::wire::Message;

/// The most that listen at a time.
const MOST: usize = 512;
/// Messages that one of them may lag behind. Beyond that it misses some: they are notifications.
const LAG: usize = 64;

#[derive(Default)]
pub(super) struct Listeners(Arc<Mutex<HashMap<Session, Listener>>>);

struct Listener {
    client: ClientPubkey,
    to: mpsc::Sender<Event>,
}

impl Listeners {
    /// Adds the listener of a session, in the place of an earlier one. `None` if there is no room.
    pub(super) fn add(
        &self,
        session: Session,
        client: ClientPubkey,
    ) -> Option<(mpsc::Receiver<Event>, AtTheEnd)> {
        let (to, events) = mpsc::channel(LAG);
        let mut listeners = self.all();
        if listeners.len() >= MOST && !listeners.contains_key(&session) {
            return None;
        }
        let gone = Gone {
            of: Arc::clone(&self.0),
            session,
            to: to.downgrade(),
        };
        listeners.insert(session, Listener { client, to });
        Some((events, Box::new(gone)))
    }

    /// Tells one client, or all.
    pub(super) fn tell(&self, client: Option<&ClientPubkey>, message: &Message) {
        let json = on_one_line(message);
        for listener in self.all().values() {
            if client.is_some_and(|client| *client != listener.client) {
                continue;
            }
            let event = Event {
                json: json.clone(),
                last: false,
            };
            if listener.to.try_send(event).is_err() {
                tracing::debug!(
                    client_pubkey = listener.client.short(),
                    "a client does not listen fast enough; it misses a notification"
                );
            }
        }
    }

    pub(super) fn remove(&self, session: &Session) {
        self.all().remove(session);
    }

    /// Ends all streams.
    pub(super) fn close(&self) {
        self.all().clear();
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.all().len()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Session, Listener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a listener off the list when its stream is dropped.
struct Gone {
    of: Arc<Mutex<HashMap<Session, Listener>>>,
    session: Session,
    to: mpsc::WeakSender<Event>,
}

impl Drop for Gone {
    fn drop(&mut self) {
        let mut listeners = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = self.to.upgrade();
        let still = listeners.get(&self.session);
        // A newer listener of the same session stays.
        if let (Some(listener), Some(ours)) = (still, ours)
            && listener.to.same_channel(&ours)
        {
            listeners.remove(&self.session);
        }
    }
}
