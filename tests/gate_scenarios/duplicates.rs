//! C-11 to C-18: events that come twice, late, or from somebody who replays them.

use std::time::Duration;

use serde_json::json;
use tollkeeper::testing::{Answer, Harness};
use tollkeeper::wire::Request;

use super::PRICES;
use super::books::{self, kind, kinds};

async fn slow(_: Request) -> Answer {
    tokio::time::sleep(Duration::from_secs(2)).await;
    Answer::Echo
}

/// C-11, D-01.
#[tokio::test(start_paused = true)]
async fn d_01_five_copies_of_an_event_are_one_invoice_and_one_execution() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    let sent = client.call_tool(1, "add", json!({})).await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        client.send_again(&sent).await.unwrap();
    }
    let before = books::now(&client).await;
    assert!(before.iter().all(|m| kind(m) == "payment_required"));
    let invoice = |m: &serde_json::Value| m["params"]["pay_req"].clone();
    assert!(before.iter().all(|m| invoice(m) == invoice(&before[0])));
    assert_eq!(harness.rail.minted(), 1);
    books::settle(&harness, 0).await;
    let after = books::now(&client).await;
    assert_eq!(kinds(&after), ["payment_accepted", "result"]);
    books::balance(&harness).await;
}

/// D-01 with a rail that takes its time: copies that arrive while the invoice is being made.
#[tokio::test(start_paused = true)]
async fn copies_that_arrive_while_the_invoice_is_made_do_not_make_another() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    harness
        .rail
        .on_mint(tollkeeper::testing::MintScript::Slow(Duration::from_secs(
            3,
        )));
    let client = harness.client(1);
    let sent = client.call_tool(1, "add", json!({})).await.unwrap();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        client.send_again(&sent).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    books::settle(&harness, 0).await;
    tokio::time::sleep(books::SOON).await;
    assert_eq!(harness.rail.references().len(), 1);
    assert_eq!(harness.executions(), 1);
    books::balance(&harness).await;
}

/// C-12, D-01.
#[tokio::test(start_paused = true)]
async fn a_copy_that_arrives_during_the_execution_changes_nothing() {
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .handler(slow)
        .start()
        .await
        .unwrap();
    let client = harness.client(1);
    let sent = client.call_tool(1, "add", json!({})).await.unwrap();
    books::now(&client).await;
    books::settle(&harness, 0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.send_again(&sent).await.unwrap();
    let answers = client.collect(Duration::from_secs(3)).await.unwrap();
    assert_eq!(
        answers.iter().filter(|(_, m)| kind(m) == "result").count(),
        1
    );
    assert_eq!(harness.rail.minted(), 1);
    books::balance(&harness).await;
}

/// N-66, N-67: the same event is never charged twice, at any time, and gets its answer again.
#[tokio::test(start_paused = true)]
async fn an_executed_event_gets_its_stored_answer_a_day_later() {
    for explicit in [false, true] {
        let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
        harness.rail.settle_at_once();
        let mut client = harness.client(1);
        if explicit {
            client = client.explicit();
            client.call_tool(1, "add", json!({})).await.unwrap();
            books::now(&client).await;
        }
        let sent = client.call_tool(2, "add", json!({})).await.unwrap();
        let first = books::now(&client).await;
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_secs(86_400)).await;
            client.send_again(&sent).await.unwrap();
            let again = books::now(&client).await;
            assert_eq!(again.last(), first.last());
            assert_eq!(kind(again.last().unwrap()), "result");
        }
        assert_eq!(harness.rail.minted(), 1);
        books::balance(&harness).await;
    }
}

/// C-14, D-28: the client that did not get its invoice publishes the same event again.
#[tokio::test(start_paused = true)]
async fn d_28_a_lost_invoice_is_sent_again_to_the_same_event() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    let sent = client.call_tool(1, "add", json!({})).await.unwrap();
    let first = books::now(&client).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    client.send_again(&sent).await.unwrap();
    let again = books::now(&client).await;
    assert_eq!(again[0]["params"]["pay_req"], first[0]["params"]["pay_req"]);
    assert_eq!(harness.rail.minted(), 1);
}

/// C-15, D-13, T-27: the retry of the TypeScript client within one second has the same event id.
#[tokio::test(start_paused = true)]
async fn d_13_an_explicit_retry_under_the_same_event_id_is_served_after_instant_settlement() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    harness.rail.settle_at_once();
    let client = harness.client(1).explicit();
    let sent = client.call_tool(1, "add", json!({})).await.unwrap();
    let first = books::now(&client).await;
    assert_eq!(kind(&first[0]), "-32042");
    tokio::time::sleep(Duration::from_millis(200)).await;
    client.send_again(&sent).await.unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["result"]);
    // And from now on it is an executed event like any other.
    client.send_again(&sent).await.unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["result"]);
    assert_eq!(harness.executions(), 1);
    books::balance(&harness).await;
}

/// D-12, T-27: an observer who publishes an old request again does not get at the grant of the newer one.
#[tokio::test(start_paused = true)]
async fn d_12_a_replayed_old_request_does_not_take_a_fresh_grant() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1).explicit();
    let old = client.call_tool(1, "add", json!({})).await.unwrap();
    books::now(&client).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    books::settle(&harness, 0).await;
    books::now(&client).await;
    client.send_again(&old).await.unwrap();
    books::now(&client).await;
    assert_eq!(harness.executions(), 0, "the replay was executed");
    client.call_tool(2, "add", json!({})).await.unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["result"]);
    books::balance(&harness).await;
}

/// Not every late copy is a replay: a client that got no answer sends its request again, and while the server comes back several
/// copies arrive at once, the one of which is claiming the payment while the others are looked at.
#[tokio::test(start_paused = true)]
async fn copies_of_a_late_request_that_arrive_at_once_are_not_taken_for_replays() {
    for copies in 2..6 {
        let harness = Harness::builder(&PRICES)
            .unwrap()
            // A hook is where copies overtake each other.
            .payments(|p| p.check_call(|_: &tollkeeper::Invocation| None))
            .start()
            .await
            .unwrap();
        let client = harness.client(1).explicit();
        client.call_tool(1, "add", json!({})).await.unwrap();
        books::now(&client).await;
        books::settle(&harness, 0).await;
        books::now(&client).await;
        let params = json!({"name": "add", "arguments": {}});
        let request = Request::new(2, "tools/call", &params).unwrap();
        let late = client.prepare(request.into()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
        for _ in 0..copies {
            client.send_again(&late).await.unwrap();
        }
        let answers = books::now(&client).await;
        assert!(!answers.is_empty());
        assert!(
            answers.iter().all(|m| kind(m) == "result"),
            "{copies} copies: {answers:?}"
        );
        assert_eq!((harness.executions(), harness.rail.minted()), (1, 1));
        books::balance(&harness).await;
    }
}

/// D-12 for a request that was executed: the replay gets the stored answer, the new grant stays.
#[tokio::test(start_paused = true)]
async fn a_replayed_executed_request_does_not_take_a_fresh_grant() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1).explicit();
    client.call_tool(1, "add", json!({})).await.unwrap();
    books::settle(&harness, 0).await;
    let executed = client.call_tool(2, "add", json!({})).await.unwrap();
    books::now(&client).await;
    assert_eq!(harness.executions(), 1);
    client.call_tool(3, "add", json!({})).await.unwrap();
    books::now(&client).await;
    books::settle(&harness, 1).await;
    client.send_again(&executed).await.unwrap();
    books::now(&client).await;
    assert_eq!(harness.executions(), 1);
    assert_eq!(books::authorizations(&harness).await, 1);
    books::balance(&harness).await;
}

/// D-12 for requests that polled: they have no entry of their own.
#[tokio::test(start_paused = true)]
async fn a_replayed_poll_does_not_take_a_fresh_grant() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1).explicit();
    client.call_tool(1, "add", json!({})).await.unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["-32042"]);
    let polling = client.call_tool(2, "add", json!({})).await.unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["-32043"]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    books::settle(&harness, 0).await;
    books::now(&client).await;
    client.send_again(&polling).await.unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["-32600"]);
    assert_eq!(harness.executions(), 0, "the replay was executed");
    client.call_tool(3, "add", json!({})).await.unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["result"]);
    books::balance(&harness).await;
}

async fn replay_after_a_restart(poll: bool) {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1).explicit();
    let mut old = client.call_tool(1, "add", json!({})).await.unwrap();
    books::now(&client).await;
    if poll {
        old = client.call_tool(2, "add", json!({})).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    books::settle(&harness, 0).await;
    tokio::time::sleep(books::SOON).await;
    let left = harness.crash();
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .after(&left)
        .unwrap()
        .start()
        .await
        .unwrap();
    let client = harness.client(1).explicit();
    client.send_again(&old).await.unwrap();
    books::now(&client).await;
    assert_eq!(harness.executions(), 0, "the replay was executed");
    client.call_tool(3, "add", json!({})).await.unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["result"]);
}

/// D-12 across a restart, for the request that was asked to pay.
#[tokio::test(start_paused = true)]
async fn a_request_from_before_a_restart_does_not_take_a_fresh_grant_either() {
    replay_after_a_restart(false).await;
}

/// D-12 across a restart, for a request that only polled: the books do not know it.
#[tokio::test(start_paused = true)]
async fn a_poll_from_before_a_restart_does_not_take_a_fresh_grant_either() {
    replay_after_a_restart(true).await;
}

/// C-16: dated a day ago or ahead.
#[tokio::test(start_paused = true)]
async fn requests_dated_a_day_off_are_not_executed_unpaid_and_not_charged_unseen() {
    let day = Duration::from_secs(86_400);
    for ahead in [false, true] {
        let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
        let client = harness.client(1);
        if ahead {
            harness.clock.jump(day)
        } else {
            harness.clock.jump_back(day)
        }
        let params = json!({"name": "add", "arguments": {}});
        let message = Request::new(1, "tools/call", &params).unwrap();
        let prepared = client.prepare(message.into()).await.unwrap();
        if ahead {
            harness.clock.jump_back(day)
        } else {
            harness.clock.jump(day)
        }
        client.send_again(&prepared).await.unwrap();
        let answers = books::now(&client).await;
        assert_eq!(harness.executions(), 0);
        assert!(books::nothing_minted(&harness), "charged: {answers:?}");
        // The server lives.
        client.call_tool(2, "add", json!({})).await.unwrap();
        assert_eq!(kinds(&books::now(&client).await), ["payment_required"]);
    }
}

/// D-12 for a request that costs nothing: what ran before a restart does not run again after it. Only what was let in within
/// the last moments before a kill was not written down yet.
#[tokio::test(start_paused = true)]
async fn a_free_request_is_not_executed_again_after_a_restart() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    let mut sent = Vec::new();
    for id in 0..5 {
        sent.push(client.call_tool(id, "free", json!({})).await.unwrap());
    }
    assert_eq!(books::now(&client).await.len(), 5);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let crashed = harness.crash();

    let restart = || async {
        let builder = Harness::builder(&PRICES).unwrap().after(&crashed).unwrap();
        builder.start().await.unwrap()
    };
    let harness = restart().await;
    let client = harness.client(1);
    for sent in &sent {
        client.send_again(sent).await.unwrap();
    }
    client.call_tool(9, "free", json!({})).await.unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["result"]);
    assert_eq!(harness.executions(), 1, "the new one");
    drop(harness);

    // As old as it may be (a second is lost where it was dated), and then older: forgotten, and refused for its age instead.
    crashed.clock.jump(Duration::from_secs(598));
    let harness = restart().await;
    harness.client(1).send_again(&sent[0]).await.unwrap();
    assert!(books::now(&harness.client(1)).await.is_empty());
    crashed.clock.jump(Duration::from_secs(3600));
    harness.client(1).send_again(&sent[0]).await.unwrap();
    tokio::time::sleep(books::SOON).await;
    assert_eq!(harness.executions(), 0);
}

/// An orderly end writes down what was let in at the very last.
#[tokio::test(start_paused = true)]
async fn what_was_let_in_last_is_written_down_at_the_end() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1);
    client.call_tool(1, "free", json!({})).await.unwrap();
    while harness.executions() == 0 {
        tokio::task::yield_now().await;
    }
    harness.server.shutdown(Duration::from_secs(5)).await;
    let since = tollkeeper::payment::Timestamp::from_secs(0);
    assert_eq!(harness.ledger.let_in_since(since).await.unwrap().len(), 1);
}
