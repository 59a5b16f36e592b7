//! What the buyer's side costs: a decision of the policy, a reservation on the disk, what `connect` adds to a free call, and
//! `call` from a cold start.
//!
//! `cargo bench --features testing --bench buying [-- PAYMENTS]`; with `--test` it only checks that it works.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench prints, and stops where it cannot go on"
)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollkeeper::client::ledger::{
    AnswerState, AttemptState, BooksStand, BuyerLedger, Heard, NewAttempt, Settled,
    SqliteBuyerLedger, Used,
};
use tollkeeper::client::policy::{Case, Facts, Limits, Policy};
use tollkeeper::client::{ClientPayments, with_client_payments};
use tollkeeper::payment::{
    Amount, CapabilityPattern, Clock, InvocationIdentity, PayReq, PaymentRequest, RequestEventId,
    ServerPubkey, SystemClock, Timestamp,
};
use tollkeeper::transport::nostr::{DevRelay, NostrClientTransport, NostrKeys, parse_server};
use tollkeeper::wire::Request;

fn sats(value: u64) -> Amount {
    format!("{value} sats").parse().unwrap()
}

/// Every kind of limit, in every scope: twenty of them.
fn policy() -> Policy {
    let mut limits = Limits::default();
    limits.per_call = Some(sats(1_000_000));
    limits.per_hour = Some(sats(100_000_000));
    limits.per_day = Some(sats(100_000_000));
    limits.total = Some(sats(100_000_000_000));
    let mut policy = Policy::default();
    policy.limits = limits.clone();
    policy.each_server = limits.clone();
    policy.each_capability = limits.clone();
    policy.servers = vec![(ServerPubkey::from_bytes([1; 32]), limits.clone())];
    policy.capabilities = vec![(CapabilityPattern::new("tool:a*").unwrap(), limits)];
    policy.deny = (0..100)
        .map(|n| ServerPubkey::from_bytes([100 + n; 32]))
        .collect();
    policy.ask_above = Some(sats(1_000_000));
    policy
}

fn attempt(n: u64, at: Timestamp) -> NewAttempt {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    let payment = PaymentRequest::new(
        "fake".parse().unwrap(),
        sats(1),
        PayReq::new("x"),
        n.to_string(),
    );
    NewAttempt::new(
        RequestEventId::from_bytes(bytes),
        ServerPubkey::from_bytes([1; 32]),
        InvocationIdentity::from_bytes(bytes),
        "tool:add",
        payment,
        at,
    )
}

fn case(new: &NewAttempt, policy: &Arc<Policy>) -> Case {
    let facts = Facts::new(new.server, "tool:add", new.call, sats(1), new.at);
    Case::new(Arc::clone(policy), facts)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn decision(rounds: usize) {
    let policy = Arc::new(policy());
    let new = attempt(1, SystemClock.now());
    let mut stand = BooksStand::default();
    let tallies = case(&new, &policy).tallies().len();
    stand.used = vec![vec![Used::new(sats(5), None)]; tallies];
    let times = (0..rounds)
        .map(|_| {
            let begun = Instant::now();
            let case = case(&new, &policy);
            std::hint::black_box(case.tallies());
            std::hint::black_box(case.judge(&stand)).unwrap();
            begun.elapsed()
        })
        .collect();
    println!("a decision under {tallies} limits: {:?}", median(times));
}

async fn reservation(rows: u64, rounds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = SqliteBuyerLedger::new(folder.path().join("buyer.db")).unwrap();
    let (policy, free) = (Arc::new(policy()), Arc::new(Policy::default()));
    let now = SystemClock.now();
    // A year of payments.
    for n in 0..rows {
        let at = now.minus(Duration::from_secs(
            365 * 24 * 3600 / rows.max(1) * (rows - n),
        ));
        let new = attempt(n, at);
        let id = ledger
            .reserve(new.clone(), case(&new, &free))
            .await
            .unwrap()
            .unwrap();
        let paid = Settled::new(AttemptState::Paid, "bench");
        ledger.settle(id, paid, at).await.unwrap();
        let ended = Heard::Ended(AnswerState::Result, None);
        ledger.note(id, ended).await.unwrap();
    }
    let mut times = Vec::new();
    for n in 0..rounds {
        let new = attempt(rows + n, SystemClock.now());
        let case = case(&new, &policy);
        let begun = Instant::now();
        ledger.reserve(new, case).await.unwrap().unwrap();
        times.push(begun.elapsed());
    }
    println!(
        "a reservation on the disk, beside {rows} payments: {:?}",
        median(times)
    );
}

/// A process that is ended with the bench.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tollkeeper(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollkeeper"));
    command
        .env("TOLLKEEPER_HOME", home)
        .env_remove("NWC_CONNECTION")
        .stderr(Stdio::null())
        .stdout(Stdio::piped())
        .stdin(Stdio::piped());
    command
}

struct Host {
    _child: Program,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    next: u64,
}

impl Host {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self {
            _child: Program(child),
            stdin,
            stdout: BufReader::new(stdout),
            next: 0,
        }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.next += 1;
        let id = self.next;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        writeln!(self.stdin, "{request}").unwrap();
        self.stdin.flush().unwrap();
        loop {
            let line = self.line();
            if line["id"] == id {
                return line;
            }
        }
    }
}

async fn over_a_relay(rounds: usize) {
    let folder = tempfile::tempdir().unwrap();
    let relay = DevRelay::start(0).await.unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/mini_mcp.py");
    let mut serve = tollkeeper(&folder.path().join("server"));
    serve
        .current_dir(folder.path())
        .args([
            "serve",
            "--json",
            "--ledger",
            "memory",
            "--relay",
            &relay.url(),
        ])
        .args(["--", "python3", script]);
    let mut shop = Host::start(serve);
    let npub = shop.line()["npub"].as_str().unwrap().to_owned();
    let echo = json!({"name": "echo", "arguments": {"text": "x"}});

    let (server, _) = parse_server(&npub).unwrap();
    let transport = NostrClientTransport::builder(NostrKeys::generate(), server)
        .relays([relay.url()])
        .connect()
        .await
        .unwrap();
    let client = with_client_payments(transport, ClientPayments::builder().build().unwrap());
    let mut times = Vec::new();
    for n in 0..rounds {
        let request = Request::new(n as i64, "tools/call", &echo).unwrap();
        let begun = Instant::now();
        let outcome = client.call(request, Duration::from_secs(30)).await.unwrap();
        assert!(outcome.response.result().is_some());
        times.push(begun.elapsed());
    }
    let library = median(times);

    let home = folder.path().join("buyer");
    let mut connect = tollkeeper(&home);
    connect.args([
        "connect",
        &npub,
        "--relay",
        &relay.url(),
        "--budget",
        "100 sats",
    ]);
    let through = tokio::task::spawn_blocking(move || {
        let mut host = Host::start(connect);
        let who = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "bench", "version": "0"}});
        host.ask("initialize", &who);
        let times = (0..rounds)
            .map(|_| {
                let begun = Instant::now();
                let answer = host.ask("tools/call", &echo);
                assert!(answer["result"].is_object());
                begun.elapsed()
            })
            .collect();
        median(times)
    })
    .await
    .unwrap();
    println!(
        "a free call: {library:?} in the library, {through:?} through connect ({:?} more)",
        through.saturating_sub(library)
    );

    cold_start(home, npub, relay.url(), rounds.min(20)).await;
}

async fn cold_start(home: std::path::PathBuf, npub: String, url: String, rounds: usize) {
    let cold = tokio::task::spawn_blocking(move || {
        let times = (0..rounds)
            .map(|_| {
                let mut call = tollkeeper(&home);
                call.args([
                    "call",
                    &npub,
                    "tool:echo",
                    "text=x",
                    "--json",
                    "--relay",
                    &url,
                ]);
                let begun = Instant::now();
                assert!(call.output().unwrap().status.success());
                begun.elapsed()
            })
            .collect();
        median(times)
    })
    .await
    .unwrap();
    println!("call, from a cold start to the result of a free call: {cold:?}");
}

fn main() {
    let checking = std::env::args().any(|arg| arg == "--test");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    decision(if checking { 10 } else { 100_000 });
    // The most payments in the books; to fill them takes a minute.
    let most = std::env::args().find_map(|arg| arg.parse().ok());
    let most = if checking {
        10
    } else {
        most.unwrap_or(100_000)
    };
    for rows in [10, 100, 10_000, 100_000] {
        if rows <= most && (rows > 10 || checking) {
            runtime.block_on(reservation(rows, if checking { 5 } else { 200 }));
        }
    }
    runtime.block_on(over_a_relay(if checking { 5 } else { 300 }));
}
