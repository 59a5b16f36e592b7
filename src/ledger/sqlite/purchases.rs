//! Purchases, in the file. A purchase is one document with the columns beside it that it is found by.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params_from_iter};

use super::rows::{json, millis, optional, time, unreadable, word};
use super::{SqliteLedger, failure};
use crate::error::{Error, Result};
use crate::ledger::{
    Begun, OpenLimits, Purchase, PurchaseBooks, PurchaseFilter, PurchaseName, PurchaseState,
    PurchaseWord, RailNotice, Reported, Usage,
};
use crate::payment::{ClientPubkey, RequestEventId, Timestamp};

pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS rail_customer (
    account  TEXT NOT NULL,
    client   TEXT NOT NULL,
    customer TEXT NOT NULL,
    PRIMARY KEY (account, client)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS purchase (
    id            TEXT PRIMARY KEY,
    client        TEXT NOT NULL,
    plan          TEXT NOT NULL,
    state         TEXT NOT NULL,
    session       TEXT UNIQUE,
    payment       TEXT,
    subscription  TEXT,
    open_until_ms INTEGER NOT NULL,
    made_at_ms    INTEGER NOT NULL,
    seen_at_ms    INTEGER NOT NULL,
    body          TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS purchase_of_client ON purchase (client, plan);
CREATE INDEX IF NOT EXISTS purchase_open ON purchase (open_until_ms) WHERE state = 'open';
CREATE INDEX IF NOT EXISTS purchase_made ON purchase (made_at_ms, id);
CREATE INDEX IF NOT EXISTS purchase_payment ON purchase (payment) WHERE payment IS NOT NULL;
CREATE INDEX IF NOT EXISTS purchase_subscription ON purchase (subscription) WHERE subscription IS NOT NULL;
CREATE TABLE IF NOT EXISTS rail_usage (
    event    TEXT PRIMARY KEY,
    meter    TEXT NOT NULL,
    customer TEXT NOT NULL,
    value    INTEGER NOT NULL,
    at_ms    INTEGER NOT NULL,
    reported TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rail_usage_due ON rail_usage (at_ms, event) WHERE reported IS NULL;
CREATE INDEX IF NOT EXISTS rail_usage_at ON rail_usage (at_ms) WHERE reported IS NOT NULL;
CREATE TABLE IF NOT EXISTS rail_notice (
    id      TEXT PRIMARY KEY,
    kind    TEXT NOT NULL,
    object  TEXT NOT NULL,
    at_ms   INTEGER NOT NULL,
    treated INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rail_notice_due ON rail_notice (at_ms, id) WHERE treated = 0;
CREATE INDEX IF NOT EXISTS rail_notice_at ON rail_notice (at_ms) WHERE treated = 1;
CREATE TABLE IF NOT EXISTS live_account (
    account  TEXT PRIMARY KEY,
    since_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

const PUT: &str = "INSERT OR REPLACE INTO purchase \
     (id, client, plan, state, session, payment, subscription, open_until_ms, made_at_ms, seen_at_ms, body) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";

const STANDING: &str = "SELECT body FROM purchase WHERE client = ?1 AND plan = ?2 \
     ORDER BY CASE state WHEN 'held' THEN 0 WHEN 'open' THEN 1 ELSE 2 END, made_at_ms DESC, id DESC LIMIT 1";

const OPEN: &str = "SELECT count(*), count(*) FILTER (WHERE client = ?2) FROM purchase \
     WHERE state = 'open' AND open_until_ms > ?1";

/// How much one call forgets of each.
const FORGET: [&str; 3] = [
    "DELETE FROM rail_notice WHERE id IN (SELECT id FROM rail_notice WHERE treated = 1 AND at_ms < ?1 LIMIT 500)",
    "DELETE FROM rail_usage WHERE event IN \
     (SELECT event FROM rail_usage WHERE reported IS NOT NULL AND at_ms < ?1 LIMIT 500)",
    "DELETE FROM purchase WHERE id IN (SELECT id FROM purchase WHERE made_at_ms < ?1 AND state = 'lapsed' \
     AND payment IS NULL AND subscription IS NULL LIMIT 500)",
];

#[async_trait::async_trait]
impl PurchaseBooks for SqliteLedger {
    async fn keep_customer(
        &self,
        account: &str,
        client: &ClientPubkey,
        customer: &str,
    ) -> Result<String> {
        const KEEP: &str =
            "INSERT OR IGNORE INTO rail_customer (account, client, customer) VALUES (?1, ?2, ?3)";
        let (account, client) = (account.to_owned(), client.to_string());
        let customer = customer.to_owned();
        self.write(move |books| {
            let connection = books.connection();
            execute(connection, KEEP, (&account, &client, &customer))?;
            let kept = customer_of(connection, &account, &client).map_err(|e| failure(&e))?;
            Ok(kept.unwrap_or(customer))
        })
        .await
    }

    async fn customer_of(&self, account: &str, client: &ClientPubkey) -> Result<Option<String>> {
        let (account, client) = (account.to_owned(), client.to_string());
        self.read(move |connection| customer_of(connection, &account, &client))
            .await
    }

    async fn allow_live(&self, account: &str, at: Timestamp) -> Result<Timestamp> {
        const ALLOW: &str =
            "INSERT OR IGNORE INTO live_account (account, since_ms) VALUES (?1, ?2)";
        let account = account.to_owned();
        self.write(move |books| {
            let connection = books.connection();
            execute(connection, ALLOW, (&account, millis(at)))?;
            let since = live_since(connection, &account).map_err(|e| failure(&e))?;
            Ok(since.unwrap_or(at))
        })
        .await
    }

    async fn live_since(&self, account: &str) -> Result<Option<Timestamp>> {
        let account = account.to_owned();
        self.read(move |connection| live_since(connection, &account))
            .await
    }

    async fn begin_purchase(&self, new: Purchase, limits: OpenLimits) -> Result<Begun> {
        self.write(move |books| {
            let connection = books.connection();
            begin(connection, new, limits)
        })
        .await
    }

    async fn offer_purchase(
        &self,
        id: &RequestEventId,
        session: &str,
        url: &str,
        open_until: Timestamp,
    ) -> Result<Option<Purchase>> {
        let (id, session, url) = (*id, session.to_owned(), url.to_owned());
        self.write(move |books| {
            let connection = books.connection();
            let read = |name: PurchaseName| named(connection, &name).map_err(|e| failure(&e));
            let taken = read(PurchaseName::Session(session.clone()))?;
            if taken.is_some_and(|other| other.id != id) {
                return Ok(None);
            }
            let Some(mut purchase) = read(PurchaseName::Id(id))? else {
                return Ok(None);
            };
            if purchase.session.is_none() {
                purchase.session = Some(session);
                purchase.url = Some(url);
                purchase.open_until = open_until;
                put(connection, &purchase)?;
            }
            Ok(Some(purchase))
        })
        .await
    }

    async fn learn_purchase(
        &self,
        id: &RequestEventId,
        word: PurchaseWord,
    ) -> Result<Option<(Purchase, bool)>> {
        let name = PurchaseName::Id(*id);
        self.write(move |books| {
            let connection = books.connection();
            let found = named(connection, &name).map_err(|e| failure(&e))?;
            let Some(purchase) = found else {
                return Ok(None);
            };
            let Some(next) = purchase.after(&word) else {
                return Ok(Some((purchase, false)));
            };
            put(connection, &next)?;
            Ok(Some((next, true)))
        })
        .await
    }

    async fn purchase(&self, name: &PurchaseName) -> Result<Option<Purchase>> {
        let name = name.clone();
        self.read(move |connection| named(connection, &name)).await
    }

    async fn standing_purchase(
        &self,
        client: &ClientPubkey,
        plan: &str,
    ) -> Result<Option<Purchase>> {
        let (client, plan) = (client.to_string(), plan.to_owned());
        self.read(move |connection| standing(connection, &client, &plan))
            .await
    }

    async fn purchases(&self, filter: &PurchaseFilter) -> Result<Vec<Purchase>> {
        let filter = filter.clone();
        self.read(move |connection| list(connection, &filter)).await
    }

    async fn take_in(&self, notice: RailNotice) -> Result<bool> {
        const NOTE: &str = "INSERT OR IGNORE INTO rail_notice (id, kind, object, at_ms, treated) VALUES (?1, ?2, ?3, ?4, 0)";
        let values = (notice.id, notice.kind, notice.object, millis(notice.at));
        self.write(move |books| execute(books.connection(), NOTE, values).map(|rows| rows > 0))
            .await
    }

    async fn untreated(&self, limit: usize) -> Result<Vec<RailNotice>> {
        const DUE: &str = "SELECT id, kind, object, at_ms FROM rail_notice WHERE treated = 0 ORDER BY at_ms, id LIMIT ?1";
        let limit = bounded(limit);
        self.read(move |connection| {
            connection
                .prepare_cached(DUE)?
                .query_map([limit], |row| {
                    Ok(RailNotice {
                        id: row.get(0)?,
                        kind: row.get(1)?,
                        object: row.get(2)?,
                        at: time(row.get(3)?),
                    })
                })?
                .collect()
        })
        .await
    }

    async fn treated(&self, id: &str) -> Result<()> {
        const DONE: &str = "UPDATE rail_notice SET treated = 1 WHERE id = ?1";
        let id = id.to_owned();
        self.write(move |books| execute(books.connection(), DONE, [id]).map(drop))
            .await
    }

    async fn note_usage(&self, usage: Usage) -> Result<bool> {
        const NOTE: &str = "INSERT OR IGNORE INTO rail_usage (event, meter, customer, value, at_ms) VALUES (?1, ?2, ?3, ?4, ?5)";
        let value = i64::try_from(usage.value)
            .map_err(|_| Error::ledger("more was used than can be written down"))?;
        let values = (
            usage.event.to_string(),
            usage.meter,
            usage.customer,
            value,
            millis(usage.at),
        );
        self.write(move |books| execute(books.connection(), NOTE, values).map(|rows| rows > 0))
            .await
    }

    async fn unreported(&self, limit: usize) -> Result<Vec<Usage>> {
        const DUE: &str = "SELECT event, meter, customer, value, at_ms FROM rail_usage WHERE reported IS NULL \
             ORDER BY at_ms, event LIMIT ?1";
        let limit = bounded(limit);
        self.read(move |connection| {
            connection
                .prepare_cached(DUE)?
                .query_map([limit], |row| {
                    Ok(Usage {
                        event: word(row, 0)?,
                        meter: row.get(1)?,
                        customer: row.get(2)?,
                        value: u64::try_from(row.get::<_, i64>(3)?).map_err(|_| unreadable(3))?,
                        at: time(row.get(4)?),
                    })
                })?
                .collect()
        })
        .await
    }

    async fn reported(&self, event: &RequestEventId, how: Reported) -> Result<()> {
        const DONE: &str =
            "UPDATE rail_usage SET reported = ?2 WHERE event = ?1 AND reported IS NULL";
        let how = match how {
            Reported::Taken => String::new(),
            Reported::Refused(why) => format!("refused: {why}"),
        };
        let event = event.to_string();
        self.write(move |books| execute(books.connection(), DONE, (event, how)).map(drop))
            .await
    }

    async fn forget_purchases(&self, before: Timestamp) -> Result<usize> {
        self.write(move |books| {
            let mut gone = 0;
            for forget in FORGET {
                gone += execute(books.connection(), forget, [millis(before)])?;
            }
            Ok(gone)
        })
        .await
    }
}

fn begin(connection: &Connection, new: Purchase, limits: OpenLimits) -> Result<Begun> {
    let known = named(connection, &PurchaseName::Id(new.id)).map_err(|e| failure(&e))?;
    if let Some(known) = known {
        return Ok(Begun::Standing(known));
    }
    let client = new.client.to_string();
    let found = standing(connection, &client, &new.plan).map_err(|e| failure(&e))?;
    if let Some(standing) = found
        && (standing.state == PurchaseState::Held || standing.is_payable(new.made_at))
    {
        return Ok(Begun::Standing(standing));
    }
    let counted = connection.prepare_cached(OPEN).and_then(|mut statement| {
        statement.query_row((millis(new.made_at), client), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
        })
    });
    let (total, of_client) = counted.map_err(|e| failure(&e))?;
    if of_client >= bounded(limits.per_client) || total >= bounded(limits.total) {
        return Ok(Begun::Full);
    }
    put(connection, &new)?;
    Ok(Begun::New(new))
}

fn put(connection: &Connection, purchase: &Purchase) -> Result<()> {
    let body = serde_json::to_string(purchase)
        .map_err(|source| Error::ledger("a purchase cannot be written").with_source(source))?;
    let values = (
        purchase.id.to_string(),
        purchase.client.to_string(),
        &purchase.plan,
        purchase.state.as_str(),
        &purchase.session,
        &purchase.payment,
        &purchase.subscription,
        millis(purchase.open_until),
        millis(purchase.made_at),
        millis(purchase.seen_at),
        body,
    );
    execute(connection, PUT, values).map(drop)
}

fn named(connection: &Connection, name: &PurchaseName) -> rusqlite::Result<Option<Purchase>> {
    let (column, value) = match name {
        PurchaseName::Id(id) => ("id", id.to_string()),
        PurchaseName::Session(name) => ("session", name.clone()),
        PurchaseName::Payment(name) => ("payment", name.clone()),
        PurchaseName::Subscription(name) => ("subscription", name.clone()),
    };
    connection
        .prepare_cached(&format!(
            "SELECT body FROM purchase WHERE {column} = ?1 LIMIT 1"
        ))?
        .query_row([value], read)
        .optional()
}

fn standing(
    connection: &Connection,
    client: &str,
    plan: &str,
) -> rusqlite::Result<Option<Purchase>> {
    connection
        .prepare_cached(STANDING)?
        .query_row((client, plan), read)
        .optional()
}

fn list(connection: &Connection, filter: &PurchaseFilter) -> rusqlite::Result<Vec<Purchase>> {
    let mut sql = "SELECT body FROM purchase WHERE true".to_owned();
    let mut values: Vec<Value> = Vec::new();
    if !filter.states.is_empty() {
        // Words of ours, without quotes.
        let states: Vec<String> = filter
            .states
            .iter()
            .map(|state| format!("'{}'", state.as_str()))
            .collect();
        sql.push_str(&format!(" AND state IN ({})", states.join(", ")));
    }
    if let Some(at) = filter.seen_before {
        let after = filter.or_after.map_or(i64::MAX, millis);
        values.extend([millis(at).into(), after.into()]);
        let last = values.len();
        sql.push_str(&format!(
            " AND (seen_at_ms < ?{} OR seen_at_ms > ?{last})",
            last - 1
        ));
    }
    if let Some((at, id)) = filter.after {
        values.extend([millis(at).into(), id.to_string().into()]);
        let last = values.len();
        sql.push_str(&format!(" AND (made_at_ms, id) > (?{}, ?{last})", last - 1));
    }
    values.push(bounded(filter.limit).into());
    sql.push_str(&format!(" ORDER BY made_at_ms, id LIMIT ?{}", values.len()));
    connection
        .prepare_cached(&sql)?
        .query_map(params_from_iter(values), read)?
        .collect()
}

fn read(row: &Row<'_>) -> rusqlite::Result<Purchase> {
    optional(row, 0, json)?.ok_or_else(|| unreadable(0))
}

fn customer_of(
    connection: &Connection,
    account: &str,
    client: &str,
) -> rusqlite::Result<Option<String>> {
    connection
        .prepare_cached("SELECT customer FROM rail_customer WHERE account = ?1 AND client = ?2")?
        .query_row([account, client], |row| row.get(0))
        .optional()
}

fn live_since(connection: &Connection, account: &str) -> rusqlite::Result<Option<Timestamp>> {
    connection
        .prepare_cached("SELECT since_ms FROM live_account WHERE account = ?1")?
        .query_row([account], |row| row.get(0).map(time))
        .optional()
}

fn bounded(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn execute(connection: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<usize> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute(values))
        .map_err(|e| failure(&e))
}
