//! Lightning between programs that others wrote: our wallet for development is judged by the client of npm's `@getalby/sdk`;
//! the real binary sells and buys with wallets that are LNbits behind the wallet service of `@getalby/sdk`, over a relay from
//! npm, and sats really move.
//!
//! `tests/real/setup` and `tests/real/setup_lnbits.sh` install them, once; these tests run them when need be. Where that
//! cannot be done they are skipped and say so, but not in CI.

#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, reason = "shared with the tests of the binary")]
#[path = "support/binary.rs"]
mod binary;
#[allow(dead_code, reason = "shared with the tests of real MCP servers")]
#[path = "support/counterparts.rs"]
mod counterparts;

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tollkeeper::payment::{
    PayOutcome, PaymentHandler, PaymentOrder, PaymentProcessor, SettlementStatus,
};
use tollkeeper::rails::lightning::nwc::{
    LightningNwcHandler, LightningNwcProcessor, NwcConnection, NwcSettings,
};

use binary::{PATIENCE, Running, Scratch};
use counterparts::{Counterparts, Relay, set_up, skipped};

/// Two wallets of one LNbits, each reached by NIP-47.
struct Lnbits {
    wallets: Running,
    seller: String,
    buyer: String,
    _server: Running,
}

impl Lnbits {
    /// `None`, said aloud, where LNbits cannot be installed.
    fn start(real: &Counterparts, scratch: &Scratch, relay: &Relay, sats: u64) -> Option<Self> {
        static INSTALLED: OnceLock<Result<String, String>> = OnceLock::new();
        const SCRIPT: &str = "tests/real/setup_lnbits.sh";
        let folder = match INSTALLED.get_or_init(|| set_up(SCRIPT)) {
            Ok(folder) => folder,
            Err(reason) => return skipped(SCRIPT, reason),
        };
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut command = Command::new("bash");
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/lnbits.sh"))
            .args([folder, &address.port().to_string()])
            .arg(scratch.path("lnbits"));
        let server = Running::start(command);
        // It takes 15 to 25 seconds to load all that it is made of.
        let until = Instant::now() + 3 * PATIENCE;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < until, "LNbits must come up");
            std::thread::sleep(Duration::from_millis(100));
        }
        let mut command = real.script(scratch, "node", "nwc_lnbits.mjs", "wallets");
        command.args([&relay.url, &format!("http://{address}"), &sats.to_string()]);
        let wallets = Running::start(command);
        let ready = wallets.next().expect("the wallets must become ready");
        let uri = |name: &str| ready[name].as_str().unwrap().to_owned();
        Some(Self {
            seller: uri("seller"),
            buyer: uri("buyer"),
            wallets,
            _server: server,
        })
    }

    /// What LNbits itself says that the seller and the buyer have, in sats.
    fn balances(&mut self) -> (u64, u64) {
        self.wallets.say(&Value::Null);
        let (line, _) = self.wallets.until(|line| line["event"] == "balances");
        let of = |name: &str| line[name].as_u64().unwrap();
        (of("seller"), of("buyer"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_of_the_rail_work_with_a_wallet_that_others_wrote() {
    let Some(real) = Counterparts::get() else {
        return;
    };
    let scratch = Scratch::new();
    let relay = real.relay(&scratch);
    let Some(mut lnbits) = Lnbits::start(real, &scratch, &relay, 1_000) else {
        return;
    };
    let connection = |uri: &str| uri.parse::<NwcConnection>().unwrap();
    let seller = LightningNwcProcessor::connect(connection(&lnbits.seller), NwcSettings::new());
    let seller = seller.await.unwrap();
    let buyer = LightningNwcHandler::new(connection(&lnbits.buyer), NwcSettings::new()).unwrap();
    let order = PaymentOrder::new(
        "order".to_owned(),
        "21 sats".parse().unwrap(),
        "tool:x".to_owned(),
        Duration::from_secs(600),
    );
    let request = seller.create_payment_required(&order).await.unwrap();
    let status = seller.lookup_payment(&request).await.unwrap();
    assert_eq!(status, SettlementStatus::Pending);
    let paid = buyer
        .handle(&request, &CancellationToken::new())
        .await
        .unwrap();
    assert!(matches!(paid, PayOutcome::Paid(_)), "{paid:?}");
    let status = seller.lookup_payment(&request).await.unwrap();
    assert!(matches!(status, SettlementStatus::Settled(_)), "{status:?}");
    assert!(matches!(
        buyer.lookup_payment(&request).await,
        Ok(PayOutcome::Paid(_))
    ));
    assert_eq!(lnbits.balances(), (21, 979));
}

#[test]
fn the_npm_client_takes_the_wallet_for_development_for_a_wallet() {
    let Some(real) = Counterparts::get() else {
        return;
    };
    let scratch = Scratch::new();
    let relay = real.relay(&scratch);
    let mut command = scratch.tollkeeper("wallet");
    command.args([
        "wallet",
        "fake",
        "--json",
        "--balance",
        "1000 sats",
        "--relay",
        &relay.url,
    ]);
    let wallets = Running::start(command);
    let ready = wallets.next().expect("the wallets must become ready");
    assert_eq!(ready["network"], "regtest");
    let connection = |at: usize| ready["wallets"][at]["connection"].as_str().unwrap();

    let mut judge = real.script(&scratch, "node", "nwc_judge.mjs", "judge");
    judge
        .env("SELLER", connection(0))
        .env("BUYER", connection(1));
    let mut judge = Running::start(judge);
    let said = judge.next().expect("the client must report");
    assert!(judge.wait().success());

    assert_eq!(said["encryption"], "nip44_v2", "{said}");
    assert_eq!(
        said["service"]["encryptions"],
        json!(["nip44_v2", "nip04"]),
        "{said}"
    );
    assert_eq!(
        said["service"]["notifications"],
        json!(["payment_received", "payment_sent"])
    );
    assert_eq!(said["info"]["network"], "regtest");
    for method in [
        "pay_invoice",
        "make_invoice",
        "lookup_invoice",
        "list_transactions",
    ] {
        assert!(
            said["info"]["methods"]
                .as_array()
                .unwrap()
                .contains(&json!(method))
        );
        assert!(
            said["service"]["capabilities"]
                .as_array()
                .unwrap()
                .contains(&json!(method))
        );
    }
    assert_eq!(said["open"]["state"], "pending");
    assert_eq!(said["settled"]["state"], "settled");
    assert_eq!(said["settled"]["amount"], 21_000);
    assert_eq!(said["proven"], true, "the preimage belongs to the hash");
    assert_eq!(said["listed"].as_array().unwrap().len(), 1);
    assert_eq!(
        said["notified"]["notification_type"], "payment_received",
        "{said}"
    );
    assert_eq!(
        said["notified"]["notification"]["payment_hash"],
        said["made"]["payment_hash"]
    );
    assert_eq!(said["balances"], json!([1_021_000, 979_000]));
    let errors =
        json!({"twice": "PAYMENT_FAILED", "dear": "INSUFFICIENT_BALANCE", "unknown": "NOT_FOUND"});
    assert_eq!(said["errors"], errors);
}
