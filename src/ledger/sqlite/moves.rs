//! What a ledger decides, inside the writer's transaction.

use rusqlite::{Connection, OptionalExtension};

use super::rows::{self, Stored, columns};
use super::{failure, reader};
use crate::error::{Error, Result};
use crate::ledger::{Applied, Caller, Entry, Move, NewEntry, OpenLimits, Opened, Transition};
use crate::payment::{PaymentInteraction, RequestEventId, Timestamp};

/// Reads no further than the limit: its cost does not grow with the offers that are open.
pub(super) const OPEN_OF_CLIENT: &str = "SELECT count(*) FROM (SELECT 1 FROM entry INDEXED BY entry_open \
     WHERE client = ?1 AND is_open = 1 LIMIT ?2)";

const OPEN_IN_ALL: &str = "SELECT open_offers FROM tally";

pub(super) const OUTSTANDING: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM entry INDEXED BY entry_open WHERE client = ?1 AND identity = ?2 AND is_open = 1 \
     AND interaction = 'explicit_gating' LIMIT 1"
);

/// ?3 is whether grants of explicit gating may be claimed, too.
pub(super) const OLDEST_AUTHORIZATION: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM entry INDEXED BY entry_authorization \
     WHERE client = ?1 AND identity = ?2 AND is_authorization = 1 \
     AND (?3 OR interaction = 'transparent') ORDER BY quoted_at_ms, id LIMIT 1"
);

/// See [`Ledger::open`](crate::ledger::Ledger::open).
pub(super) fn open(connection: &Connection, new: NewEntry, limits: OpenLimits) -> Result<Opened> {
    write_new(connection, new, limits).map_err(|e| failure(&e))
}

fn write_new(
    connection: &Connection,
    new: NewEntry,
    limits: OpenLimits,
) -> rusqlite::Result<Opened> {
    if let Some(entry) = reader::of_event(connection, &new.id)? {
        return Ok(Opened::Exists(entry));
    }
    let caller = Caller::new(new.client, new.id, new.identity);
    if oldest(connection, &caller, new.interaction)?.is_some() {
        return Ok(Opened::Authorized);
    }
    let client = new.client.to_string();
    if new.interaction == PaymentInteraction::ExplicitGating {
        let outstanding = connection
            .prepare_cached(OUTSTANDING)?
            .query_row((&client, new.identity.to_string()), rows::read)
            .optional()?;
        if let Some(stored) = outstanding {
            return Ok(Opened::Outstanding(stored.entry));
        }
    }
    let most = |limit: usize| i64::try_from(limit).unwrap_or(i64::MAX);
    let count = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
        connection
            .prepare_cached(sql)?
            .query_row(values, |row| row.get::<_, i64>(0))
    };
    if count(OPEN_IN_ALL, &[])? >= most(limits.total) {
        return Ok(Opened::Full);
    }
    let per_client = most(limits.per_client);
    if count(OPEN_OF_CLIENT, &[&client, &per_client])? >= per_client {
        return Ok(Opened::Full);
    }
    let entry = Entry::quoted(new);
    rows::insert(connection, &entry)?;
    Ok(Opened::New(entry))
}

/// See [`Ledger::apply`](crate::ledger::Ledger::apply).
pub(super) fn apply(
    connection: &Connection,
    id: &RequestEventId,
    moves: Vec<Transition>,
    at: Timestamp,
) -> Result<Applied> {
    let stored = reader::stored(connection, id)
        .map_err(|e| failure(&e))?
        .ok_or_else(|| Error::ledger("no such entry"))?;
    let applied = stored.entry.make_all(moves, at);
    if let Applied::Moved(moved) = &applied {
        match rows::update(connection, &stored, moved) {
            // Another entry has this payment request: one payment would settle both.
            Err(error) if is_taken(&error) => return Ok(Applied::Refused(stored.entry)),
            updated => updated.map_err(|e| failure(&e))?,
        }
    }
    Ok(applied)
}

fn is_taken(error: &rusqlite::Error) -> bool {
    error
        .sqlite_error()
        .is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE)
}

/// See [`Ledger::note_answered`](crate::ledger::Ledger::note_answered).
pub(super) fn note_answered(
    connection: &Connection,
    event: &RequestEventId,
    at: Timestamp,
) -> Result<bool> {
    const NOTE: &str = "INSERT OR IGNORE INTO answered (event, at_ms) VALUES (?1, ?2)";
    change(connection, NOTE, (event.to_string(), rows::millis(at))).map(|noted| noted == 1)
}

/// Forgets entries that ended unpaid.
pub(super) fn forget_unpaid(connection: &Connection, before: Timestamp) -> Result<usize> {
    const FORGET: &str = "DELETE FROM entry WHERE number IN (SELECT number FROM entry \
         WHERE state IN ('abandoned', 'expired') AND quoted_at_ms < ?1 LIMIT 500)";
    change(connection, FORGET, [rows::millis(before)])
}

/// Forgets the stored responses of delivered entries.
pub(super) fn forget_responses(connection: &Connection, before: Timestamp) -> Result<usize> {
    const FORGET: &str = "UPDATE entry SET response = NULL WHERE number IN (SELECT number FROM entry \
         WHERE state = 'delivered' AND quoted_at_ms < ?1 AND response IS NOT NULL LIMIT 500)";
    change(connection, FORGET, [rows::millis(before)])
}

/// Forgets events that were answered without an entry.
pub(super) fn forget_answered(connection: &Connection, before: Timestamp) -> Result<usize> {
    const FORGET: &str = "DELETE FROM answered WHERE event IN \
         (SELECT event FROM answered WHERE at_ms < ?1 LIMIT 500)";
    change(connection, FORGET, [rows::millis(before)])
}

fn change(connection: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<usize> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute(values))
        .map_err(|e| failure(&e))
}

/// See [`Ledger::claim_authorization`](crate::ledger::Ledger::claim_authorization).
pub(super) fn claim(
    connection: &Connection,
    caller: &Caller,
    interaction: PaymentInteraction,
    at: Timestamp,
) -> Result<Option<Entry>> {
    if reader::of_event(connection, &caller.event)
        .map_err(|e| failure(&e))?
        .is_some()
    {
        return Ok(None);
    }
    let Some(stored) = oldest(connection, caller, interaction).map_err(|e| failure(&e))? else {
        return Ok(None);
    };
    let mut claimed = stored.entry.clone();
    let by = caller.event;
    match claimed.make(Transition::Claim { by }, at) {
        Move::To(_) if stored.entry.is_claimable_under(interaction) => {
            rows::update(connection, &stored, &claimed).map_err(|e| failure(&e))?;
            Ok(Some(claimed))
        }
        _ => Ok(None),
    }
}

fn oldest(
    connection: &Connection,
    caller: &Caller,
    interaction: PaymentInteraction,
) -> rusqlite::Result<Option<Stored>> {
    let explicit = interaction == PaymentInteraction::ExplicitGating;
    connection
        .prepare_cached(OLDEST_AUTHORIZATION)?
        .query_row(
            (
                caller.client.to_string(),
                caller.identity.to_string(),
                explicit,
            ),
            rows::read,
        )
        .optional()
}
