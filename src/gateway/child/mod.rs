//! A stdio MCP server as the handler behind a transport.
//!
//! The way of a request: [`Children::serve`] answers what the gateway knows by itself (`initialize`, `ping`) and hands the
//! rest to a [`worker`], which gives it a label that cannot clash and writes it to the [`process`]. The answer comes back
//! through the same worker, under the client's own id, and leaves through [`deliveries`].
//!
//! By default all clients share one child. Then nothing that belongs to one of them may reach another: ids and progress
//! tokens are replaced, updates go to subscribers only, and what a child says about nobody in particular is dropped.

// One child: started, initialised, asked what it has, worked.
mod asker;
mod backoff;
mod catalogue;
mod deadlines;
mod process;
mod session;
mod subscriptions;
mod traffic;
mod worker;

// Back to the clients.
mod deliveries;

// One child per client.
mod isolate;
mod load;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(super) use self::catalogue::{Catalogue, Listed};
pub(super) use self::isolate::Isolation;
pub(super) use self::session::ServerIntroduction;

use self::asker::{METHOD_NOT_FOUND, empty};
use self::deliveries::Deliveries;
use self::isolate::Pool;
use self::load::Load;
use self::session::Session;
use self::worker::{Job, Setup, Worker};
use crate::error::Result;
use crate::payment::ClientPubkey;
use crate::transport::{Inbound, Outbound, ReplyTo, ServerTransport};
use crate::wire::{
    ErrorObject, Message, Payload, Request, RequestId, Response, SERVER_ERROR_CODE, method,
};

/// Requests that wait for one child.
const INBOX: usize = 256;
/// How often children without work are looked for.
const TICK: Duration = Duration::from_secs(30);

/// The program that is the server.
#[derive(Clone)]
pub(super) struct ChildCommand {
    program: String,
    args: Vec<String>,
}

impl ChildCommand {
    /// The program comes first; `None` if there is none.
    pub(super) fn new(words: &[String]) -> Option<Self> {
        let (program, args) = words.split_first()?;
        Some(Self {
            program: program.clone(),
            args: args.to_vec(),
        })
    }
}

/// Leaves the arguments out: people put tokens there.
impl std::fmt::Debug for ChildCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "ChildCommand({}, {} args)",
            self.program,
            self.args.len()
        )
    }
}

/// The server program, started and asked what it offers, ready to serve.
#[derive(Debug)]
pub(super) struct Children {
    command: Arc<ChildCommand>,
    isolation: Option<Isolation>,
    first: Session,
    catalogue: watch::Sender<Arc<Catalogue>>,
}

impl Children {
    /// Starts the program and asks what it offers.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) if there is no such program, otherwise when it does not answer as an MCP
    /// server.
    pub(super) async fn start(command: ChildCommand, isolation: Option<Isolation>) -> Result<Self> {
        let mut first = Session::open(&command).await?;
        let catalogue = first.catalogue().await?;
        Ok(Self {
            command: Arc::new(command),
            isolation,
            first,
            catalogue: watch::Sender::new(Arc::new(catalogue)),
        })
    }

    /// What the program said about itself.
    pub(super) fn introduction(&self) -> Arc<ServerIntroduction> {
        Arc::clone(&self.first.introduction)
    }

    /// What the program offers, kept up to date while it is served.
    pub(super) fn catalogue(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.catalogue.subscribe()
    }

    /// Ends the program without serving it.
    pub(super) async fn stop(self) {
        self.first.process.stop().await;
    }

    /// Serves what comes over `transport` until it is closed or `stop` is cancelled. Every request that was taken is
    /// answered before this returns.
    pub(super) async fn serve(self, transport: Arc<dyn ServerTransport>, stop: CancellationToken) {
        let deliveries = Deliveries::new(Arc::clone(&transport));
        let workers = stop.child_token();
        let mut front = Front {
            introduction: Arc::clone(&self.first.introduction),
            shared: self.isolation.is_none(),
            deliveries: deliveries.clone(),
        };
        let mut backend = match self.isolation {
            None => {
                let setup = Setup {
                    command: self.command,
                    deliveries: deliveries.clone(),
                    only: None,
                    catalogue: self.catalogue,
                    load: Load::new(),
                    stop: workers.clone(),
                };
                Backend::Shared(Running::start(setup, Some(self.first)))
            }
            Some(isolation) => {
                // It has said what there is to know; each client gets a child of its own.
                self.first.process.stop().await;
                let pool = Pool::new(isolation, self.command, deliveries.clone(), self.catalogue);
                Backend::Isolated(pool)
            }
        };
        let mut tick = tokio::time::interval(TICK);
        loop {
            let inbound = tokio::select! {
                inbound = transport.recv() => inbound,
                () = stop.cancelled() => None,
                _ = tick.tick() => {
                    backend.retire_idle();
                    continue;
                }
            };
            let Some(inbound) = inbound else { break };
            if let Some(job) = front.take(inbound).await {
                backend.dispatch(job).await;
            }
        }
        // Nothing new comes. What was taken is finished, unless there is no time for that.
        tokio::select! {
            () = backend.idle() => {}
            () = stop.cancelled() => {}
        }
        workers.cancel();
        backend.finish().await;
        deliveries.finish().await;
    }
}

/// What the gateway answers without asking a child.
#[derive(Debug)]
struct Front {
    introduction: Arc<ServerIntroduction>,
    shared: bool,
    deliveries: Deliveries,
}

impl Front {
    /// The message as a job for a child, unless that was all.
    async fn take(&mut self, inbound: Inbound) -> Option<Job> {
        let reply_to = inbound.origin.reply_to;
        let message = match inbound.message {
            Message::Request(request) => match self.answer(&request) {
                Some(response) => {
                    self.deliveries
                        .answer(reply_to, Outbound::new(response))
                        .await;
                    return None;
                }
                None => Message::Request(request),
            },
            // The gateway has opened the session with the child already.
            Message::Notification(notification) if notification.method == method::INITIALIZED => {
                return None;
            }
            Message::Response(_) => return None,
            notification @ Message::Notification(_) => notification,
        };
        Some(Job {
            message,
            reply_to,
            arrived: Instant::now(),
        })
    }

    fn answer(&self, request: &Request) -> Option<Response> {
        let id = request.id.clone();
        match request.method.as_str() {
            "ping" => Some(empty(id)),
            method::INITIALIZE => Some(
                match self
                    .introduction
                    .for_client(request.params.as_deref(), self.shared)
                {
                    Ok(result) => Response {
                        id,
                        payload: Payload::Result(result),
                    },
                    Err(_) => lost(id),
                },
            ),
            "logging/setLevel" if self.shared => Some(empty(id)),
            tasks if self.shared && tasks.starts_with("tasks/") => Some(Response::from_error(
                id,
                &ErrorObject::new(METHOD_NOT_FOUND, "Method not found"),
            )),
            _ => None,
        }
    }
}

#[derive(Debug)]
enum Backend {
    Shared(Running),
    Isolated(Pool),
}

impl Backend {
    async fn dispatch(&mut self, job: Job) {
        match self {
            // A full inbox is back-pressure: nothing more is received until the child catches up.
            Self::Shared(running) => running.push(job).await,
            Self::Isolated(pool) => pool.dispatch(job).await,
        }
    }

    fn retire_idle(&mut self) {
        if let Self::Isolated(pool) = self {
            pool.retire_idle();
        }
    }

    async fn idle(&self) {
        match self {
            Self::Shared(running) => running.load.idle().await,
            Self::Isolated(pool) => pool.idle().await,
        }
    }

    async fn finish(self) {
        match self {
            Self::Shared(running) => running.finish().await,
            Self::Isolated(pool) => pool.finish().await,
        }
    }
}

/// A worker at work.
#[derive(Debug)]
struct Running {
    inbox: mpsc::Sender<Job>,
    load: Load,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(setup: Setup, first: Option<Session>) -> Self {
        let (inbox, jobs) = mpsc::channel(INBOX);
        let (load, stop) = (setup.load.clone(), setup.stop.clone());
        let task = tokio::spawn(Worker::new(setup, jobs).run(first));
        Self {
            inbox,
            load,
            stop,
            task,
        }
    }

    async fn push(&self, job: Job) {
        if matches!(job.message, Message::Request(_)) {
            self.load.add();
        }
        // A worker only goes away when it is told to; whoever told it receives nothing any more.
        let _ = self.inbox.send(job).await;
    }

    async fn finish(self) {
        drop(self.inbox);
        self.stop.cancel();
        let _ = self.task.await;
    }
}

/// The answer to a request whose handler is gone.
fn lost(id: RequestId) -> Response {
    let error = ErrorObject::new(
        SERVER_ERROR_CODE,
        "The server behind the gateway ended before it answered",
    );
    Response::from_error(id, &error)
}

/// Whom a reply address belongs to.
fn client_of(reply_to: &ReplyTo) -> ClientPubkey {
    reply_to.client
}
