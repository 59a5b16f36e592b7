//! The paid client: a channel of plain MCP messages, behind which calls are paid for.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::ClientPayments;
use super::calls::{Call, Calls, Sink};
use super::intercept;
use crate::error::{Error, Result};
use crate::payment::{InvocationIdentity, RequestEventId};
use crate::transport::{ClientTransport, Introduction, MessageChannel};
use crate::wire::{Message, Notification, Request, RequestId, method};

/// How many messages may wait for the caller to take them.
const QUEUE: usize = 1024;

/// Puts a payer behind `transport`: the returned channel speaks plain MCP, and calls that cost something are paid within
/// the budget.
///
/// ```
/// # use tollkeeper::{client::{ClientPayments, with_client_payments}, rails::fake::FakeHandler, transport::memory};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> tollkeeper::Result<()> {
/// let (_server, transport) = memory::pair();
/// let payments = ClientPayments::builder()
///     .handler(FakeHandler::new())
///     .budget("100 sats".parse()?)
///     .build()?;
/// let client = with_client_payments(transport, payments);
/// # Ok(()) }
/// ```
///
/// Must be called inside a Tokio runtime.
#[must_use]
pub fn with_client_payments(
    transport: Arc<dyn ClientTransport>,
    payments: ClientPayments,
) -> Arc<PaidClient> {
    let (to_caller, from_server) = mpsc::channel(QUEUE);
    let shared = Arc::new(Shared {
        transport,
        payments,
        calls: Calls::default(),
        unresolved: SyncMutex::default(),
        introduced: AtomicBool::new(false),
        to_caller,
        closing: CancellationToken::new(),
    });
    tokio::spawn(intercept::run(Arc::clone(&shared)));
    Arc::new(PaidClient {
        shared,
        from_server: Mutex::new(from_server),
    })
}

/// A client that pays. See [`with_client_payments`].
#[derive(Debug)]
pub struct PaidClient {
    pub(super) shared: Arc<Shared>,
    from_server: Mutex<mpsc::Receiver<Message>>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) transport: Arc<dyn ClientTransport>,
    pub(super) payments: ClientPayments,
    pub(super) calls: Calls,
    /// Calls for which a payment has an unknown outcome: nothing more is paid for them.
    pub(super) unresolved: SyncMutex<HashSet<InvocationIdentity>>,
    introduced: AtomicBool,
    pub(super) to_caller: mpsc::Sender<Message>,
    pub(super) closing: CancellationToken,
}

impl PaidClient {
    /// How it pays; its budget tells what was spent.
    #[must_use]
    pub fn payments(&self) -> &ClientPayments {
        &self.shared.payments
    }
}

impl Shared {
    /// Sends a request: it is signed, registered, then published, so that no answer finds nobody waiting (D-32).
    pub(super) async fn open_call(
        &self,
        request: Request,
        sink: Sink,
        deadline: watch::Sender<Option<tokio::time::Instant>>,
    ) -> Result<RequestEventId> {
        let call = Call::new(&request, sink, deadline);
        let prepared = self
            .transport
            .prepare(&request.into(), &self.introduction())
            .await?;
        self.calls.insert(prepared.event, call)?;
        if let Err(error) = self.transport.publish(&prepared).await {
            self.calls.end(&prepared.event);
            return Err(error);
        }
        Ok(prepared.event)
    }

    /// Payment methods on every request (N-53); the lifecycle on the first only (N-37).
    fn introduction(&self) -> Introduction {
        let pmis = self
            .payments
            .handlers
            .iter()
            .map(|handler| handler.pmi().clone())
            .collect();
        let first = !self.introduced.swap(true, Ordering::SeqCst);
        Introduction::new(pmis, self.payments.interaction.filter(|_| first))
            .with_licence(self.payments.licence.clone())
    }

    pub(super) async fn notify(&self, notification: Notification) -> Result<()> {
        let message = notification.into();
        let prepared = self
            .transport
            .prepare(&message, &Introduction::default())
            .await?;
        self.transport.publish(&prepared).await
    }

    pub(super) fn is_unresolved(&self, identity: Option<InvocationIdentity>) -> bool {
        let unresolved = self
            .unresolved
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        identity.is_some_and(|identity| unresolved.contains(&identity))
    }
}

#[derive(Deserialize)]
struct Cancelled {
    #[serde(rename = "requestId")]
    request_id: RequestId,
}

#[async_trait]
impl MessageChannel for PaidClient {
    async fn send(&self, message: Message) -> Result<()> {
        if self.shared.closing.is_cancelled() {
            return Err(Error::closed("the client is closed"));
        }
        match message {
            Message::Request(request) => self
                .shared
                .open_call(request, Sink::Channel, watch::Sender::new(None))
                .await
                .map(|_| ()),
            Message::Notification(notification) => {
                if notification.method == method::CANCELLED
                    && let Some(params) = &notification.params
                    && let Ok(Cancelled { request_id }) = serde_json::from_str(params.get())
                    && let Some(event) = self.shared.calls.event_of(&request_id)
                {
                    // Nothing is paid any more for what nobody waits for (N-76).
                    self.shared.calls.end(&event);
                }
                self.shared.notify(notification).await
            }
            // The transport brings no requests from the server, so there is nothing to answer.
            Message::Response(_) => Ok(()),
        }
    }

    async fn recv(&self) -> Option<Message> {
        let mut from_server = self.from_server.lock().await;
        tokio::select! {
            biased;
            message = from_server.recv() => message,
            () = self.shared.closing.cancelled() => None,
        }
    }

    async fn close(&self) {
        self.shared.closing.cancel();
        self.shared.calls.end_all();
        self.shared.transport.close().await;
    }
}

impl Drop for PaidClient {
    fn drop(&mut self) {
        self.shared.closing.cancel();
        self.shared.calls.end_all();
    }
}
