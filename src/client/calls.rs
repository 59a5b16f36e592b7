//! Requests that have not been answered, and by which events their answers are known.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::call::Answer;
use super::ledger::AttemptId;
use crate::error::{Error, Result};
use crate::payment::{Amount, InvocationIdentity, RequestEventId};
use crate::wire::{Request, RequestId, invocation_identity, meta_of, method, parse_strict};

/// The most requests that may be open.
const MOST: usize = 5000;

/// A request that was never answered, nor cancelled, is forgotten after this long if its place is needed.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// How far the payment of a call got, and what it has cost so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Payment {
    pub(super) phase: Phase,
    /// What was paid.
    pub(super) paid: Option<Amount>,
    /// What the wallet was asked to pay, and nobody knows what became of it.
    pub(super) open: Option<Amount>,
}

/// How far a payment got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// Nobody asked for money.
    #[default]
    None,
    /// A demand is being checked. No other demand for this call is looked at any more.
    Checking,
    /// The wallet has been asked.
    Paying,
    /// It is known what became of it, or known that it is not known.
    Decided,
}

impl Payment {
    /// Whether there is nothing to be learned by waiting.
    pub(super) fn is_decided(&self) -> bool {
        matches!(self.phase, Phase::None | Phase::Decided)
    }

    /// Whether money moved, or may have.
    pub(super) fn cost_something(&self) -> bool {
        self.paid.is_some() || self.open.is_some()
    }

    /// The wallet is being asked for `amount`.
    pub(super) fn begin(&mut self, amount: &Amount) {
        self.phase = Phase::Paying;
        self.open = plus(self.open.as_ref(), amount);
    }

    /// The wallet has paid `amount`, or has not.
    pub(super) fn end(&mut self, amount: &Amount, paid: bool) {
        self.phase = Phase::Decided;
        self.open = self
            .open
            .take()
            .and_then(|open| open.checked_sub(amount))
            .filter(|rest| rest.value() > 0);
        if paid {
            self.paid = plus(self.paid.as_ref(), amount);
        }
    }
}

/// A sum. Amounts of another unit than the first are left out of it; the books have them.
fn plus(sum: Option<&Amount>, amount: &Amount) -> Option<Amount> {
    match sum {
        None => Some(amount.clone()),
        Some(sum) => Some(sum.checked_add(amount).unwrap_or_else(|| sum.clone())),
    }
}

/// Where the answer goes.
#[derive(Debug)]
pub(super) enum Sink {
    /// To the caller of [`MessageChannel::recv`](crate::transport::MessageChannel::recv).
    Channel,
    /// To the one who waits for this call.
    Waiter(oneshot::Sender<Answer>),
}

/// The number of a call, in this client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CallId(u64);

#[derive(Debug)]
pub(super) struct Call {
    pub(super) request: Request,
    pub(super) identity: Option<InvocationIdentity>,
    /// What is called, in CEP-8's notation.
    pub(super) capability: String,
    pub(super) progress_token: Option<Value>,
    pub(super) sink: Sink,
    /// Outlives the call: a server answers as soon as the money is there, which can be before the wallet's own answer.
    pub(super) payment: Arc<watch::Sender<Payment>>,
    /// What was written down about its payments.
    pub(super) attempts: Vec<AttemptId>,
    /// Cancelled when the call ends, however it ends.
    pub(super) ended: CancellationToken,
    /// Until when whoever waits should wait; moves when a payment is made.
    pub(super) deadline: watch::Sender<Option<Instant>>,
    /// Until when its caller gets signs of life.
    pub(super) alive_until: Option<Instant>,
    /// The first request: it names the call in the books.
    pub(super) first: RequestEventId,
    /// The last request: only its demands are looked at.
    pub(super) current: RequestEventId,
    /// The last request, signed.
    pub(super) signed: Arc<str>,
    /// How often it was sent again after a payment, or because one was pending.
    pub(super) retries: u32,
    events: Vec<RequestEventId>,
    opened: Instant,
}

impl Call {
    pub(super) fn new(
        request: Request,
        event: RequestEventId,
        signed: &str,
        sink: Sink,
        deadline: watch::Sender<Option<Instant>>,
    ) -> Self {
        let params = request.params.as_deref();
        let strict = params.map(|params| parse_strict(params.get())).transpose();
        let identity = strict
            .as_ref()
            .ok()
            .and_then(|strict| invocation_identity(&request.method, strict.as_ref()).ok());
        let values = strict.ok().flatten().map(|strict| strict.value);
        Self {
            capability: method::notation(&request.method, values.as_ref()),
            progress_token: meta_of(params).and_then(|mut meta| meta.remove("progressToken")),
            request,
            identity,
            sink,
            payment: Arc::default(),
            attempts: Vec::new(),
            ended: CancellationToken::new(),
            deadline,
            alive_until: None,
            first: event,
            current: event,
            signed: signed.into(),
            retries: 0,
            events: vec![event],
            opened: Instant::now(),
        }
    }

    pub(super) fn id(&self) -> &RequestId {
        &self.request.id
    }
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    calls: HashMap<CallId, Call>,
    by_event: HashMap<RequestEventId, CallId>,
    last: u64,
}

impl Calls {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a call, before it is published.
    pub(super) fn insert(&self, call: Call) -> Result<CallId> {
        let mut open = self.open();
        if open.calls.len() >= MOST {
            let forgotten: Vec<CallId> = open
                .calls
                .iter()
                .filter(|(_, call)| {
                    *call.payment.borrow() == Payment::default()
                        && call.opened.elapsed() >= FORGOTTEN_AFTER
                })
                .map(|(id, _)| *id)
                .collect();
            for id in forgotten {
                open.remove(id);
            }
        }
        if open.calls.len() >= MOST {
            return Err(Error::closed("too many requests are open"));
        }
        open.last += 1;
        let id = CallId(open.last);
        for event in &call.events {
            open.by_event.insert(*event, id);
        }
        open.calls.insert(id, call);
        Ok(id)
    }

    /// From here on the call is known by `event`, and its former requests are of no interest: a new one was sent in their
    /// place. `false` if the call has ended.
    pub(super) fn replace(&self, id: CallId, event: RequestEventId, signed: &str) -> bool {
        let mut open = self.open();
        let Some(call) = open.calls.get_mut(&id) else {
            return false;
        };
        let former = std::mem::replace(&mut call.events, vec![event]);
        call.current = event;
        call.signed = signed.into();
        for event in former {
            open.by_event.remove(&event);
        }
        open.by_event.insert(event, id);
        true
    }

    /// Ends a call: from here on nothing can be paid for it.
    pub(super) fn end(&self, id: CallId) -> Option<Call> {
        self.open().remove(id)
    }

    /// The open call that `event` belongs to.
    pub(super) fn of_event(&self, event: &RequestEventId) -> Option<CallId> {
        self.open().by_event.get(event).copied()
    }

    /// The open call with this request id.
    pub(super) fn of_request(&self, id: &RequestId) -> Option<CallId> {
        self.open()
            .calls
            .iter()
            .find(|(_, call)| call.id() == id)
            .map(|(id, _)| *id)
    }

    /// Looks at, or changes, one call.
    pub(super) fn with<T>(&self, id: CallId, look: impl FnOnce(&mut Call) -> T) -> Option<T> {
        self.open().calls.get_mut(&id).map(look)
    }

    /// Ends all calls.
    pub(super) fn end_all(&self) -> Vec<Call> {
        let mut open = self.open();
        open.by_event.clear();
        let calls: Vec<Call> = open.calls.drain().map(|(_, call)| call).collect();
        for call in &calls {
            call.ended.cancel();
        }
        calls
    }
}

impl Open {
    fn remove(&mut self, id: CallId) -> Option<Call> {
        let call = self.calls.remove(&id)?;
        for event in &call.events {
            self.by_event.remove(event);
        }
        call.ended.cancel();
        Some(call)
    }
}
