//! Accounts in the database.

use async_trait::async_trait;
use tokio_postgres::Row;

use super::rows::{self, millis, most, time};
use super::writer::{About, Fault, Scope};
use super::{PostgresLedger, moves};
use crate::error::{Error, Result};
use crate::ledger::accounts::{
    already_elsewhere, draw_key, give_back_key, more_than_paid, paid_at_once, taken_back,
    taken_back_key, too_much, top_up_key,
};
use crate::ledger::{
    Account, Accounts, Applied, Credit, Drawn, GiveBack, Movement, MovementKind, NewEntry,
    OpenLimits, Opened, Transition,
};
use crate::payment::{Amount, ClientPubkey, RequestEventId, Timestamp, Unit};

pub(super) const SCHEMA: &str = r#"
CREATE TABLE account (
    client        TEXT COLLATE "C" NOT NULL,
    unit          TEXT COLLATE "C" NOT NULL,
    amount        BIGINT NOT NULL CHECK (amount >= 0),
    touched_at_ms BIGINT NOT NULL,
    PRIMARY KEY (client, unit)
) WITH (fillfactor = 70);
CREATE INDEX account_touched ON account (touched_at_ms) WHERE amount > 0;
CREATE TABLE movement (
    number    BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client    TEXT COLLATE "C" NOT NULL,
    unit      TEXT COLLATE "C" NOT NULL,
    kind      TEXT NOT NULL,
    key       TEXT NOT NULL UNIQUE,
    change    BIGINT NOT NULL,
    left_over BIGINT NOT NULL CHECK (left_over >= 0),
    at_ms     BIGINT NOT NULL
);
CREATE INDEX movement_of_account ON movement (client, unit, number);
"#;

/// The most that may be drawn while offers are open: as many as there are.
const NO_LIMITS: OpenLimits = OpenLimits::new(usize::MAX, usize::MAX);

#[async_trait]
impl Accounts for PostgresLedger {
    async fn draw(&self, new: NewEntry, at: Timestamp) -> Result<Drawn> {
        let about = vec![About::Client(new.client), About::Entry(new.id)];
        self.write(about, true, move |scope| {
            let new = new.clone();
            Box::pin(async move { draw(scope, new, at).await })
        })
        .await
    }

    async fn credit(&self, credit: Credit) -> Result<Account> {
        self.write(vec![About::Client(credit.client)], false, move |scope| {
            let credit = credit.clone();
            Box::pin(async move { put(scope, &credit).await })
        })
        .await
    }

    async fn give_back(
        &self,
        id: &RequestEventId,
        back: GiveBack,
        at: Timestamp,
    ) -> Result<Applied> {
        let id = *id;
        self.write(vec![About::Entry(id)], false, move |scope| {
            let back = back.clone();
            Box::pin(async move { give_back(scope, &id, &back, at).await })
        })
        .await
    }

    async fn take_back(&self, id: &RequestEventId, at: Timestamp) -> Result<Option<Amount>> {
        let id = *id;
        self.write(vec![About::Entry(id)], false, move |scope| {
            Box::pin(async move { take_back(scope, &id, at).await })
        })
        .await
    }

    async fn account(&self, client: &ClientPubkey, unit: &Unit) -> Result<Option<Account>> {
        const GET: &str = "SELECT client, unit, amount, touched_at_ms FROM account WHERE client = $1 AND unit = $2";
        let (client, unit) = (client.to_string(), unit.to_string());
        let row = self.reading.row(GET, &[&client, &unit]).await?;
        row.as_ref().map(read_account).transpose()
    }

    async fn accounts(
        &self,
        after: Option<(ClientPubkey, Unit)>,
        limit: usize,
    ) -> Result<Vec<Account>> {
        const LIST: &str = "SELECT client, unit, amount, touched_at_ms FROM account \
             WHERE (client, unit) > ($1, $2) ORDER BY client, unit LIMIT $3";
        let (client, unit) = after.map_or_else(Default::default, |(client, unit)| {
            (client.to_string(), unit.to_string())
        });
        let limit = most(limit);
        let found = self.reading.rows(LIST, &[&client, &unit, &limit]).await?;
        found.iter().map(read_account).collect()
    }

    async fn movements(
        &self,
        client: &ClientPubkey,
        unit: &Unit,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Movement>> {
        const LIST: &str = "SELECT number, kind, key, change, left_over, at_ms FROM movement \
             WHERE client = $1 AND unit = $2 AND number > $3 ORDER BY number LIMIT $4";
        let (client, unit) = (client.to_string(), unit.to_string());
        let (after, limit) = (rows::number(after), most(limit));
        let found = self
            .reading
            .rows(LIST, &[&client, &unit, &after, &limit])
            .await?;
        found.iter().map(read_movement).collect()
    }

    async fn latest_movements(
        &self,
        client: &ClientPubkey,
        unit: &Unit,
        limit: usize,
    ) -> Result<Vec<Movement>> {
        const LIST: &str = "SELECT number, kind, key, change, left_over, at_ms FROM movement \
             WHERE client = $1 AND unit = $2 ORDER BY number DESC LIMIT $3";
        let (client, unit) = (client.to_string(), unit.to_string());
        let limit = most(limit);
        let found = self.reading.rows(LIST, &[&client, &unit, &limit]).await?;
        found.iter().map(read_movement).collect()
    }

    async fn expire_accounts(&self, since: Timestamp, at: Timestamp) -> Result<usize> {
        self.write(vec![About::All("accounts")], false, move |scope| {
            Box::pin(async move { expire(scope, since, at).await })
        })
        .await
    }
}

const ON: &str = "SELECT amount FROM account WHERE client = $1 AND unit = $2 FOR UPDATE";

async fn draw(scope: &Scope<'_>, new: NewEntry, at: Timestamp) -> Result<Drawn, Fault> {
    let (client, amount) = (new.client, new.amount.clone());
    let row = scope
        .row(ON, &[&client.to_string(), &amount.unit().as_str()])
        .await?;
    let on: i64 = row.as_ref().map_or(Ok(0), |row| rows::get(row, 0))?;
    if on < rows::number(amount.value()) {
        // What this very event has drawn already is not missing.
        let drawn = moves::of_event(scope, &new.id).await?;
        return Ok(drawn.map_or(Drawn::Short, |entry| Drawn::Refused(Opened::Exists(entry))));
    }
    let quoted = match moves::open(scope, new, NO_LIMITS).await? {
        Opened::New(entry) => entry,
        other => return Ok(Drawn::Refused(other)),
    };
    let paid = paid_at_once(&quoted, at);
    let Applied::Moved(entry) = moves::apply(scope, &quoted.id, paid, at).await? else {
        return Err(Fault::Undo(Error::ledger("an entry cannot be paid")));
    };
    let taken = Credit {
        client,
        amount,
        kind: MovementKind::Draw,
        key: draw_key(&entry.id),
        at,
    };
    let left = shift(scope, &taken, -1).await?.amount;
    Ok(Drawn::Paid { entry, left })
}

const KNOWN: &str = "SELECT 1 FROM movement WHERE key = $1";

async fn put(scope: &Scope<'_>, credit: &Credit) -> Result<Account, Fault> {
    const NOW: &str =
        "SELECT client, unit, amount, touched_at_ms FROM account WHERE client = $1 AND unit = $2";
    if scope.row(KNOWN, &[&credit.key]).await?.is_some() {
        let (client, unit) = (credit.client.to_string(), credit.amount.unit().as_str());
        let row = scope.row(NOW, &[&client, &unit]).await?;
        let row = row.ok_or_else(|| Fault::Undo(already_elsewhere()))?;
        return Ok(read_account(&row)?);
    }
    shift(scope, credit, 1).await
}

async fn give_back(
    scope: &Scope<'_>,
    id: &RequestEventId,
    back: &GiveBack,
    at: Timestamp,
) -> Result<Applied, Fault> {
    let response = back.response.clone();
    let applied = moves::apply(scope, id, vec![Transition::Deliver { response }], at).await?;
    if let Applied::Moved(entry) = &applied {
        let credit = back.credit(entry, at);
        let credit = credit.ok_or_else(|| Fault::Undo(more_than_paid()))?;
        if credit.amount.value() > 0 {
            put(scope, &credit).await?;
        }
    }
    Ok(applied)
}

async fn take_back(
    scope: &Scope<'_>,
    id: &RequestEventId,
    at: Timestamp,
) -> Result<Option<Amount>, Fault> {
    const PUT: &str = "SELECT client, unit, sum(change)::bigint FROM movement WHERE key IN ($1, $2) \
         GROUP BY client, unit LIMIT 1";
    let names = (top_up_key(id), give_back_key(id));
    let Some(row) = scope.row(PUT, &[&names.0, &names.1]).await? else {
        return Ok(None);
    };
    let (client, unit): (ClientPubkey, Unit) = (rows::word(&row, 0)?, rows::word(&row, 1)?);
    let put = u64::try_from(rows::get::<i64>(&row, 2)?).unwrap_or_default();
    // Whoever else takes it back waits here for the row, and then finds the movement.
    let row = scope
        .row(ON, &[&client.to_string(), &unit.as_str()])
        .await?;
    if scope.row(KNOWN, &[&taken_back_key(id)]).await?.is_some() {
        return Ok(None);
    }
    let on: i64 = row.as_ref().map_or(Ok(0), |row| rows::get(row, 0))?;
    let on = u64::try_from(on).unwrap_or_default();
    let taken = taken_back(id, client, (put, on), unit, at)?;
    shift(scope, &taken, -1).await?;
    Ok(Some(taken.amount))
}

async fn expire(scope: &Scope<'_>, since: Timestamp, at: Timestamp) -> Result<usize, Fault> {
    const LAPSED: &str = "SELECT client, unit, amount, touched_at_ms FROM account \
         WHERE touched_at_ms < $1 AND amount > 0 ORDER BY client, unit LIMIT 100 FOR UPDATE SKIP LOCKED";
    let lapsed = scope.rows(LAPSED, &[&millis(since)]).await?;
    for row in &lapsed {
        let account = read_account(row)?;
        let unit = account.amount.unit();
        let taken = Credit {
            client: account.client,
            key: format!("expired:{}:{unit}:{}", account.client, at.as_millis()),
            amount: account.amount,
            kind: MovementKind::Expired,
            at,
        };
        shift(scope, &taken, -1).await?;
    }
    Ok(lapsed.len())
}

/// Puts `moved` onto the account (`sign` 1) or takes it off (-1), in one statement, and writes the movement down.
async fn shift(scope: &Scope<'_>, moved: &Credit, sign: i64) -> Result<Account, Fault> {
    const SHIFT: &str = "INSERT INTO account AS had (client, unit, amount, touched_at_ms) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (client, unit) DO UPDATE SET amount = had.amount + $3, touched_at_ms = $4 \
         WHERE had.amount::numeric + $3 BETWEEN 0 AND 9223372036854775807 RETURNING amount";
    const TAKE: &str = "UPDATE account SET amount = amount + $3, touched_at_ms = $4 \
         WHERE client = $1 AND unit = $2 AND amount + $3 >= 0 RETURNING amount";
    const NOTE: &str = "INSERT INTO movement (client, unit, kind, key, change, left_over, at_ms) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let value = i64::try_from(moved.amount.value()).map_err(|_| too_much())?;
    let (change, unit) = (sign * value, moved.amount.unit());
    let (client, at) = (moved.client.to_string(), millis(moved.at));
    let sql = if sign < 0 { TAKE } else { SHIFT };
    let row = scope
        .row(sql, &[&client, &unit.as_str(), &change, &at])
        .await?
        .ok_or_else(|| Fault::Undo(too_much()))?;
    let left: i64 = rows::get(&row, 0)?;
    let amount = rows::amount(left, unit.clone()).map_err(|_| Fault::Undo(too_much()))?;
    let values = (moved.kind.as_str(), &moved.key);
    scope
        .change(
            NOTE,
            &[
                &client,
                &unit.as_str(),
                &values.0,
                values.1,
                &change,
                &left,
                &at,
            ],
        )
        .await?;
    Ok(Account {
        client: moved.client,
        amount,
        touched_at: moved.at,
    })
}

fn read_account(row: &Row) -> Result<Account> {
    Ok(Account {
        client: rows::word(row, 0)?,
        amount: rows::amount(rows::get(row, 2)?, rows::word(row, 1)?)?,
        touched_at: time(rows::get(row, 3)?),
    })
}

fn read_movement(row: &Row) -> Result<Movement> {
    let change: i64 = rows::get(row, 3)?;
    Ok(Movement {
        number: u64::try_from(rows::get::<i64>(row, 0)?).unwrap_or_default(),
        kind: MovementKind::from_word(rows::get(row, 1)?).ok_or_else(|| rows::unreadable(1))?,
        key: rows::get(row, 2)?,
        off: if change < 0 { change.unsigned_abs() } else { 0 },
        on: u64::try_from(change).unwrap_or_default(),
        left: u64::try_from(rows::get::<i64>(row, 4)?).unwrap_or_default(),
        at: time(rows::get(row, 5)?),
    })
}
