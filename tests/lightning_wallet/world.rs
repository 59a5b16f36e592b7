//! One shop, two wallets, and buyers: everything that a story needs, and nothing shared.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tollkeeper::client::{
    CallOutcome, ClientPayments, PaidClient, PaymentEvent, with_client_payments,
};
use tollkeeper::ledger::{Entry, EntryFilter, Ledger, MemoryLedger};
use tollkeeper::payment::PaymentProcessor;
use tollkeeper::rails::lightning::Network;
use tollkeeper::rails::lightning::fake_wallet::{FakeWallet, FakeWallets, Faults};
use tollkeeper::rails::lightning::nwc::{
    LightningNwcHandler, LightningNwcProcessor, NwcConnection, NwcSettings,
};
use tollkeeper::server::{PaidServer, ServerPayments, with_server_payments};
use tollkeeper::transport::nostr::{
    DevRelay, NostrClientTransport, NostrKeys, NostrServerTransport,
};
use tollkeeper::transport::{Outbound, ServerTransport};
use tollkeeper::wire::{Message, Payload, Request, Response, raw};

use super::faulty_relay::FaultyRelay;

/// Longer than anything takes that works, on a machine that has other things to do.
pub(crate) const SOON: Duration = Duration::from_secs(40);
/// How long a wallet may take before it is silent.
const WALLET: Duration = Duration::from_secs(2);
/// What a call of the tool costs.
pub(crate) const PRICE: u64 = 7;
/// What each wallet holds at first, in sats.
pub(crate) const BALANCE: u64 = 1_000;

pub(crate) struct World {
    pub(crate) relay: DevRelay,
    /// The relay of the wallets.
    pub(crate) wallet_relay: FaultyRelay,
    pub(crate) wallets: FakeWallets,
    pub(crate) ledger: Arc<MemoryLedger>,
    ttl: Duration,
    keys: NostrKeys,
    executed: Arc<AtomicUsize>,
    shop: Option<Shop>,
}

struct Shop {
    server: Arc<PaidServer>,
    handler: JoinHandle<()>,
}

impl World {
    /// A shop that is open, with wallets that do as they should.
    pub(crate) async fn start() -> Self {
        Self::start_with(Duration::from_secs(600)).await
    }

    /// The same, with offers that stand for `ttl`, and a second more.
    pub(crate) async fn start_with(ttl: Duration) -> Self {
        let mut world = Self::closed(ttl).await;
        world.open().await;
        world
    }

    pub(crate) async fn closed(ttl: Duration) -> Self {
        let wallet_relay = FaultyRelay::start().await;
        let wallets = FakeWallets::builder()
            .relays([wallet_relay.url()])
            .balance_sats(BALANCE)
            .start()
            .await
            .unwrap();
        Self {
            relay: DevRelay::start(0).await.unwrap(),
            wallet_relay,
            wallets,
            ledger: Arc::default(),
            ttl,
            keys: NostrKeys::generate(),
            executed: Arc::default(),
            shop: None,
        }
    }

    /// Opens the shop, with what the ledger holds.
    pub(crate) async fn open(&mut self) {
        let connection = connection(self.wallets.seller());
        let processor = LightningNwcProcessor::connect(connection, settings()).await;
        self.open_with(Arc::new(processor.unwrap())).await;
    }

    pub(crate) async fn open_with(&mut self, processor: Arc<dyn PaymentProcessor>) {
        let transport = NostrServerTransport::builder(self.keys.clone())
            .relays([self.relay.url()])
            .connect()
            .await
            .unwrap();
        let payments = ServerPayments::builder()
            .price(format!("tool:add={PRICE} sat").parse().unwrap())
            .shared_processor(processor)
            .ledger(Arc::clone(&self.ledger) as _)
            .payment_ttl(self.ttl)
            .settings(|settings| {
                settings.processor_timeout = 2 * WALLET;
                settings.settlement_grace = Duration::from_secs(1);
            })
            .build()
            .unwrap();
        let server = with_server_payments(transport as Arc<dyn ServerTransport>, payments)
            .await
            .unwrap();
        let handler = tokio::spawn(serve(Arc::clone(&server), Arc::clone(&self.executed)));
        self.shop = Some(Shop { server, handler });
    }

    /// The end of the shop's process: what was not in the ledger is gone.
    pub(crate) async fn close(&mut self) {
        if let Some(shop) = self.shop.take() {
            shop.handler.abort();
            shop.server.shutdown(Duration::ZERO).await;
        }
    }

    /// A buyer with keys of its own, on the buyer's wallet.
    pub(crate) async fn buyer(&self) -> Buyer {
        let handler = LightningNwcHandler::new(connection(self.wallets.buyer()), settings());
        let events: Arc<Mutex<Vec<PaymentEvent>>> = Arc::default();
        let seen = Arc::clone(&events);
        let payments = ClientPayments::builder()
            .handler(handler.unwrap())
            .budget("100 sats".parse().unwrap())
            .on_event(move |event| seen.lock().unwrap().push(event.clone()));
        Buyer {
            client: with_client_payments(self.transport().await, payments.build().unwrap()),
            events,
        }
    }

    /// A way to the shop for a client with keys of its own.
    pub(crate) async fn transport(&self) -> Arc<NostrClientTransport> {
        NostrClientTransport::builder(NostrKeys::generate(), self.keys.server_pubkey())
            .relays([self.relay.url()])
            .connect()
            .await
            .unwrap()
    }

    /// What is wrong with the seller's wallet from now on, and with nothing else.
    pub(crate) fn seller_fails(&self, change: impl FnOnce(&mut Faults)) {
        fail(self.wallets.seller(), change);
    }

    /// What is wrong with the buyer's wallet from now on, and with nothing else.
    pub(crate) fn buyer_fails(&self, change: impl FnOnce(&mut Faults)) {
        fail(self.wallets.buyer(), change);
    }

    pub(crate) fn executions(&self) -> usize {
        self.executed.load(Ordering::SeqCst)
    }

    pub(crate) async fn entries(&self) -> Vec<Entry> {
        self.ledger
            .list(&EntryFilter::new(Vec::new(), 10_000))
            .await
            .unwrap()
    }

    /// How many sats the seller's wallet has got.
    pub(crate) fn earned(&self) -> u64 {
        self.wallets.seller().balance_msat() / 1000 - BALANCE
    }

    /// Waits until the books agree with the wallets and the tool, and `payments` were made in all: each payment that really
    /// was made is on the books once, and each that is on the books was one execution or is the right to one.
    pub(crate) async fn balance_the_books(&self, payments: usize) {
        let until = Instant::now() + SOON;
        loop {
            let entries = self.entries().await;
            let settled = entries.iter().filter(|entry| entry.settlement.is_some());
            let settled = settled.count();
            let rights = entries.iter().filter(|entry| entry.is_authorization());
            let used = self.executions() + rights.count();
            if (settled, used) == (payments, payments) {
                break;
            }
            assert!(settled <= payments, "{settled} are settled: {entries:?}");
            assert!(used <= payments, "{used} were served or can be");
            assert!(
                Instant::now() < until,
                "{payments} payments, {settled} settled, {used} served or can be: {entries:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let [seller, buyer] = [self.wallets.seller(), self.wallets.buyer()]
            .map(|wallet| wallet.balance_msat() / 1000);
        let paid = PRICE * payments as u64;
        assert_eq!((seller, buyer), (BALANCE + paid, BALANCE - paid));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(shop) = &self.shop {
            shop.handler.abort();
        }
    }
}

/// A buyer, and what its client tells of payments.
pub(crate) struct Buyer {
    pub(crate) client: Arc<PaidClient>,
    events: Arc<Mutex<Vec<PaymentEvent>>>,
}

impl Buyer {
    /// Calls the tool with the argument `n`.
    pub(crate) async fn call(&self, n: usize) -> CallOutcome {
        self.call_for(n, SOON).await
    }

    /// Calls, and gives up after `patience` unless it paid.
    pub(crate) async fn call_for(&self, n: usize, patience: Duration) -> CallOutcome {
        self.client.call(request(n), patience).await.unwrap()
    }

    pub(crate) fn events(&self) -> Vec<PaymentEvent> {
        self.events.lock().unwrap().clone()
    }

    /// Whether the client has said that the outcome of a payment is unknown.
    pub(crate) fn is_in_doubt(&self) -> bool {
        let events = self.events();
        events
            .iter()
            .any(|event| matches!(event, PaymentEvent::Unknown { .. }))
    }

    /// Whether the client was asked for money at all.
    pub(crate) fn was_asked_to_pay(&self) -> bool {
        let events = self.events();
        events
            .iter()
            .any(|event| matches!(event, PaymentEvent::Required { .. }))
    }
}

/// A call of the tool.
pub(crate) fn request(n: usize) -> Request {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let id = i64::try_from(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap();
    let params = json!({ "name": "add", "arguments": { "n": n } });
    Request::new(id, "tools/call", &params).unwrap()
}

/// The result of a call that was served.
pub(crate) fn served(outcome: &CallOutcome) -> Value {
    let result = outcome.response.result();
    let result = result.unwrap_or_else(|| panic!("{:?}", outcome.response));
    serde_json::from_str(result.get()).unwrap()
}

/// Says that a call was served, for the argument that it was made with.
pub(crate) fn assert_served(outcome: &CallOutcome, n: usize) {
    assert_eq!(served(outcome), json!({ "n": n }));
}

pub(crate) fn sats(amount: u64) -> tollkeeper::Amount {
    format!("{amount} sats").parse().unwrap()
}

/// How the rail is set up: as impatient as a test.
pub(crate) fn settings() -> NwcSettings {
    NwcSettings::new()
        .network(Network::Regtest)
        .start_within(SOON)
        .answer_within(WALLET)
        .pay_within(WALLET)
}

pub(crate) fn connection(wallet: &FakeWallet) -> NwcConnection {
    wallet.connection().reveal().parse().unwrap()
}

/// Waits until `is_so`.
pub(crate) async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let until = Instant::now() + SOON;
    while !is_so().await {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn fail(wallet: &FakeWallet, change: impl FnOnce(&mut Faults)) {
    wallet.change(|faults| {
        *faults = Faults::default();
        change(faults);
    });
}

/// The tool: answers with its arguments, and is counted.
async fn serve(server: Arc<PaidServer>, executed: Arc<AtomicUsize>) {
    while let Some(inbound) = server.recv().await {
        let Message::Request(request) = inbound.message else {
            continue;
        };
        executed.fetch_add(1, Ordering::SeqCst);
        let params = request.params.as_ref().unwrap().get();
        let params: Value = serde_json::from_str(params).unwrap();
        let response = Response {
            id: request.id,
            payload: Payload::Result(raw(&params["arguments"]).unwrap()),
        };
        let to = inbound.origin.reply_to;
        let _ = server.send(&to, Outbound::new(response)).await;
    }
}
