//! Accounts in memory.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;

use super::{Books, MemoryLedger};
use crate::error::{Error, Result};
use crate::ledger::accounts::{
    already_elsewhere, draw_key, give_back_key, more_than_paid, paid_at_once, taken_back,
    taken_back_key, too_much, top_up_key,
};
use crate::ledger::{
    Account, Accounts, Applied, Credit, Drawn, Entry, GiveBack, Movement, MovementKind, NewEntry,
    Opened, Transition,
};
use crate::payment::{Amount, ClientPubkey, RequestEventId, Timestamp, Unit};

/// What is on the accounts, and how it came there.
#[derive(Debug, Default)]
pub(super) struct AccountBooks {
    accounts: BTreeMap<(ClientPubkey, String), Account>,
    movements: Vec<(ClientPubkey, Unit, Movement)>,
    keys: HashSet<String>,
}

impl AccountBooks {
    fn account(&self, client: &ClientPubkey, unit: &Unit) -> Option<&Account> {
        self.accounts.get(&(*client, unit.to_string()))
    }

    fn on(&self, client: &ClientPubkey, unit: &Unit) -> u64 {
        self.account(client, unit)
            .map_or(0, |account| account.amount.value())
    }

    /// Moves an account to `left`, unless a movement of that name was made before.
    fn move_to(&mut self, left: u64, moved: &Credit) -> Result<Account> {
        let Credit {
            client,
            amount,
            kind,
            key,
            at,
        } = moved;
        let unit = amount.unit();
        let before = self.on(client, unit);
        let left_amount = match left {
            0 => Amount::zero(unit.clone()),
            left => Amount::new(left, unit.clone())?,
        };
        let account = Account {
            client: *client,
            amount: left_amount,
            touched_at: *at,
        };
        self.keys.insert(key.clone());
        self.accounts
            .insert((*client, unit.to_string()), account.clone());
        let movement = Movement {
            number: self.movements.len() as u64 + 1,
            kind: *kind,
            key: key.clone(),
            off: before.saturating_sub(left),
            on: left.saturating_sub(before),
            left,
            at: *at,
        };
        self.movements.push((*client, unit.clone(), movement));
        Ok(account)
    }

    fn credit(&mut self, credit: &Credit) -> Result<Account> {
        let on = self.on(&credit.client, credit.amount.unit());
        if self.keys.contains(&credit.key) {
            let account = self.account(&credit.client, credit.amount.unit());
            return account.cloned().ok_or_else(already_elsewhere);
        }
        let left = on.checked_add(credit.amount.value()).ok_or_else(too_much)?;
        self.move_to(left, credit)
    }
}

#[async_trait]
impl Accounts for MemoryLedger {
    async fn draw(&self, new: NewEntry, at: Timestamp) -> Result<Drawn> {
        let mut books = self.books();
        let mut accounts = self.account_books();
        let on = accounts.on(&new.client, new.amount.unit());
        if let Some(opened) = books.refusal(&new) {
            return Ok(Drawn::Refused(opened));
        }
        let Some(left) = on.checked_sub(new.amount.value()) else {
            return Ok(Drawn::Short);
        };
        let quoted = Entry::quoted(new);
        let Applied::Moved(entry) = quoted.make_all(paid_at_once(&quoted, at), at) else {
            return Err(Error::ledger("an entry cannot be paid"));
        };
        let taken = Credit {
            client: entry.client,
            amount: entry.amount.clone(),
            kind: MovementKind::Draw,
            key: draw_key(&entry.id),
            at,
        };
        let left = accounts.move_to(left, &taken)?.amount;
        books.put(&entry);
        Ok(Drawn::Paid { entry, left })
    }

    async fn credit(&self, credit: Credit) -> Result<Account> {
        self.account_books().credit(&credit)
    }

    async fn give_back(
        &self,
        id: &RequestEventId,
        back: GiveBack,
        at: Timestamp,
    ) -> Result<Applied> {
        let mut books = self.books();
        let mut accounts = self.account_books();
        let entry = books
            .entries
            .get(id)
            .ok_or_else(|| Error::ledger("no such entry"))?;
        let response = back.response.clone();
        let applied = entry.make_all(vec![Transition::Deliver { response }], at);
        if let Applied::Moved(moved) = &applied {
            let credit = back.credit(moved, at).ok_or_else(more_than_paid)?;
            if credit.amount.value() > 0 {
                accounts.credit(&credit)?;
            }
            books.put(moved);
        }
        Ok(applied)
    }

    async fn take_back(&self, id: &RequestEventId, at: Timestamp) -> Result<Option<Amount>> {
        let mut accounts = self.account_books();
        if accounts.keys.contains(&taken_back_key(id)) {
            return Ok(None);
        }
        let names = [top_up_key(id), give_back_key(id)];
        let of_entry = accounts.movements.iter();
        let of_entry = of_entry.filter(|(.., movement)| names.contains(&movement.key));
        let put: u64 = of_entry.clone().map(|(.., movement)| movement.on).sum();
        let Some((client, unit)) = of_entry.map(|(of, unit, _)| (*of, unit.clone())).next() else {
            return Ok(None);
        };
        let on = accounts.on(&client, &unit);
        let taken = taken_back(id, client, (put, on), unit, at)?;
        accounts.move_to(on - taken.amount.value(), &taken)?;
        Ok(Some(taken.amount))
    }

    async fn account(&self, client: &ClientPubkey, unit: &Unit) -> Result<Option<Account>> {
        Ok(self.account_books().account(client, unit).cloned())
    }

    async fn accounts(
        &self,
        after: Option<(ClientPubkey, Unit)>,
        limit: usize,
    ) -> Result<Vec<Account>> {
        let after = after.map(|(client, unit)| (client, unit.to_string()));
        let accounts = self.account_books();
        let listed = accounts
            .accounts
            .iter()
            .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after))
            .take(limit);
        Ok(listed.map(|(_, account)| account.clone()).collect())
    }

    async fn movements(
        &self,
        client: &ClientPubkey,
        unit: &Unit,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Movement>> {
        let accounts = self.account_books();
        let listed = accounts
            .movements
            .iter()
            .filter(|(of, in_unit, m)| of == client && in_unit == unit && m.number > after)
            .take(limit);
        Ok(listed.map(|(.., movement)| movement.clone()).collect())
    }

    async fn latest_movements(
        &self,
        client: &ClientPubkey,
        unit: &Unit,
        limit: usize,
    ) -> Result<Vec<Movement>> {
        let accounts = self.account_books();
        let listed = accounts
            .movements
            .iter()
            .rev()
            .filter(|(of, in_unit, _)| of == client && in_unit == unit)
            .take(limit);
        Ok(listed.map(|(.., movement)| movement.clone()).collect())
    }

    async fn expire_accounts(&self, since: Timestamp, at: Timestamp) -> Result<usize> {
        let mut accounts = self.account_books();
        let lapsed: Vec<Account> = accounts
            .accounts
            .values()
            .filter(|account| account.touched_at < since && account.amount.value() > 0)
            .cloned()
            .collect();
        for account in &lapsed {
            let unit = account.amount.unit();
            let taken = Credit {
                client: account.client,
                amount: account.amount.clone(),
                kind: MovementKind::Expired,
                key: format!("expired:{}:{unit}:{}", account.client, at.as_millis()),
                at,
            };
            accounts.move_to(0, &taken)?;
        }
        Ok(lapsed.len())
    }
}

impl Books {
    /// Why no entry can be opened for `new`, whatever the limits.
    fn refusal(&self, new: &NewEntry) -> Option<Opened> {
        if let Some(entry) = self.of_event(&new.id) {
            return Some(Opened::Exists(entry.clone()));
        }
        let of_call = self.of_call(new.client, new.identity);
        if of_call
            .iter()
            .any(|e| e.is_claimable_under(new.interaction))
        {
            return Some(Opened::Authorized);
        }
        let outstanding = of_call
            .into_iter()
            .find(|entry| entry.state.is_open_offer() && entry.interaction == new.interaction);
        outstanding
            .filter(|_| new.interaction == crate::payment::PaymentInteraction::ExplicitGating)
            .map(|entry| Opened::Outstanding(entry.clone()))
    }
}
