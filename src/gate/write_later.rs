//! What happened and could not be written down is tried again until it can be: an entry that stays `claimed` is given back at the
//! next start, and its buyer would have the right to a second execution.

use std::sync::Arc;
use std::time::Duration;

use super::Gate;
use super::log::log_money;
use crate::ledger::{Applied, Transition};
use crate::payment::RequestEventId;

/// How long between two tries.
const AGAIN: Duration = Duration::from_secs(5);

impl Gate {
    /// Makes `transition` as soon as the ledger takes it, while the gate is open. There are no more of these than calls that
    /// were open when the ledger failed: it lets no new ones in.
    pub(super) fn write_later(self: &Arc<Self>, entry: RequestEventId, transition: Transition) {
        let gate = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut open = gate
                .closing
                .run_until_cancelled(tokio::time::sleep(AGAIN))
                .await;
            while open.is_some() {
                let moves = vec![transition.clone()];
                match gate.ledger.apply(&entry, moves, gate.clock.now()).await {
                    Ok(Applied::Moved(entry)) => return log_money(&entry, "written down at last"),
                    Ok(Applied::Already(_) | Applied::Refused(_)) => return,
                    Err(_) => {
                        open = gate
                            .closing
                            .run_until_cancelled(tokio::time::sleep(AGAIN))
                            .await
                    }
                }
            }
        });
    }
}
