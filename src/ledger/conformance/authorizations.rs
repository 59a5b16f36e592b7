//! What was paid and not used yet: found again, claimed once, by whom it belongs to.

use std::future::Future;
use std::sync::Arc;

use super::{
    AT, LIMITS, client, entry, event, identity, issue, issue_as, moved, opened, settle, transparent,
};
use crate::ledger::{Caller, Ledger, OpenLimits, Opened, Transition};
use crate::payment::PaymentInteraction;

/// Runs this part of the suite.
pub(super) async fn run<L, F, Fut>(make: &F)
where
    L: Ledger + 'static,
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<L>>,
{
    late_money_is_an_authorization(make().await).await;
    an_authorization_is_claimed_once(make().await).await;
    two_payments_are_two_authorizations(make().await).await;
    a_grant_of_explicit_gating_is_not_for_transparent_requests(make().await).await;
    a_restored_payment_can_be_claimed_again(make().await).await;
    no_offer_is_opened_for_what_is_paid(make().await).await;
    one_request_claims_one_authorization(make().await).await;
    no_authorization_hides_behind_what_was_never_paid(make().await).await;
}

async fn late_money_is_an_authorization<L: Ledger>(ledger: Arc<L>) {
    let id = opened(&*ledger, transparent(1)).await;
    moved(&*ledger, id, vec![issue(), Transition::Expire]).await;
    moved(&*ledger, id, vec![settle()]).await;
    let caller = Caller::new(client(1), event(2), identity(1));
    let claimed = ledger
        .claim_authorization(&caller, PaymentInteraction::Transparent, AT)
        .await
        .unwrap();
    assert_eq!(claimed.unwrap().claimed_by, Some(event(2)));
}

async fn an_authorization_is_claimed_once<L: Ledger + 'static>(ledger: Arc<L>) {
    let id = opened(&*ledger, entry(1, PaymentInteraction::ExplicitGating)).await;
    moved(&*ledger, id, vec![issue(), settle()]).await;
    for other in [
        Caller::new(client(2), event(2), identity(1)),
        Caller::new(client(1), event(2), identity(2)),
    ] {
        let claimed = ledger
            .claim_authorization(&other, PaymentInteraction::ExplicitGating, AT)
            .await;
        assert_eq!(
            claimed.unwrap(),
            None,
            "somebody else's, or for something else"
        );
    }
    let tasks: Vec<_> = (10..60)
        .map(|n| {
            let ledger = Arc::clone(&ledger);
            let caller = Caller::new(client(1), event(n), identity(1));
            tokio::spawn(async move {
                ledger
                    .claim_authorization(&caller, PaymentInteraction::ExplicitGating, AT)
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut claims = 0;
    for task in tasks {
        claims += usize::from(task.await.unwrap().is_some());
    }
    assert_eq!(claims, 1, "one payment, one execution");
}

async fn two_payments_are_two_authorizations<L: Ledger>(ledger: Arc<L>) {
    for n in 1..=2 {
        opened(&*ledger, transparent(n)).await;
    }
    for n in 1..=2 {
        moved(
            &*ledger,
            event(n),
            vec![
                issue(),
                Transition::Detach {
                    reason: "gone".into(),
                },
                settle(),
            ],
        )
        .await;
    }
    let mut claimed = Vec::new();
    for n in 11..=13 {
        let caller = Caller::new(client(1), event(n), identity(1));
        let entry = ledger
            .claim_authorization(&caller, PaymentInteraction::Transparent, AT)
            .await
            .unwrap();
        claimed.extend(entry.map(|entry| entry.id));
    }
    assert_eq!(
        claimed,
        [event(1), event(2)],
        "both, the older first, and no third"
    );
}

async fn a_grant_of_explicit_gating_is_not_for_transparent_requests<L: Ledger>(ledger: Arc<L>) {
    let id = opened(&*ledger, entry(1, PaymentInteraction::ExplicitGating)).await;
    moved(&*ledger, id, vec![issue(), settle()]).await;
    let caller = Caller::new(client(1), event(2), identity(1));
    let claimed = ledger
        .claim_authorization(&caller, PaymentInteraction::Transparent, AT)
        .await
        .unwrap();
    assert_eq!(claimed, None);

    let waiting = opened(&*ledger, transparent(3)).await;
    moved(&*ledger, waiting, vec![issue(), settle()]).await;
    let claimed = ledger
        .claim_authorization(&caller, PaymentInteraction::Transparent, AT)
        .await
        .unwrap();
    assert_eq!(claimed, None, "its own request waits for this one");
}

async fn a_restored_payment_can_be_claimed_again<L: Ledger>(ledger: Arc<L>) {
    let id = opened(&*ledger, transparent(1)).await;
    moved(
        &*ledger,
        id,
        vec![issue(), settle(), Transition::Claim { by: id }],
    )
    .await;
    moved(
        &*ledger,
        id,
        vec![Transition::Restore {
            reason: "handler lost".into(),
        }],
    )
    .await;
    let caller = Caller::new(client(1), event(2), identity(1));
    let claimed = ledger
        .claim_authorization(&caller, PaymentInteraction::Transparent, AT)
        .await
        .unwrap();
    assert_eq!(claimed.unwrap().id, id);
}

async fn no_offer_is_opened_for_what_is_paid<L: Ledger>(ledger: Arc<L>) {
    use PaymentInteraction::{ExplicitGating, Transparent};
    let id = opened(&*ledger, entry(1, ExplicitGating)).await;
    moved(&*ledger, id, vec![issue(), settle()]).await;
    let again = ledger.open(entry(2, ExplicitGating), LIMITS).await.unwrap();
    assert_eq!(again, Opened::Authorized);
    assert_eq!(ledger.get(&event(2)).await.unwrap(), None);
    // One that may not claim it pays for itself, and then stands for the next.
    let own = opened(&*ledger, entry(3, Transparent)).await;
    let detach = Transition::Detach {
        reason: "cancelled".into(),
    };
    moved(&*ledger, own, vec![issue_as("own"), settle(), detach]).await;
    let again = ledger.open(entry(4, Transparent), LIMITS).await.unwrap();
    assert_eq!(again, Opened::Authorized);
    for n in [5, 6] {
        let caller = Caller::new(client(1), event(n), identity(1));
        let claim = ledger.claim_authorization(&caller, ExplicitGating, AT);
        assert!(claim.await.unwrap().is_some());
    }
    opened(&*ledger, entry(7, ExplicitGating)).await;
}

async fn one_request_claims_one_authorization<L: Ledger>(ledger: Arc<L>) {
    let ids = [
        opened(&*ledger, transparent(1)).await,
        opened(&*ledger, transparent(2)).await,
    ];
    for (id, reference) in ids.iter().zip(["one", "two"]) {
        let detach = Transition::Detach {
            reason: "cancelled".into(),
        };
        moved(&*ledger, *id, vec![issue_as(reference), settle(), detach]).await;
    }
    // The third claims one, and a copy of it gets that one again; the first has one of its own.
    let claim = |n| {
        let caller = Caller::new(client(1), event(n), identity(1));
        let ledger = &ledger;
        async move {
            ledger
                .claim_authorization(&caller, PaymentInteraction::Transparent, AT)
                .await
                .unwrap()
        }
    };
    let claimed = claim(3).await.unwrap();
    assert_eq!(claim(3).await, None, "a copy of the request");
    assert_eq!(claim(1).await, None, "a request with an entry of its own");
    let copy = ledger.open(transparent(3), LIMITS).await.unwrap();
    assert!(
        matches!(&copy, Opened::Exists(entry) if entry.id == claimed.id),
        "{copy:?}"
    );
    assert!(claim(4).await.is_some());
}

async fn no_authorization_hides_behind_what_was_never_paid<L: Ledger>(ledger: Arc<L>) {
    let limits = OpenLimits::new(100, 100);
    let paid = 30;
    for n in 1..=60 {
        let opened = ledger.open(transparent(n), limits).await.unwrap();
        assert!(matches!(opened, Opened::New(_)));
    }
    let gone = Transition::Detach {
        reason: "gone".into(),
    };
    moved(&*ledger, event(paid), vec![issue(), gone, settle()]).await;
    let caller = Caller::new(client(1), event(99), identity(1));
    let standing = ledger.standing(&caller).await.unwrap();
    let ids: Vec<_> = standing.of_identity.iter().map(|entry| entry.id).collect();
    let newest = (0..).map(|n| event(60 - n));
    let expected: Vec<_> = std::iter::once(event(paid))
        .chain(newest)
        .take(crate::ledger::STANDING_AT_MOST)
        .collect();
    assert_eq!(ids, expected);
}
