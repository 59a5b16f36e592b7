//! Explicit gating: surfaced as it is, or paid for within the policy (D-38, N-97 to N-101, C-43, C-47).

use std::time::Duration;

use serde_json::{Value, json};
use tollkeeper::client::Policy;
use tollkeeper::payment::PaymentInteraction;
use tollkeeper::testing::{HandlerScript, HostileServer, pay_req_asking};

use super::stage::{Stage, data, error, rule, sats};

fn paying() -> Stage {
    Stage::with(|payments| {
        payments
            .interaction(PaymentInteraction::ExplicitGating)
            .pay_explicit_gating()
    })
}

fn offer(amount: u64, id: &str) -> Value {
    HostileServer::offer(amount, &pay_req_asking(amount, id))
}

fn params(request: &tollkeeper::wire::Request) -> Value {
    serde_json::from_str(request.params.as_ref().unwrap().get()).unwrap()
}

/// N-101
#[tokio::test(start_paused = true)]
async fn an_offer_is_shown_and_not_paid_unless_asked_to() {
    let stage = Stage::with(|payments| payments.interaction(PaymentInteraction::ExplicitGating));
    let call = stage.call(1);
    let victim = stage.victim().await;
    stage.server.gate(&victim, &[offer(5, "x")]).await.unwrap();
    let outcome = call.await.unwrap();
    assert_eq!(error(&outcome).code, -32042);
    assert_eq!(
        data(&outcome),
        json!({"payment_options": [offer(5, "x")]}),
        "untouched"
    );
    assert_eq!(stage.paid(), [0; 0]);
}

/// N-97, N-98
#[tokio::test(start_paused = true)]
async fn a_paid_call_is_sent_again_as_a_new_event_with_the_same_params() {
    let stage = paying();
    let call = stage.call(1);
    let first = stage.victim().await;
    stage.server.gate(&first, &[offer(5, "x")]).await.unwrap();
    let second = stage.victim().await;
    assert_eq!(stage.paid(), [5]);
    assert_ne!(second.event, first.event);
    assert_eq!(params(&second.request), params(&first.request));
    stage.answer(&second).await;
    let outcome = call.await.unwrap();
    assert!(outcome.response.result().is_some());
    assert_eq!(outcome.paid, Some(sats(5)));
}

/// D-38, N-100, C-43
#[tokio::test(start_paused = true)]
async fn a_server_that_always_wants_money_gets_it_as_often_as_the_policy_says() {
    for most in 1..=3u32 {
        let stage = Stage::with(|payments| {
            let mut policy = Policy::default();
            policy.max_payments = most;
            payments.pay_explicit_gating().policy(policy)
        });
        let call = stage.call(1);
        let mut asked = 0u64;
        let outcome = loop {
            tokio::select! {
                victim = stage.victim() => {
                    asked += 1;
                    let id = format!("invoice {asked}");
                    stage.server.gate(&victim, &[offer(5, &id)]).await.unwrap();
                }
                () = async { while !call.is_finished() { tokio::time::sleep(Duration::from_secs(1)).await } } => {
                    break call.await.unwrap();
                }
            }
        };
        assert_eq!(stage.paid().len(), most as usize);
        assert_eq!(rule(&outcome), "max_payments");
        let spent = json!({"amount": 5 * most, "unit": "sats"});
        assert_eq!(data(&outcome)["spent"], spent, "the error names it");
        assert_eq!(outcome.paid, Some(sats(u64::from(5 * most))));
    }
}

/// RF-5: the same invoice for ever.
#[tokio::test(start_paused = true)]
async fn the_same_offer_again_is_not_paid_again() {
    let stage = paying();
    let call = stage.call(1);
    for _ in 0..2 {
        let victim = stage.victim().await;
        stage.server.gate(&victim, &[offer(5, "x")]).await.unwrap();
    }
    let outcome = call.await.unwrap();
    assert_eq!(rule(&outcome), "paid_before");
    assert_eq!((stage.paid(), outcome.paid), (vec![5], Some(sats(5))));
}

/// N-99
#[tokio::test(start_paused = true)]
async fn pending_is_waited_for_ever_longer_and_not_for_ever() {
    let stage = paying();
    let call = stage.call(1);
    let victim = stage.victim().await;
    stage.server.gate(&victim, &[offer(5, "x")]).await.unwrap();
    let mut pauses = Vec::new();
    let mut last = stage.victim().await;
    let mut events = vec![victim.event, last.event];
    let outcome = loop {
        let sent = tokio::time::Instant::now();
        let pending = json!({"retry_after": 2, "payment_options": [offer(5, "x")]});
        stage.server.refuse(&last, -32043, &pending).await.unwrap();
        tokio::select! {
            victim = stage.victim() => {
                pauses.push(sent.elapsed().as_secs_f64());
                assert!(!events.contains(&victim.event), "always a new event");
                events.push(victim.event);
                last = victim;
            }
            () = async { while !call.is_finished() { tokio::time::sleep(Duration::from_millis(100)).await } } => {
                break call.await.unwrap();
            }
        }
    };
    assert_eq!(stage.paid(), [5]);
    assert!((pauses[0] - 3.0).abs() < 0.1, "{pauses:?}");
    assert!(
        pauses.windows(2).all(|pair| pair[1] >= pair[0] - 0.1),
        "{pauses:?}"
    );
    assert!(pauses.iter().all(|pause| *pause <= 10.1), "{pauses:?}");
    assert!((10..=20).contains(&pauses.len()), "{pauses:?}");
    assert_eq!(error(&outcome).code, -32043);
    assert_eq!(outcome.paid, Some(sats(5)));
}

/// N-84: what is not a number of seconds is not guessed at.
#[tokio::test(start_paused = true)]
async fn a_pending_that_does_not_say_how_long_is_shown() {
    for odd in [json!("2"), json!(null), json!(-1), json!(1.5), json!({})] {
        let stage = paying();
        let call = stage.call(1);
        let victim = stage.victim().await;
        let pending = json!({"retry_after": odd, "payment_options": [offer(5, "x")]});
        stage
            .server
            .refuse(&victim, -32043, &pending)
            .await
            .unwrap();
        assert_eq!(error(&call.await.unwrap()).code, -32043, "{odd}");
        assert_eq!(stage.paid(), [0; 0]);
    }
    // Nothing, or for ever, is bounded.
    for (retry_after, at_most) in [(0u64, 2), (u64::MAX, 11)] {
        let stage = paying();
        let _call = stage.call(1);
        let victim = stage.victim().await;
        let pending = json!({ "retry_after": retry_after });
        stage
            .server
            .refuse(&victim, -32043, &pending)
            .await
            .unwrap();
        let sent = tokio::time::Instant::now();
        stage.victim().await;
        assert!(sent.elapsed() >= Duration::from_millis(900));
        assert!(sent.elapsed() <= Duration::from_secs(at_most));
    }
}

/// N-85: the first answer was lost; the offer comes with the pending.
#[tokio::test(start_paused = true)]
async fn an_offer_that_comes_with_a_pending_is_paid_once() {
    let stage = paying();
    let call = stage.call(1);
    let victim = stage.victim().await;
    let pending = json!({"retry_after": 1, "payment_options": [offer(5, "x")]});
    stage
        .server
        .refuse(&victim, -32043, &pending)
        .await
        .unwrap();
    let victim = stage.victim().await;
    assert_eq!(stage.paid(), [5]);
    stage
        .server
        .refuse(&victim, -32043, &pending)
        .await
        .unwrap();
    let victim = stage.victim().await;
    stage.answer(&victim).await;
    assert!(call.await.unwrap().response.result().is_some());
    assert_eq!(stage.paid(), [5]);
}

/// A quote that rises between two tries is held against the policy like every other.
#[tokio::test(start_paused = true)]
async fn a_price_that_rises_between_tries_does_not_get_around_a_limit() {
    let stage = Stage::with(|payments| {
        let mut policy = Policy::default();
        policy.max_payments = 5;
        policy.limits.per_call = Some(sats(20));
        payments.pay_explicit_gating().policy(policy)
    });
    let call = stage.call(1);
    for (n, amount) in [5, 10, 15].into_iter().enumerate() {
        let victim = stage.victim().await;
        let id = format!("{n}");
        stage
            .server
            .gate(&victim, &[offer(amount, &id)])
            .await
            .unwrap();
    }
    let outcome = call.await.unwrap();
    assert_eq!(rule(&outcome), "per_call");
    assert_eq!(stage.paid(), [5, 10]);
    assert_eq!(outcome.paid, Some(sats(15)));
}

/// C-47, N-50
#[tokio::test(start_paused = true)]
async fn a_transparent_demand_is_not_paid_by_who_asked_for_explicit_gating() {
    let stage = paying();
    let call = stage.call(1);
    let victim = stage.victim().await;
    stage.demand(&victim, 5, "x").await;
    let outcome = call.await.unwrap();
    assert_eq!(
        error(&outcome).message,
        "Payment declined: explicit_gating was not accepted by the server"
    );
    assert_eq!(stage.paid(), [0; 0]);
}

/// Whoever paid and does not know it asks anyway: the server may know.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_of_the_wallet_does_not_keep_the_call_from_being_served() {
    let stage = paying();
    stage.wallet.script(HandlerScript::PayAndLoseTheAnswer);
    let call = stage.call(1);
    let victim = stage.victim().await;
    stage.server.gate(&victim, &[offer(5, "x")]).await.unwrap();
    let victim = stage.victim().await;
    stage.answer(&victim).await;
    let outcome = call.await.unwrap();
    assert!(outcome.response.result().is_some());
    assert_eq!(outcome.unknown, Some(sats(5)));

    // And if the server does not know either, nothing more is paid.
    let call = stage.call(2);
    for id in ["y", "z"] {
        let victim = stage.victim().await;
        stage.server.gate(&victim, &[offer(5, id)]).await.unwrap();
    }
    let outcome = call.await.unwrap();
    assert_eq!(rule(&outcome), "earlier_unknown");
    assert_eq!(data(&outcome)["unknown"]["amount"], 5);
    assert_eq!(stage.paid(), [5, 5]);
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_waiting_is_not_paid_for_again() {
    let stage = paying();
    let call = stage.call(1);
    let victim = stage.victim().await;
    stage
        .server
        .refuse(&victim, -32043, &json!({"retry_after": 5}))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    call.abort();
    let _ = call.await;
    let retried = tokio::time::timeout(Duration::from_secs(60), stage.victim()).await;
    assert!(retried.is_err(), "the call has ended");
    // An offer for a request of a call that has ended.
    stage.server.gate(&victim, &[offer(5, "x")]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stage.paid(), [0; 0]);
}
