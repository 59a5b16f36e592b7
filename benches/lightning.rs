//! A paid server with a wallet for development, over a loopback relay: how soon it serves after the wallet's notification, what
//! ten thousand open invoices cost the wallet, how soon a settlement without a notification is found among them, and how
//! soon a thousand calls at once have their invoices.
//!
//! `cargo bench --features testing,sqlite,lightning,dev-relay --bench lightning [-- notice|open|mint]`. A load program, which
//! prints; all of it takes some minutes.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program that measures and prints"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use nostr_sdk::prelude::{
    ClientMessage, EventBuilder, Filter, JsonUtil, Keys, Kind, SubscriptionId,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message as Frame;
use tollkeeper::ledger::{Entry, EntryFilter, Ledger, OpenLimits, SqliteLedger};
use tollkeeper::payment::{ClientPubkey, PaymentProcessor};
use tollkeeper::rails::lightning::Network;
use tollkeeper::rails::lightning::fake_wallet::{FakeWallets, Method, NotificationFault};
use tollkeeper::rails::lightning::nwc::{LightningNwcProcessor, NwcSettings};
use tollkeeper::server::{PaidServer, ServerPayments, with_server_payments};
use tollkeeper::transport::memory::{self, MemoryServer};
use tollkeeper::transport::nostr::DevRelay;
use tollkeeper::transport::{ClientTransport, Introduction, Outbound, ServerTransport};
use tollkeeper::wire::{Message, Payload, Request, Response, raw};

const SETTLEMENTS: usize = 200;
const OPEN: usize = 10_000;
const AT_ONCE: usize = 1_000;
/// How long the wallet is watched in a steady state.
const STEADY: Duration = Duration::from_secs(60);
/// How long a settlement is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |word: &str| {
        let named = |w: &String| ["notice", "open", "mint"].contains(&w.as_str());
        !words.iter().any(named) || words.iter().any(|w| w == word)
    };
    if wanted("notice") {
        notice().await;
    }
    if wanted("mint") {
        mint().await;
    }
    if wanted("open") {
        open(true).await;
        open(false).await;
    }
}

/// From the wallet's books to the handler, beside a round trip to the same relay.
async fn notice() {
    let mut shop = Shop::open("notice", true).await;
    let client = shop.client(0);
    let mut relay = RoundTrips::connect(&shop.relay.url()).await;
    let (mut settled, mut trips) = (Vec::new(), Vec::new());
    for n in 0..SETTLEMENTS + 20 {
        let trip = relay.measure().await;
        ask(&*client, n).await;
        let invoice = invoice(&*client).await;
        let began = Instant::now();
        let paying = shop.wallets.buyer().pay(&invoice);
        let (paid, served) = tokio::join!(paying, shop.executed.recv());
        paid.expect("paid");
        let took = served.expect("served") - began;
        // The first ones warm up.
        if n >= 20 {
            settled.push(took);
            trips.push(trip);
        }
    }
    println!("{SETTLEMENTS} settlements, one after the other, ledger on disk:");
    println!(
        "  a round trip to the wallet's relay:          {}",
        spread(&mut trips)
    );
    println!(
        "  from the wallet's settlement to the handler: {}",
        spread(&mut settled)
    );
    shop.close().await;
}

/// A thousand calls at once, while the wallet takes seconds to answer a look-up.
async fn mint() {
    let shop = Shop::open("mint", true).await;
    shop.wallets.seller().change(|faults| {
        let questions = [Method::LookupInvoice, Method::ListTransactions].into();
        faults.late = Some((questions, Duration::from_secs(5)));
        faults.notifications = Some(NotificationFault::None);
    });
    // Something to look up.
    eprintln!("mint: 50 open invoices");
    for n in 0..50 {
        let client = shop.client(n);
        ask(&*client, n).await;
        invoice(&*client).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    eprintln!("mint: 50 one after the other");
    let one = shop.client(999);
    let mut alone = Vec::new();
    for n in 0..50 {
        let began = Instant::now();
        ask(&*one, 10_000 + n).await;
        invoice(&*one).await;
        alone.push(began.elapsed());
    }
    eprintln!("mint: {AT_ONCE} at once");
    let began = Instant::now();
    let mut calls = JoinSet::new();
    for n in 0..AT_ONCE {
        let client = shop.client(1_000 + n);
        calls.spawn(async move {
            ask(&*client, n).await;
            invoice(&*client).await;
            began.elapsed()
        });
    }
    let mut times = calls.join_all().await;
    println!("invoices, while a look-up takes the wallet 5 s:");
    println!("  one after the other:     {}", spread(&mut alone));
    println!(
        "  {AT_ONCE} asked for at once: {}, all after {:.2?}",
        spread(&mut times),
        times[times.len() - 1]
    );
    shop.close().await;
}

/// Ten thousand open invoices.
async fn open(lists: bool) {
    let mut shop = Shop::open("open", lists).await;
    eprintln!(
        "open: making {OPEN} invoices, then watching for {STEADY:?}, then some settlements; this takes minutes"
    );
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for worker in 0..64 {
        let client = shop.client(worker);
        clients.spawn(async move {
            for n in (worker..OPEN).step_by(64) {
                ask(&*client, n).await;
                invoice(&*client).await;
            }
        });
    }
    clients.join_all().await;
    let minted = began.elapsed();
    let lister = if lists {
        "that lists"
    } else {
        "that does not list"
    };
    println!("{OPEN} open invoices at a wallet {lister}, made in {minted:.1?}:");
    let seller = shop.wallets.seller();
    seller.change(|faults| faults.notifications = Some(NotificationFault::None));
    let counts = || Method::ALL.map(|method| seller.asked(method));
    let before = counts();
    tokio::time::sleep(STEADY).await;
    let asked: Vec<String> = Method::ALL
        .iter()
        .zip(counts().iter().zip(before))
        .filter(|(_, (now, before))| **now > *before)
        .map(|(method, (now, before))| {
            format!(
                "{method} {:.2}/s",
                (now - before) as f64 / STEADY.as_secs_f64()
            )
        })
        .collect();
    println!("  asked of the wallet in {STEADY:?}: {}", asked.join(", "));
    let entries = shop.ledger.list(&EntryFilter::new(Vec::new(), OPEN)).await;
    let entries = entries.expect("entries");
    let places = [
        ("youngest", OPEN - 1),
        ("of middle age", OPEN / 2),
        ("oldest", 0),
    ];
    for (name, place) in places.into_iter().cycle().take(if lists { 9 } else { 3 }) {
        let Some(entry) = unpaid_near(&shop, &entries, place).await else {
            continue;
        };
        let age = shop.began.elapsed().as_secs();
        let made = entry.payment_request.as_ref().expect("issued");
        let began = Instant::now();
        shop.wallets
            .buyer()
            .pay(made.pay_req.as_str())
            .await
            .expect("paid");
        let found = tokio::time::timeout(PATIENCE, shop.executed.recv()).await;
        let took = match found {
            Ok(_) => format!("{:.1?}", began.elapsed()),
            Err(_) => format!("not within {PATIENCE:?}"),
        };
        println!(
            "  settled without a notification, {name}, the server up for {age} s: found after {took}"
        );
        if found.is_err() {
            // Found sooner or later; it must not be taken for the next.
            shop.executed.recv().await;
        }
    }
    shop.close().await;
}

/// The entry at `place` or behind it, if it is not paid.
async fn unpaid_near<'a>(shop: &Shop, entries: &'a [Entry], place: usize) -> Option<&'a Entry> {
    for step in 0..20 {
        let at = if place + step < entries.len() {
            place + step
        } else {
            entries.len() - 1 - step
        };
        let now = shop.ledger.get(&entries[at].id).await.ok().flatten()?;
        if now.settlement.is_none() {
            return Some(&entries[at]);
        }
    }
    None
}

struct Shop {
    relay: DevRelay,
    wallets: FakeWallets,
    transport: Arc<MemoryServer>,
    server: Arc<PaidServer>,
    ledger: Arc<SqliteLedger>,
    file: PathBuf,
    executed: mpsc::Receiver<Instant>,
    began: Instant,
}

impl Shop {
    async fn open(name: &str, lists: bool) -> Self {
        let relay = DevRelay::start(0).await.expect("a relay");
        let wallets = FakeWallets::builder()
            .relays([relay.url()])
            .balance_sats(10_000_000)
            .faults(None, |faults| {
                if !lists {
                    faults.without = Method::ListTransactions.into();
                }
                Ok(())
            })
            .expect("faults")
            .start()
            .await
            .expect("wallets");
        let connection = wallets
            .seller()
            .connection()
            .reveal()
            .parse()
            .expect("a URI");
        let settings = NwcSettings::new().network(Network::Regtest);
        let processor = LightningNwcProcessor::connect(connection, settings).await;
        let processor: Arc<dyn PaymentProcessor> = Arc::new(processor.expect("a processor"));
        let file = PathBuf::from(format!("lightning-bench-{name}-{}.db", std::process::id()));
        let ledger = Arc::new(SqliteLedger::open(&file).expect("a ledger"));
        let transport = memory::server();
        let payments = ServerPayments::builder()
            .price("tool:paid=7 sat".parse().expect("a price"))
            .shared_processor(processor)
            .ledger(Arc::clone(&ledger) as _)
            .payment_ttl(Duration::from_secs(3600))
            .limits(OpenLimits::new(1_000_000, 1_000_000))
            .settings(|settings| {
                settings.offers_per_minute = 1_000_000;
                settings.processor_timeout = Duration::from_secs(60);
            })
            .build()
            .expect("payments");
        let server = with_server_payments(Arc::clone(&transport) as _, payments)
            .await
            .expect("a server");
        let (tell, executed) = mpsc::channel(1024);
        tokio::spawn(answer(Arc::clone(&server), tell));
        Self {
            relay,
            wallets,
            transport,
            server,
            ledger,
            file,
            executed,
            began: Instant::now(),
        }
    }

    fn client(&self, n: usize) -> Arc<dyn ClientTransport> {
        let mut key = [9; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        self.transport.client(ClientPubkey::from_bytes(key))
    }

    async fn close(self) {
        self.server.shutdown(Duration::from_secs(5)).await;
        self.wallets.shutdown().await;
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", self.file.display()));
        }
    }
}

/// The handler: says when each request reached it.
async fn answer(server: Arc<PaidServer>, executed: mpsc::Sender<Instant>) {
    while let Some(inbound) = server.recv().await {
        let Message::Request(request) = inbound.message else {
            continue;
        };
        let _ = executed.send(Instant::now()).await;
        let response = Response {
            id: request.id,
            payload: Payload::Result(raw(&1).expect("json")),
        };
        let _ = server
            .send(&inbound.origin.reply_to, Outbound::new(response))
            .await;
    }
}

async fn ask(client: &dyn ClientTransport, n: usize) {
    let params = json!({"name": "paid", "arguments": {"n": n}});
    let request = Request::new(n as i64, "tools/call", &params)
        .expect("a request")
        .into();
    let prepared = client
        .prepare(&request, &Introduction::default())
        .await
        .expect("prepared");
    client.publish(&prepared).await.expect("published");
}

/// The invoice of the next demand.
async fn invoice(client: &dyn ClientTransport) -> String {
    loop {
        match client.recv().await.expect("a message").message {
            Message::Notification(note) if note.method == "notifications/payment_required" => {
                let params = note.params.expect("params");
                let params: Value = serde_json::from_str(params.get()).expect("json");
                return params["pay_req"].as_str().expect("an invoice").to_owned();
            }
            Message::Response(response) => {
                if let Some(error) = response.error() {
                    panic!("refused: {}", error.message);
                }
            }
            _ => {}
        }
    }
}

/// Events to oneself over one relay.
struct RoundTrips {
    socket: tokio_tungstenite::WebSocketStream<TcpStream>,
    keys: Keys,
}

impl RoundTrips {
    async fn connect(url: &str) -> Self {
        let address = url.trim_start_matches("ws://");
        let stream = TcpStream::connect(address).await.expect("connected");
        stream.set_nodelay(true).expect("no delay");
        let (mut socket, _) = tokio_tungstenite::client_async(url, stream)
            .await
            .expect("a socket");
        let keys = Keys::generate();
        let filter = Filter::new().author(keys.public_key());
        let subscription = ClientMessage::req(SubscriptionId::new("trips"), filter).as_json();
        socket.send(Frame::text(subscription)).await.expect("sent");
        let mut trips = Self { socket, keys };
        trips.until("EOSE").await;
        trips
    }

    /// From the first byte written to the event read.
    async fn measure(&mut self) -> Duration {
        let event = EventBuilder::new(Kind::from(23197), "x".repeat(600))
            .sign_with_keys(&self.keys)
            .expect("signed");
        let frame = ClientMessage::event(event).as_json();
        let began = Instant::now();
        self.socket.send(Frame::text(frame)).await.expect("sent");
        self.until("EVENT").await;
        began.elapsed()
    }

    async fn until(&mut self, word: &str) {
        let begin = format!("[\"{word}\"");
        while let Some(Ok(frame)) = self.socket.next().await {
            if frame.to_text().is_ok_and(|text| text.starts_with(&begin)) {
                return;
            }
        }
    }
}

/// Median, 95th percentile and maximum.
fn spread(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    format!(
        "median {:.2?}, 95 % {:.2?}, most {:.2?}",
        at(50),
        at(95),
        at(100)
    )
}
