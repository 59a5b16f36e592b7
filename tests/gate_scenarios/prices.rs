//! C-33 to C-36: what is priced, at how much, and what the rail makes of it.

use std::time::Duration;

use serde_json::json;
use tollkeeper::payment::{SettlementNotice, Unit};
use tollkeeper::testing::{Harness, MintScript, RawClient};
use tollkeeper::wire::Request;
use tollkeeper::{Amount, Error, Invocation, PriceDecision, PricedCapability, Quote};

use super::PRICES;
use super::books::{self, kind, kinds};

const SECRET: &str = "nostr+walletconnect://secret?token=/etc/passwd";

fn sats(n: u64) -> Amount {
    Amount::new(n, Unit::SATS).unwrap()
}

async fn read(client: &RawClient, uri: &str) -> Option<String> {
    let request = Request::new(1, "resources/read", &json!({ "uri": uri })).unwrap();
    client.send(request.into()).await.unwrap();
    books::now(client).await.first().map(kind)
}

/// C-33, D-15.
#[tokio::test(start_paused = true)]
async fn d_15_a_wildcard_prices_everything_below_it_and_nothing_beside_it() {
    let harness = Harness::builder(&[
        "resource:private://*=7 sat",
        "resource:private://cheap=1 sat",
    ])
    .unwrap()
    .start()
    .await
    .unwrap();
    let client = harness.client(1);
    for uri in ["private://x", "private://a/b?c", "private://"] {
        assert_eq!(
            read(&client, uri).await.as_deref(),
            Some("payment_required"),
            "{uri}"
        );
    }
    assert_eq!(
        read(&client, "privatex://a").await.as_deref(),
        Some("result")
    );
    let before = harness.executions();
    client
        .send(
            Request::new(2, "resources/read", &json!({"uri": "private://cheap"}))
                .unwrap()
                .into(),
        )
        .await
        .unwrap();
    assert_eq!(books::now(&client).await[0]["params"]["amount"], 1);
    assert_eq!(harness.executions(), before);
}

/// D-16: a price cannot be dodged by spelling.
#[tokio::test(start_paused = true)]
async fn d_16_other_spellings_of_a_priced_resource_are_not_free() {
    let harness = Harness::builder(&[
        "resource:private://docs/*=7 sat",
        "resource:private://a/secret=7 sat",
    ])
    .unwrap()
    .payments(|p| p.limits(tollkeeper::ledger::OpenLimits::new(1000, 1000)))
    .start()
    .await
    .unwrap();
    let client = harness.client(1);
    for uri in [
        "PRIVATE://docs/x",
        " private://docs/x",
        "private://docs/x ",
        "private://./docs/x",
        "private://docs/./x",
        "private://docs/../docs/x",
        "private://other/../docs/x",
        "private://do%63s/x",
        "private://docs%2Fx",
        "priv\tate://docs/x",
        "private://do\ncs/x",
        "private:///docs/x",
        "private://docs//x",
        "private:\\\\docs\\x",
        "private://DOCS/x",
        "private://a/secret#x",
        "private://a/secret/",
        "private://a//secret",
        "private://a/%73ecret",
        "private://a/b/../secret",
        "private://docs/\u{200b}x",
        "private://docs\u{2f}x",
        "private://a/secret%00",
        "private://a/%2e/secret",
        "private://a/x/%2e%2e/secret",
        "private://a%2fsecret",
    ] {
        read(&client, uri).await;
    }
    let executed: Vec<String> = harness
        .executed()
        .iter()
        .filter_map(|e| e.request.params.as_ref().map(|p| p.get().to_owned()))
        .collect();
    assert!(executed.is_empty(), "served free: {executed:#?}");
}

/// C-33: a nameless entry prices the whole method; an exact one beats it.
#[tokio::test(start_paused = true)]
async fn a_method_as_a_whole_can_be_priced() {
    let harness = Harness::builder(&["tool:*=3 sat", "tool:add=7 sat"])
        .unwrap()
        .start()
        .await
        .unwrap();
    let client = harness.client(1);
    for (name, price) in [("add", 7), ("other", 3), ("", 3)] {
        client.call_tool(1, name, json!({})).await.unwrap();
        let answers = books::now(&client).await;
        assert_eq!(
            answers[0]["params"]["amount"], price,
            "{name:?}: {answers:?}"
        );
    }
    assert_eq!(harness.executions(), 0);
}

/// C-34, D-17, D-25, D-26: nothing that is wrong with a quote reaches the wallet or the client.
#[tokio::test(start_paused = true)]
async fn d_17_a_quote_that_cannot_be_right_is_a_failure_of_the_server() {
    for explicit in [false, true] {
        for case in 0..6 {
            let resolver = move |_: Invocation, _: PricedCapability| async move {
                let quote = |amount| Ok(Quote::new(amount).into());
                match case {
                    0 => quote(Amount::zero(Unit::SATS)),
                    1 => quote(sats(4)),
                    2 => quote(sats(10)),
                    3 => quote(Amount::new(7, Unit::USD_CENTS).unwrap()),
                    4 => Err(Error::config(SECRET)),
                    _ => std::future::pending::<Result<PriceDecision, Error>>().await,
                }
            };
            let harness = Harness::builder(&["tool:add=5-9 sat"])
                .unwrap()
                .payments(|p| p.resolve_price(resolver))
                .start()
                .await
                .unwrap();
            let mut client = harness.client(1);
            if explicit {
                client = client.explicit();
            }
            client.call_tool(1, "add", json!({})).await.unwrap();
            let answers = client.collect(Duration::from_secs(7)).await.unwrap();
            let text = format!("{answers:?}");
            assert_eq!(
                kind(&answers.last().unwrap().1),
                "-32000",
                "case {case}: {text}"
            );
            assert_eq!(answers.last().unwrap().1["id"], 1);
            assert!(
                !text.contains("nostr+walletconnect") && !text.contains("/etc"),
                "{text}"
            );
            assert!(books::nothing_minted(&harness), "case {case}");
            assert_eq!(harness.executions(), 0, "case {case}");
        }
    }
}

/// C-34: a hook that panics takes nothing down with it.
#[tokio::test(start_paused = true)]
async fn d_26_a_price_hook_that_panics_is_a_failure_of_the_server() {
    async fn panics(_: Invocation, _: PricedCapability) -> Result<PriceDecision, Error> {
        panic!("scripted")
    }
    for explicit in [false, true] {
        let harness = Harness::builder(&PRICES)
            .unwrap()
            .payments(|p| p.resolve_price(panics))
            .start()
            .await
            .unwrap();
        let mut client = harness.client(1);
        if explicit {
            client = client.explicit();
        }
        for id in 1..3 {
            client.call_tool(id, "add", json!({})).await.unwrap();
            let answers = client.collect(Duration::from_secs(7)).await.unwrap();
            let last = answers.last().map(|(_, m)| kind(m));
            assert_eq!(last.as_deref(), Some("-32000"), "{answers:?}");
        }
        client.call_tool(9, "free", json!({})).await.unwrap();
        assert_eq!(kinds(&books::now(&client).await), ["result"]);
    }
}

/// C-35, D-19.
#[tokio::test(start_paused = true)]
async fn d_19_an_invoice_other_than_ordered_never_reaches_the_client() {
    let scripts = [
        MintScript::WrongAmount(sats(1)),
        MintScript::WrongAmount(sats(8)),
        MintScript::WrongAmount(Amount::new(7, Unit::USD_CENTS).unwrap()),
        MintScript::WrongPmi("other".parse().unwrap()),
        MintScript::EmptyPayReq,
        MintScript::Fail(SECRET.to_owned()),
        MintScript::Hang,
        MintScript::Panic,
    ];
    for explicit in [false, true] {
        for script in &scripts {
            let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
            harness.rail.on_mint(script.clone());
            let mut client = harness.client(1);
            if explicit {
                client = client.explicit();
            }
            client.call_tool(1, "add", json!({})).await.unwrap();
            let answers = client.collect(Duration::from_secs(15)).await.unwrap();
            let text = format!("{answers:?}");
            let last = answers.last().map(|(_, m)| kind(m));
            assert_eq!(last.as_deref(), Some("-32000"), "{script:?}: {text}");
            assert!(
                !text.contains("scripted:") && !text.contains("secret"),
                "{script:?}: {text}"
            );
            assert_eq!(harness.executions(), 0);
            // Even if somebody pays it, nobody is let through by it.
            if let Some(reference) = harness.rail.references().first() {
                harness.rail.settle(reference).await;
            }
            client.collect(Duration::from_secs(30)).await.unwrap();
            assert_eq!(harness.executions(), 0, "{script:?}");
        }
    }
}

/// D-19, invariant 2: a wallet that hands out one invoice twice is paid once.
#[tokio::test(start_paused = true)]
async fn one_invoice_for_two_orders_is_not_two_executions() {
    for explicit in [false, true] {
        let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
        harness
            .rail
            .on_mint(MintScript::Reused("the-same".to_owned()));
        let mut client = harness.client(1);
        if explicit {
            client = client.explicit();
        }
        client.call_tool(1, "add", json!({"n": 1})).await.unwrap();
        client.call_tool(2, "add", json!({"n": 2})).await.unwrap();
        books::now(&client).await;
        harness.rail.settle("the-same").await;
        client.collect(Duration::from_secs(60)).await.unwrap();
        if explicit {
            client.call_tool(3, "add", json!({"n": 1})).await.unwrap();
            client.call_tool(4, "add", json!({"n": 2})).await.unwrap();
            client.collect(Duration::from_secs(60)).await.unwrap();
        }
        assert!(
            harness.executions() <= 1,
            "explicit: {explicit}, {} executions",
            harness.executions()
        );
    }
}

/// D-20: the state of an invoice is not enough; the amount that arrived counts, in its unit.
#[tokio::test(start_paused = true)]
async fn d_20_less_than_asked_or_another_unit_buys_nothing() {
    for explicit in [false, true] {
        for amount in [
            sats(6),
            Amount::zero(Unit::SATS),
            Amount::new(7, Unit::USD_CENTS).unwrap(),
        ] {
            let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
            let mut client = harness.client(1);
            if explicit {
                client = client.explicit();
            }
            client.call_tool(1, "add", json!({})).await.unwrap();
            books::now(&client).await;
            let reference = harness.rail.references()[0].clone();
            harness.rail.settle_with(&reference, amount.clone()).await;
            tokio::time::sleep(Duration::from_secs(30)).await;
            client.call_tool(2, "add", json!({})).await.unwrap();
            tokio::time::sleep(Duration::from_secs(30)).await;
            assert_eq!(harness.executions(), 0, "{amount}");
            assert_eq!(books::authorizations(&harness).await, 0, "{amount}");
        }
    }
}

/// The other side of D-20.
#[tokio::test(start_paused = true)]
async fn more_than_asked_is_one_execution() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    books::now(&client).await;
    harness
        .rail
        .settle_with(&harness.rail.references()[0], sats(1000))
        .await;
    assert_eq!(
        kinds(&books::now(&client).await),
        ["payment_accepted", "result"]
    );
    books::balance(&harness).await;
}

/// A notice is a hint, a repeated notice a repeated hint.
#[tokio::test(start_paused = true)]
async fn notices_that_are_repeated_or_about_nothing_change_nothing() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    books::now(&client).await;
    let reference = harness.rail.references()[0].clone();
    // "Something happened" is not money.
    harness
        .rail
        .push(SettlementNotice::new(reference.clone(), None))
        .await;
    harness
        .rail
        .push(SettlementNotice::new("unheard-of", None))
        .await;
    tokio::time::sleep(books::SOON).await;
    assert_eq!(harness.executions(), 0);
    for _ in 0..5 {
        harness.rail.settle(&reference).await;
    }
    assert_eq!(
        kinds(&books::now(&client).await),
        ["payment_accepted", "result"]
    );
    for _ in 0..5 {
        harness.rail.settle(&reference).await;
    }
    assert!(client.is_silent_for(Duration::from_secs(60)).await);
    books::balance(&harness).await;
}

/// C-36, N-73, N-95.
#[tokio::test(start_paused = true)]
async fn waivers_and_rejections_ask_nothing_of_the_wallet() {
    for explicit in [false, true] {
        for waive in [false, true] {
            let resolver = move |_: Invocation, _: PricedCapability| async move {
                Ok::<_, Error>(if waive {
                    PriceDecision::Waive
                } else {
                    PriceDecision::reject("not you")
                })
            };
            let harness = Harness::builder(&PRICES)
                .unwrap()
                .payments(|p| p.resolve_price(resolver))
                .start()
                .await
                .unwrap();
            let mut client = harness.client(1);
            if explicit {
                client = client.explicit();
            }
            client.call_tool(1, "add", json!({})).await.unwrap();
            let answers = books::now(&client).await;
            if waive {
                assert_eq!(kinds(&answers), ["result"]);
            } else {
                assert_eq!(kind(answers.last().unwrap()), "-32000");
                assert!(format!("{answers:?}").contains("not you"));
            }
            assert!(books::nothing_minted(&harness));
            assert_eq!(harness.executions(), usize::from(waive));
            assert!(
                harness
                    .entries()
                    .await
                    .unwrap()
                    .iter()
                    .all(|e| !e.state.is_open_offer())
            );
        }
    }
}

/// A waived event is still one event.
#[tokio::test(start_paused = true)]
async fn a_waived_event_that_comes_twice_is_one_execution() {
    let waive = |_: Invocation, _: PricedCapability| async { Ok::<_, Error>(PriceDecision::Waive) };
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .payments(|p| p.resolve_price(waive))
        .start()
        .await
        .unwrap();
    let client = harness.client(1);
    let sent = client.call_tool(1, "add", json!({})).await.unwrap();
    books::now(&client).await;
    client.send_again(&sent).await.unwrap();
    books::now(&client).await;
    assert_eq!(harness.executions(), 1);
}

/// D-18: a unit that no rail counts in is refused before the start.
#[tokio::test(start_paused = true)]
async fn d_18_a_price_in_a_unit_that_no_rail_accepts_is_refused_at_the_start() {
    let started = Harness::builder(&["tool:add=1 usd"]).unwrap().start().await;
    assert!(started.unwrap_err().to_string().contains("add"));
}

/// Section 6 of the design: what can only be a mistake is refused, naming the entry.
#[tokio::test(start_paused = true)]
async fn price_lists_that_can_only_be_mistakes_are_refused() {
    for list in [
        &["tool:add=0 sat"][..],
        &["tool:add=9-5 sat"],
        &["tool:add=1 sat", "tool:add=2 sat"],
        &["tool:a*=1 sat", "tool:a*=2 sat"],
        &["tool:=1 sat"],
        &["tool:add=-1 sat"],
        &["tool:add=1.5 sat"],
    ] {
        let refused = match Harness::builder(list) {
            Ok(builder) => builder.start().await.is_err(),
            Err(_) => true,
        };
        assert!(refused, "{list:?}");
    }
}
