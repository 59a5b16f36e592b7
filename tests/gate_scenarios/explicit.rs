//! C-27 to C-30, C-32: explicit gating.

use std::time::Duration;

use serde_json::{Value, json};
use tollkeeper::testing::Harness;
use tollkeeper::wire::{Message, Notification, Request};

use super::PRICES;
use super::books::{self, kind, kinds};

/// C-27, N-90.
#[tokio::test(start_paused = true)]
async fn fifty_calls_and_one_grant_are_one_execution() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1).explicit();
    client.call_tool(1, "add", json!({})).await.unwrap();
    books::now(&client).await;
    books::settle(&harness, 0).await;
    books::now(&client).await;
    for id in 2..52 {
        client.call_tool(id, "add", json!({})).await.unwrap();
    }
    let answers = books::now(&client).await;
    assert_eq!(answers.len(), 50);
    assert_eq!(answers.iter().filter(|m| kind(m) == "result").count(), 1);
    assert!(
        answers
            .iter()
            .all(|m| ["result", "-32042", "-32043"].contains(&kind(m).as_str()))
    );
    assert!(
        harness.rail.minted() <= 2,
        "one for the grant, at most one for the rest"
    );
    assert_eq!(harness.executions(), 1);
    books::balance(&harness).await;
}

/// C-27 without a grant: one invoice for all of them.
#[tokio::test(start_paused = true)]
async fn fifty_unpaid_calls_are_one_invoice() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1).explicit();
    for id in 0..50 {
        client.call_tool(id, "add", json!({})).await.unwrap();
    }
    let answers = books::now(&client).await;
    assert_eq!(answers.len(), 50);
    assert_eq!(harness.rail.minted(), 1);
    assert_eq!(answers.iter().filter(|m| kind(m) == "-32042").count(), 1);
}

async fn paid(arguments: Value) -> (Harness, tollkeeper::testing::RawClient) {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1).explicit();
    client.call_tool(1, "add", arguments).await.unwrap();
    books::now(&client).await;
    books::settle(&harness, 0).await;
    books::now(&client).await;
    (harness, client)
}

async fn is_served(client: &tollkeeper::testing::RawClient, params: &str) -> bool {
    let text =
        format!(r#"{{"jsonrpc":"2.0","id":"other","method":"tools/call","params":{params}}}"#);
    client.send(Message::parse(&text).unwrap()).await.unwrap();
    books::now(client).await.iter().any(|m| kind(m) == "result")
}

/// C-28.
#[tokio::test(start_paused = true)]
async fn the_same_call_in_other_words_is_served() {
    for params in [
        r#"{"name":"add","arguments":{"b":2,"a":1}}"#,
        r#"{"arguments":{"a":1.0,"b":2},"name":"add"}"#,
        r#"{"name":"add","arguments":{"a":1e0,"b":2},"_meta":{"progressToken":"x"}}"#,
        r#"{"name":"a\u0064d","arguments":{"a":1,"b":2}}"#,
    ] {
        let (harness, client) = paid(json!({"a": 1, "b": 2})).await;
        assert!(is_served(&client, params).await, "{params}");
        books::balance(&harness).await;
    }
}

/// C-28, and C-29 for whole numbers that JavaScript cannot tell apart.
#[tokio::test(start_paused = true)]
async fn another_call_or_another_client_is_not_served() {
    for params in [
        r#"{"name":"add","arguments":{"a":1,"b":3}}"#,
        r#"{"name":"add","arguments":{"a":"1","b":2}}"#,
        r#"{"name":"add","arguments":{"a":1,"b":2,"_meta":{}}}"#,
        r#"{"name":"add","arguments":{"a":1,"b":2},"more":null}"#,
        r#"{"name":"add","arguments":{"a":1,"b":2,"b":2}}"#,
    ] {
        let (harness, client) = paid(json!({"a": 1, "b": 2})).await;
        assert!(!is_served(&client, params).await, "{params}");
        assert_eq!(harness.executions(), 0);
        assert_eq!(books::authorizations(&harness).await, 1);
    }
    let (harness, _client) = paid(json!({"a": 1, "b": 2})).await;
    let other = harness.client(2).explicit();
    assert!(!is_served(&other, r#"{"name":"add","arguments":{"a":1,"b":2}}"#).await);
    assert_eq!(books::authorizations(&harness).await, 1);
}

/// C-29, N-88.
#[tokio::test(start_paused = true)]
async fn numbers_that_collapse_are_refused_before_anything_is_minted() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    for client in [harness.client(1), harness.client(2).explicit()] {
        for n in ["9007199254740993", "-9007199254740993", "1e400"] {
            let text = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"add","arguments":{{"a":{n}}}}}}}"#
            );
            let Ok(message) = Message::parse(&text) else {
                continue;
            };
            client.send(message).await.unwrap();
            let answers = books::now(&client).await;
            assert_eq!(kinds(&answers), ["-32602"], "{n}");
        }
    }
    assert!(books::nothing_minted(&harness));
}

/// C-30, N-84, N-85.
#[tokio::test(start_paused = true)]
async fn polling_mints_nothing_and_repeats_the_offer() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1).explicit();
    client.call_tool(0, "add", json!({})).await.unwrap();
    let first = books::now(&client).await;
    let offer = first[0]["error"]["data"]["payment_options"][0]["pay_req"].clone();
    for id in 1..590 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        client.call_tool(id, "add", json!({})).await.unwrap();
        let pending = &books::now(&client).await[0];
        assert_eq!(kind(pending), "-32043");
        let data = &pending["error"]["data"];
        assert!(data["retry_after"].as_f64().unwrap() >= 1.0);
        assert_eq!(data["payment_options"][0]["pay_req"], offer);
    }
    assert_eq!(harness.rail.minted(), 1);
}

/// D-10, N-92: two settled payments are two executions, whatever the lifecycle of the second.
#[tokio::test(start_paused = true)]
async fn d_10_two_payments_for_one_call_are_two_executions() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1).explicit();
    client.call_tool(1, "add", json!({})).await.unwrap();
    books::now(&client).await;
    tokio::time::sleep(Duration::from_secs(700)).await;
    client.call_tool(2, "add", json!({})).await.unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["-32042"]);
    books::settle(&harness, 0).await;
    books::settle(&harness, 1).await;
    books::now(&client).await;
    assert_eq!(books::authorizations(&harness).await, 2);
    for id in 3..5 {
        client.call_tool(id, "add", json!({})).await.unwrap();
        assert_eq!(kinds(&books::now(&client).await), ["result"]);
    }
    client.call_tool(5, "add", json!({})).await.unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["-32042"]);
    assert_eq!(harness.executions(), 2);
    books::balance(&harness).await;
}

/// D-08, D-11: no pressure and no time takes a grant away.
#[tokio::test(start_paused = true)]
async fn d_11_thousands_of_other_calls_do_not_push_out_a_grant_or_an_offer() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1).explicit();
    client
        .call_tool(1, "add", json!({"paid": true}))
        .await
        .unwrap();
    client
        .call_tool(2, "add", json!({"paid": false}))
        .await
        .unwrap();
    books::now(&client).await;
    books::settle(&harness, 0).await;
    books::now(&client).await;
    for key in 2..=250 {
        let other = harness.client(key).explicit();
        for n in 0..22 {
            other.call_tool(n, "add", json!({"junk": n})).await.unwrap();
        }
        books::now(&other).await;
    }
    client
        .call_tool(3, "add", json!({"paid": false}))
        .await
        .unwrap();
    assert_eq!(
        kinds(&books::now(&client).await),
        ["-32043"],
        "the same offer still stands"
    );
    client
        .call_tool(4, "add", json!({"paid": true}))
        .await
        .unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["result"]);
}

/// C-32: what is not a request cannot be bought, and is not executed for nothing.
#[tokio::test(start_paused = true)]
async fn a_priced_method_as_a_notification_goes_nowhere() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    for client in [harness.client(1), harness.client(2).explicit()] {
        let params = json!({"name": "add", "arguments": {}});
        let notification = Notification::new("tools/call", &params).unwrap();
        client.send(notification.into()).await.unwrap();
        assert!(client.is_silent_for(books::SOON).await);
    }
    assert!(books::nothing_minted(&harness));
    assert!(harness.entries().await.unwrap().is_empty());
    assert_eq!(harness.executions(), 0);
}

/// C-32, D-50: as deep as the parser lets through, and with what a canonicaliser stumbles over.
#[tokio::test(start_paused = true)]
async fn d_50_odd_params_are_answered_and_the_server_lives() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1).explicit();
    let deep = format!(
        r#"{{"name":"add","arguments":{}{}}}"#,
        "[".repeat(95),
        "]".repeat(95)
    );
    for params in [
        deep.as_str(),
        r#"{"name":"add","arguments":{"a":"\ud800"}}"#,
        r#"["add"]"#,
        r#"{"name":["add"]}"#,
        r#"{"name":"add","name":"free"}"#,
        "{}",
    ] {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        client.send(Message::parse(&text).unwrap()).await.unwrap();
        let answers = books::now(&client).await;
        assert_eq!(answers.len(), 1, "{params}: {answers:?}");
    }
    let executed: Vec<_> = harness
        .executed()
        .iter()
        .filter_map(|e| e.request.params.clone())
        .collect();
    assert!(
        executed.iter().all(|params| !params.get().contains("add")),
        "{executed:?}"
    );
    client
        .send(Request::new(9, "ping", &json!({})).unwrap().into())
        .await
        .unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["result"]);
}
