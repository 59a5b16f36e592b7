//! What a ledger decides, inside the writer's transaction.

use super::rows::{self, Stored, columns, millis, most, text, to_json};
use super::writer::{Fault, Scope};
use crate::error::Error;
use crate::ledger::{
    Applied, Caller, Entry, LET_IN_AT_MOST, LetIn, Move, NewEntry, OpenLimits, Opened, Retention,
    Transition,
};
use crate::payment::{PaymentInteraction, RequestEventId, Timestamp};

/// Everything that may keep an offer from being opened, in one question. See the SQLite ledger.
///
/// $1 event, $2 client, $3 identity, $4 whether under explicit gating, $5 limit.
const OBSTACLES: &str = "SELECT \
     EXISTS (SELECT 1 FROM entry WHERE id = $1) \
         OR EXISTS (SELECT 1 FROM entry WHERE claimed_by = $1 AND claimed_by <> id), \
     EXISTS (SELECT 1 FROM entry WHERE client = $2 AND identity = $3 \
         AND state = 'settled' AND NOT waiting AND ($4 OR interaction = 'transparent')), \
     $4 AND EXISTS (SELECT 1 FROM entry WHERE client = $2 AND identity = $3 \
         AND state IN ('quoted', 'issued') AND interaction = 'explicit_gating'), \
     (SELECT count(*) FROM (SELECT 1 FROM entry \
         WHERE client = $2 AND state IN ('quoted', 'issued') LIMIT $5) AS open_of_client)";

const OUTSTANDING: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM entry WHERE client = $1 AND identity = $2 AND state IN ('quoted', 'issued') \
     AND interaction = 'explicit_gating' LIMIT 1"
);

/// $3 is whether grants of explicit gating may be claimed, too.
const OLDEST_AUTHORIZATION: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM entry WHERE client = $1 AND identity = $2 AND state = 'settled' AND NOT waiting \
     AND ($3 OR interaction = 'transparent') ORDER BY quoted_at_ms, number LIMIT 1 FOR UPDATE"
);

const OF_EVENT: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM entry WHERE id = $1 UNION ALL SELECT ",
    columns!(),
    " FROM entry WHERE claimed_by = $1 AND claimed_by <> id LIMIT 1"
);

const TO_MOVE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM entry WHERE id = $1 FOR UPDATE"
);

const INSERT: &str = "INSERT INTO entry (id, client, identity, capability, amount, unit, pmi, interaction, state, waiting, \
     quoted_at_ms, deadline_ms, route, description, meta, history, request, instance) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'quoted', $9, $10, $11, $12, $13, $14, $15, $16, $17)";

/// A move: `request` only ever goes, and `response` only ever comes.
const UPDATE: &str = "UPDATE entry SET version = version + 1, state = $3, waiting = $4, watch_until_ms = $5, claimed_by = $6, \
     payment_request = $7, reference = $8, settlement = $9, history = $10, \
     request = CASE WHEN $11 THEN request END, response = $12, instance = $13 WHERE number = $1 AND version = $2";

/// See [`Ledger::open`](crate::ledger::Ledger::open).
pub(super) async fn open(
    scope: &Scope<'_>,
    new: NewEntry,
    limits: OpenLimits,
) -> Result<Opened, Fault> {
    let (id, client, identity) = (
        new.id.to_string(),
        new.client.to_string(),
        new.identity.to_string(),
    );
    let explicit = new.interaction == PaymentInteraction::ExplicitGating;
    let per_client = most(limits.per_client);
    let found = scope
        .row(
            OBSTACLES,
            &[&id, &client, &identity, &explicit, &per_client],
        )
        .await?
        .ok_or_else(|| rows::unreadable(0))?;
    let (known, authorized, outstanding) = (
        rows::get::<bool>(&found, 0)?,
        rows::get::<bool>(&found, 1)?,
        rows::get::<bool>(&found, 2)?,
    );
    let of_client: i64 = rows::get(&found, 3)?;
    if known {
        let entry = of_event(scope, &new.id).await?;
        return Ok(Opened::Exists(entry.ok_or(Fault::Overtaken)?));
    }
    if authorized {
        return Ok(Opened::Authorized);
    }
    if outstanding {
        let row = scope.row(OUTSTANDING, &[&client, &identity]).await?;
        return Ok(Opened::Outstanding(
            rows::read(&row.ok_or(Fault::Overtaken)?)?.entry,
        ));
    }
    // Counted before it is asked for the next time: nothing is awaited in between.
    if of_client >= per_client || scope.open_offers() >= most(limits.total) {
        return Ok(Opened::Full);
    }
    scope.note_opened(1);
    let mut entry = Entry::quoted(new);
    entry.description = text(&entry.description);
    entry.capability = text(&entry.capability);
    let (history, amount) = (to_json(&entry.history)?, rows::number(entry.amount.value()));
    scope
        .change(
            INSERT,
            &[
                &id,
                &client,
                &identity,
                &entry.capability,
                &amount,
                &entry.amount.unit().as_str(),
                &entry.pmi.as_str(),
                &entry.interaction.as_str(),
                &entry.waiting,
                &millis(entry.quoted_at),
                &millis(entry.deadline),
                &entry.route,
                &entry.description,
                &entry.meta,
                &history,
                &entry.request,
                &scope.instance,
            ],
        )
        .await?;
    Ok(Opened::New(entry))
}

/// See [`Ledger::apply`](crate::ledger::Ledger::apply).
pub(super) async fn apply(
    scope: &Scope<'_>,
    id: &RequestEventId,
    moves: Vec<Transition>,
    at: Timestamp,
) -> Result<Applied, Fault> {
    let row = scope.row(TO_MOVE, &[&id.to_string()]).await?;
    let stored = rows::read(&row.ok_or_else(|| Error::ledger("no such entry"))?)?;
    let applied = stored.entry.make_all(moves, at);
    let Applied::Moved(moved) = &applied else {
        return Ok(applied);
    };
    if stored.entry.payment_request != moved.payment_request && is_taken(scope, moved).await? {
        // Another entry has this payment request: one payment would settle both.
        return Ok(Applied::Refused(stored.entry));
    }
    write_move(scope, &stored, moved).await?;
    Ok(applied)
}

async fn is_taken(scope: &Scope<'_>, moved: &Entry) -> Result<bool, Fault> {
    const TAKEN: &str = "SELECT 1 FROM entry WHERE pmi = $1 AND reference = $2 AND reference IS NOT NULL AND id <> $3";
    let Some((pmi, reference)) = moved.reference() else {
        return Ok(false);
    };
    let (pmi, id) = (pmi.as_str(), moved.id.to_string());
    Ok(scope.row(TAKEN, &[&pmi, &reference, &id]).await?.is_some())
}

/// Writes a move down, for the instance that makes it.
async fn write_move(scope: &Scope<'_>, stored: &Stored, moved: &Entry) -> Result<(), Fault> {
    let json = |present: Option<Result<String, Fault>>| present.transpose();
    let payment_request = json(moved.payment_request.as_ref().map(to_json))?;
    let settlement = json(moved.settlement.as_ref().map(to_json))?;
    let changed = scope
        .change(
            UPDATE,
            &[
                &stored.number,
                &stored.version,
                &moved.state.as_str(),
                &moved.waiting,
                &moved.watch_until.map(millis),
                &moved.claimed_by.map(|by| by.to_string()),
                &payment_request,
                &moved.reference().map(|(_, reference)| reference),
                &settlement,
                &to_json(&moved.history)?,
                &moved.request.is_some(),
                &moved.response,
                &scope.instance,
            ],
        )
        .await?;
    if changed != 1 {
        return Err(Fault::Overtaken);
    }
    let open = |entry: &Entry| i64::from(entry.state.is_open_offer());
    scope.note_opened(open(moved) - open(&stored.entry));
    Ok(())
}

pub(super) async fn of_event(
    scope: &Scope<'_>,
    event: &RequestEventId,
) -> Result<Option<Entry>, Fault> {
    let row = scope.row(OF_EVENT, &[&event.to_string()]).await?;
    Ok(row
        .as_ref()
        .map(rows::read)
        .transpose()?
        .map(|stored| stored.entry))
}

/// See [`Ledger::claim_authorization`](crate::ledger::Ledger::claim_authorization).
pub(super) async fn claim(
    scope: &Scope<'_>,
    caller: &Caller,
    interaction: PaymentInteraction,
    at: Timestamp,
) -> Result<Option<Entry>, Fault> {
    if of_event(scope, &caller.event).await?.is_some() {
        return Ok(None);
    }
    let (client, identity) = (caller.client.to_string(), caller.identity.to_string());
    let explicit = interaction == PaymentInteraction::ExplicitGating;
    let row = scope
        .row(OLDEST_AUTHORIZATION, &[&client, &identity, &explicit])
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let stored = rows::read(&row)?;
    let mut claimed = stored.entry.clone();
    let by = caller.event;
    if !stored.entry.is_claimable_under(interaction)
        || !matches!(claimed.make(Transition::Claim { by }, at), Move::To(_))
    {
        // It was claimed while we waited for its row; there may be another.
        return Err(Fault::Overtaken);
    }
    write_move(scope, &stored, &claimed).await?;
    Ok(Some(claimed))
}

/// See [`Ledger::note_answered`](crate::ledger::Ledger::note_answered).
pub(super) async fn note_answered(
    scope: &Scope<'_>,
    event: &RequestEventId,
    at: Timestamp,
) -> Result<bool, Fault> {
    const NOTE: &str = "INSERT INTO answered (event, at_ms) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    Ok(scope
        .change(NOTE, &[&event.to_string(), &millis(at)])
        .await?
        == 1)
}

/// See [`Ledger::note_let_in`](crate::ledger::Ledger::note_let_in).
pub(super) async fn note_let_in(scope: &Scope<'_>, events: &[LetIn]) -> Result<(), Fault> {
    const NOTE: &str = "INSERT INTO let_in (event, at_ms) SELECT event, at_ms \
         FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS noted (event, at_ms, nth) ORDER BY nth";
    let (ids, at): (Vec<String>, Vec<i64>) = events
        .iter()
        .map(|noted| (noted.event.to_string(), millis(noted.at)))
        .unzip();
    scope.change(NOTE, &[&ids, &at]).await?;
    Ok(())
}

/// See [`Ledger::prune`](crate::ledger::Ledger::prune). What is taken is kept as long as what is answered.
pub(super) async fn prune(scope: &Scope<'_>, retention: Retention) -> Result<usize, Fault> {
    const UNPAID: &str = "DELETE FROM entry WHERE number IN (SELECT number FROM entry \
         WHERE state IN ('abandoned', 'expired') AND quoted_at_ms < $1 \
         AND (watch_until_ms IS NULL OR watch_until_ms < $1) LIMIT 500 FOR UPDATE SKIP LOCKED)";
    const RESPONSES: &str = "UPDATE entry SET response = NULL WHERE number IN (SELECT number FROM entry \
         WHERE response IS NOT NULL AND quoted_at_ms < $1 \
         AND (history::json -> -1 ->> 'at')::bigint < $1 LIMIT 500 FOR UPDATE SKIP LOCKED)";
    const ANSWERED: &str = "DELETE FROM answered WHERE event IN (SELECT event FROM answered WHERE at_ms < $1 LIMIT 2000)";
    const TAKEN: &str =
        "DELETE FROM taken WHERE event IN (SELECT event FROM taken WHERE at_ms < $1 LIMIT 2000)";
    const LET_IN: &str = "DELETE FROM let_in WHERE number IN (SELECT number FROM let_in ORDER BY number LIMIT 2000) \
         AND (at_ms < $1 OR number <= (SELECT max(number) FROM let_in) - $2)";
    /// What instances counted that are long gone is counted on by this one.
    const TALLIES: &str = "WITH gone AS (DELETE FROM tally WHERE instance IN \
         (SELECT number FROM instance WHERE ended_at < clock_timestamp() - interval '1 hour') RETURNING open_offers) \
         UPDATE tally SET open_offers = open_offers + (SELECT sum(open_offers) FROM gone) \
         WHERE instance = $1 AND EXISTS (SELECT 1 FROM gone)";
    const INSTANCES: &str = "DELETE FROM instance WHERE resolved AND ended_at < clock_timestamp() - interval '7 days' \
         AND NOT EXISTS (SELECT 1 FROM tally WHERE tally.instance = number)";
    let answered = millis(retention.answered_before);
    let mut changed = scope
        .change(UNPAID, &[&millis(retention.unpaid_before)])
        .await?;
    changed += scope
        .change(RESPONSES, &[&millis(retention.responses_before)])
        .await?;
    changed += scope.change(ANSWERED, &[&answered]).await?;
    changed += scope.change(TAKEN, &[&answered]).await?;
    changed += scope
        .change(LET_IN, &[&answered, &most(LET_IN_AT_MOST)])
        .await?;
    scope.change(TALLIES, &[&scope.instance]).await?;
    scope.change(INSTANCES, &[]).await?;
    Ok(usize::try_from(changed).unwrap_or(usize::MAX))
}
