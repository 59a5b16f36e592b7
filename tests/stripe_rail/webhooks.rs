//! Webhooks in any order, twice, never; and purchases that are not what they should be.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tollkeeper::entitlement::stripe::DeskSettings;
use tollkeeper::ledger::{PurchaseFilter, PurchaseState, SqliteLedger};

use super::fake_stripe::{FakeStripe, Prank};
use super::http_service::Reply;
use super::shop::{Books, Shop, eventually, is_served, prices, session_of};

const LOOK: &str = "GET /v1/checkout/sessions";

async fn states(shop: &Shop) -> Vec<PurchaseState> {
    let all = PurchaseFilter::new(vec![], 99);
    let all = shop.books.purchases(&all).await.unwrap();
    all.iter().map(|purchase| purchase.state).collect()
}

#[tokio::test]
async fn the_webhook_before_the_poll() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    let session = shop.pay(&buyer.call("once").await);
    shop.webhook("checkout.session.completed", &session).await;
    shop.treated().await;
    assert_eq!(states(&shop).await, [PurchaseState::Held]);
    let looked = shop.stripe.asked(LOOK).len();
    assert!(is_served(&buyer.call("once").await), "on the next call");
    assert_eq!(
        shop.stripe.asked(LOOK).len(),
        looked,
        "and without a question"
    );
}

#[tokio::test]
async fn the_poll_before_the_webhook() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    let session = shop.pay(&buyer.call("once").await);
    assert!(is_served(&buyer.call("once").await));
    shop.webhook("checkout.session.completed", &session).await;
    shop.treated().await;
    assert_eq!(states(&shop).await, [PurchaseState::Held]);
    assert!(is_served(&buyer.call("once").await));
}

#[tokio::test]
async fn the_same_webhook_twice_is_acted_upon_once() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    let session = shop.pay(&buyer.call("once").await);
    let event = shop.webhook("checkout.session.completed", &session).await;
    shop.treated().await;
    let looked = shop.stripe.asked(LOOK).len();
    for _ in 0..3 {
        shop.take_in(&event).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    shop.treated().await;
    assert_eq!(shop.stripe.asked(LOOK).len(), looked);
}

#[tokio::test]
async fn a_webhook_about_an_unknown_page_grants_nothing() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    shop.pay(&buyer.call("once").await);
    let page = shop.stripe.all("checkout.session").remove(0);
    let mut foreign = page.clone();
    foreign["id"] = "cs_test_foreign".into();
    foreign["metadata"] = json!({});
    shop.stripe.put(&foreign);
    shop.webhook("checkout.session.completed", "cs_test_foreign")
        .await;
    let event = json!({ "id": "evt_x", "type": "customer.subscription.created", "livemode": false,
        "data": { "object": { "id": "sub_nowhere" } } });
    shop.take_in(&event).await.unwrap();
    shop.treated().await;
    assert_eq!(
        states(&shop).await,
        [PurchaseState::Open],
        "not even this one"
    );
}

#[tokio::test]
async fn a_webhook_of_the_other_mode_is_passed_over() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    let session = shop.pay(&buyer.call("once").await);
    let mut event = shop.stripe.event("checkout.session.completed", &session);
    event["livemode"] = true.into();
    shop.take_in(&event).await.unwrap();
    assert!(shop.books.untreated(9).await.unwrap().is_empty());
    assert_eq!(states(&shop).await, [PurchaseState::Open]);
}

/// What a webhook says is not believed: only what Stripe says when it is asked.
#[tokio::test]
async fn a_webhook_that_lies_grants_nothing() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    let session = session_of(&buyer.call("once").await);
    let mut event = shop.stripe.event("checkout.session.completed", &session);
    event["data"]["object"]["status"] = "complete".into();
    event["data"]["object"]["payment_status"] = "paid".into();
    shop.take_in(&event).await.unwrap();
    shop.treated().await;
    shop.clock.jump(Duration::from_secs(3));
    session_of(&buyer.call("once").await);
    assert_eq!(shop.harness.executions(), 0);
}

#[tokio::test]
async fn a_page_of_another_account_amount_or_currency_grants_nothing() {
    for (field, value) in [
        ("amount_total", json!(1)),
        ("currency", json!("jpy")),
        ("livemode", json!(true)),
        ("metadata", json!({})),
        ("metadata", json!({ "tollkeeper_client": "02".repeat(32) })),
        ("mode", json!("subscription")),
    ] {
        let shop = Shop::open().await;
        let buyer = shop.buyer(1);
        let session = shop.pay(&buyer.call("once").await);
        let mut page = shop.stripe.object(&session);
        if field == "metadata" && value.get("tollkeeper_client").is_some() {
            page[field]["tollkeeper_client"] = value["tollkeeper_client"].clone();
        } else {
            page[field] = value;
        }
        shop.stripe.put(&page);
        shop.webhook("checkout.session.completed", &session).await;
        shop.treated().await;
        shop.clock.jump(Duration::from_secs(3));
        let answer = buyer.call("once").await;
        assert!(answer["error"].is_object(), "{field}: {answer}");
        assert_eq!(states(&shop).await, [PurchaseState::Open], "{field}");
        assert_eq!(shop.harness.executions(), 0, "{field}");
    }
}

#[tokio::test]
async fn refunds_and_disputes_take_it_away_for_good() {
    for dispute in [false, true] {
        let shop = Shop::open().await;
        let buyer = shop.buyer(1);
        let session = shop.pay(&buyer.call("once").await);
        assert!(is_served(&buyer.call("once").await));
        let intent = shop.stripe.object(&session)["payment_intent"].clone();
        let intent = intent.as_str().unwrap();
        if dispute {
            let dispute = shop.stripe.dispute(intent);
            shop.webhook("charge.dispute.created", &dispute).await;
        } else {
            shop.stripe.refund(intent, Some(1));
            let charge = shop.stripe.object(intent)["latest_charge"].clone();
            shop.webhook("charge.refunded", charge.as_str().unwrap())
                .await;
            shop.treated().await;
            assert!(is_served(&buyer.call("once").await), "a part of it");
            shop.stripe.refund(intent, None);
            shop.webhook("charge.refunded", charge.as_str().unwrap())
                .await;
        }
        shop.treated().await;
        assert_eq!(states(&shop).await, [PurchaseState::Over]);
        assert_ne!(session_of(&buyer.call("once").await), session);
    }
}

#[tokio::test]
async fn a_refunded_period_of_a_subscription_ends_with_the_refund_and_the_next_one_counts() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    let session = shop.pay(&buyer.call("monthly").await);
    assert!(is_served(&buyer.call("monthly").await));
    let subscription = shop.stripe.object(&session)["subscription"].clone();
    let subscription = subscription.as_str().unwrap();
    let former = shop.stripe.all("payment_intent")[0]["id"].clone();
    let renewal = shop.stripe.renew(subscription);
    let refund = async |intent: &str| {
        shop.stripe.refund(intent, None);
        let charge = shop.stripe.object(intent)["latest_charge"].clone();
        shop.webhook("charge.refunded", charge.as_str().unwrap())
            .await;
        shop.treated().await;
    };
    refund(former.as_str().unwrap()).await;
    assert!(is_served(&buyer.call("monthly").await), "a former period");
    refund(&renewal).await;
    assert_eq!(states(&shop).await, [PurchaseState::Lapsed]);
    let answer = buyer.call("monthly").await;
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("refunded"),
        "{answer}"
    );
    // Stripe goes on saying that the subscription is active.
    shop.webhook("customer.subscription.updated", subscription)
        .await;
    shop.treated().await;
    assert!(!is_served(&buyer.call("monthly").await));
    // And goes on charging: what is paid for then counts.
    shop.stripe.renew(subscription);
    let mut object = shop.stripe.object(subscription);
    let end = &mut object["items"]["data"][0]["current_period_end"];
    *end = (end.as_u64().unwrap() + 30 * 86_400).into();
    shop.stripe.put(&object);
    shop.webhook("customer.subscription.updated", subscription)
        .await;
    shop.treated().await;
    assert!(is_served(&buyer.call("monthly").await));
    assert_eq!(shop.stripe.all("subscription").len(), 1);
}

#[tokio::test]
async fn a_subscription_counts_by_its_status() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    let session = shop.pay(&buyer.call("monthly").await);
    assert!(is_served(&buyer.call("monthly").await));
    let subscription = shop.stripe.object(&session)["subscription"].clone();
    let subscription = subscription.as_str().unwrap();
    for (status, counts) in [
        ("trialing", true),
        ("past_due", false),
        ("active", true),
        ("unpaid", false),
        ("paused", false),
        ("active", true),
    ] {
        shop.stripe.subscription(subscription, status);
        shop.webhook("customer.subscription.updated", subscription)
            .await;
        shop.treated().await;
        let answer = buyer.call("monthly").await;
        assert_eq!(is_served(&answer), counts, "{status}: {answer}");
        if !counts {
            let said = answer["error"]["message"].as_str().unwrap();
            assert!(
                said.contains(status),
                "no second subscription is sold: {said}"
            );
        }
    }
    assert_eq!(shop.stripe.all("subscription").len(), 1);
}

/// A page that is finished by a bank debit is paid days later, or not at all.
#[tokio::test]
async fn money_that_is_on_its_way_is_waited_for() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    let session = session_of(&buyer.call("once").await);
    shop.stripe.put(&json!({ "id": "pi_slow", "object": "payment_intent", "status": "processing", "latest_charge": null }));
    let mut page = shop.stripe.object(&session);
    page["status"] = "complete".into();
    page["url"] = json!(null);
    page["payment_intent"] = "pi_slow".into();
    shop.stripe.put(&page);
    shop.webhook("checkout.session.completed", &session).await;
    shop.treated().await;
    for _ in 0..2 {
        let answer = buyer.call("once").await;
        assert_eq!(answer["error"]["code"], -32043, "{answer}");
        shop.clock.jump(Duration::from_secs(86_400));
    }
    page["payment_status"] = "paid".into();
    shop.stripe.put(&page);
    shop.webhook("checkout.session.async_payment_succeeded", &session)
        .await;
    shop.treated().await;
    assert!(is_served(&buyer.call("once").await));
    assert_eq!(shop.stripe.all("checkout.session").len(), 1);
}

#[tokio::test]
async fn while_stripe_is_down_who_has_paid_is_served_and_nobody_else_is() {
    let shop = Shop::open().await;
    let (buyer, other) = (shop.buyer(1), shop.buyer(2));
    shop.pay(&buyer.call("monthly").await);
    assert!(is_served(&buyer.call("monthly").await));
    shop.stripe.down(true);
    assert!(is_served(&buyer.call("monthly").await));
    let answer = other.call("monthly").await;
    assert_eq!(answer["error"]["code"], -32000, "{answer}");
    shop.stripe.down(false);
    session_of(&other.call("monthly").await);
    shop.stripe.down(true);
    // Long after the period has ended nobody can tell any more.
    shop.clock.jump(Duration::from_secs(40 * 86_400));
    let answer = buyer.call("monthly").await;
    assert_eq!(answer["error"]["code"], -32000, "{answer}");
    shop.stripe.down(false);
    shop.clock.jump(Duration::from_secs(3));
    assert!(
        is_served(&buyer.call("monthly").await),
        "until Stripe says that it was paid on"
    );
}

#[tokio::test]
async fn a_webhook_while_stripe_is_down_is_acted_upon_when_it_is_back() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    let session = shop.pay(&buyer.call("once").await);
    shop.stripe.down(true);
    shop.webhook("checkout.session.completed", &session).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(shop.books.untreated(9).await.unwrap().len(), 1);
    shop.stripe.down(false);
    shop.treated().await;
    assert_eq!(states(&shop).await, [PurchaseState::Held]);
}

/// The process dies after Stripe was told that the webhook was received, and before anything came of it.
#[tokio::test]
async fn a_death_between_the_receipt_and_the_grant_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let books = || {
        let ledger = Arc::new(SqliteLedger::open(folder.path().join("books.db")).unwrap());
        Books {
            ledger: Arc::clone(&ledger) as _,
            purchases: ledger,
        }
    };
    let stripe = FakeStripe::start().await;
    prices(&stripe);
    let first = Shop::on(stripe, books(), DeskSettings::default(), false).await;
    let buyer = first.buyer(1);
    let session = first.pay(&buyer.call("once").await);
    first.webhook("checkout.session.completed", &session).await;
    assert_eq!(states(&first).await, [PurchaseState::Open]);
    // The rounds never ran: this is what the disk has.
    let second = books();
    assert_eq!(second.purchases.untreated(9).await.unwrap().len(), 1);
    let stop = tokio_util::sync::CancellationToken::new();
    tokio::spawn(Arc::clone(&first.desk).keep(stop.clone()));
    eventually(|| async { second.purchases.untreated(9).await.unwrap().is_empty() }).await;
    stop.cancel();
    assert!(is_served(&buyer.call("once").await));
    assert_eq!(first.stripe.all("checkout.session").len(), 1);
}

#[tokio::test]
async fn a_page_whose_answer_was_lost_is_the_same_page_on_the_next_call() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    for _ in 0..3 {
        shop.stripe
            .prank("POST /v1/checkout/sessions", Prank::AfterDoing(Reply::Drop));
    }
    let answer = buyer.call("once").await;
    assert_eq!(answer["error"]["code"], -32000, "{answer}");
    session_of(&buyer.call("once").await);
    assert_eq!(shop.stripe.all("checkout.session").len(), 1);
}

#[tokio::test]
async fn a_page_that_ended_is_followed_by_another() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    let first = session_of(&buyer.call("once").await);
    shop.stripe.expire(&first);
    shop.clock.jump(Duration::from_secs(3700));
    let second = session_of(&buyer.call("once").await);
    assert_ne!(first, second);
    assert_eq!(
        states(&shop).await,
        [PurchaseState::Lapsed, PurchaseState::Open]
    );
}

/// It was paid in its last minute, and nobody could be asked: another page would be paid beside it.
#[tokio::test]
async fn a_page_that_ended_and_cannot_be_looked_at_is_not_followed_by_another() {
    let stripe = FakeStripe::start().await;
    prices(&stripe);
    let shop = Shop::on(stripe, Books::in_memory(), DeskSettings::default(), false).await;
    let buyer = shop.buyer(1);
    shop.pay(&buyer.call("once").await);
    shop.clock.jump(Duration::from_secs(3700));
    shop.stripe
        .prank(LOOK, Prank::Reply(Reply::Answer(400, "{}".to_owned())));
    // The second time within the pause between two questions.
    for nth in 1..=2 {
        let answer = buyer.call("once").await;
        assert_eq!(answer["error"]["code"], -32000, "{nth}: {answer}");
    }
    shop.clock.jump(Duration::from_secs(3));
    assert!(is_served(&buyer.call("once").await));
    assert_eq!(shop.stripe.all("checkout.session").len(), 1);
}

#[tokio::test]
async fn pages_are_limited_and_nobody_is_charged_for_that() {
    let shop = Shop::with(|settings| {
        settings.limits = tollkeeper::ledger::OpenLimits::new(1, 2);
    })
    .await;
    let buyer = shop.buyer(1);
    session_of(&buyer.call("once").await);
    let answer = buyer.call("monthly").await;
    assert_eq!(
        answer["error"]["message"],
        "Payment capacity reached, retry later"
    );
    session_of(&shop.buyer(2).call("once").await);
    assert_eq!(shop.buyer(3).call("once").await["error"]["code"], -32000);
    assert_eq!(shop.stripe.all("checkout.session").len(), 2);
}

#[tokio::test]
async fn without_any_webhook_a_purchase_is_found_in_rounds() {
    let shop = Shop::open().await;
    let session = shop.pay(&shop.buyer(1).call("once").await);
    shop.clock.jump(Duration::from_secs(61));
    wake(&shop, "evt_a").await;
    eventually(|| async { states(&shop).await == [PurchaseState::Held] }).await;
    shop.stripe.refund(
        shop.stripe.object(&session)["payment_intent"]
            .as_str()
            .unwrap(),
        None,
    );
    shop.clock.jump(Duration::from_secs(7 * 3600));
    wake(&shop, "evt_b").await;
    eventually(|| async { states(&shop).await == [PurchaseState::Over] }).await;
}

/// Has a round begin at once: a webhook about nothing of ours does.
async fn wake(shop: &Shop, id: &str) {
    let event = json!({ "id": id, "type": "checkout.session.expired", "livemode": false,
        "data": { "object": { "id": "cs_test_nowhere" } } });
    shop.take_in(&event).await.unwrap();
}

/// A shop that was tried out with play money goes live on the same books.
#[tokio::test]
async fn what_was_bought_in_test_mode_does_not_count_in_live_mode() {
    use tollkeeper::payment::ClientPubkey;
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    shop.pay(&buyer.call("once").await);
    assert!(is_served(&buyer.call("once").await));
    let of = async |plan: &str| {
        let client = ClientPubkey::from_bytes([1; 32]);
        shop.books.standing_purchase(&client, plan).await.unwrap()
    };
    assert!(of("test/tool:once").await.is_some());
    assert!(of("tool:once").await.is_none());
}
