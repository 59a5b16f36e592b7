//! What every implementation of [`BuyerLedger`] must do. Each function panics where it does not.

#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "a suite of tests: a panic is what it reports with"
)]

use std::sync::Arc;
use std::time::Duration;

use super::{
    AnswerState, AttemptFilter, AttemptId, AttemptState, BuyerLedger, Heard, NewAttempt, Settled,
    Tally,
};
use crate::client::event::DeclineReason;
use crate::client::policy::{Case, Facts, Limits, Policy};
use crate::payment::{
    Amount, CapabilityPattern, Clock, FAKE, InvocationIdentity, PayReq, PaymentProof,
    PaymentRequest, RequestEventId, ServerPubkey, SystemClock, Timestamp, Unit,
};

/// Runs the whole suite on `ledger`, which must be empty.
pub async fn check(ledger: Arc<dyn BuyerLedger>) {
    what_is_written_can_be_read(&*ledger).await;
    nothing_is_paid_twice(&*ledger).await;
    limits_hold_however_many_ask(&ledger).await;
    windows_slide(&*ledger).await;
    a_server_that_takes_without_giving_is_cut_off(&*ledger).await;
    what_may_have_been_taken_counts_like_what_was(&*ledger).await;
    a_held_payment_blocks_its_call_whatever_was_answered(&*ledger).await;
    what_is_paid_stays_paid(&*ledger).await;
}

fn sats(value: u64) -> Amount {
    Amount::new(value, Unit::SATS).unwrap()
}

fn bytes(text: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    for (at, byte) in text.bytes().enumerate() {
        bytes[at % 32] ^= byte.rotate_left((at / 32) as u32 % 8);
    }
    bytes
}

/// An attempt to pay for the call `call` at `server`, at a time.
fn attempt(server: &str, call: &str, amount: u64, at: Timestamp) -> NewAttempt {
    let pmi = FAKE.parse().unwrap();
    let id = format!("{server}/{call}/{amount}");
    let payment = PaymentRequest::new(pmi, sats(amount), PayReq::new(format!("fake:{id}")), id);
    let event =
        RequestEventId::from_bytes(bytes(&format!("event of {call} at {}", at.as_millis())));
    let identity = InvocationIdentity::from_bytes(bytes(call));
    let server = ServerPubkey::from_bytes(bytes(server));
    let mut new = NewAttempt::new(event, server, identity, format!("tool:{call}"), payment, at);
    new.request = "{\"request\":1}".to_owned();
    new.demand = "{\"demand\":1}".to_owned();
    new
}

fn case(new: &NewAttempt, policy: &Policy) -> Case {
    let facts = Facts::new(
        new.server,
        new.capability.as_str(),
        new.call,
        new.payment.amount.clone(),
        new.at,
    );
    Case::new(Arc::new(policy.clone()), facts)
}

async fn reserve(
    ledger: &dyn BuyerLedger,
    new: &NewAttempt,
    policy: &Policy,
) -> Result<AttemptId, DeclineReason> {
    ledger
        .reserve(new.clone(), case(new, policy))
        .await
        .unwrap()
}

async fn end(ledger: &dyn BuyerLedger, id: AttemptId, state: AttemptState, answer: AnswerState) {
    let at = SystemClock.now();
    ledger
        .settle(id, Settled::new(state, "tested"), at)
        .await
        .unwrap();
    ledger.note(id, Heard::Ended(answer, None)).await.unwrap();
}

async fn what_is_written_can_be_read(ledger: &dyn BuyerLedger) {
    let now = SystemClock.now();
    let mut new = attempt("books", "read", 7, now);
    new.worth = Some("0.05 usd".parse().unwrap());
    new.wallet = Some("the one".to_owned());
    let id = reserve(ledger, &new, &Policy::default()).await.unwrap();
    let one = AttemptFilter::one(id);
    let read = ledger.list(&one).await.unwrap().pop().unwrap();
    assert_eq!(read.new, new);
    assert_eq!(
        (read.state, read.answer),
        (AttemptState::Reserved, AnswerState::Waiting)
    );

    let paid = Settled::new(AttemptState::Paid, "the wallet said so")
        .with_proof(PaymentProof::new("preimage"));
    ledger.settle(id, paid, now).await.unwrap();
    let retry = RequestEventId::from_bytes([8; 32]);
    for heard in [
        Heard::Retried(retry, "{\"retry\":1}".to_owned()),
        Heard::Accepted("{\"accepted\":1}".to_owned()),
        Heard::Ended(AnswerState::Result, Some("{\"result\":1}".to_owned())),
        // Too late to matter.
        Heard::Ended(AnswerState::Missing, None),
    ] {
        ledger.note(id, heard).await.unwrap();
    }
    let read = ledger.list(&one).await.unwrap().pop().unwrap();
    assert_eq!(
        (read.state, read.answer),
        (AttemptState::Paid, AnswerState::Result)
    );
    assert_eq!(read.proof.unwrap().reveal(), "preimage");
    assert_eq!(read.retry, Some((retry, "{\"retry\":1}".to_owned())));
    assert_eq!(read.acceptance.as_deref(), Some("{\"accepted\":1}"));
    assert_eq!(read.response.as_deref(), Some("{\"result\":1}"));
    assert!(
        ledger
            .settle(
                AttemptId::new(999_999),
                Settled::new(AttemptState::Paid, ""),
                now
            )
            .await
            .is_err(),
        "what is not there cannot be settled"
    );
    let mut here = AttemptFilter::states(&[AttemptState::Paid]);
    here.server = Some(new.server);
    assert_eq!(ledger.list(&here).await.unwrap().len(), 1);
    here.after = Some(id);
    assert!(ledger.list(&here).await.unwrap().is_empty());
}

/// N-131, D-35, and the states that stand in the way of a second payment.
async fn nothing_is_paid_twice(ledger: &dyn BuyerLedger) {
    let policy = Policy::default();
    let now = SystemClock.now();
    let first = attempt("twice", "a", 5, now);
    let id = reserve(ledger, &first, &policy).await.unwrap();

    // The same call from elsewhere, while the first is under way.
    let mut second = attempt("twice", "a", 6, now.plus(Duration::from_secs(1)));
    let refused = reserve(ledger, &second, &policy).await.unwrap_err();
    assert!(
        matches!(&refused, DeclineReason::UnderWay(earlier) if earlier.attempt == id),
        "{refused:?}"
    );

    // Nobody knows what became of it.
    let unknown = Settled::new(AttemptState::Unknown, "lost");
    ledger.settle(id, unknown, now).await.unwrap();
    let refused = reserve(ledger, &second, &policy).await.unwrap_err();
    assert!(
        matches!(refused, DeclineReason::EarlierUnknown(_)),
        "{refused:?}"
    );

    // It was paid, and nothing came.
    end(ledger, id, AttemptState::Paid, AnswerState::Missing).await;
    let refused = reserve(ledger, &second, &policy).await.unwrap_err();
    assert!(
        matches!(refused, DeclineReason::MaxPayments { made: 1, .. }),
        "{refused:?}"
    );
    let mut generous = policy.clone();
    generous.max_payments = 2;
    second.call = first.call;
    let again = reserve(ledger, &second, &generous).await.unwrap();
    let third = attempt("twice", "a", 8, now);
    assert!(reserve(ledger, &third, &generous).await.is_err());

    // Refused by the wallet: as if it had not been.
    end(ledger, again, AttemptState::Refused, AnswerState::Missing).await;
    assert!(reserve(ledger, &third, &policy).await.is_err());
    let made_up = ledger
        .make_up(&first.server, Some(first.identity), AnswerState::Result)
        .await
        .unwrap();
    assert_eq!(made_up, 1);
    let third = reserve(ledger, &third, &policy).await.unwrap();
    end(ledger, third, AttemptState::Paid, AnswerState::Result).await;

    // The same payment request, for another call, from another server: never again.
    let mut stolen = attempt("elsewhere", "b", 5, now);
    stolen.payment = first.payment.clone();
    let refused = reserve(ledger, &stolen, &generous).await.unwrap_err();
    assert!(
        matches!(&refused, DeclineReason::PaidBefore(earlier) if earlier.attempt == id),
        "{refused:?}"
    );
    // But one that the wallet refused may be tried again.
    let mut retried = attempt("elsewhere", "c", 6, now);
    retried.payment = second.payment.clone();
    let retried = reserve(ledger, &retried, &policy).await.unwrap();
    end(ledger, retried, AttemptState::Paid, AnswerState::Result).await;
}

async fn limits_hold_however_many_ask(ledger: &Arc<dyn BuyerLedger>) {
    let now = SystemClock.now();
    let mut policy = Policy::default();
    policy.each_server.per_hour = Some(sats(50));
    let asking: Vec<_> = (0..20)
        .map(|n| {
            let (ledger, policy) = (Arc::clone(ledger), policy.clone());
            tokio::spawn(async move {
                let new = attempt("crowd", &format!("call {n}"), 10, now);
                reserve(&*ledger, &new, &policy).await
            })
        })
        .collect();
    let mut granted = Vec::new();
    for asked in asking {
        match asked.await.unwrap() {
            Ok(id) => granted.push(id),
            Err(DeclineReason::AboveLimit { rule, left, .. }) => {
                assert_eq!(rule, "each_server.per_hour");
                assert_eq!(left, sats(0));
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(granted.len(), 5);

    // Unknown keeps its place, refused gives it back.
    let unknown = Settled::new(AttemptState::Unknown, "lost");
    ledger.settle(granted[0], unknown, now).await.unwrap();
    let new = attempt("crowd", "one more", 10, now);
    assert!(reserve(&**ledger, &new, &policy).await.is_err());
    let refused = Settled::new(AttemptState::Refused, "no");
    ledger.settle(granted[0], refused, now).await.unwrap();
    let more = reserve(&**ledger, &new, &policy).await.unwrap();
    for id in granted[1..].iter().chain([&more]) {
        end(&**ledger, *id, AttemptState::Paid, AnswerState::Result).await;
    }
}

async fn windows_slide(ledger: &dyn BuyerLedger) {
    let now = SystemClock.now();
    let ago = |minutes: u64| now.minus(Duration::from_secs(60 * minutes));
    for (n, minutes) in [(1, 61), (2, 59), (3, 25 * 60), (4, 23 * 60)] {
        let new = attempt("window", &format!("search {n}"), n * 100, ago(minutes));
        let id = reserve(ledger, &new, &Policy::default()).await.unwrap();
        end(ledger, id, AttemptState::Paid, AnswerState::Result).await;
    }
    let tally = |capability: Option<&str>, minutes: Option<u64>| Tally {
        server: Some(attempt("window", "x", 1, now).server),
        capability: capability.map(|pattern| CapabilityPattern::new(pattern).unwrap()),
        since: minutes.map(ago),
    };
    let sums = ledger
        .used(vec![
            tally(None, Some(60)),
            tally(None, Some(24 * 60)),
            tally(None, None),
            tally(Some("tool:search *"), None),
            tally(Some("tool:search 4"), None),
            tally(Some("tool:searc? 4"), None),
            tally(Some("tool:[s]earch 4"), None),
        ])
        .await
        .unwrap();
    let sums: Vec<u64> = sums
        .iter()
        .map(|sums| sums.iter().map(|sum| sum.amount.value()).sum())
        .collect();
    assert_eq!(sums, [200, 700, 1000, 1000, 400, 0, 0]);

    let policy = Policy {
        each_server: Limits {
            per_hour: Some(sats(210)),
            per_day: Some(sats(710)),
            ..Limits::default()
        },
        ..Policy::default()
    };
    let new = attempt("window", "y", 11, now);
    let refused = reserve(ledger, &new, &policy).await.unwrap_err();
    assert!(matches!(refused, DeclineReason::AboveLimit { .. }));
    let new = attempt("window", "y", 10, now);
    let id = reserve(ledger, &new, &policy).await.unwrap();
    end(ledger, id, AttemptState::Paid, AnswerState::Result).await;
}

async fn a_server_that_takes_without_giving_is_cut_off(ledger: &dyn BuyerLedger) {
    let now = SystemClock.now();
    let policy = Policy::default();
    let pay = async |call: &str, answer: AnswerState| {
        let new = attempt("thief", call, 9, now);
        let id = reserve(ledger, &new, &policy).await?;
        end(ledger, id, AttemptState::Paid, answer).await;
        Ok::<_, DeclineReason>(())
    };
    pay("1", AnswerState::Error).await.unwrap();
    pay("2", AnswerState::Missing).await.unwrap();
    pay("3", AnswerState::Result).await.unwrap();
    pay("4", AnswerState::Error).await.unwrap();
    // What was interrupted here is not the server's fault.
    pay("5", AnswerState::Interrupted).await.unwrap();
    pay("6", AnswerState::Missing).await.unwrap();
    pay("7", AnswerState::Error).await.unwrap();
    let refused = pay("8", AnswerState::Result).await.unwrap_err();
    assert_eq!(refused.rule(), "breaker");
    assert!(refused.to_string().contains("3 times"), "{refused}");
    let server = attempt("thief", "1", 9, now).server;
    let unserved = AttemptFilter {
        server: Some(server),
        unserved: true,
        ..AttemptFilter::default()
    };
    assert_eq!(ledger.list(&unserved).await.unwrap().len(), 6);
    let forgiven = ledger
        .make_up(&server, None, AnswerState::Forgiven)
        .await
        .unwrap();
    assert_eq!(forgiven, 6);
    pay("9", AnswerState::Result).await.unwrap();
}

/// A payment that the server holds, and one that nobody knows about, are as good as taken.
async fn what_may_have_been_taken_counts_like_what_was(ledger: &dyn BuyerLedger) {
    let now = SystemClock.now();
    let policy = Policy::default();
    let held = async |call: &str| {
        let new = attempt("holder", call, 9, now);
        let id = reserve(ledger, &new, &policy).await?;
        let answered = Heard::Ended(AnswerState::Error, None);
        ledger.note(id, answered).await.unwrap();
        Ok::<_, DeclineReason>(id)
    };
    let first = held("1").await.unwrap();
    let second = held("2").await.unwrap();
    end(ledger, second, AttemptState::Unknown, AnswerState::Missing).await;
    let third = held("3").await.unwrap();
    assert_eq!(held("4").await.unwrap_err().rule(), "breaker");
    let server = attempt("holder", "1", 9, now).server;
    let unserved = AttemptFilter {
        server: Some(server),
        unserved: true,
        ..AttemptFilter::default()
    };
    assert_eq!(ledger.list(&unserved).await.unwrap().len(), 3);
    // The wallet got its money back: it was not taken.
    let refused = Settled::new(AttemptState::Refused, "it came back");
    ledger.settle(third, refused, now).await.unwrap();
    let fourth = held("4").await.unwrap();
    for id in [first, second, fourth] {
        end(ledger, id, AttemptState::Paid, AnswerState::Result).await;
    }
}

async fn a_held_payment_blocks_its_call_whatever_was_answered(ledger: &dyn BuyerLedger) {
    let now = SystemClock.now();
    let policy = Policy {
        max_payments: 9,
        ..Policy::default()
    };
    for (call, answer) in [
        ("error", AnswerState::Error),
        ("missing", AnswerState::Missing),
    ] {
        let id = reserve(ledger, &attempt("held", call, 5, now), &policy)
            .await
            .unwrap();
        ledger.note(id, Heard::Ended(answer, None)).await.unwrap();
        let again = attempt("held", call, 6, now.plus(Duration::from_secs(1)));
        let refused = reserve(ledger, &again, &policy).await.unwrap_err();
        assert!(
            matches!(&refused, DeclineReason::UnderWay(earlier) if earlier.attempt == id),
            "{refused:?}"
        );
        let unknown = Settled::new(AttemptState::Unknown, "lost");
        ledger.settle(id, unknown, now).await.unwrap();
        let refused = reserve(ledger, &again, &policy).await.unwrap_err();
        assert_eq!(refused.rule(), "earlier_unknown");
        end(ledger, id, AttemptState::Paid, AnswerState::Result).await;
        let again = reserve(ledger, &again, &policy).await.unwrap();
        end(ledger, again, AttemptState::Paid, AnswerState::Result).await;
    }
}

async fn what_is_paid_stays_paid(ledger: &dyn BuyerLedger) {
    let now = SystemClock.now();
    let new = attempt("late", "a", 3, now);
    let id = reserve(ledger, &new, &Policy::default()).await.unwrap();
    for state in [
        AttemptState::Refused,
        AttemptState::Unknown,
        AttemptState::Paid,
        AttemptState::Refused,
        AttemptState::Unknown,
    ] {
        ledger
            .settle(id, Settled::new(state, "tested"), now)
            .await
            .unwrap();
    }
    let read = ledger.list(&AttemptFilter::one(id)).await.unwrap();
    assert_eq!(read[0].state, AttemptState::Paid);
}

#[cfg(test)]
mod tests {
    use super::super::MemoryBuyerLedger;
    use super::*;

    #[tokio::test]
    async fn memory_conforms() {
        check(Arc::new(MemoryBuyerLedger::new())).await;
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn sqlite_conforms() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = super::super::SqliteBuyerLedger::new(folder.path().join("buyer.db")).unwrap();
        check(Arc::new(ledger)).await;
    }
}
