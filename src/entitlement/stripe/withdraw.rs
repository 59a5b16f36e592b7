//! A payment for a single call was given back before the call was made: the right to it goes.

use super::desk::Desk;
use crate::error::Result;
use crate::ledger::{Applied, EntryState, Transition};
use crate::payment::RequestEventId;

/// How orders of the gate begin; the name of the entry follows.
const ORDER: &str = "tollkeeper-";

impl Desk {
    /// Uses up the authorization of the order `key`, if there is one that nobody has claimed. What was executed before stays
    /// executed.
    pub(super) async fn withdraw(&self, key: &str, how: &str) -> Result<()> {
        let (Some(ledger), Some(id)) = (&self.ledger, entry_of(key)) else {
            return Ok(());
        };
        let Some(entry) = ledger.get(&id).await? else {
            return Ok(());
        };
        if entry.state != EntryState::Settled || entry.waiting {
            return Ok(());
        }
        let moves = vec![
            Transition::Claim { by: id },
            Transition::Deliver { response: None },
        ];
        if let Applied::Moved(_) = ledger.apply(&id, moves, self.clock.now()).await? {
            tracing::warn!(entry = %id, how, "the money for a call that was not made yet was taken back; the right to it is gone");
        }
        Ok(())
    }
}

fn entry_of(key: &str) -> Option<RequestEventId> {
    key.strip_prefix(ORDER)?.parse().ok()
}
