//! What a call costs that a purchase covers: one question to the books, in a SQLite file with a hundred thousand purchases, and
//! none to Stripe, which cannot be reached here.
//!
//! `cargo bench --features stripe,sqlite --bench stripe`

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program that measures and prints"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tollkeeper::entitlement::stripe::{Desk, Meter, Plan, StripePlans};
use tollkeeper::ledger::{
    OpenLimits, Purchase, PurchaseBooks, PurchaseState, PurchaseWord, SqliteLedger,
};
use tollkeeper::payment::{
    Clock, Delivery, Entitled, Entitlement, EntitlementClaim, InvocationIdentity, SystemClock,
    Timestamp, Unit,
};
use tollkeeper::rails::stripe::{PlanMode, StripeClient, StripeConfig, StripeKey};
use tollkeeper::{Amount, ClientPubkey, Invocation, PricedCapability, RequestEventId};

const PURCHASES: u64 = 100_000;
const CALLS: u64 = 20_000;

fn bytes(n: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    bytes
}

fn purchase(n: u64, at: Timestamp) -> Purchase {
    Purchase {
        id: RequestEventId::from_bytes(bytes(n)),
        client: ClientPubkey::from_bytes(bytes(n)),
        plan: "test/tool:add".to_owned(),
        amount: None,
        state: PurchaseState::Open,
        status: "open".to_owned(),
        url: None,
        session: Some(format!("cs_test_{n}")),
        payment: None,
        subscription: None,
        customer: None,
        open_until: at.plus(Duration::from_secs(3600)),
        held_until: None,
        withdrawn_until: None,
        made_at: at,
        seen_at: at,
    }
}

fn claim(n: u64, listed: &Arc<PricedCapability>) -> EntitlementClaim {
    let invocation = Invocation::new(
        ClientPubkey::from_bytes(bytes(n % PURCHASES)),
        RequestEventId::from_bytes(bytes(1_000_000 + n)),
        "tools/call".to_owned(),
        Some("add".to_owned()),
        json!({"name": "add", "arguments": {"text": "a sentence of ordinary length"}}),
        InvocationIdentity::from_bytes(bytes(n)),
    );
    EntitlementClaim::new(invocation, Arc::clone(listed), SystemClock.now())
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

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = SqliteLedger::open(folder.path().join("books.db")).expect("a ledger");
    let books: Arc<dyn PurchaseBooks> = Arc::new(ledger);
    fill(&books).await;
    let key = StripeKey::parse("sk_test_nowhere").expect("a key");
    let config = StripeConfig::new(key, false)
        .and_then(|config| config.base_url("http://127.0.0.1:9"))
        .expect("a config");
    let client = StripeClient::new(&config).expect("a client");
    let capability: tollkeeper::payment::Capability = "tool:add".parse().expect("a capability");
    let amount = Amount::new(2, Unit::USD_CENTS).expect("an amount");
    let price = ("price_metered", PlanMode::Metered, amount);
    let plan = Plan::new("tool:add", vec![capability], price, "https://example.com")
        .expect("a plan")
        .meter(Meter {
            event: "api_usage".to_owned(),
            value: 1,
            value_from: None,
        });
    let listed = plan.priced().expect("a price").remove(0);
    let listed = Arc::new(listed);
    let desk = Arc::new(Desk::new(client, books, vec![plan]));
    let plans = StripePlans::new(desk).expect("plans");
    let (mut decided, mut counted) = (Vec::new(), Vec::new());
    for n in 0..CALLS {
        let claim = claim(n * 7, &listed);
        let begun = Instant::now();
        let entitled = plans.examine(&claim).await;
        decided.push(begun.elapsed());
        let Entitled::Covered(cover) = entitled else {
            panic!("not covered: {entitled:?}")
        };
        if n % 10 != 0 {
            continue;
        }
        let delivery = Delivery {
            event: claim.invocation.event,
            client: claim.invocation.client,
            memo: cover.memo.expect("a metered plan has one"),
            result: serde_json::value::to_raw_value(&json!({ "content": [] })).expect("JSON"),
            at: claim.at,
        };
        let begun = Instant::now();
        plans.delivered(&delivery).await;
        counted.push(begun.elapsed());
    }
    report("a call that a purchase covers", decided);
    report("its use, written down on the disk", counted);
}

async fn fill(books: &Arc<dyn PurchaseBooks>) {
    let at = SystemClock.now();
    let limits = OpenLimits::new(usize::MAX, usize::MAX);
    let mut filling = tokio::task::JoinSet::new();
    for n in 0..PURCHASES {
        if filling.len() >= 512 {
            filling.join_next().await;
        }
        let books = Arc::clone(books);
        filling.spawn(async move {
            let purchase = purchase(n, at);
            let id = purchase.id;
            books.begin_purchase(purchase, limits).await.expect("begun");
            let mut paid = PurchaseWord::new(PurchaseState::Held, "active", at);
            paid.subscription = Some(format!("sub_{n}"));
            paid.customer = Some(format!("cus_{n}"));
            paid.held_until = Some(at.plus(Duration::from_secs(30 * 86_400)));
            books.learn_purchase(&id, paid).await.expect("learned");
        });
    }
    while filling.join_next().await.is_some() {}
}
