//! A ledger in memory: for tests and trials. It forgets everything when the process ends, money included.

mod accounts;
mod free_calls;
mod licence_books;
mod purchases;

use std::collections::{HashMap, VecDeque};

use async_trait::async_trait;

use self::accounts::AccountBooks;
use self::free_calls::FreeBooks;
use self::licence_books::Licences;
use self::purchases::Purchases;
use super::sync::{Mutex, MutexGuard, PoisonError};
use super::{
    Applied, Caller, Entry, EntryFilter, EntryState, LET_IN_AT_MOST, Ledger, LetIn, Move, NewEntry,
    OpenLimits, Opened, Retention, STANDING_AT_MOST, Standing, Transition,
};
use crate::error::{Error, Result};
use crate::payment::{
    ClientPubkey, InvocationIdentity, PaymentInteraction, Pmi, RequestEventId, Timestamp,
};

/// Keeps entries in memory. Not for money: what is not on disk is lost with the process.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    books: Mutex<Books>,
    free: Mutex<FreeBooks>,
    licences: Mutex<Licences>,
    accounts: Mutex<AccountBooks>,
    purchases: Mutex<Purchases>,
}

/// The entries, and what finds them without reading all.
#[derive(Debug, Default)]
struct Books {
    entries: HashMap<RequestEventId, Entry>,
    by_call: HashMap<(ClientPubkey, InvocationIdentity), Vec<RequestEventId>>,
    by_claimer: HashMap<RequestEventId, RequestEventId>,
    open_of_client: HashMap<ClientPubkey, usize>,
    open: usize,
    by_reference: HashMap<(Pmi, String), RequestEventId>,
    answered: HashMap<RequestEventId, Timestamp>,
    let_in: VecDeque<LetIn>,
}

impl MemoryLedger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn free(&self) -> MutexGuard<'_, FreeBooks> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn account_books(&self) -> MutexGuard<'_, AccountBooks> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn licences(&self) -> MutexGuard<'_, Licences> {
        self.licences.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn purchase_books(&self) -> MutexGuard<'_, Purchases> {
        self.purchases
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// Takes out an entry that ended unpaid.
    fn forget(&mut self, entry: &Entry) {
        self.entries.remove(&entry.id);
        if let Some(reference) = entry.reference() {
            self.by_reference.remove(&reference);
        }
        if let Some(ids) = self.by_call.get_mut(&(entry.client, entry.identity)) {
            ids.retain(|id| *id != entry.id);
            if ids.is_empty() {
                self.by_call.remove(&(entry.client, entry.identity));
            }
        }
    }

    /// Writes `entry` in the place of what was there.
    fn put(&mut self, entry: &Entry) {
        let before = self.entries.insert(entry.id, entry.clone());
        let was_open = before
            .as_ref()
            .is_some_and(|before| before.state.is_open_offer());
        if before.is_none() {
            self.by_call
                .entry((entry.client, entry.identity))
                .or_default()
                .push(entry.id);
        }
        if let Some(claimer) = before.and_then(|before| before.claimed_by) {
            self.by_claimer.remove(&claimer);
        }
        if let Some(claimer) = entry.claimed_by {
            self.by_claimer.insert(claimer, entry.id);
        }
        if let Some(reference) = entry.reference() {
            self.by_reference.insert(reference, entry.id);
        }
        let of_client = self.open_of_client.entry(entry.client).or_default();
        match (was_open, entry.state.is_open_offer()) {
            (false, true) => {
                *of_client += 1;
                self.open += 1;
            }
            (true, false) => {
                *of_client -= 1;
                self.open -= 1;
            }
            _ => {}
        }
    }

    /// Whether another entry has the payment request of `entry`: one payment would then settle both.
    fn reference_is_taken(&self, entry: &Entry) -> bool {
        let owner = entry
            .reference()
            .and_then(|reference| self.by_reference.get(&reference));
        owner.is_some_and(|owner| *owner != entry.id)
    }

    /// The entry that a request has opened or claimed.
    fn of_event(&self, event: &RequestEventId) -> Option<&Entry> {
        let claimed = || self.by_claimer.get(event);
        self.entries
            .get(event)
            .or_else(|| self.entries.get(claimed()?))
    }

    /// The entries of one call by one client, oldest first.
    fn of_call(&self, client: ClientPubkey, identity: InvocationIdentity) -> Vec<&Entry> {
        let ids = self.by_call.get(&(client, identity));
        let mut entries: Vec<&Entry> = ids
            .into_iter()
            .flatten()
            .filter_map(|id| self.entries.get(id))
            .collect();
        entries.sort_by_key(|entry| (entry.quoted_at, entry.id));
        entries
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn open(&self, new: NewEntry, limits: OpenLimits) -> Result<Opened> {
        let mut books = self.books();
        if let Some(entry) = books.of_event(&new.id) {
            return Ok(Opened::Exists(entry.clone()));
        }
        let of_call = books.of_call(new.client, new.identity);
        if of_call
            .iter()
            .any(|entry| entry.is_claimable_under(new.interaction))
        {
            return Ok(Opened::Authorized);
        }
        if new.interaction == PaymentInteraction::ExplicitGating {
            let outstanding = of_call
                .into_iter()
                .find(|entry| entry.state.is_open_offer() && entry.interaction == new.interaction);
            if let Some(entry) = outstanding {
                return Ok(Opened::Outstanding(entry.clone()));
            }
        }
        let of_client = books
            .open_of_client
            .get(&new.client)
            .copied()
            .unwrap_or_default();
        if of_client >= limits.per_client || books.open >= limits.total {
            return Ok(Opened::Full);
        }
        let entry = Entry::quoted(new);
        books.put(&entry);
        Ok(Opened::New(entry))
    }

    async fn apply(
        &self,
        id: &RequestEventId,
        moves: Vec<Transition>,
        at: Timestamp,
    ) -> Result<Applied> {
        let mut books = self.books();
        let entry = books
            .entries
            .get(id)
            .ok_or_else(|| Error::ledger("no such entry"))?;
        let applied = entry.make_all(moves, at);
        if let Applied::Moved(moved) = &applied {
            if books.reference_is_taken(moved) {
                return Ok(Applied::Refused(entry.clone()));
            }
            books.put(moved);
        }
        Ok(applied)
    }

    async fn claim_authorization(
        &self,
        caller: &Caller,
        interaction: PaymentInteraction,
        at: Timestamp,
    ) -> Result<Option<Entry>> {
        let mut books = self.books();
        if books.of_event(&caller.event).is_some() {
            return Ok(None);
        }
        let oldest = books
            .of_call(caller.client, caller.identity)
            .into_iter()
            .find(|entry| entry.is_claimable_under(interaction))
            .cloned();
        let Some(mut entry) = oldest else {
            return Ok(None);
        };
        if !matches!(
            entry.make(Transition::Claim { by: caller.event }, at),
            Move::To(_)
        ) {
            return Ok(None);
        }
        books.put(&entry);
        Ok(Some(entry))
    }

    async fn standing(&self, caller: &Caller) -> Result<Standing> {
        let books = self.books();
        let of_event = books.of_event(&caller.event).cloned();
        let (paid, unpaid): (Vec<&Entry>, Vec<&Entry>) = books
            .of_call(caller.client, caller.identity)
            .into_iter()
            .filter(|entry| !entry.state.is_final())
            .partition(|entry| entry.is_authorization());
        let of_identity = paid
            .into_iter()
            .chain(unpaid.into_iter().rev())
            .take(STANDING_AT_MOST)
            .cloned()
            .collect();
        let answered =
            books.answered.contains_key(&caller.event) || self.free().holds(&caller.event);
        Ok(Standing {
            of_event,
            answered,
            of_identity,
        })
    }

    async fn note_answered(&self, event: &RequestEventId, at: Timestamp) -> Result<bool> {
        let mut books = self.books();

        Ok(books.answered.insert(*event, at).is_none())
    }

    async fn note_let_in(&self, events: Vec<LetIn>) -> Result<()> {
        let let_in = &mut self.books().let_in;
        let_in.extend(events);
        let_in.drain(..let_in.len().saturating_sub(LET_IN_AT_MOST));
        Ok(())
    }

    async fn let_in_since(&self, since: Timestamp) -> Result<Vec<LetIn>> {
        let books = self.books();
        let recent = books.let_in.iter().filter(|noted| noted.at >= since);
        Ok(recent.copied().collect())
    }

    async fn prune(&self, retention: Retention) -> Result<usize> {
        let mut books = self.books();
        let gone: Vec<Entry> = books
            .entries
            .values()
            .filter(|entry| entry.is_forgettable(retention.unpaid_before))
            .cloned()
            .collect();
        for entry in &gone {
            books.forget(entry);
        }
        let mut changed = gone.len() + books.answered.len();
        books
            .answered
            .retain(|_, answered| *answered >= retention.answered_before);
        changed -= books.answered.len();
        changed += books.let_in.len();
        books
            .let_in
            .retain(|noted| noted.at >= retention.answered_before);
        changed -= books.let_in.len();
        for entry in books.entries.values_mut() {
            if entry.has_old_response(retention.responses_before) {
                entry.response = None;
                changed += 1;
            }
        }
        Ok(changed)
    }

    async fn get(&self, id: &RequestEventId) -> Result<Option<Entry>> {
        Ok(self.books().entries.get(id).cloned())
    }

    async fn list(&self, filter: &EntryFilter) -> Result<Vec<Entry>> {
        let wanted = |state: &EntryState| filter.states.is_empty() || filter.states.contains(state);
        let mut listed: Vec<Entry> = self
            .books()
            .entries
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
