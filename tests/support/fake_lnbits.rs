//! An LNbits that does what the test says: it keeps honest books, and answers with whatever it is told to.
//!
//! It speaks as LNbits 1.6.2 does; `tests/real_lnbits.rs` holds the same rail against the real one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret};
use nostr::hashes::{Hash, sha256};
use nostr::secp256k1::{Secp256k1, SecretKey};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::http_service::{Asked, HttpService, Reply};

/// The key that makes invoices.
pub(crate) const INVOICE_KEY: &str = "1a2b3c4d5e6f70819203a4b5c6d7e8f9";
/// The key that pays.
pub(crate) const ADMIN_KEY: &str = "f0e1d2c3b4a5968778695a4b3c2d1e0f";

/// What is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    Wallet,
    Invoice,
    Pay,
    Payment,
    Page,
    Websocket,
}

/// What it does instead of what it should.
pub(crate) enum Prank {
    /// Answers this, and does nothing.
    Reply(Reply),
    /// Does it, and answers this.
    AfterDoing(Reply),
    /// Does it, and changes the answer.
    Lie(Box<dyn Fn(&mut Value) + Send>),
}

/// Its books: one wallet, and the other side of every payment.
#[derive(Default)]
struct Books {
    rows: Vec<Value>,
    made: u64,
    pranks: Vec<(Question, VecDeque<Prank>)>,
    asked: Vec<(Question, Asked)>,
    /// What an invoice is made with, if not with what was ordered.
    currency: Option<Currency>,
    /// How payments of invoices that it did not make end.
    payments_end: &'static str,
}

/// It.
pub(crate) struct FakeLnbits {
    service: HttpService,
    books: Arc<Mutex<Books>>,
    pushes: broadcast::Sender<String>,
}

impl FakeLnbits {
    pub(crate) async fn start() -> Self {
        let books = Arc::new(Mutex::new(Books {
            payments_end: "success",
            ..Books::default()
        }));
        let (pushes, _) = broadcast::channel(64);
        let (asked, sockets) = (Arc::clone(&books), pushes.clone());
        let service = HttpService::start(
            move |question| answer(&asked, &question),
            move |stream| {
                let pushes = sockets.subscribe();
                tokio::spawn(push(stream, pushes));
            },
        )
        .await;
        Self {
            service,
            books,
            pushes,
        }
    }

    pub(crate) fn url(&self) -> String {
        self.service.url()
    }

    /// Plays `prank` on the next `question`, after those that wait for it already.
    pub(crate) fn prank(&self, question: Question, prank: Prank) {
        let mut books = self.books.lock().unwrap();
        match books.pranks.iter_mut().find(|(on, _)| *on == question) {
            Some((_, pranks)) => pranks.push_back(prank),
            None => books.pranks.push((question, VecDeque::from([prank]))),
        }
    }

    pub(crate) fn lie(&self, question: Question, lie: impl Fn(&mut Value) + Send + 'static) {
        self.prank(question, Prank::Lie(Box::new(lie)));
    }

    /// Makes invoices of this network.
    pub(crate) fn network(&self, currency: Currency) {
        self.books.lock().unwrap().currency = Some(currency);
    }

    /// Lets payments end like this: `success`, `pending` or `failed`.
    pub(crate) fn payments_end(&self, state: &'static str) {
        self.books.lock().unwrap().payments_end = state;
    }

    /// Lets every payment that is under way end like this.
    pub(crate) fn settle_payments(&self, state: &str) {
        let mut books = self.books.lock().unwrap();
        for row in &mut books.rows {
            if row["amount"].as_i64().unwrap() < 0 && row["status"] == "pending" {
                row["status"] = state.into();
            }
        }
    }

    /// Somebody pays the invoice `hash`. Nobody is told.
    pub(crate) fn paid(&self, hash: &str) {
        let mut books = self.books.lock().unwrap();
        let row = books.incoming(hash).expect("an invoice");
        row["status"] = "success".into();
    }

    /// Says on the websocket what its books say of `hash`.
    pub(crate) fn push(&self, hash: &str) {
        let row = self.row(hash);
        let _ = self
            .pushes
            .send(json!({ "wallet_balance": 1, "payment": row }).to_string());
    }

    /// Says something else.
    pub(crate) fn push_text(&self, text: &str) {
        let _ = self.pushes.send(text.to_owned());
    }

    /// How many listen on the websocket.
    pub(crate) fn listeners(&self) -> usize {
        self.pushes.receiver_count()
    }

    /// The row of the invoice `hash`.
    pub(crate) fn row(&self, hash: &str) -> Value {
        let mut books = self.books.lock().unwrap();
        books.incoming(hash).expect("an invoice").clone()
    }

    /// Writes `row` into the books.
    pub(crate) fn add(&self, row: Value) {
        self.books.lock().unwrap().rows.push(row);
    }

    /// How many payments went out.
    pub(crate) fn payments(&self) -> usize {
        let books = self.books.lock().unwrap();
        let outgoing = |row: &&Value| row["amount"].as_i64().unwrap() < 0;
        books.rows.iter().filter(outgoing).count()
    }

    /// How many invoices were made.
    pub(crate) fn invoices(&self) -> u64 {
        self.books.lock().unwrap().made
    }

    /// What it was asked, in order.
    pub(crate) fn asked(&self) -> Vec<(Question, Asked)> {
        self.books.lock().unwrap().asked.clone()
    }

    /// How often it was asked `question`.
    pub(crate) fn count(&self, question: Question) -> usize {
        let books = self.books.lock().unwrap();
        books.asked.iter().filter(|(q, _)| *q == question).count()
    }

    /// An invoice of somebody else, for `sats`, that stands for `secs`.
    pub(crate) fn invoice_of_another(&self, sats: u64, secs: u64) -> (String, String) {
        let mut books = self.books.lock().unwrap();
        books.made += 1;
        let (hash, _, text) = invoice(books.made, sats * 1000, secs, Currency::Bitcoin, "x");
        (hash, text)
    }
}

impl Books {
    fn incoming(&mut self, hash: &str) -> Option<&mut Value> {
        self.rows
            .iter_mut()
            .find(|row| row["payment_hash"] == hash && row["amount"].as_i64().unwrap() > 0)
    }

    fn prank(&mut self, question: Question) -> Option<Prank> {
        let (_, pranks) = self.pranks.iter_mut().find(|(on, _)| *on == question)?;
        pranks.pop_front()
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Hash, preimage and text of invoice number `number`.
fn invoice(
    number: u64,
    msat: u64,
    secs: u64,
    currency: Currency,
    description: &str,
) -> (String, String, String) {
    let preimage = sha256::Hash::hash(format!("invoice {number}").as_bytes());
    let hash = sha256::Hash::hash(preimage.as_ref());
    let secret = SecretKey::from_slice(&[7; 32]).unwrap();
    let signer = Secp256k1::signing_only();
    let text = InvoiceBuilder::new(currency)
        .description(description.to_owned())
        .payment_hash(hash)
        .payment_secret(PaymentSecret([2; 32]))
        .duration_since_epoch(now())
        .min_final_cltv_expiry_delta(144)
        .expiry_time(Duration::from_secs(secs))
        .amount_milli_satoshis(msat)
        .build_signed(|hash| signer.sign_ecdsa_recoverable(hash, &secret))
        .unwrap()
        .to_string();
    (hash.to_string(), preimage.to_string(), text)
}

/// Hash, preimage and amount in millisatoshis of an invoice that is made here.
fn read_invoice(text: &str, made: u64) -> Option<(String, String, i64)> {
    let invoice: lightning_invoice::Bolt11Invoice = text.parse().ok()?;
    let hash = invoice.payment_hash().to_string();
    let preimage = (1..=made).find_map(|number| {
        let preimage = sha256::Hash::hash(format!("invoice {number}").as_bytes());
        let own = sha256::Hash::hash(preimage.as_ref()).to_string() == hash;
        own.then(|| preimage.to_string())
    })?;
    let msat = i64::try_from(invoice.amount_milli_satoshis()?).ok()?;
    Some((hash, preimage, msat))
}

fn answer(books: &Mutex<Books>, asked: &Asked) -> Reply {
    let path = asked.path.split('?').next().unwrap_or_default().to_owned();
    let mut books = books.lock().unwrap();
    let question = match (asked.method.as_str(), path.as_str()) {
        ("GET", "/api/v1/wallet") => Question::Wallet,
        ("POST", "/api/v1/payments") => {
            let body: Value = serde_json::from_str(&asked.body).unwrap();
            match body["out"].as_bool() {
                Some(true) => Question::Pay,
                _ => Question::Invoice,
            }
        }
        ("GET", "/api/v1/payments/paginated") => Question::Page,
        ("GET", path) if path.starts_with("/api/v1/payments/") => Question::Payment,
        ("GET", path) if path.starts_with("/api/v1/ws/") => Question::Websocket,
        _ => return Reply::Answer(404, r#"{"detail":"Not Found"}"#.to_owned()),
    };
    books.asked.push((question, asked.clone()));
    let prank = books.prank(question);
    if let Some(Prank::Reply(reply)) = prank {
        return reply;
    }
    let honest = honest(&mut books, question, asked, &path);
    match (prank, honest) {
        (Some(Prank::AfterDoing(reply)), _) => reply,
        (Some(Prank::Lie(lie)), Reply::Answer(status, body)) => {
            let mut body = serde_json::from_str(&body).unwrap();
            lie(&mut body);
            Reply::Answer(status, body.to_string())
        }
        (_, honest) => honest,
    }
}

fn detail(status: u16, text: &str) -> Reply {
    Reply::Answer(status, json!({ "detail": text }).to_string())
}

fn honest(books: &mut Books, question: Question, asked: &Asked, path: &str) -> Reply {
    let key = asked.header("x-api-key").unwrap_or_default().to_owned();
    let known = key == INVOICE_KEY || key == ADMIN_KEY;
    if !known && question != Question::Payment {
        return detail(404, "Wallet not found.");
    }
    match question {
        Question::Wallet => {
            let mut wallet = json!({ "name": "fake", "balance": 1_000_000 });
            if key == ADMIN_KEY {
                wallet["id"] = "wallet".into();
            }
            Reply::Answer(200, wallet.to_string())
        }
        Question::Invoice => make(books, &serde_json::from_str(&asked.body).unwrap()),
        Question::Pay if key != ADMIN_KEY => detail(403, "Invoice (or Admin) key required."),
        Question::Pay => pay(books, &serde_json::from_str(&asked.body).unwrap()),
        Question::Payment => {
            let hash = path.rsplit('/').next().unwrap_or_default();
            // The outgoing one of two comes first.
            let mut rows: Vec<&Value> = books
                .rows
                .iter()
                .filter(|row| row["payment_hash"] == hash)
                .collect();
            rows.sort_by_key(|row| row["amount"].as_i64().unwrap());
            let Some(row) = rows.first() else {
                return detail(404, "Payment does not exist.");
            };
            let paid = row["status"] == "success";
            let mut looked = json!({ "paid": paid, "preimage": null });
            if known {
                looked["status"] = row["status"].clone();
                looked["details"] = (*row).clone();
            }
            Reply::Answer(200, looked.to_string())
        }
        Question::Page => page(books, asked),
        Question::Websocket => {
            let nonce = asked.header("sec-websocket-key").unwrap_or_default();
            Reply::Upgrade(derive_accept_key(nonce.as_bytes()))
        }
    }
}

fn make(books: &mut Books, order: &Value) -> Reply {
    books.made += 1;
    let sats = order["amount"].as_u64().unwrap();
    let currency = books.currency.clone().unwrap_or(Currency::Bitcoin);
    let secs = order["expiry"].as_u64().unwrap();
    let memo = order["memo"].as_str().unwrap();
    let (hash, preimage, text) = invoice(books.made, sats * 1000, secs, currency, memo);
    let row = json!({
        "checking_id": hash,
        "payment_hash": hash,
        "amount": sats * 1000,
        "fee": 0,
        "bolt11": text,
        "payment_request": text,
        "status": "pending",
        "preimage": preimage,
        "time": now().as_secs(),
        "extra": order["extra"],
        "external_id": order["external_id"],
        "webhook": order["webhook"],
    });
    books.rows.push(row.clone());
    Reply::Answer(201, row.to_string())
}

fn pay(books: &mut Books, order: &Value) -> Reply {
    let failed = |text: &str, status: &str| {
        Reply::Answer(520, json!({ "detail": text, "status": status }).to_string())
    };
    let Some((hash, preimage, msat)) =
        read_invoice(order["bolt11"].as_str().unwrap_or_default(), books.made)
    else {
        return failed("Bolt11 decoding failed.", "failed");
    };
    let before = books
        .rows
        .iter()
        .find(|row| row["payment_hash"] == hash.as_str() && row["amount"].as_i64().unwrap() < 0);
    match before.map(|row| row["status"].clone()) {
        Some(status) if status == "pending" => {
            return failed("Payment is still pending.", "pending");
        }
        Some(_) => return failed("Internal invoice already paid.", "failed"),
        None => {}
    }
    if msat > 1_000_000 {
        return failed("Insufficient balance.", "failed");
    }
    let row = json!({
        "payment_hash": hash,
        "amount": -msat,
        "bolt11": order["bolt11"],
        "status": books.payments_end,
        "preimage": (books.payments_end == "success").then_some(preimage),
        "time": now().as_secs(),
    });
    books.rows.push(row.clone());
    match books.payments_end {
        "failed" => failed("Payment failed: no route", "failed"),
        _ => {
            if let Some(incoming) = books.incoming(&hash) {
                incoming["status"] = "success".into();
            }
            Reply::Answer(201, row.to_string())
        }
    }
}

fn page(books: &Books, asked: &Asked) -> Reply {
    let number = |name: &str| {
        asked
            .query(name)
            .and_then(|text| text.parse::<usize>().ok())
    };
    let is = |row: &Value, key: &str| {
        asked
            .query(key)
            .is_none_or(|wanted| row[key].as_str() == Some(wanted))
    };
    let mut rows: Vec<&Value> = books
        .rows
        .iter()
        .filter(|row| {
            let amount = row["amount"].as_i64().unwrap();
            let made = row["time"].as_u64().unwrap();
            is(row, "status")
                && is(row, "payment_hash")
                && is(row, "external_id")
                && (asked.query("amount%5Bgt%5D").is_none() || amount > 0)
                && (asked.query("amount%5Blt%5D").is_none() || amount < 0)
                && asked
                    .query("time%5Bge%5D")
                    .is_none_or(|since| made >= since.parse().unwrap())
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row["time"].as_u64().unwrap()));
    let total = rows.len();
    let data: Vec<&Value> = rows
        .into_iter()
        .skip(number("offset").unwrap_or(0))
        .take(number("limit").unwrap_or(10))
        .collect();
    Reply::Answer(200, json!({ "data": data, "total": total }).to_string())
}

/// Sends what is pushed to one listener.
async fn push(stream: TcpStream, mut pushes: broadcast::Receiver<String>) {
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    loop {
        tokio::select! {
            text = pushes.recv() => match text {
                Ok(text) if text == "end" => return,
                Ok(text) => {
                    if socket.send(Message::text(text)).await.is_err() {
                        return;
                    }
                }
                Err(_) => return,
            },
            next = socket.next() => {
                if !matches!(next, Some(Ok(_))) {
                    return;
                }
            }
        }
    }
}
