//! A real `serve` on a real ledger file, killed at every write and at every send, started again, and the books balanced.
//!
//! For every call, after everything, whatever was killed when:
//!
//! - what was really paid is what the ledger says was settled, payment by payment;
//! - each settled entry is delivered with its response or is a live authorization, and none is both or neither;
//! - no execution happened before its payment was settled on the disk;
//! - executions = deliveries, plus at most one for each time that a kill interrupted one (its entry was `claimed` when the
//!   process died): what a tool was doing at that moment nobody can know, so the right to it comes back by design;
//! - everybody who paid has the result, gets the same one again for the same request, and never was asked to pay twice.
//!
//! `credentials.rs`, `mandates.rs` and `metered.rs` do the same for what is paid for by proof, by a token that is charged, and by
//! use: there the wallet, Stripe and the account are counted, too. `instances.rs` does it with several instances on one
//! PostgreSQL, some of which are only stopped for a while.
//!
//! `TOLLKEEPER_CRASH_RUNS=5000` plays so many random scripts instead of a few, `TOLLKEEPER_CRASH_SCRIPT='{…}'` plays one
//! that has failed again and again, `TOLLKEEPER_CRASH_RUNS` times.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is a test")]
#![allow(clippy::print_stdout, reason = "it tells how much was tried")]

#[path = "../support/fake_stripe.rs"]
mod fake_stripe;
#[path = "../support/faulty_relay.rs"]
mod faulty_relay;
#[path = "../support/http_service.rs"]
mod http_service;
#[cfg(feature = "postgres")]
#[path = "../support/postgres.rs"]
mod postgres;

mod books;
mod buyer;
mod credentials;
mod disk;
#[cfg(feature = "postgres")]
mod instances;
mod line;
mod mandates;
mod metered;
mod presenter;
mod run;
mod script;
mod shop;

use std::env;
use std::sync::OnceLock;

use futures_util::future::join_all;

use run::play;
use script::{KINDS, Lifecycle, Script};

/// No script needs more: a kind has fewer points than this.
const MOST: usize = 60;

/// The binary as it was when the tests began: a build beside a long run must not swap it.
fn binary() -> &'static str {
    static BINARY: OnceLock<(std::fs::File, String)> = OnceLock::new();
    let (_open, path) = BINARY.get_or_init(|| {
        let path = env!("CARGO_BIN_EXE_tollkeeper");
        let open = std::fs::File::open(path).unwrap();
        let held = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            std::os::fd::AsRawFd::as_raw_fd(&open)
        );
        // Elsewhere than on Linux, a build beside the run is the builder's problem.
        let held = std::path::Path::new(&held).exists().then_some(held);
        (open, held.unwrap_or_else(|| path.to_owned()))
    });
    path
}

/// Plays all, and concludes.
async fn play_all(scripts: impl IntoIterator<Item = Script>) {
    let plays = scripts
        .into_iter()
        .map(|script| async move { play(&script).await });
    conclude(&join_all(plays).await);
}

/// Tells how much was tried, and fails with the first few failures.
fn conclude(outcomes: &[Result<usize, String>]) {
    let deaths: usize = outcomes.iter().flatten().sum();
    let failures: Vec<&str> = outcomes
        .iter()
        .filter_map(|it| it.as_ref().err())
        .map(String::as_str)
        .collect();
    println!(
        "{} runs, {deaths} kills, {} failures",
        outcomes.len(),
        failures.len()
    );
    assert!(
        failures.is_empty(),
        "{}",
        failures[..failures.len().min(3)].join("\n\n")
    );
}

/// Kills at the first point of each kind, at the second, and so on until a run no longer comes to the point: that run passes all
/// points at which the others died, and no more. It must be at least so many writes and sends.
async fn kill_everywhere(
    writes: usize,
    sends: usize,
    play: impl AsyncFn(String) -> Result<usize, String>,
) {
    let sweeps = KINDS.map(async |kind| {
        let mut outcomes = Vec::new();
        for n in 1..=MOST {
            outcomes.push(play(format!("{kind}:{n}")).await);
            let failures = outcomes.iter().filter(|outcome| outcome.is_err()).count();
            if matches!(outcomes.last(), Some(Ok(0))) || failures == 3 {
                break;
            }
        }
        // Fewer runs mean that the binary does not die where it should.
        let least = if kind.starts_with("write") {
            writes
        } else {
            sends
        };
        assert!(
            outcomes.len() > least || outcomes.iter().any(Result::is_err),
            "{kind}: only {} points were reached",
            outcomes.len() - 1
        );
        outcomes
    });
    conclude(&join_all(sweeps).await.concat());
}

/// The same for purchases of CEP-8; every call has at least so many points.
async fn kill_purchases(lifecycle: Lifecycle, buyers: u32, writes: usize, sends: usize) {
    let each = buyers as usize;
    kill_everywhere(each * writes, each * sends, async |point| {
        play(&Script::new(lifecycle, buyers, &[&point])).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transparent_call_survives_a_kill_at_every_write_and_every_send() {
    kill_purchases(Lifecycle::Transparent, 1, 4, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_gated_call_survives_a_kill_at_every_write_and_every_send() {
    kill_purchases(Lifecycle::ExplicitGating, 1, 5, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transparent_calls_side_by_side_survive_a_kill_at_every_write_and_every_send() {
    kill_purchases(Lifecycle::Transparent, 3, 4, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gated_calls_side_by_side_survive_a_kill_at_every_write_and_every_send() {
    kill_purchases(Lifecycle::ExplicitGating, 3, 5, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_kill_while_the_first_is_being_recovered_from_changes_nothing() {
    let mut scripts = Vec::new();
    for lifecycle in [Lifecycle::Transparent, Lifecycle::ExplicitGating] {
        // Quoted, issued, settled or claimed, executed but not delivered, delivered but not sent.
        for first in [
            "write-after:1",
            "write-after:2",
            "write-after:3",
            "write-before:4",
            "write-after:4",
            "send-before:3",
        ] {
            for second in [
                "write-before:1",
                "write-after:1",
                "send-before:1",
                "send-after:1",
                "write-after:2",
            ] {
                scripts.push(Script::new(lifecycle, 1, &[first, second]));
            }
        }
    }
    play_all(scripts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_in_flight_survive_kills_at_random_points() {
    let runs = env::var("TOLLKEEPER_CRASH_RUNS").map_or(60, |runs| runs.parse().unwrap());
    if let Ok(script) = env::var("TOLLKEEPER_CRASH_SCRIPT") {
        let script: Script = serde_json::from_str(&script).unwrap();
        return play_all(vec![script; usize::try_from(runs).unwrap()]).await;
    }
    let first: u64 = env::var("TOLLKEEPER_CRASH_SEED").map_or(0, |seed| seed.parse().unwrap());
    play_all((first..first + runs).map(Script::random)).await;
}
