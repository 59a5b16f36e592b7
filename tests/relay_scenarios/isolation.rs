//! Clients beside each other, and strangers who want to be one of them.

use serde_json::{Value, json};
use tollkeeper::transport::nostr::{EncryptionMode, GiftWrapMode};

use super::raw::{Raw, Via};
use super::world::World;

/// C-37
#[tokio::test]
async fn d_22_equal_ids_and_tokens_of_two_clients_do_not_mix() {
    for via in [Via::Plain, Via::Ephemeral] {
        let world = World::start().await;
        let a = world.client(via).await;
        let b = world.client(via).await;
        let call = |client: &Raw<'_>, who: &str| {
            let params =
                json!({"name": "slow", "arguments": {"who": who}, "_meta": {"progressToken": 1}});
            client.request(json!(1), "tools/call", params)
        };
        let (of_a, of_b) = (call(&a, "a"), call(&b, "b"));
        for (client, call) in [(&a, &of_a), (&b, &of_b)] {
            client.send(call).await;
        }
        for (client, call) in [(&b, &of_b), (&a, &of_a)] {
            let required = client.required(call).await;
            client.pay(&required).await;
        }
        world.tools.wait_for("slow", 2).await;
        world.tools.release(2);
        for (client, call, who) in [(&a, &of_a, "a"), (&b, &of_b, "b")] {
            let result = client.result(call).await;
            assert_eq!(result.json["id"], 1);
            assert!(
                result.json["result"]
                    .to_string()
                    .contains(&format!(r#"\"who\":\"{who}\""#)),
                "{}",
                result.json
            );
            let progress = client.wait(call, 1, |heard| heard.is("progress")).await;
            assert_eq!(progress.json["params"]["progressToken"], 1);
        }
        world.quiet().await;
        for (client, call) in [(&a, &of_a), (&b, &of_b)] {
            assert!(
                client
                    .heard()
                    .iter()
                    .all(|heard| heard.about() == Some(call.id))
            );
            assert_eq!(client.heard().len(), 4);
        }
    }
}

fn cancelled(client: &Raw<'_>, id: Value) -> nostr_sdk::Event {
    let notification =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
    client.sign(&notification.to_string())
}

/// C-39
#[tokio::test]
async fn a_cancelled_call_is_not_executed_by_money_that_comes_later() {
    for via in [Via::Plain, Via::Ephemeral] {
        let world = World::start().await;
        let a = world.client(via).await;
        let call = a.call(json!(1), "add", json!({"a": 1}));
        a.send(&call).await;
        let required = a.required(&call).await;
        a.send(&cancelled(&a, json!(1))).await;
        world.quiet().await;
        a.pay(&required).await;
        world.quiet().await;
        assert_eq!(world.tools.executions("add"), 0);
        assert!(
            a.about(&call)
                .iter()
                .all(|heard| heard.json.get("result").is_none())
        );
        // The money is not lost: it buys the same call later, once.
        let again = a.call(json!(2), "add", json!({"a": 1}));
        a.send(&again).await;
        a.result(&again).await;
        let third = a.call(json!(3), "add", json!({"a": 1}));
        a.send(&third).await;
        a.required(&third).await;
        assert_eq!((world.rail.minted(), world.tools.executions("add")), (2, 1));
    }
}

/// C-39
#[tokio::test]
async fn nobody_cancels_the_call_of_somebody_else() {
    let world = World::start().await;
    let a = world.client(Via::Plain).await;
    let b = world.client(Via::Plain).await;
    let call = a.call(json!(1), "add", json!({}));
    a.send(&call).await;
    let required = a.required(&call).await;
    b.send(&cancelled(&b, json!(1))).await;
    // Of the same client, but of another request: ids are compared with their type.
    a.send(&cancelled(&a, json!("1"))).await;
    a.send(&cancelled(&a, json!(2))).await;
    world.quiet().await;
    a.pay(&required).await;
    a.result(&call).await;
    assert_eq!(world.tools.executions("add"), 1);
}

/// C-40
#[tokio::test]
async fn d_21_answers_to_an_encrypted_call_stay_encrypted_whatever_is_replayed() {
    for via in [Via::Persistent, Via::Ephemeral] {
        let world = World::start().await;
        let a = world.client(Via::Plain).await;
        let m = world.client(Via::Plain).await;
        let old = a.call(json!("old"), "add", json!({"old": 1}));
        a.buy(&old).await;
        let a = Raw::connect(&world, a.keys.clone(), via).await;

        let call = a.call(json!(1), "slow", json!({}));
        a.send(&call).await;
        let required = a.required(&call).await;
        m.wire.publish(std::slice::from_ref(&old)).await;
        world.quiet().await;
        a.pay(&required).await;
        world.tools.wait_for("slow", 1).await;
        m.wire.publish(std::slice::from_ref(&old)).await;
        world.quiet().await;
        world.tools.release(1);
        a.result(&call).await;
        let gated = Raw::connect(&world, a.keys.clone(), via).await.explicit();
        let explicit = gated.call(json!(2), "add", json!({}));
        gated.send(&explicit).await;
        gated.error(&explicit, -32042).await;
        for heard in [a.about(&call), gated.about(&explicit)].concat() {
            assert_eq!(heard.carrier, via.kind(), "{}", heard.json);
        }
        assert_eq!(world.tools.executions("add"), 1);
    }
}

/// C-40
#[tokio::test]
async fn the_kind_of_wrap_follows_the_request() {
    let world = World::start().await;
    for via in [Via::Persistent, Via::Ephemeral, Via::Plain] {
        let a = world.client(via).await;
        let call = a.call(json!(1), "add", json!({}));
        a.buy(&call).await;
        assert!(a.heard().iter().all(|heard| heard.carrier == via.kind()));
    }
    // Who says that it takes ephemeral wraps gets them.
    let a = world
        .client(Via::Persistent)
        .await
        .tagged(&[&["pmi", "scripted"], &["support_encryption_ephemeral"]]);
    let call = a.call(json!(1), "add", json!({}));
    a.buy(&call).await;
    assert!(a.heard().iter().all(|heard| heard.carrier == 21059));
}

/// C-41
#[tokio::test]
async fn what_the_modes_do_not_allow_gets_no_answer_and_no_invoice() {
    let modes = [
        (
            EncryptionMode::Required,
            GiftWrapMode::Optional,
            [false, true, true],
        ),
        (
            EncryptionMode::Disabled,
            GiftWrapMode::Optional,
            [true, false, false],
        ),
        (
            EncryptionMode::Optional,
            GiftWrapMode::Ephemeral,
            [true, false, true],
        ),
        (
            EncryptionMode::Optional,
            GiftWrapMode::Persistent,
            [true, true, false],
        ),
        (
            EncryptionMode::Required,
            GiftWrapMode::Ephemeral,
            [false, false, true],
        ),
    ];
    for (encryption, gift_wrap, allowed) in modes {
        let world = World::builder().modes(encryption, gift_wrap).start().await;
        for (via, allowed) in Via::ALL.into_iter().zip(allowed) {
            let a = world.client(via).await;
            let before = world.rail.minted();
            let call = a.call(json!(1), "add", json!({}));
            if allowed {
                a.buy(&call).await;
                assert!(a.heard().iter().all(|heard| heard.carrier == via.kind()));
            } else {
                a.send(&call).await;
                // Past the filter of the subscription, as a relay may that does not care.
                let carrier = via.carry(&call, &world.keys.public_key());
                world.relay.say(&format!(
                    r#"["EVENT","tollkeeper",{}]"#,
                    nostr_sdk::JsonUtil::as_json(&carrier)
                ));
                world.quiet().await;
                assert!(a.heard().is_empty(), "{encryption:?} {gift_wrap:?} {via:?}");
                assert_eq!(world.rail.minted(), before);
            }
        }
    }
}
