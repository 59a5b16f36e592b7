//! A paid server with one scripted rail, in memory: what tests of the gate begin with.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

use super::{FailingLedger, ProcessorControl, ScriptedProcessor, TestClock};
use crate::error::{Error, Result};
use crate::ledger::{Entry, EntryFilter, Ledger, MemoryLedger};
use crate::payment::{ClientPubkey, PaymentInteraction, Pmi, RequestEventId};
use crate::server::{PaidServer, ServerPayments, ServerPaymentsBuilder, with_server_payments};
use crate::transport::memory::{self, MemoryClient, MemoryServer};
use crate::transport::{
    ClientInbound, ClientTransport, Inbound, Introduction, Origin, Outbound, Prepared,
    ServerTransport,
};
use crate::wire::{ErrorObject, Message, Notification, Payload, Request, Response};

/// The payment method of the harness's rail.
const PMI: &str = "scripted";

/// What the handler of a harness does with one request.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Answer {
    /// Answers `{"echo": <params>}`.
    Echo,
    /// Answers with this result.
    Result(Value),
    /// Answers with this error.
    Error(ErrorObject),
    /// The handler dies of it, and its host says so.
    Lost,
    /// No answer ever comes.
    Never,
}

/// One request that the handler got.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Execution {
    /// Who called.
    pub client: ClientPubkey,
    /// The event of the request.
    pub event: RequestEventId,
    /// The request.
    pub request: Request,
}

type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// The handler as the test wrote it.
#[derive(Clone)]
struct Handler(Arc<dyn Fn(Request) -> Answering + Send + Sync>);

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}

type Executions = Arc<Mutex<Vec<Execution>>>;

/// A running paid server whose handler answers every request with `{"echo": <params>}`, unless told otherwise, and
/// writes down what it executed.
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
    /// Between the server and the books, to be cut when the process "dies".
    line: Arc<FailingLedger>,
    executions: Executions,
    handler: JoinHandle<()>,
}

/// What outlives a process: the books, the wallet, the time.
#[derive(Debug)]
#[non_exhaustive]
pub struct Survivors {
    /// The books.
    pub ledger: Arc<dyn Ledger>,
    /// The wallet.
    pub rail: ProcessorControl,
    /// The clock.
    pub clock: Arc<TestClock>,
}

/// Starts a [`Harness`].
#[derive(Debug)]
#[must_use]
pub struct HarnessBuilder {
    payments: ServerPaymentsBuilder,
    ledger: Arc<dyn Ledger>,
    clock: Arc<TestClock>,
    rail: Option<(ScriptedProcessor, ProcessorControl)>,
    handler: Handler,
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
            handler: Handler(Arc::new(|_| Box::pin(async { Answer::Echo }))),
        })
    }

    /// How many requests the handler has executed.
    #[must_use]
    pub fn executions(&self) -> usize {
        self.executed().len()
    }

    /// The requests that the handler has executed, in order.
    #[must_use]
    pub fn executed(&self) -> Vec<Execution> {
        self.executions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Ends the process as a power cut would: nothing of it writes, answers or executes any more.
    pub fn crash(self) -> Survivors {
        self.line.cut();
        Survivors {
            ledger: Arc::clone(&self.ledger),
            rail: self.rail.clone(),
            clock: Arc::clone(&self.clock),
        }
    }

    /// A client that signs as the `n`th key.
    #[must_use]
    pub fn client(&self, n: u8) -> RawClient {
        RawClient::new(self.transport.client(ClientPubkey::from_bytes([n; 32])))
    }

    /// The same, with messages of which the server is told what `dress` writes.
    #[must_use]
    pub fn client_as(&self, n: u8, dress: fn(&mut Origin)) -> RawClient {
        let key = ClientPubkey::from_bytes([n; 32]);
        RawClient::new(self.transport.client_as(key, dress))
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

    /// Takes up what a crashed process left.
    ///
    /// # Errors
    ///
    /// None that a test could cause.
    pub fn after(mut self, crashed: &Survivors) -> Result<Self> {
        self.ledger = Arc::clone(&crashed.ledger);
        self.clock = Arc::clone(&crashed.clock);
        self.rail = Some(ScriptedProcessor::restarted(&crashed.rail, PMI.parse()?));
        Ok(self)
    }

    /// Answers requests like this. Several are answered side by side.
    pub fn handler<F, Fut>(mut self, handler: F) -> Self
    where
        F: Fn(Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        self.handler = Handler(Arc::new(move |request| Box::pin(handler(request))));
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
        let line = Arc::new(FailingLedger::new(Arc::clone(&self.ledger)));
        let payments = self
            .payments
            .shared_processor(Arc::new(processor))
            .ledger(Arc::clone(&line) as _)
            .clock(Arc::clone(&self.clock) as _)
            .build()?;
        let server = with_server_payments(Arc::clone(&transport) as _, payments).await?;
        let executions = Executions::default();
        let handler = tokio::spawn(execute(
            Arc::clone(&server),
            self.handler,
            Arc::clone(&executions),
        ));
        Ok(Harness {
            server,
            transport,
            rail,
            ledger: self.ledger,
            clock: self.clock,
            line,
            executions,
            handler,
        })
    }
}

/// Gives the handler what the server lets through, and the server what the handler answers.
async fn execute(server: Arc<PaidServer>, handler: Handler, executions: Executions) {
    let mut running = JoinSet::new();
    while let Some(Inbound { message, origin }) = server.recv().await {
        let Message::Request(request) = message else {
            continue;
        };
        executions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Execution {
                client: origin.client,
                event: origin.event,
                request: request.clone(),
            });
        let answering = handler.0(request.clone());
        let server = Arc::clone(&server);
        running.spawn(async move {
            if let Some(outbound) = reply(request, answering.await) {
                // What cannot be sent is the server's to deal with.
                let _ = server.send(&origin.reply_to, outbound).await;
            }
        });
        while running.try_join_next().is_some() {}
    }
}

fn reply(request: Request, answer: Answer) -> Option<Outbound> {
    let result = match answer {
        Answer::Echo => {
            let params: Value = request
                .params
                .and_then(|params| serde_json::from_str(params.get()).ok())
                .unwrap_or_default();
            json!({ "echo": params })
        }
        Answer::Result(result) => result,
        Answer::Error(error) => {
            return Some(Outbound::new(Response::from_error(request.id, &error)));
        }
        Answer::Lost => {
            let error = ErrorObject::new(crate::wire::SERVER_ERROR_CODE, "the handler is gone");
            let response = Response::from_error(request.id, &error);
            return Some(Outbound::new(response).handler_lost());
        }
        Answer::Never => return None,
    };
    let payload = Payload::Result(crate::wire::raw(&result).ok()?);
    let id = request.id;
    Some(Outbound::new(Response { id, payload }))
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

    /// Takes back the request with the id `id`.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn cancel(&self, id: i64) -> Result<Prepared> {
        let params = json!({ "requestId": id });
        self.send(Notification::new("notifications/cancelled", &params)?.into())
            .await
    }

    /// Signs `message` without sending it.
    ///
    /// # Errors
    ///
    /// None that a test could cause.
    pub async fn prepare(&self, message: Message) -> Result<Prepared> {
        self.transport.prepare(&message, &self.introduction).await
    }

    /// Sends `message`.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn send(&self, message: Message) -> Result<Prepared> {
        let prepared = self.prepare(message).await?;
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

    /// Everything that comes within `within` (of paused time), as JSON, with the events that it is about.
    ///
    /// # Errors
    ///
    /// When the server is gone.
    pub async fn collect(&self, within: Duration) -> Result<Vec<(Option<RequestEventId>, Value)>> {
        let until = tokio::time::Instant::now() + within;
        let mut collected = Vec::new();
        while let Ok(next) = tokio::time::timeout_at(until, self.next_json()).await {
            collected.push(next?);
        }
        Ok(collected)
    }

    /// Whether nothing comes within `within` (of paused time).
    pub async fn is_silent_for(&self, within: Duration) -> bool {
        tokio::time::timeout(within, self.transport.recv())
            .await
            .is_err()
    }
}
