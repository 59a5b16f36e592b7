//! C-23, C-24, C-39 and the defects about lost handlers, cancellation, capacity and restarts.

use std::time::Duration;

use serde_json::json;
use tollkeeper::ledger::OpenLimits;
use tollkeeper::payment::ClientPubkey;
use tollkeeper::testing::{Answer, Harness, RawClient};
use tollkeeper::transport::ServerTransport;
use tollkeeper::wire::ErrorObject;

use super::PRICES;
use super::books::{self, kind, kinds};

fn client(harness: &Harness, explicit: bool) -> RawClient {
    let client = harness.client(1);
    if explicit { client.explicit() } else { client }
}

/// Calls, pays, and under explicit gating calls again to use the payment. Returns everything that came.
async fn call_and_pay(harness: &Harness, client: &RawClient, explicit: bool) -> Vec<String> {
    client.call_tool(1, "add", json!({})).await.unwrap();
    books::now(client).await;
    let last = harness.rail.references().len() - 1;
    books::settle(harness, last).await;
    let mut answers = books::now(client).await;
    if explicit {
        client.call_tool(2, "add", json!({})).await.unwrap();
        answers.extend(books::now(client).await);
    }
    kinds(&answers)
}

/// C-23, D-09, N-94.
#[tokio::test(start_paused = true)]
async fn d_09_a_lost_handler_gives_the_right_to_one_execution_back() {
    for explicit in [false, true] {
        let lost = std::sync::atomic::AtomicBool::new(true);
        let harness = Harness::builder(&PRICES)
            .unwrap()
            .handler(move |_| {
                let lost = lost.swap(false, std::sync::atomic::Ordering::SeqCst);
                async move { if lost { Answer::Lost } else { Answer::Echo } }
            })
            .start()
            .await
            .unwrap();
        let client = client(&harness, explicit);
        let answers = call_and_pay(&harness, &client, explicit).await;
        assert_eq!(answers.len(), 2, "never silent: {answers:?}");
        assert!(answers[1].starts_with('-'), "an error: {answers:?}");
        assert_eq!(books::authorizations(&harness).await, 1);
        client.call_tool(3, "add", json!({})).await.unwrap();
        assert_eq!(kinds(&books::now(&client).await), ["result"]);
        assert_eq!(
            harness.executions(),
            2,
            "one that was lost and one that was not"
        );
        assert_eq!(harness.rail.minted(), 1);
        assert_eq!(books::authorizations(&harness).await, 0);
    }
}

/// N-94 the other way: what must not run twice for one payment is used up, and the same event hears the same again.
#[tokio::test(start_paused = true)]
async fn under_keep_a_lost_handler_uses_the_payment_up() {
    for explicit in [false, true] {
        let harness = Harness::builder(&["tool:add=7 sat, on_failure=keep"])
            .unwrap()
            .handler(|_| async { Answer::Lost })
            .start()
            .await
            .unwrap();
        let client = client(&harness, explicit);
        let answers = call_and_pay(&harness, &client, explicit).await;
        assert_eq!(answers.len(), 2, "never silent: {answers:?}");
        assert!(answers[1].starts_with('-'), "an error: {answers:?}");
        assert_eq!(books::authorizations(&harness).await, 0);
        books::balance(&harness).await;
        client.call_tool(3, "add", json!({})).await.unwrap();
        let next = kinds(&books::now(&client).await);
        assert_eq!(
            next,
            [if explicit {
                "-32042"
            } else {
                "payment_required"
            }]
        );
        assert_eq!(harness.executions(), 1);
    }
}

/// N-94: an error of the tool is an answer.
#[tokio::test(start_paused = true)]
async fn an_error_that_the_tool_answers_is_a_delivery() {
    for explicit in [false, true] {
        let harness = Harness::builder(&PRICES)
            .unwrap()
            .handler(|_| async { Answer::Error(ErrorObject::new(-32001, "no such city")) })
            .start()
            .await
            .unwrap();
        let client = client(&harness, explicit);
        let answers = call_and_pay(&harness, &client, explicit).await;
        assert_eq!(answers, ["payment_accepted", "-32001"]);
        assert_eq!(books::authorizations(&harness).await, 0);
        books::balance(&harness).await;
    }
}

/// C-24 for a result that is too large to be kept: it is delivered, once.
#[tokio::test(start_paused = true)]
async fn a_result_too_large_to_keep_is_delivered_and_never_executed_again() {
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .payments(|p| p.settings(|s| s.stored_response_bytes = 100))
        .handler(|_| async { Answer::Result(json!({"text": "x".repeat(10_000)})) })
        .start()
        .await
        .unwrap();
    harness.rail.settle_at_once();
    let client = harness.client(1);
    let sent = client.call_tool(1, "add", json!({})).await.unwrap();
    let answers = books::now(&client).await;
    assert_eq!(kind(answers.last().unwrap()), "result");
    client.send_again(&sent).await.unwrap();
    let again = books::now(&client).await;
    assert!(
        again.iter().all(|m| kind(m) != "payment_required"),
        "{again:?}"
    );
    assert!(
        !again.is_empty(),
        "a repetition is answered, if only by an error"
    );
    assert_eq!(harness.executions(), 1);
    books::balance(&harness).await;
}

/// D-02: a client that cannot be reached is executed for all the same, and what it paid for is kept.
#[tokio::test(start_paused = true)]
async fn d_02_a_client_that_is_gone_when_its_money_arrives_gets_its_answer_later() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    let sent = client.call_tool(1, "add", json!({})).await.unwrap();
    books::now(&client).await;
    drop(client);
    books::settle(&harness, 0).await;
    tokio::time::sleep(books::SOON).await;
    let entries = harness.entries().await.unwrap();
    assert!(entries.iter().all(|e| e.settlement.is_some()));
    books::balance(&harness).await;
    // It comes back through a server that knows nothing but the books.
    let left = harness.crash();
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .after(&left)
        .unwrap()
        .start()
        .await
        .unwrap();
    let client = harness.client(1);
    client.send_again(&sent).await.unwrap();
    let answers = books::now(&client).await;
    assert_eq!(kind(answers.last().unwrap()), "result", "{answers:?}");
    assert_eq!(harness.rail.references().len(), 1);
}

/// C-39, D-14, N-124: taken back before it was paid.
#[tokio::test(start_paused = true)]
async fn a_call_cancelled_before_it_was_paid_is_not_executed_and_the_money_is_kept_for_the_next() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    books::now(&client).await;
    client.cancel(1).await.unwrap();
    tokio::time::sleep(books::SOON).await;
    books::settle(&harness, 0).await;
    client.collect(Duration::from_secs(60)).await.unwrap();
    assert_eq!(harness.executions(), 0);
    assert_eq!(books::authorizations(&harness).await, 1);
    books::balance(&harness).await;
    client.call_tool(2, "add", json!({})).await.unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["result"]);
    books::balance(&harness).await;
}

/// C-39: somebody else's cancellation.
#[tokio::test(start_paused = true)]
async fn nobody_can_cancel_the_call_of_another_client() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let (a, b) = (harness.client(1), harness.client(2));
    a.call_tool(1, "add", json!({})).await.unwrap();
    books::now(&a).await;
    b.cancel(1).await.unwrap();
    tokio::time::sleep(books::SOON).await;
    books::settle(&harness, 0).await;
    assert_eq!(kinds(&books::now(&a).await), ["payment_accepted", "result"]);
    books::balance(&harness).await;
}

/// The contract of `payment_ttl`: the cancellation outlives the process.
#[tokio::test(start_paused = true)]
async fn a_cancelled_call_is_not_executed_after_a_restart_either() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    let sent = client.call_tool(1, "add", json!({})).await.unwrap();
    books::now(&client).await;
    client.cancel(1).await.unwrap();
    tokio::time::sleep(books::SOON).await;
    let left = harness.crash();
    left.rail.settle_quietly(&left.rail.references()[0]);
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .after(&left)
        .unwrap()
        .start()
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(harness.executions(), 0);
    assert_eq!(books::authorizations(&harness).await, 1);
    // The same event again is still a cancelled one.
    let client = harness.client(1);
    client.send_again(&sent).await.unwrap();
    client.collect(Duration::from_secs(60)).await.unwrap();
    books::balance(&harness).await;
}

/// N-124 while the invoice is being made.
#[tokio::test(start_paused = true)]
async fn a_call_cancelled_while_its_invoice_is_made_is_not_executed_when_that_is_paid() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    harness
        .rail
        .on_mint(tollkeeper::testing::MintScript::Slow(Duration::from_secs(
            2,
        )));
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.cancel(1).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    if let Some(reference) = harness.rail.references().first() {
        harness.rail.settle(reference).await;
    }
    client.collect(Duration::from_secs(60)).await.unwrap();
    assert_eq!(harness.executions(), 0);
    books::balance(&harness).await;
}

/// D-14: taken back after it was paid, while it runs.
#[tokio::test(start_paused = true)]
async fn d_14_a_call_cancelled_after_it_was_paid_is_not_lost() {
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .handler(|_| async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Answer::Echo
        })
        .start()
        .await
        .unwrap();
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    books::now(&client).await;
    books::settle(&harness, 0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.cancel(1).await.unwrap();
    client.collect(Duration::from_secs(10)).await.unwrap();
    books::balance(&harness).await;
}

/// D-46, D-11, N-125: refused before minting, in the words of the lifecycle; what stands is untouched.
#[tokio::test(start_paused = true)]
async fn d_46_at_capacity_calls_are_refused_before_anything_is_minted() {
    for explicit in [false, true] {
        let harness = Harness::builder(&PRICES)
            .unwrap()
            .payments(|p| p.limits(OpenLimits::new(3, 5)))
            .start()
            .await
            .unwrap();
        let first = client(&harness, explicit);
        for n in 0..10 {
            first.call_tool(n, "add", json!({"n": n})).await.unwrap();
        }
        let answers = books::now(&first).await;
        assert_eq!(harness.rail.minted(), 3);
        let refused: Vec<_> = answers.iter().filter(|m| kind(m) == "-32000").collect();
        assert_eq!(refused.len(), 7, "{answers:?}");
        assert!(
            refused[0]["error"]["message"]
                .as_str()
                .unwrap()
                .contains("capacity")
        );
        let second = harness.client(2).explicit();
        for n in 0..10 {
            second.call_tool(n, "add", json!({"n": n})).await.unwrap();
        }
        books::now(&second).await;
        assert_eq!(harness.rail.minted(), 5);
        // What was promised is kept.
        books::settle(&harness, 0).await;
        let paid = books::now(&first).await;
        assert_eq!(kind(&paid[0]), "payment_accepted");
        books::balance(&harness).await;
        // And a grant can be used at capacity.
        if explicit {
            let id = 77;
            second.call_tool(id, "add", json!({"n": 99})).await.unwrap();
            books::now(&second).await;
            first.call_tool(id, "add", json!({"n": 0})).await.unwrap();
            assert_eq!(kinds(&books::now(&first).await), ["result"]);
        }
    }
}

/// The limits hold for calls that arrive at once, while the wallet is slow.
#[tokio::test(start_paused = true)]
async fn a_burst_does_not_slip_through_the_limits() {
    for explicit in [false, true] {
        let harness = Harness::builder(&PRICES)
            .unwrap()
            .payments(|p| p.limits(OpenLimits::new(3, 5)))
            .start()
            .await
            .unwrap();
        harness
            .rail
            .on_mint(tollkeeper::testing::MintScript::Slow(Duration::from_secs(
                5,
            )));
        for key in 1..20 {
            let mut client = harness.client(key);
            if explicit {
                client = client.explicit();
            }
            for n in 0..5 {
                client.call_tool(n, "add", json!({"n": n})).await.unwrap();
            }
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(harness.rail.minted() <= 5, "{}", harness.rail.minted());
    }
}

/// D-07: the process dies between invoice and payment.
#[tokio::test(start_paused = true)]
async fn d_07_a_payment_during_the_downtime_is_served_after_the_restart() {
    for explicit in [false, true] {
        let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
        let first = client(&harness, explicit);
        let sent = first.call_tool(1, "add", json!({})).await.unwrap();
        books::now(&first).await;
        let left = harness.crash();
        left.rail.settle(&left.rail.references()[0]).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let harness = Harness::builder(&PRICES)
            .unwrap()
            .after(&left)
            .unwrap()
            .start()
            .await
            .unwrap();
        let second = client(&harness, explicit);
        second.collect(Duration::from_secs(30)).await.unwrap();
        books::balance(&harness).await;
        if explicit {
            second.call_tool(2, "add", json!({})).await.unwrap();
        } else {
            second.send_again(&sent).await.unwrap();
        }
        let answers = books::now(&second).await;
        assert_eq!(
            kind(answers.last().unwrap()),
            "result",
            "explicit: {explicit}: {answers:?}"
        );
        assert_eq!(harness.executions(), 1);
        assert_eq!(harness.rail.minted(), 1);
        books::balance(&harness).await;
    }
}

/// D-07 during the execution: what was not delivered may be restored, and is neither lost nor doubled.
#[tokio::test(start_paused = true)]
async fn an_execution_that_dies_with_the_process_is_not_lost_money() {
    for explicit in [false, true] {
        let harness = Harness::builder(&PRICES)
            .unwrap()
            .handler(|_| async { Answer::Never })
            .start()
            .await
            .unwrap();
        let first = client(&harness, explicit);
        call_and_pay(&harness, &first, explicit).await;
        assert_eq!(harness.executions(), 1);
        let left = harness.crash();
        let harness = Harness::builder(&PRICES)
            .unwrap()
            .after(&left)
            .unwrap()
            .start()
            .await
            .unwrap();
        let second = client(&harness, explicit);
        second.collect(Duration::from_secs(30)).await.unwrap();
        for id in 5..8 {
            second.call_tool(id, "add", json!({})).await.unwrap();
            second.collect(Duration::from_secs(5)).await.unwrap();
        }
        assert_eq!(harness.executions(), 1, "explicit: {explicit}");
    }
}

/// Two instances on one ledger and one wallet: invariant 2 holds between them.
#[tokio::test(start_paused = true)]
async fn two_instances_on_one_ledger_execute_a_payment_once() {
    for explicit in [false, true] {
        let one = Harness::builder(&PRICES).unwrap().start().await.unwrap();
        let a = client(&one, explicit);
        let sent = a.call_tool(1, "add", json!({})).await.unwrap();
        books::now(&a).await;
        let rail = tollkeeper::testing::ScriptedProcessor::restarted(
            &one.rail,
            "scripted".parse().unwrap(),
        );
        let two = Harness::builder(&PRICES)
            .unwrap()
            .ledger(std::sync::Arc::clone(&one.ledger))
            .clock(std::sync::Arc::clone(&one.clock))
            .rail(rail)
            .start()
            .await
            .unwrap();
        let b = client(&two, explicit);
        b.send_again(&sent).await.unwrap();
        books::now(&b).await;
        books::settle(&one, 0).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        a.call_tool(2, "add", json!({})).await.unwrap();
        b.call_tool(3, "add", json!({})).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        b.send_again(&sent).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(
            one.executions() + two.executions(),
            1,
            "explicit: {explicit}"
        );
    }
}

/// SIGTERM: what is paid is finished or on the books.
#[tokio::test(start_paused = true)]
async fn a_shutdown_during_an_execution_loses_no_money() {
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .handler(|_| async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Answer::Echo
        })
        .start()
        .await
        .unwrap();
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    books::now(&client).await;
    books::settle(&harness, 0).await;
    tokio::time::sleep(books::SOON).await;
    harness.server.shutdown(Duration::from_secs(3)).await;
    let entries = harness.entries().await.unwrap();
    assert!(entries[0].settlement.is_some());
    let left = harness.crash();
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .after(&left)
        .unwrap()
        .start()
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let delivered = harness
        .entries()
        .await
        .unwrap()
        .iter()
        .filter(|e| e.response.is_some())
        .count();
    assert_eq!(
        delivered + books::authorizations(&harness).await + harness.executions(),
        1
    );
}

/// Notifications that the handler sends on its own are none of the gate's business.
#[tokio::test(start_paused = true)]
async fn notifications_of_the_server_pass() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    let note = tollkeeper::wire::Notification::new("notifications/tools/list_changed", &json!({}))
        .unwrap();
    harness
        .server
        .notify(Some(&ClientPubkey::from_bytes([1; 32])), note.into())
        .await
        .unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["list_changed"]);
}
