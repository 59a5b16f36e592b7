//! A server alone with one client, one that holds much, and one that nobody calls.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nostr::{Keys, PublicKey};
use serde_json::json;
use tollkeeper::transport::nostr::EncryptionMode;

use crate::cells::{self, Serving};
use crate::clients::{Caller, Target, take_turns};
use crate::floor::micros;
use crate::options::Options;
use crate::plot::{self, Line};
use crate::process::Process;
use crate::report;
use crate::server::ServerConfig;

/// Paid calls one after the other, and two bare hops over the same relay.
pub(crate) async fn latency(options: &Options) {
    let relay = options.relay();
    let url = relay.text("url");
    let echo = Process::role("echo", &json!(url));
    let memory = Serving::start("library", &url, false).expect("the library");
    let durable = Serving::start("library-sqlite", &url, false).expect("the library");
    let mut callers = Vec::new();
    for (process, tool) in [
        (&echo, "free"),
        (&memory.process, "free"),
        (&memory.process, "paid"),
        (&durable.process, "paid"),
    ] {
        let target = Target {
            relay: url.clone(),
            server: PublicKey::parse(&process.text("pubkey")).expect("a key"),
            tool,
            encrypted: false,
        };
        let mut caller = Caller::new(&Arc::new(target)).await;
        caller.call(1, Duration::from_millis(200)).await;
        callers.push(caller);
    }
    let mut all = vec![Vec::new(); callers.len()];
    // In turns, so that each is measured under the same circumstances.
    for _ in 0..options.rounds.max(5) {
        for (caller, times) in callers.iter_mut().zip(&mut all) {
            times.extend(caller.call(1, options.seconds / 8).await.times);
        }
    }
    let median = |times: &[Duration]| {
        let mut times = times.to_vec();
        times.sort_unstable();
        times
            .get(times.len() / 2)
            .copied()
            .unwrap_or_default()
            .as_secs_f64()
            * 1e3
    };
    let [bare, free, paid, durable] = [0, 1, 2, 3].map(|at| median(&all[at]));
    let summary = json!({
        "two_hops_ms": bare, "free_ms": free, "paid_ms": paid, "paid_durable_ms": durable,
        "paid_of_four_hops": paid / (2.0 * bare), "calls": all.iter().map(Vec::len).collect::<Vec<_>>(),
    });
    report::line("latency", &options.setting(), &summary);
}

/// Sessions and open offers, made over the relay as clients make them.
pub(crate) async fn memory(options: &Options) {
    let relay = options.relay();
    let url = relay.text("url");
    let config = ServerConfig {
        relay: url.clone(),
        encryption: EncryptionMode::Disabled,
        ledger: None,
        // Nobody pays.
        settles: None,
    };
    for durable in [false, true] {
        let folder = tempfile::tempdir_in(".").expect("a folder");
        let file = folder
            .path()
            .canonicalize()
            .expect("a folder")
            .join("ledger.db");
        let config = ServerConfig {
            ledger: durable.then_some(file),
            ..config.clone()
        };
        let server = Process::role("server", &serde_json::to_value(config).expect("json"));
        let target = Target {
            relay: url.clone(),
            server: PublicKey::parse(&server.text("pubkey")).expect("a key"),
            tool: "paid",
            encrypted: false,
        };
        let empty = server.used();
        let began = Instant::now();
        let keys = Arc::new((0..options.sessions).map(|_| Keys::generate()).collect());
        let offers = take_turns(&target, &keys, options.offers, 256, "payment_required").await;
        let used = server.used();
        let summary = json!({
            "ledger": if durable { "sqlite" } else { "memory" },
            "sessions": options.sessions, "offers": offers,
            "empty_mib": empty.now_mib, "mib": used.now_mib, "peak_mib": used.peak_mib,
            "took_s": began.elapsed().as_secs_f64(),
        });
        report::line("memory", &options.setting(), &summary);
    }
}

/// What a call costs by how many clients have a session.
pub(crate) async fn sessions(options: &Options) {
    const CALLS: usize = 5000;
    let relay = options.relay();
    let mut lines = Vec::new();
    for tool in ["free", "paid"] {
        let mut points = Vec::new();
        for sessions in [1, 100, 1000, 10_000] {
            let url = relay.text("url");
            let serving = Serving::start("library", &url, false).expect("the library");
            let target = Target {
                relay: url,
                server: PublicKey::parse(&serving.process.text("pubkey")).expect("a key"),
                tool,
                encrypted: false,
            };
            let keys = Arc::new((0..sessions).map(|_| Keys::generate()).collect());
            // Everybody introduces himself, and the server does.
            take_turns(&target, &keys, sessions.max(500), 32, "result").await;
            let before = serving.process.used().cpu;
            let calls = take_turns(&target, &keys, CALLS, 32, "result").await;
            let used = micros(serving.process.used().cpu.saturating_sub(before)) / calls as f64;
            let line = json!({ "curve": format!("sessions_{tool}"), "at": sessions, "us": used });
            report::line("growth", &options.setting(), &line);
            points.push((sessions as f64, used));
        }
        let label = format!("a {tool} call over a relay");
        lines.push(Line { label, points });
    }
    let title = "What a call costs the server, by clients with a session";
    let svg = plot::lines(
        title,
        "clients with a session",
        "µs of computing time a call",
        &lines,
    );
    report::save(options, "growth_sessions.svg", &svg);
}

/// A server of the binary that nobody calls.
pub(crate) async fn idle(options: &Options) {
    let relay = options.relay();
    let folder = tempfile::tempdir_in(".").expect("a folder");
    let server = cells::serve(
        folder.path(),
        &relay.text("url"),
        "optional",
        &["--price", "tool:paid=7 sat"],
    );
    // What belongs to the start is over by then.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = server.used();
    tokio::time::sleep(options.idle).await;
    let after = server.used();
    let minutes = options.idle.as_secs_f64() / 60.0;
    let summary = json!({
        "mib": after.now_mib, "peak_mib": after.peak_mib,
        "sleeps_per_minute": (after.sleeps - before.sleeps) as f64 / minutes,
        "cpu_ms_per_minute": (after.cpu.saturating_sub(before.cpu)).as_secs_f64() * 1e3 / minutes,
    });
    report::line("idle", &options.setting(), &summary);
}
