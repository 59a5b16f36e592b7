//! Defects that other implementations have and that no scenario beside these is about.

use std::time::Duration;

use serde_json::json;
use tollkeeper::testing::{Harness, LookupScript, MintScript, RailEvent};

use super::PRICES;
use super::books::{self, kind, kinds};

const SECRET: &str = "nostr+walletconnect://secret?relay=wss://wallet token=abc /etc/wallet";

/// What a wallet says about itself stays inside, in both lifecycles, and the request ends all the same.
#[tokio::test(start_paused = true)]
async fn d_25_no_word_of_a_wallet_reaches_a_client() {
    for explicit in [false, true] {
        let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
        let client = harness.client(1);
        let client = if explicit { client.explicit() } else { client };
        harness.rail.on_mint(MintScript::Fail(SECRET.to_owned()));
        client.call_tool(1, "add", json!({})).await.unwrap();
        let mut heard = books::now(&client).await;
        assert_eq!(kind(heard.last().unwrap()), "-32000", "the request ends");

        harness.rail.on_mint(MintScript::Honest);
        harness.rail.on_lookup(LookupScript::Fail);
        client.call_tool(2, "add", json!({})).await.unwrap();
        let rest = client.collect(Duration::from_secs(700)).await.unwrap();
        heard.extend(rest.into_iter().map(|(_, json)| json));
        let text = format!("{heard:?}");
        for word in ["walletconnect", "wss:", "token", "/etc", "scripted: "] {
            assert!(!text.contains(word), "{word}: {text}");
        }
    }
}

/// How often the wallet was asked about payments.
fn look_ups(harness: &Harness) -> usize {
    let log = harness.rail.log();
    let asked = log
        .iter()
        .filter(|event| matches!(event, RailEvent::LookedUp(_)));
    asked.count()
}

/// What watches a payment ends with it: when it is served, and when its time is over.
#[tokio::test(start_paused = true)]
async fn d_48_a_payment_that_is_over_is_not_asked_about_any_more() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    client.call_tool(1, "add", json!({"n": 1})).await.unwrap();
    client.call_tool(2, "add", json!({"n": 2})).await.unwrap();
    books::settle(&harness, 0).await;
    harness.rail.wait_for_minted(2).await;
    assert!(kinds(&books::now(&client).await).contains(&"result".to_owned()));
    let reference = harness.rail.references()[0].clone();
    let of_served = |harness: &Harness| {
        let log = harness.rail.log();
        log.iter()
            .filter(|event| **event == RailEvent::LookedUp(reference.clone()))
            .count()
    };
    let served = of_served(&harness);
    // The offer, its grace of an hour, and the last look-up behind them.
    tokio::time::sleep(Duration::from_secs(600 + 3600 + 600)).await;
    assert_eq!(of_served(&harness), served, "it was served");
    let over = look_ups(&harness);
    assert!(over > served, "the unpaid one was asked about");
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    assert_eq!(look_ups(&harness), over, "its time is over");
}

/// What could not be written down is not the end: the request of an offer that has ended is refused when the ledger works
/// again, and does not wait for ever.
#[tokio::test(start_paused = true)]
async fn d_27_an_offer_whose_end_could_not_be_written_down_ends_when_it_can() {
    use std::sync::Arc;
    use tollkeeper::ledger::MemoryLedger;
    use tollkeeper::testing::{FailingLedger, LedgerFault};
    let failing = Arc::new(FailingLedger::new(Arc::new(MemoryLedger::new())));
    let builder = Harness::builder(&PRICES)
        .unwrap()
        .ledger(Arc::clone(&failing) as _);
    let harness = builder.start().await.unwrap();
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["payment_required"]);
    failing.set(LedgerFault::Refuse);
    assert!(client.is_silent_for(Duration::from_secs(700)).await);
    failing.set(LedgerFault::None);
    let rest = client.collect(Duration::from_secs(60)).await.unwrap();
    let rest: Vec<_> = rest.into_iter().map(|(_, json)| json).collect();
    assert_eq!(kinds(&rest), ["payment_rejected", "-32000"]);
}
