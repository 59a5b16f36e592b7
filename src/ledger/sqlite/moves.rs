//! What a ledger decides, inside the writer's transaction.

use rusqlite::{Connection, OptionalExtension};

use super::books::Books;
use super::rows::{self, Stored, columns};
use super::{failure, reader};
use crate::error::{Error, Result};
use crate::ledger::{
    Applied, Caller, Entry, LET_IN_AT_MOST, LetIn, Move, NewEntry, OpenLimits, Opened, Transition,
};
use crate::payment::{PaymentInteraction, RequestEventId, Timestamp};

/// Everything that may keep an offer from being opened, in one question: an entry that the event opened or claimed, an
/// authorization, an open offer of the same call, and how many the client has. It reads no further than the limit, so its
/// cost does not grow with the offers that are open.
///
/// ?1 event, ?2 client, ?3 identity, ?4 whether under explicit gating, ?5 limit.
pub(super) const OBSTACLES: &str = "SELECT \
     EXISTS (SELECT 1 FROM entry WHERE id = ?1), \
     EXISTS (SELECT 1 FROM entry INDEXED BY entry_claimed_by WHERE claimed_by = ?1 AND claimed_by <> id), \
     EXISTS (SELECT 1 FROM entry INDEXED BY entry_authorization WHERE client = ?2 AND identity = ?3 \
         AND is_authorization = 1 AND (?4 OR interaction = 'transparent')), \
     ?4 AND EXISTS (SELECT 1 FROM entry INDEXED BY entry_open WHERE client = ?2 AND identity = ?3 \
         AND is_open = 1 AND interaction = 'explicit_gating'), \
     (SELECT count(*) FROM (SELECT 1 FROM entry INDEXED BY entry_open \
         WHERE client = ?2 AND is_open = 1 LIMIT ?5))";

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
     AND (?3 OR interaction = 'transparent') ORDER BY quoted_at_ms, number LIMIT 1"
);

/// See [`Ledger::open`](crate::ledger::Ledger::open).
pub(super) fn open(books: &mut Books, new: NewEntry, limits: OpenLimits) -> Result<Opened> {
    write_new(books, new, limits).map_err(|e| failure(&e))
}

fn write_new(books: &mut Books, new: NewEntry, limits: OpenLimits) -> rusqlite::Result<Opened> {
    let (client, identity) = (new.client.to_string(), new.identity.to_string());
    let explicit = new.interaction == PaymentInteraction::ExplicitGating;
    let most = |limit: usize| i64::try_from(limit).unwrap_or(i64::MAX);
    let per_client = most(limits.per_client);
    let (opened, claimed, authorized, outstanding, of_client) =
        books.connection().prepare_cached(OBSTACLES)?.query_row(
            (new.id.to_string(), &client, &identity, explicit, per_client),
            |row| {
                Ok((
                    row.get::<_, bool>(0)?,
                    row.get::<_, bool>(1)?,
                    row.get::<_, bool>(2)?,
                    row.get::<_, bool>(3)?,
                    row.get::<_, i64>(4)?,
                ))
            },
        )?;
    if opened || claimed {
        let entry = reader::of_event(books.connection(), &new.id)?;
        return entry
            .map(Opened::Exists)
            .ok_or(rusqlite::Error::QueryReturnedNoRows);
    }
    if authorized {
        return Ok(Opened::Authorized);
    }
    if outstanding {
        let stored = books
            .connection()
            .prepare_cached(OUTSTANDING)?
            .query_row((&client, &identity), rows::read)?;
        return Ok(Opened::Outstanding(stored.entry));
    }
    if of_client >= per_client || books.open_offers()? >= most(limits.total) {
        return Ok(Opened::Full);
    }
    let entry = Entry::quoted(new);
    let number = rows::insert(books.connection(), &entry)?;
    books.note_opened(1);
    books.recent.keep(Stored {
        number,
        entry: entry.clone(),
    });
    Ok(Opened::New(entry))
}

/// See [`Ledger::apply`](crate::ledger::Ledger::apply).
pub(super) fn apply(
    books: &mut Books,
    id: &RequestEventId,
    moves: Vec<Transition>,
    at: Timestamp,
) -> Result<Applied> {
    let stored = match books.recent.take(id) {
        Some(stored) => stored,
        None => reader::stored(books.connection(), id)
            .map_err(|e| failure(&e))?
            .ok_or_else(|| Error::ledger("no such entry"))?,
    };
    let applied = stored.entry.make_all(moves, at);
    let Applied::Moved(moved) = &applied else {
        books.recent.keep(stored);
        return Ok(applied);
    };
    match write_move(books, &stored, moved) {
        // Another entry has this payment request: one payment would settle both.
        Err(error) if is_taken(&error) => Ok(Applied::Refused(stored.entry)),
        Err(error) => Err(failure(&error)),
        Ok(()) => Ok(applied),
    }
}

/// Writes a move down and remembers it.
fn write_move(books: &mut Books, stored: &Stored, moved: &Entry) -> rusqlite::Result<()> {
    rows::update(books.connection(), stored, moved)?;
    let open = |entry: &Entry| i64::from(entry.state.is_open_offer());
    books.note_opened(open(moved) - open(&stored.entry));
    books.recent.keep(Stored {
        number: stored.number,
        entry: moved.clone(),
    });
    Ok(())
}

fn is_taken(error: &rusqlite::Error) -> bool {
    error
        .sqlite_error()
        .is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE)
}

/// See [`Ledger::note_answered`](crate::ledger::Ledger::note_answered).
pub(super) fn note_answered(
    books: &mut Books,
    event: &RequestEventId,
    at: Timestamp,
) -> Result<bool> {
    const NOTE: &str = "INSERT OR IGNORE INTO answered (event, at_ms) VALUES (?1, ?2)";
    change(books, NOTE, (event.to_string(), rows::millis(at))).map(|noted| noted == 1)
}

/// See [`Ledger::note_let_in`](crate::ledger::Ledger::note_let_in). The one job of several statements: what an error leaves of
/// it does no harm.
pub(super) fn note_let_in(books: &mut Books, events: &[LetIn]) -> Result<()> {
    const NOTE: &str = "INSERT INTO let_in (event, at_ms) VALUES (?1, ?2)";
    for noted in events {
        change(
            books,
            NOTE,
            (noted.event.to_string(), rows::millis(noted.at)),
        )?;
    }
    Ok(())
}

/// Forgets events that were let in, the oldest first: they are in order, so the oldest ones tell whether there is more to do.
pub(super) fn forget_let_in(books: &mut Books, before: Timestamp) -> Result<usize> {
    const FORGET: &str = "DELETE FROM let_in WHERE number IN (SELECT number FROM let_in ORDER BY number LIMIT 2000) \
         AND (at_ms < ?1 OR number <= (SELECT max(number) FROM let_in) - ?2)";
    let most = i64::try_from(LET_IN_AT_MOST).unwrap_or(i64::MAX);
    change(books, FORGET, (rows::millis(before), most))
}

/// Forgets entries that ended unpaid.
pub(super) fn forget_unpaid(books: &mut Books, before: Timestamp) -> Result<usize> {
    books.recent.forget();
    change(books, FORGET_UNPAID, [rows::millis(before)])
}

pub(super) const FORGET_UNPAID: &str = "DELETE FROM entry WHERE number IN (SELECT number FROM entry \
     INDEXED BY entry_unpaid WHERE state IN ('abandoned', 'expired') AND quoted_at_ms < ?1 \
     AND (watch_until_ms IS NULL OR watch_until_ms < ?1) LIMIT 500)";

/// Forgets the stored responses of delivered entries.
pub(super) fn forget_responses(books: &mut Books, before: Timestamp) -> Result<usize> {
    change(books, FORGET_RESPONSES, [rows::millis(before)])
}

/// Only a delivered entry has a response, and a delivered entry is not remembered. What was quoted long ago may have been delivered
/// today: the last moment of the history says when.
pub(super) const FORGET_RESPONSES: &str = "UPDATE entry SET response = NULL WHERE number IN (SELECT number FROM entry \
     INDEXED BY entry_response WHERE response IS NOT NULL AND quoted_at_ms < ?1 \
     AND json_extract(history, '$[#-1].at') < ?1 LIMIT 500)";

/// Forgets events that were answered without an entry.
pub(super) fn forget_answered(books: &mut Books, before: Timestamp) -> Result<usize> {
    const FORGET: &str = "DELETE FROM answered WHERE event IN \
         (SELECT event FROM answered WHERE at_ms < ?1 LIMIT 500)";
    change(books, FORGET, [rows::millis(before)])
}

fn change(books: &Books, sql: &str, values: impl rusqlite::Params) -> Result<usize> {
    books
        .connection()
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute(values))
        .map_err(|e| failure(&e))
}

/// See [`Ledger::claim_authorization`](crate::ledger::Ledger::claim_authorization).
pub(super) fn claim(
    books: &mut Books,
    caller: &Caller,
    interaction: PaymentInteraction,
    at: Timestamp,
) -> Result<Option<Entry>> {
    claim_oldest(books, caller, interaction, at).map_err(|e| failure(&e))
}

fn claim_oldest(
    books: &mut Books,
    caller: &Caller,
    interaction: PaymentInteraction,
    at: Timestamp,
) -> rusqlite::Result<Option<Entry>> {
    if reader::of_event(books.connection(), &caller.event)?.is_some() {
        return Ok(None);
    }
    let Some(stored) = oldest(books.connection(), caller, interaction)? else {
        return Ok(None);
    };
    let mut claimed = stored.entry.clone();
    let by = caller.event;
    if !stored.entry.is_claimable_under(interaction)
        || !matches!(claimed.make(Transition::Claim { by }, at), Move::To(_))
    {
        return Ok(None);
    }
    // The copy, if there is one, is the row before this move.
    books.recent.take(&claimed.id);
    write_move(books, &stored, &claimed)?;
    Ok(Some(claimed))
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
