//! The paid client: a channel of plain MCP messages, behind which calls are paid for.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::ClientPayments;
use super::calls::{Call, CallId, Calls, Sink};
use super::price_board::PriceBoard;
use super::strays::Strays;
use super::{answer, intercept, resolve};
use crate::error::{Error, Result};
use crate::payment::{InvocationIdentity, PriceRange};
use crate::transport::{ClientTransport, Introduction, MessageChannel, Prepared};
use crate::wire::{Message, Notification, Request, RequestId, method};

/// How many messages may wait for the caller to take them.
const QUEUE: usize = 1024;

/// How long closing waits for what is being written down.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Puts a payer behind `transport`: the returned channel speaks plain MCP, and calls that cost something are paid within
/// the budget and the policy.
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
/// Payments of former runs whose outcome is unknown are looked up in the background. Must be called inside a Tokio
/// runtime.
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
        prices: PriceBoard::default(),
        strays: Strays::default(),
        unserved: SyncMutex::default(),
        introduced: AtomicBool::new(false),
        asked: Notify::new(),
        noted: Notify::new(),
        to_caller,
        closing: CancellationToken::new(),
    });
    tokio::spawn(intercept::run(Arc::clone(&shared)));
    if shared.payments.ledger.has_books() {
        tokio::spawn(resolve::at_start(Arc::clone(&shared)));
    }
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
    pub(super) prices: PriceBoard,
    pub(super) strays: Strays,
    /// Calls that were paid for without a result, as far as this client knows: a result that comes later makes up for it.
    pub(super) unserved: SyncMutex<HashSet<InvocationIdentity>>,
    introduced: AtomicBool,
    /// Somebody waits for one of those to be written down.
    pub(super) asked: Notify,
    /// One of those was written down.
    pub(super) noted: Notify,
    pub(super) to_caller: mpsc::Sender<Message>,
    pub(super) closing: CancellationToken,
}

impl PaidClient {
    /// How it pays; its budget tells what was spent.
    #[must_use]
    pub fn payments(&self) -> &ClientPayments {
        &self.shared.payments
    }

    /// The price that the server advertised for a capability in CEP-8's notation, if one of its lists that came by here
    /// said so.
    #[must_use]
    pub fn advertised(&self, capability: &str) -> Option<PriceRange> {
        self.shared.prices.price_of(capability)
    }
}

impl Shared {
    /// Sends a request: it is signed, registered, then published, so that no answer finds nobody waiting (D-32).
    pub(super) async fn open_call(
        &self,
        request: Request,
        sink: Sink,
        deadline: watch::Sender<Option<tokio::time::Instant>>,
    ) -> Result<CallId> {
        let first = !self.introduced.swap(true, Ordering::SeqCst);
        let prepared = self.prepare(&request, first).await?;
        let call = Call::new(request, prepared.event, &prepared.signed, sink, deadline);
        let id = self.calls.insert(call)?;
        if let Err(error) = self.transport.publish(&prepared).await {
            self.calls.end(id);
            return Err(error);
        }
        Ok(id)
    }

    /// Signs a request. Payment methods are on every one (N-53), the lifecycle on those that `say_how` (N-37).
    pub(super) async fn prepare(&self, request: &Request, say_how: bool) -> Result<Prepared> {
        let pmis = self
            .payments
            .handlers
            .iter()
            .map(|handler| handler.pmi().clone())
            .collect();
        let interaction = self.payments.interaction.filter(|_| say_how);
        let introduction =
            Introduction::new(pmis, interaction).with_licence(self.payments.licence.clone());
        self.transport
            .prepare(&request.clone().into(), &introduction)
            .await
    }

    pub(super) async fn notify(&self, notification: Notification) -> Result<()> {
        let message = notification.into();
        let prepared = self
            .transport
            .prepare(&message, &Introduction::default())
            .await?;
        self.transport.publish(&prepared).await
    }

    pub(super) fn is_unserved(&self, identity: Option<InvocationIdentity>) -> bool {
        let unserved = self.unserved.lock().unwrap_or_else(PoisonError::into_inner);
        identity.is_some_and(|identity| unserved.contains(&identity))
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
                    && let Some(id) = self.shared.calls.of_request(&request_id)
                {
                    // Nothing is paid any more for what nobody waits for (N-76).
                    answer::missing(&self.shared, self.shared.calls.end(id));
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
        answer::all_interrupted(&self.shared);
        let writing = &self.shared.payments.writing;
        writing.close();
        // A disk that does not answer must not keep anybody from leaving; the next run finds what is missing.
        let _ = tokio::time::timeout(LAST_WORDS, writing.wait()).await;
        self.shared.transport.close().await;
    }
}

/// What is open is written down as interrupted, so that the next client, also one in this process, asks for it.
impl Drop for PaidClient {
    fn drop(&mut self) {
        self.shared.closing.cancel();
        answer::all_interrupted(&self.shared);
    }
}
