//! Nothing is paid twice: unknown outcomes, retries of the same call, answers that were lost (D-40, N-131).

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tollkeeper::client::ledger::{AnswerState, AttemptState, MemoryBuyerLedger};
use tollkeeper::testing::{HandlerScript, LookUpScript};
use tollkeeper::transport::MessageChannel;

use super::stage::{Stage, call, data, error, rule, sats};

/// D-40
#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_blocks_the_call_until_the_wallet_says_what_became_of_it() {
    for (script, paid_again) in [
        (LookUpScript::Unknown, false),
        (LookUpScript::Fail, false),
        (LookUpScript::Hang, false),
        (LookUpScript::Refused, true),
    ] {
        let stage = Stage::set();
        stage.wallet.script(HandlerScript::LoseTheAnswer);
        let lost = stage.call(1);
        let victim = stage.victim().await;
        stage.demand(&victim, 7, "first").await;
        let lost = lost.await.unwrap();
        assert_eq!(lost.unknown, Some(sats(7)));
        assert_eq!(data(&lost)["unknown"]["amount"], 7);
        assert_eq!(
            stage.client.payments().budget().spending().reserved,
            sats(7)
        );

        stage.wallet.script(HandlerScript::Pay);
        stage.wallet.look_up(script);
        let again = stage.bargain(1, 8, "second").await;
        assert_eq!(again.paid.is_some(), paid_again, "{script:?}");
        assert!(!stage.wallet.looked_up().is_empty());
        if !paid_again {
            assert_eq!(rule(&again), "earlier_unknown");
        }
        // Another call is another matter.
        assert!(stage.bargain(2, 9, "third").await.paid.is_some());
        let spending = stage.client.payments().budget().spending();
        let held = if paid_again { 0 } else { 7 };
        assert_eq!(spending.reserved, sats(held), "{script:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_payment_that_turns_out_to_have_been_made_is_asked_for_and_not_repeated() {
    let stage = Stage::set();
    stage.wallet.script(HandlerScript::LoseTheAnswer);
    let lost = stage.call(1);
    let first = stage.victim().await;
    stage.demand(&first, 7, "first").await;
    assert_eq!(lost.await.unwrap().unknown, Some(sats(7)));

    stage.wallet.script(HandlerScript::Pay);
    stage.wallet.look_up(LookUpScript::Paid);
    let again = stage.call(1);
    let second = stage.victim().await;
    stage.demand(&second, 7, "second").await;
    // The very request that was paid for is sent once more, and answered.
    let repeated = stage.victim().await;
    assert_eq!(repeated.event, first.event);
    stage.answer(&repeated).await;
    let again = again.await.unwrap();
    assert!(again.response.result().is_some());
    assert_eq!(again.paid, None);
    assert_eq!(stage.paid(), [7]);
    assert_eq!(stage.client.payments().budget().spending().spent, sats(7));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let books = stage.books().await;
    assert_eq!(
        (books.len(), books[0].state, books[0].answer),
        (1, AttemptState::Paid, AnswerState::Result)
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_paid_for_and_never_answered_is_not_paid_for_again() {
    let ledger = Arc::new(MemoryBuyerLedger::new());
    let stage = Stage::on(ledger.clone(), |payments| payments);
    let call = stage.call(1);
    let first = stage.victim().await;
    stage.demand(&first, 7, "first").await;
    let timed_out = call.await.unwrap();
    assert_eq!(error(&timed_out).code, -32001);
    assert_eq!(data(&timed_out)["spent"]["amount"], 7);

    let again = stage.call(1);
    let second = stage.victim().await;
    stage.demand(&second, 1, "a bargain").await;
    assert_eq!(stage.victim().await.event, first.event);
    // The server stays silent.
    let again = again.await.unwrap();
    assert_eq!(rule(&again), "max_payments");
    assert_eq!(stage.paid(), [7]);

    // Nor after a restart; and a request that is too old to be let in is not even sent.
    let stage = Stage::on(ledger, |payments| payments);
    stage.clock.jump(Duration::from_secs(600));
    let third = stage.call(1);
    let victim = stage.victim().await;
    stage.demand(&victim, 1, "another bargain").await;
    assert_eq!(rule(&third.await.unwrap()), "max_payments");
    assert_eq!(stage.paid(), [0; 0]);

    // Unless somebody puts up with it.
    let server = tollkeeper::payment::ServerPubkey::from_bytes([0; 32]);
    let made_up = stage
        .ledger
        .make_up(&server, None, AnswerState::Forgiven)
        .await
        .unwrap();
    assert_eq!(made_up, 1);
    assert!(stage.bargain(1, 7, "third").await.paid.is_some());
}

/// The budget of this run is spent; what was paid for costs nothing more.
#[tokio::test(start_paused = true)]
async fn what_is_owed_is_asked_for_also_without_a_budget() {
    let ledger = Arc::new(MemoryBuyerLedger::new());
    let stage = Stage::on(ledger.clone(), |payments| payments);
    let call = stage.call(1);
    let first = stage.victim().await;
    stage.demand(&first, 7, "first").await;
    assert_eq!(error(&call.await.unwrap()).code, -32001);

    let stage = Stage::on(ledger, |payments| payments.budget(sats(0)));
    // So that the next request is not the first of its client, whose event would be that of the other's first.
    let other = stage.call(99);
    let victim = stage.victim().await;
    stage.answer(&victim).await;
    other.await.unwrap();
    let again = stage.call(1);
    let second = stage.victim().await;
    stage.demand(&second, 7, "second").await;
    let repeated = stage.victim().await;
    assert_eq!(repeated.event, first.event);
    stage.answer(&repeated).await;
    assert!(again.await.unwrap().response.result().is_some());
    assert_eq!(stage.paid(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn equal_calls_side_by_side_are_paid_for_one_after_the_other() {
    let stage = Stage::set();
    let calls = [stage.call(1), stage.call(1)];
    let victims = [stage.victim().await, stage.victim().await];
    stage.demand(&victims[0], 5, "one").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stage.demand(&victims[1], 6, "two").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stage.paid(), [5], "the second waits");
    stage.answer(&victims[0]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.paid(), [5, 6]);
    stage.answer(&victims[1]).await;
    for call in calls {
        assert!(call.await.unwrap().response.result().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn a_wallet_that_hangs_or_breaks_down_leaves_the_outcome_unknown() {
    let stage = Stage::set();
    stage.wallet.script(HandlerScript::Panic);
    let call = stage.call(1);
    let victim = stage.victim().await;
    stage.demand(&victim, 7, "a").await;
    assert_eq!(call.await.unwrap().unknown, Some(sats(7)));

    stage.wallet.script(HandlerScript::Hang);
    let call = stage.call(2);
    let victim = stage.victim().await;
    stage.demand(&victim, 8, "b").await;
    assert_eq!(call.await.unwrap().unknown, Some(sats(8)));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let states: Vec<AttemptState> = stage.books().await.iter().map(|it| it.state).collect();
    assert_eq!(states, [AttemptState::Unknown; 2]);
    assert_eq!(
        stage.client.payments().budget().spending().reserved,
        sats(15)
    );
}

/// A server that can hold a payment answers while it is under way, and offers the same call anew.
#[tokio::test(start_paused = true)]
async fn an_error_while_the_wallet_pays_does_not_free_the_call() {
    let stage = Stage::set();
    stage.wallet.script(HandlerScript::Hang);
    let held = stage.fail_while_paying(1, 7, "held").await;
    assert_eq!(held.unknown, Some(sats(7)));

    stage.wallet.script(HandlerScript::Pay);
    let again = stage.bargain(1, 7, "another").await;
    assert_eq!(again.paid, None);
    assert_eq!(rule(&again), "under_way");
    // Nor once the wallet was silent for so long that its outcome is unknown.
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert_eq!(stage.books().await[0].state, AttemptState::Unknown);
    let again = stage.bargain(1, 7, "a third").await;
    assert_eq!(rule(&again), "earlier_unknown");
    assert_eq!(stage.paid(), [7]);
    // It came back after all: now the call may be paid for.
    stage.wallet.look_up(LookUpScript::Refused);
    assert!(stage.bargain(1, 7, "a fourth").await.paid.is_some());
}

/// What a former run left unknown is looked up with the start of the next.
#[tokio::test(start_paused = true)]
async fn a_start_looks_up_what_was_left_unknown() {
    let ledger = Arc::new(MemoryBuyerLedger::new());
    let stage = Stage::on(ledger.clone(), |payments| payments);
    stage.wallet.script(HandlerScript::LoseTheAnswer);
    let call = stage.call(1);
    let victim = stage.victim().await;
    stage.demand(&victim, 7, "a").await;
    call.await.unwrap();

    let (handler, wallet) =
        tollkeeper::testing::ScriptedHandler::new("scripted".parse().unwrap(), None);
    wallet.look_up(LookUpScript::Paid);
    let payments = tollkeeper::client::ClientPayments::builder()
        .handler(handler)
        .ledger(ledger.clone())
        .build()
        .unwrap();
    let (_server, transport) = tollkeeper::testing::HostileServer::new();
    let _client = tollkeeper::client::with_client_payments(transport, payments);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let books = stage.books().await;
    assert_eq!(books[0].state, AttemptState::Paid);
    assert_eq!(books[0].proof.as_ref().unwrap().reveal(), "looked up");
}

/// What another wallet does not know says nothing of the one that was asked; a proof is one from anybody.
#[tokio::test(start_paused = true)]
async fn only_the_wallet_that_was_asked_may_say_that_nothing_was_paid() {
    for (asked, next, script, state) in [
        (
            Some("one"),
            Some("two"),
            LookUpScript::Refused,
            AttemptState::Unknown,
        ),
        (
            Some("one"),
            Some("two"),
            LookUpScript::PaidWithoutProof,
            AttemptState::Unknown,
        ),
        (
            Some("one"),
            Some("two"),
            LookUpScript::Paid,
            AttemptState::Paid,
        ),
        // Which one was asked is not on the books, or which one this is cannot be told.
        (
            None,
            Some("two"),
            LookUpScript::Refused,
            AttemptState::Unknown,
        ),
        (
            Some("one"),
            None,
            LookUpScript::Refused,
            AttemptState::Unknown,
        ),
        (
            Some("one"),
            Some("one"),
            LookUpScript::Refused,
            AttemptState::Refused,
        ),
        (
            Some("one"),
            Some("one"),
            LookUpScript::PaidWithoutProof,
            AttemptState::Paid,
        ),
        (None, None, LookUpScript::Refused, AttemptState::Refused),
    ] {
        let ledger = Arc::new(MemoryBuyerLedger::new());
        let stage = Stage::on(ledger.clone(), |payments| payments);
        asked.inspect(|name| stage.wallet.name(name));
        stage.wallet.script(HandlerScript::LoseTheAnswer);
        let lost = stage.call(1);
        let victim = stage.victim().await;
        stage.demand(&victim, 7, "first").await;
        assert_eq!(lost.await.unwrap().unknown, Some(sats(7)));
        assert_eq!(stage.books().await[0].new.wallet.as_deref(), asked);

        let stage = Stage::on(ledger, |payments| payments);
        next.inspect(|name| stage.wallet.name(name));
        stage.wallet.look_up(script);
        let again = stage.bargain(1, 8, "second").await;
        let found = stage.books().await[0].clone();
        assert_eq!(found.state, state, "{asked:?} {next:?} {script:?}");
        assert_eq!(again.paid.is_some(), state == AttemptState::Refused);
        if state == AttemptState::Unknown {
            assert_eq!(rule(&again), "earlier_unknown");
            assert!(found.note.contains("another"), "{}", found.note);
        }
    }
}

/// What is open ends with its client, also where the process lives on and makes another.
#[tokio::test(start_paused = true)]
async fn what_was_open_when_its_client_went_is_asked_for_by_the_next() {
    for end in ["closed", "dropped", "cut off"] {
        let ledger = Arc::new(MemoryBuyerLedger::new());
        let stage = Stage::on(ledger.clone(), |payments| payments);
        stage.client.send(call(1).into()).await.unwrap();
        let first = stage.victim().await;
        stage.demand(&first, 7, "first").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(stage.paid(), [7]);
        match end {
            "closed" => stage.client.close().await,
            "dropped" => drop(stage.client),
            _ => drop(stage.server),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;

        let stage = Stage::on(ledger, |payments| payments);
        assert_eq!(
            stage.books().await[0].answer,
            AnswerState::Interrupted,
            "{end}"
        );
        // So that the next request is not the first of its client, whose event would be that of the other's first.
        let other = stage.call(99);
        let victim = stage.victim().await;
        stage.answer(&victim).await;
        other.await.unwrap();
        let again = stage.call(1);
        let second = stage.victim().await;
        stage.demand(&second, 7, "second").await;
        let repeated = stage.victim().await;
        assert_eq!(repeated.event, first.event);
        stage.answer(&repeated).await;
        assert!(again.await.unwrap().response.result().is_some());
        assert_eq!(stage.paid(), [0; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_closed_says_what_was_spent() {
    let stage = Stage::set();
    let open = stage.call(1);
    let victim = stage.victim().await;
    stage.demand(&victim, 7, "first").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stage.client.close().await;
    let open = open.await.unwrap();
    assert_eq!(open.paid, Some(sats(7)));
    assert_eq!(data(&open)["spent"]["amount"], 7);
}

/// The server serves what was paid for under a later request, for nothing: that makes up for it.
#[tokio::test(start_paused = true)]
async fn a_result_that_comes_later_makes_up_for_a_failure() {
    let stage = Stage::set();
    for n in 1..=2 {
        let call = stage.call(n);
        let victim = stage.victim().await;
        stage.demand(&victim, 5, &format!("{n}")).await;
        while stage.paid().len() < n as usize {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stage
            .server
            .refuse(&victim, -32000, &json!({}))
            .await
            .unwrap();
        call.await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let call = stage.call(2);
    let victim = stage.victim().await;
    stage.answer(&victim).await;
    assert_eq!(call.await.unwrap().paid, None);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let answers: Vec<AnswerState> = stage.books().await.iter().map(|it| it.answer).collect();
    assert_eq!(answers, [AnswerState::Error, AnswerState::Result]);
}
