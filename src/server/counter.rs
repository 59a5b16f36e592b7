//! What the server sells itself, beside what its handler does: licences, money paid ahead. A counter stands between the gate
//! and the handler, answers calls of its own tools, and lists them with the handler's.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::error::Result;
use crate::payment::{ClientPubkey, RequestEventId};
use crate::transport::{Advertisement, Inbound, Origin, Outbound, ReplyTo, ServerTransport};
use crate::wire::{
    ErrorObject, Message, Payload, Request, Response, SERVER_ERROR_CODE, method, raw,
};

/// How many lists may be under way.
const LISTS: usize = 10_000;

/// A tool of the server's own.
#[async_trait]
pub trait Good: fmt::Debug + Send + Sync {
    /// Its name.
    fn name(&self) -> &str;

    /// The tool as it is listed: name, description, input schema.
    fn tool(&self) -> Value;

    /// Whether it must be paid for. What must be is handed over only against an entry of the ledger.
    fn is_sold(&self) -> bool;

    /// The result of a call, as JSON. It may be asked again for the same entry, after a crash: then the result is the same,
    /// and what it stands for is handed over once.
    ///
    /// # Errors
    ///
    /// When it cannot be handed over now; whoever paid gets the right to the call back.
    async fn hand_over(&self, purchase: &Purchase) -> Result<Value>;
}

/// A call of a [`Good`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Purchase {
    /// Who calls.
    pub client: ClientPubkey,
    /// The entry in the ledger that paid for it.
    pub paid_by: Option<RequestEventId>,
    /// `params.arguments`.
    pub arguments: Value,
}

/// A server transport with a counter.
pub struct Counter {
    inner: Arc<dyn ServerTransport>,
    goods: Vec<Arc<dyn Good>>,
    lists: Mutex<HashSet<RequestEventId>>,
}

impl Counter {
    /// Puts a counter with `goods` in front of the handler of `inner`, which is a paid server.
    #[must_use]
    pub fn new(inner: Arc<dyn ServerTransport>, goods: Vec<Arc<dyn Good>>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            goods,
            lists: Mutex::default(),
        })
    }

    fn lists(&self) -> MutexGuard<'_, HashSet<RequestEventId>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The good that `request` calls, with its arguments.
    fn called(&self, request: &Request) -> Option<(Arc<dyn Good>, Value)> {
        if request.method != method::TOOLS_CALL {
            return None;
        }
        let mut params: Value = serde_json::from_str(request.params.as_deref()?.get()).ok()?;
        let name = params.get("name")?.as_str()?;
        let good = self.goods.iter().find(|good| good.name() == name)?;
        Some((Arc::clone(good), params["arguments"].take()))
    }

    /// Notes that a list was asked for from its beginning: there our tools are added.
    fn note_list(&self, request: &Request, origin: &Origin) {
        let continued = |params: &RawValue| params.get().contains("\"cursor\"");
        if request.method != method::TOOLS_LIST || request.params.as_deref().is_some_and(continued)
        {
            return;
        }
        let mut lists = self.lists();
        // Lists that were cancelled are never answered.
        if lists.len() >= LISTS {
            lists.clear();
        }
        lists.insert(origin.event);
    }

    fn with_goods(&self, result: &RawValue) -> Option<Box<RawValue>> {
        let mut result: Value = serde_json::from_str(result.get()).ok()?;
        let tools = result.get_mut("tools")?.as_array_mut()?;
        tools.splice(0..0, self.goods.iter().map(|good| good.tool()));
        raw(&result).ok()
    }

    fn sell(&self, good: Arc<dyn Good>, arguments: Value, request: Request, origin: Origin) {
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let purchase = Purchase {
                client: origin.client,
                paid_by: origin.paid_by,
                arguments,
            };
            let id = request.id;
            let failed = |text: &str| {
                let error = ErrorObject::new(SERVER_ERROR_CODE, text);
                Outbound::new(Response::from_error(id.clone(), &error))
            };
            let outbound = if good.is_sold() && purchase.paid_by.is_none() {
                failed("This has to be paid for")
            } else {
                let result = good.hand_over(&purchase).await;
                match result.and_then(|result| raw(&result)) {
                    Ok(result) => Outbound::new(Response {
                        id,
                        payload: Payload::Result(result),
                    }),
                    Err(error) => {
                        tracing::error!(
                            good = good.name(),
                            error = &error as &dyn std::error::Error,
                            "could not be handed over"
                        );
                        failed("This cannot be handed over now").handler_lost()
                    }
                }
            };
            if let Err(error) = inner.send(&origin.reply_to, outbound).await {
                tracing::warn!(
                    request_event_id = %origin.event, error = &error as &dyn std::error::Error, "an answer could not be sent"
                );
            }
        });
    }
}

#[async_trait]
impl ServerTransport for Counter {
    async fn recv(&self) -> Option<Inbound> {
        loop {
            let Inbound { message, origin } = self.inner.recv().await?;
            let Message::Request(request) = message else {
                return Some(Inbound::new(message, origin));
            };
            match self.called(&request) {
                Some((good, arguments)) => self.sell(good, arguments, request, origin),
                None => {
                    self.note_list(&request, &origin);
                    return Some(Inbound::new(request.into(), origin));
                }
            }
        }
    }

    async fn send(&self, to: &ReplyTo, mut outbound: Outbound) -> Result<()> {
        if let Message::Response(response) = &mut outbound.message
            && self.lists().remove(&to.event)
            && let Payload::Result(result) = &response.payload
            && let Some(result) = self.with_goods(result)
        {
            response.payload = Payload::Result(result);
        }
        self.inner.send(to, outbound).await
    }

    async fn notify(&self, client: Option<&ClientPubkey>, message: Message) -> Result<()> {
        self.inner.notify(client, message).await
    }

    fn can_carry(&self, to: &ReplyTo, outbound: &Outbound) -> bool {
        self.inner.can_carry(to, outbound)
    }

    fn advertise(&self, payments: Advertisement) {
        self.inner.advertise(payments);
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counter")
            .field("goods", &self.goods)
            .finish_non_exhaustive()
    }
}

/// A tool result that says the same to people and to programs.
#[must_use]
pub fn tool_result(text: &str, data: &Value) -> Value {
    json!({ "content": [{ "type": "text", "text": text }], "structuredContent": data })
}
