//! What a paid call costs the more there is: priced capabilities, open offers, clients, rows in the ledger.
//!
//! `cargo bench --features testing,sqlite --bench growth [-- WHAT… OPTIONS]`, where WHAT is any of `capabilities`, `offers`,
//! `clients` and `rows`. Options: `--rows N` (the most rows; 1,000,000 unless told otherwise, and 10,000,000 take 8 GB of disk
//! and some minutes), `--calls N` for each measurement, `--out FOLDER` for plots. A point is the time on all cores that a call
//! took, over the memory transport, on this process's clock of computing time; rounds over all points take turns.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that measures and prints"
)]

#[path = "support/plot.rs"]
mod plot;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::json;
use tempfile::TempDir;
use tollkeeper::ledger::{
    Ledger, MemoryLedger, NewEntry, OpenLimits, Opened, SqliteLedger, Transition,
};
use tollkeeper::payment::{
    Clock, InvocationIdentity, PayReq, PaymentInteraction, PaymentRequest, PricedCapability,
    SystemClock,
};
use tollkeeper::rails::fake::FakeProcessor;
use tollkeeper::server::{PaidServer, ServerPayments, with_server_payments};
use tollkeeper::transport::memory::{self, MemoryClient, MemoryServer};
use tollkeeper::transport::{ClientTransport, Introduction, Outbound, ServerTransport};
use tollkeeper::wire::{Message, Payload, Request, Response, raw};
use tollkeeper::{ClientPubkey, RequestEventId};

use plot::Line;

const ROUNDS: usize = 5;

struct Options {
    what: Vec<String>,
    rows: u64,
    calls: usize,
    out: Option<PathBuf>,
}

fn options() -> Options {
    let mut options = Options {
        what: Vec::new(),
        rows: 1_000_000,
        calls: 1000,
        out: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut next = || words.next().unwrap_or_default();
        match word.as_str() {
            "--bench" => {}
            "--rows" => options.rows = next().parse().expect("a number"),
            "--calls" => options.calls = next().parse().expect("a number"),
            "--out" => options.out = Some(next().into()),
            // That it works.
            "--test" => (options.rows, options.calls) = (1000, 20),
            what => options.what.push(what.to_owned()),
        }
    }
    options
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let options = options();
    let wants = |what: &str| options.what.is_empty() || options.what.iter().any(|w| w == what);
    if wants("capabilities") {
        let mut shops = Vec::new();
        for entries in [10, 100, 1000, 10_000] {
            shops.push((
                entries,
                Shop::new(entries, Arc::new(MemoryLedger::new()), 1).await,
            ));
        }
        measure(&options, "capabilities", "priced capabilities", shops).await;
    }
    if wants("offers") {
        let mut shops = Vec::new();
        for offers in [0, 1000, 10_000, 100_000] {
            let books = Books::new();
            fill_with_offers(&books.ledger, offers).await;
            shops.push((offers, Shop::with(10, books, 1).await));
        }
        measure(&options, "offers", "open offers", shops).await;
    }
    if wants("clients") {
        let mut shops = Vec::new();
        for clients in [1, 100, 1000, 10_000] {
            let shop = Shop::new(10, Arc::new(MemoryLedger::new()), clients).await;
            shop.calls(clients as usize).await;
            shops.push((clients, shop));
        }
        measure(&options, "clients", "clients, each with a session", shops).await;
    }
    if wants("rows") {
        let mut shops = Vec::new();
        for rows in [0, 10_000, 100_000, 1_000_000, 10_000_000] {
            if rows <= options.rows {
                shops.push((rows, Shop::with(10, Books::with_rows(rows), 1).await));
            }
        }
        measure(&options, "rows", "rows in the ledger", shops).await;
    }
}

/// All points in turns, so that a machine that slows down slows all of them down; a line for each, and a plot.
async fn measure(options: &Options, curve: &str, what: &str, shops: Vec<(u64, Shop)>) {
    let mut times = vec![Vec::new(); shops.len()];
    for round in 0..=ROUNDS {
        for ((_, shop), times) in shops.iter().zip(&mut times) {
            let before = computed();
            shop.calls(options.calls).await;
            let each = (computed() - before).as_secs_f64() * 1e6 / options.calls as f64;
            // The first round warms up.
            if round > 0 {
                times.push(each);
            }
        }
    }
    let mut points = Vec::new();
    for ((size, shop), times) in shops.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let (least, middle, most) = (times[0], times[times.len() / 2], times[times.len() - 1]);
        let line = json!({
            "kind": "growth", "curve": curve, "at": size, "us": middle, "us_least": least, "us_most": most,
            "started_ms": shop.started.as_secs_f64() * 1e3,
        });
        println!("{line}");
        points.push((*size as f64, least));
    }
    // The least of several rounds is what the work itself takes; the rest is what else the machine did.
    let flat = points.iter().map(|(_, us)| us / points[0].1);
    let worst = flat.fold(1.0, f64::max);
    println!(
        "{}",
        json!({ "kind": "growth", "curve": curve, "most_to_first": worst })
    );
    if let Some(folder) = &options.out {
        let line = Line {
            label: format!("a paid call, by {what}"),
            points,
        };
        let svg = plot::lines(
            &format!("What a paid call costs, by {what}"),
            what,
            "µs of computing time a call",
            &[line],
        );
        std::fs::create_dir_all(folder).expect("a folder");
        std::fs::write(folder.join(format!("growth_{curve}.svg")), svg).expect("written");
    }
}

/// What the threads of this process have computed so far.
fn computed() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let nanos = threads
        .filter_map(|thread| {
            let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum();
    Duration::from_nanos(nanos)
}

/// A ledger, with the folder of its file if it has one.
struct Books {
    ledger: Arc<dyn Ledger>,
    folder: Option<TempDir>,
}

impl Books {
    fn new() -> Self {
        // Not in a folder for temporary files, which may be memory: the disk is part of it.
        let folder = tempfile::tempdir_in(".").expect("a folder");
        let ledger = SqliteLedger::open(folder.path().join("ledger.db")).expect("a ledger");
        Self {
            ledger: Arc::new(ledger),
            folder: Some(folder),
        }
    }

    /// With so many calls in it that were paid for and answered long ago.
    fn with_rows(rows: u64) -> Self {
        let Self { ledger, folder } = Self::new();
        drop(ledger);
        let path = folder.as_ref().expect("a folder").path().join("ledger.db");
        fill_with_rows(&path, rows);
        Self {
            ledger: Arc::new(SqliteLedger::open(path).expect("a ledger")),
            folder,
        }
    }
}
/// A gate with a handler, and clients.
struct Shop {
    _server: Arc<PaidServer>,
    clients: Vec<Arc<MemoryClient>>,
    handler: tokio::task::JoinHandle<()>,
    _folder: Option<TempDir>,
    /// Until it took its first call.
    started: Duration,
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.handler.abort();
    }
}

impl Shop {
    async fn new(entries: u64, ledger: Arc<dyn Ledger>, clients: u64) -> Self {
        let books = Books {
            ledger,
            folder: None,
        };
        Self::with(entries, books, clients).await
    }

    async fn with(entries: u64, books: Books, clients: u64) -> Self {
        let began = Instant::now();
        let transport = memory::server();
        let payments = ServerPayments::builder()
            .price("tool:paid=7 sat".parse().expect("a price"))
            .prices(prices(entries))
            .processor(FakeProcessor::new())
            .ledger(books.ledger)
            .limits(OpenLimits::new(1_000_000, 1_000_000))
            .settings(|settings| settings.offers_per_minute = 10_000_000)
            .build()
            .expect("payments");
        let server = with_server_payments(Arc::clone(&transport) as _, payments)
            .await
            .expect("a server");
        let handler = tokio::spawn(answer(Arc::clone(&server)));
        let clients: Vec<_> = (0..clients).map(|n| client(&transport, n)).collect();
        call(&clients[0], 0).await;
        Self {
            _server: server,
            clients,
            handler,
            _folder: books.folder,
            started: began.elapsed(),
        }
    }

    /// So many paid calls, eight at a time, each by another client if there are so many.
    async fn calls(&self, calls: usize) {
        const AT_ONCE: usize = 8;
        let mut workers = tokio::task::JoinSet::new();
        for worker in 0..AT_ONCE.min(self.clients.len()) {
            let share: Vec<_> = (worker..calls)
                .step_by(AT_ONCE.min(self.clients.len()))
                .map(|n| Arc::clone(&self.clients[n % self.clients.len()]))
                .collect();
            workers.spawn(async move {
                for (n, client) in share.iter().enumerate() {
                    call(client, n).await;
                }
            });
        }
        workers.join_all().await;
    }
}

fn client(transport: &Arc<MemoryServer>, n: u64) -> Arc<MemoryClient> {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&n.to_be_bytes());
    key[31] = 1;
    transport.client(ClientPubkey::from_bytes(key))
}

/// Half exact names, half patterns of different prefixes: the shape of a large catalogue.
fn prices(entries: u64) -> Vec<PricedCapability> {
    let entry = |n: u64| match n % 2 {
        0 => format!("tool:name_{n:06}=1 sat"),
        _ => format!("tool:prefix_{n:06}_*=1 sat"),
    };
    (0..entries)
        .map(|n| entry(n).parse().expect("a price"))
        .collect()
}

async fn answer(server: Arc<PaidServer>) {
    while let Some(inbound) = server.recv().await {
        let Message::Request(request) = inbound.message else {
            continue;
        };
        let response = Response {
            id: request.id,
            payload: Payload::Result(raw(&1).expect("json")),
        };
        let _ = server
            .send(&inbound.origin.reply_to, Outbound::new(response))
            .await;
    }
}

async fn call(client: &MemoryClient, n: usize) {
    let params = json!({ "name": "paid", "arguments": { "n": n } });
    let request = Request::new(n as i64, "tools/call", &params).expect("a request");
    let prepared = client
        .prepare(&request.into(), &Introduction::default())
        .await
        .expect("prepared");
    client.publish(&prepared).await.expect("published");
    loop {
        if let Message::Response(response) = client.recv().await.expect("an answer").message {
            assert!(response.result().is_some(), "{response:?}");
            return;
        }
    }
}

/// Offers that wait for money, as a server leaves them behind.
async fn fill_with_offers(ledger: &Arc<dyn Ledger>, offers: u64) {
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..64 {
        let ledger = Arc::clone(ledger);
        writers.spawn(async move {
            for n in (writer..offers).step_by(64) {
                let new = offer(n);
                let (id, at) = (new.id, new.quoted_at);
                let opened = ledger
                    .open(new, OpenLimits::new(usize::MAX, usize::MAX))
                    .await;
                assert!(matches!(opened, Ok(Opened::New(_))));
                let payment_request = PaymentRequest::new(
                    "other".parse().expect("an identifier"),
                    "7 sats".parse().expect("an amount"),
                    PayReq::new("lnbc".repeat(80)),
                    n.to_string(),
                );
                let issue = Transition::Issue {
                    payment_request,
                    watch_until: at.plus(Duration::from_secs(7200)),
                };
                ledger.apply(&id, vec![issue], at).await.expect("issued");
            }
        });
    }
    writers.join_all().await;
}

fn offer(n: u64) -> NewEntry {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&n.to_be_bytes());
    id[31] = 1;
    let now = SystemClock.now();
    NewEntry {
        id: RequestEventId::from_bytes(id),
        client: ClientPubkey::from_bytes([(n % 200) as u8; 32]),
        identity: InvocationIdentity::from_bytes(id),
        capability: "tool:paid".to_owned(),
        interaction: PaymentInteraction::Transparent,
        pmi: "other".parse().expect("an identifier"),
        amount: "7 sats".parse().expect("an amount"),
        description: "tool:paid".to_owned(),
        meta: None,
        request: Some(format!(
            r#"{{"jsonrpc":"2.0","id":{n},"method":"tools/call","params":{{"name":"paid","arguments":{{"n":{n}}}}}}}"#
        )),
        route: "plain".to_owned(),
        deadline: now.plus(Duration::from_secs(3600)),
        quoted_at: now,
    }
}

/// Calls that were paid for and answered long ago, written in bulk: copies of one that the ledger itself wrote.
fn fill_with_rows(path: &Path, rows: u64) {
    if rows == 0 {
        return;
    }
    let began = Instant::now();
    let connection = Connection::open(path).expect("the file");
    // It only has to be there, not to survive.
    connection
        .execute_batch(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -400000;",
        )
        .expect("settings");
    connection
        .execute(
            "WITH RECURSIVE counter (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter WHERE n < ?1)
             INSERT INTO entry (id, client, identity, capability, amount, unit, pmi, interaction, state, waiting, is_open,
                 is_finished, is_authorization, quoted_at_ms, deadline_ms, watch_until_ms, claimed_by, route, description,
                 payment_request, reference, settlement, history)
             SELECT printf('%016x%048x', n * 900000000000, n), printf('%064x', n % 1000), printf('%064x', n), 'tool:paid', 7,
                 'sats', 'fake', 'transparent', 'delivered', 0, 0, 1, 0, 1700000000000 + n, 1700000600000 + n,
                 1700004200000 + n, printf('%016x%048x', n * 900000000000, n), 'plain', 'tool:paid', NULL,
                 printf('old-%d', n), NULL, '[]'
             FROM counter",
            [i64::try_from(rows).expect("so many")],
        )
        .expect("rows");
    // The journal as the ledger wants it is made by the ledger.
    connection
        .execute_batch("PRAGMA journal_mode = WAL;")
        .expect("a journal");
    eprintln!("{rows} rows in {:.0} s", began.elapsed().as_secs_f64());
}
