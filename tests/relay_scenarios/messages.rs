//! What is on the wire for one paid call, and what is no call at all.

use nostr_sdk::prelude::Timestamp;
use serde_json::{Value, json};
use tollkeeper::testing::ScriptedProcessor;

use super::raw::{Heard, Raw, Via};
use super::world::{PMI, World};

fn assert_addressed(heard: &Heard, client: &Raw<'_>, about: &nostr_sdk::Event) {
    assert_eq!(heard.json["jsonrpc"], "2.0");
    let expected = |name: &str, value: String| vec![vec![name.to_owned(), value]];
    assert_eq!(
        heard.tags("p"),
        expected("p", client.keys.public_key().to_hex())
    );
    assert_eq!(heard.tags("e"), expected("e", about.id.to_hex()));
    assert_eq!(heard.carrier, client.via.kind());
}

fn holds_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(values) => values.iter().any(holds_null),
        Value::Object(fields) => fields.values().any(holds_null),
        _ => false,
    }
}

/// C-01
#[tokio::test]
async fn a_paid_call_is_one_demand_one_acceptance_and_one_result() {
    for via in Via::ALL {
        let world = World::start().await;
        let a = world.client(via).await;
        let call = a.call(json!("seven"), "add", json!({"a": 1}));
        a.send(&call).await;
        let required = a.required(&call).await;
        let params = required.offer();
        assert_eq!(params["amount"], 7);
        assert_eq!(params["pmi"], PMI);
        let ttl = params["ttl"].as_u64().unwrap();
        assert!((540..=600).contains(&ttl), "{ttl}");
        assert!(required.json.get("id").is_none());
        assert!(!holds_null(&required.json), "{}", required.json);
        world.quiet().await;
        assert_eq!(world.tools.executions("add"), 0, "nobody passes unpaid");

        a.pay(&required).await;
        let result = a.result(&call).await;
        assert_eq!(result.json["id"], "seven");
        world.quiet().await;
        assert_eq!(
            a.words(&call),
            ["payment_required", "payment_accepted", "result"]
        );
        for heard in a.about(&call) {
            assert_addressed(&heard, &a, &call);
            assert!(!holds_null(&heard.json), "{}", heard.json);
        }
        assert_eq!(a.heard().len(), 3, "and nothing else");
        assert_eq!((world.rail.minted(), world.tools.executions("add")), (1, 1));
    }
}

/// C-02
#[tokio::test]
async fn the_id_of_a_request_comes_back_as_it_was_in_every_answer() {
    let world = World::start().await;
    world.rail.settle_at_once();
    let a = world.client(Via::Plain).await;
    let b = world.client(Via::Ephemeral).await.explicit();
    let ids = [
        json!(0),
        json!(""),
        json!("1"),
        json!(1),
        json!(-1),
        json!(9_007_199_254_740_991_u64),
    ];
    for id in &ids {
        let call = a.call(id.clone(), "add", json!({"id": id}));
        a.send(&call).await;
        assert_eq!(a.result(&call).await.json["id"], *id);
        let gated = b.call(id.clone(), "add", json!({"id": id}));
        b.send(&gated).await;
        assert_eq!(b.error(&gated, -32042).await.json["id"], *id);
    }
    // Equal once they are read, but not the same id: each is a call of its own.
    assert_eq!(world.tools.executions("add"), ids.len());
}

/// C-03
#[tokio::test]
async fn the_first_message_of_a_session_introduces_the_server_and_no_other_does() {
    for via in Via::ALL {
        let world = World::start().await;
        let a = world.client(via).await;
        let call = a.call(json!(1), "add", json!({}));
        a.buy(&call).await;
        let heard = a.about(&call);
        let introduction = [
            "p",
            "e",
            "name",
            "support_encryption",
            "support_encryption_ephemeral",
            "pmi",
            "payment_interaction",
            "support_oversized_transfer",
        ];
        assert_eq!(heard[0].tag_names(), introduction);
        assert_eq!(heard[0].tags("pmi"), [["pmi", PMI]]);
        for later in &heard[1..] {
            assert_eq!(later.tag_names(), ["p", "e"], "{}", later.json);
        }
    }
}

async fn world_with_two_methods() -> World {
    let (second, _) = ScriptedProcessor::new("second".parse().unwrap());
    let (third, _) = ScriptedProcessor::new("third".parse().unwrap());
    World::builder()
        .payments(|payments| payments.processor(second).processor(third))
        .start()
        .await
}

/// C-08: the order of the client counts, not that of the server.
#[tokio::test]
async fn the_first_method_of_the_client_that_the_server_knows_is_used() {
    let world = world_with_two_methods().await;
    let lists: [(&[&[&str]], &str); 4] = [
        (&[&["pmi", "x"], &["pmi", PMI]], PMI),
        (&[&["pmi", "x"], &["pmi", PMI], &["pmi", "second"]], PMI),
        (&[&["pmi", "second"], &["pmi", "third"]], "second"),
        (
            &[
                &["pmi", "NOT A METHOD"],
                &["pmi"],
                &["pmi", "third", "extra"],
            ],
            "third",
        ),
    ];
    for (listed, expected) in lists {
        let a = world.client(Via::Plain).await.tagged(listed);
        let call = a.call(json!(1), "add", json!({}));
        a.send(&call).await;
        assert_eq!(a.required(&call).await.offer()["pmi"], expected);
    }
}

/// C-08
#[tokio::test]
async fn without_a_common_method_nothing_is_minted_and_the_request_ends() {
    for via in [Via::Plain, Via::Ephemeral] {
        let world = world_with_two_methods().await;
        let a = world.client(via).await.tagged(&[&["pmi", "x"]]);
        let b = world
            .client(via)
            .await
            .tagged(&[&["pmi", "x"], &["payment_interaction", "explicit_gating"]]);
        for client in [&a, &b] {
            let call = client.call(json!(1), "add", json!({}));
            let started = std::time::Instant::now();
            client.send(&call).await;
            client.error(&call, -32000).await;
            assert!(started.elapsed().as_secs() < 2);
            let rejected: Vec<Heard> = client
                .about(&call)
                .into_iter()
                .filter(|heard| heard.is("payment_rejected"))
                .collect();
            for heard in rejected {
                assert_eq!(heard.json["params"]["pmi"], PMI);
            }
        }
        world.quiet().await;
        assert_eq!((world.rail.minted(), world.tools.executions("add")), (0, 0));
        assert!(world.entries().await.is_empty());
    }
}

/// C-09
#[tokio::test]
async fn the_methods_of_initialize_hold_for_calls_that_list_none() {
    let world = world_with_two_methods().await;
    let mut a = world
        .client(Via::Plain)
        .await
        .tagged(&[&["pmi", "x"], &["pmi", "second"]]);
    let initialize = a.request(
        json!(1),
        "initialize",
        json!({"protocolVersion": "2025-06-18"}),
    );
    a.send(&initialize).await;
    a.result(&initialize).await;
    a.tags.clear();
    let call = a.call(json!(2), "add", json!({}));
    a.send(&call).await;
    assert_eq!(a.required(&call).await.offer()["pmi"], "second");

    // Nobody ever said anything: the server's first.
    let b = world.client(Via::Plain).await.tagged(&[]);
    let call = b.call(json!(1), "add", json!({}));
    b.send(&call).await;
    assert_eq!(b.required(&call).await.offer()["pmi"], PMI);
    world.quiet().await;
    assert_eq!(b.words(&call), ["payment_required"]);
}

/// C-10
#[tokio::test]
async fn lists_carry_the_prices_of_what_they_list() {
    let prices = [
        "tool:add=7 sat",
        "tool:slow=1-5 sat",
        "tool:hidden=9 sat",
        "prompt:poem=3 sat",
        "resource:private://*=5 sat",
    ];
    let world = World::builder().prices(&prices).start().await;
    let expected: [(&str, &[[&str; 4]]); 4] = [
        (
            "tools/list",
            &[
                ["cap", "tool:add", "7", "sats"],
                ["cap", "tool:slow", "1-5", "sats"],
            ],
        ),
        ("prompts/list", &[["cap", "prompt:poem", "3", "sats"]]),
        (
            "resources/list",
            &[["cap", "resource:private://x", "5", "sats"]],
        ),
        // A template stands for many URIs, so the entry that prices them is shown as it is.
        (
            "resources/templates/list",
            &[["cap", "resource:private://*", "5", "sats"]],
        ),
    ];
    for via in [Via::Plain, Via::Persistent] {
        let a = world.client(via).await;
        for (method, caps) in expected {
            let list = a.request(json!(1), method, json!({}));
            a.send(&list).await;
            let result = a.result(&list).await;
            assert_eq!(result.tags("cap"), caps, "{method}");
        }
    }
}

/// C-10
#[tokio::test]
async fn a_result_that_looks_like_a_list_is_a_paid_result_like_any_other() {
    let world = World::start().await;
    let a = world.client(Via::Plain).await;
    let call = a.call(json!(1), "listy", json!({}));
    let result = a.buy(&call).await;
    assert_eq!(result.tag_names(), ["p", "e"], "no prices");
    assert_eq!(
        result.json["result"],
        json!({"tools": [{"name": "add"}], "content": []})
    );
    assert_eq!(world.tools.executions("listy"), 1);
}

/// C-16
#[tokio::test]
async fn a_request_that_is_a_day_off_is_not_charged_for() {
    const DAY: u64 = 24 * 3600;
    let world = World::start().await;
    world.rail.settle_at_once();
    let a = world.client(Via::Plain).await;
    let now = Timestamp::now().as_secs();
    for (n, at) in [now - DAY, now + DAY].into_iter().enumerate() {
        for via in Via::ALL {
            let content = a.call(json!(n), "add", json!({"via": via.kind()})).content;
            let event = a.sign_at(&content, at.into());
            a.send_by(&event, via).await;
            // Past the filter of the subscription, as a relay may that does not care.
            let carrier = via.carry(&event, &world.keys.public_key());
            world.relay.say(&format!(
                r#"["EVENT","tollkeeper",{}]"#,
                nostr_sdk::JsonUtil::as_json(&carrier)
            ));
        }
    }
    world.quiet().await;
    assert_eq!((world.rail.minted(), world.tools.executions("add")), (0, 0));
}

/// N-135: what is a few minutes off is served.
#[tokio::test]
async fn a_client_whose_clock_is_minutes_off_is_served() {
    let world = World::start().await;
    let a = world.client(Via::Plain).await;
    let now = Timestamp::now().as_secs();
    for (n, at) in [now - 540, now + 540].into_iter().enumerate() {
        let content = a.call(json!(n), "add", json!({"n": n})).content;
        a.buy(&a.sign_at(&content, at.into())).await;
    }
}

/// C-32
#[tokio::test]
async fn what_is_not_one_request_is_neither_charged_nor_executed() {
    let params = json!({"name": "add", "arguments": {}});
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let with = |field: &str, value: Value| {
        let mut other = call.clone();
        other[field] = value;
        other.to_string()
    };
    let frame = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {
        "progressToken": "t", "progress": 2,
        "cvm": {"type": "oversized-transfer", "frameType": "chunk", "data": call.to_string()},
    }});
    let deep = |open: &str, close: &str, levels| {
        let deep = format!("{}1{}", open.repeat(levels), close.repeat(levels));
        call.to_string()
            .replace("{}", &format!(r#"{{"x":{deep}}}"#))
    };
    let contents = [
        json!({"jsonrpc": "2.0", "method": "tools/call", "params": params}).to_string(),
        json!([call]).to_string(),
        json!([call, call]).to_string(),
        with("id", Value::Null),
        with("id", json!([1])),
        with("id", json!({"a": 1})),
        with("id", json!(1.5)),
        with("id", json!(true)),
        with("jsonrpc", json!("1.0")),
        with("extra", json!(1)),
        with("result", json!({})),
        with("params", json!("add")),
        with("params", Value::Null),
        with("params", json!(["add"])),
        with("params", json!({"name": ["add"]})),
        with("params", json!({"name": null, "arguments": {}})),
        frame.to_string(),
        deep("[", "]", 10_000),
        deep(r#"{"a":"#, "}", 5_000),
        // Two ways of reading it: the gate must not price one and the handler execute the other.
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call","params":{"name":"add"}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"free","name":"add"}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","name":"free"}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"free","n\u0061me":"add"}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{"s":"\ud800"}}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{"n":9007199254740993}}}"#
            .to_owned(),
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add"}} {}"#.to_owned(),
        String::new(),
        "null".to_owned(),
    ];
    let world = World::start().await;
    world.rail.settle_at_once();
    for via in [Via::Plain, Via::Ephemeral] {
        let a = world.client(via).await;
        let events: Vec<_> = contents.iter().map(|content| a.sign(content)).collect();
        for event in &events {
            a.send(event).await;
        }
        world.quiet().await;
        for event in &events {
            let words = a.words(event);
            let refused =
                words.is_empty() || matches!(words[0].as_str(), "-32602" | "-32600" | "-32700");
            let fine = refused || words == ["result"] && !event.content.contains("add");
            assert!(
                fine,
                "{words:?} to {}",
                &event.content[..event.content.len().min(200)]
            );
        }
    }
    assert_eq!((world.rail.minted(), world.tools.executions("add")), (0, 0));
    assert!(world.entries().await.is_empty());
}

/// N-107, N-108: money that is not taken is not looked at; the call is asked for as any other.
#[tokio::test]
async fn a_direct_payment_is_neither_taken_nor_repeated() {
    for via in Via::ALL {
        let world = World::start().await;
        let payload = "cashuA-this-is-money";
        let a = world
            .client(via)
            .await
            .tagged(&[&["pmi", PMI], &["direct_payment", "cashu-direct", payload]]);
        let call = a.call(json!(1), "add", json!({}));
        a.buy(&call).await;
        assert_eq!(
            a.words(&call),
            ["payment_required", "payment_accepted", "result"]
        );
        for heard in a.heard() {
            assert!(!heard.event.content.contains(payload));
        }
        let kept = format!("{:?}", world.entries().await);
        assert!(!kept.contains(payload));
    }
}

/// N-36: the handler sees who calls, whatever the caller says, and the identity of the call is the same.
#[tokio::test]
async fn the_key_of_the_caller_reaches_the_handler_and_cannot_be_forged() {
    let world = World::builder()
        .payments(|payments| payments.inject_client_pubkey(true))
        .start()
        .await;
    let a = world.client(Via::Ephemeral).await.explicit();
    let call = |id: i64, meta: Value| {
        let params = json!({"name": "add", "arguments": {}, "_meta": meta});
        a.request(json!(id), "tools/call", params)
    };
    a.buy_grant(&call(1, json!({}))).await;
    let forged = call(2, json!({"clientPubkey": "ab", "other": 1}));
    a.send(&forged).await;
    a.result(&forged).await;
    let executed = &world.tools.executions_of("add")[0];
    let params: Value = serde_json::from_str(&executed.params).unwrap();
    let own = a.keys.public_key().to_hex();
    assert_eq!(params["_meta"], json!({"clientPubkey": own, "other": 1}));
}

/// N-57
#[tokio::test]
async fn a_client_that_lists_no_method_is_asked_once_by_the_first_of_the_server() {
    let world = world_with_two_methods().await;
    let a = world.client(Via::Plain).await.tagged(&[]);
    let call = a.call(json!(1), "add", json!({}));
    let result = a.buy(&call).await;
    assert!(result.json.get("result").is_some());
    let demands: Vec<Heard> = a.about(&call);
    let demands: Vec<&Heard> = demands
        .iter()
        .filter(|h| h.is("payment_required"))
        .collect();
    assert_eq!(demands.len(), 1);
    assert_eq!(demands[0].offer()["pmi"], PMI);
}
