//! What the handler is working on, so that its answers find their entry, their tags and their client.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::payment::{ClientPubkey, Entitlement, PaymentInteraction, RequestEventId};
use crate::transport::Origin;
use crate::wire::mpp::Receipt;
use crate::wire::{Request, RequestId};

/// The most free calls that may be open. Paid ones are not counted: each was let in by the ledger.
const MOST_FREE: usize = 10_000;

/// What paid for a call.
#[derive(Debug)]
pub(super) struct Paid {
    /// The entry that was claimed for it.
    pub(super) entry: RequestEventId,
    /// What its result carries, if it was paid for by a credential.
    pub(super) receipt: Option<Box<Receipt>>,
}

impl Paid {
    pub(super) fn with_receipt(entry: RequestEventId, receipt: Receipt) -> Self {
        Self {
            entry,
            receipt: Some(Box::new(receipt)),
        }
    }
}

impl From<RequestEventId> for Paid {
    fn from(entry: RequestEventId) -> Self {
        Self {
            entry,
            receipt: None,
        }
    }
}

/// What wants to hear when a call has succeeded that it covered.
#[derive(Debug)]
pub(super) struct Covered {
    pub(super) by: Arc<dyn Entitlement>,
    pub(super) memo: Value,
}

/// One forwarded request.
#[derive(Debug, Clone)]
pub(super) struct OpenCall {
    pub(super) client: ClientPubkey,
    pub(super) id: RequestId,
    pub(super) method: String,
    /// The entry that was claimed for it.
    pub(super) paid_by: Option<RequestEventId>,
    /// What its result carries.
    pub(super) receipt: Option<Box<Receipt>>,
    /// Nobody vouches for who its client is, so nothing can be kept for it but the right to the call.
    pub(super) bearer: bool,
    /// What its response must say about the payment interaction.
    pub(super) disclose: Option<PaymentInteraction>,
    /// Who wants to hear that it has succeeded.
    pub(super) covered: Option<Arc<Covered>>,
}

impl OpenCall {
    pub(super) fn new(
        request: &Request,
        origin: &Origin,
        paid: Option<Paid>,
        disclose: Option<PaymentInteraction>,
    ) -> Self {
        Self {
            client: origin.client,
            id: request.id.clone(),
            method: request.method.clone(),
            bearer: origin.bearer,
            paid_by: paid.as_ref().map(|paid| paid.entry),
            receipt: paid.and_then(|paid| paid.receipt),
            disclose,
            covered: None,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct OpenCalls {
    calls: Mutex<HashMap<RequestEventId, OpenCall>>,
}

impl OpenCalls {
    fn calls(&self) -> MutexGuard<'_, HashMap<RequestEventId, OpenCall>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a call; `false` if there is no room for another free one.
    pub(super) fn insert(&self, event: RequestEventId, call: OpenCall) -> bool {
        let mut calls = self.calls();
        if call.paid_by.is_none() && calls.len() >= MOST_FREE {
            return false;
        }
        calls.insert(event, call);
        true
    }

    /// The call that is answered now.
    pub(super) fn remove(&self, event: &RequestEventId) -> Option<OpenCall> {
        self.calls().remove(event)
    }

    pub(super) fn get(&self, event: &RequestEventId) -> Option<OpenCall> {
        self.calls().get(event).cloned()
    }

    /// The client cancelled its call `id`. `true` if that may be passed on to the handler.
    ///
    /// A free call is over: MCP handlers need not answer it any more, so it would stay here for ever. A paid one goes on:
    /// its result is kept, and the client can still have it.
    pub(super) fn cancelled(&self, client: &ClientPubkey, id: &RequestId) -> bool {
        let mut calls = self.calls();
        let is_it = |call: &OpenCall| call.client == *client && call.id == *id;
        let paid = calls
            .values()
            .any(|call| call.paid_by.is_some() && is_it(call));
        calls.retain(|_, call| call.paid_by.is_some() || !is_it(call));
        !paid
    }
}
