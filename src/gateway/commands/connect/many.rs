//! Several servers that look like one: their tools and prompts as `NAME_tool`, their resources as `NAME+uri`.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio::task::JoinSet;
use tracing::warn;

use super::Upstream;
use crate::client::PaidClient;
use crate::error::{Error, Result};
use crate::gateway::exit::with_causes;
use crate::payment::PriceRange;
use crate::transport::MessageChannel;
use crate::wire::{
    ErrorObject, INVALID_PARAMS_CODE, Message, Notification, Payload, Request, RequestId, Response,
    SERVER_ERROR_CODE, method, raw,
};

/// Messages that wait for the host.
const QUEUE: usize = 1024;
/// The most pages that are read of one list of one server.
const MOST_PAGES: usize = 100;
/// The most requests that may be open.
const MOST: usize = 5000;
/// JSON-RPC Method not found.
const NO_SUCH_METHOD: i64 = -32601;

/// What stands between the name of a server and the name of a tool or a prompt.
const OF_NAME: char = '_';
/// What stands between the name of a server and a URI: together they are a URI again.
const OF_URI: char = '+';

type Fields = BTreeMap<String, Box<RawValue>>;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Many {
    inner: Arc<Inner>,
    from_servers: AsyncMutex<mpsc::Receiver<Message>>,
}

#[derive(Debug)]
struct Inner {
    servers: Vec<Server>,
    patience: Duration,
    /// Which server an open request went to.
    owners: Mutex<HashMap<RequestId, usize>>,
    next: AtomicU64,
    to_host: mpsc::Sender<Message>,
}

#[derive(Debug)]
struct Server {
    name: String,
    client: Arc<PaidClient>,
}

impl Many {
    pub(super) fn new(servers: Vec<(String, Arc<PaidClient>)>, patience: Duration) -> Self {
        let (to_host, from_servers) = mpsc::channel(QUEUE);
        let servers = servers
            .into_iter()
            .map(|(name, client)| Server { name, client })
            .collect();
        let inner = Arc::new(Inner {
            servers,
            patience,
            owners: Mutex::default(),
            next: AtomicU64::new(0),
            to_host,
        });
        for at in 0..inner.servers.len() {
            tokio::spawn(Arc::clone(&inner).pump(at));
        }
        Self {
            inner,
            from_servers: AsyncMutex::new(from_servers),
        }
    }
}

impl Server {
    /// A name of this server as the host knows it.
    fn outer(&self, separator: char, name: &str) -> String {
        format!("{}{separator}{name}", self.name)
    }
}

impl Inner {
    fn owners(&self) -> MutexGuard<'_, HashMap<RequestId, usize>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server that `outer` belongs to, and what that server calls it.
    fn split<'n>(&self, separator: char, outer: &'n str) -> Option<(usize, &'n str)> {
        let (name, inner) = outer.split_once(separator)?;
        let at = self.servers.iter().position(|server| server.name == name)?;
        Some((at, inner))
    }

    /// Carries what one server says to the host.
    async fn pump(self: Arc<Self>, at: usize) {
        let Some(server) = self.servers.get(at) else {
            return;
        };
        while let Some(message) = server.client.recv().await {
            let message = match message {
                Message::Response(response) => {
                    self.owners().remove(&response.id);
                    with_outer_uris(server, response).into()
                }
                Message::Notification(said) => about_outer_uri(server, said).into(),
                request @ Message::Request(_) => request,
            };
            if self.to_host.send(message).await.is_err() {
                return;
            }
        }
        warn!(
            server = server.name,
            "the connection to this server has ended"
        );
    }

    async fn answer(&self, id: RequestId, answer: std::result::Result<Value, ErrorObject>) {
        let response = match answer.and_then(|result| {
            raw(&result).map_err(|_| ErrorObject::new(SERVER_ERROR_CODE, "an impossible answer"))
        }) {
            Ok(result) => Response {
                id,
                payload: Payload::Result(result),
            },
            Err(error) => Response::from_error(id, &error),
        };
        // The host is gone if nobody takes it.
        let _ = self.to_host.send(response.into()).await;
    }

    /// Asks one server something on behalf of this program.
    async fn ask(&self, at: usize, method: &str, params: &Value) -> Result<Response> {
        let server = self
            .servers
            .get(at)
            .ok_or_else(|| Error::closed("no such server"))?;
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let mut request = Request::new(0, method, params)?;
        request.id = RequestId::Text(format!("tollkeeper-{number}"));
        let asked = server.client.call(request, self.patience).await?;
        Ok(asked.response)
    }

    /// Asks all servers at the same time; what one of them cannot answer is missing.
    async fn ask_all(self: &Arc<Self>, method: &str, params: &Value) -> Vec<(usize, Value)> {
        let mut asking = JoinSet::new();
        for at in 0..self.servers.len() {
            let (inner, method, params) = (Arc::clone(self), method.to_owned(), params.clone());
            asking.spawn(async move { (at, inner.ask(at, &method, &params).await) });
        }
        let mut answers = Vec::new();
        for (at, answer) in asking.join_all().await {
            let name = self.servers.get(at).map_or("", |server| &server.name);
            match answer {
                Ok(response) => match response.result() {
                    Some(result) => {
                        answers.extend(serde_json::from_str(result.get()).map(|it| (at, it)).ok());
                    }
                    None => tracing::debug!(server = name, method, "no answer"),
                },
                Err(error) => warn!(server = name, error = with_causes(&error), "no answer"),
            }
        }
        answers.sort_by_key(|(at, _)| *at);
        answers
    }

    /// One introduction for all.
    async fn introduce(
        self: &Arc<Self>,
        params: &Value,
    ) -> std::result::Result<Value, ErrorObject> {
        let introductions = self.ask_all(method::INITIALIZE, params).await;
        let Some((_, first)) = introductions.first() else {
            return Err(ErrorObject::new(
                SERVER_ERROR_CODE,
                "None of the servers can be reached",
            ));
        };
        let (mut capabilities, mut instructions) = (Map::new(), Vec::new());
        for (at, introduction) in &introductions {
            let can = introduction.get("capabilities").and_then(Value::as_object);
            for (key, value) in can.into_iter().flatten() {
                capabilities.entry(key.clone()).or_insert(value.clone());
            }
            let name = self.servers.get(*at).map_or("", |server| &server.name);
            if let Some(text) = introduction.get("instructions").and_then(Value::as_str) {
                instructions.push(format!("{name}: {text}"));
            }
        }
        let mut merged = json!({
            "protocolVersion": first.get("protocolVersion"),
            "capabilities": capabilities,
            "serverInfo": { "name": "tollkeeper", "version": env!("CARGO_PKG_VERSION") },
        });
        if !instructions.is_empty() {
            merged["instructions"] = instructions.join("\n\n").into();
        }
        Ok(merged)
    }

    /// All pages of all servers, as one.
    async fn list(self: &Arc<Self>, list: &str) -> std::result::Result<Box<RawValue>, ErrorObject> {
        let unreadable = || ErrorObject::new(SERVER_ERROR_CODE, "a list that cannot be read");
        let Some((key, name_key, used_with)) = method::listing(list) else {
            return Err(unreadable());
        };
        let separator = if method::names_a_uri(used_with) {
            OF_URI
        } else {
            OF_NAME
        };
        let mut reading = JoinSet::new();
        for at in 0..self.servers.len() {
            let (inner, list) = (Arc::clone(self), list.to_owned());
            reading.spawn(async move { (at, inner.pages(at, &list, key).await) });
        }
        let mut pages = reading.join_all().await;
        pages.sort_by_key(|(at, _)| *at);
        let mut all: Vec<Box<RawValue>> = Vec::new();
        for (at, items) in pages {
            let Some(server) = self.servers.get(at) else {
                continue;
            };
            all.extend(
                items.iter().filter_map(|item| {
                    renamed(item, name_key, |name| server.outer(separator, name))
                }),
            );
        }
        raw(&BTreeMap::from([(key, all)])).map_err(|_| unreadable())
    }

    async fn pages(&self, at: usize, list: &str, key: &str) -> Vec<Box<RawValue>> {
        let (mut items, mut cursor) = (Vec::new(), Value::Null);
        for _ in 0..MOST_PAGES {
            let params = match &cursor {
                Value::String(cursor) => json!({ "cursor": cursor }),
                _ => json!({}),
            };
            let page: Option<Fields> = match self.ask(at, list, &params).await {
                Ok(response) => response
                    .result()
                    .and_then(|result| serde_json::from_str(result.get()).ok()),
                Err(_) => None,
            };
            let Some(page) = page else { break };
            let read: Option<Vec<Box<RawValue>>> = page
                .get(key)
                .and_then(|items| serde_json::from_str(items.get()).ok());
            items.extend(read.unwrap_or_default());
            let next: Value = page
                .get("nextCursor")
                .and_then(|cursor| serde_json::from_str(cursor.get()).ok())
                .unwrap_or_default();
            if !next.is_string() || next == cursor {
                break;
            }
            cursor = next;
        }
        items
    }

    /// Sends a request to the server that it names, under the name that the server knows.
    async fn forward(&self, request: Request) -> Result<()> {
        let Some((at, params)) = self.inner_params(&request) else {
            let error = ErrorObject::new(
                INVALID_PARAMS_CODE,
                format!(
                    "params must name something of one of the servers: {}",
                    self.names(&request.method)
                ),
            );
            self.answer(request.id, Err(error)).await;
            return Ok(());
        };
        let Some(server) = self.servers.get(at) else {
            return Ok(());
        };
        {
            let mut owners = self.owners();
            if owners.len() < MOST {
                owners.insert(request.id.clone(), at);
            }
        }
        let forwarded = Request {
            params: Some(params),
            ..request
        };
        server.client.send(forwarded.into()).await
    }

    fn names(&self, used: &str) -> String {
        let separator = if method::names_a_uri(used) {
            OF_URI
        } else {
            OF_NAME
        };
        let names: Vec<String> = self
            .servers
            .iter()
            .map(|server| server.outer(separator, "…"))
            .collect();
        names.join(", ")
    }

    /// Which server a request is for, and its params as that server reads them.
    fn inner_params(&self, request: &Request) -> Option<(usize, Box<RawValue>)> {
        let mut fields: Fields = serde_json::from_str(request.params.as_ref()?.get()).ok()?;
        let text = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).ok();
        let (key, separator) = match request.method.as_str() {
            method::TOOLS_CALL | method::PROMPTS_GET => ("name", OF_NAME),
            method::COMPLETION_COMPLETE => {
                let mut reference: Fields = serde_json::from_str(fields.get("ref")?.get()).ok()?;
                let (key, separator) = match reference.contains_key("uri") {
                    true => ("uri", OF_URI),
                    false => ("name", OF_NAME),
                };
                let outer = text(reference.get(key)?)?;
                let (at, inner) = self.split(separator, &outer)?;
                reference.insert(key.to_owned(), raw(&inner).ok()?);
                fields.insert("ref".to_owned(), raw(&reference).ok()?);
                return Some((at, raw(&fields).ok()?));
            }
            _ => ("uri", OF_URI),
        };
        let outer = text(fields.get(key)?)?;
        let (at, inner) = self.split(separator, &outer)?;
        fields.insert(key.to_owned(), raw(&inner).ok()?);
        Some((at, raw(&fields).ok()?))
    }

    async fn request(self: &Arc<Self>, request: Request) -> Result<()> {
        let params = || -> Value {
            let params = request.params.as_ref();
            params
                .and_then(|params| serde_json::from_str(params.get()).ok())
                .unwrap_or_else(|| json!({}))
        };
        match request.method.as_str() {
            method::INITIALIZE => {
                let introduced = self.introduce(&params()).await;
                self.answer(request.id, introduced).await;
                Ok(())
            }
            "ping" => {
                self.answer(request.id, Ok(json!({}))).await;
                Ok(())
            }
            "logging/setLevel" => {
                self.ask_all("logging/setLevel", &params()).await;
                self.answer(request.id, Ok(json!({}))).await;
                Ok(())
            }
            list if method::listing(list).is_some() => {
                let response = match self.list(list).await {
                    Ok(result) => Response {
                        id: request.id,
                        payload: Payload::Result(result),
                    },
                    Err(error) => Response::from_error(request.id, &error),
                };
                let _ = self.to_host.send(response.into()).await;
                Ok(())
            }
            method::TOOLS_CALL
            | method::PROMPTS_GET
            | method::RESOURCES_READ
            | method::RESOURCES_SUBSCRIBE
            | "resources/unsubscribe"
            | method::COMPLETION_COMPLETE => self.forward(request).await,
            _ => {
                let error = ErrorObject::new(NO_SUCH_METHOD, "Method not found");
                self.answer(request.id, Err(error)).await;
                Ok(())
            }
        }
    }

    async fn notification(&self, said: Notification) -> Result<()> {
        let about: Option<RequestId> = said
            .params
            .as_ref()
            .and_then(|params| serde_json::from_str::<Value>(params.get()).ok())
            .and_then(|params| serde_json::from_value(params.get("requestId")?.clone()).ok());
        if said.method == method::CANCELLED {
            let owner = about.and_then(|id| self.owners().remove(&id));
            if let Some(server) = owner.and_then(|at| self.servers.get(at)) {
                return server.client.send(said.into()).await;
            }
            return Ok(());
        }
        for server in &self.servers {
            if let Err(error) = server.client.send(said.clone().into()).await {
                warn!(
                    server = server.name,
                    error = with_causes(&error),
                    "a message was not sent"
                );
            }
        }
        Ok(())
    }
}

/// `item` with what `key` names renamed.
fn renamed(
    item: &RawValue,
    key: &str,
    rename: impl FnOnce(&str) -> String,
) -> Option<Box<RawValue>> {
    let mut fields: Fields = serde_json::from_str(item.get()).ok()?;
    let name: String = serde_json::from_str(fields.get(key)?.get()).ok()?;
    fields.insert(key.to_owned(), raw(&rename(&name)).ok()?);
    raw(&fields).ok()
}

/// Resources in a result, under the URIs that the host can read them by.
fn with_outer_uris(server: &Server, response: Response) -> Response {
    let Payload::Result(result) = &response.payload else {
        return response;
    };
    if !result.get().contains("\"uri\"") {
        return response;
    }
    let outer = |item: &RawValue| {
        let rename = |uri: &str| server.outer(OF_URI, uri);
        renamed(item, "uri", rename).or_else(|| {
            let mut fields: Fields = serde_json::from_str(item.get()).ok()?;
            let resource = renamed(fields.get("resource")?, "uri", rename)?;
            fields.insert("resource".to_owned(), resource);
            raw(&fields).ok()
        })
    };
    let changed = || {
        let mut fields: Fields = serde_json::from_str(result.get()).ok()?;
        for key in ["contents", "content"] {
            let items: Option<Vec<Box<RawValue>>> = fields
                .get(key)
                .and_then(|items| serde_json::from_str(items.get()).ok());
            if let Some(items) = items {
                let items: Vec<Box<RawValue>> = items
                    .into_iter()
                    .map(|item| outer(&item).unwrap_or(item))
                    .collect();
                fields.insert(key.to_owned(), raw(&items).ok()?);
            }
        }
        raw(&fields).ok()
    };
    match changed() {
        Some(result) => Response {
            id: response.id,
            payload: Payload::Result(result),
        },
        None => response,
    }
}

/// A notification about a resource, under the URI that the host knows.
fn about_outer_uri(server: &Server, said: Notification) -> Notification {
    let params = said
        .params
        .as_ref()
        .filter(|_| said.method.starts_with("notifications/resources/"))
        .and_then(|params| renamed(params, "uri", |uri| server.outer(OF_URI, uri)));
    match params {
        Some(params) => Notification {
            params: Some(params),
            ..said
        },
        None => said,
    }
}

#[async_trait]
impl MessageChannel for Many {
    async fn send(&self, message: Message) -> Result<()> {
        match message {
            Message::Request(request) => self.inner.request(request).await,
            Message::Notification(said) => self.inner.notification(said).await,
            Message::Response(_) => Ok(()),
        }
    }

    async fn recv(&self) -> Option<Message> {
        self.from_servers.lock().await.recv().await
    }

    async fn close(&self) {
        for server in &self.inner.servers {
            server.client.close().await;
        }
    }
}

impl Upstream for Many {
    fn price_of(&self, notation: &str) -> Option<PriceRange> {
        let (kind, outer) = notation.split_once(':')?;
        let separator = if kind == "resource" { OF_URI } else { OF_NAME };
        let (at, inner) = self.inner.split(separator, outer)?;
        self.inner
            .servers
            .get(at)?
            .client
            .advertised(&format!("{kind}:{inner}"))
    }
}
