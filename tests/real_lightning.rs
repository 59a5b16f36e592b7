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
#[allow(dead_code, reason = "shared with the tests of the LNbits rail")]
#[path = "support/lnbits.rs"]
mod lnbits;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tollkeeper::payment::{
    PayOutcome, PaymentHandler, PaymentOrder, PaymentProcessor, SettlementStatus,
};
use tollkeeper::rails::lightning::nwc::{
    LightningNwcHandler, LightningNwcProcessor, NwcConnection, NwcSettings,
};

use binary::{Running, Scratch};
use counterparts::Counterparts;
use lnbits::{Lnbits, Wallet};

/// Two wallets of one LNbits, each reached by NIP-47.
struct Wallets {
    lnbits: &'static Lnbits,
    keys: [Wallet; 2],
    seller: String,
    buyer: String,
    _service: Running,
}

impl Wallets {
    /// The buyer's has so many sats. `None`, said aloud, where LNbits cannot be installed.
    fn open(real: &Counterparts, scratch: &Scratch, relay: &str, sats: u64) -> Option<Self> {
        let lnbits = Lnbits::get()?;
        let keys = [lnbits.wallet("seller", 0), lnbits.wallet("buyer", sats)];
        let mut command = real.script(scratch, "node", "nwc_lnbits.mjs", "wallets");
        command.args([relay, &lnbits.url]);
        for (name, keys) in ["SELLER", "BUYER"].into_iter().zip(&keys) {
            let keys = json!({ "adminkey": keys.admin_key, "inkey": keys.invoice_key });
            command.env(name, keys.to_string());
        }
        let service = Running::start(command);
        let ready = service.next().expect("the wallets must become ready");
        let uri = |name: &str| ready[name].as_str().unwrap().to_owned();
        Some(Self {
            lnbits,
            keys,
            seller: uri("seller"),
            buyer: uri("buyer"),
            _service: service,
        })
    }

    /// What LNbits itself says that the seller and the buyer have, in sats.
    fn balances(&self) -> [u64; 2] {
        let of = |keys| self.lnbits.balance(keys) / 1000;
        [of(&self.keys[0]), of(&self.keys[1])]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ends_of_the_rail_work_with_a_wallet_that_others_wrote() {
    let Some(real) = Counterparts::get() else {
        return;
    };
    let scratch = Scratch::new();
    // The relay from npm delivers what nobody asked for; this one is strict.
    let relay = binary::Relay::start(&scratch);
    let Some(wallets) = Wallets::open(real, &scratch, &relay.url, 1_000) else {
        return;
    };
    let connection = |uri: &str| uri.parse::<NwcConnection>().unwrap();
    let seller = LightningNwcProcessor::connect(connection(&wallets.seller), NwcSettings::new());
    let seller = seller.await.unwrap();
    let buyer = LightningNwcHandler::new(connection(&wallets.buyer), NwcSettings::new()).unwrap();
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
    assert_eq!(wallets.balances(), [21, 979]);
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

/// The whole path between programs that others wrote: an MCP server from npm is sold for sats in an LNbits wallet, and bought
/// with those of another, over a relay from npm.
#[test]
fn a_call_moves_sats_from_the_buyers_lnbits_wallet_to_the_sellers() {
    let Some(real) = Counterparts::get() else {
        return;
    };
    let scratch = Scratch::new();
    let relay = real.relay(&scratch);
    let Some(wallets) = Wallets::open(real, &scratch, &relay.url, 100) else {
        return;
    };
    assert_eq!(wallets.balances(), [0, 100]);
    let mut serve = scratch.tollkeeper("shop");
    serve
        .env("NWC_CONNECTION", &wallets.seller)
        .args(["serve", "--json", "--relay", &relay.url])
        .args(["--price", "tool:get-sum=21 sat", "--"])
        .args(real.everything());
    let shop = Running::start(serve);
    let ready = shop.next().expect("serve must become ready");
    let call = |a: &str, budget: &str| {
        let mut call = scratch.tollkeeper("buyer");
        call.env("NWC_CONNECTION", &wallets.buyer)
            .args([
                "call",
                ready["npub"].as_str().unwrap(),
                "tool:get-sum",
                a,
                "b=3",
            ])
            .args(["--json", "--timeout", "40", "--relay", &relay.url])
            .args(["--budget", budget]);
        let output = call.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        (output.status.code(), last)
    };

    let began = Instant::now();
    let (code, bought) = call("a=2", "21 sats");
    let took = began.elapsed();
    assert_eq!(code, Some(0), "{bought}");
    let text = &bought["result"]["content"][0]["text"];
    assert_eq!(text, "The sum of 2 and 3 is 5.");
    assert_eq!(bought["paid"], json!({ "amount": 21, "unit": "sats" }));
    assert_eq!(wallets.balances(), [21, 79]);
    // This wallet says nothing by itself.
    assert!(took < Duration::from_secs(15), "{took:?}");

    let (code, refused) = call("a=4", "20 sats");
    assert_eq!((code, &refused["event"]), (Some(1), &json!("error")));
    assert_eq!(wallets.balances(), [21, 79]);

    let (code, again) = call("a=5", "100 sats");
    assert_eq!(code, Some(0), "{again}");
    assert_eq!(wallets.balances(), [42, 58]);

    // More than the wallet holds: the wallet refuses, and nothing moves.
    for a in ["a=6", "a=7"] {
        assert_eq!(call(a, "100 sats").0, Some(0));
    }
    assert_eq!(wallets.balances(), [84, 16]);
    let (code, broke) = call("a=8", "100 sats");
    assert_eq!(code, Some(1), "{broke}");
    assert_eq!(wallets.balances(), [84, 16]);
}
