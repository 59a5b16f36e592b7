//! What the gate costs, without a relay: an unpriced request, a priced and waived one, matching in long price lists, and the
//! pieces of a paid call.
//!
//! `cargo bench --features testing,nostr --bench gate`. Compare the rows of one run with each other, not with another machine.

#![expect(
    missing_docs,
    clippy::expect_used,
    reason = "a program that measures, with macros that write items without docs"
)]

#[path = "support/pieces.rs"]
mod pieces;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pieces::Pieces;
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tollkeeper::gate::PriceList;
use tollkeeper::payment::{PriceDecision, PricedCapability};
use tollkeeper::rails::fake::FakeProcessor;
use tollkeeper::server::{ServerPayments, with_server_payments};
use tollkeeper::transport::memory::{self, MemoryClient};
use tollkeeper::transport::{ClientTransport, Introduction, Outbound, ServerTransport};
use tollkeeper::wire::{Message, Payload, Request, Response, raw};
use tollkeeper::{Error, Invocation};

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn call(name: &str) -> Message {
    let params =
        json!({"name": name, "arguments": {"text": "a sentence of ordinary length", "n": 12}});
    Request::new(1, "tools/call", &params)
        .expect("a request")
        .into()
}

/// One request in and its answer out.
async fn round_trip(client: &MemoryClient, server: &dyn ServerTransport, message: &Message) {
    let prepared = client
        .prepare(message, &Introduction::default())
        .await
        .expect("prepared");
    client.publish(&prepared).await.expect("published");
    let inbound = server.recv().await.expect("a request");
    let Message::Request(request) = inbound.message else {
        panic!("not a request")
    };
    let response = Response {
        id: request.id,
        payload: Payload::Result(raw(&1).expect("json")),
    };
    server
        .send(&inbound.origin.reply_to, Outbound::new(response))
        .await
        .expect("sent");
    client.recv().await.expect("an answer");
}

fn gate_overhead(c: &mut Criterion) {
    let mut group = c.benchmark_group("round trip");
    let runtime = runtime();
    let (bare, client) = memory::pair();
    let message = call("free");
    group.bench_function("no gate", |b| {
        b.to_async(&runtime)
            .iter(|| round_trip(&client, &*bare, black_box(&message)));
    });

    for (row, name) in [
        ("gate, unpriced", "free"),
        ("gate, priced and waived", "paid"),
    ] {
        let (transport, client) = memory::pair();
        let waive =
            |_: Invocation, _: PricedCapability| async { Ok::<_, Error>(PriceDecision::Waive) };
        let server = runtime.block_on(async {
            let payments = ServerPayments::builder()
                .price("tool:paid=7 sat".parse().expect("a price"))
                .processor(FakeProcessor::new())
                .resolve_price(waive)
                .build()
                .expect("payments");
            with_server_payments(Arc::clone(&transport) as _, payments)
                .await
                .expect("a server")
        });
        let message = call(name);
        group.bench_function(row, |b| {
            b.to_async(&runtime)
                .iter(|| round_trip(&client, &*server, black_box(&message)));
        });
    }
    group.finish();
}

fn price_matching(c: &mut Criterion) {
    let mut group = c.benchmark_group("price matching");
    for entries in [10usize, 1000, 10_000] {
        // Half exact names, half patterns of different prefixes: the shape of a large catalogue.
        let prices = (0..entries)
            .map(|n| match n % 2 {
                0 => format!("tool:name_{n:06}=1 sat"),
                _ => format!("tool:prefix_{n:06}_*=1 sat"),
            })
            .map(|entry| entry.parse().expect("a price"))
            .collect();
        let list = PriceList::new(prices).expect("a list");
        for (what, name) in [
            ("exact", "name_000004"),
            ("pattern", "prefix_000005_x"),
            ("miss", "something_else_entirely"),
        ] {
            group.bench_with_input(BenchmarkId::new(what, entries), &list, |b, list| {
                b.iter(|| list.find("tools/call", Some(black_box(name))));
            });
        }
    }
    group.finish();
}

/// What a paid call is made of, each piece alone.
fn pieces(c: &mut Criterion) {
    let mut group = c.benchmark_group("pieces");
    let pieces = Pieces::new();
    for piece in [
        "parse",
        "identity",
        "ledger",
        "paid_call",
        "plain_frame",
        "wrapped_frame",
    ] {
        group.bench_function(piece, |b| {
            b.iter_custom(|times| {
                let began = Instant::now();
                pieces.run(piece, usize::try_from(times).unwrap_or(usize::MAX));
                began.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, gate_overhead, price_matching, pieces);
criterion_main!(benches);
