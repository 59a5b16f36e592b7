//! A payment was given back, or is wanted back: what it bought goes, as far as it is still there.
//!
//! | it paid for | goes |
//! |---|---|
//! | a call that was not made yet | the right to it |
//! | money paid ahead, or left over from a call | as much of it as is on the account |
//! | a licence | the licence |
//! | a call that was made | nothing: it stays made |

use super::desk::Desk;
use crate::error::{Error, Result};
use crate::ledger::{Applied, EntryState, Ledger, LicenceBooks, Transition};
use crate::payment::RequestEventId;

/// How orders of the gate begin; the name of the entry follows.
const ORDER: &str = "tollkeeper-";
/// How many licences are read at a time.
const PAGE: usize = 500;

impl Desk {
    /// Takes away what the order `key` bought. Safe to repeat. An error while it is being handed over: then it is not known yet
    /// what that is, and the notice must be acted upon again.
    pub(super) async fn withdraw(&self, key: &str, how: &str) -> Result<()> {
        let (Some(ledger), Some(id)) = (&self.ledger, entry_of(key)) else {
            return Ok(());
        };
        let Some(entry) = ledger.get(&id).await? else {
            return Ok(());
        };
        match entry.state {
            EntryState::Settled if !entry.waiting => {
                let moves = vec![
                    Transition::Claim { by: id },
                    Transition::Deliver { response: None },
                ];
                let Applied::Moved(_) = ledger.apply(&id, moves, self.clock.now()).await? else {
                    return Err(being_handed_over());
                };
                tracing::warn!(entry = %id, how, "the money for a call that was not made yet was taken back; the right to it is gone");
            }
            EntryState::Settled | EntryState::Claimed => return Err(being_handed_over()),
            EntryState::Delivered => {}
            _ => return Ok(()),
        }
        // Also where the right to the call had come back: it may have been handed over right before a crash.
        self.take_off_the_account(&**ledger, &id, how).await?;
        match &self.licences {
            Some(licences) => self.take_licences(&**licences, &id, how).await,
            None => Ok(()),
        }
    }

    async fn take_off_the_account(
        &self,
        ledger: &dyn Ledger,
        id: &RequestEventId,
        how: &str,
    ) -> Result<()> {
        if let Some(taken) = ledger.take_back(id, self.clock.now()).await? {
            tracing::warn!(
                entry = %id, how, amount = taken.value(), unit = %taken.unit(),
                "money that was paid ahead was taken back; what was left of it is off the account"
            );
        }
        Ok(())
    }

    async fn take_licences(
        &self,
        licences: &dyn LicenceBooks,
        id: &RequestEventId,
        how: &str,
    ) -> Result<()> {
        let purchase = id.to_string();
        let mut after: Option<String> = None;
        loop {
            let page = licences.issued(after.as_deref(), PAGE).await?;
            for licence in &page {
                if licence.purchase == purchase && licence.revoked.is_none() {
                    licences.take_back(&licence.id, self.clock.now()).await?;
                    tracing::warn!(entry = %id, how, licence = licence.id, "the money for a licence was taken back; it does not count any more");
                }
            }
            match page.last() {
                Some(last) => after = Some(last.id.clone()),
                None => return Ok(()),
            }
        }
    }
}

fn being_handed_over() -> Error {
    Error::ledger(
        "what was paid for is being handed over; what becomes of the refund is decided then",
    )
}

fn entry_of(key: &str) -> Option<RequestEventId> {
    key.strip_prefix(ORDER)?.parse().ok()
}
