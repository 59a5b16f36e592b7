//! A ledger in memory: for tests and trials. It forgets everything when the process ends, money included.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{
    Applied, Caller, Entry, EntryFilter, EntryState, Ledger, Move, NewEntry, OpenLimits, Opened,
    STANDING_AT_MOST, Standing, Transition,
};
use crate::error::{Error, Result};
use crate::payment::{PaymentInteraction, RequestEventId, Timestamp};

/// Keeps entries in memory. Not for money: what is not on disk is lost with the process.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    entries: Mutex<HashMap<RequestEventId, Entry>>,
}

impl MemoryLedger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<RequestEventId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn open(&self, new: NewEntry, limits: OpenLimits) -> Result<Opened> {
        let mut entries = self.entries();
        if let Some(entry) = entries.get(&new.id) {
            return Ok(Opened::Exists(entry.clone()));
        }
        let (mut of_client, mut total) = (0, 0);
        for entry in entries.values().filter(|entry| entry.state.is_open_offer()) {
            total += 1;
            if entry.client == new.client {
                of_client += 1;
                if new.interaction == PaymentInteraction::ExplicitGating
                    && entry.interaction == new.interaction
                    && entry.identity == new.identity
                {
                    return Ok(Opened::Outstanding(entry.clone()));
                }
            }
        }
        if of_client >= limits.per_client || total >= limits.total {
            return Ok(Opened::Full);
        }
        let entry = Entry::quoted(new);
        entries.insert(entry.id, entry.clone());
        Ok(Opened::New(entry))
    }

    async fn apply(
        &self,
        id: &RequestEventId,
        moves: Vec<Transition>,
        at: Timestamp,
    ) -> Result<Applied> {
        let mut entries = self.entries();
        let entry = entries
            .get_mut(id)
            .ok_or_else(|| Error::ledger("no such entry"))?;
        let applied = entry.make_all(moves, at);
        if let Applied::Moved(moved) = &applied {
            *entry = moved.clone();
        }
        Ok(applied)
    }

    async fn claim_authorization(
        &self,
        caller: &Caller,
        interaction: PaymentInteraction,
        at: Timestamp,
    ) -> Result<Option<Entry>> {
        let mut entries = self.entries();
        let oldest = entries
            .values_mut()
            .filter(|entry| entry.client == caller.client && entry.identity == caller.identity)
            .filter(|entry| entry.is_claimable_under(interaction))
            .min_by_key(|entry| (entry.quoted_at, entry.id));
        Ok(oldest.and_then(|entry| {
            let step = entry.make(Transition::Claim { by: caller.event }, at);
            matches!(step, Move::To(_)).then(|| entry.clone())
        }))
    }

    async fn standing(&self, caller: &Caller) -> Result<Standing> {
        let entries = self.entries();
        let of_event = entries
            .get(&caller.event)
            .or_else(|| {
                entries
                    .values()
                    .find(|entry| entry.claimed_by == Some(caller.event))
            })
            .cloned();
        let mut of_identity: Vec<Entry> = entries
            .values()
            .filter(|entry| entry.client == caller.client && entry.identity == caller.identity)
            .filter(|entry| !entry.state.is_final())
            .cloned()
            .collect();
        of_identity.sort_by_key(|entry| (entry.quoted_at, entry.id));
        of_identity.truncate(STANDING_AT_MOST);
        Ok(Standing {
            of_event,
            of_identity,
        })
    }

    async fn get(&self, id: &RequestEventId) -> Result<Option<Entry>> {
        Ok(self.entries().get(id).cloned())
    }

    async fn list(&self, filter: &EntryFilter) -> Result<Vec<Entry>> {
        let wanted = |state: &EntryState| filter.states.is_empty() || filter.states.contains(state);
        let mut listed: Vec<Entry> = self
            .entries()
            .values()
            .filter(|entry| wanted(&entry.state))
            .filter(|entry| filter.client.is_none_or(|client| client == entry.client))
            .filter(|entry| {
                filter
                    .after
                    .is_none_or(|after| (entry.quoted_at, entry.id) > after)
            })
            .cloned()
            .collect();
        listed.sort_by_key(|entry| (entry.quoted_at, entry.id));
        listed.truncate(filter.limit);
        Ok(listed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn it_conforms() {
        super::super::conformance::run(|| async { Arc::new(MemoryLedger::new()) }).await;
    }
}
