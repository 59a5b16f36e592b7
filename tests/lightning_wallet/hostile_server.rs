//! The server is hostile: what it asks for is not what its invoice says. The client's wallet is never even asked.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tollkeeper::payment::{
    BITCOIN_LIGHTNING_BOLT11, PayReq, PaymentOrder, PaymentProcessor, PaymentRequest, Pmi,
    RailError, SettlementStatus, Unit,
};
use tollkeeper::rails::lightning::fake_wallet::{FakeWallet, InvoiceFault, Method};

use super::world::{PRICE, World};

/// An hour.
const EXPIRY: Duration = Duration::from_secs(3600);

/// Demands what its order says, with an invoice of its own making: the first for the first order, and so on.
struct Hostile {
    pmi: Pmi,
    invoices: Vec<String>,
    next: AtomicUsize,
}

impl fmt::Debug for Hostile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hostile")
    }
}

#[async_trait]
impl PaymentProcessor for Hostile {
    fn pmi(&self) -> &Pmi {
        &self.pmi
    }

    fn accepts(&self, _unit: &Unit) -> bool {
        true
    }

    async fn create_payment_required(
        &self,
        order: &PaymentOrder,
    ) -> Result<PaymentRequest, RailError> {
        let invoice = &self.invoices[self.next.fetch_add(1, Ordering::SeqCst)];
        let (pmi, key) = (self.pmi.clone(), order.idempotency_key.as_str());
        Ok(PaymentRequest::new(
            pmi,
            order.amount.clone(),
            PayReq::new(invoice),
            key,
        ))
    }

    async fn lookup_payment(
        &self,
        _request: &PaymentRequest,
    ) -> Result<SettlementStatus, RailError> {
        Ok(SettlementStatus::Pending)
    }
}

/// A shop whose demands carry these invoices, one after the other.
async fn demanding(invoices: impl FnOnce(&FakeWallet) -> Vec<String>) -> World {
    let mut world = World::closed(Duration::from_secs(10)).await;
    let invoices = invoices(world.wallets.seller());
    world.wallets.seller().heal();
    let hostile = Hostile {
        pmi: BITCOIN_LIGHTNING_BOLT11.parse().unwrap(),
        invoices,
        next: AtomicUsize::new(0),
    };
    world.open_with(Arc::new(hostile)).await;
    world
}

fn honest(wallet: &FakeWallet) -> String {
    wallet
        .make_invoice(PRICE * 1000, "tool:add", EXPIRY)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_that_does_not_say_what_is_demanded_is_not_paid() {
    let faulty = |wallet: &FakeWallet, fault| {
        wallet.change(|faults| faults.invoice = Some(fault));
        honest(wallet)
    };
    let of = |wallet: &FakeWallet, msat| wallet.make_invoice(msat, "tool:add", EXPIRY).unwrap();
    let world = demanding(|wallet| {
        let exact = honest(wallet);
        let mut signed_by_nobody = exact.clone();
        let at = exact.len() / 2;
        let other = if exact.as_bytes()[at] == b'q' {
            "p"
        } else {
            "q"
        };
        signed_by_nobody.replace_range(at..=at, other);
        vec![
            of(wallet, PRICE * 1000 * 10),
            of(wallet, PRICE * 1000 + 1000),
            of(wallet, PRICE * 1000 + 1),
            of(wallet, PRICE * 1000 - 1),
            of(wallet, 1),
            faulty(wallet, InvoiceFault::NoAmount),
            faulty(wallet, InvoiceFault::Expired),
            faulty(wallet, InvoiceFault::OtherNetwork),
            signed_by_nobody,
            String::new(),
            "lightning:".to_owned(),
            "x".repeat(100_000),
        ]
    })
    .await;
    let buyer = world.buyer().await;
    for n in 0..12 {
        let outcome = buyer.call_for(n, Duration::from_secs(10)).await;
        assert!(outcome.response.result().is_none(), "invoice {n}");
        assert_eq!((outcome.paid, outcome.unknown), (None, None), "invoice {n}");
    }
    assert_eq!(world.wallets.buyer().asked_in_all(), 0);
    assert_eq!((world.earned(), world.executions()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_that_was_paid_is_not_paid_for_another_call() {
    let world = demanding(|wallet| {
        let invoice = honest(wallet);
        vec![invoice.clone(), invoice.to_uppercase(), invoice]
    })
    .await;
    let buyer = world.buyer().await;
    // It takes the money and does nothing.
    for n in 0..3 {
        let outcome = buyer.call_for(n, Duration::from_secs(2)).await;
        assert!(
            outcome.response.result().is_none(),
            "{:?}",
            outcome.response
        );
    }
    assert_eq!(world.earned(), PRICE, "one payment, and no more");
    assert_eq!(world.wallets.buyer().asked(Method::PayInvoice), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_is_not_spent_on_what_was_refused() {
    let world = demanding(|wallet| {
        let mut invoices: Vec<String> = (0..15)
            .map(|_| wallet.make_invoice(PRICE * 10_000, "x", EXPIRY).unwrap())
            .collect();
        invoices.extend([honest(wallet)]);
        invoices
    })
    .await;
    let buyer = world.buyer().await;
    for n in 0..15 {
        buyer.call_for(n, Duration::from_secs(10)).await;
    }
    assert_eq!(world.earned(), 0);
    // An honest demand is still paid.
    let outcome = buyer.call_for(15, Duration::from_secs(2)).await;
    assert_eq!(outcome.paid, Some(super::world::sats(PRICE)));
    assert_eq!(world.earned(), PRICE);
}
