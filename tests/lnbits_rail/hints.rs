//! What comes unasked: by websocket and by webhook. It is a reason to look, whatever it says.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tollkeeper::PaymentProcessor;
use tollkeeper::payment::{SettlementStatus, SettlementStream};
use tollkeeper::rails::lightning::lnbits::LnbitsProcessor;

use super::fake_lnbits::{FakeLnbits, INVOICE_KEY, Prank, Question};
use super::http_service::Reply;
use super::{ANSWER, config, order, processor};

const SOON: Duration = Duration::from_secs(10);

async fn next(stream: &mut SettlementStream) -> String {
    let notice = tokio::time::timeout(SOON, stream.recv())
        .await
        .expect("a hint must come")
        .expect("the stream must not end");
    assert_eq!(notice.settlement, None, "a hint settles nothing");
    notice.reference
}

/// Pushes until it is heard: what is said on a websocket that nobody takes is lost.
async fn heard(lnbits: &FakeLnbits, stream: &mut SettlementStream, reference: &str) {
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < SOON * 2, "it must listen");
        lnbits.push(reference);
        let within = Duration::from_millis(100);
        if let Ok(Some(notice)) = tokio::time::timeout(within, stream.recv()).await {
            assert_eq!(notice.reference, reference);
            return;
        }
    }
}

async fn listening(lnbits: &FakeLnbits) {
    let began = Instant::now();
    while lnbits.listeners() == 0 {
        assert!(began.elapsed() < SOON, "it must listen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_push_is_a_hint_whatever_it_claims() {
    let lnbits = FakeLnbits::start().await;
    let processor = processor(&lnbits).await;
    let mut hints = processor.settlements().unwrap();
    assert!(processor.settlements().is_none(), "there is one stream");
    let request = processor
        .create_payment_required(&order("pushed", 21))
        .await
        .unwrap();
    listening(&lnbits).await;
    // Early, forged, repeated; nonsense between.
    lnbits.push_text("nonsense");
    lnbits.push_text(&json!({ "payment": { "payment_hash": "short", "amount": 1 } }).to_string());
    lnbits.push_text(&"[".repeat(100_000));
    lnbits.push_text(
        &json!({ "payment": { "payment_hash": request.reference, "amount": 1, "status": "success" } })
            .to_string(),
    );
    assert_eq!(next(&mut hints).await, request.reference);
    assert_eq!(
        processor.lookup_payment(&request).await.unwrap(),
        SettlementStatus::Pending,
        "the look-up knows better"
    );
    lnbits.paid(&request.reference);
    lnbits.push(&request.reference);
    lnbits.push(&request.reference);
    assert_eq!(next(&mut hints).await, request.reference);
    assert_eq!(next(&mut hints).await, request.reference);
    // It stays open for longer than an answer may take.
    tokio::time::sleep(ANSWER * 3).await;
    lnbits.push(&request.reference);
    assert_eq!(next(&mut hints).await, request.reference);
    assert_eq!(lnbits.count(Question::Websocket), 1);
    // The key is in the address of the websocket and nowhere that could be printed.
    assert!(
        lnbits
            .asked()
            .iter()
            .any(|(_, asked)| asked.path.ends_with(INVOICE_KEY))
    );
}

#[tokio::test]
async fn a_websocket_that_ends_is_opened_again() {
    let lnbits = FakeLnbits::start().await;
    for reply in [
        Reply::Answer(403, String::new()),
        Reply::Upgrade("wrong".to_owned()),
    ] {
        lnbits.prank(Question::Websocket, Prank::Reply(reply));
    }
    let processor = processor(&lnbits).await;
    let mut hints = processor.settlements().unwrap();
    let request = processor
        .create_payment_required(&order("again", 21))
        .await
        .unwrap();
    heard(&lnbits, &mut hints, &request.reference).await;
    assert_eq!(lnbits.count(Question::Websocket), 3);
    lnbits.push_text("end");
    let began = Instant::now();
    while lnbits.count(Question::Websocket) < 4 {
        assert!(began.elapsed() < SOON * 2, "it must be opened again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    heard(&lnbits, &mut hints, &request.reference).await;
    drop(processor);
    let began = Instant::now();
    while lnbits.listeners() > 0 {
        assert!(began.elapsed() < SOON, "it must end with the processor");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a webhook was answered with.
async fn call(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The other side may have had enough before this is sent.
    let _ = stream.write_all(request).await;
    let mut answer = String::new();
    let _ = tokio::time::timeout(SOON, stream.read_to_string(&mut answer))
        .await
        .expect("it must end");
    answer
}

fn post(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[tokio::test]
async fn a_webhook_is_a_hint_from_whoever_knows_the_address() {
    let lnbits = FakeLnbits::start().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let config = config(&lnbits, INVOICE_KEY)
        .webhook(address, "https://shop.example.com/pay/")
        .unwrap();
    let processor = LnbitsProcessor::connect(config).await.unwrap();
    let mut hints = processor.settlements().unwrap();
    let request = processor
        .create_payment_required(&order("hooked", 21))
        .await
        .unwrap();
    let row = lnbits.row(&request.reference);
    let url = row["webhook"].as_str().unwrap();
    let token = url.strip_prefix("https://shop.example.com/pay/").unwrap();
    assert_eq!(token.len(), 32);
    assert!(!url.contains(INVOICE_KEY));

    // As LNbits sends it: a JSON string that holds JSON. Twice, and before anything was paid.
    let body = serde_json::to_string(&row.to_string()).unwrap();
    for path in [format!("/pay/{token}"), format!("/{token}")] {
        let answer = call(address, &post(&path, &body)).await;
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
        assert_eq!(next(&mut hints).await, request.reference);
    }
    assert_eq!(
        processor.lookup_payment(&request).await.unwrap(),
        SettlementStatus::Pending
    );

    let good = format!("/{token}");
    for (what, sent) in [
        (
            "another address",
            post("/00112233445566778899aabbccddeeff", &body),
        ),
        ("no address", post("/", &body)),
        ("a GET", format!("GET {good} HTTP/1.1\r\n\r\n").into_bytes()),
        ("no JSON", post(&good, "paid!")),
        ("no payment", post(&good, "{}")),
        ("too long", post(&good, &" ".repeat(64 * 1024 + 1))),
        ("an endless head", vec![b'x'; 64 * 1024]),
        ("binary", vec![0xff; 100]),
        (
            "chunks",
            format!("POST {good} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
                .into_bytes(),
        ),
    ] {
        let mut sent = sent;
        sent.extend_from_slice(b"\r\n\r\n");
        let answer = call(address, &sent).await;
        // An answer may be lost where more was sent than was read.
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 404"),
            "{what}: {answer}"
        );
    }
    assert!(hints.try_recv().is_err(), "none of these is a hint");

    // Callers who never finish hold their places for a while, and then the next ones come in.
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let answer = call(address, &post(&good, &body)).await;
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    assert_eq!(next(&mut hints).await, request.reference);

    drop(processor);
    let began = Instant::now();
    while TcpStream::connect(address).await.is_ok() {
        assert!(began.elapsed() < SOON, "it must end with the processor");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The address is the same after a restart, for invoices that are still open, and another for another wallet.
#[tokio::test]
async fn the_address_of_the_webhook_outlives_the_process() {
    let lnbits = FakeLnbits::start().await;
    let mut urls = Vec::new();
    for _ in 0..2 {
        let config = config(&lnbits, INVOICE_KEY)
            .webhook("127.0.0.1:0".parse().unwrap(), "https://shop.example.com")
            .unwrap();
        let processor = LnbitsProcessor::connect(config).await.unwrap();
        let request = processor
            .create_payment_required(&order(&format!("{}", urls.len()), 21))
            .await
            .unwrap();
        urls.push(lnbits.row(&request.reference)["webhook"].clone());
    }
    assert_eq!(urls[0], urls[1]);
}

#[tokio::test]
async fn a_place_where_nothing_can_listen_is_told_at_the_start() {
    let lnbits = FakeLnbits::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = config(&lnbits, INVOICE_KEY)
        .webhook(taken.local_addr().unwrap(), "https://shop.example.com")
        .unwrap();
    let error = LnbitsProcessor::connect(config).await.unwrap_err();
    assert_eq!(error.kind(), tollkeeper::ErrorKind::Config);
    assert!(error.to_string().contains("webhook"), "{error}");
}
