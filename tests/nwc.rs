//! The Lightning rail over NIP-47 against a wallet that does what a test tells it to, over a relay.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "support/nip47_wallet.rs"]
mod nip47_wallet;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lightning_invoice::Currency;
use nostr::{Event, EventId, Keys};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tollkeeper::payment::{
    BITCOIN_LIGHTNING_BOLT11, Clock, PayOutcome, PayReq, PaymentHandler, PaymentOrder,
    PaymentProcessor, PaymentRequest, RailErrorKind, SettlementStatus, SystemClock, Timestamp,
};
use tollkeeper::rails::lightning::Network;
use tollkeeper::rails::lightning::nwc::{
    LightningNwcHandler, LightningNwcProcessor, NwcConnection, NwcSettings,
};
use tollkeeper::transport::nostr::DevRelay;
use tollkeeper::{Amount, ErrorKind};

use nip47_wallet::{
    Act, Asked, Books, Notifies, Row, Style, Wallet, describe, failure, invoice, now,
};

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a wallet that says nothing is waited for.
const SOON: Duration = Duration::from_secs(1);

fn settings() -> NwcSettings {
    NwcSettings::new()
        .start_within(Duration::from_secs(15))
        .answer_within(SOON)
        .pay_within(SOON)
}

fn connection(wallet: &Wallet) -> NwcConnection {
    wallet.uri.parse().unwrap()
}

async fn seller(wallet: &Wallet) -> LightningNwcProcessor {
    let patient = settings().answer_within(PATIENCE);
    LightningNwcProcessor::connect(connection(wallet), patient)
        .await
        .unwrap()
}

fn buyer(wallet: &Wallet) -> LightningNwcHandler {
    LightningNwcHandler::new(connection(wallet), settings()).unwrap()
}

fn order(key: &str, sats: u64) -> PaymentOrder {
    let amount: Amount = format!("{sats} sats").parse().unwrap();
    PaymentOrder::new(
        key.into(),
        amount,
        "a search for x".into(),
        Duration::from_secs(600),
    )
}

fn demand(text: &str, sats: u64) -> PaymentRequest {
    let amount: Amount = format!("{sats} sats").parse().unwrap();
    PaymentRequest::new(
        BITCOIN_LIGHTNING_BOLT11.parse().unwrap(),
        amount,
        PayReq::new(text),
        "",
    )
}

/// An invoice of somebody, which the wallets of `books` can pay.
fn open_invoice(books: &Books, sats: u64, expiry: u64) -> (String, Row) {
    let (hash, row) = invoice(Currency::Bitcoin, Some(sats * 1000), expiry, "x");
    books.lock().unwrap().insert(hash.clone(), row.clone());
    (hash, row)
}

/// A wallet that answers every `method` as told, and everything else honestly.
async fn wallet_that(
    relay: &DevRelay,
    books: &Books,
    method: &'static str,
    act: impl Fn(&Wallet, &Asked) -> Act + Send + Sync + 'static,
) -> Wallet {
    let hook = move |wallet: &Wallet, asked: &Asked| {
        if asked.method == method {
            act(wallet, asked)
        } else {
            Act::Honest
        }
    };
    Wallet::start(&relay.url(), Style::default(), Arc::clone(books), hook).await
}

async fn pay(handler: &LightningNwcHandler, row: &Row, sats: u64) -> PayOutcome {
    let paying = async {
        handler
            .handle(&demand(&row.invoice, sats), &CancellationToken::new())
            .await
    };
    timeout(PATIENCE, paying).await.unwrap().unwrap()
}

fn proof(outcome: &PayOutcome) -> &str {
    match outcome {
        PayOutcome::Paid(proof) => proof.reveal(),
        other => panic!("{other:?}"),
    }
}

/// A clock that the test moves.
#[derive(Debug, Default)]
struct Later(Mutex<Duration>);

impl Clock for Later {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus(*self.0.lock().unwrap())
    }
}

#[tokio::test]
async fn an_invoice_is_made_and_its_settlement_is_pushed_in_every_dialect() {
    let relay = DevRelay::start(0).await.unwrap();
    for (encryption, notifies, speaks44) in [
        (Some("nip44_v2 nip04"), Notifies::Nip44, true),
        (Some("nip44_v2"), Notifies::Nip44, true),
        (Some("nip04"), Notifies::Nip04, false),
        (None, Notifies::Nip04, false),
        // Announces one, notifies in the other.
        (None, Notifies::Nip44, false),
    ] {
        let style = Style {
            encryption,
            notifies: Some(notifies),
            ..Style::default()
        };
        let wallet = Wallet::honest(&relay.url(), style).await;
        let processor = seller(&wallet).await;
        let mut settlements = processor.settlements().unwrap();
        let made = processor
            .create_payment_required(&order("k", 21))
            .await
            .unwrap();
        assert_eq!(made.amount, "21 sats".parse().unwrap());
        let expires = made.expires_at.unwrap().as_secs();
        assert!((now() + 590..=now() + 610).contains(&expires));

        let asked = wallet.asked("make_invoice").remove(0);
        assert_eq!(asked.nip44, speaks44);
        assert_eq!(asked.params["amount"], 21_000);
        assert_eq!(asked.params["expiry"], 600);
        assert_eq!(asked.params["description"], "a search for x");
        let tag = |name: &str| {
            asked
                .event
                .tags
                .iter()
                .map(|tag| tag.as_slice().to_vec())
                .find(|tag| tag[0] == name)
        };
        assert_eq!(tag("p").unwrap()[1], wallet.keys.public_key().to_hex());
        assert!(tag("expiration").unwrap()[1].parse::<u64>().unwrap() > now());
        assert_eq!(
            tag("encryption").map(|tag| tag[1].clone()),
            speaks44.then(|| "nip44_v2".to_owned())
        );

        assert_eq!(
            processor.lookup_payment(&made).await.unwrap(),
            SettlementStatus::Pending
        );
        wallet.settle(&made.reference);
        let notice = timeout(PATIENCE, settlements.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(notice.reference, made.reference);
        assert_eq!(notice.settlement.unwrap().amount, made.amount);
        let SettlementStatus::Settled(settled) = processor.lookup_payment(&made).await.unwrap()
        else {
            panic!("not settled");
        };
        assert_eq!(settled.amount, made.amount);
        let listed = processor
            .list_settled(SystemClock.now())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].reference, made.reference);
    }
}

#[tokio::test]
async fn a_wallet_that_announces_nothing_is_found_out() {
    let relay = DevRelay::start(0).await.unwrap();
    for encryption in ["nip04", "nip44_v2"] {
        let style = Style {
            encryption: Some(encryption),
            announces: false,
            ..Style::default()
        };
        let books = Books::default();
        let wallet =
            Wallet::start(&relay.url(), style, Arc::clone(&books), |_, _| Act::Honest).await;
        let processor = seller(&wallet).await;
        processor
            .create_payment_required(&order("k", 1))
            .await
            .unwrap();
        let (_, row) = open_invoice(&books, 5, 600);
        let outcome = pay(&buyer(&wallet), &row, 5).await;
        assert_eq!(proof(&outcome), row.preimage);
        assert!(wallet.asked("make_invoice")[0].nip44 == (encryption == "nip44_v2"));
    }
}

#[tokio::test]
async fn a_wallet_that_cannot_do_it_is_refused_by_name_at_start() {
    let relay = DevRelay::start(0).await.unwrap();
    let refused = async |style: Style, hook: fn(&Wallet, &Asked) -> Act| {
        let wallet = Wallet::start(&relay.url(), style, Books::default(), hook).await;
        let quick = settings().start_within(Duration::from_secs(3));
        let error = LightningNwcProcessor::connect(connection(&wallet), quick)
            .await
            .unwrap_err();
        (error.kind(), error.to_string())
    };
    let no_lookup = Style {
        methods: "make_invoice get_info",
        ..Style::default()
    };
    let (kind, text) = refused(no_lookup.clone(), |_, _| Act::Honest).await;
    assert_eq!(kind, ErrorKind::Config);
    assert!(
        text.contains("lookup_invoice") && !text.contains("make_invoice"),
        "{text}"
    );
    // A wallet that keeps get_info to itself is judged by what it announces.
    let (_, text) = refused(no_lookup, |_, _| Act::Say(failure("NOT_IMPLEMENTED"))).await;
    assert!(text.contains("lookup_invoice"), "{text}");
    let (kind, text) = refused(
        Style {
            network: "regtest",
            ..Style::default()
        },
        |_, _| Act::Honest,
    )
    .await;
    assert_eq!(kind, ErrorKind::Config);
    assert!(
        text.contains("regtest") && text.contains("mainnet"),
        "{text}"
    );
    let (kind, text) = refused(Style::default(), |_, _| Act::Say(failure("UNAUTHORIZED"))).await;
    assert_eq!(kind, ErrorKind::Config);
    assert!(text.contains("UNAUTHORIZED"), "{text}");
    let unheard = Style {
        announces: false,
        ..Style::default()
    };
    let (kind, text) = refused(unheard, |_, _| Act::Nothing).await;
    assert_eq!(kind, ErrorKind::Rail);
    assert!(text.contains("does not answer"), "{text}");
    // Announced, but away at the moment: it may be back before the first call.
    let wallet = Wallet::start(&relay.url(), Style::default(), Books::default(), |_, _| {
        Act::Nothing
    })
    .await;
    let quick = settings().start_within(Duration::from_secs(2));
    assert!(
        LightningNwcProcessor::connect(connection(&wallet), quick)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn no_relay_is_an_error_and_pays_nothing() {
    let relay = DevRelay::start(0).await.unwrap();
    let books = Books::default();
    let wallet = Wallet::start(
        &relay.url(),
        Style::default(),
        Arc::clone(&books),
        |_, _| Act::Honest,
    )
    .await;
    relay.shutdown();
    let quick = settings().start_within(SOON);
    let error = LightningNwcProcessor::connect(connection(&wallet), quick.clone())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rail);
    let handler = LightningNwcHandler::new(connection(&wallet), quick).unwrap();
    let (_, row) = open_invoice(&books, 5, 600);
    let error = handler
        .handle(&demand(&row.invoice, 5), &CancellationToken::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), RailErrorKind::Refused);
    let error = handler
        .lookup_payment(&demand(&row.invoice, 5))
        .await
        .unwrap_err();
    assert_eq!(
        error.kind(),
        RailErrorKind::Unknown,
        "what became of an earlier attempt is not known"
    );
}

#[tokio::test]
async fn a_strangers_and_a_replayed_answer_change_nothing() {
    let relay = DevRelay::start(0).await.unwrap();
    let old: Arc<Mutex<Option<Event>>> = Arc::default();
    let kept = Arc::clone(&old);
    let wallet = wallet_that(
        &relay,
        &Books::default(),
        "make_invoice",
        move |wallet, asked| {
            let genuine = wallet.answer(asked, &wallet.honestly(asked));
            let trap = wallet.honestly(asked);
            let stranger = wallet.answer_by(&Keys::generate(), asked.event.id, asked.nip44, &trap);
            let astray = wallet.answer_by(
                &wallet.keys,
                EventId::from_byte_array([9; 32]),
                asked.nip44,
                &trap,
            );
            let mut events = vec![stranger, astray];
            events.extend(kept.lock().unwrap().replace(genuine.clone()));
            events.push(genuine.clone());
            // Said twice, it counts once.
            events.push(genuine);
            Act::Send(events)
        },
    )
    .await;
    let processor = seller(&wallet).await;
    for key in ["a", "b", "c"] {
        let made = processor
            .create_payment_required(&order(key, 7))
            .await
            .unwrap();
        let last = old.lock().unwrap().clone().unwrap();
        let text = nostr::nips::nip44::decrypt(
            wallet.keys.secret_key(),
            last.tags.public_keys().next().unwrap(),
            &last.content,
        )
        .unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value["result"]["payment_hash"],
            made.reference.as_str(),
            "the answer to this very request"
        );
    }
}

#[tokio::test]
async fn an_invoice_that_is_not_what_was_ordered_never_leaves() {
    let relay = DevRelay::start(0).await.unwrap();
    let turn = AtomicUsize::new(0);
    let made = |currency, msat, expiry| {
        let (hash, row) = invoice(currency, msat, expiry, "x");
        json!({ "result": describe(&hash, &row, "incoming") })
    };
    let mut stolen = made(Currency::Bitcoin, Some(10_000), 600);
    stolen["result"]["payment_hash"] = json!("ab".repeat(32));
    let lies = [
        made(Currency::Bitcoin, Some(10_001), 600),
        made(Currency::Bitcoin, Some(10), 600),
        made(Currency::Bitcoin, None, 600),
        made(Currency::Regtest, Some(10_000), 600),
        made(Currency::Bitcoin, Some(10_000), 0),
        stolen,
        json!({ "result": { "invoice": "lnbc1garbage" } }),
        json!({ "result": {} }),
        json!({ "result": null }),
        json!({ "result_type": "pay_invoice", "result": { "preimage": "" } }),
        json!("garbage"),
    ];
    let count = lies.len();
    let wallet = wallet_that(
        &relay,
        &Books::default(),
        "make_invoice",
        move |_, _| match lies.get(turn.fetch_add(1, Ordering::SeqCst)) {
            Some(lie) => Act::Say(lie.clone()),
            None => Act::Honest,
        },
    )
    .await;
    let processor = seller(&wallet).await;
    for n in 0..count {
        let error = processor
            .create_payment_required(&order("same", 10))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), RailErrorKind::Invalid, "{n}: {error}");
    }
    let made = processor
        .create_payment_required(&order("same", 10))
        .await
        .unwrap();
    let again = processor
        .create_payment_required(&order("same", 10))
        .await
        .unwrap();
    assert_eq!(made, again, "the same order is the same invoice");
    assert_eq!(wallet.asked("make_invoice").len(), count + 1);
}

#[tokio::test]
async fn a_busy_wallet_is_asked_again_and_a_lost_invoice_is_never_offered() {
    let relay = DevRelay::start(0).await.unwrap();
    let turn = AtomicUsize::new(0);
    let wallet = wallet_that(
        &relay,
        &Books::default(),
        "make_invoice",
        move |_, _| match turn.fetch_add(1, Ordering::SeqCst) {
            0 => Act::Say(failure("RATE_LIMITED")),
            1 => Act::HonestInSilence,
            2 => Act::HonestLate(SOON * 2),
            _ => Act::Honest,
        },
    )
    .await;
    let processor = LightningNwcProcessor::connect(connection(&wallet), settings())
        .await
        .unwrap();
    for lost in 0..2 {
        let error = processor
            .create_payment_required(&order("k", 3))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), RailErrorKind::Unknown, "{lost}");
    }
    tokio::time::sleep(SOON * 2).await;
    let made = processor
        .create_payment_required(&order("k", 3))
        .await
        .unwrap();
    let books = wallet.books.lock().unwrap();
    assert_eq!(books.len(), 3, "two are lost");
    assert!(books.contains_key(&made.reference));
}

#[tokio::test]
async fn invoices_are_made_while_look_ups_hang() {
    let relay = DevRelay::start(0).await.unwrap();
    let wallet = wallet_that(&relay, &Books::default(), "lookup_invoice", |_, _| {
        Act::Nothing
    })
    .await;
    let processor = Arc::new(seller(&wallet).await);
    let made = processor
        .create_payment_required(&order("first", 1))
        .await
        .unwrap();
    for _ in 0..50 {
        let (processor, made) = (Arc::clone(&processor), made.clone());
        tokio::spawn(async move { processor.lookup_payment(&made).await });
    }
    tokio::task::yield_now().await;
    let minting = async {
        let orders = (0..100).map(|n| {
            let processor = Arc::clone(&processor);
            tokio::spawn(async move {
                processor
                    .create_payment_required(&order(&n.to_string(), 1))
                    .await
            })
        });
        for made in orders.collect::<Vec<_>>() {
            made.await.unwrap().unwrap();
        }
    };
    timeout(PATIENCE, minting).await.unwrap();
    assert!(
        wallet.asked("lookup_invoice").len() <= 8,
        "look-ups have a limit of their own"
    );
}

#[tokio::test]
async fn whatever_goes_wrong_with_a_look_up_is_not_a_word_about_the_money() {
    let relay = DevRelay::start(0).await.unwrap();
    let answers: Arc<Mutex<Option<Value>>> = Arc::default();
    let said = Arc::clone(&answers);
    let wallet = wallet_that(&relay, &Books::default(), "lookup_invoice", move |_, _| {
        said.lock().unwrap().clone().map_or(Act::Nothing, Act::Say)
    })
    .await;
    let processor = LightningNwcProcessor::connect(connection(&wallet), settings())
        .await
        .unwrap();
    let made = processor
        .create_payment_required(&order("k", 10))
        .await
        .unwrap();
    let settled = |extra: Value| {
        let mut value =
            json!({ "state": "settled", "payment_hash": made.reference, "amount": 10_000 });
        value
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        Some(json!({ "result": value }))
    };
    for odd in [
        None,
        Some(failure("NOT_FOUND")),
        Some(failure("RATE_LIMITED")),
        Some(failure("INTERNAL")),
        Some(json!("garbage")),
        Some(json!({ "result": [] })),
        settled(json!({ "payment_hash": "ab".repeat(32) })),
        settled(json!({ "preimage": "ab".repeat(32) })),
        settled(json!({ "type": "outgoing" })),
    ] {
        *answers.lock().unwrap() = odd.clone();
        assert!(processor.lookup_payment(&made).await.is_err(), "{odd:?}");
    }
    // Too little is said to be too little, and the gate does not serve for it.
    *answers.lock().unwrap() = settled(json!({ "amount": 9_999 }));
    let SettlementStatus::Settled(settlement) = processor.lookup_payment(&made).await.unwrap()
    else {
        panic!("not settled");
    };
    assert_eq!(settlement.amount, "9 sats".parse().unwrap());
}

#[tokio::test]
async fn many_settlements_are_listed_page_by_page_or_not_at_all() {
    let relay = DevRelay::start(0).await.unwrap();
    let wallet = Wallet::honest(
        &relay.url(),
        Style {
            notifies: None,
            ..Style::default()
        },
    )
    .await;
    let processor = seller(&wallet).await;
    for n in 0..45 {
        let made = processor
            .create_payment_required(&order(&n.to_string(), 1))
            .await
            .unwrap();
        if n > 0 {
            wallet.settle(&made.reference);
        }
    }
    let listed = processor
        .list_settled(SystemClock.now())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(listed.len(), 44);
    assert!(listed.iter().all(|notice| notice.settlement.is_some()));
    assert_eq!(wallet.asked("list_transactions").len(), 3);

    let silent = Style {
        methods: "make_invoice lookup_invoice",
        ..Style::default()
    };
    let wallet = Wallet::honest(&relay.url(), silent).await;
    assert_eq!(
        seller(&wallet)
            .await
            .list_settled(SystemClock.now())
            .await
            .unwrap(),
        None
    );
    let refusing = wallet_that(&relay, &Books::default(), "list_transactions", |_, _| {
        Act::Say(failure("RESTRICTED"))
    })
    .await;
    let processor = seller(&refusing).await;
    for _ in 0..2 {
        assert_eq!(
            processor.list_settled(SystemClock.now()).await.unwrap(),
            None
        );
    }
    assert_eq!(refusing.asked("list_transactions").len(), 1, "it was told");
}

#[tokio::test]
async fn a_lost_relay_comes_back_with_its_notifications() {
    let relay = DevRelay::start(0).await.unwrap();
    let port: u16 = relay.url().rsplit(':').next().unwrap().parse().unwrap();
    let wallet = Wallet::honest(&relay.url(), Style::default()).await;
    let processor = seller(&wallet).await;
    let mut settlements = processor.settlements().unwrap();
    let made = processor
        .create_payment_required(&order("a", 1))
        .await
        .unwrap();
    relay.shutdown();
    drop(relay);
    let again = async {
        loop {
            match DevRelay::start(port).await {
                Ok(relay) => return relay,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let _relay = timeout(PATIENCE, again).await.unwrap();
    // Asked as soon as it is back: the request waits for the link, and is said again should the wallet be later.
    let made_later = timeout(PATIENCE, processor.create_payment_required(&order("b", 1)))
        .await
        .unwrap()
        .unwrap();
    for made in [made, made_later] {
        wallet.settle(&made.reference);
        let notice = timeout(PATIENCE, settlements.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(notice.reference, made.reference);
    }
}

#[tokio::test]
async fn one_dead_relay_of_several_delays_nobody() {
    let relay = DevRelay::start(0).await.unwrap();
    let wallet = Wallet::honest(&relay.url(), Style::default()).await;
    let uri = wallet
        .uri
        .replace("?relay=", "?relay=ws%3A%2F%2F127.0.0.1%3A1&relay=");
    let processor = LightningNwcProcessor::connect(uri.parse().unwrap(), settings())
        .await
        .unwrap();
    processor
        .create_payment_required(&order("a", 1))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_invoice_is_paid_once_and_proven() {
    let relay = DevRelay::start(0).await.unwrap();
    for encryption in [Some("nip44_v2"), None] {
        let books = Books::default();
        let style = Style {
            encryption,
            ..Style::default()
        };
        let wallet =
            Wallet::start(&relay.url(), style, Arc::clone(&books), |_, _| Act::Honest).await;
        let handler = buyer(&wallet);
        let (hash, row) = open_invoice(&books, 5, 600);
        let examined = handler.examine(&demand(&row.invoice, 5)).unwrap();
        assert_eq!(examined.payment_id, hash);
        let outcome = pay(&handler, &row, 5).await;
        assert_eq!(proof(&outcome), row.preimage);
        // Asked again, the wallet is not asked to pay again.
        assert_eq!(pay(&handler, &row, 5).await, outcome);
        assert_eq!(
            handler
                .lookup_payment(&demand(&row.invoice, 5))
                .await
                .unwrap(),
            outcome
        );
        assert_eq!(wallet.asked("pay_invoice").len(), 1);
        assert_eq!(wallet.asked("pay_invoice")[0].nip44, encryption.is_some());
    }
}

#[tokio::test]
async fn what_is_not_asked_for_is_not_paid() {
    let relay = DevRelay::start(0).await.unwrap();
    let books = Books::default();
    let wallet = Wallet::start(
        &relay.url(),
        Style::default(),
        Arc::clone(&books),
        |_, _| Act::Honest,
    )
    .await;
    let handler = buyer(&wallet);
    let (_, dear) = open_invoice(&books, 1_000_000, 600);
    let (_, open) = invoice(Currency::Bitcoin, None, 600, "x");
    let (_, elsewhere) = invoice(Currency::Regtest, Some(1000), 600, "x");
    let (_, late) = invoice(Currency::Bitcoin, Some(1000), 1, "x");
    for text in [
        dear.invoice,
        open.invoice,
        elsewhere.invoice.clone(),
        late.invoice,
        "lnbc1".to_owned(),
    ] {
        let request = demand(&text, 1);
        assert!(!handler.can_handle(&request).await);
        let error = handler
            .handle(&request, &CancellationToken::new())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), RailErrorKind::Invalid);
    }
    assert!(wallet.asked("pay_invoice").is_empty());
    let regtest =
        LightningNwcHandler::new(connection(&wallet), settings().network(Network::Regtest))
            .unwrap();
    assert!(regtest.can_handle(&demand(&elsewhere.invoice, 1)).await);
}

#[tokio::test]
async fn a_lost_answer_is_unknown_until_the_wallets_books_say_otherwise() {
    let relay = DevRelay::start(0).await.unwrap();
    let books = Books::default();
    let blind = Arc::new(AtomicUsize::new(1));
    let blinded = Arc::clone(&blind);
    let hook = move |_: &Wallet, asked: &Asked| match asked.method.as_str() {
        "pay_invoice" => Act::HonestLate(SOON * 3),
        // Its books cannot be seen for now.
        "lookup_invoice" | "list_transactions" if blinded.load(Ordering::SeqCst) == 1 => {
            Act::Nothing
        }
        _ => Act::Honest,
    };
    let wallet = Wallet::start(&relay.url(), Style::default(), Arc::clone(&books), hook).await;
    let handler = buyer(&wallet);
    let (_, row) = open_invoice(&books, 5, 600);
    assert_eq!(pay(&handler, &row, 5).await, PayOutcome::Unknown);
    let request = demand(&row.invoice, 5);
    let error = handler.lookup_payment(&request).await.unwrap_err();
    assert_eq!(error.kind(), RailErrorKind::Unknown);
    blind.store(0, Ordering::SeqCst);
    let outcome = handler.lookup_payment(&request).await.unwrap();
    assert_eq!(proof(&outcome), row.preimage);
    // Another process, without a memory of it.
    let other = buyer(&wallet);
    assert_eq!(other.lookup_payment(&request).await.unwrap(), outcome);
    assert_eq!(wallet.asked("pay_invoice").len(), 1);
}

#[tokio::test]
async fn a_payment_whose_answer_is_lost_is_found_at_once_if_the_books_are_open() {
    let relay = DevRelay::start(0).await.unwrap();
    let books = Books::default();
    let wallet = wallet_that(&relay, &books, "pay_invoice", |_, _| Act::HonestInSilence).await;
    let (_, row) = open_invoice(&books, 5, 600);
    assert_eq!(proof(&pay(&buyer(&wallet), &row, 5).await), row.preimage);
}

#[tokio::test]
async fn a_request_that_the_wallet_never_took_is_free_once_it_cannot_happen_any_more() {
    let relay = DevRelay::start(0).await.unwrap();
    let books = Books::default();
    let wallet = wallet_that(&relay, &books, "pay_invoice", |_, _| Act::Nothing).await;
    let clock = Arc::new(Later::default());
    let handler =
        LightningNwcHandler::new(connection(&wallet), settings().clock(clock.clone())).unwrap();
    let (_, row) = open_invoice(&books, 5, 60);
    let request = demand(&row.invoice, 5);
    for (later, expected) in [
        (0, PayOutcome::Unknown),
        (61, PayOutcome::Unknown),
        (600, PayOutcome::Unknown),
        (662, PayOutcome::Refused),
    ] {
        *clock.0.lock().unwrap() = Duration::from_secs(later);
        let outcome = if later == 0 {
            pay(&handler, &row, 5).await
        } else {
            handler.lookup_payment(&request).await.unwrap()
        };
        assert_eq!(outcome, expected, "{later}");
    }
}

/// "Expired" is said of invoices. Of a payment it may be said while the money is held on its way.
#[tokio::test]
async fn a_payment_that_is_called_expired_is_never_free() {
    let relay = DevRelay::start(0).await.unwrap();
    for direction in [Some("outgoing"), None] {
        let books = Books::default();
        let hook = move |wallet: &Wallet, asked: &Asked| match asked.method.as_str() {
            "pay_invoice" => Act::Nothing,
            "lookup_invoice" => {
                let hash = asked.params["payment_hash"].as_str().unwrap();
                let mut told = describe(hash, &wallet.row(hash), "outgoing");
                told["type"] = json!(direction);
                told["state"] = json!("expired");
                told["preimage"] = Value::Null;
                Act::Say(json!({ "result": told }))
            }
            _ => Act::Say(failure("NOT_IMPLEMENTED")),
        };
        let wallet = Wallet::start(&relay.url(), Style::default(), Arc::clone(&books), hook).await;
        let clock = Arc::new(Later::default());
        let handler =
            LightningNwcHandler::new(connection(&wallet), settings().clock(clock.clone())).unwrap();
        let (_, row) = open_invoice(&books, 5, 60);
        assert_eq!(pay(&handler, &row, 5).await, PayOutcome::Unknown);
        *clock.0.lock().unwrap() = Duration::from_secs(86_400);
        let later = handler.lookup_payment(&demand(&row.invoice, 5)).await;
        match later {
            Ok(outcome) => assert_eq!(outcome, PayOutcome::Unknown, "{direction:?}"),
            Err(error) => assert_eq!(error.kind(), RailErrorKind::Unknown),
        }
    }
}

#[tokio::test]
async fn a_no_is_believed_if_nothing_was_tried_or_the_books_agree() {
    let relay = DevRelay::start(0).await.unwrap();
    let mut paying = Vec::new();
    for (code, expected) in [
        ("INSUFFICIENT_BALANCE", PayOutcome::Refused),
        ("QUOTA_EXCEEDED", PayOutcome::Refused),
        ("RATE_LIMITED", PayOutcome::Refused),
        ("RESTRICTED", PayOutcome::Refused),
        ("UNAUTHORIZED", PayOutcome::Refused),
        ("NOT_IMPLEMENTED", PayOutcome::Refused),
        // It may be on its way.
        ("PAYMENT_FAILED", PayOutcome::Unknown),
        ("INTERNAL", PayOutcome::Unknown),
        ("SOMETHING_ELSE", PayOutcome::Unknown),
    ] {
        let books = Books::default();
        let wallet = wallet_that(&relay, &books, "pay_invoice", move |_, _| {
            Act::Say(failure(code))
        })
        .await;
        let (_, row) = open_invoice(&books, 5, 600);
        paying.push(tokio::spawn(async move {
            // The wallet answers; on a busy machine not within what silence takes.
            let patient = settings().answer_within(PATIENCE).pay_within(PATIENCE);
            let buyer = LightningNwcHandler::new(connection(&wallet), patient).unwrap();
            assert_eq!(pay(&buyer, &row, 5).await, expected, "{code}");
        }));
    }
    for paid in paying {
        paid.await.unwrap();
    }
}

#[tokio::test]
async fn the_books_overrule_the_answer() {
    let relay = DevRelay::start(0).await.unwrap();
    let hash_of = |asked: &Asked| {
        asked.params["payment_hash"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    for (state, paid) in [("settled", true), ("pending", false), ("failed", false)] {
        let books = Books::default();
        let hook = move |wallet: &Wallet, asked: &Asked| match asked.method.as_str() {
            // Even a no that says that nothing was tried: it may be the answer to a second copy of the request.
            "pay_invoice" => Act::Say(failure("INSUFFICIENT_BALANCE")),
            "lookup_invoice" => {
                let row = wallet.row(&hash_of(asked));
                let mut told = describe(&hash_of(asked), &row, "outgoing");
                told["state"] = json!(state);
                told["preimage"] = if paid {
                    json!(row.preimage)
                } else {
                    Value::Null
                };
                Act::Say(json!({ "result": told }))
            }
            _ => Act::Honest,
        };
        let wallet = Wallet::start(&relay.url(), Style::default(), Arc::clone(&books), hook).await;
        let (_, row) = open_invoice(&books, 5, 600);
        let outcome = pay(&buyer(&wallet), &row, 5).await;
        match state {
            "settled" => assert_eq!(proof(&outcome), row.preimage),
            "pending" => assert_eq!(outcome, PayOutcome::Unknown),
            _ => assert_eq!(outcome, PayOutcome::Refused),
        }
    }
}

#[tokio::test]
async fn a_preimage_that_is_none_is_neither_paid_nor_free_to_be_paid_again() {
    let relay = DevRelay::start(0).await.unwrap();
    for lie in [
        json!("ab".repeat(32)),
        json!("lnbc1"),
        json!(""),
        Value::Null,
    ] {
        let books = Books::default();
        let false_proof = lie.clone();
        let hook = move |wallet: &Wallet, asked: &Asked| match asked.method.as_str() {
            "pay_invoice" => Act::Say(json!({ "result": { "preimage": false_proof } })),
            "lookup_invoice" if !false_proof.is_null() && false_proof != "" => {
                let hash = asked.params["payment_hash"].as_str().unwrap();
                let mut told = describe(hash, &wallet.row(hash), "outgoing");
                told["state"] = json!("settled");
                told["preimage"] = false_proof.clone();
                Act::Say(json!({ "result": told }))
            }
            _ => Act::Honest,
        };
        let wallet = Wallet::start(&relay.url(), Style::default(), Arc::clone(&books), hook).await;
        let handler = buyer(&wallet);
        let (_, row) = open_invoice(&books, 5, 600);
        assert_eq!(pay(&handler, &row, 5).await, PayOutcome::Unknown, "{lie}");
        assert_eq!(pay(&handler, &row, 5).await, PayOutcome::Unknown, "{lie}");
        assert_eq!(wallet.asked("pay_invoice").len(), 1, "{lie}");
    }
}

#[tokio::test]
async fn a_payment_that_is_called_off_too_late_is_unknown() {
    let relay = DevRelay::start(0).await.unwrap();
    let books = Books::default();
    let wallet = wallet_that(&relay, &books, "pay_invoice", |_, _| Act::Nothing).await;
    let handler =
        LightningNwcHandler::new(connection(&wallet), settings().pay_within(PATIENCE)).unwrap();
    let (_, row) = open_invoice(&books, 5, 600);
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let request = demand(&row.invoice, 5);
    assert_eq!(
        handler.handle(&request, &cancelled).await.unwrap(),
        PayOutcome::Refused
    );
    assert!(wallet.asked("pay_invoice").is_empty());
    let later = CancellationToken::new();
    let cancelling = async {
        while wallet.asked("pay_invoice").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        later.cancel();
    };
    let (outcome, ()) = tokio::join!(handler.handle(&request, &later), cancelling);
    assert_eq!(outcome.unwrap(), PayOutcome::Unknown);
}
