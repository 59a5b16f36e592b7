//! Paid calls per second, end to end through the gate, with 64 in flight: over the memory transport, with the ledger in
//! memory and with the durable one.
//!
//! `cargo bench --features testing,sqlite --bench paid_calls [-- CALLS]`. A load program: it prints calls per second of each
//! of several rounds, in pairs, so that the ratio is of one machine in one state.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program that measures and prints"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tollkeeper::ledger::{Ledger, MemoryLedger, OpenLimits, SqliteLedger};
use tollkeeper::payment::ClientPubkey;
use tollkeeper::rails::fake::FakeProcessor;
use tollkeeper::server::{PaidServer, ServerPayments, with_server_payments};
use tollkeeper::transport::memory::{self, MemoryClient};
use tollkeeper::transport::{ClientTransport, Introduction, Outbound, ServerTransport};
use tollkeeper::wire::{Message, Payload, Request, Response, raw};

const IN_FLIGHT: usize = 64;
const ROUNDS: usize = 5;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let calls = std::env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(20_000);
    println!("{calls} paid calls a round, {IN_FLIGHT} in flight, calls per second:");
    for round in 1..=ROUNDS {
        let memory = measure(Arc::new(MemoryLedger::new()), calls).await;
        let file = fresh_file();
        let sqlite = measure(
            Arc::new(SqliteLedger::open(&file).expect("a ledger")),
            calls,
        )
        .await;
        remove(&file);
        println!(
            "round {round}: memory {memory:.0}, sqlite {sqlite:.0}, ratio {:.2}",
            sqlite / memory
        );
    }
}

async fn measure(ledger: Arc<dyn Ledger>, calls: usize) -> f64 {
    let transport = memory::server();
    let payments = ServerPayments::builder()
        .price("tool:paid=7 sat".parse().expect("a price"))
        .processor(FakeProcessor::new())
        .ledger(ledger)
        .limits(OpenLimits::new(1000, 10_000))
        .settings(|settings| settings.offers_per_minute = 10_000_000)
        .build()
        .expect("payments");
    let server = with_server_payments(Arc::clone(&transport) as _, payments)
        .await
        .expect("a server");
    let handler = tokio::spawn(answer(Arc::clone(&server)));
    let started = Instant::now();
    let workers: Vec<_> = (0..IN_FLIGHT)
        .map(|n| {
            let client = transport.client(ClientPubkey::from_bytes([n as u8; 32]));
            tokio::spawn(async move { call_repeatedly(&client, calls / IN_FLIGHT).await })
        })
        .collect();
    let mut answered = 0;
    for worker in workers {
        answered += worker.await.expect("a worker");
    }
    let rate = answered as f64 / started.elapsed().as_secs_f64();
    server.shutdown(Duration::from_secs(5)).await;
    handler.abort();
    rate
}

/// Calls one after the other; counts results only, so that a refusal would show.
async fn call_repeatedly(client: &MemoryClient, calls: usize) -> usize {
    let mut answered = 0;
    for n in 0..calls {
        let params = json!({"name": "paid", "arguments": {"n": n}});
        let request = Request::new(n as i64, "tools/call", &params)
            .expect("a request")
            .into();
        let prepared = client
            .prepare(&request, &Introduction::default())
            .await
            .expect("prepared");
        client.publish(&prepared).await.expect("published");
        loop {
            match client.recv().await.expect("a message").message {
                Message::Response(response) => {
                    assert!(response.result().is_some(), "every call is served");
                    answered += 1;
                    break;
                }
                Message::Notification(_) | Message::Request(_) => {}
            }
        }
    }
    answered
}

async fn answer(server: Arc<PaidServer>) {
    while let Some(inbound) = server.recv().await {
        let Message::Request(request) = inbound.message else {
            continue;
        };
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            let response = Response {
                id: request.id,
                payload: Payload::Result(raw(&"done").expect("json")),
            };
            server
                .send(&inbound.origin.reply_to, Outbound::new(response))
                .await
                .expect("sent");
        });
    }
}

/// In the working directory, not in a temporary one that may be memory: the disk is what is measured.
fn fresh_file() -> PathBuf {
    let path = PathBuf::from(format!("paid_calls-{}.db", std::process::id()));
    remove(&path);
    path
}

fn remove(path: &std::path::Path) {
    for end in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        let _ = std::fs::remove_file(name);
    }
}
