//! Durable operations per second of the ledgers, with 1, 64 and 256 callers at a time, beside what a flush of the disk
//! costs. `cargo bench --bench ledger`, optionally `-- FOLDER` to measure another disk;
//! `CALLERS=256` measures only that.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program that measures and prints"
)]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollkeeper::ledger::{
    Applied, Caller, Ledger, MemoryLedger, NewEntry, OpenLimits, Opened, SqliteLedger, Transition,
};
use tollkeeper::payment::{
    Amount, InvocationIdentity, PayReq, PaymentInteraction, PaymentRequest, Settlement, Timestamp,
    Unit,
};
use tollkeeper::{ClientPubkey, RequestEventId};

const LIMITS: OpenLimits = OpenLimits::new(1_000_000, 1_000_000);

/// `open`, `Issue`, `Settle`, `Claim`, `Deliver`.
const WRITES: u32 = 5;

fn main() {
    let folder = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'))
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::tempdir_in(folder).unwrap();
    println!(
        "flush of 4 KiB:            {:>9.3} ms",
        flush(folder.path(), 4 << 10)
    );
    println!(
        "flush of 1 MiB:            {:>9.3} ms",
        flush(folder.path(), 1 << 20)
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    let only = std::env::var("CALLERS").ok().and_then(|n| n.parse().ok());
    for callers in only.map_or(vec![1, 64, 256], |n| vec![n]) {
        let path = folder.path().join(format!("{callers}.db"));
        let ledger = Arc::new(SqliteLedger::open(path).unwrap());
        runtime.block_on(report("sqlite", ledger, callers));
    }
    if only.is_some() {
        return;
    }
    runtime.block_on(report("memory", Arc::new(MemoryLedger::new()), 64));
    let ledger = Arc::new(SqliteLedger::open(folder.path().join("large.db")).unwrap());
    runtime.block_on(with_many_open_offers(ledger));
}

/// The median time of a flush after writing `bytes`.
fn flush(folder: &Path, bytes: usize) -> f64 {
    let mut file = File::create(folder.join("flush")).unwrap();
    let block = vec![1; bytes];
    let mut times: Vec<Duration> = (0..50)
        .map(|_| {
            file.write_all(&block).unwrap();
            let begun = Instant::now();
            file.sync_data().unwrap();
            begun.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

async fn report(name: &str, ledger: Arc<dyn Ledger>, callers: u32) {
    let lives = if callers == 1 { 200 } else { 20_000 / callers };
    let busy_before = writer_is_busy().unwrap_or_default();
    let begun = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move {
                for n in 0..lives {
                    live(&*ledger, caller * 1_000_000 + n).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let rate = f64::from(callers * lives * WRITES) / begun.elapsed().as_secs_f64();
    println!("{name}, {callers:>3} callers: writes  {rate:>9.0} /s");
    if let Some(busy) = writer_is_busy() {
        let each = (busy - busy_before).as_secs_f64() * 1e6 / f64::from(callers * lives * WRITES);
        println!("{name}, {callers:>3} callers: the writer computes {each:.1} µs for each");
    }

    let begun = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move {
                for n in 0..lives {
                    let new = entry(caller * 1_000_000 + n);
                    let knocking = Caller::new(new.client, new.id, new.identity);
                    assert!(ledger.standing(&knocking).await.unwrap().of_event.is_some());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let rate = f64::from(callers * lives) / begun.elapsed().as_secs_f64();
    println!("{name}, {callers:>3} callers: standing {rate:>8.0} /s");
}

/// How long the thread that writes has been on a core: the same on a machine that others use, too. On Linux only.
fn writer_is_busy() -> Option<Duration> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let mut busy = None;
    for task in tasks.flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).ok();
        if read("comm")?.trim() == "ledger-writer" {
            let nanos = read("schedstat")?.split(' ').next()?.parse().ok()?;
            busy = Some(Duration::from_nanos(nanos));
        }
    }
    busy
}

/// One paid call from quote to delivery.
async fn live(ledger: &dyn Ledger, n: u32) {
    let new = entry(n);
    let (id, at, amount) = (new.id, new.quoted_at, new.amount.clone());
    assert!(matches!(
        ledger.open(new, LIMITS).await.unwrap(),
        Opened::New(_)
    ));
    let pay_req = PayReq::new("lnbc".repeat(80));
    let payment_request = PaymentRequest::new(
        "bitcoin-lightning-bolt11".parse().unwrap(),
        amount.clone(),
        pay_req,
        n.to_string(),
    );
    for transition in [
        Transition::Issue {
            payment_request,
            watch_until: at,
        },
        Transition::Settle(Settlement::new(amount, "hash")),
        Transition::Claim { by: id },
        Transition::Deliver {
            response: Some("x".repeat(200)),
        },
    ] {
        let applied = ledger.apply(&id, vec![transition], at).await.unwrap();
        assert!(matches!(applied, Applied::Moved(_)));
    }
}

/// Ids scattered as digests are.
fn scattered(n: u32, salt: u64) -> [u8; 32] {
    let mut state = u64::from(n) ^ salt;
    let mut bytes = [0; 32];
    for chunk in bytes.chunks_exact_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes());
        state = mixed;
    }
    bytes
}

fn entry(n: u32) -> NewEntry {
    NewEntry {
        id: RequestEventId::from_bytes(scattered(n, 1 << 40)),
        client: ClientPubkey::from_bytes(scattered(n % 1000, 2 << 40)),
        identity: InvocationIdentity::from_bytes(scattered(n, 3 << 40)),
        capability: "tool:search".to_owned(),
        interaction: PaymentInteraction::Transparent,
        pmi: "bitcoin-lightning-bolt11".parse().unwrap(),
        amount: Amount::new(7, Unit::SATS).unwrap(),
        description: "search".to_owned(),
        meta: None,
        request: Some(format!(
            r#"{{"jsonrpc":"2.0","id":{n},"method":"tools/call","params":{{"name":"search","arguments":{{"q":"x"}}}}}}"#
        )),
        route: "plain".to_owned(),
        deadline: Timestamp::from_secs(1_700_000_600),
        quoted_at: Timestamp::from_millis(1_700_000_000_000 + u64::from(n)),
    }
}

/// Opening must cost the same when 100,000 offers are open.
async fn with_many_open_offers(ledger: Arc<SqliteLedger>) {
    let mut n = 0;
    for (already, more) in [(0, 5_000), (5_000, 95_000), (100_000, 5_000)] {
        let begun = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..more {
            if tasks.len() >= 256 {
                tasks.join_next().await.unwrap().unwrap();
            }
            let (ledger, new) = (Arc::clone(&ledger), entry(n));
            tasks.spawn(async move {
                let opened = ledger.open(new, LIMITS).await.unwrap();
                assert!(matches!(opened, Opened::New(_)));
            });
            n += 1;
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let rate = f64::from(more) / begun.elapsed().as_secs_f64();
        println!("sqlite, {already:>6} open offers: open {rate:>6.0} /s");
    }
}
