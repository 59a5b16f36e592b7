//! What the host sees of money: prices in the lists, spending as a resource, questions to the person.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use super::elicit::Elicitation;
use super::{Upstream, prices, spending};
use crate::client::ClientPayments;
use crate::error::Result;
use crate::transport::MessageChannel;
use crate::wire::{Message, Payload, Request, RequestId, Response, method, raw};

/// Messages of our own that wait for the host.
const QUEUE: usize = 64;

/// The most requests whose answers are to be changed.
const MOST: usize = 5000;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Front {
    upstream: Arc<dyn Upstream>,
    payments: ClientPayments,
    person: Arc<Elicitation>,
    /// Requests whose answers are changed on their way back, by what they asked.
    asked: Mutex<HashMap<RequestId, Asked>>,
    own: mpsc::Sender<Message>,
    to_host: AsyncMutex<mpsc::Receiver<Message>>,
}

#[derive(Debug, Clone)]
enum Asked {
    Introduction,
    /// One of the list methods.
    List(String),
}

impl Front {
    pub(super) fn new(
        upstream: Arc<dyn Upstream>,
        payments: ClientPayments,
        person: Arc<Elicitation>,
    ) -> Self {
        let (own, to_host) = mpsc::channel(QUEUE);
        person.ask_through(own.clone());
        Self {
            upstream,
            payments,
            person,
            asked: Mutex::default(),
            own,
            to_host: AsyncMutex::new(to_host),
        }
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<RequestId, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what has to be known when the answer comes.
    fn note(&self, request: &Request) {
        let asked = match request.method.as_str() {
            method::INITIALIZE => {
                let params = params(request);
                self.person.met(params.as_ref());
                Asked::Introduction
            }
            list if method::listing(list).is_some() => Asked::List(list.to_owned()),
            _ => return,
        };
        let mut open = self.asked();
        if open.len() < MOST {
            open.insert(request.id.clone(), asked);
        }
    }

    /// The answer as the host gets it.
    fn changed(&self, response: Response) -> Response {
        let asked = self.asked().remove(&response.id);
        let changed = match (&asked, &response.payload) {
            (Some(Asked::Introduction), Payload::Result(result)) => with_resources(result),
            (Some(Asked::List(list)), Payload::Result(result)) => {
                let priced = prices::with_prices(list, result, |name| self.upstream.price_of(name));
                let shown = priced.as_deref().unwrap_or(result);
                with_spending(list, shown).or(priced)
            }
            // A server without resources: there is still one here.
            (Some(Asked::List(list)), Payload::Error(_))
                if list == method::RESOURCES_LIST && no_such_method(&response) =>
            {
                raw(&json!({ "resources": [spending::listed()] })).ok()
            }
            (Some(Asked::List(list)), Payload::Error(_))
                if list == method::RESOURCE_TEMPLATES_LIST && no_such_method(&response) =>
            {
                raw(&json!({ "resourceTemplates": [] })).ok()
            }
            _ => None,
        };
        match changed {
            Some(result) => Response {
                id: response.id,
                payload: Payload::Result(result),
            },
            None => response,
        }
    }
}

fn no_such_method(response: &Response) -> bool {
    response.error().is_some_and(|error| error.code == -32601)
}

fn params(request: &Request) -> Option<Value> {
    serde_json::from_str(request.params.as_ref()?.get()).ok()
}

/// An introduction that says that there are resources; `None` if it says so already.
fn with_resources(result: &RawValue) -> Option<Box<RawValue>> {
    let mut introduction: Value = serde_json::from_str(result.get()).ok()?;
    let capabilities = introduction
        .as_object_mut()?
        .entry("capabilities")
        .or_insert_with(|| json!({}))
        .as_object_mut()?;
    if capabilities.contains_key("resources") {
        return None;
    }
    capabilities.insert("resources".to_owned(), json!({}));
    raw(&introduction).ok()
}

/// The last page of resources, with one more.
fn with_spending(list: &str, result: &RawValue) -> Option<Box<RawValue>> {
    use std::collections::BTreeMap;
    if list != method::RESOURCES_LIST {
        return None;
    }
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(result.get()).ok()?;
    let more = fields
        .get("nextCursor")
        .is_some_and(|cursor| cursor.get() != "null");
    if more {
        return None;
    }
    let mut resources: Vec<Box<RawValue>> =
        serde_json::from_str(fields.get("resources")?.get()).ok()?;
    resources.push(raw(&spending::listed()).ok()?);
    fields.insert("resources".to_owned(), raw(&resources).ok()?);
    raw(&fields).ok()
}

#[async_trait]
impl MessageChannel for Front {
    async fn send(&self, message: Message) -> Result<()> {
        match &message {
            Message::Request(request) => {
                let uri =
                    |request: &Request| Some(params(request)?.get("uri")?.as_str()?.to_owned());
                if request.method == method::RESOURCES_READ
                    && uri(request).as_deref() == Some(spending::URI)
                {
                    let result = raw(&spending::read(&self.payments).await)?;
                    let response = Response {
                        id: request.id.clone(),
                        payload: Payload::Result(result),
                    };
                    // The host is gone if nobody takes it.
                    let _ = self.own.send(response.into()).await;
                    return Ok(());
                }
                self.note(request);
            }
            Message::Response(response) => {
                if self.person.answered(response) {
                    return Ok(());
                }
            }
            Message::Notification(_) => {}
        }
        self.upstream.send(message).await
    }

    async fn recv(&self) -> Option<Message> {
        let mut own = self.to_host.lock().await;
        let message = tokio::select! {
            Some(message) = own.recv() => return Some(message),
            message = self.upstream.recv() => message?,
        };
        Some(match message {
            Message::Response(response) => self.changed(response).into(),
            other => other,
        })
    }

    async fn close(&self) {
        self.upstream.close().await;
    }
}
