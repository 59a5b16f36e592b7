//! What it costs to decide that a call need not be paid for: a licence, a revocation among a million, a free call of the day, a
//! draw from an account in a SQLite file.
//!
//! `cargo bench --features testing,sqlite,licence --bench entitlements`. One decision after the other; compare the rows of one
//! run with each other.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program that measures and prints"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tollkeeper::entitlement::FreePerDay;
use tollkeeper::entitlement::licence::{
    Issuer, Key, Keyring, LicenceSigner, LicenceTerms, Licences, RevokedSet,
};
use tollkeeper::ledger::{
    Accounts, BALANCE, Credit, Drawn, FreeLimits, MovementKind, NewEntry, SqliteLedger,
};
use tollkeeper::payment::{
    Clock, Entitled, Entitlement, EntitlementClaim, InvocationIdentity, PaymentInteraction,
    SystemClock, Timestamp, Unit,
};
use tollkeeper::{Amount, ClientPubkey, Invocation, PricedCapability, RequestEventId};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const CLIENT: ClientPubkey = ClientPubkey::from_bytes([1; 32]);

fn event(n: u64) -> RequestEventId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    RequestEventId::from_bytes(bytes)
}

fn claim(n: u64) -> EntitlementClaim {
    let params = json!({"name": "add", "arguments": {"text": "a sentence of ordinary length"}});
    let identity = InvocationIdentity::from_bytes(*event(n).as_bytes());
    let invocation = Invocation::new(
        CLIENT,
        event(n),
        "tools/call".to_owned(),
        Some("add".to_owned()),
        params,
        identity,
    );
    let listed: PricedCapability = "tool:add=7 sat".parse().expect("a price");
    EntitlementClaim::new(invocation, Arc::new(listed), SystemClock.now())
}

/// Prints the median, the 99th percentile and the worst of `times`.
fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    println!(
        "{what:44} median {:>9.2?}   p99 {:>9.2?}   of {}",
        at(50),
        at(99),
        times.len()
    );
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(licences());
    revocations();
    runtime.block_on(books());
}

async fn licences() {
    let ring = Keyring::new().with("srv:1", Key::new(SECRET).expect("a key"));
    let issuer = Issuer::builder("shop", "srv")
        .keys(ring)
        .start(Arc::new(tollkeeper::ledger::MemoryLedger::new()))
        .await
        .expect("an issuer");
    let licences = Licences::new(vec![issuer]);
    let key = Key::new(SECRET).expect("a key");
    let signer = LicenceSigner::new("shop", "srv", 1, key).expect("a signer");
    let terms = LicenceTerms::new("1", "p", SystemClock.now()).held_by(CLIENT);
    let token = signer.sign(&terms).expect("a licence");
    let claim = claim(1).with_tokens(vec![token]);
    let mut times = Vec::new();
    for _ in 0..200_000 {
        let begun = Instant::now();
        let entitled = licences.examine(black_box(&claim)).await;
        times.push(begun.elapsed());
        assert!(matches!(entitled, Entitled::Covered(_)));
    }
    report("a licence, verified", times);
}

fn revocations() {
    let set = RevokedSet::new();
    let until = Timestamp::from_secs(4_000_000_000);
    let ids: Vec<String> = (0..1_000_000).map(|n| format!("01HXKZ{n:020}")).collect();
    set.extend("shop", ids.iter().map(|id| (id.as_str(), until)));
    println!(
        "{:44} {} MB for {}",
        "revoked licences in memory",
        set.bytes() / 1_000_000,
        set.len()
    );
    for (what, other) in [
        ("among a million revoked: is revoked", false),
        ("among a million revoked: is not", true),
    ] {
        let begun = Instant::now();
        let mut found = 0;
        for id in ids.iter().step_by(7) {
            let issuer = if other { "other" } else { "shop" };
            found += usize::from(set.contains(issuer, black_box(id)));
        }
        let looked = ids.len().div_ceil(7);
        assert_eq!(found, if other { 0 } else { looked });
        let each = begun.elapsed() / u32::try_from(looked).unwrap_or(1);
        println!("{what:44} {each:.2?} each");
    }
}

async fn books() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = Arc::new(SqliteLedger::open(folder.path().join("books.db")).expect("a ledger"));
    let limits = FreeLimits::new(1_000_000, 1_000_000);
    let free = FreePerDay::new(Arc::clone(&ledger) as _, limits).expect("limits");
    let mut times = Vec::new();
    for n in 0..5_000 {
        let claim = claim(n);
        let begun = Instant::now();
        let entitled = free.examine(&claim).await;
        times.push(begun.elapsed());
        assert!(matches!(entitled, Entitled::Covered(_)));
    }
    report("a free call of the day, on the disk", times);
    let at = SystemClock.now();
    let credit = Credit {
        client: CLIENT,
        amount: Amount::new(1_000_000, Unit::SATS).expect("an amount"),
        kind: MovementKind::TopUp,
        key: "top_up".to_owned(),
        at,
    };
    ledger.credit(credit).await.expect("credited");
    let mut times = Vec::new();
    for n in 0..5_000 {
        let begun = Instant::now();
        let drawn = ledger.draw(entry(n, at), at).await.expect("drawn");
        times.push(begun.elapsed());
        assert!(matches!(drawn, Drawn::Paid { .. }));
    }
    report("a draw, on the disk, one after the other", times);
    let begun = Instant::now();
    let count = 20_000u64;
    let mut drawing = tokio::task::JoinSet::new();
    for n in 0..count {
        if drawing.len() >= 64 {
            drawing.join_next().await;
        }
        let ledger = Arc::clone(&ledger);
        drawing.spawn(async move { ledger.draw(entry(1_000_000 + n, at), at).await.is_ok() });
    }
    while drawing.join_next().await.is_some() {}
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    println!("{:44} {rate:.0} draws/s", "draws, 64 side by side");
    let short = ClientPubkey::from_bytes([9; 32]);
    let mut times = Vec::new();
    for n in 0..5_000 {
        let mut new = entry(5_000_000 + n, at);
        new.client = short;
        let begun = Instant::now();
        let drawn = ledger.draw(new, at).await.expect("asked");
        times.push(begun.elapsed());
        assert!(matches!(drawn, Drawn::Short));
    }
    report("nothing on the account", times);
}

fn entry(n: u64, at: Timestamp) -> NewEntry {
    NewEntry {
        id: event(n),
        client: CLIENT,
        identity: InvocationIdentity::from_bytes(*event(n).as_bytes()),
        capability: "tool:add".to_owned(),
        interaction: PaymentInteraction::Transparent,
        pmi: BALANCE.parse().expect("a name"),
        amount: Amount::new(7, Unit::SATS).expect("an amount"),
        description: "add".to_owned(),
        meta: None,
        request: Some("{}".to_owned()),
        route: String::new(),
        deadline: at,
        quoted_at: at,
    }
}
