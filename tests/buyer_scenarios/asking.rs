//! A person is asked about what costs more than a certain amount.

use std::sync::Arc;
use std::time::Duration;

use tollkeeper::client::Policy;
use tollkeeper::testing::{AskerControl, ScriptedAsker};

use super::stage::{Stage, rule, sats};

fn asking(answer: Option<bool>) -> (Stage, AskerControl) {
    let (asker, control) = ScriptedAsker::new(answer);
    let mut policy = Policy::default();
    policy.ask_above = Some(sats(10));
    policy.limits.per_day = Some(sats(500));
    let stage = Stage::with(|payments| payments.policy(policy).ask(Arc::new(asker)));
    (stage, control)
}

#[tokio::test(start_paused = true)]
async fn a_yes_pays_and_everything_else_does_not() {
    let (stage, person) = asking(Some(true));
    assert!(stage.bargain(1, 10, "1").await.paid.is_some());
    assert!(person.asked().is_empty(), "10 is not above 10");
    assert!(stage.bargain(2, 11, "2").await.paid.is_some());
    let asked = person.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        (asked[0].capability.as_str(), &asked[0].amount),
        ("tool:add", &sats(11))
    );
    assert_eq!(asked[0].left_of_budget, sats(1000 - 10 - 11));
    assert_eq!(asked[0].left_of_policy, Some(sats(500 - 10 - 11)));

    person.answer(Some(false));
    assert_eq!(rule(&stage.bargain(3, 11, "3").await), "ask_above");
    person.answer(None);
    let begun = tokio::time::Instant::now();
    assert_eq!(rule(&stage.bargain(4, 11, "4").await), "ask_above");
    assert_eq!(begun.elapsed().as_secs(), 60, "no answer in time is a no");
    assert_eq!(stage.paid(), [10, 11]);
    assert_eq!(
        stage.client.payments().budget().spending().reserved,
        sats(0)
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_about_what_another_rule_forbids() {
    let (stage, person) = asking(Some(true));
    assert_eq!(rule(&stage.bargain(1, 501, "1").await), "per_day");
    assert_eq!(rule(&stage.bargain(2, 1001, "2").await), "per_call");
    assert!(person.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn with_nobody_to_ask_it_is_not_paid() {
    let mut policy = Policy::default();
    policy.ask_above = Some(sats(10));
    let stage = Stage::with(|payments| payments.policy(policy));
    assert_eq!(rule(&stage.bargain(1, 11, "1").await), "ask_above");
    assert_eq!(stage.paid(), [0; 0]);
}

/// A yes is a yes to this payment. What changed while the person thought is looked at again.
#[tokio::test(start_paused = true)]
async fn a_yes_does_not_overrule_a_limit_that_was_reached_meanwhile() {
    let (stage, person) = asking(None);
    let slow = stage.call(1);
    let first = stage.victim().await;
    stage.demand(&first, 400, "1").await;
    while person.asked().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Meanwhile, from another process: small payments that need nobody's word.
    for n in 2..=13 {
        assert!(stage.bargain(n, 10, &format!("{n}")).await.paid.is_some());
    }
    drop(slow);
    person.answer(Some(true));
    let again = stage.bargain(20, 400, "20").await;
    assert_eq!(rule(&again), "per_day");
}

/// Whoever waited has gone while the person thought.
#[tokio::test(start_paused = true)]
async fn nothing_is_paid_for_a_call_that_ended_while_a_person_thought() {
    let (stage, person) = asking(None);
    let call = stage.call(1);
    let victim = stage.victim().await;
    stage.demand(&victim, 50, "1").await;
    while person.asked().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stage.answer(&victim).await;
    let outcome = call.await.unwrap();
    assert!(outcome.response.result().is_some(), "served for nothing");
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(stage.paid(), [0; 0]);
    assert!(stage.books().await.is_empty());
}
