//! The same event again: duplicated by relays, sent again by clients, replayed and corrupted by strangers.

use nostr_sdk::prelude::{EventId, JsonUtil};
use serde_json::json;

use super::faulty_relay::corrupted;
use super::raw::Via;
use super::world::World;

/// C-11, and with every further way of wrapping C-13
#[tokio::test]
async fn five_copies_of_one_call_are_one_invoice_one_execution_and_one_answer() {
    for via in Via::ALL {
        let world = World::start().await;
        let a = world.client(via).await;
        let call = a.call(json!(1), "add", json!({}));
        let copies: Vec<_> = (0..5)
            .map(|_| via.carry(&call, &world.keys.public_key()))
            .collect();
        a.wire.publish(&copies).await;
        let required = a.required(&call).await;
        world.quiet().await;
        a.pay(&required).await;
        let result = a.result(&call).await;
        world.quiet().await;
        assert_eq!((world.rail.minted(), world.tools.executions("add")), (1, 1));
        let demands = a
            .about(&call)
            .into_iter()
            .filter(|heard| heard.is("payment_required"));
        demands.for_each(|demand| assert_eq!(demand.pay_req(), required.pay_req()));
        assert_eq!(result.carrier, via.kind());
        assert!(!a.about(&call).iter().any(|heard| heard.code().is_some()));
    }
}

/// C-11, by a relay that says everything three times.
#[tokio::test]
async fn a_relay_that_repeats_itself_changes_nothing() {
    for via in Via::ALL {
        let world = World::start().await;
        world.relay.set(|faults| faults.duplicates = 2);
        let a = world.client(via).await;
        let call = a.call(json!(1), "add", json!({}));
        a.buy(&call).await;
        world.quiet().await;
        assert_eq!((world.rail.minted(), world.tools.executions("add")), (1, 1));
    }
}

/// C-12
#[tokio::test]
async fn a_copy_that_comes_while_the_call_executes_does_not_disturb_it() {
    for via in Via::ALL {
        let world = World::start().await;
        let a = world.client(via).await;
        let call = a.call(json!(1), "slow", json!({}));
        a.send(&call).await;
        let required = a.required(&call).await;
        a.pay(&required).await;
        world.tools.wait_for("slow", 1).await;
        for _ in 0..3 {
            a.send(&call).await;
        }
        world.quiet().await;
        assert_eq!(world.tools.executions("slow"), 1);
        world.tools.release(9);
        let result = a.result(&call).await;
        // And after the result: the same answer again, without a charge (N-67).
        a.send(&call).await;
        let again = a.wait(&call, 2, |heard| heard.json.get("result").is_some());
        assert_eq!(again.await.json, result.json);
        world.quiet().await;
        assert_eq!(
            (world.rail.minted(), world.tools.executions("slow")),
            (1, 1)
        );
    }
}

/// C-13
#[tokio::test]
async fn one_message_in_many_wraps_is_one_call() {
    let world = World::start().await;
    let a = world.client(Via::Persistent).await;
    let call = a.call(json!(1), "add", json!({}));
    let wraps = [
        Via::Persistent,
        Via::Ephemeral,
        Via::Persistent,
        Via::Persistent,
        Via::Ephemeral,
        Via::Plain,
    ];
    for via in wraps {
        a.send_by(&call, via).await;
    }
    let required = a.required(&call).await;
    world.quiet().await;
    a.pay(&required).await;
    a.result(&call).await;
    for via in wraps {
        a.send_by(&call, via).await;
    }
    world.quiet().await;
    assert_eq!((world.rail.minted(), world.tools.executions("add")), (1, 1));
}

/// C-14
#[tokio::test]
async fn a_lost_demand_is_made_again_and_is_the_same() {
    for via in Via::ALL {
        let world = World::start().await;
        let a = world.client(via).await;
        world.relay.set(|faults| {
            faults.drop_next_to(&a.keys, |message| {
                message["method"] == "notifications/payment_required"
            });
        });
        let call = a.call(json!(1), "add", json!({}));
        a.send(&call).await;
        let lost = a.required(&call).await;
        a.send(&call).await;
        let again = a.wait(&call, 2, |heard| heard.is("payment_required")).await;
        assert_eq!(again.pay_req(), lost.pay_req());
        assert_eq!(again.carrier, via.kind());
        // What is left of the time is said, not all of it once more.
        assert!(again.offer()["ttl"].as_u64() <= lost.offer()["ttl"].as_u64());
        a.pay(&again).await;
        a.result(&call).await;
        assert_eq!((world.rail.minted(), world.tools.executions("add")), (1, 1));
    }
}

/// C-15
#[tokio::test]
async fn an_explicit_retry_under_the_identical_event_is_served() {
    for via in Via::ALL {
        let world = World::start().await;
        world.rail.settle_at_once();
        let a = world.client(via).await.explicit();
        let call = a.call(json!(1), "add", json!({}));
        a.send(&call).await;
        a.error(&call, -32042).await;
        a.wait(&call, 1, |heard| heard.is("payment_accepted")).await;
        a.send(&call).await;
        let result = a.result(&call).await;
        a.send(&call).await;
        let again = a.wait(&call, 2, |heard| heard.json.get("result").is_some());
        assert_eq!(again.await.json, result.json);
        world.quiet().await;
        assert_eq!((world.rail.minted(), world.tools.executions("add")), (1, 1));
    }
}

/// C-17
#[tokio::test]
async fn d_45_a_corrupted_copy_ahead_of_a_call_does_not_keep_it_out() {
    for via in Via::ALL {
        let world = World::start().await;
        let a = world.client(via).await;
        let m = world.client(via).await;
        let call = a.call(json!(1), "add", json!({"a": 1}));
        let carrier = via.carry(&call, &world.keys.public_key());
        let mut other_signature = carrier.clone();
        other_signature.sig = m.call(json!(1), "add", json!({})).sig;
        m.wire
            .publish(&[corrupted(&carrier), other_signature])
            .await;
        // The corrupted message, inside a wrap that is fine.
        m.send_by(&corrupted(&call), Via::Ephemeral).await;
        a.wire.publish(&[carrier]).await;
        let required = a.required(&call).await;
        a.pay(&required).await;
        a.result(&call).await;
        world.quiet().await;
        assert_eq!((world.rail.minted(), world.tools.executions("add")), (1, 1));
    }
}

/// C-18
#[tokio::test]
async fn a_flood_of_junk_does_not_make_the_server_forget_a_call() {
    const JUNK: u32 = 20_000;
    let world = World::start().await;
    let a = world.client(Via::Persistent).await;
    let call = a.call(json!(1), "add", json!({}));
    a.send(&call).await;
    let required = a.required(&call).await;

    // Most of it is not even signed, some is genuine and says nothing.
    let mut junk = world.relay.events_of(1059).swap_remove(0);
    junk.content.truncate(100);
    for n in 0..JUNK {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        junk.id = EventId::from_byte_array(id);
        world
            .relay
            .say(&format!(r#"["EVENT","tollkeeper",{}]"#, junk.as_json()));
    }
    let m = world.client(Via::Ephemeral).await;
    let carriers: Vec<_> = (0..100)
        .map(|n| Via::Ephemeral.carry(&m.sign(&format!("junk {n}")), &world.keys.public_key()))
        .collect();
    m.wire.publish(&carriers).await;

    a.send(&call).await;
    let again = a.wait(&call, 2, |heard| heard.is("payment_required")).await;
    assert_eq!(again.pay_req(), required.pay_req());
    a.pay(&again).await;
    a.result(&call).await;
    world.quiet().await;
    assert_eq!((world.rail.minted(), world.tools.executions("add")), (1, 1));
}

/// Somebody else repeats a paid call under an own key: a call of its own, which gets nothing for free.
#[tokio::test]
async fn a_paid_call_repeated_by_a_stranger_is_not_served() {
    let world = World::start().await;
    let a = world.client(Via::Plain).await;
    let call = a.call(json!(1), "add", json!({"a": 1}));
    a.buy(&call).await;
    let m = world.client(Via::Plain).await;
    let copied = m.sign(&call.content);
    m.send(&copied).await;
    m.required(&copied).await;
    // A replay of the original by the stranger is answered to its author only.
    m.wire.publish(std::slice::from_ref(&call)).await;
    world.quiet().await;
    assert_eq!(m.words(&copied), ["payment_required"]);
    assert_eq!(m.heard().len(), 1);
    assert_eq!(world.tools.executions("add"), 1);
}
