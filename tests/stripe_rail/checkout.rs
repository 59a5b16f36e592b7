//! A page of Checkout for one call, and pages that lie.

use std::time::Duration;

use serde_json::json;
use tollkeeper::ledger::{Retention, Transition};
use tollkeeper::payment::{
    Amount, Clock, PaymentOrder, PaymentProcessor, RailErrorKind, SettlementStatus, Timestamp,
};
use tollkeeper::rails::stripe::StripeCheckout;

use super::client;
use super::fake_stripe::{FakeStripe, Prank, now};
use super::http_service::Reply;
use super::shop::{SUCCESS, Shop, eventually, is_served, session_of};

const MAKE: &str = "POST /v1/checkout/sessions";

fn checkout(stripe: &FakeStripe) -> StripeCheckout {
    StripeCheckout::new(client(stripe), SUCCESS).unwrap()
}

fn order(n: u8, cents: u64) -> PaymentOrder {
    let key = format!("tollkeeper-{}", format!("{n:02x}").repeat(32));
    let amount = Amount::new(cents, "usd-cents".parse().unwrap()).unwrap();
    PaymentOrder::new(key, amount, "a search".to_owned(), Duration::from_secs(600))
}

#[tokio::test]
async fn a_page_is_made_for_the_order_and_stands_for_at_least_half_an_hour() {
    let stripe = FakeStripe::start().await;
    let made = checkout(&stripe)
        .create_payment_required(&order(1, 50))
        .await
        .unwrap();
    let session = stripe.object(&made.reference);
    assert_eq!(session["amount_total"], 50);
    assert_eq!(
        session["metadata"]["tollkeeper_order"],
        order(1, 50).idempotency_key
    );
    assert_eq!(session["success_url"], SUCCESS);
    let ends = made.expires_at.unwrap().as_secs();
    assert!((now() + 1800..now() + 1900).contains(&ends), "{ends}");
    assert!(made.pay_req.as_str().starts_with("https://"));
    let rail = checkout(&stripe);
    for (wanted, stands) in [(1, 1860), (3600, 3600), (200_000, 86_340)] {
        let stands_for = rail.offer_ttl(Duration::from_secs(wanted));
        assert_eq!(stands_for, Duration::from_secs(stands), "{wanted}");
    }
}

#[tokio::test]
async fn what_stripe_cannot_charge_is_not_offered() {
    let stripe = FakeStripe::start().await;
    let rail = checkout(&stripe);
    let amount = |value, unit: &str| Amount::new(value, unit.parse().unwrap()).unwrap();
    for (amount, can) in [
        (amount(49, "usd-cents"), false),
        (amount(50, "usd-cents"), true),
        (amount(29, "gbp-pence"), false),
        (amount(30, "gbp-pence"), true),
        (amount(100_000, "sats"), false),
    ] {
        assert_eq!(rail.can_charge(&amount), can, "{amount}");
    }
    let refused = rail
        .create_payment_required(&order(1, 49))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), RailErrorKind::Refused);
    assert!(stripe.asked(MAKE).is_empty());
}

#[test]
fn a_price_below_the_minimum_is_refused_at_the_start_by_its_name() {
    use tollkeeper::server::ServerPayments;
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stripe = runtime.block_on(FakeStripe::start());
    let build = |price: &str| {
        ServerPayments::builder()
            .price(price.parse().unwrap())
            .processor(checkout(&stripe))
            .build()
    };
    let error = build("tool:cheap=0.49 usd").unwrap_err().to_string();
    assert!(
        error.contains("tool:cheap") && error.contains("stripe-checkout-url"),
        "{error}"
    );
    assert!(build("tool:dear=0.50 usd").is_ok());
}

#[tokio::test]
async fn a_lost_answer_makes_no_second_page() {
    let stripe = FakeStripe::start().await;
    let rail = checkout(&stripe);
    stripe.prank(MAKE, Prank::AfterDoing(Reply::Drop));
    let made = rail.create_payment_required(&order(1, 50)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let again = rail.create_payment_required(&order(1, 50)).await.unwrap();
    assert_eq!(
        made, again,
        "the same order is the same page, a second later too"
    );
    assert_eq!(stripe.all("checkout.session").len(), 1);
    for answer in [
        Reply::Hang,
        Reply::Answer(429, "{}".to_owned()),
        Reply::Answer(500, "{}".to_owned()),
    ] {
        stripe.prank(MAKE, Prank::Reply(answer));
    }
    let error = rail
        .create_payment_required(&order(2, 50))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), RailErrorKind::Unknown);
}

#[tokio::test]
async fn a_page_other_than_ordered_never_reaches_anybody() {
    let stripe = FakeStripe::start().await;
    let rail = checkout(&stripe);
    for (n, field, value) in [
        (1, "amount_total", json!(1)),
        (2, "currency", json!("jpy")),
        (3, "livemode", json!(true)),
        (
            4,
            "metadata",
            json!({ "tollkeeper_order": "tollkeeper-ff" }),
        ),
        (5, "metadata", json!({})),
        (6, "url", json!(null)),
        (7, "status", json!("complete")),
        (8, "mode", json!("subscription")),
    ] {
        stripe.lie(MAKE, move |session| session[field] = value.clone());
        let error = rail
            .create_payment_required(&order(n, 50))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), RailErrorKind::Invalid, "{field}");
    }
}

#[tokio::test]
async fn a_page_counts_as_paid_when_exactly_what_was_ordered_was_paid() {
    let stripe = FakeStripe::start().await;
    let rail = checkout(&stripe);
    let made = rail.create_payment_required(&order(1, 50)).await.unwrap();
    let look = || async { rail.lookup_payment(&made).await };
    assert_eq!(look().await.unwrap(), SettlementStatus::Pending);
    stripe.pay(&made.reference);
    for (field, value) in [
        ("amount_total", json!(49)),
        ("amount_total", json!(51)),
        ("amount_total", json!(null)),
        ("currency", json!("eur")),
        ("livemode", json!(true)),
        ("metadata", json!({ "somebody": "else" })),
        ("id", json!("cs_other")),
    ] {
        stripe.lie("GET /v1/checkout/sessions", move |session| {
            session[field] = value.clone()
        });
        let error = look().await.unwrap_err();
        assert_eq!(error.kind(), RailErrorKind::Invalid, "{field}");
    }
    stripe.down(true);
    assert_eq!(look().await.unwrap_err().kind(), RailErrorKind::Unknown);
    stripe.down(false);
    let SettlementStatus::Settled(settlement) = look().await.unwrap() else {
        panic!("paid")
    };
    assert_eq!(settlement.amount, order(1, 50).amount);
    let listed = rail
        .list_settled(Timestamp::from_secs(now() - 60))
        .await
        .unwrap();
    assert_eq!(listed.unwrap()[0].reference, made.reference);
    let intent = stripe.object(&made.reference)["payment_intent"].clone();
    stripe.refund(intent.as_str().unwrap(), Some(10));
    assert!(
        matches!(look().await.unwrap(), SettlementStatus::Settled(_)),
        "a part of it"
    );
    stripe.refund(intent.as_str().unwrap(), None);
    assert_eq!(look().await.unwrap(), SettlementStatus::Failed);
}

#[tokio::test]
async fn pages_that_end_or_wait_for_the_bank_are_told_apart() {
    let stripe = FakeStripe::start().await;
    let rail = checkout(&stripe);
    let late = rail.create_payment_required(&order(1, 50)).await.unwrap();
    stripe.pay_later(&late.reference);
    let made = stripe.object(&late.reference)["created"].as_u64().unwrap();
    for _ in 0..2 {
        assert_eq!(
            rail.lookup_payment(&late).await.unwrap(),
            SettlementStatus::UnderWay(Timestamp::from_secs(made + 14 * 86_400)),
            "until the same moment whenever it is asked for"
        );
    }
    let over = rail.create_payment_required(&order(2, 50)).await.unwrap();
    stripe.expire(&over.reference);
    assert_eq!(
        rail.lookup_payment(&over).await.unwrap(),
        SettlementStatus::Expired
    );
}

#[tokio::test]
async fn a_page_paid_twenty_minutes_after_the_offer_buys_the_call() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    let answer = buyer.call("call").await;
    let ttl = answer["error"]["data"]["payment_options"][0]["ttl"]
        .as_u64()
        .unwrap();
    assert!(ttl > 1200, "the offer stands as long as its page: {ttl}");
    shop.clock.jump(Duration::from_secs(1200));
    shop.pay(&answer);
    assert!(is_served(&buyer.call("call").await));
    assert_eq!(shop.harness.executions(), 1);
    assert_eq!(
        shop.stripe.asked(MAKE).len(),
        1,
        "and no second page was made"
    );
}

#[tokio::test]
async fn nobody_waits_for_a_person_unasked() {
    let shop = Shop::open().await;
    // Transparent, and without a word about methods.
    let mut raw = shop.harness.client(1);
    raw.introduction.pmis = vec!["stripe-checkout-url".parse().unwrap()];
    let asked = raw.call_tool(1, "call", json!({})).await.unwrap();
    let (_, demand) = raw.next_json().await.unwrap();
    assert_eq!(
        demand["params"]["pmi"], "stripe-checkout-url",
        "it asks for it by name"
    );
    let url = demand["params"]["pay_req"].as_str().unwrap().to_owned();
    let session = url.rsplit('/').next().unwrap().split('#').next().unwrap();
    shop.stripe.pay(session);
    shop.webhook("checkout.session.completed", session).await;
    loop {
        let (event, answer) = raw.next_json().await.unwrap();
        if event == Some(asked.event) && answer["method"].is_null() {
            assert!(is_served(&answer), "{answer}");
            break;
        }
    }
}

#[tokio::test]
async fn a_refund_before_the_call_takes_the_right_to_it_away() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    let session = shop.pay(&buyer.call("call").await);
    shop.webhook("checkout.session.completed", &session).await;
    eventually(|| async {
        let entries = shop.harness.entries().await.unwrap();
        entries[0].settlement.is_some()
    })
    .await;
    let intent = shop.stripe.object(&session)["payment_intent"].clone();
    let intent = intent.as_str().unwrap();
    shop.stripe.refund(intent, None);
    let charge = shop.stripe.object(intent)["latest_charge"].clone();
    shop.webhook("charge.refunded", charge.as_str().unwrap())
        .await;
    shop.treated().await;
    let answer = buyer.call("call").await;
    assert_ne!(session_of(&answer), session, "it has to be paid anew");
    assert_eq!(shop.harness.executions(), 0);
}

/// A bank debit takes days: there is no second page meanwhile, and the call is served when the money is there.
#[tokio::test]
async fn a_call_whose_money_is_on_its_way_for_days_has_no_second_page() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    let session = session_of(&buyer.call("call").await);
    shop.stripe.pay_later(&session);
    let ledger = &shop.harness.ledger;
    let id = shop.harness.entries().await.unwrap()[0].id;
    let expire = vec![Transition::Expire];
    ledger.apply(&id, expire, shop.clock.now()).await.unwrap();
    for day in 0..9 {
        let answer = buyer.call("call").await;
        assert_eq!(answer["error"]["code"], -32043, "day {day}: {answer}");
        shop.clock.jump(Duration::from_secs(86_400));
        // As the housekeeping does.
        let before = shop.clock.now().minus(Duration::from_secs(7 * 86_400));
        let retention = Retention::new(before, before, before);
        while ledger.prune(retention).await.unwrap() > 0 {}
    }
    let mut page = shop.stripe.object(&session);
    page["payment_status"] = "paid".into();
    shop.stripe.put(&page);
    shop.webhook("checkout.session.async_payment_succeeded", &session)
        .await;
    eventually(|| async {
        let entries = shop.harness.entries().await.unwrap();
        entries[0].settlement.is_some()
    })
    .await;
    assert!(is_served(&buyer.call("call").await));
    assert_eq!(shop.stripe.all("checkout.session").len(), 1);
    assert_eq!(shop.harness.executions(), 1);
}

/// A debit that fails in the end is followed by another page.
#[tokio::test]
async fn a_bank_debit_that_fails_is_followed_by_another_page() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    let session = session_of(&buyer.call("call").await);
    shop.stripe.pay_later(&session);
    let id = shop.harness.entries().await.unwrap()[0].id;
    let expire = vec![Transition::Expire];
    let ledger = &shop.harness.ledger;
    ledger.apply(&id, expire, shop.clock.now()).await.unwrap();
    let answer = buyer.call("call").await;
    assert_eq!(answer["error"]["code"], -32043, "{answer}");
    let mut page = shop.stripe.object(&session);
    page["payment_intent"] = json!("pi_failed");
    shop.stripe.put(&page);
    shop.stripe.put(&json!({
        "id": "pi_failed", "object": "payment_intent", "status": "requires_payment_method", "latest_charge": null,
    }));
    shop.clock.jump(Duration::from_secs(3));
    assert_ne!(session_of(&buyer.call("call").await), session);
}

/// A charge of a shared payment token has no page: what it was for is in the payment itself.
#[tokio::test]
async fn a_refund_of_a_charge_without_a_page_takes_the_right_to_the_call_away() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    let session = shop.pay(&buyer.call("call").await);
    shop.webhook("checkout.session.completed", &session).await;
    eventually(|| async {
        let entries = shop.harness.entries().await.unwrap();
        entries[0].settlement.is_some()
    })
    .await;
    let intent = shop.stripe.object(&session)["payment_intent"].clone();
    let intent = intent.as_str().unwrap();
    // As if the charge had been made without a page.
    let mut page = shop.stripe.object(&session);
    page["payment_intent"] = json!(null);
    shop.stripe.put(&page);
    shop.stripe.refund(intent, None);
    let charge = shop.stripe.object(intent)["latest_charge"].clone();
    shop.webhook("charge.refunded", charge.as_str().unwrap())
        .await;
    shop.treated().await;
    let answer = buyer.call("call").await;
    assert_ne!(session_of(&answer), session, "it has to be paid anew");
    assert_eq!(shop.harness.executions(), 0);
}
