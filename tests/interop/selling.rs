//! `tollkeeper call` and `connect` buy what the SDK sells.

use serde_json::{Value, json};

use crate::binary::{Called, Relay, Running, Scratch};
use crate::sdk::{Sdk, Server, buyer};

fn config(relays: &[&Relay]) -> Value {
    let relays: Vec<&str> = relays.iter().map(|relay| relay.url.as_str()).collect();
    let price = |method: &str, name: &str, amount: u64| json!({ "method": method, "name": name, "amount": amount, "currencyUnit": "sats" });
    json!({
        "relays": relays,
        "prices": [
            price("tools/call", "add", 7),
            price("tools/call", "size", 5),
            price("tools/call", "big", 6),
            price("prompts/get", "greet", 2),
            price("resources/read", "a://one", 4),
        ],
    })
}

fn call(scratch: &Scratch, server: &Server, relays: &[&Relay], words: &[&str]) -> Called {
    let relays: Vec<&str> = relays.iter().map(|relay| relay.url.as_str()).collect();
    let output = buyer(scratch, &server.pubkey, &relays, "call")
        .arg("--json")
        .args(words)
        .output()
        .unwrap();
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    Called {
        code: output.status.code(),
        last: lines.last().cloned().unwrap_or_default(),
        lines,
    }
}

fn paid(called: &Called) -> u64 {
    called.last["paid"]["amount"].as_u64().unwrap()
}

/// Free, paid, rejected, waived and too dear, under one way of talking.
fn sells(changes: &Value, flags: &[&str]) {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let mut config = config(&[&relay]);
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    let server = sdk.server(config);
    let call = |words: &[&str]| call(&scratch, &server, &[&relay], &[words, flags].concat());

    let free = call(&["tool:echo", "text=hi"]);
    assert_eq!((free.text(), paid(&free)), ("hi", 0));
    let sum = call(&["tool:add", "a=2", "b=3", "--budget", "7 sats"]);
    assert_eq!((sum.text(), paid(&sum)), ("5", 7));
    server.report("settled");
    server.report("executed");

    let rejected = call(&["tool:add", "reject=closed", "--budget", "7 sats"]);
    assert_eq!(rejected.code, Some(1));
    assert!(
        rejected.last["message"]
            .as_str()
            .unwrap()
            .contains("closed"),
        "{rejected:?}"
    );
    let waived = call(&["tool:add", "a=1", "b=1", "waive=true"]);
    assert_eq!((waived.text(), paid(&waived)), ("2", 0));

    let dear = call(&["tool:add", "a=2", "b=3", "--budget", "6 sats"]);
    assert_eq!(dear.code, Some(1));
    assert_eq!(dear.last["data"]["spent"]["amount"], 0);

    // Not the prices that the fake rail of this crate would check: a quote of its own.
    let quoted = call(&["tool:add", "a=2", "b=3", "price=9", "--budget", "9 sats"]);
    assert_eq!((quoted.text(), paid(&quoted)), ("5", 9));
}

#[test]
fn it_sells_encrypted_as_it_does_by_default() {
    sells(&json!({}), &[]);
}

#[test]
fn it_sells_in_the_clear() {
    sells(&json!({}), &["--encryption", "disabled"]);
}

#[test]
fn it_sells_where_encryption_is_required() {
    sells(
        &json!({ "encryption": "required" }),
        &["--encryption", "required"],
    );
}

#[test]
fn it_sells_where_encryption_is_disabled() {
    sells(
        &json!({ "encryption": "disabled" }),
        &["--encryption", "disabled"],
    );
}

#[test]
fn it_sells_in_stored_wraps() {
    sells(&json!({ "giftWrap": "persistent" }), &[]);
}

#[test]
fn prompts_and_resources_are_bought() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let server = sdk.server(config(&[&relay]));
    for (words, price) in [
        (&["prompt:greet", "who=her"][..], 2),
        (&["resource:a://one"], 4),
        (&["resource:a://two"], 0),
    ] {
        let words = [words, &["--budget", "9 sats"]].concat();
        let called = call(&scratch, &server, &[&relay], &words);
        assert_eq!(called.code, Some(0), "{called:?}");
        assert_eq!(paid(&called), price, "{called:?}");
    }
}

#[test]
fn two_relays_at_once_are_paid_once() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relays = [Relay::start(&scratch), Relay::start(&scratch)];
    let relays = [&relays[0], &relays[1]];
    let server = sdk.server(config(&relays));
    let words = ["tool:add", "a=2", "b=3", "--budget", "100 sats"];
    let called = call(&scratch, &server, &relays, &words);
    assert_eq!((called.text(), paid(&called)), ("5", 7));
    let sent = called
        .lines
        .iter()
        .filter(|line| line["event"] == "payment_sent");
    assert_eq!(sent.count(), 1, "{called:?}");
}

#[test]
fn a_server_that_introduced_itself_before_is_bought_from_again() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let server = sdk.server(config(&[&relay]));
    // The same key each time: to the SDK's server it is the same session, which it does not introduce itself to again.
    for _ in 0..3 {
        let called = call(
            &scratch,
            &server,
            &[&relay],
            &["tool:add", "a=2", "b=3", "--budget", "7 sats"],
        );
        assert_eq!((called.text(), paid(&called)), ("5", 7));
    }
}

#[test]
fn explicit_gating_that_is_not_on_offer_is_never_paid_for_silently() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let server = sdk.server(config(&[&relay]));
    let words = [
        "tool:add",
        "a=2",
        "b=3",
        "--budget",
        "7 sats",
        "--payment-interaction",
        "explicit_gating",
    ];
    let called = call(&scratch, &server, &[&relay], &words);
    assert_eq!(called.code, Some(1), "{called:?}");
    assert_eq!(called.last["data"]["spent"]["amount"], 0, "{called:?}");
}

#[test]
fn a_host_buys_through_connect() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let server = sdk.server(config(&[&relay]));
    let mut command = buyer(&scratch, &server.pubkey, &[&relay.url], "connect");
    command.args(["--budget", "14 sats"]);
    let mut host = Running::start(command);
    let who = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "0" } });
    let introduced = host.ask(0, "initialize", &who);
    assert_eq!(
        introduced["result"]["serverInfo"]["name"], "contextvm-server",
        "{introduced}"
    );
    host.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
    let listed = host.ask(1, "tools/list", &json!({}));
    assert!(
        listed["result"]["tools"].as_array().unwrap().len() >= 5,
        "{listed}"
    );
    let sum = json!({ "name": "add", "arguments": { "a": 2, "b": 3 } });
    for id in [2, 3] {
        let called = host.ask(id, "tools/call", &sum);
        assert_eq!(called["result"]["content"][0]["text"], "5", "{called}");
    }
    let refused = host.ask(4, "tools/call", &sum);
    assert!(refused["error"]["code"].is_i64(), "{refused}");

    let token = json!({ "name": "steps", "arguments": { "steps": 3 }, "_meta": { "progressToken": "a token" } });
    host.say(&json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": token }));
    let (answer, before) = host.until(|line| line["id"] == 5);
    assert_eq!(answer["result"]["content"][0]["text"], "3", "{answer}");
    let steps: Vec<_> = before
        .iter()
        .filter(|line| line["params"]["progressToken"] == "a token")
        .map(|line| line["params"]["progress"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, [1, 2, 3], "{before:?}");
}

#[test]
fn inspect_shows_what_it_sells() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let server = sdk.server(config(&[&relay]));
    let output = buyer(&scratch, &server.pubkey, &[&relay.url], "inspect")
        .arg("--json")
        .output()
        .unwrap();
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["pmis"], json!(["fake"]), "{lines:?}");
    let price = |capability: &str| {
        let offer = lines.iter().find(|line| line["capability"] == capability);
        offer.unwrap_or_else(|| panic!("{lines:?}"))["price"]["min"].clone()
    };
    assert_eq!(price("tool:add"), 7);
    assert_eq!(price("tool:echo"), Value::Null);
    assert_eq!(price("prompt:greet"), 2);
    assert_eq!(price("resource:a://one"), 4);
}

/// CEP-41: what the server streams passes through `connect` as it is, and a host without a token gets none of it.
#[test]
fn open_streams_pass_through_unharmed() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    for encryption in ["optional", "disabled"] {
        let server = sdk.server(json!({ "relays": [relay.url], "openStream": true }));
        let mut command = buyer(&scratch, &server.pubkey, &[&relay.url], "connect");
        command.args(["--encryption", encryption]);
        let mut host = Running::start(command);
        let who = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "0" } });
        host.ask(0, "initialize", &who);
        host.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        let call = json!({ "name": "stream", "_meta": { "progressToken": 7 } });
        host.say(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call }));
        let (answer, before) = host.until(|line| line["id"] == 1);
        assert_eq!(
            answer["result"]["content"][0]["text"], "streamed",
            "{answer}"
        );
        let frames: Vec<&str> = before
            .iter()
            .filter(|line| line["params"]["cvm"]["type"] == "open-stream")
            .map(|line| line["params"]["cvm"]["frameType"].as_str().unwrap())
            .collect();
        assert_eq!(
            frames,
            ["start", "chunk", "chunk", "chunk", "close"],
            "{before:?}"
        );

        // Without a token there is nothing to stream to: the tool says so, and no progress comes.
        host.say(&json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": { "name": "stream" } }));
        let (answer, before) = host.until(|line| line["id"] == 2);
        assert_eq!(
            answer["result"]["content"][0]["text"], "no stream",
            "{answer}"
        );
        assert!(before.is_empty(), "{before:?}");
    }
}
