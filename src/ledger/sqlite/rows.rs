//! An entry as a row, and a row as an entry.

use std::str::FromStr;

use rusqlite::types::{FromSqlError, Type, Value};
use rusqlite::{CachedStatement, Connection, Row, params_from_iter};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ledger::Entry;
use crate::payment::{Amount, InvocationIdentity, RequestEventId, Timestamp};

/// The columns that [`read`] reads, in its order.
macro_rules! columns {
    () => {
        "number, id, client, identity, capability, amount, unit, pmi, interaction, state, waiting, \
         quoted_at_ms, deadline_ms, watch_until_ms, claimed_by, route, description, meta, \
         payment_request, settlement, history, request, response"
    };
}
pub(super) use columns;

pub(super) const INSERT: &str = "INSERT INTO entry (id, client, identity, capability, amount, unit, pmi, interaction, state, \
     waiting, is_open, is_finished, is_authorization, quoted_at_ms, deadline_ms, route, description, meta, history, \
     request) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'quoted', ?9, 1, 0, 0, ?10, ?11, ?12, ?13, ?14, ?15, ?16)";

/// A row, with its number.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) number: i64,
    pub(super) entry: Entry,
}

/// Reads the columns of [`columns!`].
pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let amount = u64::try_from(row.get::<_, i64>(5)?)
        .ok()
        .and_then(|value| Some((value, word(row, 6).ok()?)))
        .and_then(|(value, unit)| Amount::new(value, unit).ok())
        .ok_or_else(|| unreadable(5))?;
    let entry = Entry {
        id: word(row, 1)?,
        client: word(row, 2)?,
        identity: InvocationIdentity::from_bytes(*word::<RequestEventId>(row, 3)?.as_bytes()),
        capability: row.get(4)?,
        amount,
        pmi: word(row, 7)?,
        interaction: word(row, 8)?,
        state: word(row, 9)?,
        waiting: row.get(10)?,
        quoted_at: time(row.get(11)?),
        deadline: time(row.get(12)?),
        watch_until: row.get::<_, Option<i64>>(13)?.map(time),
        claimed_by: optional(row, 14, |text| text.parse().ok())?,
        route: row.get(15)?,
        description: row.get(16)?,
        meta: row.get(17)?,
        payment_request: optional(row, 18, json)?,
        settlement: optional(row, 19, json)?,
        history: optional(row, 20, json)?.ok_or_else(|| unreadable(20))?,
        request: row.get(21)?,
        response: row.get(22)?,
    };
    Ok(Stored {
        number: row.get(0)?,
        entry,
    })
}

/// Writes a new row; returns its number.
pub(super) fn insert(connection: &Connection, entry: &Entry) -> rusqlite::Result<i64> {
    connection.prepare_cached(INSERT)?.insert((
        entry.id.to_string(),
        entry.client.to_string(),
        entry.identity.to_string(),
        &entry.capability,
        value(entry.amount.value()),
        entry.amount.unit().as_str(),
        entry.pmi.as_str(),
        entry.interaction.as_str(),
        entry.waiting,
        millis(entry.quoted_at),
        millis(entry.deadline),
        &entry.route,
        &entry.description,
        &entry.meta,
        to_json(&entry.history)?,
        &entry.request,
    ))
}

/// Writes what a move changed, and only that: an untouched column costs no index.
pub(super) fn update(
    connection: &Connection,
    stored: &Stored,
    moved: &Entry,
) -> rusqlite::Result<()> {
    let mut set = Changes::default();
    let old = &stored.entry;
    let authorization = |entry: &Entry| i64::from(entry.is_authorization());
    set.add_if(old.state != moved.state, "state", || {
        text(moved.state.as_str())
    });
    set.add_if(old.waiting != moved.waiting, "waiting", || {
        i64::from(moved.waiting).into()
    });
    let open = moved.state.is_open_offer();
    set.add_if(old.state.is_open_offer() != open, "is_open", || {
        i64::from(open).into()
    });
    let finished = moved.state.is_final();
    set.add_if(old.state.is_final() != finished, "is_finished", || {
        i64::from(finished).into()
    });
    set.add_if(
        authorization(old) != authorization(moved),
        "is_authorization",
        || authorization(moved).into(),
    );
    set.add_if(
        old.watch_until != moved.watch_until,
        "watch_until_ms",
        || moved.watch_until.map(millis).into(),
    );
    set.add_if(old.claimed_by != moved.claimed_by, "claimed_by", || {
        moved.claimed_by.map(|by| by.to_string()).into()
    });
    if old.payment_request != moved.payment_request {
        set.add("payment_request", optional_json(&moved.payment_request)?);
        set.add(
            "reference",
            moved.reference().map(|(_, reference)| reference).into(),
        );
    }
    if old.settlement != moved.settlement {
        set.add("settlement", optional_json(&moved.settlement)?);
    }
    set.add("history", to_json(&moved.history)?.into());
    set.add_if(old.request != moved.request, "request", || {
        moved.request.clone().into()
    });
    set.add_if(old.response != moved.response, "response", || {
        moved.response.clone().into()
    });
    let changed = set
        .statement(connection)?
        .execute(params_from_iter(set.values(stored.number)))?;
    if changed == 1 {
        Ok(())
    } else {
        Err(rusqlite::Error::StatementChangedRows(changed))
    }
}

/// The `SET` of one update.
#[derive(Default)]
struct Changes {
    sql: String,
    values: Vec<Value>,
}

impl Changes {
    fn add(&mut self, column: &str, value: Value) {
        self.sql.push_str(if self.values.is_empty() {
            "UPDATE entry SET "
        } else {
            ", "
        });
        self.sql.push_str(column);
        self.sql.push_str(" = ?");
        self.values.push(value);
    }

    fn add_if(&mut self, changed: bool, column: &str, value: impl FnOnce() -> Value) {
        if changed {
            self.add(column, value());
        }
    }

    /// There are as many statements as kinds of moves, so each is prepared once.
    fn statement<'c>(
        &mut self,
        connection: &'c Connection,
    ) -> rusqlite::Result<CachedStatement<'c>> {
        self.sql.push_str(" WHERE number = ?");
        connection.prepare_cached(&self.sql)
    }

    fn values(self, number: i64) -> Vec<Value> {
        let mut values = self.values;
        values.push(number.into());
        values
    }
}

/// As SQLite counts: the end of time is the largest number that it knows.
pub(super) fn millis(at: Timestamp) -> i64 {
    value(at.as_millis())
}

fn value(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(millis).unwrap_or_default())
}

fn text(word: &str) -> Value {
    Value::Text(word.to_owned())
}

pub(super) fn word<T: FromStr>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    row.get_ref(column)?
        .as_str()?
        .parse()
        .map_err(|_| unreadable(column))
}

pub(super) fn optional<T>(
    row: &Row<'_>,
    column: usize,
    parse: impl FnOnce(&str) -> Option<T>,
) -> rusqlite::Result<Option<T>> {
    match row.get_ref(column)?.as_str_or_null()? {
        None => Ok(None),
        Some(text) => parse(text).map(Some).ok_or_else(|| unreadable(column)),
    }
}

pub(super) fn json<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}

fn to_json<T: Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn optional_json<T: Serialize>(value: &Option<T>) -> rusqlite::Result<Value> {
    Ok(value.as_ref().map(to_json).transpose()?.into())
}

/// Names the column, never its content.
pub(super) fn unreadable(column: usize) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(
        column,
        Type::Text,
        Box::new(FromSqlError::InvalidType),
    )
}
