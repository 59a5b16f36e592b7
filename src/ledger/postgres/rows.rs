//! An entry as a row, and a row as an entry.

use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use super::writer::Fault;
use crate::error::{Error, Result};
use crate::ledger::Entry;
use crate::payment::{Amount, InvocationIdentity, RequestEventId, Timestamp, Unit};

/// The columns that [`read`] reads, in its order.
macro_rules! columns {
    () => {
        "number, version, id, client, identity, capability, amount, unit, pmi, interaction, state, waiting, \
         quoted_at_ms, deadline_ms, watch_until_ms, claimed_by, route, description, meta, payment_request, \
         settlement, history, request, response"
    };
}
pub(super) use columns;

/// A row, with its number and how often it was changed.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) number: i64,
    pub(super) version: i32,
    pub(super) entry: Entry,
}

/// Reads the columns of [`columns!`].
pub(super) fn read(row: &Row) -> Result<Stored> {
    let entry = Entry {
        id: word(row, 2)?,
        client: word(row, 3)?,
        identity: InvocationIdentity::from_bytes(*word::<RequestEventId>(row, 4)?.as_bytes()),
        capability: get(row, 5)?,
        amount: amount(get(row, 6)?, word(row, 7)?)?,
        pmi: word(row, 8)?,
        interaction: word(row, 9)?,
        state: word(row, 10)?,
        waiting: get(row, 11)?,
        quoted_at: time(get(row, 12)?),
        deadline: time(get(row, 13)?),
        watch_until: get::<Option<i64>>(row, 14)?.map(time),
        claimed_by: optional(row, 15, |text| text.parse().ok())?,
        route: get(row, 16)?,
        description: get(row, 17)?,
        meta: get(row, 18)?,
        payment_request: optional(row, 19, json)?,
        settlement: optional(row, 20, json)?,
        history: optional(row, 21, json)?.ok_or_else(|| unreadable(21))?,
        request: get(row, 22)?,
        response: get(row, 23)?,
    };
    Ok(Stored {
        number: get(row, 0)?,
        version: get(row, 1)?,
        entry,
    })
}

/// Reads the entries of all rows.
pub(super) fn entries(rows: &[Row]) -> Result<Vec<Entry>> {
    rows.iter().map(|row| Ok(read(row)?.entry)).collect()
}

/// An amount as it is in the books; nothing at all is one, too.
pub(super) fn amount(value: i64, unit: Unit) -> Result<Amount> {
    match u64::try_from(value) {
        Ok(0) => Ok(Amount::zero(unit)),
        Ok(value) => Amount::new(value, unit),
        Err(_) => Err(unreadable(0)),
    }
}

/// As PostgreSQL counts: the end of time is the largest number that it knows.
pub(super) fn millis(at: Timestamp) -> i64 {
    number(at.as_millis())
}

pub(super) fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn time(millis: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(millis).unwrap_or_default())
}

/// PostgreSQL keeps no NUL in a text.
pub(super) fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

pub(super) fn get<'r, T: FromSql<'r>>(row: &'r Row, column: usize) -> Result<T> {
    row.try_get(column).map_err(|_| unreadable(column))
}

pub(super) fn word<T: FromStr>(row: &Row, column: usize) -> Result<T> {
    get::<&str>(row, column)?
        .parse()
        .map_err(|_| unreadable(column))
}

fn optional<T>(
    row: &Row,
    column: usize,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>> {
    match get::<Option<&str>>(row, column)? {
        None => Ok(None),
        Some(text) => parse(text).map(Some).ok_or_else(|| unreadable(column)),
    }
}

fn json<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_str(text).ok()
}

pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|error| {
        Fault::Said(Error::ledger("the ledger could not write an entry").with_source(error))
    })
}

/// Names the column, never its content.
pub(super) fn unreadable(column: usize) -> Error {
    Error::ledger(format!(
        "a row of the ledger cannot be read (column {column}); was it edited?"
    ))
}
