//! Limits and budgets in other money than prices.

use std::sync::Arc;
use std::time::Duration;

use tollkeeper::client::Policy;
use tollkeeper::client::policy::Advertised;
use tollkeeper::payment::{Amount, Clock, FixedRates, Rate, Unit};

use super::stage::{Stage, error, rule, sats};

/// 1 sat is 0.1 cents: ten sats a cent.
fn rate() -> Rate {
    Rate::new("0.01 usd".parse().unwrap(), sats(10)).unwrap()
}

fn with(policy: Policy, rate: Rate) -> Stage {
    let rates = Arc::new(FixedRates::new(vec![rate]));
    Stage::with(|payments| {
        payments
            .policy(policy)
            .rates(rates, Duration::from_secs(600))
    })
}

#[tokio::test(start_paused = true)]
async fn a_limit_in_cents_counts_sats_at_their_rate_rounded_up() {
    let mut policy = Policy::default();
    policy.limits.per_day = Some("0.05 usd".parse().unwrap());
    let stage = with(policy, rate());
    assert!(stage.bargain(1, 20, "1").await.paid.is_some(), "2 cents");
    assert!(stage.bargain(2, 11, "2").await.paid.is_some(), "1.1 is 2");
    assert_eq!(rule(&stage.bargain(3, 11, "3").await), "per_day");
    assert!(stage.bargain(4, 10, "4").await.paid.is_some());
    assert_eq!(rule(&stage.bargain(5, 1, "5").await), "per_day");
    let worth: Vec<Option<Amount>> = stage
        .books()
        .await
        .into_iter()
        .map(|attempt| attempt.new.worth)
        .collect();
    let cents = |n| Some(Amount::new(n, Unit::USD_CENTS).unwrap());
    assert_eq!(worth, [cents(2), cents(2), cents(1)]);
}

#[tokio::test(start_paused = true)]
async fn an_old_rate_is_no_rate() {
    let mut policy = Policy::default();
    policy.limits.per_day = Some("0.05 usd".parse().unwrap());
    let now = tollkeeper::payment::SystemClock.now();
    let stage = with(policy, rate().observed_at(now));
    assert!(stage.bargain(1, 10, "1").await.paid.is_some());
    stage.clock.jump(Duration::from_secs(700));
    assert_eq!(rule(&stage.bargain(2, 10, "2").await), "per_day");
}

/// A server lists its price in its own money, and asks for sats at its own rate.
#[tokio::test(start_paused = true)]
async fn a_price_that_was_listed_in_other_money_is_held_against_the_rate() {
    for word in [Advertised::Seen, Advertised::Required] {
        let mut policy = Policy::default();
        policy.advertised = word;
        let stage = with(policy, rate());
        stage.see_price("1-5", "usd-cents").await;
        // 5 cents are 50 sats here; 5% more are 52.5.
        let refused = stage.bargain(1, 54, "1").await;
        assert_eq!(rule(&refused), "advertised");
        let message = error(&refused).message;
        assert!(message.contains("0.05 usd"), "{message}");
        assert!(stage.bargain(2, 53, "2").await.paid.is_some());
        assert_eq!(stage.paid(), [53]);
    }
    // What one has no rate for cannot be held against anything.
    let now = tollkeeper::payment::SystemClock.now();
    let aged = with(Policy::default(), rate().observed_at(now));
    aged.clock.jump(Duration::from_secs(700));
    for stage in [Stage::set(), aged] {
        stage.see_price("5", "usd-cents").await;
        let refused = stage.bargain(1, 50, "1").await;
        assert_eq!(rule(&refused), "advertised");
        assert!(error(&refused).message.contains("no rate"));
        assert_eq!(stage.paid(), [0; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_in_cents_is_spent_in_cents() {
    let rates = Arc::new(FixedRates::new(vec![rate()]));
    let stage = Stage::with(|payments| {
        payments
            .budget("0.03 usd".parse().unwrap())
            .rates(rates, Duration::from_secs(600))
    });
    assert!(stage.bargain(1, 20, "1").await.paid.is_some());
    let spending = stage.client.payments().budget().spending();
    assert_eq!(spending.spent, "0.02 usd".parse().unwrap());
    assert_eq!(rule(&stage.bargain(2, 11, "2").await), "budget");
    assert!(stage.bargain(3, 10, "3").await.paid.is_some());
}
