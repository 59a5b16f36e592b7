//! The sums of the demo: the ledger says what was paid, the server says what was executed, the buyer what came of it.

use std::sync::Arc;

use serde::Serialize;

use super::buyer::Bought;
use crate::error::Result;
use crate::ledger::{EntryFilter, EntryState, Ledger};

/// More entries than the demo makes.
const ALL: usize = 10_000;

#[derive(Debug, Serialize)]
#[serde(tag = "event", rename = "summary")]
pub(super) struct Tally {
    pub(super) free_calls: usize,
    pub(super) paid_calls: usize,
    pub(super) rejected_calls: usize,
    pub(super) settled_sats: u64,
    pub(super) executions: usize,
    pub(super) ledger_open: usize,
    #[serde(skip)]
    buyer_agrees: bool,
}

impl Tally {
    pub(super) async fn add_up(
        ledger: &Arc<dyn Ledger>,
        bought: &Bought,
        executions: usize,
    ) -> Result<Self> {
        let entries = ledger.list(&EntryFilter::new(Vec::new(), ALL)).await?;
        let delivered = entries
            .iter()
            .filter(|entry| entry.state == EntryState::Delivered)
            .count();
        let settled_sats = entries
            .iter()
            .filter_map(|entry| entry.settlement.as_ref())
            .map(|settled| settled.amount.value())
            .sum();
        Ok(Self {
            free_calls: bought.free,
            paid_calls: delivered,
            rejected_calls: bought.rejected,
            settled_sats,
            executions,
            ledger_open: entries
                .iter()
                .filter(|entry| !entry.state.is_final())
                .count(),
            buyer_agrees: bought.paid == delivered && bought.spent_sats == settled_sats,
        })
    }

    /// Whether everything that was paid was executed, once, and nothing else was.
    pub(super) fn balances(&self) -> bool {
        self.buyer_agrees
            && self.ledger_open == 0
            && self.executions == self.free_calls + self.paid_calls
    }
}
