//! Every rule refuses, names itself, and lets pass what it should.

use std::time::Duration;

use serde_json::json;
use tollkeeper::client::Policy;
use tollkeeper::client::policy::{Advertised, Limits};
use tollkeeper::payment::{CapabilityPattern, ServerPubkey};
use tollkeeper::testing::{HandlerScript, LookUpScript};
use tollkeeper::wire::Tag;

use super::stage::{Stage, error, rule, sats};

fn with(change: impl FnOnce(&mut Policy)) -> Stage {
    let mut policy = Policy::default();
    change(&mut policy);
    Stage::with(|payments| payments.policy(policy))
}

fn hourly(value: u64) -> Limits {
    let mut limits = Limits::default();
    limits.per_hour = Some(sats(value));
    limits
}

/// The memory transport's server.
fn server() -> ServerPubkey {
    ServerPubkey::from_bytes([0; 32])
}

#[tokio::test(start_paused = true)]
async fn each_limit_holds_in_its_scope_and_names_itself() {
    let pattern = |text: &str| CapabilityPattern::new(text).unwrap();
    let one_call = |value| {
        let mut limits = Limits::default();
        limits.per_call = Some(sats(value));
        limits
    };
    type Change = Box<dyn FnOnce(&mut Policy)>;
    let cases: Vec<(Change, &str)> = vec![
        (Box::new(|policy| policy.limits = hourly(12)), "per_hour"),
        (
            Box::new(|policy| policy.limits.per_day = Some(sats(12))),
            "per_day",
        ),
        (
            Box::new(|policy| policy.limits.total = Some(sats(12))),
            "total",
        ),
        (
            Box::new(|policy| policy.each_server = hourly(12)),
            "each_server.per_hour",
        ),
        (
            Box::new(|policy| policy.each_capability = hourly(12)),
            "each_capability.per_hour",
        ),
        (
            Box::new(|policy| policy.servers = vec![(server(), hourly(12))]),
            "server 00000000.per_hour",
        ),
        (
            Box::new(move |policy| policy.capabilities = vec![(pattern("tool:a*"), hourly(12))]),
            "capability tool:a*.per_hour",
        ),
        (
            Box::new(move |policy| policy.limits = one_call(4)),
            "per_call",
        ),
    ];
    for (change, named) in cases {
        let stage = with(change);
        let first = stage.bargain(1, 5, "1").await;
        let mut refused = first.clone();
        if named != "per_call" {
            assert!(first.paid.is_some(), "{named}");
            assert!(stage.bargain(2, 7, "2").await.paid.is_some(), "{named}");
            refused = stage.bargain(3, 1, "3").await;
        }
        assert_eq!(rule(&refused), named);
        let message = error(&refused).message;
        assert!(message.contains(named), "{message}");
        assert!(message.contains("sats"), "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_something_else_is_no_limit_here() {
    let stage = with(|policy| {
        policy.servers = vec![(ServerPubkey::from_bytes([7; 32]), hourly(1))];
        policy.capabilities = vec![(CapabilityPattern::new("tool:b*").unwrap(), hourly(1))];
    });
    assert!(stage.bargain(1, 5, "1").await.paid.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_hour_later_there_is_room_again() {
    let stage = with(|policy| policy.limits = hourly(10));
    assert!(stage.bargain(1, 10, "1").await.paid.is_some());
    assert_eq!(rule(&stage.bargain(2, 1, "2").await), "per_hour");
    stage.clock.jump(Duration::from_secs(3599));
    assert_eq!(rule(&stage.bargain(3, 1, "3").await), "per_hour");
    stage.clock.jump(Duration::from_secs(2));
    assert!(stage.bargain(4, 10, "4").await.paid.is_some());
    // A clock that is set back does not make room.
    stage.clock.jump_back(Duration::from_secs(7200));
    assert_eq!(rule(&stage.bargain(5, 1, "5").await), "per_hour");
}

#[tokio::test(start_paused = true)]
async fn servers_are_allowed_and_denied() {
    let other = ServerPubkey::from_bytes([7; 32]);
    let stage = with(|policy| policy.deny = vec![other, server()]);
    assert_eq!(rule(&stage.bargain(1, 5, "1").await), "deny");
    let stage = with(|policy| policy.allow = vec![other]);
    assert_eq!(rule(&stage.bargain(1, 5, "1").await), "allow");
    let stage = with(|policy| policy.allow = vec![other, server()]);
    assert!(stage.bargain(1, 5, "1").await.paid.is_some());
}

/// RF-9, N-19: the list says 10 to 20.
#[tokio::test(start_paused = true)]
async fn nothing_is_paid_above_the_advertised_price() {
    for (rule_word, asked, paid, named) in [
        (Advertised::Seen, 20, true, ""),
        (Advertised::Seen, 21, false, "advertised"),
        (Advertised::Off, 21, true, ""),
        (Advertised::Required, 20, true, ""),
    ] {
        let stage = with(|policy| policy.advertised = rule_word);
        stage.see_price("10-20", "sats").await;
        let outcome = stage.bargain(1, asked, "1").await;
        assert_eq!(outcome.paid.is_some(), paid, "{rule_word:?} {asked}");
        if !paid {
            assert_eq!(rule(&outcome), named);
            let message = error(&outcome).message;
            assert!(message.contains("10 sats to 20 sats"), "{message}");
        }
    }
    let stage = with(|policy| policy.advertised = Advertised::Required);
    assert_eq!(rule(&stage.bargain(1, 1, "1").await), "advertised");
}

/// A price is not raised in passing, right before it is demanded.
#[tokio::test(start_paused = true)]
async fn only_lists_say_what_something_costs() {
    let stage = Stage::set();
    stage.see_price("10", "sats").await;
    let call = stage.call(2);
    let victim = stage.victim().await;
    let tags = vec![Tag::new(["cap", "tool:add", "900", "sats"])];
    stage
        .server
        .answer_tagged(&victim, &json!({"tools": []}), tags)
        .await
        .unwrap();
    call.await.unwrap();
    assert_eq!(rule(&stage.bargain(3, 900, "1").await), "advertised");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_takes_money_without_a_result_is_cut_off() {
    for script in [HandlerScript::Pay, HandlerScript::Hang] {
        let stage = Stage::set();
        stage.wallet.script(script);
        for n in 1..=3 {
            stage.fail_while_paying(n, 5, &format!("{n}")).await;
        }
        let outcome = stage.fail_while_paying(4, 5, "4").await;
        assert_eq!(rule(&outcome), "breaker", "{script:?}");
        let message = error(&outcome).message;
        assert!(message.contains("3 times") && message.contains("5 sats"));
        assert_eq!(stage.paid(), [5, 5, 5], "{script:?}");
    }
}

/// What only may have been taken is looked up before a server is cut off for it.
#[tokio::test(start_paused = true)]
async fn a_server_is_not_cut_off_for_payments_that_never_were() {
    let stage = Stage::set();
    stage.wallet.script(HandlerScript::LoseTheAnswer);
    for n in 1..=3 {
        stage.fail_while_paying(n, 5, &format!("{n}")).await;
    }
    stage.wallet.script(HandlerScript::Pay);
    assert_eq!(rule(&stage.bargain(4, 5, "4").await), "breaker");
    stage.wallet.look_up(LookUpScript::Refused);
    assert!(stage.bargain(5, 5, "5").await.paid.is_some());
    assert_eq!(stage.paid(), [5, 5, 5, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_limit_in_a_currency_without_a_rate_pays_nothing() {
    let stage = with(|policy| policy.limits.per_day = Some("1 usd".parse().unwrap()));
    let refused = stage.bargain(1, 5, "1").await;
    assert_eq!(rule(&refused), "per_day");
    assert!(error(&refused).message.contains("no rate"));
    assert_eq!(stage.paid(), [0; 0]);
}

#[test]
fn a_policy_that_cannot_be_kept_is_refused() {
    let wrong = |change: fn(&mut Policy)| {
        let mut policy = Policy::default();
        change(&mut policy);
        policy.check().unwrap_err().to_string()
    };
    assert!(wrong(|policy| policy.max_payments = 0).contains("max_payments"));
    assert!(wrong(|policy| policy.ask_timeout = Duration::ZERO).contains("ask_timeout"));
    let two = wrong(|policy| {
        policy.limits.per_day = Some("1 usd".parse().unwrap());
        policy.ask_above = Some("1 eur".parse().unwrap());
    });
    assert!(two.contains("usd-cents and eur-cents"), "{two}");
}
