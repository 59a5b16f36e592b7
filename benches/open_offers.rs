//! A server with 100,000 unpaid offers on its books: how long it takes to start, how much memory it takes, and how much
//! slower a paid call is among them than on an idle server.
//!
//! `cargo bench --features testing,sqlite --bench open_offers [-- OFFERS]`. A load program, which prints.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program that measures and prints"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tollkeeper::RequestEventId;
use tollkeeper::ledger::{Ledger, NewEntry, OpenLimits, Opened, SqliteLedger, Transition};
use tollkeeper::payment::{
    ClientPubkey, Clock, InvocationIdentity, PayReq, PaymentInteraction, PaymentRequest, Pmi,
    SystemClock,
};
use tollkeeper::server::{PaidServer, ServerPayments, with_server_payments};
use tollkeeper::testing::ScriptedProcessor;
use tollkeeper::transport::memory::{self, MemoryServer};
use tollkeeper::transport::{ClientTransport, Introduction, Outbound, ServerTransport};
use tollkeeper::wire::{Message, Payload, Request, Response, raw};

const CALLS: usize = 300;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let offers: u32 = std::env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(100_000);
    let file = PathBuf::from(format!("open-offers-{}.db", std::process::id()));
    let idle = {
        let (server, transport) = start(&file).await;
        let latency = latency(&transport).await;
        server.shutdown(Duration::from_secs(5)).await;
        latency
    };
    fill(&file, offers).await;
    let before = resident_mib();
    let began = Instant::now();
    let (server, transport) = start(&file).await;
    // A free call is let in when recovery is over.
    call(
        &*transport.client(ClientPubkey::from_bytes([8; 32])),
        "free",
        0,
    )
    .await;
    let started = began.elapsed();
    let memory = resident_mib() - before;
    let busy = latency(&transport).await;
    server.shutdown(Duration::from_secs(5)).await;
    remove(&file);
    println!("{offers} open offers: ready after {started:.2?}, {memory:.0} MiB of memory");
    println!(
        "paid call: median {idle:.2?} on an idle server, {busy:.2?} among the offers, ratio {:.2}",
        busy.as_secs_f64() / idle.as_secs_f64()
    );
}

async fn start(file: &Path) -> (Arc<PaidServer>, Arc<MemoryServer>) {
    let (processor, control) = ScriptedProcessor::new(pmi());
    control.settle_at_once();
    let transport = memory::server();
    let payments = ServerPayments::builder()
        .price("tool:paid=7 sat".parse().expect("a price"))
        .processor(processor)
        .ledger(Arc::new(SqliteLedger::open(file).expect("a ledger")))
        .limits(OpenLimits::new(1_000_000, 1_000_000))
        .settings(|settings| settings.offers_per_minute = 1_000_000)
        .build()
        .expect("payments");
    let server = with_server_payments(Arc::clone(&transport) as _, payments)
        .await
        .expect("a server");
    let handler = Arc::clone(&server);
    tokio::spawn(async move {
        while let Some(inbound) = handler.recv().await {
            let Message::Request(request) = inbound.message else {
                continue;
            };
            let response = Response {
                id: request.id,
                payload: Payload::Result(raw(&1).expect("json")),
            };
            let _ = handler
                .send(&inbound.origin.reply_to, Outbound::new(response))
                .await;
        }
    });
    (server, transport)
}

/// The median time of a paid call, one after the other.
async fn latency(transport: &MemoryServer) -> Duration {
    let client = transport.client(ClientPubkey::from_bytes([9; 32]));
    let mut times = Vec::with_capacity(CALLS);
    for n in 0..CALLS {
        let began = Instant::now();
        call(&*client, "paid", n).await;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times[CALLS / 2]
}

async fn call(client: &dyn ClientTransport, tool: &str, n: usize) {
    let params = json!({"name": tool, "arguments": {"n": n}});
    let request = Request::new(n as i64, "tools/call", &params)
        .expect("a request")
        .into();
    let prepared = client
        .prepare(&request, &Introduction::default())
        .await
        .expect("prepared");
    client.publish(&prepared).await.expect("published");
    while !matches!(
        client.recv().await.expect("a message").message,
        Message::Response(_)
    ) {}
}

/// Writes offers that wait for money, as a server leaves them behind.
async fn fill(file: &Path, offers: u32) {
    let ledger = Arc::new(SqliteLedger::open(file).expect("a ledger"));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..64 {
        let ledger = Arc::clone(&ledger);
        writers.spawn(async move {
            for n in (writer..offers).step_by(64) {
                let limits = OpenLimits::new(usize::MAX, usize::MAX);
                let new = entry(n);
                let (id, at) = (new.id, new.quoted_at);
                assert!(matches!(ledger.open(new, limits).await, Ok(Opened::New(_))));
                let made = PaymentRequest::new(
                    pmi(),
                    "7 sats".parse().expect("an amount"),
                    PayReq::new("lnbc".repeat(80)),
                    n.to_string(),
                );
                let issue = Transition::Issue {
                    payment_request: made,
                    watch_until: at.plus(Duration::from_secs(7200)),
                };
                ledger.apply(&id, vec![issue], at).await.expect("issued");
            }
        });
    }
    writers.join_all().await;
}

fn entry(n: u32) -> NewEntry {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&n.to_be_bytes());
    id[31] = 1;
    let now = SystemClock.now();
    NewEntry {
        id: RequestEventId::from_bytes(id),
        client: ClientPubkey::from_bytes([(n % 200) as u8; 32]),
        identity: InvocationIdentity::from_bytes(id),
        capability: "tool:paid".to_owned(),
        interaction: PaymentInteraction::Transparent,
        pmi: pmi(),
        amount: "7 sats".parse().expect("an amount"),
        description: "tool:paid".to_owned(),
        meta: None,
        request: Some(format!(
            r#"{{"jsonrpc":"2.0","id":{n},"method":"tools/call","params":{{"name":"paid","arguments":{{"n":{n}}}}}}}"#
        )),
        route: "wrap:1059".to_owned(),
        deadline: now.plus(Duration::from_secs(3600)),
        quoted_at: now,
    }
}

fn pmi() -> Pmi {
    "scripted".parse().expect("an identifier")
}

/// What this process holds in memory, as Linux counts it; 0 elsewhere.
fn resident_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

fn remove(path: &Path) {
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{end}", path.display()));
    }
}
