//! Both sides of the LNbits rail against the real LNbits, from PyPI, with its fake funding source: sats really move from
//! one of its wallets to another, but no Lightning node is involved.
//!
//! `tests/real/setup_lnbits.sh` installs it, once; these tests run it when need be. Where that cannot be done they are
//! skipped and say so, but not in CI.

#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, reason = "shared with other tests, which need more of it")]
#[path = "support/binary.rs"]
mod binary;
#[path = "support/lnbits.rs"]
mod lnbits;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use tollkeeper::client::{ClientPayments, with_client_payments};
use tollkeeper::payment::{
    Clock, FixedRates, PaymentOrder, PaymentRequest, RailErrorKind, Rate, SettlementStatus,
    SettlementStream, SystemClock, Unit,
};
use tollkeeper::rails::lightning::lnbits::{LnbitsConfig, LnbitsHandler, LnbitsProcessor};
use tollkeeper::server::{ServerPayments, with_server_payments};
use tollkeeper::transport::{MessageChannel, Outbound, ServerTransport, memory};
use tollkeeper::wire::{Message, Payload, Request, Response, raw};
use tollkeeper::{Amount, ClientPubkey, PayOutcome, PaymentHandler, PaymentProcessor};

use lnbits::{Lnbits, Wallet};

const SOON: Duration = Duration::from_secs(20);

fn sats(value: u64) -> Amount {
    Amount::new(value, Unit::SATS).unwrap()
}

fn order(key: &str, amount: u64) -> PaymentOrder {
    PaymentOrder::new(
        format!("tollkeeper-{key}"),
        sats(amount),
        "one call of a tool".to_owned(),
        Duration::from_secs(600),
    )
}

async fn processor(lnbits: &Lnbits, wallet: &Wallet) -> LnbitsProcessor {
    let config = LnbitsConfig::new(&lnbits.url, &wallet.invoice_key).unwrap();
    LnbitsProcessor::connect(config).await.unwrap()
}

fn handler(lnbits: &Lnbits, wallet: &Wallet) -> LnbitsHandler {
    LnbitsHandler::new(&LnbitsConfig::new(&lnbits.url, &wallet.admin_key).unwrap()).unwrap()
}

async fn pay(handler: &LnbitsHandler, request: &PaymentRequest) -> PayOutcome {
    handler
        .handle(request, &CancellationToken::new())
        .await
        .unwrap()
}

/// The next hint about `request`.
async fn hint(stream: &mut SettlementStream, request: &PaymentRequest) {
    let waiting = async {
        loop {
            let notice = stream.recv().await.expect("the stream must not end");
            assert!(notice.settlement.is_none(), "a hint settles nothing");
            if notice.reference == request.reference {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, waiting)
        .await
        .expect("a hint must come");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_is_made_paid_looked_up_listed_and_hinted_at() {
    let Some(lnbits) = Lnbits::get() else { return };
    let (seller, buyer) = (lnbits.wallet("seller", 0), lnbits.wallet("buyer", 1000));
    let (processor, handler) = (processor(lnbits, &seller).await, handler(lnbits, &buyer));
    handler.check().await.unwrap();
    let mut hints = processor.settlements().unwrap();
    // The websocket needs a moment; what it misses is found by look-ups.
    tokio::time::sleep(Duration::from_secs(1)).await;

    let began = SystemClock.now();
    let request = processor
        .create_payment_required(&order("made", 21))
        .await
        .unwrap();
    assert_eq!(request.amount, sats(21));
    let stands = request.expires_at.unwrap().since(SystemClock.now());
    assert!((590..=601).contains(&stands.as_secs()), "{stands:?}");
    assert_eq!(
        processor.lookup_payment(&request).await.unwrap(),
        SettlementStatus::Pending
    );
    assert_eq!(
        processor.list_settled(began).await.unwrap().unwrap(),
        Vec::new()
    );
    let examined = handler.examine(&request).unwrap();
    assert_eq!(examined.payment_id, request.reference);
    assert_eq!(examined.description.as_deref(), Some("one call of a tool"));
    assert_eq!(
        handler.lookup_payment(&request).await.unwrap(),
        PayOutcome::Unknown,
        "never paid, and it still could be"
    );

    let PayOutcome::Paid(proof) = pay(&handler, &request).await else {
        panic!("must be paid")
    };
    assert_eq!(proof.reveal().len(), 64, "a preimage");
    hint(&mut hints, &request).await;
    let SettlementStatus::Settled(settlement) = processor.lookup_payment(&request).await.unwrap()
    else {
        panic!("must be settled")
    };
    assert_eq!(settlement.amount, sats(21));
    assert_ne!(settlement.reference, proof.reveal());
    let listed = processor.list_settled(began).await.unwrap().unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].reference, request.reference);
    assert_eq!(listed[0].settlement.as_ref(), Some(&settlement));
    let tomorrow = SystemClock.now().plus(Duration::from_secs(86_400));
    assert_eq!(
        processor.list_settled(tomorrow).await.unwrap().unwrap(),
        Vec::new(),
        "the time counts"
    );
    assert_eq!(
        handler.lookup_payment(&request).await.unwrap(),
        PayOutcome::Paid(proof)
    );
    assert_eq!(
        (lnbits.balance(&seller), lnbits.balance(&buyer)),
        (21_000, 979_000)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_paid_twice_and_a_clear_no_is_a_no() {
    let Some(lnbits) = Lnbits::get() else { return };
    let (seller, buyer) = (lnbits.wallet("seller", 0), lnbits.wallet("buyer", 100));
    let other = lnbits.wallet("other", 100);
    let processor = processor(lnbits, &seller).await;
    let request = processor
        .create_payment_required(&order("twice", 21))
        .await
        .unwrap();
    let paying = handler(lnbits, &buyer);
    let PayOutcome::Paid(proof) = pay(&paying, &request).await else {
        panic!("must be paid")
    };
    // LNbits refuses; its books say that this wallet has paid it, once.
    assert_eq!(pay(&paying, &request).await, PayOutcome::Paid(proof));
    // It refuses another wallet, too, whose books know nothing.
    assert_eq!(
        pay(&handler(lnbits, &other), &request).await,
        PayOutcome::Refused
    );
    let dear = processor
        .create_payment_required(&order("dear", 1000))
        .await
        .unwrap();
    assert_eq!(pay(&paying, &dear).await, PayOutcome::Refused);
    assert_eq!(
        processor.lookup_payment(&dear).await.unwrap(),
        SettlementStatus::Pending
    );
    assert_eq!(lnbits.balance(&seller), 21_000);
    assert_eq!(lnbits.balance(&buyer), 79_000);
    assert_eq!(lnbits.balance(&other), 100_000);

    // Several at once: one payment.
    let request = processor
        .create_payment_required(&order("race", 10))
        .await
        .unwrap();
    let paying = Arc::new(paying);
    let race: Vec<_> = (0..4)
        .map(|_| {
            let (paying, request) = (Arc::clone(&paying), request.clone());
            tokio::spawn(async move { pay(&paying, &request).await })
        })
        .collect();
    for racer in race {
        assert!(matches!(racer.await.unwrap(), PayOutcome::Paid(_)));
    }
    assert_eq!(lnbits.balance(&buyer), 69_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_may_pay_itself() {
    let Some(lnbits) = Lnbits::get() else { return };
    let wallet = lnbits.wallet("both", 100);
    let (processor, handler) = (processor(lnbits, &wallet).await, handler(lnbits, &wallet));
    let request = processor
        .create_payment_required(&order("self", 30))
        .await
        .unwrap();
    assert_eq!(
        handler.lookup_payment(&request).await.unwrap(),
        PayOutcome::Unknown,
        "its own invoice is no payment"
    );
    assert!(matches!(pay(&handler, &request).await, PayOutcome::Paid(_)));
    let status = processor.lookup_payment(&request).await.unwrap();
    let SettlementStatus::Settled(settlement) = status else {
        panic!("must be settled: {status:?}")
    };
    assert_eq!(settlement.amount, sats(30));
    assert_eq!(lnbits.balance(&wallet), 100_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_is_placed_again_is_one_invoice() {
    let Some(lnbits) = Lnbits::get() else { return };
    let seller = lnbits.wallet("seller", 0);
    let processor = processor(lnbits, &seller).await;
    let first = processor
        .create_payment_required(&order("again", 21))
        .await
        .unwrap();
    let other = processor
        .create_payment_required(&order("other", 21))
        .await
        .unwrap();
    let again = processor
        .create_payment_required(&order("again", 21))
        .await
        .unwrap();
    assert_eq!(first, again);
    assert_ne!(first.reference, other.reference);
    assert_eq!(lnbits.rows(&seller), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_invoice_is_looked_up_without_being_written_off() {
    let Some(lnbits) = Lnbits::get() else { return };
    let (seller, buyer) = (lnbits.wallet("seller", 0), lnbits.wallet("buyer", 100));
    let processor = processor(lnbits, &seller).await;
    let mut order = order("brief", 21);
    order.ttl = Duration::from_secs(1);
    let request = processor.create_payment_required(&order).await.unwrap();
    while request.expires_at.unwrap() > SystemClock.now() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for _ in 0..2 {
        assert_eq!(
            processor.lookup_payment(&request).await.unwrap(),
            SettlementStatus::Pending
        );
    }
    assert_eq!(
        lnbits.row(&seller, &request.reference)["status"],
        "pending",
        "a question about an expired invoice must not make LNbits give it up"
    );
    let handler = handler(lnbits, &buyer);
    assert!(!handler.can_handle(&request).await);
    let error = handler
        .handle(&request, &CancellationToken::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), RailErrorKind::Invalid);
    assert_eq!(lnbits.balance(&buyer), 100_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_a_hint() {
    let Some(lnbits) = Lnbits::get() else { return };
    let (seller, buyer) = (lnbits.wallet("seller", 0), lnbits.wallet("buyer", 100));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = free.local_addr().unwrap();
    drop(free);
    let config = LnbitsConfig::new(&lnbits.url, &seller.invoice_key)
        .unwrap()
        .webhook(listen, &format!("http://{listen}/hooks/"))
        .unwrap();
    let processor = LnbitsProcessor::connect(config).await.unwrap();
    let mut hints = processor.settlements().unwrap();
    let request = processor
        .create_payment_required(&order("hooked", 21))
        .await
        .unwrap();
    let row = lnbits.row(&seller, &request.reference);
    let webhook = row["webhook"].as_str().unwrap();
    assert!(webhook.starts_with(&format!("http://{listen}/hooks/")));
    assert!(!webhook.contains(&seller.invoice_key));
    assert!(matches!(
        pay(&handler(lnbits, &buyer), &request).await,
        PayOutcome::Paid(_)
    ));
    // One by the websocket, and one or two by the webhook.
    hint(&mut hints, &request).await;
    hint(&mut hints, &request).await;
    // What LNbits notes down of its call: that it was taken.
    let began = std::time::Instant::now();
    loop {
        let status = lnbits.row(&seller, &request.reference)["webhook_status"].take();
        if status == "204" {
            break;
        }
        assert!(began.elapsed() < SOON, "{status}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_wrong_are_told_at_the_start() {
    let Some(lnbits) = Lnbits::get() else { return };
    let (seller, buyer) = (lnbits.wallet("seller", 0), lnbits.wallet("buyer", 100));
    let wrong = "0123456789abcdef0123456789abcdef";
    let config = LnbitsConfig::new(&lnbits.url, wrong).unwrap();
    for error in [
        LnbitsProcessor::connect(config.clone()).await.unwrap_err(),
        LnbitsHandler::new(&config)
            .unwrap()
            .check()
            .await
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), tollkeeper::ErrorKind::Config);
        let text = error.to_string();
        assert!(text.contains("does not know this key"), "{text}");
        assert!(!text.contains(wrong));
    }
    // The invoice key cannot pay: said at the start, and if that was not asked, before any money could move.
    let config = LnbitsConfig::new(&lnbits.url, &buyer.invoice_key).unwrap();
    let handler = LnbitsHandler::new(&config).unwrap();
    let error = handler.check().await.unwrap_err().to_string();
    assert!(error.contains("admin key"), "{error}");
    let request = processor(lnbits, &seller)
        .await
        .create_payment_required(&order("keys", 21))
        .await
        .unwrap();
    let error = handler
        .handle(&request, &CancellationToken::new())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), RailErrorKind::Refused);
    assert_eq!(lnbits.balance(&buyer), 100_000);
    // The admin key can sell, and is warned of.
    let config = LnbitsConfig::new(&lnbits.url, &seller.admin_key).unwrap();
    assert!(LnbitsProcessor::connect(config).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_nobody_has_set_up_says_so() {
    let Some(lnbits) = Lnbits::fresh() else {
        return;
    };
    let config = LnbitsConfig::new(&lnbits.url, "0123456789abcdef0123456789abcdef").unwrap();
    let error = LnbitsProcessor::connect(config).await.unwrap_err();
    assert_eq!(error.kind(), tollkeeper::ErrorKind::Config);
    assert!(error.to_string().contains("/first_install"), "{error}");
}

/// A whole paid call, priced in dollars: through the gate, by the paying client, with the balances of both wallets before
/// and after.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_priced_in_dollars_moves_sats() {
    let Some(lnbits) = Lnbits::get() else { return };
    let (seller, buyer) = (lnbits.wallet("seller", 0), lnbits.wallet("buyer", 1000));
    let transport = memory::server();
    let line = transport.client(ClientPubkey::from_bytes([7; 32]));
    let rate = Rate::of_one_bitcoin("65000", &Unit::USD_CENTS, 2).unwrap();
    let payments = ServerPayments::builder()
        .price("tool:search=0.05 usd".parse().unwrap())
        .rates(Arc::new(FixedRates::new(vec![rate])))
        .rate_margin("1%".parse().unwrap())
        .processor(processor(lnbits, &seller).await)
        .build()
        .unwrap();
    let server = with_server_payments(transport, payments).await.unwrap();
    let serving = Arc::clone(&server);
    tokio::spawn(async move {
        while let Some(inbound) = serving.recv().await {
            if let Message::Request(request) = inbound.message {
                let payload = Payload::Result(raw(&json!({ "found": true })).unwrap());
                let response = Response {
                    id: request.id,
                    payload,
                };
                let _ = serving
                    .send(&inbound.origin.reply_to, Outbound::new(response))
                    .await;
            }
        }
    });
    let payments = ClientPayments::builder()
        .budget(sats(200))
        .handler(handler(lnbits, &buyer))
        .build()
        .unwrap();
    let client = with_client_payments(line, payments);
    let mut took = Duration::ZERO;
    for id in 1..=2 {
        let params = json!({ "name": "search", "arguments": { "id": id } });
        let request = Request::new(id, "tools/call", &params).unwrap();
        let began = std::time::Instant::now();
        let outcome = client.call(request, SOON).await.unwrap();
        took = began.elapsed();
        assert_eq!(
            outcome.response.result().unwrap().get(),
            r#"{"found":true}"#
        );
        // 0.05 usd at 65000 usd are 76.92 sats, with 1% 77.69.
        assert_eq!(outcome.paid, Some(sats(78)));
    }
    assert!(took < SOON);
    let request = Request::new(
        3,
        "tools/call",
        &json!({ "name": "search", "arguments": {} }),
    );
    let outcome = client.call(request.unwrap(), SOON).await.unwrap();
    assert!(outcome.response.error().is_some(), "above the budget");
    assert_eq!(
        (lnbits.balance(&seller), lnbits.balance(&buyer)),
        (156_000, 844_000)
    );
    client.close().await;
    server.shutdown(Duration::from_secs(2)).await;
}

/// The same with the binary on both sides of a relay: two commands, an address and a key each.
#[test]
fn the_binary_sells_and_buys() {
    let Some(lnbits) = Lnbits::get() else { return };
    let (seller, buyer) = (lnbits.wallet("seller", 0), lnbits.wallet("buyer", 100));
    let scratch = binary::Scratch::new();
    let relay = binary::Relay::start(&scratch);
    let mut serve = scratch.tollkeeper("seller");
    serve
        .env("LNBITS_URL", &lnbits.url)
        .env("LNBITS_INVOICE_KEY", &seller.invoice_key)
        .args(["serve", "--json", "--relay", &relay.url])
        .args(["--price", "tool:add=21 sat", "--"])
        .args(binary::mini_mcp());
    let server = binary::Running::start(serve);
    let ready = server.next().expect("serve must become ready");
    for (budget, code) in [("20 sats", 1), ("21 sats", 0)] {
        let output = scratch
            .tollkeeper("buyer")
            .env("LNBITS_URL", &lnbits.url)
            .env("LNBITS_ADMIN_KEY", &buyer.admin_key)
            .args([
                "call",
                ready["npub"].as_str().unwrap(),
                "tool:add",
                "a=1",
                "b=2",
            ])
            .args([
                "--relay",
                &relay.url,
                "--budget",
                budget,
                "--json",
                "--timeout",
                "30",
            ])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{budget}: {said}");
    }
    assert_eq!(
        (lnbits.balance(&seller), lnbits.balance(&buyer)),
        (21_000, 79_000)
    );
}
