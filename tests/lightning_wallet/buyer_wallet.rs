//! The buyer's wallet fails. Whatever it says, no call is paid for twice, and money that may be gone stays reserved.

use tollkeeper::client::PaymentEvent;
use tollkeeper::rails::lightning::fake_wallet::{Faults, Hold, Method, Refusal};

use super::world::{PRICE, World, assert_served, sats, until};

/// The wallet pays and does not say so: the call is served, once, and cost its price.
async fn pays_once_although(changes: &[fn(&mut Faults)]) {
    let world = World::start().await;
    for (n, change) in changes.iter().enumerate() {
        world.buyer_fails(change);
        let buyer = world.buyer().await;
        let outcome = buyer.call(n).await;
        assert_served(&outcome, n);
        let spent = outcome.paid.or(outcome.unknown);
        assert_eq!(spent, Some(sats(PRICE)), "fault {n}");
        world.wallets.buyer().heal();
    }
    world.balance_the_books(changes.len()).await;
    assert_eq!(
        world.wallets.buyer().asked(Method::PayInvoice),
        changes.len() as u64
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_is_never_confirmed_is_made_once() {
    pays_once_although(&[
        |faults| faults.mute = Method::PayInvoice.into(),
        |faults| faults.refuse_after = Some((Method::PayInvoice.into(), Refusal::Internal)),
        |faults| faults.refuse_after = Some((Method::PayInvoice.into(), Refusal::PaymentFailed)),
        |faults| faults.refuse_after = Some((Method::PayInvoice.into(), Refusal::Other)),
        |faults| faults.answer_twice = true,
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_read_may_be_a_payment() {
    let garbage: fn(&mut Faults) = |faults| faults.garbage = Method::PayInvoice.into();
    pays_once_although(&[garbage; 4]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_that_is_silent_about_everything_leaves_the_money_reserved() {
    let world = World::start().await;
    world.buyer_fails(|faults| {
        faults.ignore = [
            Method::PayInvoice,
            Method::LookupInvoice,
            Method::ListTransactions,
        ]
        .into();
    });
    let buyer = world.buyer().await;
    let first = tokio::spawn({
        let client = std::sync::Arc::clone(&buyer.client);
        async move {
            client
                .call(super::world::request(1), super::world::SOON)
                .await
        }
    });
    until("the client is in doubt", async || buyer.is_in_doubt()).await;
    // The same call again: it may have been paid for, so it is not paid for again, even by a wallet that is well.
    world.wallets.buyer().heal();
    let again = buyer.call(1).await;
    assert!(again.response.result().is_none(), "{:?}", again.response);
    assert_eq!(again.paid, None);
    // Budget for fourteen calls, of which one may be spent: there are thirteen left.
    for n in 2..15 {
        assert_served(&buyer.call(n).await, n);
    }
    let above = buyer.call(15).await;
    assert!(above.response.result().is_none(), "{:?}", above.response);
    world.balance_the_books(13).await;
    first.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clear_no_costs_nothing_and_blocks_nothing() {
    let world = World::start().await;
    let buyer = world.buyer().await;
    for no in [
        Refusal::InsufficientBalance,
        Refusal::QuotaExceeded,
        Refusal::RateLimited,
        Refusal::Restricted,
        Refusal::Unauthorized,
        Refusal::NotImplemented,
    ] {
        world.buyer_fails(|faults| faults.refuse = Some((Method::PayInvoice.into(), no)));
        let outcome = buyer.call(1).await;
        assert!(
            outcome.response.result().is_none(),
            "{no:?}: {:?}",
            outcome.response
        );
        assert_eq!((outcome.paid, outcome.unknown), (None, None), "{no:?}");
        assert!(!buyer.is_in_doubt(), "{no:?}");
    }
    world.wallets.buyer().heal();
    let outcome = buyer.call(1).await;
    assert_served(&outcome, 1);
    assert_eq!(outcome.paid, Some(sats(PRICE)));
    world.balance_the_books(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_without_proof_is_not_a_payment_to_this_client() {
    let world = World::start().await;
    world.buyer_fails(|faults| faults.wrong_preimage = true);
    let buyer = world.buyer().await;
    // The seller's wallet is honest, so the call is served; what it cost is not certain to the buyer.
    let outcome = buyer.call(1).await;
    assert_served(&outcome, 1);
    until("the client is in doubt", async || buyer.is_in_doubt()).await;
    let paid = |event: &PaymentEvent| matches!(event, PaymentEvent::Paid { .. });
    assert!(!buyer.events().iter().any(paid));
    world.balance_the_books(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_on_its_way_is_waited_for() {
    let world = World::start().await;
    world.buyer_fails(|faults| faults.hold = Some(Hold::UntilReleased));
    let buyer = world.buyer().await;
    let call = tokio::spawn(async move { (buyer.call(1).await, buyer) });
    until("it is on its way", async || world.wallets.held() == 1).await;
    // The wallet is silent about a held payment, so the client is in doubt, and waits for the server all the same.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(world.executions(), 0);
    assert_eq!(world.wallets.release().await, 1);
    let (outcome, _buyer) = call.await.unwrap();
    assert_served(&outcome, 1);
    world.balance_the_books(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_that_fails_on_its_way_costs_nothing() {
    let world = World::start().await;
    world.buyer_fails(|faults| faults.hold = Some(Hold::UntilReleased));
    let buyer = world.buyer().await;
    let call = tokio::spawn(async move { (buyer.call(1).await, buyer) });
    until("it is on its way", async || world.wallets.held() == 1).await;
    assert_eq!(world.wallets.fail(), 1);
    let (outcome, buyer) = call.await.unwrap();
    assert!(
        outcome.response.result().is_none(),
        "{:?}",
        outcome.response
    );
    assert_eq!((outcome.paid, outcome.unknown), (None, None));
    world.wallets.buyer().heal();
    assert_served(&buyer.call(1).await, 1);
    world.balance_the_books(1).await;
}
