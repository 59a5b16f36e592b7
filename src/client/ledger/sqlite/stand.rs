//! How the books stand: what a decision is made on.

use rusqlite::{Connection, OptionalExtension, ToSql};

use super::rows::{self, COLUMNS, millis};
use crate::client::ledger::{Attempt, AttemptFilter, BooksStand, NewAttempt, Tally, Used};
use crate::payment::Amount;

/// More payments in a row without a result than this are as good as this many.
const MOST_UNSERVED: usize = 100;

/// See [`BooksStand`].
pub(super) fn stand(
    connection: &Connection,
    new: &NewAttempt,
    tallies: &[Tally],
) -> rusqlite::Result<BooksStand> {
    let same_payment = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM payment WHERE pmi = ?1 AND payment_id = ?2 AND state <> 'refused'"
        ))?
        .query_row(
            [new.payment.pmi.as_str(), &new.payment.reference],
            rows::read,
        )
        .optional()?;
    let same_call = same_call(connection, new)?;
    let used = tallies
        .iter()
        .map(|tally| used(connection, tally))
        .collect::<rusqlite::Result<_>>()?;
    let unserved = unserved(connection, new)?;
    Ok(BooksStand {
        same_payment,
        same_call,
        used,
        unserved: u32::try_from(unserved.len()).unwrap_or(u32::MAX),
        unserved_amounts: unserved,
    })
}

/// Attempts for the same call that stand in the way of another.
pub(super) fn same_call(
    connection: &Connection,
    new: &NewAttempt,
) -> rusqlite::Result<Vec<Attempt>> {
    let attempts: Vec<Attempt> = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM payment WHERE server = ?1 AND identity = ?2 AND state <> 'refused' \
             AND (answer IN ('waiting', 'missing', 'interrupted') OR state <> 'paid') ORDER BY number"
        ))?
        .query_map(
            [new.server.to_string(), new.identity.to_string()],
            rows::read,
        )?
        .collect::<rusqlite::Result<_>>()?;
    Ok(attempts
        .into_iter()
        .filter(Attempt::blocks_its_call)
        .collect())
}

/// What the last payments to a server were, back to the last that brought a result.
fn unserved(connection: &Connection, new: &NewAttempt) -> rusqlite::Result<Vec<Amount>> {
    let mut statement = connection.prepare_cached(
        "SELECT answer, amount, unit FROM payment INDEXED BY payment_of_server \
         WHERE server = ?1 AND state <> 'refused' AND answer IN ('missing', 'error', 'result') ORDER BY number DESC LIMIT ?2",
    )?;
    let limit = i64::try_from(MOST_UNSERVED).unwrap_or(i64::MAX);
    let mut rows = statement.query((new.server.to_string(), limit))?;
    let mut unserved = Vec::new();
    while let Some(row) = rows.next()? {
        if row.get_ref(0)?.as_str()? == "result" {
            break;
        }
        unserved.extend(rows::amount(row.get(1)?, row.get_ref(2)?.as_str()?));
    }
    Ok(unserved)
}

/// One sum for each pair of units.
pub(super) fn used(connection: &Connection, tally: &Tally) -> rusqlite::Result<Vec<Used>> {
    let server = tally.server.map(|server| server.to_string());
    let pattern = tally
        .capability
        .as_ref()
        .map(|pattern| glob(pattern.as_str()));
    let since = tally.since.map(millis).unwrap_or(-1);
    let mut sql =
        "SELECT unit, worth_unit, sum(amount), sum(worth) FROM payment INDEXED BY payment_spent \
                   WHERE state <> 'refused' AND reserved_at_ms > ?1"
            .to_owned();
    let mut values: Vec<&dyn ToSql> = vec![&since];
    if let Some(server) = &server {
        values.push(server);
        sql.push_str(&format!(" AND server = ?{}", values.len()));
    }
    if let Some(pattern) = &pattern {
        values.push(pattern);
        sql.push_str(&format!(" AND capability GLOB ?{}", values.len()));
    }
    sql.push_str(" GROUP BY unit, worth_unit");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(values.as_slice())?;
    let mut sums = Vec::new();
    while let Some(row) = rows.next()? {
        let unit: String = row.get(0)?;
        let worth_unit: Option<String> = row.get(1)?;
        // A sum beyond the largest amount stays at it, which is above every limit.
        let capped = |value: i64| value.min(crate::payment::MAX_AMOUNT.cast_signed());
        let amount = rows::amount(capped(row.get(2)?), &unit)
            .ok_or_else(|| rows::odd(2, "not an amount"))?;
        let worth = match worth_unit {
            Some(unit) => rows::amount(capped(row.get(3)?), &unit),
            None => None,
        };
        sums.push(Used::new(amount, worth));
    }
    Ok(sums)
}

/// A pattern in SQLite's notation: what is special there and not here is quoted.
fn glob(pattern: &str) -> String {
    let mut glob = String::with_capacity(pattern.len());
    for c in pattern.chars() {
        match c {
            '[' => glob.push_str("[[]"),
            '?' => glob.push_str("[?]"),
            c => glob.push(c),
        }
    }
    glob
}

/// See [`BuyerLedger::list`](crate::client::ledger::BuyerLedger::list).
pub(super) fn list(
    connection: &Connection,
    filter: &AttemptFilter,
) -> rusqlite::Result<Vec<Attempt>> {
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let after = filter.after.map_or(-1, |after| whole(after.number()));
    let id = filter.id.map(|id| whole(id.number()));
    let server = filter.server.map(|server| server.to_string());
    let limit = filter.limit.map_or(-1, |limit| whole(limit as u64));
    let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
    let mut sql = format!("SELECT {COLUMNS} FROM payment WHERE number > ?1");
    let mut values: Vec<&dyn ToSql> = vec![&after, &limit];
    if let Some(id) = &id {
        values.push(id);
        sql.push_str(&format!(" AND number = ?{}", values.len()));
    }
    if let Some(server) = &server {
        values.push(server);
        sql.push_str(&format!(" AND server = ?{}", values.len()));
    }
    if filter.unserved {
        sql.push_str(" AND state <> 'refused' AND answer IN ('missing', 'interrupted', 'error')");
    }
    if !states.is_empty() {
        let mut places = Vec::new();
        for state in &states {
            values.push(state);
            places.push(format!("?{}", values.len()));
        }
        sql.push_str(&format!(" AND state IN ({})", places.join(", ")));
    }
    sql.push_str(" ORDER BY number LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    statement
        .query_map(values.as_slice(), rows::read)?
        .collect()
}
