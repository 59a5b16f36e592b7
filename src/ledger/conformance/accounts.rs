//! Accounts: never overdrawn, never credited twice for one payment, always the sum of their movements.

use std::future::Future;
use std::sync::Arc;

use super::{AT, LATER, client, entry, event, identity, moved, sats};
use crate::ledger::{
    Applied, BALANCE, Caller, Credit, Drawn, EntryState, GiveBack, Ledger, MovementKind, NewEntry,
    Opened, Transition,
};
use crate::payment::{Amount, PaymentInteraction, RequestEventId, Unit};

/// Runs this part of the suite.
pub(super) async fn run<L, F, Fut>(make: F)
where
    L: Ledger + 'static,
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<L>>,
{
    a_draw_pays_and_claims_at_once(make().await).await;
    a_draw_beyond_the_account_writes_nothing(make().await).await;
    a_credit_counts_once_for_each_name(make().await).await;
    side_by_side_nothing_is_overdrawn(make().await).await;
    what_was_paid_comes_back_once(make().await).await;
    what_was_not_used_comes_back_once(make().await).await;
    what_was_paid_for_otherwise_is_not_drawn_for(make().await).await;
    accounts_that_nobody_moves_lapse(make().await).await;
}

fn call(n: u8) -> NewEntry {
    let mut new = entry(n, PaymentInteraction::Transparent);
    new.pmi = BALANCE.parse().unwrap();
    new
}

fn top_up(n: u8, amount: u64) -> Credit {
    Credit {
        client: client(1),
        amount: sats(amount),
        kind: MovementKind::TopUp,
        key: format!("top_up:{n}"),
        at: AT,
    }
}

async fn left<L: Ledger>(ledger: &L) -> u64 {
    let account = ledger.account(&client(1), &Unit::SATS).await.unwrap();
    let left = account.map_or(0, |account| account.amount.value());
    let movements = ledger.movements(&client(1), &Unit::SATS, 0, 10_000).await;
    let sum = movements.unwrap().iter().fold(0, |sum, m| {
        let sum = sum + m.on - m.off;
        assert_eq!(m.left, sum, "each line says what is left");
        sum
    });
    assert_eq!(left, sum, "an account is the sum of its movements");
    left
}

async fn a_draw_pays_and_claims_at_once<L: Ledger>(ledger: Arc<L>) {
    ledger.credit(top_up(1, 10)).await.unwrap();
    let drawn = ledger.draw(call(1), AT).await.unwrap();
    let Drawn::Paid { entry, left: rest } = drawn else {
        panic!("{drawn:?}")
    };
    assert_eq!((entry.state, rest), (EntryState::Claimed, sats(3)));
    assert_eq!(entry.claimed_by, Some(event(1)));
    assert_eq!(ledger.get(&event(1)).await.unwrap(), Some(entry.clone()));
    assert_eq!(left(&*ledger).await, 3);
    // The same request again is not paid for again.
    ledger.credit(top_up(2, 10)).await.unwrap();
    assert_eq!(
        ledger.draw(call(1), AT).await.unwrap(),
        Drawn::Refused(Opened::Exists(entry))
    );
    // An execution that was lost leaves an authorization, as with any payment, and it is used before the account.
    let reason = "lost".to_owned();
    moved(&*ledger, event(1), vec![Transition::Restore { reason }]).await;
    assert_eq!(
        ledger.draw(call(2), AT).await.unwrap(),
        Drawn::Refused(Opened::Authorized)
    );
    let caller = Caller::new(client(1), event(2), identity(1));
    let claimed = ledger
        .claim_authorization(&caller, PaymentInteraction::Transparent, AT)
        .await;
    assert_eq!(claimed.unwrap().unwrap().id, event(1));
    assert_eq!(left(&*ledger).await, 13);
}

async fn a_draw_beyond_the_account_writes_nothing<L: Ledger>(ledger: Arc<L>) {
    assert_eq!(ledger.draw(call(1), AT).await.unwrap(), Drawn::Short);
    ledger.credit(top_up(1, 6)).await.unwrap();
    assert_eq!(ledger.draw(call(1), AT).await.unwrap(), Drawn::Short);
    assert_eq!(ledger.get(&event(1)).await.unwrap(), None);
    let mut of_another = call(2);
    of_another.client = client(2);
    assert_eq!(ledger.draw(of_another, AT).await.unwrap(), Drawn::Short);
    assert_eq!(left(&*ledger).await, 6);
}

async fn a_credit_counts_once_for_each_name<L: Ledger>(ledger: Arc<L>) {
    for _ in 0..3 {
        let account = ledger.credit(top_up(1, 10)).await.unwrap();
        assert_eq!(account.amount, sats(10));
    }
    assert_eq!(ledger.credit(top_up(2, 5)).await.unwrap().amount, sats(15));
    assert!(
        ledger
            .credit(top_up(3, crate::payment::MAX_AMOUNT))
            .await
            .is_err()
    );
    assert_eq!(left(&*ledger).await, 15);
    let accounts = ledger.accounts(None, 10).await.unwrap();
    assert_eq!(accounts.len(), 1);
    let after = Some((client(1), Unit::SATS));
    assert!(ledger.accounts(after, 10).await.unwrap().is_empty());
}

async fn side_by_side_nothing_is_overdrawn<L: Ledger + 'static>(ledger: Arc<L>) {
    ledger.credit(top_up(1, 7 * 20 + 6)).await.unwrap();
    let tasks: Vec<_> = (0..100u8)
        .map(|n| {
            let ledger = Arc::clone(&ledger);
            let mut new = call(n);
            new.identity = identity(n);
            tokio::spawn(async move { ledger.draw(new, AT).await.unwrap() })
        })
        .collect();
    let mut paid = 0;
    for task in tasks {
        paid += usize::from(matches!(task.await.unwrap(), Drawn::Paid { .. }));
    }
    assert_eq!((paid, left(&*ledger).await), (20, 6));
}

async fn what_was_paid_comes_back_once<L: Ledger>(ledger: Arc<L>) {
    ledger.credit(top_up(1, 7)).await.unwrap();
    ledger.draw(call(1), AT).await.unwrap();
    let give_back = |id: RequestEventId| {
        let ledger = Arc::clone(&ledger);
        async move {
            let back = GiveBack {
                response: Some("{}".to_owned()),
                unused: None,
            };
            ledger.give_back(&id, back, AT).await
        }
    };
    let applied = give_back(event(1)).await.unwrap();
    assert!(matches!(applied, Applied::Moved(_)));
    assert_eq!(applied.entry().state, EntryState::Delivered);
    assert!(matches!(
        give_back(event(1)).await.unwrap(),
        Applied::Already(_)
    ));
    assert!(give_back(event(9)).await.is_err());
    assert_eq!(left(&*ledger).await, 7);
}

async fn what_was_not_used_comes_back_once<L: Ledger>(ledger: Arc<L>) {
    ledger.credit(top_up(1, 21)).await.unwrap();
    let mut others = (1..=3).map(|n| {
        let mut new = call(n);
        new.identity = identity(n);
        new
    });
    for new in others.by_ref() {
        ledger.draw(new, AT).await.unwrap();
    }
    let back = |amount: Amount| GiveBack {
        response: Some("{}".to_owned()),
        unused: Some(amount),
    };
    // Not more than was paid, and not in other money: then the call is not ended either.
    for wrong in [sats(8), "0.01 usd".parse().unwrap()] {
        assert!(ledger.give_back(&event(1), back(wrong), AT).await.is_err());
    }
    let state = ledger.get(&event(1)).await.unwrap().unwrap().state;
    assert_eq!((state, left(&*ledger).await), (EntryState::Claimed, 0));
    for _ in 0..3 {
        ledger
            .give_back(&event(1), back(sats(5)), AT)
            .await
            .unwrap();
        assert_eq!(left(&*ledger).await, 5);
    }
    ledger
        .give_back(&event(2), back(sats(7)), AT)
        .await
        .unwrap();
    ledger
        .give_back(&event(3), back(sats(0)), AT)
        .await
        .unwrap();
    assert_eq!(left(&*ledger).await, 12);
    let movements = ledger.movements(&client(1), &Unit::SATS, 0, 100).await;
    let kinds: Vec<_> = movements.unwrap().iter().map(|m| m.kind.as_str()).collect();
    assert_eq!(
        kinds,
        ["top_up", "draw", "draw", "draw", "unused", "unused"]
    );
    let entry = ledger.get(&event(3)).await.unwrap().unwrap();
    assert_eq!(entry.state, EntryState::Delivered);
}

async fn what_was_paid_for_otherwise_is_not_drawn_for<L: Ledger>(ledger: Arc<L>) {
    ledger.credit(top_up(1, 100)).await.unwrap();
    let mut explicit = entry(1, PaymentInteraction::ExplicitGating);
    super::opened(&*ledger, explicit.clone()).await;
    explicit.id = event(2);
    let drawn = ledger.draw(explicit, AT).await.unwrap();
    assert!(
        matches!(drawn, Drawn::Refused(Opened::Outstanding(_))),
        "an open offer may still be paid: {drawn:?}"
    );
    assert_eq!(left(&*ledger).await, 100);
}

async fn accounts_that_nobody_moves_lapse<L: Ledger>(ledger: Arc<L>) {
    ledger.credit(top_up(1, 10)).await.unwrap();
    assert_eq!(ledger.expire_accounts(AT, LATER).await.unwrap(), 0);
    assert_eq!(ledger.expire_accounts(LATER, LATER).await.unwrap(), 1);
    assert_eq!(ledger.expire_accounts(LATER, LATER).await.unwrap(), 0);
    assert_eq!(left(&*ledger).await, 0);
}
