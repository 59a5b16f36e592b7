//! What only a file can show: other processes, death, damage.

use std::sync::Arc;

use super::super::{AnswerState, AttemptFilter, AttemptState, BuyerLedger, NewAttempt, Settled};
use super::SqliteBuyerLedger;
use crate::client::event::DeclineReason;
use crate::client::policy::{Case, Facts, Policy};
use crate::payment::{
    Clock, FAKE, InvocationIdentity, PayReq, PaymentRequest, RequestEventId, ServerPubkey,
    SystemClock,
};

fn attempt(n: u8, amount: u64) -> NewAttempt {
    let amount = format!("{amount} sats").parse().unwrap();
    let id = format!("payment {n}");
    let payment = PaymentRequest::new(FAKE.parse().unwrap(), amount, PayReq::new("x"), id);
    NewAttempt::new(
        RequestEventId::from_bytes([n; 32]),
        ServerPubkey::from_bytes([1; 32]),
        InvocationIdentity::from_bytes([n; 32]),
        "tool:add",
        payment,
        SystemClock.now(),
    )
}

fn case(new: &NewAttempt, policy: &Policy) -> Case {
    let amount = new.payment.amount.clone();
    let facts = Facts::new(new.server, "tool:add", new.call, amount, new.at);
    Case::new(Arc::new(policy.clone()), facts)
}

async fn reserve(
    ledger: &SqliteBuyerLedger,
    new: &NewAttempt,
    policy: &Policy,
) -> Result<super::AttemptId, DeclineReason> {
    ledger
        .reserve(new.clone(), case(new, policy))
        .await
        .unwrap()
}

#[tokio::test]
async fn two_processes_share_one_limit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("buyer.db");
    let mut policy = Policy::default();
    policy.limits.total = Some("50 sats".parse().unwrap());
    let ledgers = [0, 1].map(|_| Arc::new(SqliteBuyerLedger::new(&path).unwrap()));
    let asking: Vec<_> = (0..20u8)
        .map(|n| {
            let (ledger, policy) = (Arc::clone(&ledgers[usize::from(n % 2)]), policy.clone());
            tokio::spawn(async move { reserve(&ledger, &attempt(n, 10), &policy).await.is_ok() })
        })
        .collect();
    let mut granted = 0;
    for asked in asking {
        granted += usize::from(asked.await.unwrap());
    }
    assert_eq!(granted, 5);
}

#[tokio::test]
async fn what_dies_with_its_process_is_unknown_and_what_lives_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("buyer.db");
    let policy = Policy::default();
    let (dying, living) = (
        SqliteBuyerLedger::new(&path).unwrap(),
        SqliteBuyerLedger::new(&path).unwrap(),
    );
    let reserved = reserve(&dying, &attempt(1, 5), &policy).await.unwrap();
    let paid = reserve(&dying, &attempt(2, 5), &policy).await.unwrap();
    let end = Settled::new(AttemptState::Paid, "tested");
    dying.settle(paid, end, SystemClock.now()).await.unwrap();
    let mine = reserve(&living, &attempt(3, 5), &policy).await.unwrap();

    let state = async |ledger: &SqliteBuyerLedger, id| {
        let read = ledger.list(&AttemptFilter::one(id)).await.unwrap();
        (read[0].state, read[0].answer)
    };
    // As long as it lives its payment is under way, for others too.
    assert_eq!(state(&living, reserved).await.0, AttemptState::Reserved);
    let mut same = attempt(1, 6);
    same.call = RequestEventId::from_bytes([99; 32]);
    same.payment.reference = "another".to_owned();
    let refused = reserve(&living, &same, &policy).await.unwrap_err();
    assert!(matches!(refused, DeclineReason::UnderWay(_)), "{refused:?}");

    drop(dying);
    let refused = reserve(&living, &same, &policy).await.unwrap_err();
    assert!(
        matches!(refused, DeclineReason::EarlierUnknown(_)),
        "{refused:?}"
    );
    assert_eq!(
        state(&living, reserved).await,
        (AttemptState::Unknown, AnswerState::Interrupted)
    );
    assert_eq!(
        state(&living, paid).await,
        (AttemptState::Paid, AnswerState::Interrupted)
    );
    assert_eq!(
        state(&living, mine).await,
        (AttemptState::Reserved, AnswerState::Waiting)
    );
}

#[tokio::test]
async fn looking_at_nothing_makes_nothing_and_the_file_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("buyer.db");
    let ledger = SqliteBuyerLedger::new(&path).unwrap();
    assert!(!ledger.has_books() && !path.exists());
    reserve(&ledger, &attempt(1, 5), &Policy::default())
        .await
        .unwrap();
    assert!(ledger.has_books());
    #[cfg(unix)]
    for file in std::fs::read_dir(folder.path()).unwrap() {
        use std::os::unix::fs::PermissionsExt;
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", file.file_name());
    }
    drop(ledger);
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    assert_eq!(left, ["buyer.db"], "nothing is left beside the books");
}

#[tokio::test]
async fn books_of_former_versions_are_carried_over_with_every_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("buyer.db");
    let now = SystemClock.now();
    let rows = {
        let ledger = SqliteBuyerLedger::new(&path).unwrap();
        for n in 1..=3 {
            let id = reserve(&ledger, &attempt(n, 5), &Policy::default())
                .await
                .unwrap();
            let end = Settled::new(AttemptState::Unknown, "lost");
            ledger.settle(id, end, now).await.unwrap();
            let answered = super::Heard::Ended(AnswerState::Error, None);
            ledger.note(id, answered).await.unwrap();
        }
        ledger.list(&AttemptFilter::default()).await.unwrap()
    };
    // As the first version wrote them.
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch(
            "DROP INDEX payment_of_server;
             CREATE INDEX payment_of_server ON payment (server, number) WHERE state = 'paid';
             ALTER TABLE payment DROP COLUMN wallet;
             PRAGMA user_version = 1;",
        )
        .unwrap();
    let ledger = SqliteBuyerLedger::new(&path).unwrap();
    assert_eq!(ledger.list(&AttemptFilter::default()).await.unwrap(), rows);
    let refused = reserve(&ledger, &attempt(4, 5), &Policy::default()).await;
    assert_eq!(refused.unwrap_err().rule(), "breaker");
}

#[tokio::test]
async fn books_that_cannot_be_opened_pay_nothing_and_are_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/buyer.db");
    let ledger = SqliteBuyerLedger::new(&path).unwrap();
    let new = attempt(1, 5);
    let refused = ledger
        .reserve(new.clone(), case(&new, &Policy::default()))
        .await;
    assert_eq!(refused.unwrap_err().kind(), crate::ErrorKind::Ledger);
    std::fs::create_dir(folder.path().join("deep")).unwrap();
    reserve(&ledger, &new, &Policy::default()).await.unwrap();

    let other = folder.path().join("other.db");
    std::fs::write(
        &other,
        "no database, but long enough to be looked at as one",
    )
    .unwrap();
    let ledger = SqliteBuyerLedger::new(&other).unwrap();
    assert!(ledger.list(&AttemptFilter::default()).await.is_err());
}
