//! One child and the requests that it works on.
//!
//! Crash story: whatever happens to the child, every request that it took ends with exactly one answer. When the child is
//! lost, that answer is an error marked [`handler_lost`](Outbound::handler_lost), so that whoever paid gets the right to
//! the call back. Requests that come while the child is being restarted wait a bounded time, then end the same way.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::backoff::Backoff;
use super::catalogue::Catalogue;
use super::deadlines::{Deadlines, Overdue};
use super::deliveries::Deliveries;
use super::load::Load;
use super::session::Session;
use super::subscriptions::Subscriptions;
use super::{ChildCommand, lost};
use crate::payment::ClientPubkey;
use crate::transport::{InFlight, Outbound, ReplyTo};
use crate::wire::{ErrorObject, Message, Notification, Response, SERVER_ERROR_CODE, method};

/// Requests that one child works on at a time.
const MOST_OPEN: usize = 1024;
/// How long a request waits for a child that is being restarted.
const RESTART_PATIENCE: Duration = Duration::from_secs(10);
/// How long a child may take to confirm a subscription that is moved to it.
const RESUBSCRIBE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a child that reads no more may go on to answer.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A message from a client, for the child.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) message: Message,
    pub(super) reply_to: ReplyTo,
    pub(super) arrived: Instant,
}

/// How a worker is set up.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) command: Arc<ChildCommand>,
    pub(super) deliveries: Deliveries,
    /// The one client of this child; `None` if it is shared.
    pub(super) only: Option<ClientPubkey>,
    /// Where a new list of tools is published.
    pub(super) catalogue: watch::Sender<Arc<Catalogue>>,
    /// How many requests wait or are worked on, for whoever has to choose.
    pub(super) load: Load,
    pub(super) stop: CancellationToken,
}

/// Runs children, one after the other, until told to stop.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) setup: Setup,
    inbox: mpsc::Receiver<Job>,
    held: VecDeque<Job>,
    pub(super) open: InFlight,
    pub(super) deadlines: Deadlines,
    /// The subscriptions that the child has not confirmed yet, by the label of the request.
    pub(super) subscribing: HashMap<i64, (ClientPubkey, String)>,
    pub(super) subscriptions: Subscriptions,
}

enum End {
    Stopped,
    Lost,
}

impl Worker {
    pub(super) fn new(setup: Setup, inbox: mpsc::Receiver<Job>) -> Self {
        Self {
            setup,
            inbox,
            held: VecDeque::new(),
            open: InFlight::new(MOST_OPEN),
            deadlines: Deadlines::default(),
            subscribing: HashMap::new(),
            subscriptions: Subscriptions::default(),
        }
    }

    /// Runs until stopped; begins with `first`, if there is a child already.
    pub(super) async fn run(mut self, first: Option<Session>) {
        let mut backoff = Backoff::new();
        let mut next = first;
        loop {
            let session = match next.take() {
                Some(session) => session,
                None => match self.start(&mut backoff).await {
                    Some(session) => session,
                    None => break,
                },
            };
            let began = Instant::now();
            let mut session = session;
            let end = self.serve(&mut session).await;
            self.lose_everything().await;
            session.process.stop().await;
            match end {
                End::Stopped => break,
                End::Lost => {
                    let wait = backoff.after(began.elapsed());
                    info!(wait_ms = wait.as_millis(), "the child is started again");
                    if self.hold_until(tokio::time::sleep(wait)).await.is_none() {
                        break;
                    }
                }
            }
        }
        self.inbox.close();
        while let Some(job) = self.held.pop_front() {
            self.refuse(job).await;
        }
        while let Some(job) = self.inbox.recv().await {
            self.refuse(job).await;
        }
    }

    /// Starts a child, again and again. `None`: told to stop.
    async fn start(&mut self, backoff: &mut Backoff) -> Option<Session> {
        loop {
            let command = Arc::clone(&self.setup.command);
            let opening = async move { Session::open(&command).await };
            match self.hold_until(opening).await? {
                Ok(session) => {
                    self.resubscribe(&session);
                    return Some(session);
                }
                Err(error) => {
                    warn!(%error, "the child does not start");
                    self.hold_until(tokio::time::sleep(backoff.after(Duration::ZERO)))
                        .await?;
                }
            }
        }
    }

    /// Waits for `future`; meanwhile keeps what arrives, and refuses what has waited too long. `None`: told to stop.
    async fn hold_until<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(future);
        loop {
            let patience = self.held.front().map(|job| job.arrived + RESTART_PATIENCE);
            tokio::select! {
                done = &mut future => return Some(done),
                () = self.setup.stop.cancelled() => return None,
                job = self.inbox.recv(), if self.held.len() < MOST_OPEN => self.held.push_back(job?),
                () = until(patience) => {
                    if let Some(job) = self.held.pop_front() {
                        self.refuse(job).await;
                    }
                }
            }
        }
    }

    async fn serve(&mut self, session: &mut Session) -> End {
        let to = session.process.to.clone();
        loop {
            let patience = self.deadlines.next();
            tokio::select! {
                () = self.setup.stop.cancelled() => return End::Stopped,
                message = session.process.from.recv() => match message {
                    Some(message) => self.take_from_child(message, session).await,
                    None => return End::Lost,
                },
                next = next_job(&to, &mut self.held, &mut self.inbox) => match next {
                    Some((room, job)) => self.take_from_client(job, room).await,
                    None if to.is_closed() => {
                        self.hear_last_words(session).await;
                        return End::Lost;
                    }
                    None => return End::Stopped,
                },
                () = until(patience) => self.give_up_waiting(&to).await,
            }
        }
    }

    /// A child that reads no more may still have answers under way: what it was paid for and has done must not count as lost.
    async fn hear_last_words(&mut self, session: &mut Session) {
        let until = Instant::now() + LAST_WORDS;
        while let Ok(Some(message)) = timeout_at(until, session.process.from.recv()).await {
            self.take_from_child(message, session).await;
        }
    }

    fn resubscribe(&self, session: &Session) {
        for uri in self.subscriptions.uris() {
            let asker = session.asker.clone();
            tokio::spawn(async move {
                let params = json!({ "uri": uri });
                if let Err(error) = asker
                    .ask(method::RESOURCES_SUBSCRIBE, &params, RESUBSCRIBE_PATIENCE)
                    .await
                {
                    debug!(%error, "a subscription did not survive the restart");
                }
            });
        }
    }

    /// Ends what the child did not answer in time. A cancelled request usually stays without an answer; it ends here.
    async fn give_up_waiting(&mut self, to: &mpsc::Sender<Message>) {
        while let Some(overdue) = self.deadlines.overdue() {
            let (response, cancel) = match overdue {
                Overdue::Cancelled(id) => {
                    let error = ErrorObject::new(SERVER_ERROR_CODE, "The request was cancelled");
                    (Response::from_error(id, &error), None)
                }
                Overdue::Unanswered(id) => {
                    let params = json!({ "requestId": &id, "reason": "no answer in time" });
                    let cancel = Notification::new(method::CANCELLED, &params).ok();
                    (lost(id), cancel)
                }
            };
            self.forget(&response.id);
            let Some(ended) = self.open.answer(response) else {
                continue;
            };
            let mut answer = Outbound::new(ended.message);
            if let Some(cancel) = cancel {
                answer = answer.handler_lost();
                let _ = to.try_send(cancel.into());
            }
            self.answer(ended.reply_to, answer).await;
        }
    }

    async fn lose_everything(&mut self) {
        self.deadlines.clear();
        self.subscribing.clear();
        let open = self.open.drain();
        if !open.is_empty() {
            warn!(
                requests = open.len(),
                "the child left requests without an answer"
            );
        }
        for (id, reply_to) in open {
            self.answer(reply_to, Outbound::new(lost(id)).handler_lost())
                .await;
        }
    }

    async fn refuse(&self, job: Job) {
        if let Message::Request(request) = job.message {
            let answer = Outbound::new(lost(request.id)).handler_lost();
            self.answer(job.reply_to, answer).await;
        }
    }

    pub(super) async fn answer(&self, to: ReplyTo, answer: Outbound) {
        self.setup.deliveries.answer(to, answer).await;
        self.setup.load.done();
    }
}

/// The next message for the child, once it has room for one.
async fn next_job<'a>(
    to: &'a mpsc::Sender<Message>,
    held: &mut VecDeque<Job>,
    inbox: &mut mpsc::Receiver<Job>,
) -> Option<(mpsc::Permit<'a, Message>, Job)> {
    let room = to.reserve().await.ok()?;
    let job = match held.pop_front() {
        Some(job) => job,
        None => inbox.recv().await?,
    };
    Some((room, job))
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
