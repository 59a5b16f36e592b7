//! The SDK buys what `tollkeeper serve` sells.

use serde_json::{Value, json};

use crate::binary::{Relay, Scratch, Server};
use crate::sdk::{Client, Sdk, named};

const PRICES: [&str; 12] = [
    "--price",
    "tool:add=7 sat",
    "--price",
    "tool:ad*=3 sat",
    "--price",
    "prompt:greet=2 sat",
    "--price",
    "resource:mini://item/*=4 sat",
    "--price",
    "method:completion/complete=1 sat",
    "--price",
    "method:resources/subscribe=9 sat",
];

fn config(shop: &Server, relays: &[&Relay]) -> Value {
    let relays: Vec<&str> = relays.iter().map(|relay| relay.url.as_str()).collect();
    json!({ "server": shop.ready["pubkey"], "relays": relays, "pay": { "pmi": "fake" } })
}

fn paid(client: &mut Client, scratch: &Scratch) {
    let before = scratch.executions();
    let done = client.call("add", json!({ "a": 2, "b": 3 }));
    assert_eq!(done.text(), "5");
    let payments = done.reports("paid");
    assert_eq!(payments.len(), 1, "{done:?}");
    assert_eq!(payments[0]["amount"], 7);
    assert!(payments[0]["ttl"].as_u64().is_some_and(|ttl| ttl > 0));
    assert_eq!(
        done.notifications(),
        [
            "notifications/payment_required",
            "notifications/payment_accepted"
        ]
    );
    assert_eq!(scratch.executions(), before + 1);
}

/// Free, paid, and too dear, under one way of talking.
fn buys(flags: &[&str], changes: &Value) {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let shop = Server::start(&scratch, &relay, &[&PRICES[..], flags].concat());
    let mut config = config(&shop, &[&relay]);
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    let mut client = sdk.client(config.clone());
    client.connect();
    let free = client.call("echo", json!({ "text": "é\u{20ac}" }));
    assert_eq!(free.text(), "é\u{20ac}");
    assert!(free.before.is_empty(), "{free:?}");
    paid(&mut client, &scratch);
    paid(&mut client, &scratch);

    config["pay"]["limit"] = 6.into();
    let mut thrifty = sdk.client(config);
    thrifty.connect();
    let declined = thrifty.call("add", json!({ "a": 2, "b": 3 }));
    assert_eq!(declined.code(), -32000);
    assert!(declined.message().contains("declined"), "{declined:?}");
    assert!(declined.reports("paid").is_empty());
}

#[test]
fn it_buys_encrypted_as_it_does_by_default() {
    buys(&[], &json!({}));
}

#[test]
fn it_buys_in_the_clear() {
    buys(&[], &json!({ "encryption": "disabled" }));
}

#[test]
fn it_buys_where_encryption_is_required() {
    buys(
        &["--encryption", "required"],
        &json!({ "encryption": "required" }),
    );
}

#[test]
fn it_buys_where_encryption_is_disabled() {
    buys(
        &["--encryption", "disabled"],
        &json!({ "encryption": "disabled" }),
    );
}

#[test]
fn it_buys_in_stored_wraps() {
    buys(&[], &json!({ "giftWrap": "persistent" }));
}

#[test]
fn it_buys_in_ephemeral_wraps() {
    buys(&[], &json!({ "giftWrap": "ephemeral" }));
}

#[test]
fn it_buys_without_a_session() {
    buys(&[], &json!({ "stateless": true }));
    buys(&[], &json!({ "stateless": true, "encryption": "disabled" }));
}

#[test]
fn a_stateless_client_that_starts_again_under_its_key_is_served() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let shop = Server::start(&scratch, &relay, &PRICES);
    let mut config = config(&shop, &[&relay]);
    config["stateless"] = true.into();
    config["secret"] = "11".repeat(32).into();
    for _ in 0..2 {
        let mut client = sdk.client(config.clone());
        client.connect();
        paid(&mut client, &scratch);
    }
}

#[test]
fn a_client_that_does_not_encrypt_is_not_answered_where_encryption_is_required() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let shop = Server::start(
        &scratch,
        &relay,
        &[&PRICES[..], &["--encryption", "required"]].concat(),
    );
    let mut config = config(&shop, &[&relay]);
    config["encryption"] = "disabled".into();
    config["stateless"] = true.into();
    let mut client = sdk.client(config);
    client.connect();
    let call = json!({ "name": "echo", "arguments": { "text": "x" }, "timeout": 1500 });
    assert_eq!(client.act("call", call).code(), -32001);
}

#[test]
fn it_learns_who_serves_and_what_costs_how_much() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let flags = ["--name", "A shop", "--about", "sells sums"];
    let shop = Server::start(&scratch, &relay, &[&PRICES[..], &flags].concat());
    let mut client = sdk.client(config(&shop, &[&relay]));
    let connected = client.connect();
    assert_eq!(connected.last["result"]["server"]["name"], "mini-mcp");

    let tags = client.tags("initialize");
    assert_eq!(named(&tags, "name"), [["A shop".to_owned()]]);
    assert_eq!(named(&tags, "pmi"), [["fake".to_owned()]]);
    assert_eq!(
        named(&tags, "payment_interaction"),
        [["explicit_gating".to_owned()]]
    );
    for flag in ["support_encryption", "support_encryption_ephemeral"] {
        assert_eq!(named(&tags, flag), [[""; 0]], "{flag}: {tags:?}");
    }

    for (list, of, caps) in [
        (
            "tools/list",
            "tools",
            &[["tool:add", "7", "sats"]] as &[[&str; 3]],
        ),
        ("prompts/list", "prompts", &[["prompt:greet", "2", "sats"]]),
        ("resources/list", "resources", &[]),
        (
            "resources/templates/list",
            "templates",
            &[["resource:mini://item/*", "4", "sats"]],
        ),
    ] {
        let listed = client.request(list, json!({}));
        assert!(listed.last["result"].is_object(), "{listed:?}");
        let tags = client.tags(of);
        assert_eq!(named(&tags, "cap"), caps, "{list}: {tags:?}");
    }
}

#[test]
fn prompts_resources_and_completions_are_paid_for_like_tools() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let shop = Server::start(&scratch, &relay, &PRICES);
    let mut client = sdk.client(config(&shop, &[&relay]));
    client.connect();
    let reference = json!({ "type": "ref/prompt", "name": "greet" });
    for (method, params, price) in [
        (
            "prompts/get",
            json!({ "name": "greet", "arguments": { "who": "her" } }),
            Some(2),
        ),
        ("resources/read", json!({ "uri": "mini://item/1" }), Some(4)),
        ("resources/read", json!({ "uri": "mini://one" }), None),
        (
            "completion/complete",
            json!({ "ref": reference, "argument": { "name": "who", "value": "" } }),
            Some(1),
        ),
        (
            "resources/subscribe",
            json!({ "uri": "mini://one" }),
            Some(9),
        ),
    ] {
        let done = client.request(method, params);
        assert!(done.last["result"].is_object(), "{method}: {done:?}");
        let amounts: Vec<_> = done
            .reports("paid")
            .iter()
            .map(|paid| paid["amount"].as_u64())
            .collect();
        assert_eq!(amounts, price.map(Some).into_iter().collect::<Vec<_>>());
    }
}

#[test]
fn what_cannot_succeed_is_refused_before_a_price_is_named() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let shop = Server::start(&scratch, &relay, &PRICES);
    let mut client = sdk.client(config(&shop, &[&relay]));
    client.connect();
    for (name, arguments) in [("adx", json!({})), ("add", json!({ "a": 1 }))] {
        let refused = client.call(name, arguments);
        assert_eq!(refused.code(), -32602, "{refused:?}");
        assert!(refused.reports("paid").is_empty(), "{refused:?}");
    }
}

#[test]
fn a_client_that_pays_by_other_means_is_told_at_once() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let shop = Server::start(&scratch, &relay, &PRICES);
    let mut config = config(&shop, &[&relay]);
    config["pay"]["pmi"] = "other".into();
    let mut client = sdk.client(config);
    client.connect();
    let refused = client.call("add", json!({ "a": 1, "b": 2 }));
    assert_eq!(refused.code(), -32000);
    assert!(
        refused.message().contains("No compatible payment method"),
        "{refused:?}"
    );
    assert_eq!(scratch.executions(), 0);
}

#[test]
fn a_client_without_payments_is_asked_and_ends_with_an_error() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let flags = ["--payment-ttl", "1"];
    let shop = Server::start(&scratch, &relay, &[&PRICES[..], &flags].concat());
    let mut config = config(&shop, &[&relay]);
    config["pay"] = Value::Null;
    let mut client = sdk.client(config);
    client.connect();
    // The fake rail settles by itself, so that even who ignores the demand is served in the end.
    let done = client.call("add", json!({ "a": 1, "b": 2 }));
    assert_eq!(done.text(), "3");
    assert_eq!(
        done.notifications().first(),
        Some(&"notifications/payment_required")
    );
}

#[test]
fn progress_goes_to_the_one_who_asked() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let shop = Server::start(&scratch, &relay, &["--price", "tool:steps=1 sat"]);
    let mut clients = [3u64, 5].map(|steps| (sdk.client(config(&shop, &[&relay])), steps));
    for (client, _) in &mut clients {
        client.connect();
    }
    // Both number their requests and tokens alike.
    let ids = clients.each_mut().map(|(client, steps)| {
        let call = json!({ "name": "steps", "arguments": { "steps": *steps }, "progress": true });
        client.start("call", call)
    });
    for ((client, steps), id) in clients.iter().zip(ids) {
        let done = client.done(id);
        assert_eq!(done.text(), steps.to_string());
        let of_the_tool: Vec<_> = done
            .reports("progress")
            .iter()
            .filter(|line| line["progress"]["total"].is_u64())
            .map(|line| line["progress"]["progress"].as_u64().unwrap())
            .collect();
        assert!(of_the_tool.iter().all(|step| step <= steps), "{done:?}");
        assert_eq!(of_the_tool.len() as u64, *steps, "{done:?}");
    }
}

#[test]
fn a_changed_list_is_told_to_those_with_a_session() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let shop = Server::start(&scratch, &relay, &PRICES);
    let mut client = sdk.client(config(&shop, &[&relay]));
    client.connect();
    let mut other = sdk.client(config(&shop, &[&relay]));
    other.connect();
    client.call("changed", json!({ "list": "prompts" }));
    // The other one hears of it too: lists are for everybody.
    let told = other.wait_for("notification");
    assert_eq!(told["method"], "notifications/prompts/list_changed");
}

#[test]
fn two_relays_at_once_cost_nobody_twice() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relays = [Relay::start(&scratch), Relay::start(&scratch)];
    let flags = ["--relay", relays[1].url.as_str()];
    let shop = Server::start(&scratch, &relays[0], &[&PRICES[..], &flags].concat());
    for encryption in ["optional", "disabled"] {
        let mut config = config(&shop, &[&relays[0], &relays[1]]);
        config["encryption"] = encryption.into();
        let mut client = sdk.client(config);
        client.connect();
        for _ in 0..3 {
            paid(&mut client, &scratch);
        }
    }
    assert_eq!(scratch.executions(), 6);
}
