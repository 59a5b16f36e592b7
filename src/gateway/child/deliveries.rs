//! What goes back to clients, without one slow relay or one slow client holding up the others.
//!
//! Messages about one request keep their order: they share a lane. Answers are never dropped: there is room for a bounded
//! number of them, and whoever has one more waits. Progress and broadcasts are courtesies: where there is no room, they
//! are dropped and the log says so.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::payment::{ClientPubkey, RequestEventId};
use crate::transport::{Outbound, ReplyTo, ServerTransport};
use crate::wire::Message;

/// Answers on their way out.
const ANSWERS: usize = 1024;
/// Progress of one request on its way out.
const PROGRESS: usize = 32;
/// Broadcasts on their way out.
const BROADCASTS: usize = 256;

/// Messages about one request, in order. The one with a permit is the answer, and the last.
type Lane = mpsc::Sender<(Outbound, Option<OwnedSemaphorePermit>)>;

/// Carries messages to clients.
#[derive(Debug, Clone)]
pub(super) struct Deliveries(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    transport: Arc<dyn ServerTransport>,
    lanes: Mutex<HashMap<RequestEventId, Lane>>,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    broadcasts: mpsc::Sender<(Option<ClientPubkey>, Message)>,
}

impl Deliveries {
    pub(super) fn new(transport: Arc<dyn ServerTransport>) -> Self {
        let (broadcasts, mut waiting) =
            mpsc::channel::<(Option<ClientPubkey>, Message)>(BROADCASTS);
        let tasks = TaskTracker::new();
        let out = Arc::clone(&transport);
        tokio::spawn(async move {
            while let Some((client, message)) = waiting.recv().await {
                if let Err(error) = out.notify(client.as_ref(), message).await {
                    debug!(%error, "a notification was not delivered");
                }
            }
        });
        Self(Arc::new(Inner {
            transport,
            lanes: Mutex::default(),
            room: Arc::new(Semaphore::new(ANSWERS)),
            tasks,
            broadcasts,
        }))
    }

    /// Sends the answer to a request. Waits while there is no room.
    pub(super) async fn answer(&self, to: ReplyTo, answer: Outbound) {
        let Ok(permit) = Arc::clone(&self.0.room).acquire_owned().await else {
            return;
        };
        let lane = self.lanes().remove(&to.event);
        let inner = Arc::clone(&self.0);
        self.0.tasks.spawn(async move {
            match lane {
                // Behind the progress that is still under way.
                Some(lane) => {
                    let _ = lane.send((answer, Some(permit))).await;
                }
                None => {
                    send(&inner.transport, &to, answer).await;
                    drop(permit);
                }
            }
        });
    }

    /// Sends what is not the answer yet.
    pub(super) fn progress(&self, to: &ReplyTo, message: Message) {
        let mut lanes = self.lanes();
        let lane = lanes
            .entry(to.event)
            .or_insert_with(|| self.open_lane(to.clone()));
        if lane.try_send((Outbound::new(message), None)).is_err() {
            debug!(event = %to.event.short(), "progress dropped: the client is slow");
        }
    }

    /// Sends what belongs to no request.
    pub(super) fn broadcast(&self, client: Option<ClientPubkey>, message: Message) {
        if self.0.broadcasts.try_send((client, message)).is_err() {
            warn!("a notification was dropped: too many wait to be sent");
        }
    }

    /// Waits until everything that was handed over is sent.
    pub(super) async fn finish(&self) {
        self.0.tasks.close();
        self.lanes().clear();
        self.0.tasks.wait().await;
    }

    fn open_lane(&self, to: ReplyTo) -> Lane {
        let (lane, mut waiting) =
            mpsc::channel::<(Outbound, Option<OwnedSemaphorePermit>)>(PROGRESS);
        let transport = Arc::clone(&self.0.transport);
        self.0.tasks.spawn(async move {
            while let Some((outbound, permit)) = waiting.recv().await {
                send(&transport, &to, outbound).await;
                if permit.is_some() {
                    return;
                }
            }
        });
        lane
    }

    fn lanes(&self) -> std::sync::MutexGuard<'_, HashMap<RequestEventId, Lane>> {
        self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn send(transport: &Arc<dyn ServerTransport>, to: &ReplyTo, outbound: Outbound) {
    if let Err(error) = transport.send(to, outbound).await {
        warn!(%error, event = %to.event.short(), "a message was not delivered");
    }
}
