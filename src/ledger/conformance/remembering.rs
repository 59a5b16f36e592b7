//! Events without an entry are remembered, and forgotten in time; money never is.

use std::future::Future;
use std::sync::Arc;

use super::{AT, client, event, identity, issue, moved, opened, settle, transparent};
use crate::ledger::{Caller, EntryState, Ledger, LetIn, Retention, Transition};
use crate::payment::Timestamp;

/// Runs this part of the suite.
pub(super) async fn run<L, F, Fut>(make: &F)
where
    L: Ledger + 'static,
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<L>>,
{
    an_answered_event_is_remembered(make().await).await;
    an_event_that_was_let_in_is_remembered(make().await).await;
    pruning_forgets_nothing_that_stands_for_money(make().await).await;
    what_may_still_be_paid_is_not_forgotten(make().await).await;
    a_response_is_kept_from_its_delivery_on(make().await).await;
}

async fn an_event_that_was_let_in_is_remembered<L: Ledger>(ledger: Arc<L>) {
    let noted = |n: u8| LetIn {
        event: event(n),
        at: Timestamp::from_secs(u64::from(n)),
    };
    ledger
        .note_let_in((1..=9).map(noted).collect())
        .await
        .unwrap();
    // Noted twice, by two processes or around a restart, is noted.
    ledger.note_let_in(vec![noted(9)]).await.unwrap();
    ledger.note_let_in(Vec::new()).await.unwrap();
    let since = |at: u64| {
        let ledger = Arc::clone(&ledger);
        async move { ledger.let_in_since(Timestamp::from_secs(at)).await.unwrap() }
    };
    let mut recent = since(5).await;
    recent.dedup();
    assert_eq!(recent, (5..=9).map(noted).collect::<Vec<_>>());
    let (old, now) = (Timestamp::from_secs(1), Timestamp::from_secs(9_000));
    let retention = Retention::new(old, old, Timestamp::from_secs(4));
    assert_eq!(ledger.prune(retention).await.unwrap(), 3);
    let mut left = since(0).await;
    left.dedup();
    assert_eq!(left, (4..=9).map(noted).collect::<Vec<_>>());
    while ledger.prune(Retention::new(old, old, now)).await.unwrap() > 0 {}
    assert_eq!(since(0).await, []);
}

async fn an_answered_event_is_remembered<L: Ledger>(ledger: Arc<L>) {
    let caller = Caller::new(client(1), event(1), identity(1));
    assert!(!ledger.standing(&caller).await.unwrap().answered);
    assert!(ledger.note_answered(&event(1), AT).await.unwrap());
    assert!(
        !ledger.note_answered(&event(1), AT).await.unwrap(),
        "noted before"
    );
    assert!(ledger.standing(&caller).await.unwrap().answered);
    let (old, now) = (Timestamp::from_secs(1), Timestamp::from_secs(9_000));
    assert_eq!(
        ledger.prune(Retention::new(old, old, old)).await.unwrap(),
        0
    );
    assert_eq!(
        ledger.prune(Retention::new(old, old, now)).await.unwrap(),
        1
    );
    assert!(!ledger.standing(&caller).await.unwrap().answered);
}

async fn pruning_forgets_nothing_that_stands_for_money<L: Ledger>(ledger: Arc<L>) {
    let abandoned = opened(&*ledger, transparent(1)).await;
    moved(
        &*ledger,
        abandoned,
        vec![Transition::Abandon { reason: "x".into() }],
    )
    .await;
    let expired = opened(&*ledger, transparent(2)).await;
    moved(&*ledger, expired, vec![issue(), Transition::Expire]).await;
    let issued = opened(&*ledger, transparent(3)).await;
    moved(&*ledger, issued, vec![issue()]).await;
    let paid = opened(&*ledger, transparent(4)).await;
    moved(&*ledger, paid, vec![issue(), settle()]).await;
    let delivered = opened(&*ledger, transparent(5)).await;
    let response = Some("{}".to_owned());
    moved(
        &*ledger,
        delivered,
        vec![issue(), settle(), Transition::Claim { by: delivered }],
    )
    .await;
    moved(&*ledger, delivered, vec![Transition::Deliver { response }]).await;

    let old = Timestamp::from_secs(1);
    assert_eq!(
        ledger.prune(Retention::new(old, old, old)).await.unwrap(),
        0,
        "nothing is that old"
    );
    let now = Timestamp::from_secs(9_000);
    while ledger.prune(Retention::new(now, now, now)).await.unwrap() > 0 {}
    for gone in [abandoned, expired] {
        assert_eq!(ledger.get(&gone).await.unwrap(), None);
    }
    for (kept, state) in [
        (issued, EntryState::Issued),
        (paid, EntryState::Settled),
        (delivered, EntryState::Delivered),
    ] {
        let entry = ledger.get(&kept).await.unwrap().unwrap();
        assert_eq!(entry.state, state);
        assert_eq!(entry.response, None);
    }
}

/// A wallet may make payment requests that stand for longer than offers are kept.
async fn what_may_still_be_paid_is_not_forgotten<L: Ledger>(ledger: Arc<L>) {
    let id = opened(&*ledger, transparent(1)).await;
    let mut issue = issue();
    if let Transition::Issue { watch_until, .. } = &mut issue {
        *watch_until = Timestamp::from_secs(30_000);
    }
    moved(&*ledger, id, vec![issue, Transition::Expire]).await;
    for (before, kept) in [(9_000, true), (30_000, true), (30_001, false)] {
        let before = Timestamp::from_secs(before);
        let retention = Retention::new(before, before, before);
        while ledger.prune(retention).await.unwrap() > 0 {}
        let entry = ledger.get(&id).await.unwrap();
        assert_eq!(entry.is_some(), kept, "{before:?}");
    }
}

/// What was paid for long ago may be used today, and its answer be lost on the way.
async fn a_response_is_kept_from_its_delivery_on<L: Ledger>(ledger: Arc<L>) {
    let id = opened(&*ledger, transparent(1)).await;
    moved(&*ledger, id, vec![issue(), settle()]).await;
    let used = Timestamp::from_secs(20_000);
    let response = Some("{}".to_owned());
    for transition in [
        Transition::Claim { by: event(2) },
        Transition::Deliver { response },
    ] {
        ledger.apply(&id, vec![transition], used).await.unwrap();
    }
    for (before, kept) in [(9_000, true), (20_000, true), (20_001, false)] {
        let before = Timestamp::from_secs(before);
        let retention = Retention::new(before, before, before);
        while ledger.prune(retention).await.unwrap() > 0 {}
        let entry = ledger.get(&id).await.unwrap().unwrap();
        assert_eq!(entry.response.is_some(), kept, "{before:?}");
    }
}
