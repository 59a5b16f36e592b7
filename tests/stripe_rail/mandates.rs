//! Shared payment tokens as mandates: what the gate asks of the rail, and how Stripe's answers are read.

use std::time::Duration;

use serde_json::{Map, json};
use tollkeeper::payment::{
    Amount, Charged, PayReq, PaymentOrder, PaymentProcessor, PaymentRequest, PresentedProof,
    SettlementStatus,
};
use tollkeeper::rails::stripe::{SharedTokenProcessor, TokenCharger};

use super::client;
use super::fake_stripe::{FakeStripe, Prank};
use super::http_service::Reply;

const CHARGE: &str = "POST /v1/payment_intents";

fn order(n: u8, cents: u64) -> PaymentOrder {
    let key = format!("tollkeeper-{}", format!("{n:02x}").repeat(32));
    let amount = Amount::new(cents, "usd-cents".parse().unwrap()).unwrap();
    PaymentOrder::new(key, amount, "a search".to_owned(), Duration::from_secs(600))
}

fn mandate(stripe: &FakeStripe, id: &str, card: &str) -> PresentedProof {
    stripe.put(&json!({
        "id": id, "object": "shared_payment.granted_token", "payment_method": card,
        "usage_limits": { "max_amount": "1000", "currency": "usd" },
    }));
    PresentedProof::new(Map::from_iter([("spt".to_owned(), id.into())]))
}

fn rail(stripe: &FakeStripe) -> SharedTokenProcessor {
    SharedTokenProcessor::new(TokenCharger::new(client(stripe)), "profile_test").unwrap()
}

async fn look_up(rail: &SharedTokenProcessor, order: &PaymentOrder) -> SettlementStatus {
    let request = PaymentRequest::new(
        rail.pmi().clone(),
        order.amount.clone(),
        PayReq::new("digest"),
        order.idempotency_key.clone(),
    );
    rail.lookup_payment(&request).await.unwrap()
}

#[tokio::test]
async fn the_terms_are_those_of_the_method() {
    let stripe = FakeStripe::start().await;
    let rail = rail(&stripe);
    let mandates = rail.mandates().unwrap();
    assert_eq!(mandates.method(), ("stripe", "charge"));
    let terms = mandates.terms(&order(1, 50).amount).unwrap();
    let expected = json!({
        "amount": "50", "currency": "usd",
        "methodDetails": {"networkId": "profile_test", "paymentMethodTypes": ["card", "link"]},
    });
    assert_eq!(serde_json::Value::Object(terms.request), expected);
    // Below the minimum of a card, and what is no money of Stripe's, is not offered.
    assert!(mandates.terms(&order(1, 49).amount).is_none());
    assert!(mandates.terms(&"100 sats".parse().unwrap()).is_none());
    assert!(
        !rail.accepts(order(1, 50).amount.unit()),
        "nobody can be asked to pay it"
    );
    for bad in [
        json!({}),
        json!({"spt": 1}),
        json!({"spt": "pm_1"}),
        json!({"spt": "spt_ \n"}),
    ] {
        let proof = PresentedProof::new(bad.as_object().cloned().unwrap());
        assert!(!mandates.is_mandate(&proof), "{bad}");
    }
}

#[tokio::test]
async fn a_token_may_come_with_the_request_and_has_one_spelling() {
    let stripe = FakeStripe::start().await;
    let rail = rail(&stripe);
    let mandates = rail.mandates().unwrap();
    assert_eq!(mandates.direct().unwrap().as_str(), "stripe-spt-direct");
    let sent = mandates.read_direct("spt_1").unwrap();
    assert!(mandates.is_mandate(&sent) && sent == mandate(&stripe, "spt_1", "pm_card_visa"));
    let charged = mandates.charge(&order(1, 50), &sent).await;
    assert!(matches!(charged, Charged::Paid(_)), "{charged:?}");
    for bad in [
        "",
        "spt_",
        " spt_1",
        "spt_1 ",
        "SPT_1",
        "pm_1",
        "{\"spt\":\"spt_1\"}",
    ] {
        assert!(mandates.read_direct(bad).is_none(), "{bad}");
    }
}

#[tokio::test]
async fn a_charge_is_made_once_and_found_again() {
    let stripe = FakeStripe::start().await;
    let rail = rail(&stripe);
    let mandates = rail.mandates().unwrap();
    let token = mandate(&stripe, "spt_1", "pm_card_visa");
    for lost in [
        Reply::Drop,
        Reply::Hang,
        Reply::Answer(500, "{}".to_owned()),
    ] {
        stripe.prank(CHARGE, Prank::AfterDoing(lost));
    }
    let order = order(1, 50);
    let lost = mandates.charge(&order, &token).await;
    assert!(matches!(lost, Charged::Unknown(_)), "{lost:?}");
    assert!(matches!(
        look_up(&rail, &order).await,
        SettlementStatus::Settled(_)
    ));
    let charged = mandates.charge(&order, &token).await;
    let Charged::Paid(settlement) = charged else {
        panic!("{charged:?}")
    };
    assert!(settlement.reference.starts_with("pi_"));
    assert_eq!(settlement.amount, order.amount);
    assert_eq!(stripe.all("payment_intent").len(), 1);
}

#[tokio::test]
async fn processing_is_no_failure_and_a_decline_is() {
    let stripe = FakeStripe::start().await;
    let rail = rail(&stripe);
    let mandates = rail.mandates().unwrap();
    let slow = mandate(&stripe, "spt_1", "pm_card_processing");
    let charged = mandates.charge(&order(1, 50), &slow).await;
    assert!(matches!(charged, Charged::Pending), "{charged:?}");
    let found = look_up(&rail, &order(1, 50)).await;
    assert!(matches!(found, SettlementStatus::UnderWay(_)), "{found:?}");
    let declined = mandate(&stripe, "spt_2", "pm_card_chargeDeclined");
    let charged = mandates.charge(&order(2, 50), &declined).await;
    assert!(matches!(charged, Charged::Refused), "{charged:?}");
}
