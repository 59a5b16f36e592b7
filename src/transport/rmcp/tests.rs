//! What this part must do.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "assertions and their helpers"
)]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ::rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData,
    ProgressNotificationParam,
};
use ::rmcp::service::{RequestContext, ServiceError};
use ::rmcp::{RoleServer, ServerHandler, ServiceExt};
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::server::serve_at_most;
use super::{RmcpClientTransport, serve_rmcp};
use crate::error::Result;
use crate::ledger::{EntryFilter, EntryState, Ledger, MemoryLedger};
use crate::payment::{ClientPubkey, RequestEventId};
use crate::server::{ServerPayments, with_server_payments};
use crate::testing::ScriptedProcessor;
use crate::transport::memory::{self, MemoryClient, MemoryServer};
use crate::transport::{ClientTransport, Introduction, MessageChannel, ServerTransport};
use crate::wire::{Message, Request, Response};

/// A handler that says who called it with what, reports progress, and can be made to panic or to hang.
struct Teller;

impl ServerHandler for Teller {
    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if let Some(token) = context.meta.get_progress_token() {
            let progress = ProgressNotificationParam::new(token, 1.0);
            let _ = context.peer.notify_progress(progress).await;
        }
        match &*request.name {
            "panic" => panic!("as the test asks"),
            "hang" => context.ct.cancelled().await,
            _ => {}
        }
        let client = context.extensions.get::<ClientPubkey>().unwrap();
        assert!(context.extensions.get::<RequestEventId>().is_some());
        let told = json!({"client": client, "arguments": request.arguments});
        Ok(CallToolResult::success(vec![ContentBlock::text(told.to_string())]).into())
    }
}

/// A channel that pays nothing.
#[derive(Debug)]
struct Unpaid(Arc<MemoryClient>);

#[async_trait]
impl MessageChannel for Unpaid {
    async fn send(&self, message: Message) -> Result<()> {
        let introduction = Introduction::new(vec!["scripted".parse()?], None);
        let prepared = self.0.prepare(&message, &introduction).await?;
        self.0.publish(&prepared).await
    }

    async fn recv(&self) -> Option<Message> {
        Some(self.0.recv().await?.message)
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

fn key(n: u8) -> ClientPubkey {
    ClientPubkey::from_bytes([n; 32])
}

/// A server without a gate.
fn free() -> (Arc<MemoryServer>, JoinHandle<()>) {
    let transport = memory::server();
    let serving = tokio::spawn(serve_rmcp(Arc::clone(&transport) as _, |_| Teller));
    (transport, serving)
}

fn call(id: i64, name: &str, meta: Value) -> Message {
    let params = json!({"name": name, "arguments": {"n": id}, "_meta": meta});
    Request::new(id, "tools/call", &params).unwrap().into()
}

async fn next_json(channel: &Unpaid) -> Value {
    let next = tokio::time::timeout(Duration::from_secs(5), channel.recv());
    let message = next.await.unwrap().unwrap();
    serde_json::from_str(&message.to_json()).unwrap()
}

#[tokio::test]
async fn an_rmcp_client_pays_for_an_rmcp_tool() {
    let transport = memory::server();
    let (processor, rail) = ScriptedProcessor::new("scripted".parse().unwrap());
    rail.settle_at_once();
    let ledger = Arc::new(MemoryLedger::new());
    let payments = ServerPayments::builder()
        .price("tool:*=7 sat".parse().unwrap())
        .processor(processor)
        .ledger(Arc::clone(&ledger) as _)
        .build()
        .unwrap();
    let server = with_server_payments(Arc::clone(&transport) as _, payments)
        .await
        .unwrap();
    let serving = tokio::spawn(serve_rmcp(Arc::clone(&server) as _, |_| Teller));
    let channel = Unpaid(transport.client(key(1)));
    let client = ().serve(RmcpClientTransport::new(Arc::new(channel))).await.unwrap();

    let result = client
        .call_tool(CallToolRequestParams::new("tell"))
        .await
        .unwrap();
    let told: Value = serde_json::from_str(&result.content[0].as_text().unwrap().text).unwrap();
    assert_eq!(told["client"], key(1).to_string());
    let failed = client.call_tool(CallToolRequestParams::new("panic")).await;
    let Err(ServiceError::McpError(error)) = failed else {
        panic!("an error must come: {failed:?}");
    };
    assert!(!error.message.contains("as the test asks"));

    let entries = ledger.list(&EntryFilter::new(vec![], 10)).await.unwrap();
    let mut states: Vec<_> = entries.iter().map(|entry| entry.state).collect();
    states.sort_by_key(|state| state.as_str());
    assert_eq!(states, [EntryState::Delivered, EntryState::Settled]);
    let restored = entries.iter().find(|e| e.state == EntryState::Settled);
    assert!(restored.unwrap().is_authorization(), "the payment stands");
    server.close().await;
    serving.await.unwrap();
}

#[tokio::test]
async fn equal_ids_and_tokens_of_two_clients_do_not_cross() {
    let (transport, _serving) = free();
    let one = Unpaid(transport.client(key(1)));
    let two = Unpaid(transport.client(key(2)));
    one.send(call(1, "tell", json!({"progressToken": 1})))
        .await
        .unwrap();
    two.send(call(1, "tell", json!({"progressToken": "1"})))
        .await
        .unwrap();
    for (channel, n, token) in [(&one, 1, json!(1)), (&two, 2, json!("1"))] {
        let progress = next_json(channel).await;
        assert_eq!(progress["params"]["progressToken"], token);
        let answer = next_json(channel).await;
        assert_eq!(answer["id"], 1);
        let text = answer["result"]["content"][0]["text"].as_str().unwrap();
        assert!(text.contains(&key(n).to_string()), "{text}");
    }
}

#[tokio::test]
async fn a_client_that_never_initialised_is_answered_under_its_own_id() {
    let (transport, _serving) = free();
    let channel = Unpaid(transport.client(key(1)));
    let mut request = Request::new("an id", "tools/call", &json!({"name": "tell"})).unwrap();
    channel.send(request.clone().into()).await.unwrap();
    assert_eq!(next_json(&channel).await["id"], "an id");

    request.params = Some(serde_json::value::RawValue::from_string("[1]".into()).unwrap());
    channel.send(request.into()).await.unwrap();
    let refused = next_json(&channel).await;
    assert_eq!(refused["id"], "an id");
    assert_eq!(refused["error"]["code"], -32602, "{refused}");
}

#[tokio::test]
async fn a_cancelled_call_leaves_room_and_the_session_serves_on() {
    let (transport, _serving) = free();
    let channel = Unpaid(transport.client(key(1)));
    for id in 0..(super::session::MOST_OPEN as i64 + 50) {
        channel.send(call(id, "hang", json!({}))).await.unwrap();
        let cancelled =
            crate::wire::Notification::new("notifications/cancelled", &json!({"requestId": id}));
        channel.send(cancelled.unwrap().into()).await.unwrap();
        tokio::task::yield_now().await;
    }
    channel.send(call(7, "tell", json!({}))).await.unwrap();
    assert_eq!(next_json(&channel).await["id"], 7);
}

#[tokio::test]
async fn a_client_with_too_many_open_calls_is_told() {
    let (transport, _serving) = free();
    let channel = Unpaid(transport.client(key(1)));
    let most = super::session::MOST_OPEN as i64;
    for id in 0..=most {
        channel.send(call(id, "hang", json!({}))).await.unwrap();
        tokio::task::yield_now().await;
    }
    let refused = next_json(&channel).await;
    assert_eq!(refused["id"], most);
    assert_eq!(refused["error"]["code"], -32000);
}

#[tokio::test]
async fn the_session_that_has_been_idle_longest_makes_room() {
    let transport = memory::server();
    let made = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = Arc::clone(&made);
    tokio::spawn(serve_at_most(
        2,
        Arc::clone(&transport) as _,
        move |client| {
            noted.lock().unwrap().push(*client);
            Teller
        },
    ));
    let channels = [1, 2, 3].map(|n| Unpaid(transport.client(key(n))));
    channels[0].send(call(1, "hang", json!({}))).await.unwrap();
    for channel in [&channels[1], &channels[2], &channels[2]] {
        channel.send(call(2, "tell", json!({}))).await.unwrap();
        assert_eq!(next_json(channel).await["id"], 2);
    }
    assert_eq!(*made.lock().unwrap(), [key(1), key(2), key(3)]);
    channels[2].send(call(3, "hang", json!({}))).await.unwrap();
    tokio::task::yield_now().await;
    channels[1].send(call(4, "tell", json!({}))).await.unwrap();
    let refused = next_json(&channels[1]).await;
    assert_eq!(refused["error"]["code"], -32000, "who works is not evicted");
}

#[tokio::test(start_paused = true)]
async fn a_closed_transport_ends_the_sessions_and_what_hangs_is_answered() {
    let (transport, serving) = free();
    let channel = Unpaid(transport.client(key(1)));
    channel.send(call(1, "hang", json!({}))).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    transport.close().await;
    serving.await.unwrap();
    let answer = channel.recv().await.unwrap();
    assert!(matches!(answer, Message::Response(Response { .. })));
}

#[tokio::test]
async fn many_clients_at_once_each_get_their_own_answer() {
    let (transport, _serving) = free();
    let tasks: Vec<_> = (1..=50)
        .map(|n| {
            let channel = Unpaid(transport.client(key(n)));
            tokio::spawn(async move {
                let channel = RmcpClientTransport::new(Arc::new(channel));
                let client = ().serve(channel).await.unwrap();
                let result = client
                    .call_tool(CallToolRequestParams::new("tell"))
                    .await
                    .unwrap();
                let text = &result.content[0].as_text().unwrap().text;
                assert!(text.contains(&key(n).to_string()));
                text.clone()
            })
        })
        .collect();
    let mut told = HashSet::new();
    for task in tasks {
        told.insert(task.await.unwrap());
    }
    assert_eq!(told.len(), 50);
}
