//! C-01 to C-10: what is said, to whom, under which lifecycle, for which payment method.

use serde_json::{Value, json};
use tollkeeper::PaymentInteraction;
use tollkeeper::payment::PaymentInteractionPolicy;
use tollkeeper::testing::{Answer, Harness, ScriptedProcessor};
use tollkeeper::wire::{Request, RequestId};

use super::PRICES;
use super::books::{self, kind, kinds};

/// C-01.
#[tokio::test(start_paused = true)]
async fn a_paid_call_is_three_messages_about_its_event_without_null_fields() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    let sent = client.call_tool(1, "add", json!({})).await.unwrap();
    let (event, required) = client.next_json().await.unwrap();
    assert_eq!(event, Some(sent.event));
    assert_eq!(required["jsonrpc"], "2.0");
    assert!(required.get("id").is_none());
    let params = required["params"].as_object().unwrap();
    assert!(params.values().all(|value| !value.is_null()), "{params:?}");

    books::settle(&harness, 0).await;
    let rest = client.collect(books::SOON).await.unwrap();
    assert!(rest.iter().all(|(event, _)| *event == Some(sent.event)));
    let rest: Vec<Value> = rest.into_iter().map(|(_, json)| json).collect();
    assert_eq!(kinds(&rest), ["payment_accepted", "result"]);
    books::balance(&harness).await;
}

/// C-02.
#[tokio::test(start_paused = true)]
async fn request_ids_come_back_with_their_type() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    harness.rail.settle_at_once();
    let client = harness.client(1);
    let ids: [RequestId; 6] = [
        0.into(),
        "".into(),
        "1".into(),
        1.into(),
        (-1).into(),
        9_007_199_254_740_991.into(),
    ];
    for id in ids {
        let params = json!({"name": "add", "arguments": {}});
        let request = Request::new(id.clone(), "tools/call", &params).unwrap();
        client.send(request.into()).await.unwrap();
        let answers = books::now(&client).await;
        let result = answers
            .iter()
            .find(|answer| kind(answer) == "result")
            .unwrap();
        assert_eq!(result["id"], serde_json::to_value(&id).unwrap());
    }
    books::balance(&harness).await;
}

/// C-04.
#[tokio::test(start_paused = true)]
async fn a_stateless_explicit_call_is_answered_and_the_lifecycle_disclosed_once() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1).explicit();
    let params = json!({"name": "add", "arguments": {}});
    let request = Request::new("seven", "tools/call", &params).unwrap();
    client.send(request.into()).await.unwrap();
    let answer = client.next().await.unwrap();
    let tags: Vec<_> = answer
        .tags
        .iter()
        .filter(|t| t.name() == "payment_interaction")
        .collect();
    assert_eq!(tags.len(), 1);
    assert_eq!(tags[0].value(), Some("explicit_gating"));
    let json: Value = serde_json::from_str(&answer.message.to_json()).unwrap();
    assert_eq!(json["id"], "seven");
    assert_eq!(json["error"]["code"], -32042);
    assert_eq!(json["error"]["message"], "Payment Required");
    let option = &json["error"]["data"]["payment_options"][0];
    assert_eq!(option["amount"], 7);
    assert_eq!(option["pmi"], "scripted");
    assert!(json["error"]["data"]["instructions"].is_string());
    assert!(client.is_silent_for(books::SOON).await);
    assert_eq!(harness.executions(), 0);
}

/// C-05: neither priced nor forwarded under another lifecycle than asked for.
#[tokio::test(start_paused = true)]
async fn a_server_without_explicit_gating_says_so_and_mints_nothing() {
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .payments(|p| p.interaction(PaymentInteractionPolicy::Transparent))
        .start()
        .await
        .unwrap();
    let client = harness.client(1).explicit();
    client.call_tool(1, "add", json!({})).await.unwrap();
    let (_, refused) = client.next_json().await.unwrap();
    assert_eq!(refused["error"]["code"], -32602);
    assert_eq!(refused["error"]["data"]["requested"], "explicit_gating");
    assert_eq!(
        refused["error"]["data"]["supported"],
        json!(["transparent"])
    );
    assert!(client.is_silent_for(books::SOON).await);
    assert!(books::nothing_minted(&harness));
    assert_eq!(harness.executions(), 0);
}

/// C-07 and N-52.
#[tokio::test(start_paused = true)]
async fn initialize_resets_the_lifecycle_and_a_transparent_call_leaves_the_explicit_grant_alone() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let mut client = harness.client(1).explicit();
    client.call_tool(1, "add", json!({})).await.unwrap();
    books::settle(&harness, 0).await;
    assert_eq!(
        kinds(&books::now(&client).await),
        ["-32042", "payment_accepted"]
    );
    assert_eq!(books::authorizations(&harness).await, 1);

    client.introduction.interaction = None;
    let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}});
    client
        .send(Request::new(2, "initialize", &hello).unwrap().into())
        .await
        .unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["result"]);
    client.call_tool(3, "add", json!({})).await.unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["payment_required"]);
    assert_eq!(books::authorizations(&harness).await, 1);

    // Under explicit gating it still serves.
    client.introduction.interaction = Some(PaymentInteraction::ExplicitGating);
    client.call_tool(4, "add", json!({})).await.unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["result"]);
    assert_eq!(harness.executions(), 2, "initialize, and the paid call");
    assert_eq!(books::authorizations(&harness).await, 0);
}

/// C-08.
#[tokio::test(start_paused = true)]
async fn the_first_common_payment_method_of_the_client_is_used() {
    let (other, other_control) = ScriptedProcessor::new("y".parse().unwrap());
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .payments(|p| p.processor(other))
        .start()
        .await
        .unwrap();
    let mut client = harness.client(1);
    client.introduction.pmis = vec![
        "x".parse().unwrap(),
        "scripted".parse().unwrap(),
        "y".parse().unwrap(),
    ];
    client.call_tool(1, "add", json!({})).await.unwrap();
    let required = books::now(&client).await;
    assert_eq!(kinds(&required), ["payment_required"]);
    assert_eq!(required[0]["params"]["pmi"], "scripted");
    assert_eq!(other_control.minted(), 0);
}

/// C-08, D-52.
#[tokio::test(start_paused = true)]
async fn d_29_no_common_payment_method_ends_the_call_without_an_invoice() {
    for explicit in [false, true] {
        let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
        let mut client = harness.client(1);
        if explicit {
            client = client.explicit();
        }
        client.introduction.pmis = vec!["x".parse().unwrap()];
        client.call_tool(1, "add", json!({})).await.unwrap();
        let answers = books::now(&client).await;
        let last = answers.last().unwrap();
        assert_eq!(last["id"], 1, "{answers:?}");
        assert!(last["error"]["code"].is_i64(), "{answers:?}");
        assert!(books::nothing_minted(&harness));
        assert_eq!(harness.executions(), 0);
    }
}

/// The second half of C-10 (T-14).
#[tokio::test(start_paused = true)]
async fn a_priced_result_that_looks_like_a_list_is_delivered_as_it_is() {
    let list = json!({"tools": [{"name": "add"}], "content": []});
    let answer = list.clone();
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .handler(move |_| {
            let answer = answer.clone();
            async move { Answer::Result(answer) }
        })
        .start()
        .await
        .unwrap();
    harness.rail.settle_at_once();
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    let answers = books::now(&client).await;
    assert_eq!(
        kinds(&answers),
        ["payment_required", "payment_accepted", "result"]
    );
    assert_eq!(answers[2]["result"], list);
    books::balance(&harness).await;
}

/// C-31 and N-70: what the handler gets is what was sent, `_meta` included.
#[tokio::test(start_paused = true)]
async fn params_reach_the_handler_byte_for_byte() {
    let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add", "arguments":{"b":2.0, "a":1e3},"_meta":{"progressToken":7}}}"#;
    let sent = r#"{"name":"add", "arguments":{"b":2.0, "a":1e3},"_meta":{"progressToken":7}}"#;
    for explicit in [false, true] {
        let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
        harness.rail.settle_at_once();
        let mut client = harness.client(1);
        if explicit {
            client = client.explicit();
            client
                .send(tollkeeper::wire::Message::parse(text).unwrap())
                .await
                .unwrap();
            books::now(&client).await;
        }
        client
            .send(tollkeeper::wire::Message::parse(text).unwrap())
            .await
            .unwrap();
        books::now(&client).await;
        let executed = harness.executed();
        assert_eq!(executed.len(), 1);
        assert_eq!(executed[0].request.params.as_ref().unwrap().get(), sent);
    }
}

/// The part of C-37 that is the gate's (D-24): equal request ids of two clients do not mix.
#[tokio::test(start_paused = true)]
async fn d_24_two_clients_with_the_same_request_id_get_their_own_invoice_and_result() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let (a, b) = (harness.client(1), harness.client(2));
    a.call_tool(1, "add", json!({"of": "a"})).await.unwrap();
    b.call_tool(1, "add", json!({"of": "b"})).await.unwrap();
    assert_eq!(kinds(&books::now(&a).await), ["payment_required"]);
    let required = books::now(&b).await;
    assert_eq!(kinds(&required), ["payment_required"]);
    let of_b = required[0]["params"]["pay_req"].as_str().unwrap();
    harness
        .rail
        .settle(of_b.trim_start_matches("scripted:"))
        .await;
    let answers = books::now(&b).await;
    assert_eq!(answers[1]["result"]["echo"]["arguments"]["of"], "b");
    assert!(a.is_silent_for(books::SOON).await);
    books::settle(&harness, 0).await;
    let answers = books::now(&a).await;
    assert_eq!(answers[1]["result"]["echo"]["arguments"]["of"], "a");
    books::balance(&harness).await;
}
