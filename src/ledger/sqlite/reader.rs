//! The one thread that reads, on a connection of its own: it never waits for the writer.

use rusqlite::{Connection, OptionalExtension, ToSql};
use tokio::sync::{mpsc, oneshot};

use super::failure;
use super::rows::{self, columns, millis};
use crate::error::Result;
use crate::ledger::{Caller, Entry, EntryFilter, STANDING_AT_MOST, Standing};
use crate::payment::RequestEventId;

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

pub(super) const UNFINISHED: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM entry WHERE client = ?1 AND identity = ?2 AND is_finished = 0 \
     ORDER BY quoted_at_ms, id LIMIT ?3"
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
        let _ = connection.execute_batch("BEGIN");
        for question in waiting.drain(..) {
            question(connection);
        }
        if !connection.is_autocommit() {
            let _ = connection.execute_batch("COMMIT");
        }
    }
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

/// See [`Ledger::standing`](crate::ledger::Ledger::standing).
pub(super) fn standing(connection: &Connection, caller: &Caller) -> rusqlite::Result<Standing> {
    let of_event = of_event(connection, &caller.event)?;
    let of_identity = many(
        connection,
        UNFINISHED,
        &[
            &caller.client.to_string(),
            &caller.identity.to_string(),
            &(STANDING_AT_MOST as i64),
        ],
    )?;
    let answered = connection
        .prepare_cached(ANSWERED)?
        .exists([caller.event.to_string()])?;
    Ok(Standing {
        of_event,
        answered,
        of_identity,
    })
}

/// See [`Ledger::list`](crate::ledger::Ledger::list). One walk along an index per state, then merged: a page costs the
/// same wherever it lies.
pub(super) fn list(connection: &Connection, filter: &EntryFilter) -> rusqlite::Result<Vec<Entry>> {
    let after = filter
        .after
        .map_or((-1, String::new()), |(at, id)| (millis(at), id.to_string()));
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let client = filter.client.map(|client| client.to_string());
    let mut sql = format!("SELECT {} FROM entry WHERE ", columns!());
    let mut values: Vec<&dyn ToSql> = vec![&after.0, &after.1, &limit];
    sql.push_str("(quoted_at_ms, id) > (?1, ?2)");
    if let Some(client) = &client {
        sql.push_str(" AND client = ?4");
        values.push(client);
    }
    let order = " ORDER BY quoted_at_ms, id LIMIT ?3";
    if filter.states.is_empty() {
        return many(connection, &(sql + order), &values);
    }
    sql.push_str(&format!(" AND state = ?{}", values.len() + 1));
    sql.push_str(order);
    let mut states = filter.states.clone();
    states.sort_unstable_by_key(|state| state.as_str());
    states.dedup();
    let mut listed = Vec::new();
    for state in states {
        let word = state.as_str();
        let mut values = values.clone();
        values.push(&word);
        listed.extend(many(connection, &sql, &values)?);
    }
    listed.sort_by_key(|entry| (entry.quoted_at, entry.id));
    listed.truncate(filter.limit);
    Ok(listed)
}

fn many(connection: &Connection, sql: &str, values: &[&dyn ToSql]) -> rusqlite::Result<Vec<Entry>> {
    connection
        .prepare_cached(sql)?
        .query_map(values, |row| Ok(rows::read(row)?.entry))?
        .collect()
}
