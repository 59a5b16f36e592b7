//! A paid server with one scripted rail, in memory: what tests of the gate begin with.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::{ProcessorControl, ScriptedProcessor, TestClock};
use crate::error::{Error, Result};
use crate::ledger::{Entry, EntryFilter, Ledger, MemoryLedger};
use crate::payment::{ClientPubkey, PaymentInteraction, Pmi, RequestEventId};
use crate::server::{PaidServer, ServerPayments, ServerPaymentsBuilder, with_server_payments};
use crate::transport::memory::{self, MemoryClient, MemoryServer};
use crate::transport::{
    ClientInbound, ClientTransport, Inbound, Introduction, Outbound, Prepared, ServerTransport,
};
use crate::wire::{Message, Request, Response};

/// The payment method of the harness's rail.
const PMI: &str = "scripted";

/// A running paid server whose handler answers every request with `{"echo": <params>}` and counts executions.
#[derive(Debug)]
pub struct Harness {
    /// The server.
    pub server: Arc<PaidServer>,
    /// Its transport; connect clients here.
    pub transport: Arc<MemoryServer>,
    /// The rail.
    pub rail: ProcessorControl,
    /// The books.
    pub ledger: Arc<dyn Ledger>,
    /// The clock of the books.
    pub clock: Arc<TestClock>,
    executions: Arc<AtomicUsize>,
    handler: JoinHandle<()>,
}

/// Starts a [`Harness`].
#[derive(Debug)]
#[must_use]
pub struct HarnessBuilder {
    payments: ServerPaymentsBuilder,
    ledger: Arc<dyn Ledger>,
    clock: Arc<TestClock>,
    rail: Option<(ScriptedProcessor, ProcessorControl)>,
}

impl Harness {
    /// A harness with `prices`, as in [`PricedCapability`](crate::PricedCapability)'s text form.
    ///
    /// # Errors
    ///
    /// When a price cannot be read.
    pub fn builder(prices: &[&str]) -> Result<HarnessBuilder> {
        let mut payments = ServerPayments::builder();
        for price in prices {
            payments = payments.price(price.parse()?);
        }
        let ledger = Arc::new(MemoryLedger::new());
        Ok(HarnessBuilder {
            payments,
            ledger,
            clock: Arc::new(TestClock::new()),
            rail: None,
        })
    }

    /// How many requests the handler has executed.
    #[must_use]
    pub fn executions(&self) -> usize {
        self.executions.load(Ordering::SeqCst)
    }

    /// A client that signs as the `n`th key.
    #[must_use]
    pub fn client(&self, n: u8) -> RawClient {
        RawClient::new(self.transport.client(ClientPubkey::from_bytes([n; 32])))
    }

    /// All entries of the ledger.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read.
    pub async fn entries(&self) -> Result<Vec<Entry>> {
        self.ledger
            .list(&EntryFilter::new(Vec::new(), 100_000))
            .await
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        self.handler.abort();
    }
}

impl HarnessBuilder {
    /// Changes how the server is paid.
    pub fn payments(
        mut self,
        change: impl FnOnce(ServerPaymentsBuilder) -> ServerPaymentsBuilder,
    ) -> Self {
        self.payments = change(self.payments);
        self
    }

    /// Keeps the books in `ledger`.
    pub fn ledger(mut self, ledger: Arc<dyn Ledger>) -> Self {
        self.ledger = ledger;
        self
    }

    /// Uses this rail, for example that of a former run.
    pub fn rail(mut self, rail: (ScriptedProcessor, ProcessorControl)) -> Self {
        self.rail = Some(rail);
        self
    }

    /// Uses this clock.
    pub fn clock(mut self, clock: Arc<TestClock>) -> Self {
        self.clock = clock;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    ///
    /// When the settings do not fit together.
    pub async fn start(self) -> Result<Harness> {
        let transport = memory::server_with_clock(Arc::clone(&self.clock) as _);
        let (processor, rail) = match self.rail {
            Some(rail) => rail,
            None => ScriptedProcessor::new(PMI.parse()?),
        };
        let payments = self
            .payments
            .shared_processor(Arc::new(processor))
            .ledger(Arc::clone(&self.ledger))
            .clock(Arc::clone(&self.clock) as _)
            .build()?;
        let server = with_server_payments(Arc::clone(&transport) as _, payments).await?;
        let executions = Arc::new(AtomicUsize::new(0));
        let handler = tokio::spawn(echo(Arc::clone(&server), Arc::clone(&executions)));
        Ok(Harness {
            server,
            transport,
            rail,
            ledger: self.ledger,
            clock: self.clock,
            executions,
            handler,
        })
    }
}

/// Answers every request with its params.
async fn echo(server: Arc<PaidServer>, executions: Arc<AtomicUsize>) {
    while let Some(Inbound { message, origin }) = server.recv().await {
        let Message::Request(request) = message else {
            continue;
        };
        executions.fetch_add(1, Ordering::SeqCst);
        let params: Value = request
            .params
            .and_then(|p| serde_json::from_str(p.get()).ok())
            .unwrap_or_default();
        let Ok(result) = crate::wire::raw(&json!({ "echo": params })) else {
            continue;
        };
        let response = Response {
            id: request.id,
            payload: crate::wire::Payload::Result(result),
        };
        let _ = server.send(&origin.reply_to, Outbound::new(response)).await;
    }
}

/// A client without any payment logic: it sends what it is told and shows what comes back.
#[derive(Debug)]
pub struct RawClient {
    transport: Arc<MemoryClient>,
    /// What it says about payments on each request.
    pub introduction: Introduction,
}

impl RawClient {
    fn new(transport: Arc<MemoryClient>) -> Self {
        let pmis = PMI.parse::<Pmi>().into_iter().collect();
        Self {
            transport,
            introduction: Introduction::new(pmis, None),
        }
    }

    /// The same client, which asks for explicit gating on each request.
    #[must_use]
    pub fn explicit(mut self) -> Self {
        self.introduction.interaction = Some(PaymentInteraction::ExplicitGating);
        self
    }

    /// Calls the tool `name` with the request id `id`.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn call_tool(&self, id: i64, name: &str, arguments: Value) -> Result<Prepared> {
        let params = json!({ "name": name, "arguments": arguments });
        self.send(Request::new(id, "tools/call", &params)?.into())
            .await
    }

    /// Sends `message`.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn send(&self, message: Message) -> Result<Prepared> {
        let prepared = self.transport.prepare(&message, &self.introduction).await?;
        self.transport.publish(&prepared).await?;
        Ok(prepared)
    }

    /// Sends a message once more, under the same event id.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn send_again(&self, prepared: &Prepared) -> Result<()> {
        self.transport.publish(prepared).await
    }

    /// The next message.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn next(&self) -> Result<ClientInbound> {
        self.transport
            .recv()
            .await
            .ok_or_else(|| Error::closed("the server is gone"))
    }

    /// The next message as JSON, with the event that it is about.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn next_json(&self) -> Result<(Option<RequestEventId>, Value)> {
        let inbound = self.next().await?;
        let json = serde_json::from_str(&inbound.message.to_json())
            .map_err(|source| Error::wire("not JSON").with_source(source))?;
        Ok((inbound.in_reply_to, json))
    }

    /// Whether nothing comes within `within` (of paused time).
    pub async fn is_silent_for(&self, within: std::time::Duration) -> bool {
        tokio::time::timeout(within, self.transport.recv())
            .await
            .is_err()
    }
}
