//! Invoices: made as ordered or not at all, and settled by LNbits's own books only.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tollkeeper::payment::{
    Clock, PayReq, PaymentRequest, RailErrorKind, SettlementStatus, SystemClock, Timestamp, Unit,
};
use tollkeeper::rails::lightning::lnbits::{LnbitsConfig, LnbitsProcessor};
use tollkeeper::{ErrorKind, PaymentProcessor};

use super::fake_lnbits::{ADMIN_KEY, FakeLnbits, INVOICE_KEY, Prank, Question};
use super::http_service::Reply;
use super::{config, no_key_in, order, processor, sats, whole};

#[tokio::test]
async fn an_invoice_is_ordered_with_everything_and_made_as_ordered() {
    let lnbits = FakeLnbits::start().await;
    let processor = processor(&lnbits).await;
    assert!(processor.accepts(&Unit::SATS));
    assert!(!processor.accepts(&Unit::USD_CENTS));
    let request = processor
        .create_payment_required(&order("tollkeeper-1", 21))
        .await
        .unwrap();
    assert_eq!(request.amount, sats(21));
    assert_eq!(request.pmi.as_str(), "bitcoin-lightning-bolt11");
    let (_, asked) = lnbits
        .asked()
        .into_iter()
        .find(|(question, _)| *question == Question::Invoice)
        .unwrap();
    assert_eq!(asked.header("x-api-key"), Some(INVOICE_KEY));
    assert!(!asked.path.contains(INVOICE_KEY));
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(
        body,
        json!({
            "out": false, "unit": "sat", "amount": 21, "memo": "a search", "expiry": 600,
            "external_id": "tollkeeper-1", "extra": { "tollkeeper": "tollkeeper-1" },
        })
    );
    no_key_in(&format!("{processor:?}"));
}

#[tokio::test]
async fn an_invoice_other_than_ordered_does_not_leave() {
    type Lie = fn(&mut Value);
    let lies: [(&str, Lie); 7] = [
        ("another amount in the row", |row| {
            row["amount"] = 20_000.into()
        }),
        ("another hash", |row| {
            row["payment_hash"] = "ab".repeat(32).into()
        }),
        ("an outgoing row", |row| row["amount"] = (-21_000).into()),
        ("no invoice", |row| {
            row["bolt11"] = Value::Null;
            row["payment_request"] = "".into();
        }),
        ("no BOLT11", |row| row["bolt11"] = "lnbc1nonsense".into()),
        ("not a row", |row| *row = json!([1])),
        ("no hash", |row| *row = json!({ "amount": 21_000 })),
    ];
    let lnbits = FakeLnbits::start().await;
    let processor = processor(&lnbits).await;
    for (number, (what, lie)) in lies.into_iter().enumerate() {
        lnbits.lie(Question::Invoice, lie);
        // An answer that cannot be read is as good as lost: the invoice is searched for, and here not found.
        if matches!(what, "not a row" | "no hash") {
            lnbits.prank(
                Question::Page,
                Prank::Reply(Reply::Answer(200, r#"{"data":[],"total":0}"#.to_owned())),
            );
        }
        let error = processor
            .create_payment_required(&order(&format!("lie-{number}"), 21))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), RailErrorKind::Invalid, "{what}: {error}");
        no_key_in(&whole(&error));
        assert!(!whole(&error).contains("lnbc"), "{error}");
    }
    // The invoice itself is for more than was ordered.
    lnbits.lie(Question::Invoice, |_| {});
    let dear = processor
        .create_payment_required(&order("dear", 22))
        .await
        .unwrap();
    let text = dear.pay_req.as_str().to_owned();
    let hash = dear.reference.clone();
    lnbits.lie(Question::Invoice, move |row| {
        row["bolt11"] = text.clone().into();
        row["payment_hash"] = hash.clone().into();
    });
    let error = processor
        .create_payment_required(&order("cheap", 21))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("22000 msat"), "{error}");
    // And one of another network.
    lnbits.network(lightning_invoice::Currency::Regtest);
    let error = processor
        .create_payment_required(&order("regtest", 21))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("regtest"), "{error}");
}

/// The answer is lost after the invoice was made: it is found again, and none is made beside it.
#[tokio::test]
async fn a_lost_answer_is_found_by_the_order() {
    let cases = [
        Reply::Drop,
        Reply::Hang,
        Reply::Half("{}".to_owned()),
        Reply::Answer(502, "<html>bad gateway".to_owned()),
        Reply::Answer(200, "{}".to_owned()),
        Reply::Answer(520, "<html>".to_owned()),
        Reply::Huge(1024 * 1024),
    ];
    join_all(cases.into_iter().map(|reply| async move {
        let lnbits = FakeLnbits::start().await;
        let processor = processor(&lnbits).await;
        lnbits.prank(Question::Invoice, Prank::AfterDoing(reply.clone()));
        let request = processor
            .create_payment_required(&order("lost", 21))
            .await
            .unwrap_or_else(|error| panic!("{reply:?}: {error}"));
        assert_eq!(lnbits.row(&request.reference)["external_id"], "lost");
        assert_eq!(lnbits.invoices(), 1, "{reply:?}");
        let again = processor
            .create_payment_required(&order("lost", 21))
            .await
            .unwrap();
        assert_eq!(again, request);
        assert_eq!(lnbits.invoices(), 1);
    }))
    .await;
}

/// What LNbits cannot search for, it ignores: the right invoice is picked out by what it carries.
#[tokio::test]
async fn an_lnbits_that_cannot_search_does_not_hand_over_the_invoice_of_another() {
    let lnbits = FakeLnbits::start().await;
    let processor = processor(&lnbits).await;
    let other = processor
        .create_payment_required(&order("other", 21))
        .await
        .unwrap();
    let mut row = lnbits.row(&other.reference);
    row["external_id"] = Value::Null;
    lnbits.prank(Question::Invoice, Prank::Reply(Reply::Drop));
    let all = json!({ "data": [row], "total": 1 }).to_string();
    lnbits.prank(
        Question::Page,
        Prank::Reply(Reply::Answer(200, all.clone())),
    );
    let error = processor
        .create_payment_required(&order("mine", 21))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), RailErrorKind::Unknown);
    // But its own is known by `extra` alone.
    lnbits.prank(Question::Page, Prank::Reply(Reply::Answer(200, all)));
    let again = processor
        .create_payment_required(&order("other", 21))
        .await
        .unwrap();
    assert_eq!(again, other);
}

#[tokio::test]
async fn a_wallet_that_cannot_make_one_is_an_error_without_a_second_try() {
    for (reply, kind) in [
        (
            Reply::Answer(520, r#"{"detail":"Wallet does not have permission to create invoices.","status":"failed"}"#.to_owned()),
            RailErrorKind::Refused,
        ),
        (
            Reply::Answer(400, r#"{"detail":"Callback not allowed."}"#.to_owned()),
            RailErrorKind::Refused,
        ),
        (
            Reply::Answer(404, r#"{"detail":"Wallet not found."}"#.to_owned()),
            RailErrorKind::Refused,
        ),
        (Reply::Redirect(307, "/first_install".to_owned()), RailErrorKind::Refused),
    ] {
        let lnbits = FakeLnbits::start().await;
        let processor = processor(&lnbits).await;
        lnbits.prank(Question::Invoice, Prank::Reply(reply.clone()));
        let error = processor
            .create_payment_required(&order("no", 21))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{reply:?}: {error}");
        assert_eq!(lnbits.count(Question::Page), 0, "{reply:?}");
        assert_eq!(lnbits.invoices(), 0);
    }
}

async fn look_up(processor: &LnbitsProcessor, request: &PaymentRequest) -> SettlementStatus {
    processor.lookup_payment(request).await.unwrap()
}

#[tokio::test]
async fn a_payment_is_settled_when_the_books_say_so_and_all_of_it_fits() {
    let lnbits = FakeLnbits::start().await;
    let processor = processor(&lnbits).await;
    let request = processor
        .create_payment_required(&order("look", 21))
        .await
        .unwrap();
    let hash = request.reference.clone();
    assert_eq!(
        look_up(&processor, &request).await,
        SettlementStatus::Pending
    );

    for lie in [
        |looked: &mut Value| looked["paid"] = true.into(),
        |looked: &mut Value| looked["details"] = Value::Null,
        |looked: &mut Value| looked["details"]["status"] = "success".into(),
        |looked: &mut Value| looked["details"]["status"] = "maybe".into(),
        |looked: &mut Value| looked["details"]["status"] = Value::Null,
        |looked: &mut Value| looked["details"]["payment_hash"] = "ab".repeat(32).into(),
        |looked: &mut Value| looked["details"]["amount"] = "much".into(),
        |looked: &mut Value| *looked = Value::Null,
    ] {
        lnbits.lie(Question::Payment, lie);
        let error = processor.lookup_payment(&request).await.unwrap_err();
        assert_eq!(error.kind(), RailErrorKind::Invalid, "{error}");
    }
    for reply in [
        Reply::Drop,
        Reply::Hang,
        Reply::Answer(500, r#"{"detail":"Unexpected error!"}"#.to_owned()),
        Reply::Answer(404, r#"{"detail":"Payment does not exist."}"#.to_owned()),
        Reply::Answer(429, "slow down".to_owned()),
        Reply::Huge(1024 * 1024),
        Reply::Redirect(301, format!("https://evil.example.com/{INVOICE_KEY}")),
    ] {
        lnbits.prank(Question::Payment, Prank::Reply(reply.clone()));
        let error = processor.lookup_payment(&request).await.unwrap_err();
        assert_eq!(error.kind(), RailErrorKind::Unknown, "{reply:?}: {error}");
        no_key_in(&whole(&error));
    }

    lnbits.paid(&hash);
    let SettlementStatus::Settled(settlement) = look_up(&processor, &request).await else {
        panic!("it is paid")
    };
    assert_eq!(settlement.amount, sats(21));
    let preimage = lnbits.row(&hash)["preimage"].as_str().unwrap().to_owned();
    assert_ne!(settlement.reference, preimage, "no preimage on the books");
    // How much arrived is what the row says, in whole sats: the gate compares it with what was asked.
    for (msat, counted) in [(20_999, 20), (999, 0), (22_500, 22)] {
        lnbits.lie(Question::Payment, move |looked| {
            looked["details"]["amount"] = msat.into();
        });
        let SettlementStatus::Settled(settlement) = look_up(&processor, &request).await else {
            panic!("it is paid")
        };
        assert_eq!(settlement.amount, sats(counted));
    }
}

/// Asked about an invoice that has expired, LNbits gives it up. So it is asked in another way.
#[tokio::test]
async fn an_expired_invoice_is_looked_up_in_the_list_alone() {
    let lnbits = FakeLnbits::start().await;
    let processor = processor(&lnbits).await;
    let request = processor
        .create_payment_required(&order("old", 21))
        .await
        .unwrap();
    let hash = request.reference.clone();
    let mut old = PaymentRequest::new(
        request.pmi.clone(),
        request.amount.clone(),
        PayReq::new(request.pay_req.as_str()),
        hash.clone(),
    );
    old.expires_at = Some(SystemClock.now().minus(Duration::from_secs(1)));
    assert_eq!(look_up(&processor, &old).await, SettlementStatus::Pending);
    lnbits.paid(&hash);
    assert!(matches!(
        look_up(&processor, &old).await,
        SettlementStatus::Settled(_)
    ));
    assert_eq!(lnbits.count(Question::Payment), 0);
    // One that is in no list is unknown, not unpaid.
    old.reference = "ab".repeat(32);
    let error = processor.lookup_payment(&old).await.unwrap_err();
    assert_eq!(error.kind(), RailErrorKind::Unknown);
}

#[tokio::test]
async fn settlements_are_listed_page_by_page_up_to_a_limit() {
    let lnbits = FakeLnbits::start().await;
    let processor = processor(&lnbits).await;
    let now = SystemClock.now().as_secs();
    let row = |number: u64, amount: i64, status: &str, age: u64| {
        json!({
            "payment_hash": format!("{number:064x}"), "amount": amount, "status": status, "time": now - age,
        })
    };
    for number in 0..450 {
        lnbits.add(row(number, 1000, "success", number % 50));
    }
    lnbits.add(row(1000, 1000, "pending", 1));
    lnbits.add(row(1001, -1000, "success", 1));
    lnbits.add(row(1002, 1000, "success", 5000));
    let since = Timestamp::from_secs(now - 100);
    let listed = processor.list_settled(since).await.unwrap().unwrap();
    let mut references: Vec<&str> = listed
        .iter()
        .map(|notice| notice.reference.as_str())
        .collect();
    references.sort_unstable();
    references.dedup();
    assert_eq!(references.len(), 450);
    assert!(listed.iter().all(|notice| {
        notice
            .settlement
            .as_ref()
            .is_some_and(|settled| settled.amount == sats(1))
    }));
    assert_eq!(lnbits.count(Question::Page), 3);

    // One that ignores what was asked for is read no further than the limit, and believed no further than it says.
    for number in 2000..5000 {
        lnbits.add(row(number, 1000, "success", 0));
    }
    let all = json!({ "data": (0..200).map(|n| row(n, 1000, "failed", 0)).collect::<Vec<_>>() });
    for _ in 0..20 {
        lnbits.prank(
            Question::Page,
            Prank::Reply(Reply::Answer(200, all.to_string())),
        );
    }
    let before = lnbits.count(Question::Page);
    assert!(
        processor
            .list_settled(since)
            .await
            .unwrap()
            .unwrap()
            .is_empty()
    );
    assert_eq!(lnbits.count(Question::Page) - before, 10);
}

#[tokio::test]
async fn the_start_says_what_is_wrong_and_waits_for_nobody() {
    for (reply, said) in [
        (
            Reply::Answer(404, r#"{"detail":"Wallet not found."}"#.to_owned()),
            "does not know this key",
        ),
        (
            Reply::Answer(401, r#"{"detail":"No Api Key provided."}"#.to_owned()),
            "does not know this key",
        ),
        (
            Reply::Redirect(307, "/first_install".to_owned()),
            "/first_install",
        ),
        (
            Reply::Redirect(301, format!("https://x.example.com/?{INVOICE_KEY}")),
            "redirects",
        ),
        (
            Reply::Answer(200, "<html>a parked domain</html>".to_owned()),
            "not one of LNbits",
        ),
        (
            Reply::Answer(200, r#"{"name":"x"}"#.to_owned()),
            "not one of LNbits",
        ),
        (Reply::Answer(404, "<html>".to_owned()), "status 404"),
    ] {
        let lnbits = FakeLnbits::start().await;
        lnbits.prank(Question::Wallet, Prank::Reply(reply));
        let error = LnbitsProcessor::connect(config(&lnbits, INVOICE_KEY))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(said), "{error}");
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
        no_key_in(&whole(&error));
    }
    // Silence may pass: what was paid before is served meanwhile.
    for reply in [Reply::Drop, Reply::Hang, Reply::Answer(503, String::new())] {
        let lnbits = FakeLnbits::start().await;
        lnbits.prank(Question::Wallet, Prank::Reply(reply));
        let processor = processor(&lnbits).await;
        assert!(
            processor
                .create_payment_required(&order("later", 21))
                .await
                .is_ok()
        );
    }
    let nobody = LnbitsConfig::new("http://127.0.0.1:1", INVOICE_KEY).unwrap();
    let processor = LnbitsProcessor::connect(nobody).await.unwrap();
    let error = processor
        .create_payment_required(&order("never", 21))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), RailErrorKind::Unknown);
    no_key_in(&whole(&error));
    // A key that can spend sells as well, and is warned of in the log.
    let lnbits = FakeLnbits::start().await;
    assert!(
        LnbitsProcessor::connect(config(&lnbits, ADMIN_KEY))
            .await
            .is_ok()
    );
}
