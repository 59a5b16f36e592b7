//! Asks the person behind the host, by MCP elicitation: never the model.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::client::{AskBuyer, PaymentQuestion};
use crate::gateway::terminal;
use crate::wire::{Message, Notification, Request, RequestId, Response, method};

/// Asks a person something.
const CREATE: &str = "elicitation/create";

/// The most questions that may be open.
const MOST: usize = 64;

/// Questions to the person behind the host.
#[derive(Debug, Default)]
pub(super) struct Elicitation {
    /// The host said that it can ask.
    able: AtomicBool,
    next: AtomicU64,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    to_host: Option<mpsc::Sender<Message>>,
    waiting: HashMap<RequestId, oneshot::Sender<bool>>,
}

impl Elicitation {
    /// Where questions go.
    pub(super) fn ask_through(&self, to_host: mpsc::Sender<Message>) {
        self.open().to_host = Some(to_host);
    }

    /// The host introduced itself.
    pub(super) fn met(&self, introduction: Option<&Value>) {
        let able = introduction.and_then(|params| params.pointer("/capabilities/elicitation"));
        self.able
            .store(able.is_some_and(Value::is_object), Ordering::SeqCst);
    }

    /// The host answered something. `false` if it was none of the questions.
    pub(super) fn answered(&self, response: &Response) -> bool {
        let Some(waiting) = self.open().waiting.remove(&response.id) else {
            return false;
        };
        let answer: Option<Value> = response
            .result()
            .and_then(|result| serde_json::from_str(result.get()).ok());
        let yes = answer.is_some_and(|answer| {
            answer["action"] == "accept" && answer["content"]["pay"] == Value::Bool(true)
        });
        let _ = waiting.send(yes);
        true
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl AskBuyer for Elicitation {
    async fn ask(&self, question: &PaymentQuestion) -> bool {
        if !self.able.load(Ordering::SeqCst) {
            tracing::warn!(
                "the host cannot ask a person, so nothing above the limit is paid (ask_above)"
            );
            return false;
        }
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let id = RequestId::Text(format!("tollkeeper-{number}"));
        let params = json!({
            "message": format!("{}. Pay {}?", terminal::words(question), question.amount),
            "requestedSchema": {
                "type": "object",
                "properties": {
                    "pay": { "type": "boolean", "title": format!("Pay {}", question.amount) },
                },
                "required": ["pay"],
            },
        });
        let Ok(request) = Request::new(0, CREATE, &params) else {
            return false;
        };
        let (answer, waiting) = oneshot::channel();
        let to_host = {
            let mut open = self.open();
            if open.waiting.len() >= MOST {
                return false;
            }
            let Some(to_host) = open.to_host.clone() else {
                return false;
            };
            open.waiting.insert(id.clone(), answer);
            to_host
        };
        let mut unanswered = Unanswered {
            elicitation: self,
            to_host: to_host.clone(),
            id: Some(id.clone()),
        };
        let request = Request { id, ..request };
        if to_host.send(request.into()).await.is_err() {
            return false;
        }
        let answer = waiting.await.unwrap_or(false);
        unanswered.id = None;
        answer
    }
}

/// Takes a question back that nobody waits for any more.
struct Unanswered<'a> {
    elicitation: &'a Elicitation,
    to_host: mpsc::Sender<Message>,
    id: Option<RequestId>,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        self.elicitation.open().waiting.remove(&id);
        let params = json!({"requestId": id, "reason": "no answer in time"});
        if let Ok(cancelled) = Notification::new(method::CANCELLED, &params) {
            let _ = self.to_host.try_send(cancelled.into());
        }
    }
}
