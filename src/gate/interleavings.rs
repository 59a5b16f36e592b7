//! Every order in which threads can meet on what the gate keeps of a request in memory: the same file, compiled once more with
//! locks that a scheduler controls.

mod sync {
    pub(super) use shuttle::sync::{Mutex, MutexGuard};
    pub(super) use std::sync::PoisonError;
}

#[path = "waiting.rs"]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "only some of it is looked at here"
)]
mod waiting;

use std::sync::atomic::{AtomicUsize, Ordering};

use shuttle::sync::Arc;
use shuttle::thread;

use self::waiting::Waiting;
use crate::payment::{ClientPubkey, RequestEventId, Timestamp};
use crate::transport::{Inbound, Origin};
use crate::wire::Request;

const CLIENT: ClientPubkey = ClientPubkey::from_bytes([1; 32]);
const EVENT: RequestEventId = RequestEventId::from_bytes([2; 32]);

fn request() -> Request {
    Request::new(7, "tools/call", &serde_json::json!({})).unwrap()
}

fn inbound() -> Inbound {
    let origin = Origin::new(CLIENT, EVENT, Timestamp::from_secs(1));
    Inbound::new(request().into(), origin)
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
    assert!(orders > 50, "only {orders} orders");
}

/// A request is looked at and parked, its client takes it back, its money comes: whatever meets when, it is served or taken
/// back, never both and never neither.
#[test]
fn a_request_is_served_or_taken_back_in_every_order() {
    every_order(|| {
        let waiting = Arc::new(Waiting::default());
        waiting.enter(EVENT, CLIENT, &request().id);
        let looking = {
            let waiting = Arc::clone(&waiting);
            thread::spawn(move || waiting.park(EVENT, inbound()))
        };
        let cancelling = {
            let waiting = Arc::clone(&waiting);
            thread::spawn(move || {
                let taken = waiting.take_back(&CLIENT, &request().id);
                (taken.looked_at, taken.parked.is_some())
            })
        };
        let paying = {
            let waiting = Arc::clone(&waiting);
            thread::spawn(move || waiting.take(&EVENT).is_some())
        };
        let parked = looking.join().unwrap();
        let (found_at_the_door, found_parked) = cancelling.join().unwrap();
        let served = paying.join().unwrap() || waiting.take(&EVENT).is_some();
        waiting.leave(&EVENT);
        assert!(!(served && found_parked), "served, and taken back");
        assert!(parked || found_at_the_door, "turned away by nobody");
        assert_eq!(served || found_parked, parked, "parked, and lost");
        assert_eq!(waiting.parked(), 0);
        assert!(!waiting.is_cancelled(&EVENT), "nothing is left of it");
    });
}

/// Copies of one event, and several notices of one payment: it is handed out once.
#[test]
fn of_all_who_would_serve_a_request_one_gets_it_in_every_order() {
    every_order(|| {
        let waiting = Arc::new(Waiting::default());
        let served = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let (waiting, served) = (Arc::clone(&waiting), Arc::clone(&served));
                thread::spawn(move || {
                    if n == 0 {
                        assert!(waiting.park(EVENT, inbound()));
                    } else if waiting.take(&EVENT).is_some() {
                        served.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let left = usize::from(waiting.take(&EVENT).is_some());
        assert_eq!(served.load(Ordering::SeqCst) + left, 1);
    });
}
