//! The handler behind the gate: a few tools that write down what reached them.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tollkeeper::transport::{Inbound, Outbound, ReplyTo, ServerTransport};
use tollkeeper::wire::{Message, Notification, Payload, Request, Response, raw};

/// One request that reached the handler.
#[derive(Debug, Clone)]
pub(crate) struct Execution {
    pub(crate) name: String,
    /// The params, byte for byte.
    pub(crate) params: String,
}

/// What the test sees of the handler, and its hand on `slow`.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    log: Arc<Mutex<Vec<Execution>>>,
    started: watch::Sender<usize>,
    release: Arc<Semaphore>,
}

impl Tools {
    pub(crate) fn new() -> Self {
        Self {
            log: Arc::default(),
            started: watch::Sender::new(0),
            release: Arc::new(Semaphore::new(0)),
        }
    }

    /// What reached the handler under this name: of a tool, a prompt or a resource, else the method.
    pub(crate) fn executions_of(&self, name: &str) -> Vec<Execution> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|e| e.name == name).cloned().collect()
    }

    /// How often `name` was executed.
    pub(crate) fn executions(&self, name: &str) -> usize {
        self.executions_of(name).len()
    }

    /// Waits until `name` has been executed so often.
    pub(crate) async fn wait_for(&self, name: &str, count: usize) {
        let mut started = self.started.subscribe();
        let enough = started.wait_for(|_| self.executions(name) >= count);
        tokio::time::timeout(super::world::SOON, enough)
            .await
            .unwrap_or_else(|_| panic!("{name} was not executed {count} times"))
            .unwrap();
    }

    /// Lets so many calls of `slow` finish.
    pub(crate) fn release(&self, count: usize) {
        self.release.add_permits(count);
    }

    /// Serves until the server closes.
    pub(crate) async fn serve(self, server: Arc<dyn ServerTransport>) {
        while let Some(Inbound {
            message, origin, ..
        }) = server.recv().await
        {
            let (name, params) = match &message {
                Message::Request(Request { method, params, .. })
                | Message::Notification(Notification { method, params }) => {
                    let text = params.as_ref().map_or("", |params| params.get());
                    let params: Value = serde_json::from_str(text).unwrap_or_default();
                    let name = params["name"].as_str().or(params["uri"].as_str());
                    (name.unwrap_or(method).to_owned(), text.to_owned())
                }
                Message::Response(_) => continue,
            };
            self.log.lock().unwrap().push(Execution { name, params });
            self.started.send_modify(|count| *count += 1);
            if let Message::Request(request) = message {
                let (tools, server) = (self.clone(), Arc::clone(&server));
                tokio::spawn(
                    async move { tools.answer(request, &origin.reply_to, &*server).await },
                );
            }
        }
    }

    async fn answer(&self, request: Request, to: &ReplyTo, server: &dyn ServerTransport) {
        let params = request
            .params
            .as_ref()
            .map_or("null", |params| params.get());
        let params: Value = serde_json::from_str(params).unwrap();
        let result = match (request.method.as_str(), params["name"].as_str()) {
            ("tools/call", Some("slow")) => {
                let token = &params["_meta"]["progressToken"];
                if !token.is_null() {
                    let progress = json!({"progressToken": token, "progress": 1});
                    let progress = Notification::new("notifications/progress", &progress).unwrap();
                    server.send(to, Outbound::new(progress)).await.unwrap();
                }
                self.release.acquire().await.unwrap().forget();
                text(&params["arguments"].to_string())
            }
            // More than any event carries, wrapped or not.
            ("tools/call", Some("big")) => text(&"x".repeat(400 * 1024)),
            // Looks like a list, but is the result of a tool.
            ("tools/call", Some("listy")) => json!({"tools": [{"name": "add"}], "content": []}),
            ("tools/call" | "prompts/get" | "resources/read", _) => text(&params.to_string()),
            ("tools/list", _) => json!({"tools": [tool("add"), tool("slow"), tool("free")]}),
            ("prompts/list", _) => json!({"prompts": [{"name": "poem"}, {"name": "gratis"}]}),
            ("resources/list", _) => json!({"resources": [
                {"uri": "private://x", "name": "x"},
                {"uri": "public://x", "name": "x"},
            ]}),
            ("resources/templates/list", _) => json!({"resourceTemplates": [
                {"uriTemplate": "private://{path}", "name": "private"},
                {"uriTemplate": "public://{path}", "name": "public"},
            ]}),
            ("initialize", _) => {
                json!({"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {}})
            }
            _ => json!({}),
        };
        let payload = Payload::Result(raw(&result).unwrap());
        // A result that cannot be carried is the gate's to deal with.
        let _ = server
            .send(
                to,
                Outbound::new(Response {
                    id: request.id,
                    payload,
                }),
            )
            .await;
    }
}

fn text(text: &str) -> Value {
    json!({"content": [{"type": "text", "text": text}]})
}

fn tool(name: &str) -> Value {
    json!({"name": name, "inputSchema": {"type": "object"}})
}
