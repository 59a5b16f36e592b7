//! Requests that have not been answered, by the id of their event.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::call::Answer;
use crate::error::{Error, Result};
use crate::payment::{Amount, InvocationIdentity, RequestEventId};
use crate::wire::{Request, RequestId, invocation_identity, meta_of, parse_strict};

/// The most requests that may be open.
const MOST: usize = 5000;

/// A request that was never answered, nor cancelled, is forgotten after this long if its place is needed.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// How far the payment of a call got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Payment {
    /// Nobody asked for money.
    None,
    /// A demand is being checked. No other demand for this call is looked at any more.
    Checking,
    /// The wallet has been asked.
    Paying(Amount),
    /// Paid.
    Paid(Amount),
    /// Nobody knows.
    Unknown(Amount),
}

/// Where the answer goes.
#[derive(Debug)]
pub(super) enum Sink {
    /// To the caller of [`MessageChannel::recv`](crate::transport::MessageChannel::recv).
    Channel,
    /// To the one who waits for this call.
    Waiter(oneshot::Sender<Answer>),
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: RequestId,
    pub(super) method: String,
    pub(super) identity: Option<InvocationIdentity>,
    pub(super) progress_token: Option<Value>,
    pub(super) sink: Sink,
    /// Outlives the call: a server answers as soon as the money is there, which can be before the wallet's own answer.
    pub(super) payment: Arc<watch::Sender<Payment>>,
    /// Cancelled when the call ends, however it ends.
    pub(super) ended: CancellationToken,
    /// Until when whoever waits should wait; moves when a payment is made.
    pub(super) deadline: watch::Sender<Option<Instant>>,
    opened: Instant,
}

impl Call {
    pub(super) fn new(
        request: &Request,
        sink: Sink,
        deadline: watch::Sender<Option<Instant>>,
    ) -> Self {
        let params = request.params.as_deref();
        let strict = params.map(|params| parse_strict(params.get())).transpose();
        let identity = strict
            .ok()
            .and_then(|strict| invocation_identity(&request.method, strict.as_ref()).ok());
        Self {
            id: request.id.clone(),
            method: request.method.clone(),
            identity,
            progress_token: meta_of(params).and_then(|mut meta| meta.remove("progressToken")),
            sink,
            payment: Arc::new(watch::Sender::new(Payment::None)),
            ended: CancellationToken::new(),
            deadline,
            opened: Instant::now(),
        }
    }
}

impl Payment {
    /// Whether there is nothing to be learned by waiting.
    pub(super) fn is_decided(&self) -> bool {
        !matches!(self, Self::Checking | Self::Paying(_))
    }
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    open: Mutex<HashMap<RequestEventId, Call>>,
}

impl Calls {
    fn open(&self) -> MutexGuard<'_, HashMap<RequestEventId, Call>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a call, before it is published.
    pub(super) fn insert(&self, event: RequestEventId, call: Call) -> Result<()> {
        let mut open = self.open();
        if open.len() >= MOST {
            open.retain(|_, call| {
                *call.payment.borrow() != Payment::None || call.opened.elapsed() < FORGOTTEN_AFTER
            });
        }
        if open.len() >= MOST {
            return Err(Error::closed("too many requests are open"));
        }
        open.insert(event, call);
        Ok(())
    }

    /// Ends a call: from here on nothing can be paid for it.
    pub(super) fn end(&self, event: &RequestEventId) -> Option<Call> {
        let call = self.open().remove(event)?;
        call.ended.cancel();
        Some(call)
    }

    /// The event of the open call with this request id.
    pub(super) fn event_of(&self, id: &RequestId) -> Option<RequestEventId> {
        self.open()
            .iter()
            .find(|(_, call)| call.id == *id)
            .map(|(event, _)| *event)
    }

    /// Looks at, or changes, one call.
    pub(super) fn with<T>(
        &self,
        event: &RequestEventId,
        look: impl FnOnce(&mut Call) -> T,
    ) -> Option<T> {
        self.open().get_mut(event).map(look)
    }

    /// Ends all calls.
    pub(super) fn end_all(&self) -> Vec<Call> {
        let calls: Vec<Call> = self.open().drain().map(|(_, call)| call).collect();
        for call in &calls {
            call.ended.cancel();
        }
        calls
    }
}
