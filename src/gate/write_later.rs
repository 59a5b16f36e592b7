//! What happened and could not be written down is tried again until it can be: an entry that stays `claimed` is given back at the
//! next start, and its buyer would have the right to a second execution.

use std::sync::Arc;
use std::time::Duration;

use super::Gate;
use super::log::log_money;
use crate::error::Result;
use crate::ledger::{Applied, GiveBack, Transition};
use crate::payment::RequestEventId;

/// How long between two tries.
const AGAIN: Duration = Duration::from_secs(5);

/// What could not be written down.
#[derive(Debug, Clone)]
pub(super) enum Unwritten {
    /// A move of an entry.
    Move(Transition),
    /// The end of one, with money that goes back.
    GiveBack(GiveBack),
}

impl Gate {
    /// Writes `unwritten` down as soon as the ledger takes it, while the gate is open. There are no more of these than calls that
    /// were open when the ledger failed: it lets no new ones in.
    pub(super) fn write_later(self: &Arc<Self>, entry: RequestEventId, unwritten: Unwritten) {
        let gate = Arc::clone(self);
        self.tasks.spawn(async move {
            let mut open = gate
                .closing
                .run_until_cancelled(tokio::time::sleep(AGAIN))
                .await;
            while open.is_some() {
                match gate.write(&entry, unwritten.clone()).await {
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

    async fn write(&self, entry: &RequestEventId, unwritten: Unwritten) -> Result<Applied> {
        let now = self.clock.now();
        match unwritten {
            Unwritten::Move(transition) => self.ledger.apply(entry, vec![transition], now).await,
            Unwritten::GiveBack(back) => self.ledger.give_back(entry, back, now).await,
        }
    }
}
