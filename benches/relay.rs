//! A paid call over a loopback relay against a free one on the same transport, one after the other, in one process: what
//! the two further messages and the books cost.
//!
//! `cargo bench --features testing,sqlite,dev-relay --bench relay [-- CALLS]`. A load program: it prints the median time of a
//! call, for free calls, paid ones with the ledger in memory, and paid ones with the durable ledger, in rounds.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program that measures and prints"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tollkeeper::client::{ClientPayments, PaidClient, with_client_payments};
use tollkeeper::ledger::{Ledger, MemoryLedger, SqliteLedger};
use tollkeeper::rails::fake::{FakeHandler, FakeProcessor};
use tollkeeper::server::{PaidServer, ServerPayments, with_server_payments};
use tollkeeper::transport::nostr::{
    DevRelay, EncryptionMode, NostrClientTransport, NostrKeys, NostrServerTransport,
};
use tollkeeper::transport::{Outbound, ServerTransport};
use tollkeeper::wire::{Message, Payload, Request, Response, raw};

const ROUNDS: usize = 3;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let calls = std::env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(200);
    println!("median of {calls} calls, one after the other, over a loopback relay:");
    for encryption in [EncryptionMode::Disabled, EncryptionMode::Required] {
        for round in 1..=ROUNDS {
            let memory = Arc::new(MemoryLedger::new());
            let [free, in_memory] = measure(encryption, memory, calls).await;
            let file = PathBuf::from(format!("relay-bench-{}.db", std::process::id()));
            let ledger = Arc::new(SqliteLedger::open(&file).expect("a ledger"));
            let [free_again, durable] = measure(encryption, ledger, calls).await;
            for end in ["", "-wal", "-shm"] {
                let _ = std::fs::remove_file(format!("{}{end}", file.display()));
            }
            println!(
                "{encryption:?} round {round}: free {free:.2?} and {free_again:.2?}, paid {in_memory:.2?} with the ledger in memory, \
                 {durable:.2?} with the durable one"
            );
        }
    }
}

/// The median time of a free and of a paid call.
async fn measure(
    encryption: EncryptionMode,
    ledger: Arc<dyn Ledger>,
    calls: usize,
) -> [Duration; 2] {
    let relay = DevRelay::start(0).await.expect("a relay");
    let transport = NostrServerTransport::builder(NostrKeys::generate())
        .relays([relay.url()])
        .encryption(encryption)
        .connect()
        .await
        .expect("a server transport");
    let key = transport.server();
    let payments = ServerPayments::builder()
        .price("tool:paid=7 sat".parse().expect("a price"))
        .processor(FakeProcessor::new())
        .ledger(ledger)
        .settings(|settings| settings.offers_per_minute = 1_000_000)
        .build()
        .expect("payments");
    let server = with_server_payments(transport as Arc<dyn ServerTransport>, payments)
        .await
        .expect("a server");
    let handler = tokio::spawn(answer(Arc::clone(&server)));
    let transport = NostrClientTransport::builder(NostrKeys::generate(), key)
        .relays([relay.url()])
        .encryption(encryption)
        .connect()
        .await
        .expect("a client transport");
    let payments = ClientPayments::builder()
        .handler(FakeHandler::new())
        .budget("1000000 sats".parse().expect("an amount"))
        .build()
        .expect("payments");
    let client = with_client_payments(transport, payments);
    median(&client, "warm", 20).await;
    let medians = [
        median(&client, "free", calls).await,
        median(&client, "paid", calls).await,
    ];
    server.shutdown(Duration::from_secs(1)).await;
    handler.abort();
    medians
}

async fn median(client: &PaidClient, tool: &str, calls: usize) -> Duration {
    let mut times = Vec::with_capacity(calls);
    for n in 0..calls {
        let params = json!({"name": tool, "arguments": {"n": n}});
        let request = Request::new(n as i64, "tools/call", &params).expect("a request");
        let began = Instant::now();
        let outcome = client
            .call(request, Duration::from_secs(30))
            .await
            .expect("sent");
        times.push(began.elapsed());
        assert!(
            outcome.response.result().is_some(),
            "{:?}",
            outcome.response
        );
    }
    times.sort_unstable();
    times[times.len() / 2]
}

async fn answer(server: Arc<PaidServer>) {
    while let Some(inbound) = server.recv().await {
        let Message::Request(request) = inbound.message else {
            continue;
        };
        let response = Response {
            id: request.id,
            payload: Payload::Result(raw(&"done").expect("json")),
        };
        let _ = server
            .send(&inbound.origin.reply_to, Outbound::new(response))
            .await;
    }
}
