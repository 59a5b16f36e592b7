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
mod authorizations;
mod entries;
mod free_calls;
mod licence_books;
mod purchases;
mod remembering;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use licence_books::run as licence_books;
pub use purchases::run as purchases;

use super::{Applied, Ledger, NewEntry, OpenLimits, Opened, Transition};
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
    entries::run(&make).await;
    authorizations::run(&make).await;
    remembering::run(&make).await;
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

#[cfg(test)]
mod tests {
    use super::super::MemoryLedger;
    use super::*;

    #[tokio::test]
    async fn the_ledger_in_memory_conforms() {
        run(|| async { Arc::new(MemoryLedger::new()) }).await;
    }
}
