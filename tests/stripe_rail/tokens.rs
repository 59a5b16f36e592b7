//! Shared payment tokens: one order is one charge, whatever is lost on the way.

use std::time::Duration;

use serde_json::json;
use tollkeeper::payment::{Amount, PaymentOrder, RailErrorKind, SettlementStatus};
use tollkeeper::rails::stripe::{GrantedToken, TokenCharge, TokenCharger, TokenParam};

use super::client;
use super::fake_stripe::{FakeStripe, Prank};
use super::http_service::Reply;

const CHARGE: &str = "POST /v1/payment_intents";

fn order(n: u8, cents: u64) -> PaymentOrder {
    let key = format!("tollkeeper-{}", format!("{n:02x}").repeat(32));
    let amount = Amount::new(cents, "usd-cents".parse().unwrap()).unwrap();
    PaymentOrder::new(key, amount, "a search".to_owned(), Duration::from_secs(600))
}

fn token(stripe: &FakeStripe, id: &str, card: &str) -> GrantedToken {
    stripe.put(&json!({
        "id": id, "object": "shared_payment.granted_token", "payment_method": card,
        "usage_limits": { "max_amount": "1000", "currency": "usd" },
    }));
    GrantedToken::parse(id).unwrap()
}

async fn charge(stripe: &FakeStripe, order: &PaymentOrder, token: &GrantedToken) -> TokenCharge {
    let charger = TokenCharger::new(client(stripe));
    let facts = [("mpp_intent", "charge"), ("tool_name", "search")];
    charger.charge_granted_token(order, token, &facts).await
}

fn reference(charge: &TokenCharge) -> String {
    match charge {
        TokenCharge::Succeeded { settlement } => settlement.reference.clone(),
        other => panic!("not charged: {other:?}"),
    }
}

#[tokio::test]
async fn a_token_is_charged_what_was_ordered() {
    let stripe = FakeStripe::start().await;
    let token = token(&stripe, "spt_1", "pm_card_visa");
    let order = order(1, 50);
    let charged = charge(&stripe, &order, &token).await;
    let intent = stripe.object(&reference(&charged));
    assert_eq!(intent["amount"], 50);
    assert_eq!(
        intent["metadata"]["tollkeeper_order"],
        order.idempotency_key
    );
    assert_eq!(intent["metadata"]["tool_name"], "search");
    let asked = &stripe.asked(CHARGE)[0];
    assert_eq!(asked.header("stripe-version"), Some("2026-07-29.preview"));
    assert!(
        asked.body.contains("&shared_payment_granted_token=spt_1"),
        "{}",
        asked.body
    );
    let SettlementStatus::Settled(settlement) = charged.into_status() else {
        panic!("settled")
    };
    assert_eq!(settlement.amount, order.amount);
}

#[tokio::test]
async fn the_other_spelling_of_the_parameter_works() {
    let stripe = FakeStripe::start().await;
    let token = token(&stripe, "spt_1", "pm_card_visa");
    let charger = TokenCharger::new(client(&stripe)).token_param(TokenParam::PaymentMethodData);
    let charged = charger
        .charge_granted_token(&order(1, 50), &token, &[])
        .await;
    reference(&charged);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_charges_once() {
    let stripe = FakeStripe::start().await;
    let token = token(&stripe, "spt_1", "pm_card_visa");
    for lost in [
        Reply::Drop,
        Reply::Hang,
        Reply::Answer(500, "{}".to_owned()),
    ] {
        stripe.prank(CHARGE, Prank::AfterDoing(lost));
    }
    let first = charge(&stripe, &order(1, 50), &token).await;
    assert!(matches!(first, TokenCharge::Unknown(_)), "{first:?}");
    assert_eq!(stripe.asked(CHARGE).len(), 3, "the first try and two more");
    let again = charge(&stripe, &order(1, 50), &token).await;
    reference(&again);
    assert_eq!(stripe.all("payment_intent").len(), 1);
}

#[tokio::test]
async fn a_second_token_for_the_same_order_is_not_charged() {
    let stripe = FakeStripe::start().await;
    let first = token(&stripe, "spt_1", "pm_card_visa");
    let second = token(&stripe, "spt_2", "pm_card_visa");
    reference(&charge(&stripe, &order(1, 50), &first).await);
    let other = charge(&stripe, &order(1, 50), &second).await;
    let TokenCharge::Unknown(error) = other else {
        panic!("{other:?}")
    };
    assert_eq!(error.kind(), RailErrorKind::Invalid);
    assert_eq!(stripe.all("payment_intent").len(), 1);
}

#[tokio::test]
async fn processing_is_not_failure_and_a_decline_is() {
    let stripe = FakeStripe::start().await;
    let slow = token(&stripe, "spt_1", "pm_card_processing");
    let charged = charge(&stripe, &order(1, 50), &slow).await;
    let TokenCharge::Processing { payment_intent, .. } = charged else {
        panic!("{charged:?}")
    };
    let charger = TokenCharger::new(client(&stripe));
    let mut intent = stripe.object(&payment_intent);
    intent["status"] = "succeeded".into();
    intent["amount_received"] = 50.into();
    stripe.put(&intent);
    let now = charger.look_up_charge(&order(1, 50), &payment_intent).await;
    assert_eq!(reference(&now), payment_intent);

    let bad = token(&stripe, "spt_2", "pm_card_chargeDeclined");
    let declined = charge(&stripe, &order(2, 50), &bad).await;
    let TokenCharge::Failed {
        code,
        payment_intent,
    } = &declined
    else {
        panic!("{declined:?}")
    };
    assert_eq!(code, "generic_decline");
    assert!(payment_intent.is_some());
    assert_eq!(declined.into_status(), SettlementStatus::Failed);

    let asks = token(&stripe, "spt_3", "pm_card_authenticationRequired");
    let waits = charge(&stripe, &order(3, 50), &asks).await;
    assert!(
        matches!(waits, TokenCharge::RequiresAction { .. }),
        "{waits:?}"
    );
    assert_eq!(waits.into_status(), SettlementStatus::Pending);
}

#[tokio::test]
async fn what_stripe_says_of_another_charge_is_not_believed() {
    let stripe = FakeStripe::start().await;
    for (n, field, value) in [
        (1, "amount", json!(49)),
        (2, "amount_received", json!(49)),
        (3, "currency", json!("eur")),
        (4, "livemode", json!(true)),
        (
            5,
            "metadata",
            json!({ "tollkeeper_order": "tollkeeper-ff" }),
        ),
        (6, "status", json!("splendid")),
    ] {
        let token = token(&stripe, &format!("spt_{n}"), "pm_card_visa");
        stripe.lie(CHARGE, move |intent| intent[field] = value.clone());
        let charged = charge(&stripe, &order(n, 50), &token).await;
        assert!(
            matches!(charged, TokenCharge::Unknown(_)),
            "{field}: {charged:?}"
        );
    }
}

#[tokio::test]
async fn a_restart_finds_the_charge_by_its_order() {
    let stripe = FakeStripe::start().await;
    let token = token(&stripe, "spt_1", "pm_card_visa");
    let charger = TokenCharger::new(client(&stripe));
    assert!(charger.find_charge(&order(1, 50)).await.unwrap().is_none());
    let charged = reference(&charge(&stripe, &order(1, 50), &token).await);
    let found = charger.find_charge(&order(1, 50)).await.unwrap().unwrap();
    assert_eq!(reference(&found), charged);
    stripe.down(true);
    assert!(
        charger.find_charge(&order(1, 50)).await.is_err(),
        "down is not never"
    );
}

#[tokio::test]
async fn what_cannot_be_charged_is_said_without_a_charge() {
    let stripe = FakeStripe::start().await;
    let token = token(&stripe, "spt_1", "pm_card_visa");
    let charger = TokenCharger::new(client(&stripe));
    for (cents, can) in [(49, false), (50, true)] {
        assert_eq!(charger.can_charge(&order(1, cents).amount), can, "{cents}");
    }
    let small = charge(&stripe, &order(1, 49), &token).await;
    assert!(
        matches!(
            small,
            TokenCharge::Failed {
                payment_intent: None,
                ..
            }
        ),
        "{small:?}"
    );
    let sats = Amount::new(50, "sats".parse().unwrap()).unwrap();
    let order = PaymentOrder::new("k".to_owned(), sats, "x".to_owned(), Duration::from_secs(1));
    let refused = charge(&stripe, &order, &token).await;
    assert!(matches!(refused, TokenCharge::Failed { .. }), "{refused:?}");
    assert!(GrantedToken::parse("spt_").is_none() && GrantedToken::parse("spt_a b").is_none());
    assert!(!format!("{token:?} {charger:?}").contains("spt_1"));
}
