//! Messages that are too large for one event (CEP-22), both ways, free and paid.
//!
//! The SDK 0.11.14 measures what it sends encrypted by encrypting it, which NIP-44 refuses beyond 64 KiB: for the message
//! as a whole, and for the largest piece that is allowed. So what it sends encrypted is kept below that here, and its
//! pieces are made smaller than by default, which never works. What it receives may be of any size.

use serde_json::{Value, json};

use crate::binary::{Relay, Running, Scratch, Server};
use crate::sdk::{Done, Sdk, buyer, named};

const PRICES: [&str; 4] = ["--price", "tool:size=5 sat", "--price", "tool:big=6 sat"];

fn config(shop: &Server, relay: &Relay, encryption: &str) -> Value {
    json!({
        "server": shop.ready["pubkey"],
        "relays": [relay.url],
        "encryption": encryption,
        "pay": { "pmi": "fake" },
    })
}

fn amounts(done: &Done) -> Vec<u64> {
    done.reports("paid")
        .iter()
        .map(|paid| paid["amount"].as_u64().unwrap())
        .collect()
}

#[test]
fn the_sdk_learns_that_large_messages_are_taken() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let shop = Server::start(&scratch, &relay, &PRICES);
    let mut client = sdk.client(config(&shop, &relay, "optional"));
    client.connect();
    let tags = client.tags("initialize");
    assert_eq!(named(&tags, "support_oversized_transfer").len(), 1);
}

/// Large requests and large answers, paid for, of the SDK and to it.
fn buys_large(encryption: &str, stateless: bool, request: usize) {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let shop = Server::start(&scratch, &relay, &PRICES);
    let mut config = config(&shop, &relay, encryption);
    config["stateless"] = stateless.into();
    config["oversized"] = json!({ "chunkSizeBytes": 8000 });
    let mut client = sdk.client(config);
    client.connect();
    for n in 1..=2 {
        let text = "\u{e9}\"\\\n".repeat(request / 5);
        let size = text.len();
        let sized = client.call_with_progress("size", json!({ "text": text }));
        assert_eq!(sized.text(), size.to_string());
        assert_eq!(amounts(&sized), [5]);

        let big = client.call_with_progress("big", json!({ "bytes": 150_000 }));
        assert_eq!(big.text().len(), 150_000);
        assert_eq!(amounts(&big), [6]);
        assert_eq!(scratch.executions(), 2 * n);
    }
}

#[test]
fn the_sdk_buys_large_things_in_the_clear() {
    buys_large("disabled", false, 100_000);
}

#[test]
fn the_sdk_buys_large_things_encrypted() {
    buys_large("optional", false, 20_000);
}

#[test]
fn the_sdk_buys_large_things_without_a_session() {
    buys_large("disabled", true, 100_000);
    buys_large("optional", true, 20_000);
}

#[test]
fn a_result_that_the_client_cannot_take_is_paid_for_and_kept_for_one_that_it_can() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let shop = Server::start(&scratch, &relay, &PRICES);
    let mut client = sdk.client(config(&shop, &relay, "optional"));
    client.connect();
    let lost = client.call("big", json!({ "bytes": 150_000 }));
    assert_eq!(lost.code(), -32000);
    assert!(lost.message().contains("your payment stands"), "{lost:?}");
    assert_eq!(amounts(&lost), [6]);
    let got = client.call_with_progress("big", json!({ "bytes": 150_000 }));
    assert_eq!(got.text().len(), 150_000);
    assert_eq!(amounts(&got), [0; 0]);
}

/// Large things that the SDK sells, through `connect`.
fn sells_large(encryption: &str, initialized: bool, answer: usize) {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let price = |name: &str, amount: u64| json!({ "method": "tools/call", "name": name, "amount": amount, "currencyUnit": "sats" });
    let server = sdk.server(json!({
        "relays": [relay.url],
        "prices": [price("size", 5), price("big", 6)],
        "oversized": { "chunkSizeBytes": 8000 },
    }));
    let mut command = buyer(&scratch, &server.pubkey, &[&relay.url], "connect");
    command.args(["--budget", "22 sats", "--encryption", encryption]);
    let mut host = Running::start(command);
    if initialized {
        let who = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "0" } });
        host.ask("hello", "initialize", &who);
        host.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
    }
    for n in 1..=2 {
        // No progress token: the client sees to that, and keeps the progress to itself.
        // At first in more pieces than the SDK counts behind an accept.
        let some = if initialized || n > 1 { 10_000 } else { 28_000 };
        let text = "\u{e9}\"\\\n".repeat(some);
        let size = json!({ "name": "size", "arguments": { "text": text } });
        let sized = host.ask(10 * n, "tools/call", &size);
        assert_eq!(
            sized["result"]["content"][0]["text"],
            text.len().to_string(),
            "{sized}"
        );
        let big = json!({ "name": "big", "arguments": { "bytes": answer } });
        host.say(
            &json!({ "jsonrpc": "2.0", "id": 10 * n + 1, "method": "tools/call", "params": big }),
        );
        let (got, before) = host.until(|line| line["id"] == 10 * n + 1);
        let text = got["result"]["content"][0]["text"].as_str();
        assert_eq!(text.map(str::len), Some(answer), "{got}");
        assert!(before.is_empty(), "{before:?}");
    }
    let spent = host.ask(
        99,
        "tools/call",
        &json!({ "name": "big", "arguments": { "bytes": 1 } }),
    );
    assert!(
        spent["error"]["code"].is_i64(),
        "22 sats were spent: {spent}"
    );
}

#[test]
fn the_sdk_sells_large_things_in_the_clear() {
    sells_large("disabled", true, 100_000);
}

#[test]
fn the_sdk_sells_large_things_encrypted() {
    sells_large("optional", true, 45_000);
}

#[test]
fn the_sdk_is_asked_first_where_it_has_not_introduced_itself() {
    sells_large("optional", false, 45_000);
    sells_large("disabled", false, 100_000);
}
