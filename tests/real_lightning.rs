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

use serde_json::json;

use binary::{Running, Scratch};
use counterparts::Counterparts;

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
