//! A server that is after the buyer's money: says whatever a test wants, whenever, in memory.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::payment::RequestEventId;
use crate::transport::memory::{self, MemoryClient, MemoryServer};
use crate::transport::{Outbound, ReplyTo, ServerTransport};
use crate::wire::{ErrorObject, Message, Notification, Payload, Request, Response, Tag, raw};

/// A server that does not keep to the rules, for tests of a paying client. Its payment method is that of a [`ScriptedHandler`](super::ScriptedHandler) named `scripted`.
#[derive(Debug)]
pub struct HostileServer {
    server: Arc<MemoryServer>,
}

/// One request that reached the server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Victim {
    /// What was asked.
    pub request: Request,
    /// The event that asked.
    pub event: RequestEventId,
    to: ReplyTo,
}

/// What a payment request asks for by itself, in the notation that [`ScriptedHandler`](super::ScriptedHandler) reads.
#[must_use]
pub fn pay_req_asking(amount: u64, id: &str) -> String {
    format!("asks:{amount}:{id}")
}

impl HostileServer {
    /// A server, and the transport of its one client.
    #[must_use]
    pub fn new() -> (Self, Arc<MemoryClient>) {
        let (server, client) = memory::pair();
        (Self { server }, client)
    }

    /// The next request; notifications are passed over.
    ///
    /// # Errors
    ///
    /// When the client is gone.
    pub async fn request(&self) -> Result<Victim> {
        while let Some(inbound) = self.server.recv().await {
            if let Message::Request(request) = inbound.message {
                return Ok(Victim {
                    request,
                    event: inbound.origin.event,
                    to: inbound.origin.reply_to,
                });
            }
        }
        Err(Error::closed("the client is gone"))
    }

    /// The params of a demand.
    #[must_use]
    pub fn offer(amount: impl Into<Value>, pay_req: &str) -> Value {
        json!({"amount": amount.into(), "pay_req": pay_req, "pmi": "scripted", "ttl": 300})
    }

    /// Demands money with `params`, whatever they are.
    ///
    /// # Errors
    ///
    /// When the client is gone.
    pub async fn demand(&self, victim: &Victim, params: &Value) -> Result<()> {
        self.notify(victim, "notifications/payment_required", params)
            .await
    }

    /// Says anything about the request.
    ///
    /// # Errors
    ///
    /// When the client is gone.
    pub async fn notify(&self, victim: &Victim, method: &str, params: &Value) -> Result<()> {
        let said = Notification::new(method, params)?;
        self.server.send(&victim.to, Outbound::new(said)).await
    }

    /// Answers with a result.
    ///
    /// # Errors
    ///
    /// When the client is gone.
    pub async fn answer(&self, victim: &Victim, result: &Value) -> Result<()> {
        self.answer_tagged(victim, result, Vec::new()).await
    }

    /// Answers with a result that carries tags, such as prices.
    ///
    /// # Errors
    ///
    /// When the client is gone.
    pub async fn answer_tagged(
        &self,
        victim: &Victim,
        result: &Value,
        tags: Vec<Tag>,
    ) -> Result<()> {
        let response = Response {
            id: victim.request.id.clone(),
            payload: Payload::Result(raw(result)?),
        };
        let outbound = Outbound::new(response).with_tags(tags);
        self.server.send(&victim.to, outbound).await
    }

    /// Answers with an error.
    ///
    /// # Errors
    ///
    /// When the client is gone.
    pub async fn refuse(&self, victim: &Victim, code: i64, data: &Value) -> Result<()> {
        let error = ErrorObject::new(code, "as the test wants").with_data(data);
        let response = Response::from_error(victim.request.id.clone(), &error);
        self.server.send(&victim.to, Outbound::new(response)).await
    }

    /// Answers with `-32042` and these offers.
    ///
    /// # Errors
    ///
    /// When the client is gone.
    pub async fn gate(&self, victim: &Victim, offers: &[Value]) -> Result<()> {
        self.refuse(victim, -32042, &json!({ "payment_options": offers }))
            .await
    }

    /// Says something about a request that this client never made.
    ///
    /// # Errors
    ///
    /// When the client is gone.
    pub async fn demand_for_nothing(&self, victim: &Victim, params: &Value) -> Result<()> {
        let mut to = victim.to.clone();
        to.event = RequestEventId::from_bytes([0xee; 32]);
        let demand = Notification::new("notifications/payment_required", params)?;
        self.server.send(&to, Outbound::new(demand)).await
    }
}
