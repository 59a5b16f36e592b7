//! Records of free calls: what is limited is counted exactly, whatever happens side by side.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::{client, event};
use crate::ledger::{Caller, FreeCall, FreeCallFilter, FreeLimits, FreeSpend, Ledger};
use crate::payment::{InvocationIdentity, RequestEventId, Timestamp};

const NOON: Timestamp = Timestamp::from_secs(10 * 86_400 + 43_200);
const TWO_EACH: FreeLimits = FreeLimits::new(2, 100);

/// Runs this part of the suite.
pub(super) async fn run<L, F, Fut>(make: F)
where
    L: Ledger + 'static,
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<L>>,
{
    a_record_is_read_back_and_the_first_one_stays(make().await).await;
    a_record_is_an_answer(make().await).await;
    what_is_limited_is_counted_for_each_client_and_day(make().await).await;
    all_clients_together_are_limited_too(make().await).await;
    side_by_side_nothing_is_overspent(make().await).await;
    the_oldest_records_are_forgotten_first(make().await).await;
}

fn call(n: u8, who: u8, at: Timestamp) -> FreeCall {
    FreeCall {
        event: event(n),
        client: client(who),
        capability: "tool:add".to_owned(),
        by: "free_per_day".to_owned(),
        why: "one of 2".to_owned(),
        at,
    }
}

async fn a_record_is_read_back_and_the_first_one_stays<L: Ledger>(ledger: Arc<L>) {
    let mut other = call(1, 1, NOON);
    other.why = "another".to_owned();
    let batch = vec![call(1, 1, NOON), other, call(2, 2, NOON)];
    ledger.note_free(batch.clone()).await.unwrap();
    ledger.note_free(batch).await.unwrap();
    assert_eq!(
        ledger.free_call(&event(1)).await.unwrap(),
        Some(call(1, 1, NOON))
    );
    assert_eq!(ledger.free_call(&event(9)).await.unwrap(), None);
    let mut filter = FreeCallFilter::new(1);
    let page = ledger.free_calls(&filter).await.unwrap();
    assert_eq!(page, [call(1, 1, NOON)]);
    let page = ledger
        .free_calls(&filter.clone().after(&page[0]))
        .await
        .unwrap();
    assert_eq!(page, [call(2, 2, NOON)]);
    filter.client = Some(client(2));
    assert_eq!(
        ledger.free_calls(&filter).await.unwrap(),
        [call(2, 2, NOON)]
    );
}

async fn a_record_is_an_answer<L: Ledger>(ledger: Arc<L>) {
    let caller = Caller::new(client(1), event(1), InvocationIdentity::from_bytes([1; 32]));
    assert!(!ledger.standing(&caller).await.unwrap().answered);
    ledger.note_free(vec![call(1, 1, NOON)]).await.unwrap();
    assert!(ledger.standing(&caller).await.unwrap().answered);
}

async fn what_is_limited_is_counted_for_each_client_and_day<L: Ledger>(ledger: Arc<L>) {
    let spend = |n, who, at| ledger.spend_free(call(n, who, at), TWO_EACH);
    assert_eq!(
        spend(1, 1, NOON).await.unwrap(),
        FreeSpend::Spent { nth: 1 }
    );
    assert_eq!(
        spend(1, 1, NOON).await.unwrap(),
        FreeSpend::Already,
        "one request counts once"
    );
    assert_eq!(
        spend(2, 1, NOON).await.unwrap(),
        FreeSpend::Spent { nth: 2 }
    );
    assert_eq!(spend(3, 1, NOON).await.unwrap(), FreeSpend::UsedUp);
    assert_eq!(
        ledger.free_call(&event(3)).await.unwrap(),
        None,
        "what is used up is not written"
    );
    assert_eq!(
        spend(4, 2, NOON).await.unwrap(),
        FreeSpend::Spent { nth: 1 },
        "others have their own"
    );
    let tomorrow = NOON.plus(Duration::from_secs(43_200));
    assert_eq!(
        spend(5, 1, tomorrow).await.unwrap(),
        FreeSpend::Spent { nth: 1 }
    );
    let mut other = call(6, 1, NOON);
    other.by = "trial".to_owned();
    assert_eq!(
        ledger.spend_free(other, TWO_EACH).await.unwrap(),
        FreeSpend::Spent { nth: 1 },
        "each allowance counts for itself"
    );
    // A record that was only noted is not counted.
    ledger.note_free(vec![call(7, 3, NOON)]).await.unwrap();
    assert_eq!(
        spend(8, 3, NOON).await.unwrap(),
        FreeSpend::Spent { nth: 1 }
    );
}

async fn all_clients_together_are_limited_too<L: Ledger>(ledger: Arc<L>) {
    let limits = FreeLimits::new(2, 3);
    for n in 1..=3 {
        let spent = ledger.spend_free(call(n, n, NOON), limits).await.unwrap();
        assert_eq!(spent, FreeSpend::Spent { nth: 1 });
    }
    let spent = ledger.spend_free(call(4, 4, NOON), limits).await.unwrap();
    assert_eq!(spent, FreeSpend::AllUsedUp);
}

async fn side_by_side_nothing_is_overspent<L: Ledger + 'static>(ledger: Arc<L>) {
    let tasks: Vec<_> = (0..100u8)
        .map(|n| {
            let ledger = Arc::clone(&ledger);
            let limits = FreeLimits::new(10, 15);
            tokio::spawn(async move {
                let spent = ledger.spend_free(call(n, n % 2, NOON), limits).await;
                matches!(spent.unwrap(), FreeSpend::Spent { .. })
            })
        })
        .collect();
    let mut spent = 0;
    for task in tasks {
        spent += usize::from(task.await.unwrap());
    }
    assert_eq!(spent, 15);
}

async fn the_oldest_records_are_forgotten_first<L: Ledger>(ledger: Arc<L>) {
    let at = |n: u8| NOON.plus(Duration::from_secs(u64::from(n)));
    let batch = (0..10).map(|n| call(n, 1, at(n))).collect();
    ledger.note_free(batch).await.unwrap();
    while ledger.forget_free(at(3), 100).await.unwrap() > 0 {}
    while ledger.forget_free(at(0), 5).await.unwrap() > 0 {}
    let left: Vec<RequestEventId> = ledger
        .free_calls(&FreeCallFilter::new(100))
        .await
        .unwrap()
        .iter()
        .map(|call| call.event)
        .collect();
    assert_eq!(left, [5, 6, 7, 8, 9].map(event));
}
