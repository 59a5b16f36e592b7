//! Accounts in the file.

use rusqlite::{Connection, OptionalExtension, Row};

use super::books::Books;
use super::rows::{self, millis, time};
use super::{SqliteLedger, failure, moves, reader};
use crate::error::{Error, Result};
use crate::ledger::accounts::{
    already_elsewhere, draw_key, give_back_key, more_than_paid, paid_at_once, taken_back,
    taken_back_key, too_much, top_up_key,
};
use crate::ledger::{
    Account, Accounts, Applied, Credit, Drawn, GiveBack, Movement, MovementKind, NewEntry,
    OpenLimits, Opened, Transition,
};
use crate::payment::{Amount, ClientPubkey, RequestEventId, Timestamp, Unit};

pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS account (
    client        TEXT NOT NULL,
    unit          TEXT NOT NULL,
    amount        INTEGER NOT NULL CHECK (amount >= 0),
    touched_at_ms INTEGER NOT NULL,
    PRIMARY KEY (client, unit)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS account_touched ON account (touched_at_ms) WHERE amount > 0;
CREATE TABLE IF NOT EXISTS movement (
    number    INTEGER PRIMARY KEY,
    client    TEXT NOT NULL,
    unit      TEXT NOT NULL,
    kind      TEXT NOT NULL,
    key       TEXT NOT NULL UNIQUE,
    change    INTEGER NOT NULL,
    left_over INTEGER NOT NULL CHECK (left_over >= 0),
    at_ms     INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS movement_of_account ON movement (client, unit, number);
";

/// The most that may be drawn while offers are open: as many as there are.
const NO_LIMITS: OpenLimits = OpenLimits::new(usize::MAX, usize::MAX);

#[async_trait::async_trait]
impl Accounts for SqliteLedger {
    async fn draw(&self, new: NewEntry, at: Timestamp) -> Result<Drawn> {
        self.write(move |books| books.all_or_nothing(|b| draw(b, new, at)))
            .await
    }

    async fn credit(&self, credit: Credit) -> Result<Account> {
        self.write(move |books| books.all_or_nothing(|b| put(b, &credit)))
            .await
    }

    async fn give_back(
        &self,
        id: &RequestEventId,
        back: GiveBack,
        at: Timestamp,
    ) -> Result<Applied> {
        let id = *id;
        self.write(move |books| books.all_or_nothing(|b| give_back(b, &id, &back, at)))
            .await
    }

    async fn take_back(&self, id: &RequestEventId, at: Timestamp) -> Result<Option<Amount>> {
        let id = *id;
        self.write(move |books| books.all_or_nothing(|b| take_back(b, &id, at)))
            .await
    }

    async fn account(&self, client: &ClientPubkey, unit: &Unit) -> Result<Option<Account>> {
        let (client, unit) = (*client, unit.clone());
        self.read(move |connection| account(connection, &client, &unit))
            .await
    }

    async fn accounts(
        &self,
        after: Option<(ClientPubkey, Unit)>,
        limit: usize,
    ) -> Result<Vec<Account>> {
        const LIST: &str = "SELECT client, unit, amount, touched_at_ms FROM account \
             WHERE (client, unit) > (?1, ?2) ORDER BY client, unit LIMIT ?3";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (client, unit) = after.map_or_else(Default::default, |(client, unit)| {
            (client.to_string(), unit.to_string())
        });
        self.read(move |connection| {
            connection
                .prepare_cached(LIST)?
                .query_map((client, unit, limit), read_account)?
                .collect()
        })
        .await
    }

    async fn movements(
        &self,
        client: &ClientPubkey,
        unit: &Unit,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Movement>> {
        const LIST: &str = "SELECT number, kind, key, change, left_over, at_ms FROM movement \
             WHERE client = ?1 AND unit = ?2 AND number > ?3 ORDER BY number LIMIT ?4";
        let of = (client.to_string(), unit.to_string());
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(move |connection| {
            connection
                .prepare_cached(LIST)?
                .query_map((of.0, of.1, after, limit), read_movement)?
                .collect()
        })
        .await
    }

    async fn latest_movements(
        &self,
        client: &ClientPubkey,
        unit: &Unit,
        limit: usize,
    ) -> Result<Vec<Movement>> {
        const LIST: &str = "SELECT number, kind, key, change, left_over, at_ms FROM movement \
             WHERE client = ?1 AND unit = ?2 ORDER BY number DESC LIMIT ?3";
        let (client, unit) = (client.to_string(), unit.to_string());
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(move |connection| {
            connection
                .prepare_cached(LIST)?
                .query_map((client, unit, limit), read_movement)?
                .collect()
        })
        .await
    }

    async fn expire_accounts(&self, since: Timestamp, at: Timestamp) -> Result<usize> {
        self.write(move |books| books.all_or_nothing(|b| expire(b, since, at)))
            .await
    }
}

fn draw(books: &mut Books, new: NewEntry, at: Timestamp) -> Result<Drawn> {
    let (client, amount) = (new.client, new.amount.clone());
    let on = account(books.connection(), &client, amount.unit()).map_err(|e| failure(&e))?;
    let on = on.map_or(0, |account| account.amount.value());
    let Some(left) = on.checked_sub(amount.value()) else {
        // What this very event has drawn already is not missing.
        let drawn = reader::of_event(books.connection(), &new.id).map_err(|e| failure(&e))?;
        return Ok(drawn.map_or(Drawn::Short, |entry| Drawn::Refused(Opened::Exists(entry))));
    };
    let quoted = match moves::open(books, new, NO_LIMITS)? {
        Opened::New(entry) => entry,
        other => return Ok(Drawn::Refused(other)),
    };
    let paid = paid_at_once(&quoted, at);
    let Applied::Moved(entry) = moves::apply(books, &quoted.id, paid, at)? else {
        return Err(Error::ledger("an entry cannot be paid"));
    };
    let taken = Credit {
        client,
        amount,
        kind: MovementKind::Draw,
        key: draw_key(&entry.id),
        at,
    };
    let left = move_to(books.connection(), left, -change(on, left)?, &taken)?.amount;
    Ok(Drawn::Paid { entry, left })
}

fn put(books: &mut Books, credit: &Credit) -> Result<Account> {
    let connection = books.connection();
    let before = account(connection, &credit.client, credit.amount.unit());
    let before = before.map_err(|e| failure(&e))?;
    let known = is_known(connection, &credit.key)?;
    let on = before.as_ref().map_or(0, |account| account.amount.value());
    if known {
        return before.ok_or_else(already_elsewhere);
    }
    let left = on.checked_add(credit.amount.value()).ok_or_else(too_much)?;
    move_to(connection, left, change(left, on)?, credit)
}

fn give_back(
    books: &mut Books,
    id: &RequestEventId,
    back: &GiveBack,
    at: Timestamp,
) -> Result<Applied> {
    let response = back.response.clone();
    let applied = moves::apply(books, id, vec![Transition::Deliver { response }], at)?;
    if let Applied::Moved(entry) = &applied {
        let credit = back.credit(entry, at).ok_or_else(more_than_paid)?;
        if credit.amount.value() > 0 {
            put(books, &credit)?;
        }
    }
    Ok(applied)
}

fn take_back(books: &mut Books, id: &RequestEventId, at: Timestamp) -> Result<Option<Amount>> {
    const PUT: &str = "SELECT client, unit, sum(change) FROM movement WHERE key IN (?1, ?2) \
         GROUP BY client, unit LIMIT 1";
    let connection = books.connection();
    if is_known(connection, &taken_back_key(id))? {
        return Ok(None);
    }
    let put = || -> rusqlite::Result<Option<(ClientPubkey, Unit, i64)>> {
        connection
            .prepare_cached(PUT)?
            .query_row((top_up_key(id), give_back_key(id)), |row| {
                Ok((rows::word(row, 0)?, rows::word(row, 1)?, row.get(2)?))
            })
            .optional()
    };
    let Some((client, unit, put)) = put().map_err(|e| failure(&e))? else {
        return Ok(None);
    };
    let on = account(connection, &client, &unit).map_err(|e| failure(&e))?;
    let on = on.map_or(0, |account| account.amount.value());
    let put = u64::try_from(put).unwrap_or_default();
    let taken = taken_back(id, client, (put, on), unit, at)?;
    let left = on.saturating_sub(taken.amount.value());
    move_to(connection, left, -change(on, left)?, &taken)?;
    Ok(Some(taken.amount))
}

/// Whether a movement of that name was made.
fn is_known(connection: &Connection, key: &str) -> Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM movement WHERE key = ?1")
        .and_then(|mut statement| statement.exists([key]))
        .map_err(|e| failure(&e))
}

fn expire(books: &mut Books, since: Timestamp, at: Timestamp) -> Result<usize> {
    let connection = books.connection();
    const LAPSED: &str = "SELECT client, unit, amount, touched_at_ms FROM account \
         WHERE touched_at_ms < ?1 AND amount > 0 LIMIT 100";
    let lapsed = || -> rusqlite::Result<Vec<Account>> {
        connection
            .prepare_cached(LAPSED)?
            .query_map([millis(since)], read_account)?
            .collect()
    };
    let lapsed = lapsed().map_err(|e| failure(&e))?;
    for account in &lapsed {
        let unit = account.amount.unit();
        let taken = Credit {
            client: account.client,
            amount: account.amount.clone(),
            kind: MovementKind::Expired,
            key: format!("expired:{}:{unit}:{}", account.client, at.as_millis()),
            at,
        };
        move_to(connection, 0, -change(account.amount.value(), 0)?, &taken)?;
    }
    Ok(lapsed.len())
}

/// Writes the movement and what is left.
fn move_to(connection: &Connection, left: u64, change: i64, moved: &Credit) -> Result<Account> {
    const MOVE: &str = "INSERT INTO movement (client, unit, kind, key, change, left_over, at_ms) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    const SET: &str = "INSERT OR REPLACE INTO account (client, unit, amount, touched_at_ms) \
         VALUES (?1, ?2, ?3, ?4)";
    let unit = moved.amount.unit();
    let amount = match left {
        0 => Amount::zero(unit.clone()),
        left => Amount::new(left, unit.clone()).map_err(|_| too_much())?,
    };
    let left = i64::try_from(left).map_err(|_| too_much())?;
    let (client, at) = (moved.client.to_string(), millis(moved.at));
    let write = || -> rusqlite::Result<()> {
        connection.prepare_cached(MOVE)?.execute((
            &client,
            unit.as_str(),
            moved.kind.as_str(),
            &moved.key,
            change,
            left,
            at,
        ))?;
        connection
            .prepare_cached(SET)?
            .execute((&client, unit.as_str(), left, at))?;
        Ok(())
    };
    write().map_err(|e| failure(&e))?;
    Ok(Account {
        client: moved.client,
        amount,
        touched_at: moved.at,
    })
}

fn change(more: u64, less: u64) -> Result<i64> {
    i64::try_from(more.saturating_sub(less)).map_err(|_| too_much())
}

fn account(
    connection: &Connection,
    client: &ClientPubkey,
    unit: &Unit,
) -> rusqlite::Result<Option<Account>> {
    const GET: &str =
        "SELECT client, unit, amount, touched_at_ms FROM account WHERE client = ?1 AND unit = ?2";
    connection
        .prepare_cached(GET)?
        .query_row((client.to_string(), unit.as_str()), read_account)
        .optional()
}

fn read_account(row: &Row<'_>) -> rusqlite::Result<Account> {
    let unit: Unit = rows::word(row, 1)?;
    let value = u64::try_from(row.get::<_, i64>(2)?).unwrap_or_default();
    let amount = match value {
        0 => Amount::zero(unit),
        value => Amount::new(value, unit).map_err(|_| rows::unreadable(2))?,
    };
    Ok(Account {
        client: rows::word(row, 0)?,
        amount,
        touched_at: time(row.get(3)?),
    })
}

fn read_movement(row: &Row<'_>) -> rusqlite::Result<Movement> {
    let change: i64 = row.get(3)?;
    let kind: String = row.get(1)?;
    Ok(Movement {
        number: u64::try_from(row.get::<_, i64>(0)?).unwrap_or_default(),
        kind: MovementKind::from_word(&kind).ok_or_else(|| rows::unreadable(1))?,
        key: row.get(2)?,
        off: if change < 0 { change.unsigned_abs() } else { 0 },
        on: u64::try_from(change).unwrap_or_default(),
        left: u64::try_from(row.get::<_, i64>(4)?).unwrap_or_default(),
        at: time(row.get(5)?),
    })
}
