//! What a call costs, and what happens when nobody can say.

use std::time::Duration;

use nostr_sdk::JsonUtil;
use serde_json::{Value, json};
use tollkeeper::testing::MintScript;
use tollkeeper::{Amount, Error, ErrorKind, Invocation, PriceDecision, PricedCapability, Quote};

use super::raw::{Raw, Via};
use super::world::World;

/// What must never reach a client, whatever breaks.
const SECRET: &str =
    "nostr+walletconnect://b889ff?secret=71a8c1 token=hunter2 /var/lib/wallet/admin.macaroon";

fn assert_no_secret(clients: &[&Raw<'_>]) {
    for heard in clients.iter().flat_map(|client| client.heard()) {
        let said = heard.event.as_json();
        for part in [
            "walletconnect",
            "secret",
            "hunter2",
            "macaroon",
            "/var/",
            "src/",
            "panic",
        ] {
            assert!(
                !said.contains(part) || heard.json["id"] == part,
                "{part} in {said}"
            );
        }
    }
}

/// C-33
#[tokio::test]
async fn the_most_specific_price_counts() {
    let prices = [
        "resource:private://*=5 sat",
        "resource:private://a/known=9 sat",
        "resource:private://a/*=6 sat",
        "method:tools/call=2 sat",
        "tool:add=7 sat",
        "prompt:p*=3 sat",
    ];
    let world = World::builder().prices(&prices).start().await;
    let a = world.client(Via::Plain).await;
    let read = |uri: &str| ("resources/read", json!({"uri": uri}));
    let named = |method: &'static str, name: &str| (method, json!({"name": name}));
    let priced = [
        (read("private://x"), 5),
        (read("private://b/c?d"), 5),
        (read("private://a/b?c"), 6),
        (read("private://a/known"), 9),
        (named("tools/call", "free"), 2),
        (named("tools/call", "anything"), 2),
        (named("tools/call", "add"), 7),
        (named("prompts/get", "poem"), 3),
    ];
    for (n, ((method, params), amount)) in priced.into_iter().enumerate() {
        let request = a.request(json!(n), method, params);
        a.send(&request).await;
        assert_eq!(
            a.required(&request).await.offer()["amount"],
            amount,
            "{}",
            request.content
        );
    }
    for (method, params) in [
        read("privatex://x"),
        read("public://private://x"),
        named("prompts/get", "verse"),
    ] {
        let request = a.request(json!(1), method, params);
        a.send(&request).await;
        a.result(&request).await;
    }
}

/// C-33
#[tokio::test]
async fn a_price_cannot_be_dodged_by_spelling() {
    let prices = [
        "resource:private://*=5 sat",
        "resource:file:///secret/*=5 sat",
        "tool:add=7 sat",
    ];
    let world = World::builder().prices(&prices).start().await;
    let a = world.client(Via::Plain).await;
    let spellings = [
        "PRIVATE://x",
        "Private://x",
        " private://x",
        "\tprivate://x",
        "private://x ",
        "pri\tvate://x",
        "pri\nvate://x",
        "private://./x",
        "private:///x",
        "\u{0}private://x",
        "\u{feff}private://x",
        "private:\\\\x",
        "FILE:///secret/a",
        "file:///public/../secret/a",
        "file:///./secret/a",
        "file:////secret/a",
        "file:/secret/a",
        "file:///%73ecret/a",
        "file:///secret%2Fa",
        "file://localhost/secret/a",
        "file:///public/%2e%2e/secret/a",
        "file:///public/..%2fsecret/a",
        "file:///public\\..\\secret\\a",
        "file:///SECRET/../secret/a",
        "file:///secret//a",
    ];
    let requests: Vec<_> = spellings
        .iter()
        .enumerate()
        .map(|(n, uri)| a.request(json!(n), "resources/read", json!({"uri": uri})))
        .collect();
    for request in &requests {
        a.send(request).await;
    }
    world.quiet().await;
    let served: Vec<_> = spellings
        .into_iter()
        .filter(|uri| world.tools.executions(uri) > 0)
        .collect();
    assert!(served.is_empty(), "served free: {served:?}");
    assert!(
        requests
            .iter()
            .all(|request| !a.words(request).contains(&"result".to_owned()))
    );
}

fn sats(value: u64) -> Amount {
    format!("{value} sat").parse().unwrap()
}

async fn quote(call: Invocation, listed: PricedCapability) -> Result<PriceDecision, Error> {
    match call.params["arguments"]["do"].as_str() {
        Some("error") => Err(Error::new(ErrorKind::Price, SECRET)),
        Some("panic") => panic!("{SECRET}"),
        Some("hang") => std::future::pending().await,
        Some("zero") => Ok(Quote::new(Amount::zero(listed.price.unit().clone())).into()),
        Some("below") => Ok(Quote::new(sats(6)).into()),
        Some("above") => Ok(Quote::new(sats(10)).into()),
        Some("huge") => Ok(Quote::new(sats(9_007_199_254_740_991)).into()),
        Some("unit") => Ok(Quote::new("0.08 usd".parse().unwrap()).into()),
        Some("waive") => Ok(PriceDecision::Waive),
        Some("reject") => Ok(PriceDecision::reject("not for you")),
        Some("no") => Ok(PriceDecision::Reject { message: None }),
        _ => Ok(Quote::new(sats(9)).into()),
    }
}

async fn world_that_quotes() -> World {
    World::builder()
        .prices(&["tool:add=7-9 sat"])
        .payments(|payments| {
            payments
                .resolve_price(quote)
                .settings(|settings| settings.price_timeout = Duration::from_millis(300))
        })
        .start()
        .await
}

/// C-34. Fractions, negative amounts and amounts beyond 2^53 cannot be quoted: the type has no such values.
#[tokio::test]
async fn a_quote_that_cannot_be_charged_is_a_failure_of_the_server() {
    for via in [Via::Plain, Via::Ephemeral] {
        let world = world_that_quotes().await;
        let a = world.client(via).await;
        let b = world.client(via).await.explicit();
        for what in [
            "error", "panic", "hang", "zero", "below", "above", "huge", "unit",
        ] {
            for client in [&a, &b] {
                let call = client.call(json!(what), "add", json!({"do": what}));
                client.send(&call).await;
                let error = client.error(&call, -32000).await;
                assert_eq!(error.json["id"], what);
                let words = client.words(&call);
                assert!(!words.contains(&"payment_required".to_owned()), "{words:?}");
            }
        }
        assert_no_secret(&[&a, &b]);
        assert_eq!((world.rail.minted(), world.tools.executions("add")), (0, 0));
        // The gate still works.
        a.buy(&a.call(json!(1), "add", json!({}))).await;
    }
}

/// C-35. An amount inside the invoice that differs from the quote is for the rails that have one.
#[tokio::test]
async fn an_invoice_other_than_ordered_is_never_shown() {
    let scripts = [
        MintScript::WrongAmount(sats(8)),
        MintScript::WrongAmount(sats(6)),
        MintScript::WrongAmount("0.07 usd".parse().unwrap()),
        MintScript::WrongPmi("other".parse().unwrap()),
        MintScript::EmptyPayReq,
        MintScript::Expired,
        MintScript::Fail(SECRET.to_owned()),
        MintScript::Panic,
        MintScript::Hang,
    ];
    for via in [Via::Plain, Via::Ephemeral] {
        let timeout = Duration::from_millis(300);
        let world = World::builder()
            .payments(move |payments| {
                payments.settings(|settings| settings.processor_timeout = timeout)
            })
            .start()
            .await;
        let a = world.client(via).await;
        let b = world.client(via).await.explicit();
        for (n, script) in scripts.iter().enumerate() {
            world.rail.on_mint(script.clone());
            for client in [&a, &b] {
                let call = client.call(json!(n), "add", json!({"n": n}));
                client.send(&call).await;
                let error = client.error(&call, -32000).await;
                assert_eq!(error.json["error"]["data"]["payment_options"], Value::Null);
                let words = client.words(&call);
                assert!(
                    !words.contains(&"payment_required".to_owned()),
                    "{script:?}: {words:?}"
                );
            }
        }
        assert_no_secret(&[&a, &b]);
        world.rail.on_mint(MintScript::Honest);
        a.buy(&a.call(json!("after"), "add", json!({"n": 0}))).await;
        b.buy_grant(&b.call(json!("after"), "add", json!({"n": 0})))
            .await;
        assert_eq!(world.tools.executions("add"), 1);
    }
}

/// C-36
#[tokio::test]
async fn who_need_not_pay_is_served_and_who_may_not_is_refused() {
    for via in [Via::Plain, Via::Ephemeral] {
        let world = world_that_quotes().await;
        let a = world.client(via).await;
        let b = world.client(via).await.explicit();
        for client in [&a, &b] {
            let waived = client.call(json!(1), "add", json!({"do": "waive"}));
            client.send(&waived).await;
            client.result(&waived).await;
            world.quiet().await;
            assert_eq!(client.words(&waived), ["result"]);
            for (what, text) in [("reject", Some("not for you")), ("no", None)] {
                let rejected = client.call(json!(what), "add", json!({"do": what}));
                client.send(&rejected).await;
                let error = client.error(&rejected, -32000).await;
                if let Some(text) = text {
                    assert!(
                        error.json["error"]["message"]
                            .as_str()
                            .unwrap()
                            .contains(text),
                        "{}",
                        error.json
                    );
                }
            }
        }
        assert_eq!((world.rail.minted(), world.tools.executions("add")), (0, 2));
        assert!(world.entries().await.is_empty());
        // In the transparent lifecycle the notification comes first, for clients that only know that.
        let rejected = a.call(json!("r"), "add", json!({"do": "reject", "r": 1}));
        a.send(&rejected).await;
        a.response(&rejected).await;
        assert_eq!(a.words(&rejected), ["payment_rejected", "-32000"]);
        // A waived call that is sent again is not executed again.
        let waived = a.call(json!("w"), "add", json!({"do": "waive", "w": 1}));
        a.send(&waived).await;
        a.result(&waived).await;
        a.send(&waived).await;
        world.quiet().await;
        assert_eq!(world.tools.executions("add"), 3);
    }
}
