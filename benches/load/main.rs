//! The load program: servers in processes of their own, over a relay in another, under so many calls in flight.
//!
//! `cargo bench --bench load [-- WHAT… OPTIONS]`, where WHAT is any of
//!
//! - `compare`: the library, the binary, and the ContextVM SDK on Node.js and on Bun under the same load, and the
//!   cryptographic floor in the same run;
//! - `durability`: the durable ledger beside the one in memory, with 64 calls in flight;
//! - `latency`: paid calls one after the other, beside bare messages over the same relay;
//! - `memory`: 10,000 sessions and 100,000 open offers;
//! - `sessions`: what a call costs by how many clients have a session;
//! - `idle`: a server that nobody calls;
//!
//! all of them if none is named. Each line of its output is a JSON object; `--out FOLDER` gets plots. Options: `--seconds N`
//! and `--warm-up N` of each measurement, `--rounds N`, `--in-flight N`, `--relay light|dev`, `--servers A,B`.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that measures and prints"
)]

mod cells;
mod clients;
mod floor;
mod options;
#[path = "../support/plot.rs"]
mod plot;
mod process;
mod relay;
mod report;
mod server;
mod states;

use options::Options;

fn main() {
    // Cargo says `--bench`, and `--test` where it only wants to know whether this works.
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["role", "relay", ..] => relay::run(),
        ["role", "server", config] => server::run(config),
        ["role", "echo", relay] => server::echo(relay.trim_matches('"')),
        ["role", "mcp", ..] => server::mcp(),
        _ => measure(&Options::parse(&words)),
    }
}

fn measure(options: &Options) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        if options.wants("compare") {
            cells::compare(options).await;
        }
        if options.wants("durability") {
            cells::durability(options).await;
        }
        if options.wants("latency") {
            states::latency(options).await;
        }
        if options.wants("memory") {
            states::memory(options).await;
        }
        if options.wants("sessions") {
            states::sessions(options).await;
        }
        if options.wants("idle") {
            states::idle(options).await;
        }
    });
}
