//! What is asked without a transaction. Each question is one statement, and sees one moment.

use tokio_postgres::types::ToSql;

use super::rows::{self, columns, millis, most};
use super::session::Line;
use crate::error::Result;
use crate::ledger::{
    Caller, Entry, EntryFilter, LET_IN_AT_MOST, LetIn, STANDING_AT_MOST, Standing,
};
use crate::payment::{ClientPubkey, RequestEventId, Timestamp};

const BY_ID: &str = concat!("SELECT ", columns!(), " FROM entry WHERE id = $1");

/// Four questions in one, told apart by the first column: the entry that the event opened, the one that it claimed, the
/// authorizations for its call, and what else of that call is not finished.
///
/// $1 event, $2 client, $3 identity, $4 how many.
const STANDING: &str = concat!(
    "(SELECT ",
    columns!(),
    ", 0 AS kind FROM entry WHERE id = $1) UNION ALL (SELECT ",
    columns!(),
    ", 1 FROM entry WHERE claimed_by = $1 AND claimed_by <> id LIMIT 1) UNION ALL (SELECT ",
    columns!(),
    ", 2 FROM entry WHERE client = $2 AND identity = $3 AND state = 'settled' AND NOT waiting \
     ORDER BY quoted_at_ms, number LIMIT $4) UNION ALL (SELECT ",
    columns!(),
    ", 3 FROM entry WHERE client = $2 AND identity = $3 AND state NOT IN ('delivered', 'abandoned') \
     AND NOT (state = 'settled' AND NOT waiting) ORDER BY quoted_at_ms DESC, number DESC LIMIT $4)"
);

const ANSWERED: &str = "SELECT EXISTS (SELECT 1 FROM answered WHERE event = $1) \
     OR EXISTS (SELECT 1 FROM free_call WHERE event = $1)";

/// $1 and $2 are the last entry of the page before, $3 how many, $4 a client or nothing, $5 states.
const PAGE_OF_UNFINISHED: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM entry WHERE state NOT IN ('delivered', 'abandoned') AND (quoted_at_ms, id) > ($1, $2) \
     AND ($4::text IS NULL OR client = $4) AND state = ANY($5) ORDER BY quoted_at_ms, id LIMIT $3"
);

/// As [`PAGE_OF_UNFINISHED`]; all states if there are none.
const PAGE_OF_ALL: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM entry WHERE (quoted_at_ms, id) > ($1, $2) AND ($4::text IS NULL OR client = $4) \
     AND (cardinality($5::text[]) = 0 OR state = ANY($5)) ORDER BY quoted_at_ms, id LIMIT $3"
);

pub(super) async fn get(line: &Line, id: &RequestEventId) -> Result<Option<Entry>> {
    let id = id.to_string();
    let row = line.row(BY_ID, &[&id]).await?;
    Ok(row
        .as_ref()
        .map(rows::read)
        .transpose()?
        .map(|stored| stored.entry))
}

pub(super) async fn standing(line: &Line, caller: &Caller) -> Result<Standing> {
    let event = caller.event.to_string();
    let (client, identity) = (caller.client.to_string(), caller.identity.to_string());
    let limit = most(STANDING_AT_MOST);
    let of_call: [&(dyn ToSql + Sync); 4] = [&event, &client, &identity, &limit];
    let of_event: [&(dyn ToSql + Sync); 1] = [&event];
    let (found, answered) =
        tokio::try_join!(line.rows(STANDING, &of_call), line.row(ANSWERED, &of_event))?;
    let mut standing = Standing {
        answered: answered.is_some_and(|row| row.get(0)),
        ..Standing::default()
    };
    for row in &found {
        let entry = rows::read(row)?.entry;
        match row.try_get("kind") {
            Ok(0 | 1) if standing.of_event.is_none() => standing.of_event = Some(entry),
            Ok(2 | 3) if standing.of_identity.len() < STANDING_AT_MOST => {
                standing.of_identity.push(entry)
            }
            _ => {}
        }
    }
    Ok(standing)
}

pub(super) async fn list(line: &Line, filter: &EntryFilter) -> Result<Vec<Entry>> {
    let (at, id) = filter
        .after
        .map_or((-1, String::new()), |(at, id)| (millis(at), id.to_string()));
    let (limit, client) = (
        most(filter.limit),
        filter.client.map(|client| client.to_string()),
    );
    let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
    let unfinished = !states.is_empty() && filter.states.iter().all(|state| !state.is_final());
    let sql = if unfinished {
        PAGE_OF_UNFINISHED
    } else {
        PAGE_OF_ALL
    };
    let found = line
        .rows(sql, &[&at, &id, &limit, &client, &states])
        .await?;
    rows::entries(&found)
}

pub(super) async fn let_in_since(line: &Line, since: Timestamp) -> Result<Vec<LetIn>> {
    const LATEST: &str =
        "SELECT event, at_ms FROM let_in WHERE at_ms >= $1 ORDER BY number DESC LIMIT $2";
    let (since, limit) = (millis(since), most(LET_IN_AT_MOST));
    let found = line.rows(LATEST, &[&since, &limit]).await?;
    let noted = found.iter().rev().map(|row| {
        Ok(LetIn {
            event: rows::word(row, 0)?,
            at: rows::time(rows::get(row, 1)?),
        })
    });
    noted.collect()
}

/// Open offers of `client` that their requests wait for.
pub(super) async fn waiting_of(line: &Line, client: &ClientPubkey) -> Result<Vec<Entry>> {
    const WAITING: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM entry WHERE client = $1 AND state IN ('quoted', 'issued') AND waiting LIMIT 100"
    );
    let client = client.to_string();
    let found = line.rows(WAITING, &[&client]).await?;
    rows::entries(&found)
}
