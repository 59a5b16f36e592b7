//! One child and the requests that it works on.
//!
//! Crash story: whatever happens to the child, every request that it took ends with exactly one answer. When the child is
//! lost, that answer is an error marked [`handler_lost`](Outbound::handler_lost), so that whoever paid gets the right to
//! the call back. Requests that come while the child is being restarted wait a bounded time, then end the same way.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::asker::{empty, reply_to_child};
use super::backoff::Backoff;
use super::catalogue::Catalogue;
use super::deliveries::Deliveries;
use super::load::Load;
use super::session::Session;
use super::subscriptions::Subscriptions;
use super::{ChildCommand, lost};
use crate::payment::ClientPubkey;
use crate::transport::{InFlight, Outbound, ReplyTo};
use crate::wire::{
    ErrorObject, Message, Notification, Request, RequestId, Response, SERVER_ERROR_CODE, method,
};

/// Requests that one child works on at a time.
const MOST_OPEN: usize = 1024;
/// How long a request waits for a child that is being restarted.
const RESTART_PATIENCE: Duration = Duration::from_secs(10);
/// How long a child may take to answer a request.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60 * 60);
/// How long a child may still answer a request that was cancelled.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);
/// How long a child may take to confirm a subscription that is moved to it.
const RESUBSCRIBE_PATIENCE: Duration = Duration::from_secs(10);

const UNSUBSCRIBE: &str = "resources/unsubscribe";
const UPDATED: &str = "notifications/resources/updated";

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
    setup: Setup,
    inbox: mpsc::Receiver<Job>,
    held: VecDeque<Job>,
    open: InFlight,
    /// When each open request, and each cancelled one, must have ended, by its label. Labels count up, so the first is
    /// the earliest.
    overdue: BTreeMap<i64, Instant>,
    cancelled: BTreeMap<i64, Instant>,
    subscribing: HashMap<i64, (ClientPubkey, String)>,
    subscriptions: Subscriptions,
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
            overdue: BTreeMap::new(),
            cancelled: BTreeMap::new(),
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
            let patience = [&self.overdue, &self.cancelled]
                .into_iter()
                .filter_map(|waiting| waiting.first_key_value())
                .map(|(_, at)| *at)
                .min();
            tokio::select! {
                () = self.setup.stop.cancelled() => return End::Stopped,
                message = session.process.from.recv() => match message {
                    Some(message) => self.take_from_child(message, session).await,
                    None => return End::Lost,
                },
                next = next_job(&to, &mut self.held, &mut self.inbox) => match next {
                    Some((room, job)) => self.take_from_client(job, room).await,
                    None if to.is_closed() => return End::Lost,
                    None => return End::Stopped,
                },
                () = until(patience) => self.give_up_waiting(&to).await,
            }
        }
    }

    async fn take_from_client(&mut self, job: Job, room: mpsc::Permit<'_, Message>) {
        match job.message {
            Message::Request(request) => self.request(request, job.reply_to, room).await,
            Message::Notification(notification) if notification.method == method::CANCELLED => {
                if let Some(cancelled) = self.open.cancel(&job.reply_to.client, &notification) {
                    self.note_cancelled(&cancelled);
                    room.send(cancelled.into());
                }
            }
            // Of a shared child's session the gateway is the only owner.
            Message::Notification(notification) if self.setup.only.is_some() => {
                room.send(notification.into());
            }
            Message::Notification(_) | Message::Response(_) => {}
        }
    }

    async fn request(
        &mut self,
        request: Request,
        reply_to: ReplyTo,
        room: mpsc::Permit<'_, Message>,
    ) {
        let client = reply_to.client;
        let subscription = subscribed_uri(&request);
        let subscribes = request.method == method::RESOURCES_SUBSCRIBE;
        if let Some(uri) = &subscription
            && self.is_settled_here(client, uri, subscribes)
        {
            let answer = Outbound::new(empty(request.id));
            self.answer(reply_to, answer).await;
            return;
        }
        let id = request.id.clone();
        match self.open.open(request, reply_to.clone()) {
            Ok(labelled) => {
                if let RequestId::Number(label) = labelled.id {
                    if let Some(uri) = subscription.filter(|_| subscribes) {
                        self.subscribing.insert(label, (client, uri));
                    }
                    self.overdue.insert(label, Instant::now() + ANSWER_PATIENCE);
                }
                room.send(labelled.into());
            }
            Err(_) => {
                let error = ErrorObject::new(
                    SERVER_ERROR_CODE,
                    "Too many requests at once; try again later",
                );
                let answer = Outbound::new(Response::from_error(id, &error)).handler_lost();
                self.answer(reply_to, answer).await;
            }
        }
    }

    /// Whether a subscription, or the end of one, changes nothing for the child, because others are subscribed too.
    fn is_settled_here(&mut self, client: ClientPubkey, uri: &str, subscribes: bool) -> bool {
        if self.setup.only.is_some() {
            return false;
        }
        if !subscribes {
            self.subscriptions.remove(&client, uri);
        }
        let settled = self.subscriptions.has(uri);
        if subscribes && settled {
            self.subscriptions.add(client, uri);
        }
        settled
    }

    async fn take_from_child(&mut self, message: Message, session: &Session) {
        match message {
            Message::Response(response) => {
                if let Some(response) = session.asker.answer(response) {
                    self.response(response).await;
                }
            }
            Message::Request(request) => {
                // A child that floods us with requests while it reads nothing loses some answers.
                let _ = session.process.to.try_send(reply_to_child(request).into());
            }
            Message::Notification(notification) => self.notification(notification, session),
        }
    }

    async fn response(&mut self, response: Response) {
        let subscribed = self
            .forget(&response.id)
            .filter(|_| response.result().is_some());
        if let Some((client, uri)) = subscribed {
            self.subscriptions.add(client, &uri);
        }
        if let Some(answered) = self.open.answer(response) {
            self.answer(answered.reply_to, Outbound::new(answered.message))
                .await;
        } else {
            debug!("the child answered a request that is not open");
        }
    }

    /// Clears what is remembered beside an open request; what is returned is the subscription that it asked for.
    fn forget(&mut self, id: &RequestId) -> Option<(ClientPubkey, String)> {
        let RequestId::Number(label) = id else {
            return None;
        };
        self.overdue.remove(label);
        self.cancelled.remove(label);
        self.subscribing.remove(label)
    }

    fn notification(&self, notification: Notification, session: &Session) {
        let out = &self.setup.deliveries;
        match notification.method.as_str() {
            method::PROGRESS => {
                if let Some(progress) = self.open.progress(&notification) {
                    out.progress(&progress.reply_to, progress.message);
                }
            }
            UPDATED if self.setup.only.is_none() => {
                for client in uri_of(notification.params.as_deref())
                    .map(|uri| self.subscriptions.subscribers(&uri))
                    .unwrap_or_default()
                {
                    out.broadcast(Some(client), notification.clone().into());
                }
            }
            list if list.ends_with("/list_changed") => {
                if list == "notifications/tools/list_changed" {
                    self.list_again(session);
                }
                out.broadcast(self.setup.only, notification.into());
            }
            method::CANCELLED => {}
            // All else may be about one client's call, and of a shared child nobody knows whose.
            _ if self.setup.only.is_some() => out.broadcast(self.setup.only, notification.into()),
            other => debug!(
                method = other,
                "a notification of the shared child is not passed on"
            ),
        }
    }

    fn list_again(&self, session: &Session) {
        let (asker, introduction) = (session.asker.clone(), Arc::clone(&session.introduction));
        let catalogue = self.setup.catalogue.clone();
        tokio::spawn(async move {
            let listed = Catalogue::ask(&asker, introduction.result()).await;
            catalogue.send_replace(Arc::new(listed));
        });
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

    fn note_cancelled(&mut self, cancelled: &Notification) {
        let id = cancelled
            .params
            .as_deref()
            .and_then(|params| serde_json::from_str::<Value>(params.get()).ok())
            .and_then(|params| params.get("requestId")?.as_i64());
        if let Some(label) = id {
            self.cancelled
                .entry(label)
                .or_insert_with(|| Instant::now() + CANCEL_PATIENCE);
        }
    }

    /// Ends what the child did not answer in time. A cancelled request usually stays without an answer; it ends here.
    async fn give_up_waiting(&mut self, to: &mpsc::Sender<Message>) {
        let now = Instant::now();
        while let Some(id) = first_before(&self.cancelled, now) {
            self.forget(&id);
            let error = ErrorObject::new(SERVER_ERROR_CODE, "The request was cancelled");
            if let Some(ended) = self.open.answer(Response::from_error(id, &error)) {
                self.answer(ended.reply_to, Outbound::new(ended.message))
                    .await;
            }
        }
        while let Some(id) = first_before(&self.overdue, now) {
            self.forget(&id);
            let params = json!({ "requestId": &id, "reason": "no answer in time" });
            if let Some(ended) = self.open.answer(lost(id)) {
                if let Ok(cancel) = Notification::new(method::CANCELLED, &params) {
                    let _ = to.try_send(cancel.into());
                }
                let answer = Outbound::new(ended.message).handler_lost();
                self.answer(ended.reply_to, answer).await;
            }
        }
    }

    async fn lose_everything(&mut self) {
        self.overdue.clear();
        self.cancelled.clear();
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

    async fn answer(&self, to: ReplyTo, answer: Outbound) {
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

fn first_before(waiting: &BTreeMap<i64, Instant>, now: Instant) -> Option<RequestId> {
    let (label, at) = waiting.first_key_value()?;
    (*at <= now).then_some(RequestId::Number(*label))
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn subscribed_uri(request: &Request) -> Option<String> {
    matches!(
        request.method.as_str(),
        method::RESOURCES_SUBSCRIBE | UNSUBSCRIBE
    )
    .then(|| uri_of(request.params.as_deref()))
    .flatten()
}

fn uri_of(params: Option<&serde_json::value::RawValue>) -> Option<String> {
    let params: Value = serde_json::from_str(params?.get()).ok()?;
    params.get("uri")?.as_str().map(str::to_owned)
}
