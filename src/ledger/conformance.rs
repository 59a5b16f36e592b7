//! What every ledger must do. Run it against yours:
//!
//! ```
//! # use std::sync::Arc;
//! # use tollkeeper::ledger::{MemoryLedger, conformance};
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! conformance::run(|| async { Arc::new(MemoryLedger::new()) }).await;
//! // Beside the entries; each for those who need it.
//! conformance::licence_books(|| async { Arc::new(MemoryLedger::new()) }).await;
//! conformance::purchases(|| async { Arc::new(MemoryLedger::new()) }).await;
//! # }
//! ```

#![expect(clippy::unwrap_used, reason = "a suite of assertions")]

mod accounts;
mod free_calls;
mod licence_books;
mod purchases;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use licence_books::run as licence_books;
pub use purchases::run as purchases;

use super::{
    Applied, Caller, EntryFilter, EntryState, Ledger, LetIn, NewEntry, OpenLimits, Opened,
    Retention, Transition,
};
use crate::payment::{
    Amount, ClientPubkey, InvocationIdentity, PayReq, PaymentInteraction, PaymentRequest, Pmi,
    RequestEventId, Settlement, Timestamp, Unit,
};

const AT: Timestamp = Timestamp::from_secs(1_000);
const LATER: Timestamp = Timestamp::from_secs(2_000);
const LIMITS: OpenLimits = OpenLimits::new(3, 5);

/// Runs the whole suite. `make` returns a new, empty ledger each time.
///
/// # Panics
///
/// When the ledger does not conform; the message names the rule.
pub async fn run<L, F, Fut>(make: F)
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
    late_money_is_an_authorization(make().await).await;
    an_authorization_is_claimed_once(make().await).await;
    two_payments_are_two_authorizations(make().await).await;
    a_grant_of_explicit_gating_is_not_for_transparent_requests(make().await).await;
    a_restored_payment_can_be_claimed_again(make().await).await;
    no_offer_is_opened_for_what_is_paid(make().await).await;
    one_request_claims_one_authorization(make().await).await;
    standing_finds_the_event_and_the_call(make().await).await;
    no_authorization_hides_behind_what_was_never_paid(make().await).await;
    lists_come_in_pages_oldest_first(make().await).await;
    one_payment_request_belongs_to_one_entry(make().await).await;
    an_answered_event_is_remembered(make().await).await;
    an_event_that_was_let_in_is_remembered(make().await).await;
    pruning_forgets_nothing_that_stands_for_money(make().await).await;
    free_calls::run(&make).await;
    accounts::run(make).await;
}

fn client(n: u8) -> ClientPubkey {
    ClientPubkey::from_bytes([n; 32])
}

fn event(n: u8) -> RequestEventId {
    RequestEventId::from_bytes([n; 32])
}

fn identity(n: u8) -> InvocationIdentity {
    InvocationIdentity::from_bytes([n; 32])
}

fn fake() -> Pmi {
    "fake".parse().unwrap()
}

fn sats(value: u64) -> Amount {
    Amount::new(value, Unit::SATS).unwrap()
}

fn entry(n: u8, interaction: PaymentInteraction) -> NewEntry {
    NewEntry {
        id: event(n),
        client: client(1),
        identity: identity(1),
        capability: "tool:add".to_owned(),
        interaction,
        pmi: fake(),
        amount: sats(7),
        description: "add".to_owned(),
        meta: Some("{\"rate\":1}".to_owned()),
        request: Some("{}".to_owned()),
        route: "plain".to_owned(),
        deadline: LATER,
        quoted_at: Timestamp::from_secs(1_000 + u64::from(n)),
    }
}

fn transparent(n: u8) -> NewEntry {
    entry(n, PaymentInteraction::Transparent)
}

/// The payment request of a new entry: each has its own.
fn issue() -> Transition {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    issue_as(&NEXT.fetch_add(1, Ordering::Relaxed).to_string())
}

fn issue_as(reference: &str) -> Transition {
    let payment_request =
        PaymentRequest::new(fake(), sats(7), PayReq::new("fake:1"), reference).expiring(LATER);
    Transition::Issue {
        payment_request,
        watch_until: LATER,
    }
}

fn settle() -> Transition {
    Transition::Settle(Settlement::new(sats(7), "paid"))
}

async fn opened(ledger: &dyn Ledger, new: NewEntry) -> RequestEventId {
    let id = new.id;
    assert!(matches!(
        ledger.open(new, LIMITS).await.unwrap(),
        Opened::New(_)
    ));
    id
}

async fn moved(ledger: &dyn Ledger, id: RequestEventId, moves: Vec<Transition>) {
    let applied = ledger.apply(&id, moves, AT).await.unwrap();
    assert!(matches!(applied, Applied::Moved(_)), "{applied:?}");
}

async fn everything_written_is_read_back<L: Ledger>(ledger: Arc<L>) {
    let id = opened(&*ledger, transparent(1)).await;
    let quoted = ledger.get(&id).await.unwrap().unwrap();
    assert_eq!(quoted, super::Entry::quoted(transparent(1)));
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
        .take(super::STANDING_AT_MOST)
        .collect();
    assert_eq!(ids, expected);
}

async fn standing_finds_the_event_and_the_call<L: Ledger>(ledger: Arc<L>) {
    let caller = Caller::new(client(1), event(1), identity(1));
    assert_eq!(
        ledger.standing(&caller).await.unwrap(),
        super::Standing::default()
    );
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

#[cfg(test)]
mod tests {
    use super::super::MemoryLedger;
    use super::*;

    #[tokio::test]
    async fn the_ledger_in_memory_conforms() {
        run(|| async { Arc::new(MemoryLedger::new()) }).await;
    }
}
