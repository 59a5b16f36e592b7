//! What goes wrong with the `paidTool` of Stripe's agent toolkit, and does not here: a test for each.

use std::time::Duration;

use serde_json::json;

use super::fake_stripe::Prank;
use super::http_service::Reply;
use super::shop::{Shop, eventually, is_served, session_of};

const SESSIONS: &str = "POST /v1/checkout/sessions";

/// There, a paid page of a subscription counts for ever: the check of the subscription fails, and the page still says paid.
#[tokio::test]
async fn a_cancelled_subscription_does_not_count_as_paid() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    let session = shop.pay(&buyer.call("monthly").await);
    assert!(is_served(&buyer.call("monthly").await));
    let subscription = shop.stripe.object(&session)["subscription"].clone();
    let subscription = subscription.as_str().unwrap();
    shop.stripe.subscription(subscription, "canceled");
    shop.webhook("customer.subscription.deleted", subscription)
        .await;
    shop.treated().await;
    let answer = buyer.call("monthly").await;
    assert_ne!(
        session_of(&answer),
        session,
        "a new page, for a new subscription"
    );
    assert_eq!(shop.harness.executions(), 1);
}

/// There, one payment is all calls for ever, whatever was meant.
#[tokio::test]
async fn a_payment_for_a_call_is_one_call_and_for_a_tool_is_the_tool() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    shop.pay(&buyer.call("call").await);
    shop.clock.jump(Duration::from_secs(3));
    assert!(is_served(&buyer.call("call").await));
    let second = buyer.call("call").await;
    session_of(&second);
    assert_eq!(shop.harness.executions(), 1);

    shop.pay(&buyer.call("once").await);
    for _ in 0..3 {
        shop.clock.jump(Duration::from_secs(3));
        assert!(is_served(&buyer.call("once").await));
    }
    session_of(&buyer.call("monthly").await);
    assert_eq!(shop.harness.executions(), 4, "the tool, and no other");
}

/// There, each unpaid call makes a new page, and two of them can be paid.
#[tokio::test]
async fn an_unpaid_client_gets_the_same_page_again() {
    let shop = Shop::open().await;
    let (buyer, other) = (shop.buyer(1), shop.buyer(2));
    let first = session_of(&buyer.call("once").await);
    for arguments in [json!({}), json!({ "x": 1 }), json!({ "x": 2 })] {
        shop.clock.jump(Duration::from_secs(3));
        let again = session_of(&buyer.call_with("once", arguments).await);
        assert_eq!(again, first);
    }
    assert_ne!(session_of(&other.call("once").await), first);
    assert_eq!(shop.stripe.asked(SESSIONS).len(), 2);
    // The same call, under explicit gating, has one page as well.
    let call = session_of(&buyer.call("call").await);
    let pending = buyer.call("call").await;
    assert_eq!(pending["error"]["code"], -32043);
    let url = pending["error"]["data"]["payment_options"][0]["pay_req"].as_str();
    assert!(url.unwrap().contains(&call));
}

/// There, each paid call asks Stripe three or four questions.
#[tokio::test]
async fn a_paid_call_asks_stripe_nothing() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    for tool in ["once", "monthly"] {
        shop.pay(&buyer.call(tool).await);
        assert!(is_served(&buyer.call(tool).await));
    }
    let before = shop.stripe.asked("").len();
    shop.stripe.down(true);
    for _ in 0..20 {
        for tool in ["once", "monthly"] {
            assert!(is_served(&buyer.call(tool).await));
        }
    }
    assert_eq!(shop.stripe.asked("").len(), before);
}

/// There, only the latest hundred pages of a customer are looked at.
#[tokio::test]
async fn a_customer_with_more_than_a_hundred_pages_keeps_what_it_has() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    let session = shop.pay(&buyer.call("once").await);
    assert!(is_served(&buyer.call("once").await));
    let page = shop.stripe.object(&session);
    for n in 0..150 {
        let mut other = page.clone();
        other["id"] = format!("cs_test_other{n}").into();
        other["payment_status"] = "unpaid".into();
        other["nth"] = (1_000_000 + n).into();
        shop.stripe.put(&other);
    }
    shop.clock.jump(Duration::from_secs(7 * 3600));
    shop.webhook("checkout.session.completed", &session).await;
    shop.treated().await;
    assert!(is_served(&buyer.call("once").await));
}

/// There, whoever types an address of mail is its customer, in upper case another one.
#[tokio::test]
async fn a_client_is_its_key_and_one_customer() {
    let shop = Shop::open().await;
    let (buyer, other) = (shop.buyer(1), shop.buyer(2));
    for tool in ["once", "monthly", "metered"] {
        buyer.call(tool).await;
    }
    other.call("once").await;
    let customers = shop.stripe.all("customer");
    assert_eq!(customers.len(), 2);
    let keys: Vec<_> = customers
        .iter()
        .map(|customer| customer["metadata"]["nostr_pubkey"].as_str().unwrap())
        .collect();
    assert_eq!(keys, ["01".repeat(32), "02".repeat(32)]);
    assert!(
        shop.stripe.asked("GET /v1/customers").is_empty(),
        "nobody is looked for"
    );
    for session in shop.stripe.all("checkout.session") {
        assert!(session["customer"].is_string(), "{session}");
    }
}

/// There, the demand is the result of a tool that has succeeded.
#[tokio::test]
async fn a_demand_is_an_error_in_either_form() {
    let shop = Shop::open().await;
    let answer = shop.buyer(1).call("once").await;
    assert_eq!(answer["error"]["code"], -32042);
    let option = &answer["error"]["data"]["payment_options"][0];
    assert_eq!(option["amount"], 999);
    assert_eq!(option["_meta"]["currency"], "usd");

    let shop = Shop::with(|settings| settings.as_result = true).await;
    let buyer = shop.buyer(1);
    for (tool, kind) in [("once", "oneTimeSubscription"), ("metered", "usageBased")] {
        let answer = buyer.call(tool).await;
        let result = &answer["result"];
        assert_eq!(result["isError"], true, "{answer}");
        let text: serde_json::Value =
            serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(text["status"], "payment_required");
        assert_eq!(text["data"]["paymentType"], kind);
        assert_eq!(text["data"]["paymentReason"], "Payment required");
        let url = text["data"]["checkoutUrl"].as_str().unwrap();
        assert!(url.starts_with("https://checkout.stripe.example/"), "{url}");
    }
    assert_eq!(shop.harness.executions(), 0);
}

/// There, use is counted before the tool runs, and twice if the report is repeated.
#[tokio::test]
async fn use_is_counted_after_success_and_once() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    let session = shop.pay(&buyer.call("metered").await);
    for how in ["fails", "dies"] {
        buyer.call_with("metered", json!({ "how": how })).await;
    }
    // The report is lost on the way three times, and Stripe has counted it the first time.
    for lost in [
        Reply::Drop,
        Reply::Answer(500, "{}".to_owned()),
        Reply::Drop,
    ] {
        shop.stripe
            .prank("POST /v1/billing/meter_events", Prank::AfterDoing(lost));
    }
    assert!(is_served(&buyer.call("metered").await));
    assert!(is_served(
        &buyer.call_with("metered", json!({ "how": "tokens" })).await
    ));
    eventually(|| async { shop.books.unreported(1).await.unwrap().is_empty() }).await;
    let counted = shop.stripe.metered();
    let customer = shop.stripe.object(&session)["customer"].clone();
    let mut values: Vec<&str> = counted.iter().map(|(_, _, value)| value.as_str()).collect();
    values.sort_unstable();
    assert_eq!(values, ["1", "37"]);
    for (identifier, of, _) in &counted {
        assert_eq!(identifier.len(), 64, "the event of the request");
        assert_eq!(of, customer.as_str().unwrap());
    }
    assert_eq!(shop.harness.executions(), 4);
}

/// There, there is no webhook, no receipt and no idempotency key.
#[tokio::test]
async fn every_deed_has_a_key_and_every_purchase_is_on_the_books() {
    let shop = Shop::open().await;
    let buyer = shop.buyer(1);
    for tool in ["once", "monthly", "call"] {
        shop.pay(&buyer.call(tool).await);
    }
    for asked in shop.stripe.asked("POST ") {
        assert!(asked.header("idempotency-key").is_some(), "{}", asked.path);
        assert_eq!(asked.header("stripe-version"), Some("2026-10-28.endive"));
    }
    for session in shop.stripe.all("checkout.session") {
        let session = session["id"].as_str().unwrap();
        shop.webhook("checkout.session.completed", session).await;
    }
    shop.treated().await;
    let held = tollkeeper::ledger::PurchaseFilter::new(vec![], 9);
    let held = shop.books.purchases(&held).await.unwrap();
    assert_eq!(held.len(), 2);
    assert_eq!(held[0].state.as_str(), "held");
    assert!(held[0].payment.is_some() && held[1].subscription.is_some());
    eventually(|| async {
        let entries = shop.harness.entries().await.unwrap();
        entries.len() == 1 && entries[0].settlement.is_some()
    })
    .await;
}
