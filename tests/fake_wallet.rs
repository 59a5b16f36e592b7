//! The wallet for development, judged by a NIP-47 client that others wrote (the crate `nwc`), and by the wire.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use nostr_sdk::hashes::hex::FromHex;
use nostr_sdk::prelude::*;
use nwc::NWC;
use serde_json::{Value, json};
use tollkeeper::rails::lightning::fake_wallet::{
    FakeWallet, FakeWallets, Hold, Method as Asked, NotificationFault, Refusal,
};
use tollkeeper::transport::nostr::DevRelay;

const SOON: Duration = Duration::from_secs(20);
/// After an answer to something later has come, what has not come will not.
const QUIET: Duration = Duration::from_millis(300);

async fn wallets() -> (DevRelay, FakeWallets) {
    let relay = DevRelay::start(0).await.unwrap();
    let wallets = FakeWallets::builder()
        .relays([relay.url()])
        .balance_sats(1_000)
        .start()
        .await
        .unwrap();
    (relay, wallets)
}

fn client(wallet: &FakeWallet) -> NWC {
    let uri = wallet.connection();
    NWC::new(NostrWalletConnectURI::parse(uri.reveal()).unwrap())
}

fn invoice_of(sats: u64) -> MakeInvoiceRequest {
    MakeInvoiceRequest {
        amount: sats * 1000,
        description: Some("a test".to_owned()),
        description_hash: None,
        expiry: Some(60),
    }
}

fn by_hash(hash: &str) -> LookupInvoiceRequest {
    LookupInvoiceRequest {
        payment_hash: Some(hash.to_owned()),
        invoice: None,
    }
}

#[tokio::test]
async fn a_client_that_others_wrote_makes_pays_and_looks_up() {
    let (_relay, wallets) = wallets().await;
    let (seller, buyer) = (client(wallets.seller()), client(wallets.buyer()));
    let info = seller.get_info().await.unwrap();
    assert_eq!(info.network.as_deref(), Some("regtest"));
    assert!(info.methods.contains(&Method::ListTransactions));

    let made = seller.make_invoice(invoice_of(21)).await.unwrap();
    assert!(made.invoice.starts_with("lnbcrt210n1"), "{}", made.invoice);
    let hash = made.payment_hash.unwrap();
    let open = seller.lookup_invoice(by_hash(&hash)).await.unwrap();
    assert_eq!(open.state, Some(TransactionState::Pending));

    let paid = buyer
        .pay_invoice(PayInvoiceRequest::new(&made.invoice))
        .await
        .unwrap();
    let preimage = <[u8; 32]>::from_hex(&paid.preimage).unwrap();
    assert_eq!(
        hashes::sha256::Hash::const_hash(&preimage).to_string(),
        hash
    );
    assert_eq!(seller.get_balance().await.unwrap(), 1_021_000);
    assert_eq!(buyer.get_balance().await.unwrap(), 979_000);
    let closed = seller.lookup_invoice(by_hash(&hash)).await.unwrap();
    assert_eq!(closed.state, Some(TransactionState::Settled));
    assert!(closed.settled_at.is_some());

    let twice = buyer
        .pay_invoice(PayInvoiceRequest::new(&made.invoice))
        .await;
    assert!(twice.unwrap_err().to_string().contains("PaymentFailed"));
    let dear = seller.make_invoice(invoice_of(980)).await.unwrap();
    let refused = buyer
        .pay_invoice(PayInvoiceRequest::new(dear.invoice))
        .await;
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("InsufficientBalance")
    );
    let unknown = buyer.lookup_invoice(by_hash(&"00".repeat(32))).await;
    assert!(unknown.unwrap_err().to_string().contains("NotFound"));

    let all = ListTransactionsRequest {
        unpaid: Some(true),
        ..Default::default()
    };
    assert_eq!(seller.list_transactions(all).await.unwrap().len(), 2);
    let settled = seller
        .list_transactions(ListTransactionsRequest::default())
        .await
        .unwrap();
    assert_eq!(settled.len(), 1);
    assert_eq!(
        (settled[0].amount, settled[0].payment_hash.as_str()),
        (21_000, hash.as_str())
    );

    assert_eq!(wallets.buyer().asked(Asked::PayInvoice), 3);
    assert_eq!(wallets.seller().asked(Asked::MakeInvoice), 2);
    assert_eq!(wallets.buyer().balance_msat(), 979_000);
}

/// A client as raw as it gets: it says what it wants, and hears everything.
struct Raw {
    client: Client,
    uri: NostrWalletConnectURI,
    events: tokio::sync::broadcast::Receiver<RelayPoolNotification>,
}

impl Raw {
    async fn connect(relay: &DevRelay, wallet: &FakeWallet) -> Self {
        let uri = NostrWalletConnectURI::parse(wallet.connection().reveal()).unwrap();
        let client = Client::new(Keys::new(uri.secret.clone()));
        client.add_relay(relay.url()).await.unwrap();
        client.connect().await;
        client.wait_for_connection(SOON).await;
        let events = client.notifications();
        client
            .subscribe(Filter::new().author(uri.public_key), None)
            .await
            .unwrap();
        let mut raw = Self {
            client,
            uri,
            events,
        };
        // What the wallet can do is kept by the relay: when it comes, the subscription is live.
        raw.until(|event| event.kind == Kind::WalletConnectInfo)
            .await;
        raw
    }

    async fn ask(&self, method: &str, params: Value, nip44: bool) -> EventId {
        let text = json!({"method": method, "params": params}).to_string();
        let (secret, wallet) = (&self.uri.secret, &self.uri.public_key);
        let mut tags = vec![Tag::public_key(*wallet)];
        let content = if nip44 {
            tags.push(Tag::parse(["encryption", "nip44_v2"]).unwrap());
            nip44::encrypt(secret, wallet, text, nip44::Version::V2).unwrap()
        } else {
            nip04::encrypt(secret, wallet, text).unwrap()
        };
        let event = EventBuilder::new(Kind::WalletConnectRequest, content).tags(tags);
        self.client.send_event_builder(event).await.unwrap().val
    }

    async fn until(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        let wait = async {
            loop {
                if let RelayPoolNotification::Event { event, .. } =
                    self.events.recv().await.unwrap()
                    && wanted(&event)
                {
                    return *event;
                }
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("an event")
    }

    async fn answer(&mut self, to: EventId) -> Event {
        self.until(|event| {
            event.kind == Kind::WalletConnectResponse && event.tags.event_ids().any(|id| *id == to)
        })
        .await
    }

    fn open(&self, event: &Event) -> Option<Value> {
        let (secret, wallet) = (&self.uri.secret, &self.uri.public_key);
        let text = nip44::decrypt(secret, wallet, &event.content)
            .ok()
            .or_else(|| nip04::decrypt(secret, wallet, &event.content).ok())?;
        serde_json::from_str(&text).ok()
    }

    async fn say(&mut self, method: &str, params: Value) -> Value {
        let id = self.ask(method, params, true).await;
        let answer = self.answer(id).await;
        self.open(&answer).unwrap()
    }

    /// All that comes until nothing has come for a while.
    async fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Ok(next) = tokio::time::timeout(QUIET, self.events.recv()).await {
            if let Ok(RelayPoolNotification::Event { event, .. }) = next {
                events.push(*event);
            }
        }
        events
    }
}

#[tokio::test]
async fn an_answer_is_encrypted_as_the_request_was() {
    let (relay, wallets) = wallets().await;
    let mut raw = Raw::connect(&relay, wallets.seller()).await;
    for nip44 in [true, false] {
        let id = raw.ask("get_balance", json!({}), nip44).await;
        let answer = raw.answer(id).await;
        let peer = &raw.uri.public_key;
        let opened = nip44::decrypt(&raw.uri.secret, peer, &answer.content);
        assert_eq!(opened.is_ok(), nip44);
        let result = raw.open(&answer).unwrap();
        assert_eq!(result["result_type"], "get_balance");
        assert_eq!(result["result"]["balance"], 1_000_000);
        assert!(
            answer
                .tags
                .public_keys()
                .any(|key| *key == Keys::new(raw.uri.secret.clone()).public_key())
        );
    }
    let unknown = raw.say("pay_keysend", json!({})).await;
    assert_eq!(unknown["error"]["code"], "NOT_IMPLEMENTED");

    wallets.seller().change(|faults| faults.nip04_only = true);
    let info = raw
        .until(|event| event.kind == Kind::WalletConnectInfo)
        .await;
    assert!(info.tags.find(TagKind::custom("encryption")).is_none());
    let refused = raw.say("get_balance", json!({})).await;
    assert_eq!(refused["error"]["code"], "UNSUPPORTED_ENCRYPTION");
}

#[tokio::test]
async fn both_sides_are_notified_in_both_encryptions() {
    let (relay, wallets) = wallets().await;
    for (fault, received) in [
        (None, 1),
        (Some(NotificationFault::Twice), 2),
        (Some(NotificationFault::None), 0),
        (Some(NotificationFault::Unsupported), 0),
    ] {
        let mut seller = Raw::connect(&relay, wallets.seller()).await;
        let mut buyer = Raw::connect(&relay, wallets.buyer()).await;
        wallets
            .seller()
            .change(|faults| faults.notifications = fault);
        let invoice = wallets.seller().make_invoice(5_000, "x", SOON).unwrap();
        let id = buyer
            .ask("pay_invoice", json!({"invoice": invoice}), true)
            .await;
        let (heard, told) = (buyer.rest().await, seller.rest().await);
        let answer = heard
            .iter()
            .find(|event| event.tags.event_ids().any(|to| *to == id))
            .unwrap();
        let paid = buyer.open(answer).unwrap();
        for (side, kind, wanted) in [
            (&seller, "payment_received", received),
            (&buyer, "payment_sent", 1),
        ] {
            let events = if kind == "payment_sent" {
                &heard
            } else {
                &told
            };
            for number in [23196, 23197] {
                let notices: Vec<Value> = events
                    .iter()
                    .filter(|event| event.kind.as_u16() == number)
                    .filter_map(|event| side.open(event))
                    .collect();
                assert_eq!(notices.len(), wanted, "{kind} {number} {fault:?}");
                for notice in notices {
                    assert_eq!(notice["notification_type"], kind);
                    assert_eq!(notice["notification"]["state"], "settled");
                    assert_eq!(notice["notification"]["invoice"], invoice);
                    assert_eq!(
                        notice["notification"]["preimage"],
                        paid["result"]["preimage"]
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn an_early_notification_comes_before_the_payment() {
    let (relay, wallets) = wallets().await;
    let mut seller = Raw::connect(&relay, wallets.seller()).await;
    wallets
        .seller()
        .change(|faults| faults.notifications = Some(NotificationFault::Early));
    let made = seller.say("make_invoice", json!({"amount": 1_000})).await;
    let hash = made["result"]["payment_hash"].clone();
    let early = seller.rest().await;
    assert!(early.is_empty(), "it came before the answer");
    let state = seller
        .say("lookup_invoice", json!({"payment_hash": hash}))
        .await;
    assert_eq!(state["result"]["state"], "pending");
    let mut again = Raw::connect(&relay, wallets.seller()).await;
    let id = again
        .ask("make_invoice", json!({"amount": 1_000}), true)
        .await;
    let notice = again.until(|event| event.kind.as_u16() == 23197).await;
    let notice = again.open(&notice).unwrap();
    assert_eq!(notice["notification"]["state"], "settled");
    assert_eq!(notice["notification"]["preimage"], Value::Null);
    again.answer(id).await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, fault by fault")]
async fn a_wallet_fails_as_it_is_told_and_the_books_stay_right() {
    let (relay, wallets) = wallets().await;
    let mut buyer = Raw::connect(&relay, wallets.buyer()).await;
    let invoice = || wallets.seller().make_invoice(1_000, "x", SOON).unwrap();
    let pay = |invoice: &str| json!({ "invoice": invoice });
    let mut spent = 0;
    let balance = |wallet: &FakeWallet| wallet.balance_msat();

    wallets
        .buyer()
        .change(|faults| faults.ignore = Asked::PayInvoice.into());
    buyer.ask("pay_invoice", pay(&invoice()), true).await;
    buyer.say("get_balance", json!({})).await;
    assert!(buyer.rest().await.is_empty());
    assert_eq!(balance(wallets.buyer()), 1_000_000 - spent);

    wallets.buyer().change(|faults| {
        faults.ignore = Default::default();
        faults.mute = Asked::PayInvoice.into();
    });
    buyer.ask("pay_invoice", pay(&invoice()), true).await;
    buyer.until(|event| event.kind.as_u16() == 23197).await;
    spent += 1_000;
    let answers = buyer.rest().await;
    assert!(
        answers
            .iter()
            .all(|event| event.kind != Kind::WalletConnectResponse)
    );
    assert_eq!(balance(wallets.buyer()), 1_000_000 - spent);

    wallets.buyer().change(|faults| {
        faults.mute = Default::default();
        faults.refuse = Some((Asked::PayInvoice.into(), Refusal::RateLimited));
    });
    let refused = buyer.say("pay_invoice", pay(&invoice())).await;
    assert_eq!(refused["error"]["code"], "RATE_LIMITED");
    assert_eq!(balance(wallets.buyer()), 1_000_000 - spent);

    wallets.buyer().change(|faults| {
        faults.refuse = None;
        faults.refuse_after = Some((Asked::PayInvoice.into(), Refusal::Internal));
    });
    let refused = buyer.say("pay_invoice", pay(&invoice())).await;
    spent += 1_000;
    assert_eq!(refused["error"]["code"], "INTERNAL");
    assert_eq!(balance(wallets.buyer()), 1_000_000 - spent);

    wallets.buyer().change(|faults| {
        faults.refuse_after = None;
        faults.garbage = Asked::PayInvoice.into();
    });
    for _ in 0..4 {
        let id = buyer.ask("pay_invoice", pay(&invoice()), true).await;
        let answer = buyer.answer(id).await;
        let read = buyer.open(&answer).unwrap_or_default();
        assert!(read["result"]["preimage"].is_null(), "{read}");
        spent += 1_000;
    }
    assert_eq!(balance(wallets.buyer()), 1_000_000 - spent);

    wallets.buyer().change(|faults| {
        faults.garbage = Default::default();
        faults.wrong_preimage = true;
    });
    let paid = buyer.say("pay_invoice", pay(&invoice())).await;
    spent += 1_000;
    let preimage = <[u8; 32]>::from_hex(paid["result"]["preimage"].as_str().unwrap()).unwrap();
    let rows = buyer.say("list_transactions", json!({"limit": 1})).await;
    let hash = rows["result"]["transactions"][0]["payment_hash"].clone();
    assert_ne!(
        hashes::sha256::Hash::const_hash(&preimage).to_string(),
        hash
    );

    wallets.buyer().change(|faults| {
        faults.wrong_preimage = false;
        faults.without = Asked::ListTransactions.into();
        faults.answer_twice = true;
    });
    let info = buyer
        .until(|event| event.kind == Kind::WalletConnectInfo)
        .await;
    assert!(!info.content.contains("list_transactions"));
    let missing = buyer.say("list_transactions", json!({})).await;
    assert_eq!(missing["error"]["code"], "NOT_IMPLEMENTED");
    buyer.say("get_balance", json!({})).await;
    let again = buyer.rest().await;
    assert_eq!(again.len(), 1, "the answer again");
    assert_eq!(balance(wallets.seller()), 1_000_000 + spent);
}

#[tokio::test]
async fn a_payment_is_held_until_it_is_let_go() {
    let (relay, wallets) = wallets().await;
    let mut buyer = Raw::connect(&relay, wallets.buyer()).await;
    wallets
        .buyer()
        .change(|faults| faults.hold = Some(Hold::UntilReleased));
    let mut pay = async |arrives: bool| {
        let invoice = wallets.seller().make_invoice(1_000, "x", SOON).unwrap();
        let id = buyer
            .ask("pay_invoice", json!({"invoice": invoice}), true)
            .await;
        let state = buyer
            .say("lookup_invoice", json!({"invoice": invoice}))
            .await;
        assert_eq!(state["result"]["state"], "pending");
        assert_eq!(wallets.held(), 1);
        let before = wallets.buyer().balance_msat();
        if arrives {
            assert_eq!(wallets.release().await, 1);
        } else {
            assert_eq!(wallets.fail(), 1);
        }
        let answer = buyer.answer(id).await;
        let answer = buyer.open(&answer).unwrap();
        (answer, wallets.buyer().balance_msat() - before)
    };
    let (answer, back) = pay(true).await;
    assert!(answer["result"]["preimage"].is_string(), "{answer}");
    assert_eq!(back, 0);
    let (answer, back) = pay(false).await;
    assert_eq!(answer["error"]["code"], "PAYMENT_FAILED");
    assert_eq!(back, 1_000);

    wallets
        .buyer()
        .change(|faults| faults.hold = Some(Hold::For(Duration::from_millis(50))));
    let invoice = wallets.seller().make_invoice(1_000, "x", SOON).unwrap();
    let paid = buyer.say("pay_invoice", json!({"invoice": invoice})).await;
    assert!(paid["result"]["preimage"].is_string(), "{paid}");
    assert_eq!(wallets.seller().balance_msat(), 1_002_000);
    assert_eq!(
        (wallets.held(), wallets.buyer().balance_msat()),
        (0, 998_000)
    );
}

#[tokio::test]
async fn a_request_counts_once_and_from_its_owner_only() {
    let (relay, wallets) = wallets().await;
    let mut buyer = Raw::connect(&relay, wallets.buyer()).await;
    let invoice = wallets.seller().make_invoice(1_000, "x", SOON).unwrap();
    // Somebody else has another key, and may say what they like.
    let mut stranger = Raw::connect(&relay, wallets.buyer()).await;
    let keys = Keys::generate();
    stranger.uri.secret = keys.secret_key().clone();
    let text = json!({"method": "pay_invoice", "params": {"invoice": invoice}}).to_string();
    let wallet = stranger.uri.public_key;
    let content = nip04::encrypt(keys.secret_key(), &wallet, text).unwrap();
    let foreign = EventBuilder::new(Kind::WalletConnectRequest, content)
        .tag(Tag::public_key(wallet))
        .sign_with_keys(&keys)
        .unwrap();
    stranger.client.send_event(&foreign).await.unwrap();
    // An old request, and one that says of itself that it is over.
    let old = EventBuilder::new(Kind::WalletConnectRequest, "")
        .tag(Tag::public_key(wallet))
        .custom_created_at(Timestamp::now() - 700);
    buyer.client.send_event_builder(old).await.unwrap();

    let id = buyer.ask("get_balance", json!({}), true).await;
    buyer.answer(id).await;
    assert_eq!(wallets.buyer().asked_in_all(), 1);
    assert_eq!(wallets.buyer().balance_msat(), 1_000_000);
    assert_eq!(wallets.buyer().asked(Asked::PayInvoice), 0);
    wallets.shutdown().await;
}
