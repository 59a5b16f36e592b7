//! Payments: made once, "paid" with a proof, "refused" when it is certain, and unknown otherwise.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tollkeeper::payment::{PayReq, PaymentRequest, RailError, RailErrorKind};
use tollkeeper::rails::lightning::lnbits::{LnbitsConfig, LnbitsHandler};
use tollkeeper::{PayOutcome, PaymentHandler};

use super::fake_lnbits::{ADMIN_KEY, FakeLnbits, INVOICE_KEY, Prank, Question};
use super::http_service::Reply;
use super::{config, handler, no_key_in, sats, whole};

/// What a server asks for.
fn demand(text: &str, amount: u64) -> PaymentRequest {
    PaymentRequest::new(
        "bitcoin-lightning-bolt11".parse().unwrap(),
        sats(amount),
        PayReq::new(text),
        "",
    )
}

async fn pay(handler: &LnbitsHandler, request: &PaymentRequest) -> Result<PayOutcome, RailError> {
    handler.handle(request, &CancellationToken::new()).await
}

fn is_paid(outcome: &Result<PayOutcome, RailError>) -> bool {
    matches!(outcome, Ok(PayOutcome::Paid(proof)) if proof.reveal().len() == 64)
}

#[tokio::test]
async fn an_invoice_is_paid_once_with_its_preimage_as_proof() {
    let lnbits = FakeLnbits::start().await;
    let handler = handler(&lnbits);
    handler.check().await.unwrap();
    let (hash, text) = lnbits.invoice_of_another(21, 600);
    let request = demand(&text, 21);
    assert_eq!(handler.examine(&request).unwrap().payment_id, hash);
    assert!(is_paid(&pay(&handler, &request).await));
    let (_, asked) = lnbits
        .asked()
        .into_iter()
        .find(|(question, _)| *question == Question::Pay)
        .unwrap();
    assert_eq!(asked.header("x-api-key"), Some(ADMIN_KEY));
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(body, json!({ "out": true, "bolt11": text }));
    // Asked again, by whomever: the books say that it is paid.
    assert!(is_paid(&pay(&handler, &request).await));
    assert!(is_paid(&handler.lookup_payment(&request).await));
    assert_eq!(lnbits.payments(), 1);
    no_key_in(&format!("{handler:?}"));
}

#[tokio::test]
async fn what_is_not_as_it_is_said_to_be_reaches_no_wallet() {
    let lnbits = FakeLnbits::start().await;
    let handler = handler(&lnbits);
    let (_, text) = lnbits.invoice_of_another(21, 600);
    let (_, old) = lnbits.invoice_of_another(21, 0);
    for (request, what) in [
        (demand(&text, 20), "less than the invoice asks for"),
        (demand(&text, 22), "more than the invoice asks for"),
        (demand("lnbc1nonsense", 21), "no invoice"),
        (demand(&old, 21), "expired"),
    ] {
        assert!(!handler.can_handle(&request).await, "{what}");
        let error = pay(&handler, &request).await.unwrap_err();
        assert_eq!(error.kind(), RailErrorKind::Invalid, "{what}");
    }
    assert!(lnbits.asked().is_empty());
}

/// The answer to a payment is lost, after it was made. The books know.
#[tokio::test]
async fn a_lost_answer_is_resolved_by_the_books() {
    let cases = [
        Reply::Drop,
        Reply::Hang,
        Reply::Half("{}".to_owned()),
        Reply::Huge(1024 * 1024),
        Reply::Answer(200, "<html>".to_owned()),
        Reply::Answer(502, String::new()),
        Reply::Answer(520, "<html>".to_owned()),
        Reply::Answer(
            520,
            r#"{"detail":"Payment already paid.","status":"success"}"#.to_owned(),
        ),
        // Even a clear no: the one that was asked may not be the one that paid.
        Reply::Answer(
            520,
            r#"{"detail":"Internal invoice already paid.","status":"failed"}"#.to_owned(),
        ),
        Reply::Answer(400, r#"{"detail":"Payment already exists"}"#.to_owned()),
    ];
    join_all(cases.into_iter().map(|reply| async move {
        let lnbits = FakeLnbits::start().await;
        let handler = handler(&lnbits);
        let (_, text) = lnbits.invoice_of_another(21, 600);
        lnbits.prank(Question::Pay, Prank::AfterDoing(reply.clone()));
        // The first look into the books fails as well.
        lnbits.prank(Question::Payment, Prank::Reply(Reply::Drop));
        let outcome = pay(&handler, &demand(&text, 21)).await;
        assert!(is_paid(&outcome), "{reply:?}: {outcome:?}");
        assert_eq!(lnbits.payments(), 1, "{reply:?}");
        assert_eq!(lnbits.count(Question::Pay), 1, "{reply:?}");
    }))
    .await;
}

/// The request itself is lost, or nobody knows whether it was: nothing is in the books, and nothing is certain.
#[tokio::test]
async fn what_was_never_booked_is_unknown_unless_lnbits_said_no() {
    let cases = [
        (Reply::Drop, false),
        (Reply::Hang, false),
        (Reply::Answer(502, String::new()), false),
        (
            Reply::Answer(500, r#"{"detail":"Unexpected error!"}"#.to_owned()),
            false,
        ),
        (
            Reply::Answer(520, r#"{"detail":"x","status":"pending"}"#.to_owned()),
            false,
        ),
        (Reply::Answer(201, "{}".to_owned()), false),
        (
            Reply::Answer(
                520,
                r#"{"detail":"Insufficient balance.","status":"failed"}"#.to_owned(),
            ),
            true,
        ),
        (
            Reply::Answer(400, r#"{"detail":"Missig invoice amount."}"#.to_owned()),
            true,
        ),
    ];
    join_all(cases.into_iter().map(|(reply, refused)| async move {
        let lnbits = FakeLnbits::start().await;
        let handler = handler(&lnbits);
        let (_, text) = lnbits.invoice_of_another(21, 600);
        lnbits.prank(Question::Pay, Prank::Reply(reply.clone()));
        let outcome = pay(&handler, &demand(&text, 21)).await.unwrap();
        let expected = if refused {
            PayOutcome::Refused
        } else {
            PayOutcome::Unknown
        };
        assert_eq!(outcome, expected, "{reply:?}");
        assert_eq!(lnbits.count(Question::Pay), 1, "never a second attempt");
        assert_eq!(
            handler.lookup_payment(&demand(&text, 21)).await.unwrap(),
            PayOutcome::Unknown,
            "it could still be on its way, as long as the invoice can be paid"
        );
    }))
    .await;
}

#[tokio::test]
async fn a_no_that_is_certain_is_one_without_looking() {
    let lnbits = FakeLnbits::start().await;
    let (_, text) = lnbits.invoice_of_another(21, 600);
    let request = demand(&text, 21);
    let unable = LnbitsHandler::new(&config(&lnbits, INVOICE_KEY)).unwrap();
    let error = pay(&unable, &request).await.unwrap_err();
    assert_eq!(error.kind(), RailErrorKind::Refused);
    assert!(error.to_string().contains("admin key"), "{error}");
    let unknown = LnbitsHandler::new(&config(&lnbits, "00112233")).unwrap();
    let error = pay(&unknown, &request).await.unwrap_err();
    assert_eq!(error.kind(), RailErrorKind::Refused);
    assert!(!whole(&error).contains("00112233"), "{error}");
    assert_eq!(lnbits.count(Question::Payment), 0);
    // Turned away unread.
    lnbits.prank(
        Question::Pay,
        Prank::Reply(Reply::Answer(429, "slow down".to_owned())),
    );
    let busy = super::handler(&lnbits);
    let error = pay(&busy, &request).await.unwrap_err();
    assert_eq!(error.kind(), RailErrorKind::Refused);
    assert_eq!(lnbits.count(Question::Payment), 0);
    // Nobody there: nothing was sent.
    let nobody = LnbitsConfig::new("http://127.0.0.1:1", ADMIN_KEY).unwrap();
    let nobody = LnbitsHandler::new(&nobody).unwrap();
    assert!(nobody.check().await.is_ok(), "silence may pass");
    let error = pay(&nobody, &request).await.unwrap_err();
    assert_eq!(error.kind(), RailErrorKind::Refused);
    let error = nobody.lookup_payment(&request).await.unwrap_err();
    assert_eq!(error.kind(), RailErrorKind::Unknown);
    no_key_in(&whole(&error));
    assert_eq!(lnbits.payments(), 0);
}

/// LNbits waits some seconds for its node, and then says "pending".
#[tokio::test]
async fn a_payment_under_way_is_asked_for_until_it_ends() {
    for (state, paid) in [("success", true), ("failed", false)] {
        let lnbits = FakeLnbits::start().await;
        let handler = handler(&lnbits);
        let (_, text) = lnbits.invoice_of_another(21, 600);
        lnbits.payments_end("pending");
        let request = demand(&text, 21);
        let outcome = {
            let paying = pay(&handler, &request);
            tokio::pin!(paying);
            loop {
                tokio::select! {
                    outcome = &mut paying => break outcome.unwrap(),
                    () = tokio::time::sleep(Duration::from_millis(10)) => {
                        if lnbits.count(Question::Payment) >= 1 {
                            lnbits.settle_payments(state);
                        }
                    }
                }
            }
        };
        match (paid, &outcome) {
            // The fake books show no preimage for a payment that ended later: paid, without a proof.
            (true, PayOutcome::Paid(proof)) => assert_eq!(proof.reveal(), ""),
            (false, PayOutcome::Refused) => {}
            _ => panic!("{state}: {outcome:?}"),
        }
    }
    // One that does not end is unknown.
    let lnbits = FakeLnbits::start().await;
    let handler = handler(&lnbits);
    let (_, text) = lnbits.invoice_of_another(21, 600);
    lnbits.payments_end("pending");
    let request = demand(&text, 21);
    assert_eq!(pay(&handler, &request).await.unwrap(), PayOutcome::Unknown);
    // LNbits refuses a second attempt, and it stays unknown.
    assert_eq!(pay(&handler, &request).await.unwrap(), PayOutcome::Unknown);
    assert_eq!(
        handler.lookup_payment(&request).await.unwrap(),
        PayOutcome::Unknown
    );
    lnbits.settle_payments("failed");
    assert_eq!(
        handler.lookup_payment(&request).await.unwrap(),
        PayOutcome::Refused
    );
    assert_eq!(lnbits.payments(), 1);
}

#[tokio::test]
async fn a_payment_that_failed_is_refused() {
    let lnbits = FakeLnbits::start().await;
    let handler = handler(&lnbits);
    lnbits.payments_end("failed");
    let (_, text) = lnbits.invoice_of_another(21, 600);
    let outcome = pay(&handler, &demand(&text, 21)).await.unwrap();
    assert_eq!(outcome, PayOutcome::Refused);
}

#[tokio::test]
async fn a_proof_that_is_none_is_not_believed() {
    let lnbits = FakeLnbits::start().await;
    let handler = handler(&lnbits);
    let (_, text) = lnbits.invoice_of_another(21, 600);
    lnbits.lie(Question::Pay, |row| {
        row["preimage"] = "01".repeat(32).into()
    });
    let request = demand(&text, 21);
    assert_eq!(pay(&handler, &request).await.unwrap(), PayOutcome::Unknown);
    // The answer is about another payment: the books are asked about this one.
    let (_, text) = lnbits.invoice_of_another(22, 600);
    lnbits.lie(Question::Pay, |row| {
        row["payment_hash"] = "ab".repeat(32).into()
    });
    assert!(is_paid(&pay(&handler, &demand(&text, 22)).await));
    // And so it is if the answer is about money that comes in.
    let (_, text) = lnbits.invoice_of_another(23, 600);
    lnbits.lie(Question::Pay, |row| row["amount"] = 23_000.into());
    assert!(is_paid(&pay(&handler, &demand(&text, 23)).await));
    assert_eq!(lnbits.payments(), 3);
}

#[tokio::test]
async fn whoever_is_told_to_stop_stops_without_claiming_anything() {
    let lnbits = FakeLnbits::start().await;
    let handler = handler(&lnbits);
    let (_, text) = lnbits.invoice_of_another(21, 600);
    let request = demand(&text, 21);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let error = handler.handle(&request, &cancel).await.unwrap_err();
    assert_eq!(error.kind(), RailErrorKind::Refused);
    assert!(lnbits.asked().is_empty(), "not even begun");

    lnbits.payments_end("pending");
    let cancel = CancellationToken::new();
    let paying = handler.handle(&request, &cancel);
    tokio::pin!(paying);
    let outcome = loop {
        tokio::select! {
            outcome = &mut paying => break outcome.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(10)) => {
                if lnbits.count(Question::Payment) >= 1 {
                    cancel.cancel();
                }
            }
        }
    };
    assert_eq!(outcome, PayOutcome::Unknown);
}
