//! Money that was paid while something else broke.

use std::time::Duration;

use nostr_sdk::prelude::Keys;
use serde_json::json;
use tollkeeper::ledger::EntryState;

use super::faulty_relay::Answer;
use super::raw::{Raw, Via};
use super::world::World;

/// C-20
#[tokio::test]
async fn a_lost_acceptance_stops_neither_execution_nor_result() {
    for via in Via::ALL {
        let world = World::start().await;
        let a = world.client(via).await;
        world.relay.set(|faults| {
            faults.drop_next_to(&a.keys, |message| {
                message["method"] == "notifications/payment_accepted"
            });
        });
        a.buy(&a.call(json!(1), "add", json!({}))).await;
        assert_eq!(world.tools.executions("add"), 1);
    }
}

/// C-20
#[tokio::test]
async fn a_refused_acceptance_stops_neither_execution_nor_result() {
    for via in Via::ALL {
        let world = World::start().await;
        let a = world.client(via).await;
        let call = a.call(json!(1), "add", json!({}));
        a.send(&call).await;
        let required = a.required(&call).await;
        world.relay.set(|faults| {
            faults.next_answers = vec![Answer::Refuse("blocked: no such kind".into())]
        });
        a.pay(&required).await;
        a.result(&call).await;
        world.quiet().await;
        assert_eq!(world.tools.executions("add"), 1);
        assert_eq!(world.entries().await[0].state, EntryState::Delivered);
    }
}

/// A relay that takes nothing at all while the call executes: the paid result is there for the same event afterwards.
#[tokio::test]
async fn d_33_a_result_that_no_relay_took_is_given_to_the_same_event_later() {
    for via in Via::ALL {
        let world = World::start().await;
        let a = world.client(via).await;
        let call = a.call(json!(1), "slow", json!({}));
        a.send(&call).await;
        let required = a.required(&call).await;
        a.pay(&required).await;
        world.tools.wait_for("slow", 1).await;
        let before = world.relay.events().len();
        world
            .relay
            .set(|faults| faults.answer = Answer::Refuse("blocked: not today".into()));
        world.tools.release(5);
        // The refused result is in the relay's log, but nobody got it.
        let refused = a.result(&call).await;
        assert!(world.relay.events().len() > before);
        world.relay.heal();
        a.send(&call).await;
        let again = a.wait(&call, 2, |heard| heard.is_response()).await;
        assert_eq!(again.json, refused.json);
        assert_eq!(
            (world.rail.minted(), world.tools.executions("slow")),
            (1, 1)
        );
    }
}

/// C-21
#[tokio::test]
async fn a_call_paid_while_the_relay_is_down_is_answered_when_it_is_back() {
    let outage = async |via| {
        let world = World::start().await;
        let a = world.client(via).await;
        let call = a.call(json!(1), "add", json!({}));
        a.send(&call).await;
        let required = a.required(&call).await;
        world.relay.go_down_for(Duration::from_secs(4));
        a.pay(&required).await;
        world.tools.wait_for("add", 1).await;
        assert_eq!(
            world.relay.connections(),
            0,
            "executed while nobody could be told"
        );
        a.result(&call).await;
        assert_eq!((world.rail.minted(), world.tools.executions("add")), (1, 1));
    };
    tokio::join!(
        outage(Via::Plain),
        outage(Via::Persistent),
        outage(Via::Ephemeral)
    );
}

/// C-22. The routes of answers are in the ledger, so sessions are no money; with fewer keys than evict one, to be quick.
#[tokio::test]
async fn a_crowd_between_invoice_and_payment_does_not_push_the_payer_out() {
    const CROWD: usize = 500;
    let world = World::start().await;
    let a = world.client(Via::Ephemeral).await;
    let call = a.call(json!(1), "add", json!({}));
    a.send(&call).await;
    let required = a.required(&call).await;
    let mut wire = world.client(Via::Plain).await;
    let mut crowd = Vec::new();
    for n in 0..CROWD {
        wire.keys = Keys::generate();
        crowd.push(wire.call(json!(n), "free", json!({})));
    }
    wire.wire.publish(&crowd).await;
    world.tools.wait_for("free", CROWD).await;
    a.pay(&required).await;
    let result = a.result(&call).await;
    assert_eq!(result.carrier, 21059);
    assert_eq!((world.rail.minted(), world.tools.executions("add")), (1, 1));
}

/// C-24
#[tokio::test]
async fn a_paid_result_that_cannot_be_carried_is_an_error_and_the_right_comes_back() {
    for via in Via::ALL {
        let world = World::start().await;
        let a = world.client(via).await;
        let call = a.call(json!(1), "big", json!({}));
        a.send(&call).await;
        let required = a.required(&call).await;
        a.pay(&required).await;
        let error = a.response(&call).await;
        assert!(error.code().is_some(), "{}", error.word());
        world.quiet().await;
        assert!(world.entries().await[0].is_authorization());
        // The right is worth one execution, without another invoice.
        let again = a.call(json!(2), "big", json!({}));
        a.send(&again).await;
        a.response(&again).await;
        assert_eq!((world.rail.minted(), world.tools.executions("big")), (1, 2));
    }
}

/// C-24 under explicit gating
#[tokio::test]
async fn a_gated_result_that_cannot_be_carried_gives_the_grant_back() {
    let world = World::start().await;
    let a = world.client(Via::Ephemeral).await.explicit();
    a.buy_grant(&a.call(json!(1), "big", json!({}))).await;
    for n in 2..4 {
        let again = a.call(json!(n), "big", json!({}));
        a.send(&again).await;
        let error = a.response(&again).await;
        assert!(
            !matches!(error.code(), None | Some(-32042 | -32043)),
            "{}",
            error.word()
        );
        world.quiet().await;
        assert!(world.entries().await[0].is_authorization());
    }
    assert_eq!((world.rail.minted(), world.tools.executions("big")), (1, 2));
}

/// Like C-19, later still: the money comes when the request has been refused.
#[tokio::test]
async fn late_money_buys_the_next_call() {
    for explicit in [false, true] {
        let world = World::builder()
            .payments(|payments| {
                payments
                    .payment_ttl(Duration::from_secs(1))
                    .settings(|settings| settings.settlement_grace = Duration::from_millis(500))
            })
            .start()
            .await;
        let a = world.client(Via::Plain).await;
        let a: Raw<'_> = if explicit { a.explicit() } else { a };
        let call = a.call(json!(1), "add", json!({}));
        a.send(&call).await;
        let offer = a
            .wait(&call, 1, |heard| {
                heard.is("payment_required") || heard.is_response()
            })
            .await;
        if explicit {
            tokio::time::sleep(Duration::from_secs(2)).await;
        } else {
            a.error(&call, -32000).await;
        }
        a.pay(&offer).await;
        a.wait(&call, 1, |heard| heard.is("payment_accepted")).await;
        world.quiet().await;
        assert_eq!(world.tools.executions("add"), 0);
        let again = a.call(json!(2), "add", json!({}));
        a.send(&again).await;
        a.result(&again).await;
        assert_eq!((world.rail.minted(), world.tools.executions("add")), (1, 1));
    }
}

/// The first invariant: less than the price, or something other than the unit of the price, is no payment.
#[tokio::test]
async fn too_little_money_executes_nothing() {
    for paid in ["6 sats", "0.07 usd"] {
        let world = World::start().await;
        let a = world.client(Via::Plain).await;
        let b = world.client(Via::Plain).await.explicit();
        let calls = [
            a.call(json!(1), "add", json!({})),
            b.call(json!(1), "add", json!({})),
        ];
        for (client, call) in [&a, &b].into_iter().zip(&calls) {
            client.send(call).await;
            client
                .wait(call, 1, |heard| {
                    heard.is("payment_required") || heard.is_response()
                })
                .await;
        }
        for reference in world.rail.references() {
            world
                .rail
                .settle_with(&reference, paid.parse().unwrap())
                .await;
        }
        let retry = b.call(json!(2), "add", json!({}));
        b.send(&retry).await;
        assert!(matches!(
            b.response(&retry).await.code(),
            Some(-32042 | -32043 | -32000)
        ));
        world.quiet().await;
        assert_eq!(world.tools.executions("add"), 0);
        assert!(!a.words(&calls[0]).contains(&"payment_accepted".to_owned()));
    }
}
