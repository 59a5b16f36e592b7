//! Gates that share a ledger, each with a transport of its own, as if relays had brought each its own part of the traffic.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tollkeeper::ledger::{EntryState, Ledger};
use tollkeeper::testing::{Harness, ProcessorControl, ScriptedProcessor};

use super::places::{first_instance, silence};
use super::{Postgres, open};

const PRICES: [&str; 1] = ["tool:add=7 sat"];

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(90);

async fn gate(url: &str, wallet: Option<&ProcessorControl>) -> Harness {
    let mut builder = Harness::builder(&PRICES).unwrap().ledger(open(url).await);
    if let Some(wallet) = wallet {
        builder = builder.rail(ScriptedProcessor::restarted(
            wallet,
            "scripted".parse().unwrap(),
        ));
    }
    builder.start().await.unwrap()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("{what}"));
}

async fn state(gate: &Harness) -> Option<EntryState> {
    gate.entries()
        .await
        .unwrap()
        .first()
        .map(|entry| entry.state)
}

fn reference(entries: &[tollkeeper::ledger::Entry]) -> String {
    entries[0]
        .payment_request
        .as_ref()
        .unwrap()
        .reference
        .clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_that_only_another_instance_hears_of_is_heeded() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.database();
    let (here, there) = (gate(&url, None).await, gate(&url, None).await);
    let (asks, cancels) = (here.client(1), there.client(1));
    asks.call_tool(7, "add", json!({})).await.unwrap();
    until("an offer", async || {
        state(&here).await == Some(EntryState::Issued)
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    cancels.cancel(7).await.unwrap();
    until("the entry is told", async || {
        !here.entries().await.unwrap()[0].waiting
    })
    .await;

    here.rail
        .settle(&reference(&here.entries().await.unwrap()))
        .await;
    until("the payment", async || {
        state(&here).await == Some(EntryState::Settled)
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(here.entries().await.unwrap()[0].is_authorization());
    assert_eq!(here.executions() + there.executions(), 0);
    // What was paid buys the next call, wherever it arrives.
    cancels.call_tool(8, "add", json!({})).await.unwrap();
    until("the call", async || {
        state(&here).await == Some(EntryState::Delivered)
    })
    .await;
    assert_eq!((here.executions(), there.executions()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_is_served_by_an_heir_and_by_nobody_else() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.database();
    let silent = gate(&url, None).await;
    let client = silent.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    until("an offer", async || {
        state(&silent).await == Some(EntryState::Issued)
    })
    .await;
    // Not before something was let in: until then the gate may still take a place of its own.
    let number = first_instance(&server, &url);
    let heir = gate(&url, Some(&silent.rail)).await;
    silence(&server, &url, number);
    until("a successor", async || {
        let name = url.rsplit('/').next().unwrap();
        server.query(name, "SELECT count(*) FROM heartbeat")[0] == "1"
    })
    .await;
    until("the silent one ends", async || {
        silent.server.gate().closing().is_cancelled()
    })
    .await;
    let reference = reference(&heir.entries().await.unwrap());
    // Both are told by the wallet.
    silent.rail.settle(&reference).await;
    heir.rail.settle(&reference).await;
    until("the call", async || {
        state(&heir).await == Some(EntryState::Delivered)
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((silent.executions(), heir.executions()), (0, 1));
}

/// What one instance is executing when it loses its place is given back, and whatever it still answers does not leave.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_after_the_succession_does_not_leave() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.database();
    let (finish, finished) = tokio::sync::watch::channel(false);
    let ledger: Arc<dyn Ledger> = open(&url).await;
    let silent = Harness::builder(&PRICES)
        .unwrap()
        .ledger(ledger)
        .handler(move |_| {
            let mut finished = finished.clone();
            async move {
                let _ = finished.wait_for(|it| *it).await;
                tollkeeper::testing::Answer::Echo
            }
        })
        .start()
        .await
        .unwrap();
    let client = silent.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    until("an offer", async || {
        state(&silent).await == Some(EntryState::Issued)
    })
    .await;
    let number = first_instance(&server, &url);
    silent
        .rail
        .settle(&reference(&silent.entries().await.unwrap()))
        .await;
    until("the call", async || silent.executions() == 1).await;

    let heir = gate(&url, Some(&silent.rail)).await;
    silence(&server, &url, number);
    until("it is given back", async || {
        state(&heir).await == Some(EntryState::Settled)
    })
    .await;
    finish.send_replace(true);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        state(&heir).await,
        Some(EntryState::Settled),
        "a right to one execution"
    );
    let heard = client.collect(Duration::from_millis(100)).await.unwrap();
    assert!(
        heard
            .iter()
            .all(|(_, message)| message.get("result").is_none()),
        "{heard:?}"
    );
}
