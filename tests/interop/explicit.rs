//! Explicit gating with a client that has the habits of the SDK 0.13: `node/explicit.mjs`.

use serde_json::{Value, json};

use crate::binary::{Relay, Running, Scratch, Server};
use crate::sdk::Sdk;

struct Client(Running);

impl Client {
    fn start(sdk: &Sdk, shop: &Server, relay: &Relay, config: Value) -> Self {
        let mut config = config;
        config["server"] = shop.ready["pubkey"].clone();
        config["relay"] = relay.url.clone().into();
        for (key, value) in [
            ("pmis", json!(["fake"])),
            ("interaction", json!("explicit_gating")),
        ] {
            if config.get(key).is_none() {
                config[key] = value;
            }
        }
        let running = sdk.script("explicit.mjs", &config);
        assert_eq!(running.next().unwrap()["event"], "ready");
        Self(running)
    }

    fn start_call(&mut self, id: i64, name: &str, arguments: Value) {
        let params = json!({ "name": name, "arguments": arguments });
        self.0
            .say(&json!({ "id": id, "method": "tools/call", "params": params }));
    }

    fn done(&self, id: i64) -> (Value, Vec<Value>) {
        self.0
            .until(|line| line["event"] == "done" && line["id"] == id)
    }

    fn call(&mut self, id: i64, name: &str, arguments: Value) -> (Value, Vec<Value>) {
        self.start_call(id, name, arguments);
        self.done(id)
    }
}

fn reports<'a>(before: &'a [Value], event: &str) -> Vec<&'a Value> {
    before
        .iter()
        .filter(|line| line["event"] == event)
        .collect()
}

fn assert_sum(done: &Value) {
    assert_eq!(done["result"]["content"][0]["text"], "5", "{done}");
}

const PRICES: [&str; 2] = ["--price", "tool:add=7 sat"];
const SUM: &str = "add";

fn sum() -> Value {
    json!({ "a": 2, "b": 3 })
}

/// N-79 to N-81, N-89, N-97, T-27: pays once, retries with the identical event, and is served.
fn pays_and_retries(encryption: &str, same_second: bool) {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let shop = Server::start(&scratch, &relay, &PRICES);
    let config = json!({ "encryption": encryption, "callback": "pay", "pays": 400, "sameSecond": same_second });
    let mut client = Client::start(sdk, &shop, &relay, config);
    let (done, before) = client.call(1, SUM, sum());
    assert_sum(&done);
    let paid = reports(&before, "paid");
    assert_eq!(paid.len(), 1, "{before:?}");
    assert_eq!(
        (&paid[0]["amount"], &paid[0]["pmi"]),
        (&json!(7), &json!("fake"))
    );
    let sent = reports(&before, "sent");
    assert!(sent.len() >= 2);
    if same_second {
        assert!(
            sent.iter()
                .all(|line| line["event_id"] == sent[0]["event_id"])
        );
    }
    assert_eq!(done["effective"], "explicit_gating");
    assert_eq!(scratch.executions(), 1);
    // The introduction, with the disclosure, is on the first message and only there (N-28, N-41).
    let tags = reports(&before, "tags");
    let disclosed = |line: &Value| {
        let names = line["tags"].as_array().unwrap();
        names
            .iter()
            .filter(|name| *name == "payment_interaction")
            .count()
    };
    assert_eq!(disclosed(tags[0]), 1, "{before:?}");
    assert!(tags.iter().all(|line| disclosed(line) <= 1), "{before:?}");

    // Another call is another payment, although nothing is said of the mode any more (N-47).
    let (done, before) = client.call(2, SUM, sum());
    assert_sum(&done);
    assert_eq!(reports(&before, "paid").len(), 1, "{before:?}");
    assert_eq!(scratch.executions(), 2);
}

#[test]
fn the_identical_event_within_the_same_second_is_served() {
    pays_and_retries("optional", true);
    pays_and_retries("disabled", true);
}

#[test]
fn a_retry_under_a_new_event_is_served() {
    pays_and_retries("optional", false);
    pays_and_retries("disabled", false);
}

/// N-83 to N-85, N-99: retries while the money travels, and pays nothing more.
#[test]
fn a_payment_that_is_under_way_is_waited_for_and_paid_once() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let shop = Server::start(&scratch, &relay, &PRICES);
    for (id, encryption) in [(1, "optional"), (2, "disabled")] {
        // It says that it paid at once; the money takes 100 ms.
        let config = json!({ "encryption": encryption, "callback": "pay", "sameSecond": true });
        let mut client = Client::start(sdk, &shop, &relay, config);
        let (done, before) = client.call(id, SUM, sum());
        assert_sum(&done);
        assert_eq!(reports(&before, "paid").len(), 1, "{before:?}");
        for pending in reports(&before, "pending") {
            assert!(pending["retry_after"].as_f64().unwrap() >= 1.0);
            assert_eq!(pending["message"], "Payment Pending");
            assert_eq!(pending["options"], 1);
        }
    }
}

/// N-101: without a callback the error is the caller's, and so is the next step.
#[test]
fn without_a_callback_the_demand_is_surfaced_as_it_is() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let shop = Server::start(&scratch, &relay, &PRICES);
    let mut client = Client::start(sdk, &shop, &relay, json!({}));
    let (done, _) = client.call(1, SUM, sum());
    let error = &done["error"];
    assert_eq!(error["code"], -32042, "{done}");
    assert_eq!(error["message"], "Payment Required");
    let option = &error["data"]["payment_options"][0];
    assert_eq!(
        (&option["amount"], &option["pmi"]),
        (&json!(7), &json!("fake"))
    );
    assert!(option["pay_req"].as_str().unwrap().starts_with("fake:"));
    assert!(error["data"]["instructions"].is_string());
    assert_eq!(done["body_id"], 1, "the id is the client's own (N-9)");
    assert_eq!(scratch.executions(), 0);
    // The money comes, as it would from a wallet beside it; the same call again is served.
    client.0.until(|line| line["event"] == "accepted");
    let (done, _) = client.call(2, SUM, json!({ "b": 3, "a": 2 }));
    assert_sum(&done);
    assert_eq!(scratch.executions(), 1);
}

#[test]
fn a_callback_that_declines_or_fails_pays_nothing_and_gets_nothing() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let shop = Server::start(&scratch, &relay, &PRICES);
    for callback in ["decline", "fail"] {
        let mut client = Client::start(sdk, &shop, &relay, json!({ "callback": callback }));
        let (done, before) = client.call(1, SUM, sum());
        assert_eq!(done["error"]["code"], -32042, "{done}");
        assert!(reports(&before, "paid").is_empty());
    }
    assert_eq!(scratch.executions(), 0);
}

/// N-42 to N-45, N-50
#[test]
fn a_server_without_explicit_gating_says_so_and_then_serves_transparently() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let flags = ["--payment-interaction", "transparent"];
    let shop = Server::start(&scratch, &relay, &[&PRICES[..], &flags].concat());
    let mut client = Client::start(sdk, &shop, &relay, json!({ "callback": "pay" }));
    let (done, _) = client.call(1, SUM, sum());
    assert_eq!(done["error"]["code"], -32602, "{done}");
    let data = json!({ "requested": "explicit_gating", "supported": ["transparent"] });
    assert_eq!(done["error"]["data"], data);
    // The session is transparent now; this client does not pay that way.
    let (done, before) = client.call(2, SUM, sum());
    assert_eq!(done["error"]["code"], -32000, "{done}");
    assert!(reports(&before, "paid").is_empty());
}

/// N-90, C-27: of several identical calls at once, each payment serves one.
#[test]
fn identical_calls_side_by_side_cost_what_they_are_worth() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let shop = Server::start(&scratch, &relay, &PRICES);
    let config = json!({ "callback": "pay", "pays": 150 });
    let mut client = Client::start(sdk, &shop, &relay, config);
    for id in 1..=3 {
        client.start_call(id, SUM, sum());
    }
    // They may end in any order.
    let mut all = Vec::new();
    let mut open = 3;
    while open > 0 {
        let line = client.0.next().unwrap();
        if line["event"] == "done" {
            open -= 1;
            assert_sum(&line);
        }
        all.push(line);
    }
    let paid = reports(&all, "paid").len();
    assert_eq!(scratch.executions(), 3);
    assert!(paid >= 3, "three executions, {paid} payments");
}
