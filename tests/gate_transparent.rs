//! The transparent lifecycle through the gate, in memory and in paused time.

use std::time::Duration;

use serde_json::json;
use tollkeeper::ledger::EntryState;
use tollkeeper::testing::Harness;

const PRICES: [&str; 1] = ["tool:add=7 sat"];

#[tokio::test(start_paused = true)]
async fn a_paid_call_is_asked_for_accepted_and_answered_in_this_order() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    let sent = client.call_tool(5, "add", json!({"a": 1})).await.unwrap();

    let (event, required) = client.next_json().await.unwrap();
    assert_eq!(event, Some(sent.event));
    assert_eq!(required["method"], "notifications/payment_required");
    assert_eq!(required["params"]["amount"], 7);
    assert_eq!(required["params"]["ttl"], 600);
    assert_eq!(harness.executions(), 0, "nobody passes unpaid");

    harness.rail.settle(&harness.rail.references()[0]).await;
    let (_, accepted) = client.next_json().await.unwrap();
    assert_eq!(accepted["method"], "notifications/payment_accepted");
    assert_eq!(accepted["params"], json!({"amount": 7, "pmi": "scripted"}));
    let (event, result) = client.next_json().await.unwrap();
    assert_eq!(event, Some(sent.event));
    assert_eq!(result["id"], 5);
    assert_eq!(result["result"]["echo"]["arguments"], json!({"a": 1}));

    let entries = harness.entries().await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].state, EntryState::Delivered);
    assert_eq!(harness.executions(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unpriced_call_is_not_touched() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    client.call_tool(1, "free", json!({})).await.unwrap();
    let (_, result) = client.next_json().await.unwrap();
    assert_eq!(result["id"], 1);
    assert!(harness.entries().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn d_27_an_offer_that_ends_unpaid_is_refused_and_late_money_buys_the_next_call() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    client.next().await.unwrap();

    tokio::time::sleep(Duration::from_secs(631)).await;
    let (_, rejected) = client.next_json().await.unwrap();
    assert_eq!(rejected["method"], "notifications/payment_rejected");
    let (_, error) = client.next_json().await.unwrap();
    assert_eq!(error["error"]["code"], -32000);

    harness.rail.settle(&harness.rail.references()[0]).await;
    let (_, accepted) = client.next_json().await.unwrap();
    assert_eq!(accepted["method"], "notifications/payment_accepted");
    assert_eq!(harness.executions(), 0);

    client.call_tool(2, "add", json!({})).await.unwrap();
    let (_, result) = client.next_json().await.unwrap();
    assert_eq!(
        result["result"]["echo"]["name"], "add",
        "served without another invoice"
    );
    assert_eq!(harness.executions(), 1);
    assert_eq!(harness.rail.minted(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_settlement_without_any_notice_is_found_by_look_up() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    client.next().await.unwrap();
    harness.rail.settle_quietly(&harness.rail.references()[0]);
    let found = tokio::time::timeout(Duration::from_secs(15), client.next_json())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.1["method"], "notifications/payment_accepted");
}

#[tokio::test(start_paused = true)]
async fn explicit_gating_answers_pays_and_serves_the_next_request() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1).explicit();
    client
        .call_tool(1, "add", json!({"a": 1, "b": 2}))
        .await
        .unwrap();
    let required = client.next().await.unwrap();
    assert_eq!(required.tags.len(), 1, "the interaction is disclosed once");
    let (_, pending) = {
        client
            .call_tool(2, "add", json!({"b": 2, "a": 1.0}))
            .await
            .unwrap();
        client.next_json().await.unwrap()
    };
    assert_eq!(pending["error"]["code"], -32043);
    assert!(pending["error"]["data"]["retry_after"].as_u64().unwrap() >= 1);
    assert_eq!(pending["error"]["data"]["payment_options"][0]["amount"], 7);

    harness.rail.settle(&harness.rail.references()[0]).await;
    let (_, accepted) = client.next_json().await.unwrap();
    assert_eq!(accepted["method"], "notifications/payment_accepted");
    client
        .call_tool(3, "add", json!({"b": 2, "a": 1}))
        .await
        .unwrap();
    let (_, result) = client.next_json().await.unwrap();
    assert_eq!(
        result["result"]["echo"]["arguments"],
        json!({"a": 1, "b": 2})
    );
    assert_eq!(harness.executions(), 1);
    assert_eq!(harness.rail.minted(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_cannot_succeed_is_refused_before_anything_is_minted() {
    let objects = |call: &tollkeeper::Invocation| {
        let known = call.params["arguments"]["a"].is_number();
        (!known).then(|| "the argument a must be a number".to_owned())
    };
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .payments(|payments| payments.check_call(objects))
        .start()
        .await
        .unwrap();
    let client = harness.client(1);
    client
        .call_tool(1, "add", json!({"a": "one"}))
        .await
        .unwrap();
    let (_, refused) = client.next_json().await.unwrap();
    assert_eq!(refused["error"]["code"], -32602);
    assert_eq!(
        refused["error"]["message"],
        "the argument a must be a number"
    );
    assert_eq!(harness.rail.minted(), 0);

    client.call_tool(2, "add", json!({"a": 1})).await.unwrap();
    let (_, required) = client.next_json().await.unwrap();
    assert_eq!(required["method"], "notifications/payment_required");
}
