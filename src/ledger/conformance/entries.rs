//! Entries: one for each request, moved all or nothing, found by what they are asked for by.

use std::future::Future;
use std::sync::Arc;

use super::{
    AT, LIMITS, client, entry, event, identity, issue, issue_as, moved, opened, settle, transparent,
};
use crate::ledger::{
    Applied, Caller, Entry, EntryFilter, EntryState, Ledger, NewEntry, Opened, Standing, Transition,
};
use crate::payment::PaymentInteraction;

/// Runs this part of the suite.
pub(super) async fn run<L, F, Fut>(make: &F)
where
    L: Ledger + 'static,
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<L>>,
{
    everything_written_is_read_back(make().await).await;
    one_request_has_one_entry(make().await).await;
    limits_count_open_offers_only(make().await).await;
    a_call_under_explicit_gating_has_one_open_offer(make().await).await;
    several_moves_are_made_together_or_not_at_all(make().await).await;
    a_payment_that_settles_twice_is_one_payment(make().await).await;
    standing_finds_the_event_and_the_call(make().await).await;
    lists_come_in_pages_oldest_first(make().await).await;
    one_payment_request_belongs_to_one_entry(make().await).await;
}

async fn everything_written_is_read_back<L: Ledger>(ledger: Arc<L>) {
    let id = opened(&*ledger, transparent(1)).await;
    let quoted = ledger.get(&id).await.unwrap().unwrap();
    assert_eq!(quoted, Entry::quoted(transparent(1)));
    let mut expected = quoted;
    for transition in [
        issue(),
        settle(),
        Transition::Claim { by: id },
        Transition::Restore {
            reason: "lost".into(),
        },
        Transition::Claim { by: event(9) },
        Transition::Deliver {
            response: Some("{\"a\":1}".into()),
        },
    ] {
        let applied = ledger
            .apply(&id, vec![transition.clone()], AT)
            .await
            .unwrap();
        let _ = expected.make(transition, AT);
        assert_eq!(applied, Applied::Moved(expected.clone()));
        assert_eq!(ledger.get(&id).await.unwrap().as_ref(), Some(&expected));
    }
    assert!(
        ledger.apply(&event(99), vec![settle()], AT).await.is_err(),
        "no such entry"
    );
    assert_eq!(ledger.get(&event(99)).await.unwrap(), None);
}

async fn one_request_has_one_entry<L: Ledger + 'static>(ledger: Arc<L>) {
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move { ledger.open(transparent(1), LIMITS).await.unwrap() })
        })
        .collect();
    let mut new = 0;
    for task in tasks {
        match task.await.unwrap() {
            Opened::New(_) => new += 1,
            other => assert!(matches!(other, Opened::Exists(_)), "{other:?}"),
        }
    }
    assert_eq!(new, 1, "one request event has one entry");
}

async fn limits_count_open_offers_only<L: Ledger>(ledger: Arc<L>) {
    for n in 1..=3 {
        opened(&*ledger, transparent(n)).await;
    }
    assert_eq!(
        ledger.open(transparent(4), LIMITS).await.unwrap(),
        Opened::Full,
        "per client"
    );
    assert_eq!(
        ledger.get(&event(4)).await.unwrap(),
        None,
        "refused means not written"
    );
    moved(
        &*ledger,
        event(1),
        vec![Transition::Abandon { reason: "x".into() }],
    )
    .await;
    moved(&*ledger, event(2), vec![issue(), Transition::Expire]).await;
    opened(&*ledger, transparent(4)).await;

    for n in 5..=7 {
        opened(
            &*ledger,
            NewEntry {
                client: client(n),
                ..transparent(n)
            },
        )
        .await;
    }
    let one_more = NewEntry {
        client: client(8),
        ..transparent(8)
    };
    assert_eq!(
        ledger.open(one_more, LIMITS).await.unwrap(),
        Opened::Full,
        "in total"
    );
}

async fn a_call_under_explicit_gating_has_one_open_offer<L: Ledger>(ledger: Arc<L>) {
    let explicit = |n| entry(n, PaymentInteraction::ExplicitGating);
    let id = opened(&*ledger, explicit(1)).await;
    let again = ledger.open(explicit(2), LIMITS).await.unwrap();
    assert!(
        matches!(&again, Opened::Outstanding(entry) if entry.id == id),
        "{again:?}"
    );
    opened(
        &*ledger,
        NewEntry {
            identity: identity(2),
            ..explicit(3)
        },
    )
    .await;
    opened(
        &*ledger,
        NewEntry {
            client: client(2),
            ..explicit(4)
        },
    )
    .await;
    let by = event(6);
    moved(
        &*ledger,
        id,
        vec![issue(), settle(), Transition::Claim { by }],
    )
    .await;
    opened(&*ledger, explicit(5)).await;
}

async fn several_moves_are_made_together_or_not_at_all<L: Ledger>(ledger: Arc<L>) {
    let id = opened(&*ledger, transparent(1)).await;
    let refused = ledger
        .apply(&id, vec![issue(), Transition::Claim { by: id }], AT)
        .await
        .unwrap();
    assert!(matches!(refused, Applied::Refused(_)));
    assert_eq!(
        ledger.get(&id).await.unwrap().unwrap().state,
        EntryState::Quoted
    );
    moved(
        &*ledger,
        id,
        vec![issue(), settle(), Transition::Claim { by: id }],
    )
    .await;
    assert_eq!(
        ledger.get(&id).await.unwrap().unwrap().state,
        EntryState::Claimed
    );
}

async fn a_payment_that_settles_twice_is_one_payment<L: Ledger>(ledger: Arc<L>) {
    let id = opened(&*ledger, transparent(1)).await;
    moved(&*ledger, id, vec![issue(), settle()]).await;
    let again = ledger.apply(&id, vec![settle()], AT).await.unwrap();
    assert!(matches!(again, Applied::Already(_)));
    moved(
        &*ledger,
        id,
        vec![
            Transition::Claim { by: id },
            Transition::Deliver { response: None },
        ],
    )
    .await;
    let again = ledger
        .apply(&id, vec![settle(), Transition::Claim { by: event(2) }], AT)
        .await
        .unwrap();
    assert!(
        matches!(again, Applied::Refused(_)),
        "delivered money buys nothing more"
    );
}

async fn standing_finds_the_event_and_the_call<L: Ledger>(ledger: Arc<L>) {
    let caller = Caller::new(client(1), event(1), identity(1));
    assert_eq!(ledger.standing(&caller).await.unwrap(), Standing::default());
    opened(&*ledger, transparent(1)).await;
    opened(&*ledger, transparent(2)).await;
    opened(
        &*ledger,
        NewEntry {
            identity: identity(2),
            ..transparent(3)
        },
    )
    .await;
    let standing = ledger.standing(&caller).await.unwrap();
    assert_eq!(standing.of_event.unwrap().id, event(1));
    let ids: Vec<_> = standing.of_identity.iter().map(|entry| entry.id).collect();
    assert_eq!(
        ids,
        [event(2), event(1)],
        "what was never paid: newest first"
    );

    moved(
        &*ledger,
        event(2),
        vec![issue(), settle(), Transition::Claim { by: event(7) }],
    )
    .await;
    moved(
        &*ledger,
        event(2),
        vec![Transition::Deliver { response: None }],
    )
    .await;
    let claimer = Caller::new(client(1), event(7), identity(1));
    let standing = ledger.standing(&claimer).await.unwrap();
    assert_eq!(
        standing.of_event.unwrap().id,
        event(2),
        "the entry that this event claimed"
    );
    let ids: Vec<_> = standing.of_identity.iter().map(|entry| entry.id).collect();
    assert_eq!(ids, [event(1)], "what is delivered is finished");
}

async fn lists_come_in_pages_oldest_first<L: Ledger>(ledger: Arc<L>) {
    for n in [3, 1, 2] {
        opened(&*ledger, transparent(n)).await;
    }
    let filter = EntryFilter::new(vec![], 2);
    let first = ledger.list(&filter).await.unwrap();
    let ids: Vec<_> = first.iter().map(|entry| entry.id).collect();
    assert_eq!(ids, [event(1), event(2)]);
    let rest = ledger.list(&filter.clone().after(&first[1])).await.unwrap();
    assert_eq!(rest.len(), 1);
    moved(&*ledger, event(2), vec![issue()]).await;
    let issued = ledger
        .list(&EntryFilter::new(vec![EntryState::Issued], 10))
        .await
        .unwrap();
    assert_eq!(issued.len(), 1);
    let mut of_other = EntryFilter::new(vec![], 10);
    of_other.client = Some(client(9));
    assert!(ledger.list(&of_other).await.unwrap().is_empty());
}

async fn one_payment_request_belongs_to_one_entry<L: Ledger>(ledger: Arc<L>) {
    let first = opened(&*ledger, transparent(1)).await;
    let second = opened(&*ledger, transparent(2)).await;
    moved(&*ledger, first, vec![issue_as("same")]).await;
    let refused = ledger
        .apply(&second, vec![issue_as("same")], AT)
        .await
        .unwrap();
    assert!(
        matches!(refused, Applied::Refused(_)),
        "one payment would settle both"
    );
    assert_eq!(
        ledger.get(&second).await.unwrap().unwrap().state,
        EntryState::Quoted
    );
    moved(&*ledger, second, vec![issue_as("another")]).await;
}
