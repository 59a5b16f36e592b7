//! The server, or the relay of the wallets, is gone at the moment at which the money moves.

use std::time::Duration;

use tollkeeper::rails::lightning::fake_wallet::{Hold, Method, NotificationFault};

use super::world::{World, assert_served, until};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_paid_while_the_server_was_down_is_served_when_it_is_up_again() {
    let mut world = World::start().await;
    world.buyer_fails(|faults| faults.hold = Some(Hold::UntilReleased));
    let buyer = world.buyer().await;
    let call = tokio::spawn(async move { (buyer.call(1).await, buyer) });
    until("the payment is on its way", async || {
        world.wallets.held() == 1
    })
    .await;
    world.close().await;
    assert_eq!(world.wallets.release().await, 1);
    assert_eq!((world.executions(), world.earned()), (0, 7));
    world.open().await;
    // The request that waited is executed, or its sender may ask again: one of the two, and once.
    until("the payment is on the books", async || {
        world.entries().await[0].settlement.is_some()
    })
    .await;
    world.balance_the_books(1).await;
    let buyer = match call.is_finished() || world.executions() > 0 {
        true => {
            let (outcome, buyer) = call.await.unwrap();
            assert_served(&outcome, 1);
            buyer
        }
        false => {
            call.abort();
            world.buyer().await
        }
    };
    world.wallets.buyer().heal();
    assert_served(&buyer.call(2).await, 2);
    world.balance_the_books(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_during_an_outage_of_the_wallets_relay_is_found_afterwards() {
    let world = World::start().await;
    world.buyer_fails(|faults| faults.hold = Some(Hold::UntilReleased));
    // What was said during the outage is lost.
    world.seller_fails(|faults| faults.notifications = Some(NotificationFault::None));
    let buyer = world.buyer().await;
    let call = tokio::spawn(async move { buyer.call(1).await });
    until("the payment is on its way", async || {
        world.wallets.held() == 1
    })
    .await;
    world.wallet_relay.go_down_for(Duration::from_secs(4));
    assert_eq!(world.wallets.release().await, 1);
    assert_served(&call.await.unwrap(), 1);
    world.balance_the_books(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sold_while_the_wallets_relay_is_down_and_all_is_well_afterwards() {
    let world = World::start().await;
    let buyer = world.buyer().await;
    let links = world.wallet_relay.subscriptions();
    world.wallet_relay.go_down_for(Duration::from_secs(8));
    let outcome = buyer.call(1).await;
    assert!(
        outcome.response.result().is_none(),
        "{:?}",
        outcome.response
    );
    assert!(!buyer.was_asked_to_pay());
    // Each link comes back in its own time. A payment that is ordered before the buyer's is back has an unknown outcome, for which
    // its call waits as long as the offer stands.
    until("all links are back", async || {
        world.wallet_relay.subscriptions() >= links
    })
    .await;
    until("it is sold again", async || {
        let outcome = buyer.call(2).await;
        let is_served = outcome.response.result().is_some();
        if is_served {
            assert_served(&outcome, 2);
        }
        is_served
    })
    .await;
    world.balance_the_books(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_repeats_and_corrupts_changes_nothing() {
    let world = World::start().await;
    world.wallet_relay.set(|faults| {
        faults.duplicates = 2;
        faults.corrupt_first = true;
    });
    let buyer = world.buyer().await;
    for n in 0..3 {
        assert_served(&buyer.call(n).await, n);
    }
    world.balance_the_books(3).await;
    assert_eq!(world.wallets.buyer().asked(Method::PayInvoice), 3);
    assert_eq!(world.wallets.seller().asked(Method::MakeInvoice), 3);
}
