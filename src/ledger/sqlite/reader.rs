//! The one thread that reads, on a connection of its own: it never waits for the writer.

use rusqlite::{Connection, OptionalExtension, ToSql};
use tokio::sync::{mpsc, oneshot};

use super::failure;
use super::rows::{self, columns, millis};
use crate::error::Result;
use crate::ledger::{
    Caller, Entry, EntryFilter, LET_IN_AT_MOST, LetIn, STANDING_AT_MOST, Standing,
};
use crate::payment::{RequestEventId, Timestamp};

/// The most questions that share one snapshot.
const BATCH: usize = 64;

/// A question, with the way back to its caller.
pub(super) type Question = Box<dyn FnOnce(&Connection) + Send>;

pub(super) const BY_ID: &str = concat!("SELECT ", columns!(), " FROM entry WHERE id = ?1");

/// An entry that its own request claimed is found by its id, so the index holds only the others.
pub(super) const BY_CLAIMER: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM entry WHERE claimed_by = ?1 AND claimed_by <> id LIMIT 1"
);

/// Whether there is anything to say: for most who knock there is not, and this is one question instead of five.
///
/// ?1 event, ?2 client, ?3 identity.
pub(super) const ANYTHING: &str = "SELECT \
     EXISTS (SELECT 1 FROM entry WHERE id = ?1) \
     OR EXISTS (SELECT 1 FROM entry INDEXED BY entry_claimed_by WHERE claimed_by = ?1 AND claimed_by <> id) \
     OR EXISTS (SELECT 1 FROM entry INDEXED BY entry_unfinished \
         WHERE client = ?2 AND identity = ?3 AND is_finished = 0) \
     OR EXISTS (SELECT 1 FROM answered WHERE event = ?1) \
     OR EXISTS (SELECT 1 FROM free_call WHERE event = ?1)";

pub(super) const AUTHORIZATIONS: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM entry INDEXED BY entry_authorization \
     WHERE client = ?1 AND identity = ?2 AND is_authorization = 1 ORDER BY quoted_at_ms, number LIMIT ?3"
);

pub(super) const UNFINISHED: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM entry INDEXED BY entry_unfinished \
     WHERE client = ?1 AND identity = ?2 AND is_finished = 0 AND is_authorization = 0 \
     ORDER BY quoted_at_ms DESC, number DESC LIMIT ?3"
);

/// ?1 and ?2 are the last entry of the page before.
pub(super) const PAGE_OF_UNFINISHED: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM entry INDEXED BY entry_unfinished_at WHERE is_finished = 0 AND (quoted_at_ms, id) > (?1, ?2)"
);

/// As [`PAGE_OF_UNFINISHED`].
pub(super) const PAGE_OF_ALL: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM entry INDEXED BY entry_quoted_at WHERE (quoted_at_ms, id) > (?1, ?2)"
);

pub(super) const ANSWERED: &str =
    "SELECT 1 FROM answered WHERE event = ?1 UNION ALL SELECT 1 FROM free_call WHERE event = ?1";

/// A question that answers with what `work` finds.
pub(super) fn question<T: Send + 'static>(
    work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
) -> (Question, oneshot::Receiver<Result<T>>) {
    let (reply, answer) = oneshot::channel();
    let question = move |connection: &Connection| {
        if !reply.is_closed() {
            let _ = reply.send(work(connection).map_err(|e| failure(&e)));
        }
    };
    (Box::new(question), answer)
}

/// Answers until every sender is gone.
///
/// Questions that wait together share one snapshot, which begins after all of them were asked: so each sees every write
/// that was acknowledged before it was asked.
pub(super) fn run(connection: &Connection, mut questions: mpsc::Receiver<Question>) {
    let mut waiting = Vec::with_capacity(BATCH);
    while let Some(first) = questions.blocking_recv() {
        waiting.push(first);
        while waiting.len() < BATCH {
            match questions.try_recv() {
                Ok(question) => waiting.push(question),
                Err(_) => break,
            }
        }
        // Without a snapshot each question still gets a true answer.
        let _ = execute(connection, "BEGIN");
        for question in waiting.drain(..) {
            question(connection);
        }
        if !connection.is_autocommit() {
            let _ = execute(connection, "COMMIT");
        }
    }
}

fn execute(connection: &Connection, sql: &str) -> rusqlite::Result<usize> {
    connection.prepare_cached(sql)?.execute([])
}

/// The entry `id`.
pub(super) fn get(connection: &Connection, id: &RequestEventId) -> rusqlite::Result<Option<Entry>> {
    Ok(stored(connection, id)?.map(|stored| stored.entry))
}

/// The row of `id`.
pub(super) fn stored(
    connection: &Connection,
    id: &RequestEventId,
) -> rusqlite::Result<Option<rows::Stored>> {
    connection
        .prepare_cached(BY_ID)?
        .query_row([id.to_string()], rows::read)
        .optional()
}

/// The entry that a request has opened or claimed.
pub(super) fn of_event(
    connection: &Connection,
    event: &RequestEventId,
) -> rusqlite::Result<Option<Entry>> {
    if let Some(entry) = get(connection, event)? {
        return Ok(Some(entry));
    }
    let claimed = connection
        .prepare_cached(BY_CLAIMER)?
        .query_row([event.to_string()], rows::read)
        .optional()?;
    Ok(claimed.map(|stored| stored.entry))
}

/// See [`Ledger::let_in_since`](crate::ledger::Ledger::let_in_since).
pub(super) fn let_in_since(
    connection: &Connection,
    since: Timestamp,
) -> rusqlite::Result<Vec<LetIn>> {
    let most = i64::try_from(LET_IN_AT_MOST).unwrap_or(i64::MAX);
    let mut latest = connection
        .prepare_cached(
            "SELECT event, at_ms FROM let_in WHERE at_ms >= ?1 ORDER BY number DESC LIMIT ?2",
        )?
        .query_map((millis(since), most), |row| {
            Ok(LetIn {
                event: rows::word(row, 0)?,
                at: rows::time(row.get(1)?),
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    latest.reverse();
    Ok(latest)
}

/// See [`Ledger::standing`](crate::ledger::Ledger::standing).
pub(super) fn standing(connection: &Connection, caller: &Caller) -> rusqlite::Result<Standing> {
    let event = caller.event.to_string();
    let (client, identity) = (caller.client.to_string(), caller.identity.to_string());
    let anything: bool = connection
        .prepare_cached(ANYTHING)?
        .query_row((&event, &client, &identity), |row| row.get(0))?;
    if !anything {
        return Ok(Standing::default());
    }
    let of_event = of_event(connection, &caller.event)?;
    let at_most = |sql: &str, limit: usize| {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        many(connection, sql, &[&client, &identity, &limit])
    };
    let mut of_identity = at_most(AUTHORIZATIONS, STANDING_AT_MOST)?;
    of_identity.extend(at_most(UNFINISHED, STANDING_AT_MOST - of_identity.len())?);
    let answered = connection.prepare_cached(ANSWERED)?.exists([event])?;
    Ok(Standing {
        of_event,
        answered,
        of_identity,
    })
}

/// See [`Ledger::list`](crate::ledger::Ledger::list). A walk along an index: a page costs the same wherever it lies, if what
/// is asked for is unfinished or everything; among finished entries, those in other states are passed over.
pub(super) fn list(connection: &Connection, filter: &EntryFilter) -> rusqlite::Result<Vec<Entry>> {
    let after = filter
        .after
        .map_or((-1, String::new()), |(at, id)| (millis(at), id.to_string()));
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let client = filter.client.map(|client| client.to_string());
    let states = &filter.states;
    let unfinished = !states.is_empty() && states.iter().all(|state| !state.is_final());
    let mut sql = if unfinished {
        PAGE_OF_UNFINISHED
    } else {
        PAGE_OF_ALL
    }
    .to_owned();
    let mut values: Vec<&dyn ToSql> = vec![&after.0, &after.1, &limit];
    if let Some(client) = &client {
        sql.push_str(" AND client = ?4");
        values.push(client);
    }
    if !states.is_empty() {
        let words: Vec<String> = states.iter().map(|state| format!("'{state}'")).collect();
        sql.push_str(&format!(" AND state IN ({})", words.join(", ")));
    }
    sql.push_str(" ORDER BY quoted_at_ms, id LIMIT ?3");
    many(connection, &sql, &values)
}

fn many(connection: &Connection, sql: &str, values: &[&dyn ToSql]) -> rusqlite::Result<Vec<Entry>> {
    connection
        .prepare_cached(sql)?
        .query_map(values, |row| Ok(rows::read(row)?.entry))?
        .collect()
}
