//! Every order in which threads can meet in the ledger in memory: the same file, compiled once more with locks that a scheduler
//! controls.

mod sync {
    pub(super) use shuttle::sync::{Mutex, MutexGuard};
    pub(super) use std::sync::PoisonError;
}

#[path = "memory/mod.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::duplicate_mod,
    reason = "only some of it is looked at here"
)]
mod memory;

use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::future::block_on;
use shuttle::sync::Arc;
use shuttle::thread;

use self::memory::MemoryLedger;
use super::{
    Applied, Caller, Entry, EntryFilter, EntryState, LET_IN_AT_MOST, Ledger, LetIn, Move, NewEntry,
    OpenLimits, Opened, Retention, STANDING_AT_MOST, Standing, Transition,
};
use crate::payment::{
    Amount, ClientPubkey, InvocationIdentity, PayReq, PaymentInteraction, PaymentRequest,
    RequestEventId, Settlement, Timestamp, Unit,
};

const AT: Timestamp = Timestamp::from_secs(1_000);
const CLIENT: ClientPubkey = ClientPubkey::from_bytes([1; 32]);
const IDENTITY: InvocationIdentity = InvocationIdentity::from_bytes([1; 32]);
const TRANSPARENT: PaymentInteraction = PaymentInteraction::Transparent;

fn event(n: u8) -> RequestEventId {
    RequestEventId::from_bytes([n; 32])
}

fn sats() -> Amount {
    Amount::new(7, Unit::SATS).unwrap()
}

fn new(n: u8) -> NewEntry {
    NewEntry {
        id: event(n),
        client: CLIENT,
        identity: IDENTITY,
        capability: "tool:add".to_owned(),
        interaction: TRANSPARENT,
        pmi: "fake".parse().unwrap(),
        amount: sats(),
        description: String::new(),
        meta: None,
        request: None,
        route: String::new(),
        deadline: AT,
        quoted_at: AT,
    }
}

fn open(ledger: &MemoryLedger, n: u8, limits: OpenLimits) -> Opened {
    block_on(ledger.open(new(n), limits)).unwrap()
}

fn apply(ledger: &MemoryLedger, n: u8, moves: Vec<Transition>) -> Applied {
    block_on(ledger.apply(&event(n), moves, AT)).unwrap()
}

fn issue() -> Transition {
    let pay_req = PayReq::new("fake:1");
    Transition::Issue {
        payment_request: PaymentRequest::new("fake".parse().unwrap(), sats(), pay_req, "1"),
        watch_until: AT,
    }
}

fn settle() -> Transition {
    Transition::Settle(Settlement::new(sats(), "paid"))
}

fn gone() -> Transition {
    Transition::Detach {
        reason: "gone".to_owned(),
    }
}

/// What one thread does.
type Body = fn(&MemoryLedger) -> usize;

/// Runs all of `bodies` in threads of their own, and gives back what they return.
fn side_by_side<T: Send + 'static>(
    ledger: &Arc<MemoryLedger>,
    bodies: Vec<fn(&MemoryLedger) -> T>,
) -> Vec<T> {
    let threads: Vec<_> = bodies
        .into_iter()
        .map(|body| {
            let ledger = Arc::clone(ledger);
            thread::spawn(move || body(&ledger))
        })
        .collect();
    threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect()
}

/// Runs `body` under every schedule there is, of which there must be many.
fn every_order(body: impl Fn() + Send + Sync + 'static) {
    let orders = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&orders);
    let body = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        body();
    };
    shuttle::check_dfs(body, None);
    let orders = orders.load(Ordering::SeqCst);
    assert!(orders > 5, "only {orders} orders");
}

#[test]
fn one_authorization_is_claimed_by_one_in_every_order() {
    every_order(|| {
        let ledger = Arc::new(MemoryLedger::new());
        open(&ledger, 1, OpenLimits::default());
        apply(&ledger, 1, vec![issue(), gone(), settle()]);
        let claims = side_by_side(
            &ledger,
            vec![
                |ledger| claimed_by(ledger, 10),
                |ledger| claimed_by(ledger, 11),
                |ledger| {
                    usize::from(matches!(
                        apply(ledger, 1, vec![Transition::Claim { by: event(1) }]),
                        Applied::Moved(_)
                    ))
                },
            ],
        );
        assert_eq!(claims.iter().sum::<usize>(), 1);
    });
}

fn claimed_by(ledger: &MemoryLedger, by: u8) -> usize {
    let caller = Caller::new(CLIENT, event(by), IDENTITY);
    let claimed = block_on(ledger.claim_authorization(&caller, TRANSPARENT, AT)).unwrap();
    usize::from(claimed.is_some())
}

/// A settlement that is noticed twice, and a request that stops waiting meanwhile: executed once or an authorization, once.
#[test]
fn a_settlement_is_one_execution_or_one_authorization_in_every_order() {
    let notice = |ledger: &MemoryLedger| {
        apply(ledger, 1, vec![settle()]);
        0
    };
    let serve = |ledger: &MemoryLedger| {
        let moves = vec![settle(), Transition::Claim { by: event(1) }];
        usize::from(matches!(apply(ledger, 1, moves), Applied::Moved(_)))
    };
    let give_up = |ledger: &MemoryLedger| {
        apply(ledger, 1, vec![gone()]);
        claimed_by(ledger, 9)
    };
    let meetings: [[Body; 2]; 3] = [[notice, serve], [serve, give_up], [notice, give_up]];
    for bodies in meetings {
        every_order(move || {
            let ledger = Arc::new(MemoryLedger::new());
            open(&ledger, 1, OpenLimits::default());
            apply(&ledger, 1, vec![issue()]);
            let executed: usize = side_by_side(&ledger, bodies.to_vec()).iter().sum();
            let later = claimed_by(&ledger, 10);
            let entry = block_on(ledger.get(&event(1))).unwrap().unwrap();
            assert_eq!(executed + later, 1, "{:?}", entry.history);
            assert_eq!(entry.state, EntryState::Claimed);
        });
    }
}

/// Two copies of one event and another request, with room for one offer: one entry, and the limit holds.
#[test]
fn one_event_opens_one_entry_and_the_limit_holds_in_every_order() {
    every_order(|| {
        let ledger = Arc::new(MemoryLedger::new());
        let one = |ledger: &MemoryLedger| open(ledger, 1, OpenLimits::new(1, 1));
        let other = |ledger: &MemoryLedger| open(ledger, 2, OpenLimits::new(1, 1));
        let opened = side_by_side(&ledger, vec![one, one, other]);
        let new = opened
            .iter()
            .filter(|it| matches!(it, Opened::New(_)))
            .count();
        assert_eq!(new, 1, "{opened:?}");
        let entries = block_on(ledger.list(&EntryFilter::new(Vec::new(), 10))).unwrap();
        assert_eq!(entries.len(), 1);
    });
}
