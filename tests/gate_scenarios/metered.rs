//! Prices by use: reserved, run, charged for what was used, and the rest given back.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tollkeeper::ledger::{EntryState, Ledger, MemoryLedger, SqliteLedger};
use tollkeeper::payment::{ClientPubkey, MeterUnit, Metering, PriceModel, Unit};
use tollkeeper::server::ServerPaymentsBuilder;
use tollkeeper::testing::{Answer, FailingLedger, Harness, HarnessBuilder, LedgerFault};
use tollkeeper::wire::ErrorObject;
use tollkeeper::{Capability, PricedCapability};

use super::books::{self, kind, kinds};

/// Two sats a result, at most fifty of them.
fn per_result() -> PricedCapability {
    let price = "2 sats".parse().unwrap();
    let metering = Metering::new(MeterUnit::Results, price, 1, 50)
        .unwrap()
        .limited_by("limit");
    let capability: Capability = "tool:search".parse().unwrap();
    PricedCapability::new(capability, metering.range().unwrap())
        .with_model(PriceModel::Metered(metering))
}

fn payments(payments: ServerPaymentsBuilder) -> ServerPaymentsBuilder {
    payments.price(per_result()).balances(true)
}

/// Uses what its argument `use` says.
fn builder() -> HarnessBuilder {
    Harness::builder(&[])
        .unwrap()
        .payments(payments)
        .handler(|request| async move {
            let params: Value = serde_json::from_str(request.params.unwrap().get()).unwrap();
            match &params["arguments"]["use"] {
                Value::Null => Answer::Result(json!({"content": []})),
                Value::String(_) => Answer::Error(ErrorObject::new(-32000, "no luck")),
                used => Answer::Result(json!({
                    "content": [], "_meta": {"tollkeeper/usage": {"results": used}}
                })),
            }
        })
}

async fn left(ledger: &dyn Ledger) -> u64 {
    let client = ClientPubkey::from_bytes([1; 32]);
    let account = ledger.account(&client, &Unit::SATS).await.unwrap();
    account.map_or(0, |account| account.amount.value())
}

#[tokio::test(start_paused = true)]
async fn what_was_not_used_pays_for_the_next_call() {
    for (arguments, paid, back) in [
        (json!({"limit": 10, "use": 3}), 20, 14),
        (json!({"limit": 10, "use": 10}), 20, 0),
        (json!({"limit": 10, "use": 0}), 20, 20),
        (json!({"use": 50}), 100, 0),
        // More than was reserved is never charged.
        (json!({"limit": 10, "use": 11}), 20, 0),
        // Who says nothing has used all.
        (json!({"limit": 10}), 20, 0),
        (json!({"limit": 10, "use": -1}), 20, 0),
        // An error used nothing.
        (json!({"limit": 10, "use": "none"}), 20, 20),
        (json!({"limit": 1_000_000, "use": 1}), 100, 98),
    ] {
        let harness = builder().start().await.unwrap();
        let client = harness.client(1);
        client
            .call_tool(1, "search", arguments.clone())
            .await
            .unwrap();
        let demand = books::now(&client).await;
        assert_eq!(demand[0]["params"]["amount"], paid, "{arguments}");
        books::settle(&harness, 0).await;
        let answers = books::now(&client).await;
        assert_eq!(answers.len(), 2, "{answers:?}");
        assert_eq!(left(&*harness.ledger).await, back, "{arguments}");
        books::balance(&harness).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_rest_is_drawn_on_and_given_back_again() {
    let harness = builder().start().await.unwrap();
    let client = harness.client(1);
    client
        .call_tool(1, "search", json!({"limit": 20, "use": 5}))
        .await
        .unwrap();
    books::now(&client).await;
    books::settle(&harness, 0).await;
    books::now(&client).await;
    assert_eq!(left(&*harness.ledger).await, 30);
    for (id, rest) in [(2, 28), (3, 26)] {
        let arguments = json!({"limit": 10, "use": 1, "n": id});
        client.call_tool(id, "search", arguments).await.unwrap();
        let answers = kinds(&books::now(&client).await);
        assert_eq!(answers, ["payment_accepted", "result"]);
        assert_eq!(left(&*harness.ledger).await, rest);
    }
    assert_eq!(harness.rail.minted(), 1);
}

/// The price in the lists says how it is counted.
#[tokio::test(start_paused = true)]
async fn lists_say_how_the_price_is_counted() {
    let harness = Harness::builder(&["tool:add=7 sat"])
        .unwrap()
        .payments(payments)
        .handler(|_| async {
            Answer::Result(
                json!({"tools": [{"name": "search"}, {"name": "add"}, {"name": "free"}]}),
            )
        })
        .start()
        .await
        .unwrap();
    let client = harness.client(1);
    let list = tollkeeper::wire::Request::new(1, "tools/list", &json!({})).unwrap();
    client.send(list.into()).await.unwrap();
    let answer = books::now(&client).await.remove(0);
    let tools = &answer["result"]["tools"];
    let search = json!({
        "model": "per_result", "amount": 2, "per": 1, "max_amount": 100, "currency": "btc", "unit": "sat"
    });
    assert_eq!(tools[0]["x-mpp-pricing"], search);
    assert_eq!(tools[0]["_meta"]["x-mpp-pricing"], search);
    let add = json!({"model": "per_call", "amount": 7, "currency": "btc", "unit": "sat"});
    assert_eq!(tools[1]["x-mpp-pricing"], add);
    assert_eq!(tools[2], json!({"name": "free"}));
}

#[test]
fn a_price_by_use_needs_accounts() {
    let error = tollkeeper::server::ServerPayments::builder()
        .price(per_result())
        .processor(tollkeeper::rails::fake::FakeProcessor::new())
        .build()
        .unwrap_err();
    assert!(error.to_string().contains("accounts"), "{error}");
}

/// Each write fails once, in each way, with and without the death of the process: money in is what was used, what is left, and
/// what is still owed.
#[tokio::test(start_paused = true)]
async fn every_write_may_fail_and_the_money_adds_up() {
    for dies in [false, true] {
        for fault in [LedgerFault::Refuse, LedgerFault::WriteAndFail] {
            for nth in 1..8 {
                let case = (dies, fault, nth);
                let inner: Arc<dyn Ledger> = Arc::new(MemoryLedger::new());
                let failing = Arc::new(FailingLedger::new(Arc::clone(&inner)));
                if dies {
                    failing.crash_at(nth, fault);
                } else {
                    failing.fail_at(nth, fault);
                }
                let harness = builder().ledger(failing as _).start().await.unwrap();
                let client = harness.client(1);
                let arguments = json!({"limit": 10, "use": 3});
                client
                    .call_tool(1, "search", arguments.clone())
                    .await
                    .unwrap();
                books::now(&client).await;
                let minted = harness.rail.references();
                if let Some(reference) = minted.first() {
                    harness.rail.settle(reference).await;
                }
                books::now(&client).await;
                tokio::time::sleep(Duration::from_secs(30)).await;
                let mut survivors = harness.crash();
                survivors.ledger = Arc::clone(&inner);
                let harness = builder().after(&survivors).unwrap().start().await.unwrap();
                tokio::time::sleep(Duration::from_secs(30)).await;
                // Whatever is owed is used up by calls of the same kind.
                let client = harness.client(1);
                for id in 2..4 {
                    client
                        .call_tool(id, "search", arguments.clone())
                        .await
                        .unwrap();
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    books::now(&client).await;
                }
                tokio::time::sleep(Duration::from_secs(30)).await;
                let entries = harness.entries().await.unwrap();
                let of = |state| entries.iter().filter(move |e| e.state == state);
                let paid: u64 = entries
                    .iter()
                    .filter(|e| e.settlement.is_some() && e.pmi.as_str() != "balance")
                    .map(|e| e.amount.value())
                    .sum();
                let served = of(EntryState::Delivered).count() as u64;
                let owed: u64 = of(EntryState::Settled).map(|e| e.amount.value()).sum();
                assert_eq!(of(EntryState::Claimed).count(), 0, "{case:?}");
                assert_eq!(
                    paid,
                    served * 6 + left(&*inner).await + owed,
                    "{case:?} {entries:?}"
                );
            }
        }
    }
}

/// The same in a file: what is read back after the end of the process.
#[tokio::test]
async fn the_rest_survives_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("books.db");
    let ledger: Arc<dyn Ledger> = Arc::new(SqliteLedger::open(&file).unwrap());
    let harness = builder().ledger(ledger).start().await.unwrap();
    harness.rail.settle_at_once();
    let client = harness.client(1);
    let arguments = json!({"limit": 10, "use": 3});
    client.call_tool(1, "search", arguments).await.unwrap();
    loop {
        let (_, message) = client.next_json().await.unwrap();
        if kind(&message) == "result" {
            break;
        }
    }
    drop(harness.crash());
    let again = SqliteLedger::open(&file).unwrap();
    assert_eq!(left(&again).await, 14);
}
