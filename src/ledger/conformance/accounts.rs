//! Accounts: never overdrawn, never credited twice for one payment, always the sum of their movements.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;

use super::{AT, LATER, client, entry, event, identity, moved, opened, sats};
use crate::ledger::{
    Applied, BALANCE, Caller, Credit, Drawn, EntryState, GiveBack, Ledger, MovementKind, NewEntry,
    Opened, PRICE_META, Transition, top_up_key,
};
use crate::payment::{
    Amount, InvocationIdentity, PayReq, PaymentInteraction, PaymentRequest, RequestEventId,
    Settlement, Unit,
};

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
    the_same_event_again_is_not_short(make().await).await;
    side_by_side_nothing_is_overdrawn(make().await).await;
    what_was_paid_comes_back_once(make().await).await;
    what_was_not_used_comes_back_once(make().await).await;
    what_a_payment_put_there_goes_with_it_once(make().await).await;
    what_was_paid_for_otherwise_is_not_drawn_for(make().await).await;
    accounts_that_nobody_moves_lapse(make().await).await;
    accounts_in_two_units_do_not_mix(make().await).await;
    what_was_charged_in_other_money_comes_back_as_it_was_priced(make().await).await;
    in_whatever_order_things_happen_they_add_up(make().await).await;
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

/// The payment of a top-up is given back, and so is that of a call of which a part was not used.
async fn what_a_payment_put_there_goes_with_it_once<L: Ledger + 'static>(ledger: Arc<L>) {
    let paid_ahead = |n: u8, amount: u64| Credit {
        key: top_up_key(&event(n)),
        ..top_up(n, amount)
    };
    let take_back = |n: u8| {
        let ledger = Arc::clone(&ledger);
        async move { ledger.take_back(&event(n), AT).await.unwrap() }
    };
    assert_eq!(take_back(1).await, None, "it put nothing there");
    ledger.credit(paid_ahead(1, 10)).await.unwrap();
    ledger.credit(paid_ahead(2, 5)).await.unwrap();
    // Many say so at once.
    let takers: Vec<_> = (0..8).map(|_| tokio::spawn(take_back(1))).collect();
    let mut taken = Vec::new();
    for taker in takers {
        taken.extend(taker.await.unwrap());
    }
    assert_eq!((taken, left(&*ledger).await), (vec![sats(10)], 5));
    // What is spent is not owed, and what is paid ahead later is not taken for it.
    ledger.credit(paid_ahead(3, 6)).await.unwrap();
    ledger.draw(call(20), AT).await.unwrap();
    assert_eq!(take_back(3).await, Some(sats(4)));
    assert_eq!(take_back(2).await, Some(sats(0)));
    ledger.credit(paid_ahead(4, 100)).await.unwrap();
    for n in 1..=3 {
        assert_eq!(take_back(n).await, None);
    }
    assert_eq!(left(&*ledger).await, 100);
    let back = GiveBack {
        response: None,
        unused: Some(sats(2)),
    };
    ledger.give_back(&event(20), back, AT).await.unwrap();
    assert_eq!(take_back(20).await, Some(sats(2)));
    assert_eq!(left(&*ledger).await, 100);
}

async fn what_was_paid_for_otherwise_is_not_drawn_for<L: Ledger>(ledger: Arc<L>) {
    ledger.credit(top_up(1, 100)).await.unwrap();
    let mut explicit = entry(1, PaymentInteraction::ExplicitGating);
    opened(&*ledger, explicit.clone()).await;
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

async fn accounts_in_two_units_do_not_mix<L: Ledger>(ledger: Arc<L>) {
    let cents = |n| Amount::new(n, Unit::USD_CENTS).unwrap();
    ledger.credit(top_up(1, 100)).await.unwrap();
    let mut priced_in_cents = call(1);
    priced_in_cents.amount = cents(7);
    let drawn = ledger.draw(priced_in_cents.clone(), AT).await.unwrap();
    assert_eq!(drawn, Drawn::Short);
    let mut in_cents = top_up(2, 1);
    in_cents.amount = cents(7);
    ledger.credit(in_cents).await.unwrap();
    let drawn = ledger.draw(priced_in_cents, AT).await.unwrap();
    assert!(matches!(drawn, Drawn::Paid { .. }), "{drawn:?}");
    assert_eq!(left(&*ledger).await, 100);
    let account = ledger.account(&client(1), &Unit::USD_CENTS).await.unwrap();
    assert_eq!(account.unwrap().amount.value(), 0);
    // A name belongs to one account: what was credited in sats is not credited in cents under the same name, too.
    let mut again = top_up(1, 1);
    again.amount = cents(100);
    let credited = ledger.credit(again).await;
    assert!(credited.is_err() || credited.unwrap().amount.value() == 0);
    let mut of_another = top_up(1, 100);
    of_another.client = client(2);
    assert!(ledger.credit(of_another).await.is_err());
    let account = ledger.account(&client(2), &Unit::SATS).await.unwrap();
    assert!(account.is_none_or(|account| account.amount.value() == 0));
}

async fn what_was_charged_in_other_money_comes_back_as_it_was_priced<L: Ledger>(ledger: Arc<L>) {
    let mut converted = entry(1, PaymentInteraction::Transparent);
    converted.meta = Some(format!(
        r#"{{"{PRICE_META}": {{"amount": 50, "unit": "usd-cents"}}}}"#
    ));
    opened(&*ledger, converted.clone()).await;
    let payment_request = PaymentRequest::new(
        converted.pmi.clone(),
        converted.amount.clone(),
        PayReq::new("x"),
        "1",
    );
    let issue = Transition::Issue {
        payment_request,
        watch_until: LATER,
    };
    let settle = Transition::Settle(Settlement::new(converted.amount.clone(), "1"));
    let claim = Transition::Claim { by: event(1) };
    moved(&*ledger, event(1), vec![issue, settle, claim]).await;
    ledger.give_back(&event(1), all(), AT).await.unwrap();
    assert_eq!(left(&*ledger).await, 0);
    let account = ledger.account(&client(1), &Unit::USD_CENTS).await.unwrap();
    assert_eq!(account.unwrap().amount.value(), 50);
}

/// Credits, draws, failures and lapses at random, many of them twice: after each, accounts are what a simple model says, and the
/// sum of their movements.
async fn in_whatever_order_things_happen_they_add_up<L: Ledger>(ledger: Arc<L>) {
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    let mut below = |most: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % most
    };
    let mut on = 0u64;
    let (mut credited, mut drawn, mut returned) = (HashSet::new(), HashMap::new(), HashSet::new());
    for step in 0..1000u64 {
        match below(10) {
            0..=2 => {
                let (n, amount) = (below(500), 1 + below(30));
                let mut credit = top_up(1, amount);
                credit.key = format!("top_up:{n}");
                let account = ledger.credit(credit).await.unwrap();
                on += if credited.insert(n) { amount } else { 0 };
                assert_eq!(account.amount.value(), on, "{step}");
            }
            3..=6 => {
                let (n, amount) = (below(400), 1 + below(20));
                let mut new = call(0);
                new.id = numbered(n);
                new.identity = InvocationIdentity::from_bytes(*numbered(n).as_bytes());
                new.amount = sats(amount);
                match ledger.draw(new, AT).await.unwrap() {
                    Drawn::Paid { left, .. } => {
                        assert!(drawn.insert(n, amount).is_none(), "{step}: twice");
                        on -= amount;
                        assert_eq!(left.value(), on, "{step}");
                    }
                    Drawn::Short => assert!(on < amount, "{step}"),
                    Drawn::Refused(_) => assert!(drawn.contains_key(&n), "{step}"),
                }
            }
            7..=8 => {
                let n = below(400);
                let back = ledger.give_back(&numbered(n), all(), AT).await;
                match (drawn.get(&n), returned.insert(n)) {
                    (None, _) => {
                        assert!(back.is_err(), "{step}");
                        returned.remove(&n);
                    }
                    (Some(amount), true) => on += amount,
                    (Some(_), false) => {
                        assert!(matches!(back.unwrap(), Applied::Already(_)), "{step}");
                    }
                }
            }
            _ if below(8) == 0 => {
                let at = LATER.plus(std::time::Duration::from_millis(step));
                ledger.expire_accounts(LATER, at).await.unwrap();
                // Whatever was moved at `AT` lapses; what lapsed before was moved later.
                let account = ledger.account(&client(1), &Unit::SATS).await.unwrap();
                on = account.map_or(0, |account| account.amount.value());
                assert_eq!(on, 0, "{step}");
            }
            _ => {}
        }
        assert_eq!(left(&*ledger).await, on, "{step}");
    }
    assert!(drawn.len() > 20 && returned.len() > 5, "it was worth it");
}

fn numbered(n: u64) -> RequestEventId {
    let mut bytes = [0xEE; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    RequestEventId::from_bytes(bytes)
}

/// What an event has drawn is not missing, even if it was the last: it is there.
async fn the_same_event_again_is_not_short<L: Ledger>(ledger: Arc<L>) {
    ledger.credit(top_up(1, 7)).await.unwrap();
    let mut new = call(1);
    new.amount = sats(7);
    assert!(matches!(
        ledger.draw(new.clone(), AT).await.unwrap(),
        Drawn::Paid { .. }
    ));
    let again = ledger.draw(new, AT).await.unwrap();
    assert!(
        matches!(again, Drawn::Refused(Opened::Exists(_))),
        "{again:?}"
    );
}

/// The whole price, because the call failed.
fn all() -> GiveBack {
    GiveBack {
        response: None,
        unused: None,
    }
}
