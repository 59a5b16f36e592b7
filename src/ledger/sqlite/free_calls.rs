//! The records of free calls, in the file.

use rusqlite::{Connection, OptionalExtension, Row};

use super::rows::{self, millis};
use super::{SqliteLedger, failure};
use crate::error::Result;
use crate::ledger::free_calls::day_of;
use crate::ledger::{FreeCall, FreeCallFilter, FreeCalls, FreeLimits, FreeSpend};
use crate::payment::{RequestEventId, Timestamp};

/// `nth` and `nth_of_all` are there for what is counted only: the last of a day is how many there were, so that counting
/// is one step along an index.
pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS free_call (
    number     INTEGER PRIMARY KEY,
    event      TEXT NOT NULL UNIQUE,
    client     TEXT NOT NULL,
    capability TEXT NOT NULL,
    waived_by  TEXT NOT NULL,
    why        TEXT NOT NULL,
    at_ms      INTEGER NOT NULL,
    day        INTEGER NOT NULL,
    nth        INTEGER,
    nth_of_all INTEGER
) STRICT;
CREATE INDEX IF NOT EXISTS free_call_at ON free_call (at_ms, event);
CREATE INDEX IF NOT EXISTS free_call_nth ON free_call (waived_by, day, client, nth) WHERE nth IS NOT NULL;
CREATE INDEX IF NOT EXISTS free_call_nth_of_all ON free_call (waived_by, day, nth_of_all) WHERE nth IS NOT NULL;
";

/// All of a batch in one statement.
const NOTE: &str = "INSERT OR IGNORE INTO free_call (event, client, capability, waived_by, why, at_ms, day) \
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6 FROM json_each(?1)";

const LAST: &str = "SELECT coalesce(max(nth), 0) FROM free_call \
     WHERE waived_by = ?1 AND day = ?2 AND client = ?3 AND nth IS NOT NULL";

const LAST_OF_ALL: &str = "SELECT coalesce(max(nth_of_all), 0) FROM free_call \
     WHERE waived_by = ?1 AND day = ?2 AND nth IS NOT NULL";

const SPEND: &str = "INSERT INTO free_call (event, client, capability, waived_by, why, at_ms, day, nth, nth_of_all) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

const COLUMNS: &str = "event, client, capability, waived_by, why, at_ms";

#[async_trait::async_trait]
impl FreeCalls for SqliteLedger {
    async fn note_free(&self, calls: Vec<FreeCall>) -> Result<()> {
        self.write(move |books| note(books.connection(), &calls).map_err(|e| failure(&e)))
            .await
    }

    async fn spend_free(&self, call: FreeCall, limits: FreeLimits) -> Result<FreeSpend> {
        self.write(move |books| spend(books.connection(), &call, limits).map_err(|e| failure(&e)))
            .await
    }

    async fn free_call(&self, event: &RequestEventId) -> Result<Option<FreeCall>> {
        let event = *event;
        self.read(move |connection| {
            connection
                .prepare_cached(&format!("SELECT {COLUMNS} FROM free_call WHERE event = ?1"))?
                .query_row([event.to_string()], read)
                .optional()
        })
        .await
    }

    async fn free_calls(&self, filter: &FreeCallFilter) -> Result<Vec<FreeCall>> {
        let filter = filter.clone();
        self.read(move |connection| list(connection, &filter)).await
    }

    async fn forget_free(&self, before: Timestamp, keep: usize) -> Result<usize> {
        const OLD: &str = "DELETE FROM free_call WHERE number IN \
             (SELECT number FROM free_call WHERE at_ms < ?1 LIMIT 500)";
        const TOO_MANY: &str = "DELETE FROM free_call WHERE number IN (SELECT number FROM free_call \
             WHERE number <= (SELECT max(number) FROM free_call) - ?1 AND nth IS NULL LIMIT 500)";
        let keep = i64::try_from(keep).unwrap_or(i64::MAX);
        // Each in a job of its own: a job makes one write.
        let old = self
            .write(move |books| delete(books.connection(), OLD, millis(before)))
            .await?;
        let too_many = self
            .write(move |books| delete(books.connection(), TOO_MANY, keep))
            .await?;
        Ok(old + too_many)
    }
}

fn note(connection: &Connection, calls: &[FreeCall]) -> rusqlite::Result<()> {
    let batch: Vec<_> = calls
        .iter()
        .map(|call| {
            let (at, day) = (millis(call.at), day_of(call.at));
            serde_json::json!([
                call.event,
                call.client,
                call.capability,
                call.by,
                call.why,
                at,
                day
            ])
        })
        .collect();
    let batch = serde_json::Value::Array(batch).to_string();
    connection.prepare_cached(NOTE)?.execute([batch])?;
    Ok(())
}

fn spend(
    connection: &Connection,
    call: &FreeCall,
    limits: FreeLimits,
) -> rusqlite::Result<FreeSpend> {
    let event = call.event.to_string();
    if connection
        .prepare_cached("SELECT 1 FROM free_call WHERE event = ?1")?
        .exists([&event])?
    {
        return Ok(FreeSpend::Already);
    }
    let client = call.client.to_string();
    let day = i64::try_from(day_of(call.at)).unwrap_or(i64::MAX);
    let nth: u32 = connection
        .prepare_cached(LAST)?
        .query_row((&call.by, day, &client), |row| row.get(0))?;
    if nth >= limits.per_client {
        return Ok(FreeSpend::UsedUp);
    }
    let nth_of_all: u32 = connection
        .prepare_cached(LAST_OF_ALL)?
        .query_row((&call.by, day), |row| row.get(0))?;
    if nth_of_all >= limits.total {
        return Ok(FreeSpend::AllUsedUp);
    }
    connection.prepare_cached(SPEND)?.execute((
        event,
        client,
        &call.capability,
        &call.by,
        &call.why,
        millis(call.at),
        day,
        nth + 1,
        nth_of_all + 1,
    ))?;
    Ok(FreeSpend::Spent { nth: nth + 1 })
}

fn list(connection: &Connection, filter: &FreeCallFilter) -> rusqlite::Result<Vec<FreeCall>> {
    let (at, event) = filter.after.map_or((-1, String::new()), |(at, event)| {
        (millis(at), event.to_string())
    });
    let client = filter.client.map(|client| client.to_string());
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM free_call WHERE (at_ms, event) > (?1, ?2) AND (?3 IS NULL OR client = ?3) \
             ORDER BY at_ms, event LIMIT ?4"
        ))?
        .query_map((at, event, client, limit), read)?
        .collect()
}

fn read(row: &Row<'_>) -> rusqlite::Result<FreeCall> {
    Ok(FreeCall {
        event: rows::word(row, 0)?,
        client: rows::word(row, 1)?,
        capability: row.get(2)?,
        by: row.get(3)?,
        why: row.get(4)?,
        at: rows::time(row.get(5)?),
    })
}

fn delete(connection: &Connection, sql: &str, bound: i64) -> Result<usize> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute([bound]))
        .map_err(|e| failure(&e))
}
