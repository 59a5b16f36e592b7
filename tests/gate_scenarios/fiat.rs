//! Prices in money that the payment method does not take: converted at a rate, or not quoted at all.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tollkeeper::ledger::EntryState;
use tollkeeper::payment::{Clock, FixedRates, Margin, Rate, RateSource, Unit};
use tollkeeper::server::ServerPayments;
use tollkeeper::testing::{Harness, HarnessBuilder, RawClient, ScriptedProcessor};
use tollkeeper::{Amount, Error, ErrorKind, Invocation, PriceDecision, PricedCapability, Quote};

use super::books::{self, kind, kinds};

const FIVE_CENTS: [&str; 1] = ["tool:add=0.05 usd"];

fn bitcoin(price: &str) -> Rate {
    Rate::of_one_bitcoin(price, &Unit::USD_CENTS, 2).unwrap()
}

/// What a [`Desk`] does when it is asked.
#[derive(Debug, Clone)]
enum Desk {
    Says(Rate),
    Fails,
    Hangs,
    Panics,
}

/// A source of rates that does what the test says.
#[derive(Debug, Clone)]
struct Exchange(Arc<Mutex<Desk>>);

impl Exchange {
    fn new(rate: Rate) -> Self {
        Self(Arc::new(Mutex::new(Desk::Says(rate))))
    }

    fn now(&self, desk: Desk) {
        *self.0.lock().unwrap() = desk;
    }
}

#[async_trait]
impl RateSource for Exchange {
    fn covers(&self, from: &Unit, to: &Unit) -> bool {
        *from == Unit::USD_CENTS && *to == Unit::SATS
    }

    async fn rate(&self, _from: &Unit, _to: &Unit) -> Result<Rate, Error> {
        let desk = self.0.lock().unwrap().clone();
        match desk {
            Desk::Says(rate) => Ok(rate),
            Desk::Fails => Err(Error::new(
                ErrorKind::Price,
                "https://rates.example.com?key=secret is down",
            )),
            Desk::Hangs => std::future::pending().await,
            Desk::Panics => panic!("scripted"),
        }
    }
}

fn selling(rates: Arc<dyn RateSource>) -> HarnessBuilder {
    Harness::builder(&FIVE_CENTS).unwrap().payments(|payments| {
        payments
            .rates(rates)
            .rate_margin("1%".parse().unwrap())
            .rate_max_age(Duration::from_secs(60))
    })
}

async fn demand(client: &RawClient, id: i64) -> Value {
    client
        .call_tool(id, "add", json!({ "id": id }))
        .await
        .unwrap();
    books::now(client).await.remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_price_in_dollars_is_asked_for_in_sats_and_says_at_which_rate() {
    let rates = FixedRates::new(vec![bitcoin("65000")]);
    let harness = selling(Arc::new(rates)).start().await.unwrap();
    let client = harness.client(1);
    let asked = demand(&client, 1).await;
    assert_eq!(kind(&asked), "payment_required");
    // 0.05 usd are 76.92 sats, with 1% 77.69.
    assert_eq!(asked["params"]["amount"], 78);
    assert_eq!(
        asked["params"]["_meta"],
        json!({
            "tollkeeper/price": { "amount": 5, "unit": "usd-cents" },
            "tollkeeper/rate": {
                "from": { "amount": 6_500_000, "unit": "usd-cents" },
                "to": { "amount": 100_000_000, "unit": "sats" },
                "margin_basis_points": 100,
            },
        })
    );
    let entries = harness.entries().await.unwrap();
    assert_eq!(
        entries[0].amount,
        Amount::new(78, Unit::SATS).unwrap(),
        "the books count what is paid"
    );
    assert!(
        entries[0].meta.as_deref().unwrap().contains("usd-cents"),
        "and keep what was priced"
    );

    books::settle(&harness, 0).await;
    let answers = books::now(&client).await;
    assert_eq!(kinds(&answers), ["payment_accepted", "result"]);
    assert_eq!(answers[0]["params"]["amount"], 78);
    books::balance(&harness).await;

    let tags = harness.server.gate().prices().cap_tags();
    assert_eq!(
        tags[0].to_tag().into_parts(),
        ["cap", "tool:add", "5", "usd-cents"],
        "advertised as configured"
    );
}

#[tokio::test(start_paused = true)]
async fn explicit_gating_says_the_rate_in_its_option() {
    let harness = Harness::builder(&FIVE_CENTS).unwrap();
    let clock = Arc::new(tollkeeper::testing::TestClock::new());
    let seen = clock.now();
    let rates = FixedRates::new(vec![bitcoin("100000.005").observed_at(seen)]);
    let harness = harness
        .clock(Arc::clone(&clock))
        .payments(|payments| payments.rates(Arc::new(rates)))
        .start()
        .await
        .unwrap();
    let client = harness.client(1).explicit();
    let answer = demand(&client, 1).await;
    assert_eq!(kind(&answer), "-32042");
    let option = &answer["error"]["data"]["payment_options"][0];
    assert_eq!(option["amount"], 50);
    let rate = &option["_meta"]["tollkeeper/rate"];
    assert_eq!(rate["seen_at"], seen.as_secs());
    assert_eq!(rate["from"]["amount"], 100_000_005);
    assert_eq!(rate["to"]["amount"], 1_000_000_000);
}

#[tokio::test(start_paused = true)]
async fn without_a_good_rate_nothing_is_quoted_and_nothing_is_minted() {
    let yen = Rate::of_one_bitcoin("9500000", &"jpy".parse().unwrap(), 0).unwrap();
    let backwards = Rate::new(
        Amount::new(1, Unit::SATS).unwrap(),
        Amount::new(1, Unit::USD_CENTS).unwrap(),
    )
    .unwrap();
    let to_euros = Rate::new(
        Amount::new(1, Unit::USD_CENTS).unwrap(),
        Amount::new(1, "eur-cents".parse().unwrap()).unwrap(),
    )
    .unwrap();
    let dust = Rate::new(
        Amount::new(1, Unit::USD_CENTS).unwrap(),
        Amount::new(tollkeeper::payment::MAX_AMOUNT, Unit::SATS).unwrap(),
    )
    .unwrap();
    for desk in [
        Desk::Fails,
        Desk::Hangs,
        Desk::Panics,
        Desk::Says(yen),
        Desk::Says(backwards),
        Desk::Says(to_euros),
        Desk::Says(dust),
    ] {
        for explicit in [false, true] {
            let exchange = Exchange::new(bitcoin("65000"));
            exchange.now(desk.clone());
            let harness = selling(Arc::new(exchange)).start().await.unwrap();
            let client = if explicit {
                harness.client(1).explicit()
            } else {
                harness.client(1)
            };
            client.call_tool(1, "add", json!({})).await.unwrap();
            let answers: Vec<Value> = client
                .collect(Duration::from_secs(10))
                .await
                .unwrap()
                .into_iter()
                .map(|(_, json)| json)
                .collect();
            let expected: &[&str] = if explicit {
                &["-32000"]
            } else {
                &["payment_rejected", "-32000"]
            };
            assert_eq!(kinds(&answers), expected, "{desk:?}");
            let said = format!("{answers:?}");
            assert!(
                said.contains("nothing was charged"),
                "the client is told what matters to it: {said}"
            );
            for word in ["secret", "example.com", "rate", "usd", "panicked"] {
                assert!(!said.contains(word), "{word} in {said}");
            }
            assert!(books::nothing_minted(&harness));
            assert!(harness.entries().await.unwrap().is_empty());
            assert_eq!(harness.executions(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_may_be_as_old_as_it_may_be_and_no_older() {
    let clock = Arc::new(tollkeeper::testing::TestClock::new());
    let exchange = Exchange::new(bitcoin("65000").observed_at(clock.now()));
    let harness = selling(Arc::new(exchange.clone()))
        .clock(Arc::clone(&clock))
        .start()
        .await
        .unwrap();
    let client = harness.client(1);
    tokio::time::advance(Duration::from_millis(59_900)).await;
    assert_eq!(kind(&demand(&client, 1).await), "payment_required");
    tokio::time::advance(Duration::from_millis(200)).await;
    assert_eq!(kind(&demand(&client, 2).await), "payment_rejected");
    assert_eq!(harness.rail.minted(), 1);

    // A new rate, and it sells again.
    books::now(&client).await;
    exchange.now(Desk::Says(bitcoin("65000").observed_at(clock.now())));
    assert_eq!(kind(&demand(&client, 3).await), "payment_required");

    // One from the future is as bad: nobody knows how old it is.
    let future = clock.now().plus(Duration::from_secs(120));
    exchange.now(Desk::Says(bitcoin("65000").observed_at(future)));
    assert_eq!(kind(&demand(&client, 4).await), "payment_rejected");
    books::now(&client).await;

    // One that was set by hand does not age.
    exchange.now(Desk::Says(bitcoin("65000")));
    tokio::time::advance(Duration::from_secs(7_000)).await;
    books::now(&client).await;
    assert_eq!(kind(&demand(&client, 5).await), "payment_required");
}

/// What was asked for stands: no repetition, restart or new rate changes it.
#[tokio::test(start_paused = true)]
async fn a_rate_that_jumps_changes_new_offers_only() {
    let exchange = Exchange::new(bitcoin("65000"));
    let harness = selling(Arc::new(exchange.clone())).start().await.unwrap();
    let client = harness.client(1);
    let sent = client.call_tool(1, "add", json!({})).await.unwrap();
    let first = books::now(&client).await.remove(0);
    assert_eq!(first["params"]["amount"], 78);

    exchange.now(Desk::Says(bitcoin("32500")));
    client.send_again(&sent).await.unwrap();
    let again = books::now(&client).await.remove(0);
    assert_eq!(again["params"]["amount"], 78);
    assert_eq!(again["params"]["_meta"], first["params"]["_meta"]);
    assert_eq!(again["params"]["pay_req"], first["params"]["pay_req"]);
    assert_eq!(demand(&client, 2).await["params"]["amount"], 156);

    let crashed = harness.crash();
    exchange.now(Desk::Fails);
    let harness = selling(Arc::new(exchange))
        .after(&crashed)
        .unwrap()
        .start()
        .await
        .unwrap();
    let entries = harness.entries().await.unwrap();
    let mut amounts: Vec<u64> = entries.iter().map(|entry| entry.amount.value()).collect();
    amounts.sort_unstable();
    assert_eq!(amounts, [78, 156], "asked for as before, without any rate");
    books::settle(&harness, 0).await;
    books::settle(&harness, 1).await;
    books::balance(&harness).await;
    let entries = harness.entries().await.unwrap();
    assert!(
        entries
            .iter()
            .all(|entry| entry.state == EntryState::Delivered)
    );
}

/// The price that the hook names is checked against the list before it is converted.
#[tokio::test(start_paused = true)]
async fn the_advertised_range_is_one_of_dollars() {
    for (cents, quoted) in [(4, false), (5, true), (50, true), (51, false)] {
        let resolver = move |_: Invocation, _: PricedCapability| async move {
            let amount = Amount::new(cents, Unit::USD_CENTS)?;
            Ok::<PriceDecision, Error>(Quote::new(amount).into())
        };
        let harness = Harness::builder(&["tool:add=0.05-0.50 usd"])
            .unwrap()
            .payments(|payments| {
                payments
                    .resolve_price(resolver)
                    .rates(Arc::new(FixedRates::new(vec![bitcoin("65000")])))
            })
            .start()
            .await
            .unwrap();
        let asked = demand(&harness.client(1), 1).await;
        let expected = if quoted {
            "payment_required"
        } else {
            "payment_rejected"
        };
        assert_eq!(kind(&asked), expected, "{cents} cents");
    }
}

/// A hook that quotes in sats where the list says dollars is out of range, not a shortcut.
#[tokio::test(start_paused = true)]
async fn a_quote_in_another_unit_than_the_list_is_still_refused() {
    let resolver = |_: Invocation, _: PricedCapability| async {
        Ok::<PriceDecision, Error>(Quote::new(Amount::new(5, Unit::SATS)?).into())
    };
    let harness = Harness::builder(&FIVE_CENTS)
        .unwrap()
        .payments(|payments| {
            payments
                .resolve_price(resolver)
                .rates(Arc::new(FixedRates::new(vec![bitcoin("65000")])))
        })
        .start()
        .await
        .unwrap();
    assert_eq!(
        kind(&demand(&harness.client(1), 1).await),
        "payment_rejected"
    );
    assert!(books::nothing_minted(&harness));
}

/// What the hook sends along stays, beside the rate.
#[tokio::test(start_paused = true)]
async fn the_meta_of_a_quote_is_kept() {
    let resolver = |_: Invocation, listed: PricedCapability| async move {
        let meta = json!({ "order": 7, "tollkeeper/price": "forged" });
        let meta = meta.as_object().cloned().unwrap();
        Ok::<PriceDecision, Error>(Quote::new(listed.price.min()).with_meta(meta).into())
    };
    let harness = Harness::builder(&FIVE_CENTS)
        .unwrap()
        .payments(|payments| {
            payments
                .resolve_price(resolver)
                .rates(Arc::new(FixedRates::new(vec![bitcoin("65000")])))
        })
        .start()
        .await
        .unwrap();
    let asked = demand(&harness.client(1), 1).await;
    let meta = &asked["params"]["_meta"];
    assert_eq!(meta["order"], 7);
    assert_eq!(meta["tollkeeper/price"]["amount"], 5);
}

/// Two ways of being paid: one takes dollars as they are, the other at a rate. The client's order decides.
#[tokio::test(start_paused = true)]
async fn a_method_that_takes_the_price_as_it_is_gets_it_as_it_is() {
    let dollars = ScriptedProcessor::new("dollars".parse().unwrap())
        .0
        .with_units(vec![Unit::USD_CENTS]);
    let harness = selling(Arc::new(FixedRates::new(vec![bitcoin("65000")])))
        .payments(|payments| payments.shared_processor(Arc::new(dollars)))
        .start()
        .await
        .unwrap();
    for (wanted, pmi, amount) in [
        (&["dollars", "scripted"][..], "dollars", 5),
        (&["scripted", "dollars"], "scripted", 78),
        // The server's order, for a client that has none.
        (&[], "dollars", 5),
    ] {
        let mut client = harness.client(u8::try_from(amount).unwrap() + 1 + wanted.len() as u8);
        client.introduction.pmis = wanted.iter().map(|pmi| pmi.parse().unwrap()).collect();
        let asked = demand(&client, 1).await;
        assert_eq!(
            (
                asked["params"]["pmi"].as_str(),
                asked["params"]["amount"].as_u64()
            ),
            (Some(pmi), Some(amount))
        );
        assert_eq!(
            asked["params"]["_meta"].is_null(),
            pmi == "dollars",
            "a rate is named where one was used"
        );
    }
}

/// The number in `payment_rejected` is read in the unit of its method: 5 cents must not read as 5 sats.
#[tokio::test(start_paused = true)]
async fn a_rejection_does_not_pass_cents_for_sats() {
    let resolver = |_: Invocation, _: PricedCapability| async {
        Ok::<PriceDecision, Error>(PriceDecision::reject("not today"))
    };
    let harness = selling(Arc::new(FixedRates::new(vec![bitcoin("65000")])))
        .payments(|payments| payments.resolve_price(resolver))
        .start()
        .await
        .unwrap();
    let rejected = demand(&harness.client(1), 1).await;
    assert_eq!(kind(&rejected), "payment_rejected");
    assert!(rejected["params"]["amount"].is_null(), "{rejected}");
}

#[test]
fn prices_without_a_rate_are_refused_at_start() {
    let build = |rates: Option<Arc<dyn RateSource>>| {
        let mut payments = ServerPayments::builder()
            .price("tool:add=0.05 usd".parse().unwrap())
            .processor(ScriptedProcessor::new("scripted".parse().unwrap()).0)
            .rate_margin(Margin::default());
        if let Some(rates) = rates {
            payments = payments.rates(rates);
        }
        payments.build()
    };
    for rates in [
        None,
        Some(Arc::new(FixedRates::default()) as Arc<dyn RateSource>),
    ] {
        let error = build(rates).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            error.to_string().contains("tool:add") && error.to_string().contains("usd-cents"),
            "{error}"
        );
    }
    let rates = FixedRates::new(vec![bitcoin("65000")]);
    assert!(build(Some(Arc::new(rates))).is_ok());
}
