//! Wallets that do as they should, and those that can do less.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use tollkeeper::client::{ClientPayments, with_client_payments};
use tollkeeper::payment::PaymentInteraction;
use tollkeeper::rails::lightning::fake_wallet::{Faults, Method, NotificationFault};
use tollkeeper::wire::PAYMENT_REQUIRED_CODE;

use super::world::{PRICE, World, assert_served, request, sats};

#[tokio::test(flavor = "multi_thread")]
async fn a_paid_call_moves_the_price_from_one_wallet_to_the_other() {
    let world = World::start().await;
    let buyer = world.buyer().await;
    let outcome = buyer.call(1).await;
    assert_served(&outcome, 1);
    assert_eq!(outcome.paid, Some(sats(PRICE)));
    assert_eq!(outcome.unknown, None);
    assert_eq!(world.earned(), PRICE);
    world.balance_the_books(1).await;
    let entries = world.entries().await;
    let made = entries[0].payment_request.as_ref().unwrap();
    assert!(made.pay_req.as_str().starts_with("lnbcrt70n1"));
    assert_eq!(world.wallets.seller().asked(Method::MakeInvoice), 1);
    assert_eq!(world.wallets.buyer().asked(Method::PayInvoice), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_side_by_side_are_each_paid_once() {
    let world = World::start().await;
    let buyers = [world.buyer().await, world.buyer().await];
    let calls = (0..10).map(|n| buyers[n % 2].call(n));
    for (n, outcome) in futures_util::future::join_all(calls)
        .await
        .iter()
        .enumerate()
    {
        assert_served(outcome, n);
        assert_eq!(outcome.paid, Some(sats(PRICE)));
    }
    world.balance_the_books(10).await;
    assert_eq!(world.wallets.buyer().asked(Method::PayInvoice), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn explicit_gating_names_an_invoice_that_any_wallet_can_pay() {
    let world = World::start().await;
    let transport = world.transport().await;
    let payments = ClientPayments::builder().interaction(PaymentInteraction::ExplicitGating);
    let client = with_client_payments(transport, payments.build().unwrap());
    let patience = Duration::from_secs(20);
    let asked = client.call(request(1), patience).await.unwrap();
    let error = asked.response.error().unwrap();
    assert_eq!(error.code, PAYMENT_REQUIRED_CODE);
    let data: Value = serde_json::from_str(error.data.as_ref().unwrap().get()).unwrap();
    let option = &data["payment_options"][0];
    assert_eq!(option["amount"], PRICE);
    let invoice = option["pay_req"].as_str().unwrap();
    world.wallets.buyer().pay(invoice).await.unwrap();
    super::world::until("the payment is on the books", async || {
        world.entries().await[0].settlement.is_some()
    })
    .await;
    let served = client.call(request(1), patience).await.unwrap();
    assert_served(&served, 1);
    world.balance_the_books(1).await;
}

/// A call with wallets that can do less than others.
async fn served_although(change: impl Fn(&mut Faults)) -> (World, Duration) {
    let mut world = World::closed(Duration::from_secs(600)).await;
    world.seller_fails(&change);
    world.buyer_fails(&change);
    // Both have told the relay what they can do.
    super::world::until("the wallets have said so", async || {
        world.wallet_relay.events_of(13194).len() >= 4
    })
    .await;
    world.open().await;
    let buyer = world.buyer().await;
    let began = Instant::now();
    let outcome = buyer.call(1).await;
    let took = began.elapsed();
    assert_served(&outcome, 1);
    assert_eq!(outcome.paid, Some(sats(PRICE)));
    world.balance_the_books(1).await;
    (world, took)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_that_knows_nip_04_only_will_do() {
    served_although(|faults| faults.nip04_only = true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_whose_answers_name_the_request_only_will_do() {
    served_although(|faults| faults.unaddressed = true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_without_notifications_is_listed() {
    let (world, took) = served_although(|faults| {
        faults.notifications = Some(NotificationFault::Unsupported);
    })
    .await;
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(world.wallets.seller().asked(Method::ListTransactions) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_that_only_answers_look_ups_is_asked_often_enough() {
    let (world, took) = served_although(|faults| {
        faults.notifications = Some(NotificationFault::Unsupported);
        faults.without = Method::ListTransactions.into();
    })
    .await;
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(world.wallets.seller().asked(Method::LookupInvoice) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_that_answers_late_or_twice_is_paid_once() {
    let (world, _) = served_although(|faults| {
        let all = "all".parse().unwrap();
        faults.late = Some((all, Duration::from_millis(400)));
        faults.answer_twice = true;
    })
    .await;
    assert_eq!(world.wallets.buyer().asked(Method::PayInvoice), 1);
}
