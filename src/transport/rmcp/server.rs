//! Gives every client an rmcp session of its own, and each session's answers their way back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ::rmcp::model::GetExtensions;
use ::rmcp::service::{RxJsonRpcMessage, serve_directly_with_ct};
use ::rmcp::{RoleServer, ServerHandler};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::guard::Guarded;
use super::session::{LOST, MOST_OPEN, Session, SessionTransport};
use super::to_rmcp;
use crate::payment::ClientPubkey;
use crate::transport::{Inbound, Origin, Outbound, ServerTransport};
use crate::wire::{
    ErrorObject, INVALID_PARAMS_CODE, Message, Notification, Request, RequestId, Response,
    SERVER_ERROR_CODE, method,
};

/// The most sessions at a time. One more closes the one that has been idle longest.
const MOST_SESSIONS: usize = 1000;

/// How long handlers may go on once the transport is closed.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

/// Serves an rmcp handler over `transport`, usually a [`PaidServer`](crate::server::PaidServer), until it closes.
///
/// Each client has a session with a handler of its own, made by `make_handler` when its first request comes, whether or
/// not that is `initialize`. A tool learns who calls from its context: [`ClientPubkey`] and
/// [`RequestEventId`](crate::RequestEventId) are in the request's extensions. At most 1000 sessions are kept, and 256 open
/// requests in each; a session that is working is never closed to make room for another.
///
/// Requests of the handler to its client (sampling, elicitation) travel as messages that belong to no request.
pub async fn serve_rmcp<H, F>(transport: Arc<dyn ServerTransport>, make_handler: F)
where
    H: ServerHandler,
    F: Fn(&ClientPubkey) -> H,
{
    serve_at_most(MOST_SESSIONS, transport, make_handler).await;
}

pub(super) async fn serve_at_most<H, F>(
    most: usize,
    transport: Arc<dyn ServerTransport>,
    make_handler: F,
) where
    H: ServerHandler,
    F: Fn(&ClientPubkey) -> H,
{
    let mut sessions = Sessions {
        most,
        transport: Arc::clone(&transport),
        by_client: HashMap::new(),
        uses: 0,
        running: TaskTracker::new(),
        stop: CancellationToken::new(),
    };
    // Ends every session even if this future is dropped.
    let _stop = sessions.stop.clone().drop_guard();
    while let Some(Inbound { message, origin }) = transport.recv().await {
        match message {
            Message::Request(request) => sessions.request(request, origin, &make_handler).await,
            Message::Notification(notification) => sessions.notification(&notification, &origin),
            Message::Response(_) => sessions.pass_on(&origin.client, &message),
        }
    }
    sessions.end().await;
}

/// How a session is fed.
struct Feed {
    session: Arc<Session>,
    inbox: mpsc::Sender<RxJsonRpcMessage<RoleServer>>,
    last_used: u64,
}

struct Sessions {
    most: usize,
    transport: Arc<dyn ServerTransport>,
    by_client: HashMap<ClientPubkey, Feed>,
    uses: u64,
    running: TaskTracker,
    stop: CancellationToken,
}

impl Sessions {
    async fn request<H, F>(&mut self, request: Request, origin: Origin, make_handler: &F)
    where
        H: ServerHandler,
        F: Fn(&ClientPubkey) -> H,
    {
        let id = request.id.clone();
        let reply_to = origin.reply_to.clone();
        let Some(feed) = self.feed(&origin.client, make_handler) else {
            return self.refuse(id, &origin, "Too many clients at once").await;
        };
        let (session, inbox) = (Arc::clone(&feed.session), feed.inbox.clone());
        let Ok(request) = session.open(request, reply_to) else {
            return self.refuse(id, &origin, "Too many requests at once").await;
        };
        let label = request.id.clone();
        let error = match to_rmcp::<RoleServer>(&request.into()) {
            Ok(mut message) => {
                if let RxJsonRpcMessage::<RoleServer>::Request(request) = &mut message {
                    let extensions = request.request.extensions_mut();
                    extensions.insert(origin.client);
                    extensions.insert(origin.event);
                }
                match inbox.try_send(message) {
                    Ok(()) => return,
                    Err(_) => ErrorObject::new(SERVER_ERROR_CODE, LOST),
                }
            }
            Err(_) => ErrorObject::new(INVALID_PARAMS_CODE, "These params cannot be read"),
        };
        session.give_up(&label, &error).await;
    }

    fn notification(&mut self, notification: &Notification, origin: &Origin) {
        let Some(feed) = self.by_client.get(&origin.client) else {
            return;
        };
        if notification.method != method::CANCELLED {
            return self.pass_on(&origin.client, &notification.clone().into());
        }
        if let Some(translated) = feed.session.cancel(notification) {
            self.pass_on(&origin.client, &translated.into());
        }
    }

    /// Hands a message to a session that exists. Nobody waits for an answer to it.
    fn pass_on(&self, client: &ClientPubkey, message: &Message) {
        let Some(feed) = self.by_client.get(client) else {
            return;
        };
        match to_rmcp::<RoleServer>(message).map(|message| feed.inbox.try_send(message)) {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::warn!("dropped a notification: the session is busy or gone"),
            Err(error) => tracing::debug!(
                error = &error as &dyn std::error::Error,
                "dropped a message that rmcp cannot read"
            ),
        }
    }

    /// The session of `client`, made if there is none; `None` if there is no room for one more.
    fn feed<H, F>(&mut self, client: &ClientPubkey, make_handler: &F) -> Option<&mut Feed>
    where
        H: ServerHandler,
        F: Fn(&ClientPubkey) -> H,
    {
        self.uses += 1;
        if self
            .by_client
            .get(client)
            .is_none_or(|feed| feed.inbox.is_closed())
        {
            self.by_client.remove(client);
            if self.by_client.len() >= self.most && !self.make_room() {
                return None;
            }
            let feed = self.start(*client, make_handler(client));
            self.by_client.insert(*client, feed);
        }
        let feed = self.by_client.get_mut(client)?;
        feed.last_used = self.uses;
        Some(feed)
    }

    /// Closes the session that has been idle longest; `false` if none is idle.
    fn make_room(&mut self) -> bool {
        self.by_client.retain(|_, feed| !feed.inbox.is_closed());
        if self.by_client.len() < self.most {
            return true;
        }
        let idle = self
            .by_client
            .iter()
            .filter(|(_, feed)| feed.session.is_idle())
            .min_by_key(|(_, feed)| feed.last_used)
            .map(|(client, _)| *client);
        idle.is_some_and(|client| self.by_client.remove(&client).is_some())
    }

    fn start<H: ServerHandler>(&self, client: ClientPubkey, handler: H) -> Feed {
        // Room for every open request and as many notifications.
        let (inbox, received) = mpsc::channel(2 * MOST_OPEN);
        let session = Arc::new(Session::new(client, Arc::clone(&self.transport)));
        let transport = SessionTransport {
            session: Arc::clone(&session),
            inbox: received,
        };
        let guarded = Guarded {
            handler,
            session: Arc::clone(&session),
        };
        // No handshake is waited for: a client of the stateless protocol, or one that has been here before, just calls.
        let service = serve_directly_with_ct(guarded, transport, None, self.stop.child_token());
        let ended = Arc::clone(&session);
        self.running.spawn(async move {
            if let Err(error) = service.waiting().await {
                tracing::error!(%error, "an rmcp session was lost");
            }
            ended.give_up_all().await;
        });
        Feed {
            session,
            inbox,
            last_used: 0,
        }
    }

    /// Answers a request that no session took. What was paid for it is given back.
    async fn refuse(&self, id: RequestId, origin: &Origin, why: &'static str) {
        let answer = Response::from_error(id, &ErrorObject::new(SERVER_ERROR_CODE, why));
        let outbound = Outbound::new(answer).handler_lost();
        if let Err(error) = self.transport.send(&origin.reply_to, outbound).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "an answer could not be sent"
            );
        }
    }

    /// Lets the handlers say what they still have to say, then ends them.
    async fn end(mut self) {
        self.by_client.clear();
        self.running.close();
        if tokio::time::timeout(LAST_ANSWERS, self.running.wait())
            .await
            .is_err()
        {
            self.stop.cancel();
        }
    }
}
