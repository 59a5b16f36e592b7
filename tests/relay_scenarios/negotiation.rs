//! Which of the two lifecycles a call gets.

use serde_json::json;
use tollkeeper::payment::PaymentInteractionPolicy;

use super::raw::{Via, tag};
use super::world::World;

/// C-04
#[tokio::test]
async fn a_first_call_that_asks_for_explicit_gating_is_answered_so_at_once() {
    for via in Via::ALL {
        let world = World::start().await;
        let a = world.client(via).await.explicit();
        let call = a.call(json!("x"), "add", json!({}));
        a.send(&call).await;
        let required = a.error(&call, -32042).await;
        assert_eq!(required.json["id"], "x");
        assert_eq!(required.json["error"]["message"], "Payment Required");
        assert!(required.json["error"]["data"]["instructions"].is_string());
        assert_eq!(required.offer()["amount"], 7);
        assert_eq!(
            required.tags("payment_interaction"),
            [["payment_interaction", "explicit_gating"]]
        );
        assert_eq!(required.carrier, via.kind());
        world.quiet().await;
        assert_eq!(a.words(&call), ["-32042"]);
        assert_eq!((world.rail.minted(), world.tools.executions("add")), (1, 0));
    }
}

/// N-48
#[tokio::test]
async fn whoever_asks_for_explicit_gating_is_told_so_each_time() {
    let world = World::start().await;
    let a = world.client(Via::Plain).await.explicit();
    for n in 0..3 {
        let call = a.call(json!(n), "add", json!({"n": n}));
        a.send(&call).await;
        let required = a.error(&call, -32042).await;
        assert_eq!(
            required.tags("payment_interaction"),
            [["payment_interaction", "explicit_gating"]]
        );
    }
}

/// C-05
#[tokio::test]
async fn a_transparent_server_refuses_explicit_gating_and_mints_nothing() {
    for via in [Via::Plain, Via::Ephemeral] {
        let world = World::builder()
            .payments(|payments| payments.interaction(PaymentInteractionPolicy::Transparent))
            .start()
            .await;
        let mut a = world.client(via).await.explicit();
        let call = a.call(json!("x"), "add", json!({}));
        a.send(&call).await;
        let refused = a.error(&call, -32602).await;
        assert_eq!(refused.json["id"], "x");
        let data = json!({"requested": "explicit_gating", "supported": ["transparent"]});
        assert_eq!(refused.json["error"]["data"], data);
        world.quiet().await;
        assert_eq!(a.words(&call), ["-32602"]);
        assert_eq!((world.rail.minted(), world.tools.executions("add")), (0, 0));

        // Who does not ask for it afterwards is served as ever (N-45).
        a.tags.pop();
        a.buy(&a.call(json!(2), "add", json!({}))).await;
    }
}

/// C-06
#[tokio::test]
async fn the_first_word_counts_and_an_unknown_one_means_transparent() {
    let world = World::start().await;
    let lists: [&[&[&str]]; 5] = [
        &[
            &["payment_interaction", "transparent"],
            &["payment_interaction", "explicit_gating"],
        ],
        &[&["payment_interaction", "bogus"]],
        &[&["payment_interaction", "EXPLICIT_GATING"]],
        &[&["payment_interaction"]],
        &[],
    ];
    for listed in lists {
        let mut a = world.client(Via::Plain).await;
        a.tags.extend(listed.iter().map(|parts| tag(parts)));
        let call = a.call(json!(1), "add", json!({}));
        a.send(&call).await;
        a.required(&call).await;
        world.quiet().await;
        assert_eq!(a.words(&call), ["payment_required"], "{listed:?}");
    }
    let a = world.client(Via::Plain).await.explicit();
    let mut a = a;
    a.tags.push(tag(&["payment_interaction", "transparent"]));
    let call = a.call(json!(1), "add", json!({}));
    a.send(&call).await;
    a.error(&call, -32042).await;
}

/// C-07
#[tokio::test]
async fn initialize_ends_explicit_gating_and_leaves_its_grants_alone() {
    for via in [Via::Plain, Via::Ephemeral] {
        let world = World::start().await;
        let mut a = world.client(via).await.explicit();
        a.buy_grant(&a.call(json!(1), "add", json!({"a": 1}))).await;
        let interaction = a.tags.pop().unwrap();
        let initialize = a.request(
            json!(2),
            "initialize",
            json!({"protocolVersion": "2025-06-18"}),
        );
        a.send(&initialize).await;
        a.result(&initialize).await;

        let untagged = a.call(json!(3), "add", json!({"a": 1}));
        a.send(&untagged).await;
        a.required(&untagged).await;
        world.quiet().await;
        assert_eq!(a.words(&untagged), ["payment_required"]);
        assert_eq!(world.tools.executions("add"), 0, "the grant is untouched");

        a.tags.push(interaction);
        let again = a.call(json!(4), "add", json!({"a": 1}));
        a.send(&again).await;
        a.result(&again).await;
        assert_eq!((world.rail.minted(), world.tools.executions("add")), (2, 1));
    }
}

/// N-47: without `initialize` an untagged message inherits the mode of its session.
#[tokio::test]
async fn an_untagged_call_stays_in_the_mode_of_its_session() {
    let world = World::start().await;
    let mut a = world.client(Via::Plain).await.explicit();
    let call = a.call(json!(1), "add", json!({"a": 1}));
    a.buy_grant(&call).await;
    a.tags.pop();
    let untagged = a.call(json!(2), "add", json!({"a": 1}));
    a.send(&untagged).await;
    a.result(&untagged).await;
    assert_eq!((world.rail.minted(), world.tools.executions("add")), (1, 1));
}
