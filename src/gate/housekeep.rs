//! Keeps the books from growing for ever: what stands for no money is forgotten after a while.

use std::sync::Arc;
use std::time::Duration;

use super::Gate;
use crate::error::Result;
use crate::ledger::{ANSWERED_FOR, Retention};

/// How often.
const EVERY: Duration = Duration::from_secs(600);

/// Prunes the ledger now and then until the gate closes.
pub(super) async fn housekeep(gate: Arc<Gate>) {
    let mut ticks = tokio::time::interval(EVERY);
    while gate
        .closing
        .run_until_cancelled(ticks.tick())
        .await
        .is_some()
    {
        if gate.keeps_house() {
            gate.prune().await;
        }
    }
}

impl Gate {
    /// Forgets what is old enough, a few hundred rows at a time, so that paid calls are never held up for long.
    async fn prune(&self) {
        let now = self.clock.now();
        let retention = Retention::new(
            now.minus(self.settings.keep_unpaid),
            now.minus(self.settings.keep_responses),
            now.minus(ANSWERED_FOR),
        );
        let mut pruned = 0;
        loop {
            match self.prune_some(retention).await {
                Ok(0) => break,
                Ok(rows) => pruned += rows,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the ledger could not be pruned"
                    );
                    return;
                }
            }
            if self.closing.is_cancelled() {
                return;
            }
            tokio::task::yield_now().await;
        }
        if pruned > 0 {
            tracing::debug!(rows = pruned, "pruned the ledger");
        }
    }

    async fn prune_some(&self, retention: Retention) -> Result<usize> {
        let (free_calls_for, free_calls) = self.settings.keep_free_calls;
        let before = self.clock.now().minus(free_calls_for);
        let rows = self.ledger.prune(retention).await?;
        let mut rows = rows + self.ledger.forget_free(before, free_calls).await?;
        if let Some(idle) = self.settings.balances_lapse_after {
            let now = self.clock.now();
            rows += self.ledger.expire_accounts(now.minus(idle), now).await?;
        }
        Ok(rows)
    }
}
