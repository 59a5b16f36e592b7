//! Keeps the books from growing for ever: what stands for no money is forgotten after a while.

use std::sync::Arc;
use std::time::Duration;

use super::Gate;
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
        gate.prune().await;
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
            match self.ledger.prune(retention).await {
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
}
