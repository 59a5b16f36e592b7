//! A NIP-47 wallet that does what a test tells it to: honest by default, with books shared by several connections, and a
//! hook in front of every request.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use lightning_invoice::{Bolt11Invoice, Currency, InvoiceBuilder, PaymentSecret};
use nostr::hashes::{Hash, sha256};
use nostr::nips::{nip04, nip44};
use nostr::secp256k1::{Secp256k1, SecretKey};
use nostr::{
    ClientMessage, Event, EventBuilder, EventId, Filter, JsonUtil, Keys, Kind, RelayMessage,
    SubscriptionId, Tag, TagKind, Timestamp,
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Message as Frame;

/// What a request asked for.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) params: Value,
    pub(crate) event: Event,
    pub(crate) nip44: bool,
}

/// What the wallet does about it.
pub(crate) enum Act {
    /// What an honest wallet does.
    Honest,
    Nothing,
    Say(Value),
    /// What an honest wallet does, but nobody hears of it.
    HonestInSilence,
    /// What an honest wallet does, later.
    HonestLate(Duration),
    /// These, in this order.
    Send(Vec<Event>),
}

pub(crate) fn failure(code: &str) -> Value {
    json!({ "error": { "code": code, "message": "because" }, "result": null })
}

type Hook = Arc<dyn Fn(&Wallet, &Asked) -> Act + Send + Sync>;

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) invoice: String,
    pub(crate) preimage: String,
    pub(crate) msat: u64,
    pub(crate) made: u64,
    pub(crate) settled: bool,
    pub(crate) paid_by: Option<String>,
}

/// Invoices by payment hash.
pub(crate) type Books = Arc<Mutex<HashMap<String, Row>>>;

/// How a wallet introduces itself.
#[derive(Clone)]
pub(crate) struct Style {
    /// The `encryption` tag of the info event, if there is one.
    pub(crate) encryption: Option<&'static str>,
    pub(crate) announces: bool,
    pub(crate) methods: &'static str,
    pub(crate) notifications: &'static str,
    pub(crate) network: &'static str,
    pub(crate) notifies: Option<Notifies>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notifies {
    Nip44,
    Nip04,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            encryption: Some("nip44_v2 nip04"),
            announces: true,
            methods: "pay_invoice make_invoice lookup_invoice list_transactions get_info",
            notifications: "payment_received payment_sent",
            network: "mainnet",
            notifies: Some(Notifies::Nip44),
        }
    }
}

/// One connection to a wallet, from the wallet's side.
#[derive(Clone)]
pub(crate) struct Wallet {
    pub(crate) keys: Keys,
    client: Keys,
    style: Style,
    pub(crate) books: Books,
    hook: Hook,
    asked: Arc<Mutex<Vec<Asked>>>,
    out: mpsc::UnboundedSender<Event>,
    pub(crate) uri: String,
}

impl Wallet {
    pub(crate) async fn honest(relay: &str, style: Style) -> Self {
        Self::start(relay, style, Books::default(), |_, _| Act::Honest).await
    }

    /// Returns once the wallet listens.
    pub(crate) async fn start(
        relay: &str,
        style: Style,
        books: Books,
        hook: impl Fn(&Wallet, &Asked) -> Act + Send + Sync + 'static,
    ) -> Self {
        let (keys, client) = (Keys::generate(), Keys::generate());
        let uri = format!(
            "nostr+walletconnect://{}?relay={}&secret={}",
            keys.public_key().to_hex(),
            relay.replace(':', "%3A").replace('/', "%2F"),
            client.secret_key().to_secret_hex()
        );
        let (out, events) = mpsc::unbounded_channel();
        let wallet = Self {
            keys,
            client,
            style,
            books,
            hook: Arc::new(hook),
            asked: Arc::default(),
            out,
            uri,
        };
        let (listens, heard) = oneshot::channel();
        tokio::spawn(serve(wallet.clone(), relay.to_owned(), events, listens));
        heard.await.unwrap();
        wallet
    }

    pub(crate) fn asked(&self, method: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|asked| asked.method == method)
            .cloned()
            .collect()
    }

    fn encrypt(&self, with44: bool, text: &str) -> String {
        let (secret, peer) = (self.keys.secret_key(), self.client.public_key());
        if with44 {
            nip44::encrypt(secret, &peer, text, nip44::Version::V2).unwrap()
        } else {
            nip04::encrypt(secret, &peer, text).unwrap()
        }
    }

    /// An answer to `to`, signed by `author`.
    pub(crate) fn answer_by(
        &self,
        author: &Keys,
        to: EventId,
        nip44: bool,
        value: &Value,
    ) -> Event {
        let content = self.encrypt(nip44, &value.to_string());
        EventBuilder::new(Kind::from(23195), content)
            .tags([Tag::public_key(self.client.public_key()), Tag::event(to)])
            .sign_with_keys(author)
            .unwrap()
    }

    pub(crate) fn answer(&self, asked: &Asked, value: &Value) -> Event {
        self.answer_by(&self.keys, asked.event.id, asked.nip44, value)
    }

    pub(crate) fn publish(&self, event: Event) {
        let _ = self.out.send(event);
    }

    /// Says by itself what it is told to.
    pub(crate) fn notify(&self, how: Notifies, kind: &str, transaction: &Value) {
        let text = json!({ "notification_type": kind, "notification": transaction }).to_string();
        let number = if how == Notifies::Nip44 { 23197 } else { 23196 };
        let event = EventBuilder::new(
            Kind::from(number),
            self.encrypt(how == Notifies::Nip44, &text),
        )
        .tag(Tag::public_key(self.client.public_key()))
        .sign_with_keys(&self.keys)
        .unwrap();
        self.publish(event);
    }

    pub(crate) fn row(&self, hash: &str) -> Row {
        self.books.lock().unwrap()[hash].clone()
    }

    /// Somebody pays.
    pub(crate) fn settle(&self, hash: &str) {
        let row = {
            let mut books = self.books.lock().unwrap();
            let row = books.get_mut(hash).unwrap();
            row.settled = true;
            row.clone()
        };
        if let Some(how) = self.style.notifies {
            self.notify(how, "payment_received", &describe(hash, &row, "incoming"));
        }
    }

    pub(crate) fn honestly(&self, asked: &Asked) -> Value {
        let result =
            |result: Value| json!({ "result_type": asked.method, "error": null, "result": result });
        let text = |key: &str| asked.params[key].as_str().unwrap_or_default().to_owned();
        match asked.method.as_str() {
            "get_info" => result(json!({
                "alias": "scripted", "network": self.style.network,
                "methods": self.style.methods.split(' ').collect::<Vec<_>>(),
                "notifications": self.style.notifications.split(' ').collect::<Vec<_>>(),
            })),
            "make_invoice" => {
                let msat = asked.params["amount"].as_u64().unwrap();
                let expiry = asked.params["expiry"].as_u64().unwrap_or(3600);
                let (hash, row) =
                    invoice(Currency::Bitcoin, Some(msat), expiry, &text("description"));
                self.books.lock().unwrap().insert(hash.clone(), row.clone());
                result(describe(&hash, &row, "incoming"))
            }
            "lookup_invoice" => match self.books.lock().unwrap().get(&text("payment_hash")) {
                Some(row) if row.paid_by.as_ref() == Some(&self.uri) => {
                    result(describe(&text("payment_hash"), row, "outgoing"))
                }
                Some(row) if self.asked("make_invoice").is_empty() && row.paid_by.is_none() => {
                    failure("NOT_FOUND")
                }
                Some(row) => result(describe(&text("payment_hash"), row, "incoming")),
                None => failure("NOT_FOUND"),
            },
            "list_transactions" => {
                let books = self.books.lock().unwrap();
                let outgoing = text("type") == "outgoing";
                let mut rows: Vec<(&String, &Row)> = books
                    .iter()
                    .filter(|(_, row)| row.settled)
                    .filter(|(_, row)| !outgoing || row.paid_by.as_ref() == Some(&self.uri))
                    .collect();
                rows.sort_by_key(|(hash, _)| (*hash).clone());
                let number =
                    |key: &str| usize::try_from(asked.params[key].as_u64().unwrap_or(0)).unwrap();
                let kind = if outgoing { "outgoing" } else { "incoming" };
                let page: Vec<Value> = rows
                    .into_iter()
                    .skip(number("offset"))
                    .take(number("limit"))
                    .map(|(hash, row)| describe(hash, row, kind))
                    .collect();
                result(json!({ "transactions": page }))
            }
            "pay_invoice" => {
                let invoice: Bolt11Invoice = text("invoice").parse().unwrap();
                let hash = invoice.payment_hash().to_string();
                let known = self.books.lock().unwrap().get(&hash).cloned();
                match known {
                    None => failure("PAYMENT_FAILED"),
                    Some(row) if row.settled => failure("OTHER"),
                    Some(row) => {
                        self.books.lock().unwrap().get_mut(&hash).unwrap().paid_by =
                            Some(self.uri.clone());
                        self.books.lock().unwrap().get_mut(&hash).unwrap().settled = true;
                        result(json!({ "preimage": row.preimage, "fees_paid": 0 }))
                    }
                }
            }
            _ => failure("NOT_IMPLEMENTED"),
        }
    }

    fn act(&self, asked: &Asked) {
        match (self.hook)(self, asked) {
            Act::Honest => self.publish(self.answer(asked, &self.honestly(asked))),
            Act::Nothing => {}
            Act::HonestInSilence => {
                self.honestly(asked);
            }
            Act::Say(value) => self.publish(self.answer(asked, &value)),
            Act::HonestLate(delay) => {
                self.say_late(delay, self.answer(asked, &self.honestly(asked)))
            }
            Act::Send(events) => events.into_iter().for_each(|event| self.publish(event)),
        }
    }

    fn say_late(&self, delay: Duration, event: Event) {
        let wallet = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            wallet.publish(event);
        });
    }

    fn take(&self, event: &Event) {
        if event.kind != Kind::from(23194) || event.verify().is_err() {
            return;
        }
        let (secret, peer) = (self.keys.secret_key(), event.pubkey);
        let is44 = !event.content.contains("?iv=");
        let offered = self.style.encryption.unwrap_or("nip04");
        let text = if is44 {
            nip44::decrypt(secret, &peer, &event.content).unwrap()
        } else {
            nip04::decrypt(secret, &peer, &event.content).unwrap()
        };
        let value: Value = serde_json::from_str(&text).unwrap();
        let asked = Asked {
            method: value["method"].as_str().unwrap().to_owned(),
            params: value["params"].clone(),
            event: event.clone(),
            nip44: is44,
        };
        if !offered.contains(if is44 { "nip44_v2" } else { "nip04" }) {
            return self.publish(self.answer(&asked, &failure("UNSUPPORTED_ENCRYPTION")));
        }
        self.asked.lock().unwrap().push(asked.clone());
        self.act(&asked);
    }

    fn info_event(&self) -> Event {
        let mut tags = vec![Tag::custom(
            TagKind::custom("notifications"),
            [self.style.notifications],
        )];
        tags.extend(
            self.style
                .encryption
                .map(|words| Tag::custom(TagKind::custom("encryption"), [words])),
        );
        EventBuilder::new(Kind::from(13194), self.style.methods)
            .tags(tags)
            .sign_with_keys(&self.keys)
            .unwrap()
    }
}

/// A transaction as NIP-47 describes it.
pub(crate) fn describe(hash: &str, row: &Row, kind: &str) -> Value {
    json!({
        "type": kind,
        "state": if row.settled { "settled" } else { "pending" },
        "invoice": row.invoice,
        "payment_hash": hash,
        "preimage": if row.settled { Some(&row.preimage) } else { None },
        "amount": row.msat,
        "fees_paid": 0,
        "created_at": row.made,
        "settled_at": if row.settled { Some(row.made + 1) } else { None },
    })
}

pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// A fresh invoice: its payment hash and its row.
pub(crate) fn invoice(
    currency: Currency,
    msat: Option<u64>,
    expiry: u64,
    description: &str,
) -> (String, Row) {
    let preimage = Keys::generate().secret_key().to_secret_bytes();
    let hash = sha256::Hash::hash(&preimage);
    let made = now();
    let node = SecretKey::from_slice(&[7; 32]).unwrap();
    let mut builder = InvoiceBuilder::new(currency)
        .description(description.to_owned())
        .payment_hash(hash)
        .payment_secret(PaymentSecret([2; 32]))
        .duration_since_epoch(Duration::from_secs(made))
        .min_final_cltv_expiry_delta(144)
        .expiry_time(Duration::from_secs(expiry));
    if let Some(msat) = msat {
        builder = builder.amount_milli_satoshis(msat);
    }
    let signer = Secp256k1::signing_only();
    let signed = builder.build_signed(|digest| signer.sign_ecdsa_recoverable(digest, &node));
    let row = Row {
        invoice: signed.unwrap().to_string(),
        preimage: preimage.iter().map(|byte| format!("{byte:02x}")).collect(),
        msat: msat.unwrap_or_default(),
        made,
        settled: false,
        paid_by: None,
    };
    (hash.to_string(), row)
}

/// The wallet's link to its relay, which comes back when it was lost.
async fn serve(
    wallet: Wallet,
    relay: String,
    mut events: mpsc::UnboundedReceiver<Event>,
    listens: oneshot::Sender<()>,
) {
    let mut listens = Some(listens);
    loop {
        let Ok((socket, _)) = tokio_tungstenite::connect_async(&relay).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if let tokio_tungstenite::MaybeTlsStream::Plain(stream) = socket.get_ref() {
            stream.set_nodelay(true).unwrap();
        }
        let (mut sink, mut stream) = socket.split();
        if wallet.style.announces {
            let info = ClientMessage::event(wallet.info_event()).as_json();
            sink.send(Frame::text(info)).await.unwrap();
        }
        let filter = Filter::new()
            .kind(Kind::from(23194))
            .pubkey(wallet.keys.public_key())
            .since(Timestamp::now());
        let req = ClientMessage::req(SubscriptionId::new("wallet"), filter).as_json();
        sink.send(Frame::text(req)).await.unwrap();
        loop {
            tokio::select! {
                frame = stream.next() => {
                    let Some(Ok(frame)) = frame else { break };
                    let Ok(text) = frame.to_text() else { continue };
                    match RelayMessage::from_json(text) {
                        Ok(RelayMessage::Event { event, .. }) => wallet.take(&event),
                        Ok(RelayMessage::EndOfStoredEvents(_)) => {
                            if let Some(listens) = listens.take() {
                                let _ = listens.send(());
                            }
                        }
                        _ => {}
                    }
                }
                Some(event) = events.recv() => {
                    if sink.send(Frame::text(ClientMessage::event(event).as_json())).await.is_err() {
                        break;
                    }
                }
            }
        }
    }
}
