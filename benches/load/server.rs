//! The servers of the load program, each in a process of its own: the library, a bare echo beside it, and the MCP server that
//! the binary sells.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use nostr::{Event, EventBuilder, JsonUtil, Keys, Kind, RelayMessage, Tag};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message as Frame;
use tollkeeper::ledger::{Ledger, MemoryLedger, OpenLimits, SqliteLedger};
use tollkeeper::rails::fake::FakeProcessor;
use tollkeeper::server::{PaidServer, ServerPayments, with_server_payments};
use tollkeeper::transport::nostr::{EncryptionMode, NostrKeys, NostrServerTransport};
use tollkeeper::transport::{Outbound, ServerTransport};
use tollkeeper::wire::{Message, Payload, Response, raw};

use crate::clients::{MESSAGE, connect};
use crate::process::{ready, until_stdin_ends};

/// How the library is to serve.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServerConfig {
    pub(crate) relay: String,
    pub(crate) encryption: EncryptionMode,
    /// The file of the ledger; in memory if there is none.
    pub(crate) ledger: Option<PathBuf>,
    /// How long a payment takes to arrive; for ever if there is none.
    pub(crate) settles: Option<Duration>,
}

fn runtime() -> tokio::runtime::Runtime {
    // As the binary's own.
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Serves the library until standard input ends.
pub(crate) fn run(config: &str) {
    let config: ServerConfig = serde_json::from_str(config).expect("a config");
    runtime().block_on(async {
        let transport = NostrServerTransport::builder(NostrKeys::generate())
            .relays([config.relay.clone()])
            .encryption(config.encryption)
            .connect()
            .await
            .expect("a transport");
        let pubkey = transport.server().to_string();
        let ledger: Arc<dyn Ledger> = match &config.ledger {
            Some(file) => Arc::new(SqliteLedger::open(file).expect("a ledger")),
            None => Arc::new(MemoryLedger::new()),
        };
        let settles = config.settles.unwrap_or(Duration::from_secs(1_000_000));
        let payments = ServerPayments::builder()
            .price("tool:paid=7 sat".parse().expect("a price"))
            .processor(FakeProcessor::new().settling_after(settles))
            .ledger(ledger)
            .limits(OpenLimits::new(1_000_000, 1_000_000))
            .settings(|settings| settings.offers_per_minute = 10_000_000)
            .build()
            .expect("payments");
        let server = with_server_payments(transport as Arc<dyn ServerTransport>, payments)
            .await
            .expect("a server");
        ready(&json!({ "event": "ready", "pubkey": pubkey }));
        tokio::select! {
            () = answer(server) => {}
            () = until_stdin_ends() => {}
        }
    });
}

async fn answer(server: Arc<PaidServer>) {
    let result = raw(&json!({ "content": [{ "type": "text", "text": "done" }] })).expect("json");
    while let Some(inbound) = server.recv().await {
        let Message::Request(request) = inbound.message else {
            continue;
        };
        let (server, payload) = (Arc::clone(&server), Payload::Result(result.clone()));
        tokio::spawn(async move {
            let response = Response {
                id: request.id,
                payload,
            };
            let _ = server
                .send(&inbound.origin.reply_to, Outbound::new(response))
                .await;
        });
    }
}

/// Verifies each message and answers it with one of its own: two bare hops.
pub(crate) fn echo(relay: &str) {
    runtime().block_on(async {
        let keys = Keys::generate();
        let pubkey = keys.public_key().to_hex();
        let (mut sink, mut stream) = connect(relay, &pubkey).await;
        ready(&json!({ "event": "ready", "pubkey": pubkey }));
        let serve = async {
            while let Some(Ok(frame)) = stream.next().await {
                let Frame::Text(text) = frame else { continue };
                let Ok(RelayMessage::Event { event, .. }) = RelayMessage::from_json(&*text) else {
                    continue;
                };
                if event.verify().is_err() {
                    continue;
                }
                let answer = reply(&keys, &event);
                let frame = format!("[\"EVENT\",{}]", answer.as_json());
                if sink.send(Frame::text(frame)).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = serve => {}
            () = until_stdin_ends() => {}
        }
    });
}

fn reply(keys: &Keys, to: &Event) -> Event {
    let content = json!({ "jsonrpc": "2.0", "id": 1, "result": { "content": [{ "type": "text", "text": "done" }] } });
    EventBuilder::new(Kind::from(MESSAGE), content.to_string())
        .tags([Tag::public_key(to.pubkey), Tag::event(to.id)])
        .sign_with_keys(keys)
        .expect("a signature")
}

/// A stdio MCP server with two tools, for `serve`.
pub(crate) fn mcp() {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let request: Value = serde_json::from_str(&line).unwrap_or_default();
        if request["id"].is_null() {
            continue;
        }
        let tool = |name: &str| json!({ "name": name, "inputSchema": { "type": "object" } });
        let result = match request["method"].as_str().unwrap_or_default() {
            "initialize" => json!({
                "protocolVersion": "2025-06-18", "capabilities": { "tools": {} },
                "serverInfo": { "name": "load", "version": "1" },
            }),
            "tools/list" => json!({ "tools": [tool("paid"), tool("free")] }),
            _ => json!({ "content": [{ "type": "text", "text": "done" }] }),
        };
        let answer = json!({ "jsonrpc": "2.0", "id": request["id"], "result": result });
        if writeln!(out, "{answer}")
            .and_then(|()| out.flush())
            .is_err()
        {
            return;
        }
    }
}
