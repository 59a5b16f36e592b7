//! Receipts: what is in the file, when, and who can read it.

use std::time::Duration;

use serde_json::json;
use tollkeeper::client::ledger::AnswerState;
use tollkeeper::client::receipt::{Receipt, ReceiptFolder};
use tollkeeper::testing::HandlerScript;

use super::stage::Stage;

fn read(folder: &tempfile::TempDir) -> Vec<Receipt> {
    ReceiptFolder::new(folder.path().join("receipts"))
        .files()
        .iter()
        .map(|file| ReceiptFolder::read(file).unwrap())
        .collect()
}

#[tokio::test]
async fn each_payment_leaves_one_receipt_that_grows() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("receipts");
    let stage = Stage::with(|payments| payments.receipts(ReceiptFolder::new(&place)));
    stage.wallet.script(HandlerScript::Refuse);
    stage.bargain(1, 5, "1").await;
    assert!(read(&folder).is_empty(), "nothing was paid");

    stage.wallet.script(HandlerScript::Pay);
    let call = stage.call(2);
    let victim = stage.victim().await;
    stage.demand(&victim, 7, "2").await;
    let receipts = loop {
        let receipts = read(&folder);
        if !receipts.is_empty() {
            break receipts;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let receipt = &receipts[0];
    assert_eq!(
        (receipt.amount, receipt.unit.as_str(), receipt.answer),
        (7, "sats", AnswerState::Waiting)
    );
    assert_eq!(receipt.capability, "tool:add");
    assert_eq!(receipt.payment_id, "2");
    assert_eq!(receipt.proof.as_deref(), Some("scripted"));
    let request = receipt.request.as_ref().unwrap().get();
    assert!(request.contains("tools/call"), "{request}");

    let accepted = json!({"amount": 7, "pmi": "scripted"});
    let method = "notifications/payment_accepted";
    stage
        .server
        .notify(&victim, method, &accepted)
        .await
        .unwrap();
    stage.answer(&victim).await;
    call.await.unwrap();
    loop {
        let receipts = read(&folder);
        assert_eq!(receipts.len(), 1);
        if receipts[0].answer == AnswerState::Result {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode =
            |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&place), 0o700);
        for file in ReceiptFolder::new(&place).files() {
            assert_eq!(mode(&file), 0o600);
        }
    }
}

#[tokio::test]
async fn a_copy_to_hand_out_says_what_was_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("receipts");
    let stage = Stage::with(|payments| payments.receipts(ReceiptFolder::new(&place)));
    assert!(stage.bargain(1, 7, "1").await.paid.is_some());
    let receipt = loop {
        if let Some(receipt) = read(&folder).pop() {
            break receipt;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let copy = receipt.clone().redacted(false, false);
    assert!(copy.proof.is_none() && copy.request.is_none());
    assert!(copy.redacted.contains(&"proof".to_owned()));
    assert!(copy.redacted.contains(&"request".to_owned()));
    let text = serde_json::to_string(&copy).unwrap();
    assert!(!text.contains("\"scripted\",\"redacted") && !text.contains("arguments"));
    let whole = receipt.redacted(true, true);
    assert!(whole.proof.is_some() && whole.request.is_some() && whole.redacted.is_empty());
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_stops_no_payment() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("receipts");
    std::fs::write(&place, "in the way").unwrap();
    let stage = Stage::with(|payments| payments.receipts(ReceiptFolder::new(&place)));
    let outcome = stage.bargain(1, 7, "1").await;
    assert!(outcome.paid.is_some() && outcome.response.result().is_some());
}
