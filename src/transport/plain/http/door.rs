//! Is this request for us, and may it come in?

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ALLOW, CACHE_CONTROL, CONTENT_TYPE,
    HOST, HeaderValue, ORIGIN, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::super::stdio::now;
use super::Shared;
use super::body::{Answer, Event};
use super::caller::{Caller, SESSION};
use super::exchange::{Came, Wait};
use super::session::Session;
use crate::payment::RequestEventId;
use crate::transport::{Inbound, Origin};
use crate::wire::{INVALID_REQUEST_CODE, Message, RequestId, method};

/// The longest message.
const LONGEST: usize = 4 * 1024 * 1024;
/// How long a message may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer may take before the client is shown, by a stream, that it is being worked on.
const SILENCE: Duration = Duration::from_secs(10);
/// The code of a call that only a licence lets through; over HTTP its status is that of a missing licence.
const LICENCE_REQUIRED_CODE: i64 = -32041;
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

/// What the client can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reads {
    json: bool,
    events: bool,
}

impl Shared {
    pub(super) async fn answer(
        self: Arc<Self>,
        peer: IpAddr,
        request: Request<Incoming>,
    ) -> Response<Answer> {
        if let Some((status, why)) = self.objection(peer, &request) {
            return refusal(status, why);
        }
        let origin = request.headers().get(ORIGIN).cloned();
        let mut response = self.serve(peer, request).await;
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(origin) = origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(VARY, HeaderValue::from_static("Origin"));
            let exposed = HeaderValue::from_static("mcp-session-id");
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
        response
    }

    /// Why a request may not come in, with the status that says so.
    fn objection(
        &self,
        peer: IpAddr,
        request: &Request<Incoming>,
    ) -> Option<(StatusCode, &'static str)> {
        let forbidden = |why| Some((StatusCode::FORBIDDEN, why));
        if !self.settings.trusts(peer) {
            return forbidden(
                "this server speaks in the clear, so only what ends TLS on its machine, or is named in trusted_proxies, may connect",
            );
        }
        let headers = request.headers();
        let named = headers.get(HOST).and_then(|host| host.to_str().ok());
        let named = named.or_else(|| request.uri().authority().map(|named| named.as_str()));
        if !named.is_some_and(|host| self.settings.is_called(host, self.address)) {
            return forbidden("this server does not go by that name: add it to hosts");
        }
        if let Some(origin) = headers.get(ORIGIN) {
            let host = origin.to_str().ok().and_then(|origin| {
                let (_, host) = origin.split_once("://")?;
                Some(host)
            });
            if !host.is_some_and(|host| self.settings.is_called(host, self.address)) {
                return forbidden(
                    "pages from there may not use this server: add their host to hosts",
                );
            }
        }
        if request.uri().path() != self.settings.path {
            return Some((StatusCode::NOT_FOUND, "there is nothing here"));
        }
        None
    }

    async fn serve(self: Arc<Self>, peer: IpAddr, request: Request<Incoming>) -> Response<Answer> {
        match *request.method() {
            Method::POST => self.post(peer, request).await,
            Method::GET => self.listen(peer, request.headers()),
            Method::DELETE => self.end(request.headers()),
            Method::OPTIONS => {
                let mut response = empty(StatusCode::NO_CONTENT);
                let methods = HeaderValue::from_static("GET, POST, DELETE");
                let allowed = "authorization, content-type, accept, mcp-session-id, mcp-protocol-version, last-event-id";
                let headers = response.headers_mut();
                headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
                headers.insert(
                    ACCESS_CONTROL_ALLOW_HEADERS,
                    HeaderValue::from_static(allowed),
                );
                response
            }
            _ => {
                let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "POST, GET or DELETE");
                let methods = HeaderValue::from_static("GET, POST, DELETE, OPTIONS");
                response.headers_mut().insert(ALLOW, methods);
                response
            }
        }
    }

    async fn post(self: Arc<Self>, peer: IpAddr, request: Request<Incoming>) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let reads = reads(&parts.headers);
        if !reads.json && !reads.events {
            let text = "Accept: must hold application/json and text/event-stream";
            return refusal(StatusCode::NOT_ACCEPTABLE, text);
        }
        let body = Limited::new(body, LONGEST).collect();
        let text = match tokio::time::timeout(PATIENCE, body).await {
            Ok(Ok(body)) => String::from_utf8(body.to_bytes().to_vec()).ok(),
            Ok(Err(_)) => {
                let text = "a message must have at most 4 MiB";
                return refusal(StatusCode::PAYLOAD_TOO_LARGE, text);
            }
            Err(_) => return refusal(StatusCode::REQUEST_TIMEOUT, "the message did not arrive"),
        };
        let message = text.as_deref().map(Message::parse);
        let Some(Ok(message)) = message else {
            let text = "the body must be one JSON-RPC message";
            return refusal(StatusCode::BAD_REQUEST, text);
        };
        let Some(caller) = self.caller(peer, &parts.headers) else {
            return refusal(StatusCode::NOT_FOUND, "no such session: initialize again");
        };
        match message {
            Message::Request(request) => {
                let mut caller = caller;
                let mut began = None;
                if request.method == method::INITIALIZE && caller.session.is_none() {
                    let (session, id) = self.sessions.begin();
                    caller = self.known(peer, &parts.headers, Some(session));
                    began = HeaderValue::from_str(&id).ok();
                }
                let event =
                    self.event_of(&caller, &request.id, text.as_deref().unwrap_or_default());
                let mut response = self.exchange(event, request.into(), caller, reads).await;
                if let Some(id) = began {
                    response.headers_mut().insert(SESSION, id);
                }
                response
            }
            other => {
                let event = self.fresh.event(&self.key, &caller.client);
                let origin = origin_of(&caller, event, false);
                match self.came_in.send(Inbound::new(other, origin)).await {
                    Ok(()) => empty(StatusCode::ACCEPTED),
                    Err(_) => closing(),
                }
            }
        }
    }

    /// The name of a request. In one session an id is used once, so the same words under the same id are the same request, sent
    /// again because its answer was lost. A client that is known without a session names requests itself, by an idempotency key;
    /// else every request is a new one.
    fn event_of(&self, caller: &Caller, id: &RequestId, text: &str) -> RequestEventId {
        let client = caller.client.as_bytes();
        let name = match (&caller.request_name, &caller.session) {
            (Some(key), _) if caller.vouched_for => self
                .key
                .mac("request by key", &[client, key, text.as_bytes()]),
            (_, Some(session)) => {
                let id = id.to_string();
                let parts = [session.name(), client, id.as_bytes(), text.as_bytes()];
                self.key.mac("request again", &parts)
            }
            _ => return self.fresh.event(&self.key, &caller.client),
        };
        RequestEventId::from_bytes(name)
    }

    async fn exchange(
        self: Arc<Self>,
        event: RequestEventId,
        message: Message,
        caller: Caller,
        reads: Reads,
    ) -> Response<Answer> {
        let Some(wait) = self.exchanges.wait(event) else {
            return busy();
        };
        if wait.came != Came::Meanwhile {
            let origin = origin_of(&caller, event, wait.came == Came::Afterwards);
            if self
                .came_in
                .send(Inbound::new(message, origin))
                .await
                .is_err()
            {
                return closing();
            }
            self.exchanges.let_in(event);
        }
        let Wait {
            mut events,
            hang_up,
            ..
        } = wait;
        let mut first = tokio::time::timeout(SILENCE, events.recv()).await;
        if !reads.events {
            // Nothing but the answer can be told to this client.
            while !matches!(&first, Ok(None | Some(Event { last: true, .. }))) {
                first = Ok(events.recv().await);
            }
        }
        match first {
            Ok(Some(event)) if event.last && reads.json => whole(event.json),
            Ok(Some(event)) => stream(Answer::events(Some(event), events, Box::new(hang_up))),
            Err(_) => stream(Answer::events(None, events, Box::new(hang_up))),
            // The same request came again, and its answer goes there.
            Ok(None) => refusal(StatusCode::CONFLICT, "the same request was sent again"),
        }
    }

    /// The stream of what belongs to no request.
    fn listen(&self, peer: IpAddr, headers: &HeaderMap) -> Response<Answer> {
        if !reads(headers).events {
            let text = "Accept: must hold text/event-stream";
            return refusal(StatusCode::NOT_ACCEPTABLE, text);
        }
        let Some(caller) = self.caller(peer, headers) else {
            return refusal(StatusCode::NOT_FOUND, "no such session: initialize again");
        };
        let Some(session) = caller.session else {
            let text = "Mcp-Session-Id: must name the session to listen for";
            return refusal(StatusCode::BAD_REQUEST, text);
        };
        match self.listeners.add(session, caller.client) {
            Some((events, gone)) => stream(Answer::events(None, events, gone)),
            None => busy(),
        }
    }

    fn end(&self, headers: &HeaderMap) -> Response<Answer> {
        let session: Option<Session> = headers
            .get(SESSION)
            .and_then(|id| self.sessions.find(id.to_str().ok()?));
        let Some(session) = session else {
            return refusal(StatusCode::NOT_FOUND, "no such session");
        };
        self.sessions.end(session);
        self.listeners.remove(&session);
        empty(StatusCode::NO_CONTENT)
    }
}

fn origin_of(caller: &Caller, event: RequestEventId, again: bool) -> Origin {
    let mut origin = Origin::new(caller.client, event, now());
    origin.redelivered = again;
    origin.answers_only = true;
    origin.bearer = !caller.vouched_for;
    origin.tokens.clone_from(&caller.tokens);
    // Who is not on this machine, or a trusted proxy, was not let in.
    origin.confidential = true;
    origin.reply_to.route = super::HttpServerTransport::ROUTE.to_owned();
    origin
}

fn reads(headers: &HeaderMap) -> Reads {
    let mut accepts = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|accept| accept.to_str().ok())
        .flat_map(|accept| accept.split(','))
        .map(|kind| kind.split(';').next().unwrap_or_default().trim())
        .peekable();
    if accepts.peek().is_none() {
        return Reads {
            json: true,
            events: true,
        };
    }
    let mut reads = Reads {
        json: false,
        events: false,
    };
    for kind in accepts {
        reads.json |= ["application/json", "application/*", "*/*"].contains(&kind);
        reads.events |= ["text/event-stream", "text/*", "*/*"].contains(&kind);
    }
    reads
}

/// An answer that is there at once.
fn whole(json: String) -> Response<Answer> {
    if let Some(refused) = licence_refused(&json) {
        return refused;
    }
    let mut response = Response::new(Answer::whole(json));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// A call that only a licence lets through is refused as verifiers of such licences do it over HTTP.
fn licence_refused(json: &str) -> Option<Response<Answer>> {
    // Nearly no answer is one: a search is cheaper than a parse.
    if !json.contains("-32041") {
        return None;
    }
    let answer: Value = serde_json::from_str(json).ok()?;
    let error = answer.get("error")?;
    if error.get("code")?.as_i64() != Some(LICENCE_REQUIRED_CODE) {
        return None;
    }
    let mut body = serde_json::Map::new();
    for key in ["error", "reason"] {
        if let Some(said) = error.get("data")?.get(key) {
            body.insert(key.to_owned(), said.clone());
        }
    }
    let mut response = Response::new(Answer::whole(Value::Object(body).to_string()));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    let scheme = HeaderValue::from_static("Bearer error=\"invalid_token\"");
    headers.insert(WWW_AUTHENTICATE, scheme);
    Some(response)
}

fn stream(events: Answer) -> Response<Answer> {
    let mut response = Response::new(events);
    response.headers_mut().insert(CONTENT_TYPE, EVENTS);
    // Some proxies keep what they should pass on.
    let at_once = HeaderValue::from_static("no");
    response.headers_mut().insert("x-accel-buffering", at_once);
    response
}

fn empty(status: StatusCode) -> Response<Answer> {
    let mut response = Response::new(Answer::Whole(None));
    *response.status_mut() = status;
    response
}

/// A refusal, as a JSON-RPC error for clients that look into the body.
fn refusal(status: StatusCode, why: &str) -> Response<Answer> {
    let error = json!({ "jsonrpc": "2.0", "id": null, "error": { "code": INVALID_REQUEST_CODE, "message": why } });
    let mut response = Response::new(Answer::whole(error.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn busy() -> Response<Answer> {
    let mut response = refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        "the server is busy, retry later",
    );
    let soon = HeaderValue::from_static("2");
    response.headers_mut().insert(RETRY_AFTER, soon);
    response
}

fn closing() -> Response<Answer> {
    refusal(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping")
}
