//! Explicit gating: an error with an offer, a payment, and one execution for one payment.

use serde_json::json;

use super::raw::Via;
use super::world::World;

/// C-27
#[tokio::test]
async fn of_fifty_equal_calls_one_grant_serves_one() {
    for via in [Via::Plain, Via::Ephemeral] {
        let world = World::start().await;
        let a = world.client(via).await.explicit();
        a.buy_grant(&a.call(json!("first"), "add", json!({"a": 1})))
            .await;
        let calls: Vec<_> = (0..50)
            .map(|n| a.call(json!(n), "add", json!({"a": 1})))
            .collect();
        let carriers: Vec<_> = calls
            .iter()
            .map(|call| via.carry(call, &world.keys.public_key()))
            .collect();
        a.wire.publish(&carriers).await;
        let mut served = 0;
        for call in &calls {
            let response = a.response(call).await;
            match response.code() {
                None => served += 1,
                Some(code) => assert!(matches!(code, -32042 | -32043), "{code}"),
            }
        }
        world.quiet().await;
        assert_eq!((served, world.tools.executions("add")), (1, 1));
        assert!(world.rail.minted() <= 2, "{} invoices", world.rail.minted());
    }
}

/// C-28
#[tokio::test]
async fn a_grant_serves_the_same_call_however_it_is_written() {
    let world = World::start().await;
    let a = world.client(Via::Plain).await.explicit();
    let bought = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{"a":1,"b":2}}}"#;
    let same = [
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"add","arguments":{"b":2,"a":1}}}"#,
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"add","arguments":{"a":1.0,"b":2}}}"#,
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"add","arguments":{"a":1e0,"b":0.2e1}}}"#,
        r#"{"params":{"_meta":{"x":[1]},"arguments":{"a":1,"b":2},"name":"\u0061dd"},"method":"tools/call","id":"other","jsonrpc":"2.0"}"#,
        r#"{ "jsonrpc" : "2.0", "id":3, "method":"tools\/call", "params":{"name":"add","arguments":{"a":1,"b":2}} }"#,
    ];
    for (n, text) in same.into_iter().enumerate() {
        let first = a.sign(&bought.replace("\"id\":1", &format!("\"id\":{}", 100 + n)));
        a.buy_grant(&first).await;
        let retry = a.sign(text);
        a.send(&retry).await;
        a.result(&retry).await;
    }
    assert_eq!(
        (world.rail.minted(), world.tools.executions("add")),
        (same.len(), same.len())
    );
}

/// C-28
#[tokio::test]
async fn a_grant_serves_no_other_call_and_nobody_else() {
    let world = World::start().await;
    let a = world.client(Via::Plain).await.explicit();
    let b = world.client(Via::Plain).await.explicit();
    a.buy_grant(&a.call(json!(1), "add", json!({"a": 1, "b": 2})))
        .await;
    let others = [
        (&a, json!({"a": 1, "b": 3})),
        (&a, json!({"a": 1, "b": "2"})),
        (&a, json!({"a": 1, "b": 2, "c": null})),
        (&a, json!({"a": 1, "b": 2, "_meta": {}})),
        (&b, json!({"a": 1, "b": 2})),
    ];
    for (n, (client, arguments)) in others.into_iter().enumerate() {
        let other = client.call(json!(n), "add", arguments);
        client.send(&other).await;
        client.error(&other, -32042).await;
    }
    let other_tool = a.call(json!(1), "listy", json!({"a": 1, "b": 2}));
    a.send(&other_tool).await;
    a.error(&other_tool, -32042).await;
    assert_eq!(world.tools.executions("add"), 0);
    let own = a.call(json!(9), "add", json!({"b": 2, "a": 1}));
    a.send(&own).await;
    a.result(&own).await;
}

/// C-30
#[tokio::test]
async fn whoever_asks_again_unpaid_gets_the_same_offer_and_no_new_one() {
    for via in Via::ALL {
        let world = World::start().await;
        let a = world.client(via).await.explicit();
        let call = a.call(json!(0), "add", json!({}));
        a.send(&call).await;
        let required = a.error(&call, -32042).await;
        for n in 1..6 {
            let again = a.call(json!(n), "add", json!({}));
            a.send(&again).await;
            let pending = a.error(&again, -32043).await;
            assert_eq!(pending.json["error"]["message"], "Payment Pending");
            assert!(
                pending.json["error"]["data"]["retry_after"]
                    .as_u64()
                    .unwrap()
                    >= 1
            );
            for field in ["pay_req", "amount", "pmi"] {
                assert_eq!(pending.offer()[field], required.offer()[field]);
            }
            assert!(pending.offer()["ttl"].as_u64() <= required.offer()["ttl"].as_u64());
        }
        assert_eq!((world.rail.minted(), world.tools.executions("add")), (1, 0));
        a.pay(&required).await;
        a.wait(&call, 1, |heard| heard.is("payment_accepted")).await;
        let paid = a.call(json!(6), "add", json!({}));
        a.send(&paid).await;
        a.result(&paid).await;
        // One payment, one execution: the next one costs again.
        let next = a.call(json!(7), "add", json!({}));
        a.send(&next).await;
        let other = a.error(&next, -32042).await;
        assert_ne!(other.pay_req(), required.pay_req());
    }
}

/// C-31
#[tokio::test]
async fn params_reach_the_handler_byte_for_byte_and_progress_goes_to_the_caller() {
    let params = r#"{"name":"slow", "arguments":{"b":2,  "a":1.0, "big":1e3, "s":"\u0061"},"_meta":{"progressToken":"tok", "x":null}}"#;
    for via in Via::ALL {
        let world = World::start().await;
        world.tools.release(2);
        let a = world.client(via).await;
        let b = world.client(via).await.explicit();
        let content = |id: u32| {
            format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{params}}}"#)
        };
        let transparent = a.sign(&content(1));
        a.buy(&transparent).await;
        b.buy_grant(&b.sign(&content(2))).await;
        let gated = b.sign(&content(3));
        b.send(&gated).await;
        b.result(&gated).await;
        for execution in world.tools.executions_of("slow") {
            assert_eq!(execution.params, params);
        }
        assert_eq!(world.tools.executions("slow"), 2);
        for (client, call) in [(&a, &transparent), (&b, &gated)] {
            let progress: Vec<_> = client
                .heard()
                .into_iter()
                .filter(|heard| heard.is("progress"))
                .collect();
            assert_eq!(progress.len(), 1);
            assert_eq!(progress[0].about(), Some(call.id));
            assert_eq!(progress[0].json["params"]["progressToken"], "tok");
            assert_eq!(progress[0].carrier, via.kind());
        }
    }
}
