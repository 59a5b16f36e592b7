//! The records of free calls, in the database.

use async_trait::async_trait;
use tokio_postgres::Row;

use super::PostgresLedger;
use super::rows::{self, millis, most, text};
use super::writer::{About, Fault, Scope};
use crate::error::Result;
use crate::ledger::free_calls::day_of;
use crate::ledger::{FreeCall, FreeCallFilter, FreeCalls, FreeLimits, FreeSpend};
use crate::payment::{RequestEventId, Timestamp};

/// `free_day` counts what is limited: a row for each client, and one, whose client is empty, for all.
pub(super) const SCHEMA: &str = r#"
CREATE TABLE free_call (
    number     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event      TEXT COLLATE "C" NOT NULL UNIQUE,
    client     TEXT COLLATE "C" NOT NULL,
    capability TEXT NOT NULL,
    waived_by  TEXT COLLATE "C" NOT NULL,
    why        TEXT NOT NULL,
    at_ms      BIGINT NOT NULL,
    counted    BOOLEAN NOT NULL
);
CREATE INDEX free_call_at ON free_call (at_ms, event);
CREATE TABLE free_day (
    waived_by TEXT COLLATE "C" NOT NULL,
    day       BIGINT NOT NULL,
    client    TEXT COLLATE "C" NOT NULL,
    spent     BIGINT NOT NULL,
    PRIMARY KEY (waived_by, day, client)
) WITH (fillfactor = 70);
CREATE INDEX free_day_day ON free_day (day);
"#;

#[async_trait]
impl FreeCalls for PostgresLedger {
    async fn note_free(&self, calls: Vec<FreeCall>) -> Result<()> {
        self.write(vec![About::All("free")], false, move |scope| {
            let calls = calls.clone();
            Box::pin(async move { note(scope, &calls).await })
        })
        .await
    }

    async fn spend_free(&self, call: FreeCall, limits: FreeLimits) -> Result<FreeSpend> {
        let about = vec![About::Client(call.client), About::Entry(call.event)];
        self.write(about, false, move |scope| {
            let call = call.clone();
            Box::pin(async move { spend(scope, &call, limits).await })
        })
        .await
    }

    async fn free_call(&self, event: &RequestEventId) -> Result<Option<FreeCall>> {
        const GET: &str = "SELECT event, client, capability, waived_by, why, at_ms FROM free_call WHERE event = $1";
        let event = event.to_string();
        let row = self.reading.row(GET, &[&event]).await?;
        row.as_ref().map(read).transpose()
    }

    async fn free_calls(&self, filter: &FreeCallFilter) -> Result<Vec<FreeCall>> {
        const LIST: &str = "SELECT event, client, capability, waived_by, why, at_ms FROM free_call \
             WHERE (at_ms, event) > ($1, $2) AND ($3::text IS NULL OR client = $3) ORDER BY at_ms, event LIMIT $4";
        let (at, event) = filter.after.map_or((-1, String::new()), |(at, event)| {
            (millis(at), event.to_string())
        });
        let client = filter.client.map(|client| client.to_string());
        let limit = most(filter.limit);
        let found = self
            .reading
            .rows(LIST, &[&at, &event, &client, &limit])
            .await?;
        found.iter().map(read).collect()
    }

    async fn forget_free(&self, before: Timestamp, keep: usize) -> Result<usize> {
        let keep = most(keep);
        self.write(vec![About::All("free")], false, move |scope| {
            Box::pin(async move { forget(scope, before, keep).await })
        })
        .await
    }
}

async fn note(scope: &Scope<'_>, calls: &[FreeCall]) -> Result<(), Fault> {
    const NOTE: &str = "INSERT INTO free_call (event, client, capability, waived_by, why, at_ms, counted) \
         SELECT *, false FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[]) \
         ON CONFLICT DO NOTHING";
    let column = |of: fn(&FreeCall) -> String| calls.iter().map(of).collect::<Vec<String>>();
    let at: Vec<i64> = calls.iter().map(|call| millis(call.at)).collect();
    scope
        .change(
            NOTE,
            &[
                &column(|call| call.event.to_string()),
                &column(|call| call.client.to_string()),
                &column(|call| text(&call.capability)),
                &column(|call| text(&call.by)),
                &column(|call| text(&call.why)),
                &at,
            ],
        )
        .await?;
    Ok(())
}

async fn spend(scope: &Scope<'_>, call: &FreeCall, limits: FreeLimits) -> Result<FreeSpend, Fault> {
    const KNOWN: &str = "SELECT 1 FROM free_call WHERE event = $1";
    const WRITE: &str = "INSERT INTO free_call (event, client, capability, waived_by, why, at_ms, counted) \
         VALUES ($1, $2, $3, $4, $5, $6, true)";
    /// One more, unless that is too many.
    const COUNT: &str = "INSERT INTO free_day AS so_far (waived_by, day, client, spent) SELECT $1, $2, $3, 1 WHERE $4::bigint > 0 \
         ON CONFLICT (waived_by, day, client) DO UPDATE SET spent = so_far.spent + 1 WHERE so_far.spent < $4 RETURNING spent";
    const BACK: &str =
        "UPDATE free_day SET spent = spent - 1 WHERE waived_by = $1 AND day = $2 AND client = $3";
    let (event, client) = (call.event.to_string(), call.client.to_string());
    if scope.row(KNOWN, &[&event]).await?.is_some() {
        return Ok(FreeSpend::Already);
    }
    let day = rows::number(day_of(call.at));
    let (of_client, of_all) = (i64::from(limits.per_client), i64::from(limits.total));
    let Some(row) = scope
        .row(COUNT, &[&call.by, &day, &client, &of_client])
        .await?
    else {
        return Ok(FreeSpend::UsedUp);
    };
    let nth: i64 = rows::get(&row, 0)?;
    if scope
        .row(COUNT, &[&call.by, &day, &"", &of_all])
        .await?
        .is_none()
    {
        scope.change(BACK, &[&call.by, &day, &client]).await?;
        return Ok(FreeSpend::AllUsedUp);
    }
    let (capability, why) = (text(&call.capability), text(&call.why));
    scope
        .change(
            WRITE,
            &[
                &event,
                &client,
                &capability,
                &call.by,
                &why,
                &millis(call.at),
            ],
        )
        .await?;
    Ok(FreeSpend::Spent {
        nth: u32::try_from(nth).unwrap_or(u32::MAX),
    })
}

/// What is counted of the last two days stays.
async fn forget(scope: &Scope<'_>, before: Timestamp, keep: i64) -> Result<usize, Fault> {
    const OLD: &str = "DELETE FROM free_call WHERE number IN (SELECT number FROM free_call WHERE at_ms < $1 LIMIT 500)";
    const TOO_MANY: &str = "DELETE FROM free_call WHERE number IN (SELECT number FROM free_call \
         WHERE number <= (SELECT max(number) FROM free_call) - $1 AND NOT counted LIMIT 500)";
    const DAYS: &str = "DELETE FROM free_day WHERE day < $1";
    let old = scope.change(OLD, &[&millis(before)]).await?;
    let too_many = scope.change(TOO_MANY, &[&keep]).await?;
    scope.change(DAYS, &[&rows::number(day_of(before))]).await?;
    Ok(usize::try_from(old + too_many).unwrap_or(usize::MAX))
}

fn read(row: &Row) -> Result<FreeCall> {
    Ok(FreeCall {
        event: rows::word(row, 0)?,
        client: rows::word(row, 1)?,
        capability: rows::get(row, 2)?,
        by: rows::get(row, 3)?,
        why: rows::get(row, 4)?,
        at: rows::time(rows::get(row, 5)?),
    })
}
