//! The seller's wallet fails. Whatever it says, a call is served for money that arrived, and for nothing else.

use std::time::Duration;

use tollkeeper::rails::lightning::fake_wallet::{
    Faults, Hold, InvoiceFault, Method, Methods, NotificationFault, Refusal,
};

use super::world::{PRICE, World, assert_served, sats, until};

/// Nothing can be sold while the wallet is like that, nobody is asked for money, and afterwards all is well.
async fn sells_nothing_while(changes: &[fn(&mut Faults)]) {
    let world = World::start().await;
    for (n, change) in changes.iter().enumerate() {
        world.seller_fails(change);
        let buyer = world.buyer().await;
        let outcome = buyer.call(n).await;
        let error = outcome.response.error();
        let error = error.unwrap_or_else(|| panic!("fault {n}: {:?}", outcome.response));
        assert_eq!((outcome.paid, outcome.unknown), (None, None), "fault {n}");
        assert!(!buyer.was_asked_to_pay(), "fault {n}");
        // What the wallet said is the log's business.
        for secret in ["wallet", "INTERNAL", "RATE_LIMITED", "lnbc"] {
            assert!(
                !error.message.contains(secret),
                "fault {n}: {}",
                error.message
            );
        }
        world.wallets.seller().heal();
        assert_served(&world.buyer().await.call(n).await, n);
    }
    world.balance_the_books(changes.len()).await;
    assert_eq!(
        world.wallets.buyer().asked(Method::PayInvoice),
        changes.len() as u64
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_that_makes_no_invoice_sells_nothing() {
    sells_nothing_while(&[
        |faults| faults.ignore = Method::MakeInvoice.into(),
        |faults| faults.mute = Method::MakeInvoice.into(),
        |faults| faults.refuse = Some((Method::MakeInvoice.into(), Refusal::Internal)),
        |faults| faults.refuse_after = Some((Method::MakeInvoice.into(), Refusal::Internal)),
        |faults| faults.refuse = Some((Method::MakeInvoice.into(), Refusal::RateLimited)),
        |faults| faults.refuse = Some((Method::MakeInvoice.into(), Refusal::Restricted)),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_read_is_no_invoice() {
    // One for each way of being unreadable.
    let garbage: fn(&mut Faults) = |faults| faults.garbage = Method::MakeInvoice.into();
    sells_nothing_while(&[garbage; 4]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_other_than_ordered_never_leaves_the_server() {
    sells_nothing_while(&[
        |faults| faults.invoice = Some(InvoiceFault::WrongAmount),
        |faults| faults.invoice = Some(InvoiceFault::NoAmount),
        |faults| faults.invoice = Some(InvoiceFault::OtherHash),
        |faults| faults.invoice = Some(InvoiceFault::Expired),
        |faults| faults.invoice = Some(InvoiceFault::OtherNetwork),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_is_never_sold_twice() {
    let world = World::start().await;
    // Open, then paid: in both cases somebody else's.
    world.buyer_fails(|faults| faults.hold = Some(Hold::UntilReleased));
    let first = world.buyer().await;
    let call = tokio::spawn(async move { first.call(1).await });
    until("the first is on its way", async || {
        world.wallets.held() == 1
    })
    .await;
    world.seller_fails(|faults| faults.invoice = Some(InvoiceFault::SameAgain));
    for n in [2, 3] {
        let other = world.buyer().await;
        let outcome = other.call(n).await;
        assert!(
            outcome.response.result().is_none(),
            "{:?}",
            outcome.response
        );
        assert!(!other.was_asked_to_pay());
        if n == 2 {
            assert_eq!(world.wallets.release().await, 1);
            world.balance_the_books(1).await;
        }
    }
    assert_served(&call.await.unwrap(), 1);
    world.balance_the_books(1).await;
    assert_eq!(world.wallets.buyer().asked(Method::PayInvoice), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_that_come_twice_serve_once() {
    let world = World::start().await;
    world.seller_fails(|faults| faults.notifications = Some(NotificationFault::Twice));
    let buyer = world.buyer().await;
    for n in 0..3 {
        assert_served(&buyer.call(n).await, n);
    }
    world.balance_the_books(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_of_what_was_not_paid_serves_nobody() {
    let world = World::start().await;
    world.seller_fails(|faults| faults.notifications = Some(NotificationFault::Early));
    // The buyer's wallet will not pay; the seller's says that it did.
    world.buyer_fails(|faults| {
        faults.refuse = Some((Method::PayInvoice.into(), Refusal::InsufficientBalance));
    });
    let cheat = world.buyer().await;
    let outcome = cheat.call_for(1, Duration::from_secs(5)).await;
    assert!(
        outcome.response.result().is_none(),
        "{:?}",
        outcome.response
    );
    assert_eq!(world.executions(), 0);
    world.balance_the_books(0).await;
    // Who pays is served, by the second notification.
    world.wallets.buyer().heal();
    assert_served(&world.buyer().await.call(2).await, 2);
    world.balance_the_books(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notifications_that_never_come_are_not_needed() {
    let world = World::start().await;
    world.seller_fails(|faults| faults.notifications = Some(NotificationFault::None));
    let outcome = world.buyer().await.call(1).await;
    assert_served(&outcome, 1);
    assert_eq!(outcome.paid, Some(sats(PRICE)));
    world.balance_the_books(1).await;
}

/// The wallet fails around the settlement, which is found once it is well again.
async fn finds_the_settlement_after(change: fn(&mut Faults)) {
    let world = World::start().await;
    world.buyer_fails(|faults| faults.hold = Some(Hold::UntilReleased));
    let buyer = world.buyer().await;
    let call = tokio::spawn(async move { buyer.call(1).await });
    until("the payment is on its way", async || {
        world.wallets.held() == 1
    })
    .await;
    world.seller_fails(change);
    assert_eq!(world.wallets.release().await, 1);
    // Long enough for the watch to have asked in vain.
    let before = asked_about(&world);
    until("the wallet was asked", async || {
        asked_about(&world) >= before + 2
    })
    .await;
    assert_eq!(world.executions(), 0);
    assert_eq!(world.entries().await[0].settlement, None);
    world.wallets.seller().heal();
    assert_served(&call.await.unwrap(), 1);
    world.balance_the_books(1).await;
}

fn asked_about(world: &World) -> u64 {
    let seller = world.wallets.seller();
    seller.asked(Method::LookupInvoice) + seller.asked(Method::ListTransactions)
}

fn questions() -> Methods {
    [Method::LookupInvoice, Method::ListTransactions].into()
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_around_the_settlement_are_not_a_no() {
    finds_the_settlement_after(|faults| {
        faults.notifications = Some(NotificationFault::None);
        faults.refuse = Some((questions(), Refusal::Internal));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limits_around_the_settlement_are_not_a_no() {
    finds_the_settlement_after(|faults| {
        faults.notifications = Some(NotificationFault::None);
        faults.refuse = Some((questions(), Refusal::RateLimited));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_that_forgets_its_own_invoice_is_not_believed() {
    finds_the_settlement_after(|faults| {
        faults.notifications = Some(NotificationFault::None);
        faults.refuse = Some((questions(), Refusal::NotFound));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_around_the_settlement_is_not_a_no() {
    finds_the_settlement_after(|faults| {
        faults.notifications = Some(NotificationFault::None);
        faults.garbage = questions();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_around_the_settlement_is_not_a_no() {
    finds_the_settlement_after(|faults| {
        faults.notifications = Some(NotificationFault::None);
        faults.ignore = questions();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preimage_that_is_not_the_invoices_own_proves_nothing() {
    finds_the_settlement_after(|faults| faults.wrong_preimage = true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_that_arrives_after_the_offer_is_a_right_to_the_same_call() {
    let world = World::start_with(Duration::from_secs(4)).await;
    world.buyer_fails(|faults| faults.hold = Some(Hold::UntilReleased));
    let buyer = world.buyer().await;
    let outcome = buyer.call(1).await;
    assert!(
        outcome.response.result().is_none(),
        "{:?}",
        outcome.response
    );
    assert_eq!((outcome.paid, outcome.unknown), (None, Some(sats(PRICE))));
    assert_eq!(world.executions(), 0);
    assert_eq!(world.wallets.release().await, 1);
    until("the money is on the books", async || {
        world.entries().await[0].is_authorization()
    })
    .await;
    let served = buyer.call(1).await;
    assert_served(&served, 1);
    assert_eq!(
        (served.paid, served.unknown),
        (None, None),
        "it was paid before"
    );
    world.balance_the_books(1).await;
}
