//! Paid calls per second of one key that is served by 1, 2 and 4 processes on one PostgreSQL, over a loopback relay.
//!
//! `cargo bench --features testing,postgres,dev-relay --bench instances [-- CALLS]`. A load program: the relay and the clients are in
//! this process, each instance is a process of its own, and so is PostgreSQL. What it says about scaling is about a machine with
//! as many cores as there are processes; on fewer, more instances share what there is.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program that measures and prints"
)]

#[path = "../tests/support/postgres.rs"]
mod postgres;

use std::env;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::{PASSWORD, Postgres};
use serde_json::json;
use tollkeeper::client::{ClientPayments, with_client_payments};
use tollkeeper::ledger::{OpenLimits, PostgresConfig, PostgresLedger};
use tollkeeper::payment::ServerPubkey;
use tollkeeper::rails::fake::{FakeHandler, FakeProcessor};
use tollkeeper::server::{ServerPayments, with_server_payments};
use tollkeeper::transport::nostr::{
    DevRelay, NostrClientTransport, NostrKeys, NostrServerTransport,
};
use tollkeeper::transport::{Outbound, ServerTransport};
use tollkeeper::wire::{Message, Payload, Request, Response, raw};

/// Each calls one call after the other.
const CLIENTS: usize = 32;
const ROUNDS: usize = 3;

/// Tells a process that it is an instance, and of what: the key of the server, the relay, the database.
const INSTANCE: &str = "TOLLKEEPER_BENCH_INSTANCE";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    if let Ok(what) = env::var(INSTANCE) {
        return serve(&what).await;
    }
    let calls = env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(4_000);
    let Some(server) = Postgres::start() else {
        return;
    };
    println!(
        "{calls} paid calls a round, {CLIENTS} in flight, calls per second by the number of instances:"
    );
    for round in 1..=ROUNDS {
        let mut rates = Vec::new();
        for instances in [1, 2, 4] {
            rates.push(measure(&server, instances, calls).await);
        }
        println!(
            "round {round}: 1: {:.0}, 2: {:.0}, 4: {:.0}",
            rates[0], rates[1], rates[2]
        );
    }
}

async fn measure(server: &Postgres, instances: usize, calls: usize) -> f64 {
    let relay = DevRelay::start(0).await.expect("a relay");
    let (secret, url) = (format!("{:064x}", 7 + instances), server.database());
    let key = NostrKeys::parse(&secret).expect("a key").server_pubkey();
    let what = format!("{secret} {} {url}", relay.url());
    let mut running: Vec<Child> = (0..instances)
        .map(|_| {
            Command::new(env::current_exe().unwrap())
                .env(INSTANCE, &what)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("an instance")
        })
        .collect();
    for instance in &mut running {
        let mut line = String::new();
        let said = instance.stdout.as_mut().unwrap();
        tokio::task::block_in_place(|| BufReader::new(said).read_line(&mut line).expect("ready"));
    }
    let workers: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(buy(relay.url(), key, calls / CLIENTS)))
        .collect();
    let mut times = Vec::new();
    for worker in workers {
        times.push(worker.await.expect("a worker"));
    }
    let began = times.iter().map(|(began, _)| *began).min().unwrap();
    let ended = times.iter().map(|(_, ended)| *ended).max().unwrap();
    for mut instance in running {
        // The end of its input is its end.
        drop(instance.stdin.take());
        instance.wait().expect("an end");
    }
    (calls / CLIENTS * CLIENTS) as f64 / (ended - began).as_secs_f64()
}

/// Buys one call after the other; says when the first began and the last ended.
async fn buy(relay: String, server: ServerPubkey, calls: usize) -> (Instant, Instant) {
    let transport = NostrClientTransport::builder(NostrKeys::generate(), server)
        .relays([relay])
        .connect()
        .await
        .expect("a client transport");
    let payments = ClientPayments::builder()
        .handler(FakeHandler::new())
        .budget("1000000 sats".parse().expect("an amount"))
        .build()
        .expect("payments");
    let client = with_client_payments(transport, payments);
    let mut began = Instant::now();
    for n in 0..=calls {
        let params = json!({"name": "paid", "arguments": {"n": n}});
        let request = Request::new(n as i64, "tools/call", &params).expect("a request");
        let outcome = client
            .call(request, Duration::from_secs(60))
            .await
            .expect("sent");
        assert!(
            outcome.response.result().is_some(),
            "{:?}",
            outcome.response
        );
        if n == 0 {
            // The first one warms up.
            began = Instant::now();
        }
    }
    (began, Instant::now())
}

/// An instance, until its input ends.
async fn serve(what: &str) {
    let words: Vec<&str> = what.split(' ').collect();
    let transport = NostrServerTransport::builder(NostrKeys::parse(words[0]).expect("a key"))
        .relays([words[1].to_owned()])
        .connect()
        .await
        .expect("a server transport");
    let config = PostgresConfig::parse(words[2])
        .expect("a database")
        .password(PASSWORD);
    let ledger = PostgresLedger::open(&config).await.expect("a ledger");
    let payments = ServerPayments::builder()
        .price("tool:paid=7 sat".parse().expect("a price"))
        .processor(FakeProcessor::new())
        .ledger(Arc::new(ledger))
        .limits(OpenLimits::new(1000, 10_000))
        .settings(|settings| settings.offers_per_minute = 1_000_000)
        .build()
        .expect("payments");
    let server = with_server_payments(transport as Arc<dyn ServerTransport>, payments)
        .await
        .expect("a server");
    println!("ready");
    let answering = Arc::clone(&server);
    tokio::spawn(async move {
        while let Some(inbound) = answering.recv().await {
            let Message::Request(request) = inbound.message else {
                continue;
            };
            let server = Arc::clone(&answering);
            tokio::spawn(async move {
                let response = Response {
                    id: request.id,
                    payload: Payload::Result(raw(&"done").expect("json")),
                };
                let _ = server
                    .send(&inbound.origin.reply_to, Outbound::new(response))
                    .await;
            });
        }
    });
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await;
    server.shutdown(Duration::from_secs(1)).await;
}
