//! Requests that the gateway itself makes of a child, beside those of its clients.
//!
//! Their ids are texts, those of clients are numbers, so that the two never meet.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, ErrorKind, Result};
use crate::wire::{ErrorObject, Message, Notification, Request, RequestId, Response};

/// JSON-RPC Method not found.
pub(super) const METHOD_NOT_FOUND: i64 = -32601;

/// Asks one child.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    to: mpsc::WeakSender<Message>,
    waiting: Arc<Mutex<HashMap<String, oneshot::Sender<Response>>>>,
    next: Arc<AtomicU64>,
}

impl Asker {
    /// Asks through `to`. Does not keep the child's stdin open.
    pub(super) fn new(to: &mpsc::Sender<Message>) -> Self {
        Self {
            to: to.downgrade(),
            waiting: Arc::default(),
            next: Arc::default(),
        }
    }

    /// Asks, and waits for the answer at most `within`.
    pub(super) async fn ask(
        &self,
        method: &str,
        params: &impl Serialize,
        within: Duration,
    ) -> Result<Box<RawValue>> {
        let id = format!("tollkeeper-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let (answer, answered) = oneshot::channel();
        self.lock().insert(id.clone(), answer);
        let request = Request::new(id.as_str(), method, params)?;
        let asked = async {
            self.send(request.into()).await?;
            answered.await.map_err(|_| gone())
        };
        let response = tokio::time::timeout(within, asked).await;
        self.lock().remove(&id);
        let response = response.map_err(|_| {
            Error::new(
                ErrorKind::Timeout,
                format!("the server did not answer {method} in time"),
            )
        })??;
        match response.result() {
            Some(result) => Ok(result.to_owned()),
            None => {
                let error = response
                    .error()
                    .unwrap_or_else(|| ErrorObject::new(0, "unreadable error"));
                Err(Error::closed(format!(
                    "the server refused {method}: {} ({})",
                    error.message, error.code
                )))
            }
        }
    }

    /// Says something that has no answer.
    pub(super) async fn tell(&self, method: &str) -> Result<()> {
        let notification = Notification {
            method: method.to_owned(),
            params: None,
        };
        self.send(notification.into()).await
    }

    /// Takes a response, if it is one to a question that was asked here.
    pub(super) fn answer(&self, response: Response) -> Option<Response> {
        let waiting = match &response.id {
            RequestId::Text(id) => self.lock().remove(id),
            RequestId::Number(_) => None,
        };
        match waiting {
            Some(waiting) => {
                // Whoever asked may have stopped waiting.
                let _ = waiting.send(response);
                None
            }
            None => Some(response),
        }
    }

    async fn send(&self, message: Message) -> Result<()> {
        let to = self.to.upgrade().ok_or_else(gone)?;
        to.send(message).await.map_err(|_| gone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, oneshot::Sender<Response>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer to a child's own request. The transport carries no requests to clients, so nothing but `ping` can be done.
pub(super) fn reply_to_child(request: Request) -> Response {
    if request.method == "ping" {
        return empty(request.id);
    }
    let error = ErrorObject::new(
        METHOD_NOT_FOUND,
        "Clients cannot be asked over this transport",
    );
    Response::from_error(request.id, &error)
}

/// A response with the result `{}`.
pub(super) fn empty(id: RequestId) -> Response {
    let empty = Value::Object(serde_json::Map::new());
    match crate::wire::raw(&empty) {
        Ok(result) => Response {
            id,
            payload: crate::wire::Payload::Result(result),
        },
        Err(_) => Response::from_error(id, &ErrorObject::new(-32603, "Internal error")),
    }
}

fn gone() -> Error {
    Error::closed("the server ended")
}
