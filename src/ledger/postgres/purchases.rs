//! Purchases, in the database. A purchase is one document with the columns beside it that it is found by.

use async_trait::async_trait;
use tokio_postgres::Row;

use super::PostgresLedger;
use super::rows::{self, millis, most, text, time, to_json};
use super::writer::{About, Fault, Scope};
use crate::error::{Error, Result};
use crate::ledger::{
    Begun, OpenLimits, Purchase, PurchaseBooks, PurchaseFilter, PurchaseName, PurchaseState,
    PurchaseWord, RailNotice, Reported, Usage,
};
use crate::payment::{ClientPubkey, RequestEventId, Timestamp};

pub(super) const SCHEMA: &str = r#"
CREATE TABLE rail_customer (
    account  TEXT COLLATE "C" NOT NULL,
    client   TEXT COLLATE "C" NOT NULL,
    customer TEXT NOT NULL,
    PRIMARY KEY (account, client)
);
CREATE TABLE purchase (
    id            TEXT COLLATE "C" PRIMARY KEY,
    client        TEXT COLLATE "C" NOT NULL,
    plan          TEXT COLLATE "C" NOT NULL,
    state         TEXT COLLATE "C" NOT NULL,
    session       TEXT UNIQUE,
    payment       TEXT,
    subscription  TEXT,
    open_until_ms BIGINT NOT NULL,
    made_at_ms    BIGINT NOT NULL,
    seen_at_ms    BIGINT NOT NULL,
    body          TEXT NOT NULL
);
CREATE INDEX purchase_of_client ON purchase (client, plan);
CREATE INDEX purchase_open ON purchase (open_until_ms) WHERE state = 'open';
CREATE INDEX purchase_made ON purchase (made_at_ms, id);
CREATE INDEX purchase_payment ON purchase (payment) WHERE payment IS NOT NULL;
CREATE INDEX purchase_subscription ON purchase (subscription) WHERE subscription IS NOT NULL;
CREATE TABLE rail_usage (
    event    TEXT COLLATE "C" PRIMARY KEY,
    meter    TEXT NOT NULL,
    customer TEXT NOT NULL,
    value    BIGINT NOT NULL,
    at_ms    BIGINT NOT NULL,
    reported TEXT
);
CREATE INDEX rail_usage_due ON rail_usage (at_ms, event) WHERE reported IS NULL;
CREATE INDEX rail_usage_at ON rail_usage (at_ms) WHERE reported IS NOT NULL;
CREATE TABLE rail_notice (
    id      TEXT COLLATE "C" PRIMARY KEY,
    kind    TEXT NOT NULL,
    object  TEXT NOT NULL,
    at_ms   BIGINT NOT NULL,
    treated BOOLEAN NOT NULL
);
CREATE INDEX rail_notice_due ON rail_notice (at_ms, id) WHERE NOT treated;
CREATE INDEX rail_notice_at ON rail_notice (at_ms) WHERE treated;
"#;

/// Since when money may be taken. Ledgers of earlier builds do not have it.
pub(super) const LIVE: &str = r#"
CREATE TABLE live_account (
    account  TEXT COLLATE "C" PRIMARY KEY,
    since_ms BIGINT NOT NULL
);
"#;

/// Whether the ledger has that table.
pub(super) const HAS_LIVE: &str = "SELECT to_regclass('live_account') IS NOT NULL";

/// Purchases are written one after the other, by whichever instance: there are few of them, and limits count them all.
const ONE_AT_A_TIME: &str = "SELECT pg_advisory_xact_lock(1953458286)";

const STANDING: &str = "SELECT body FROM purchase WHERE client = $1 AND plan = $2 \
     ORDER BY CASE state WHEN 'held' THEN 0 WHEN 'open' THEN 1 ELSE 2 END, made_at_ms DESC, id DESC LIMIT 1";

fn about() -> Vec<About> {
    vec![About::All("purchases")]
}

/// Which statement finds it, and by what.
fn named(name: &PurchaseName) -> (&'static str, String) {
    match name {
        PurchaseName::Id(id) => ("SELECT body FROM purchase WHERE id = $1", id.to_string()),
        PurchaseName::Session(name) => ("SELECT body FROM purchase WHERE session = $1", text(name)),
        PurchaseName::Payment(name) => (
            "SELECT body FROM purchase WHERE payment = $1 LIMIT 1",
            text(name),
        ),
        PurchaseName::Subscription(name) => (
            "SELECT body FROM purchase WHERE subscription = $1 LIMIT 1",
            text(name),
        ),
    }
}

#[async_trait]
impl PurchaseBooks for PostgresLedger {
    async fn keep_customer(
        &self,
        account: &str,
        client: &ClientPubkey,
        customer: &str,
    ) -> Result<String> {
        const KEEP: &str = "INSERT INTO rail_customer AS kept (account, client, customer) VALUES ($1, $2, $3) \
             ON CONFLICT (account, client) DO UPDATE SET customer = kept.customer RETURNING customer";
        let (account, client, customer) = (text(account), client.to_string(), text(customer));
        self.write(about(), false, move |scope| {
            let values = (account.clone(), client.clone(), customer.clone());
            Box::pin(async move {
                let row = scope.row(KEEP, &[&values.0, &values.1, &values.2]).await?;
                let row = row.ok_or_else(|| rows::unreadable(0))?;
                Ok(rows::get(&row, 0)?)
            })
        })
        .await
    }

    async fn customer_of(&self, account: &str, client: &ClientPubkey) -> Result<Option<String>> {
        const GET: &str = "SELECT customer FROM rail_customer WHERE account = $1 AND client = $2";
        let (account, client) = (text(account), client.to_string());
        let row = self.reading.row(GET, &[&account, &client]).await?;
        row.map(|row| rows::get(&row, 0)).transpose()
    }

    async fn allow_live(&self, account: &str, at: Timestamp) -> Result<Timestamp> {
        const ALLOW: &str = "INSERT INTO live_account AS kept (account, since_ms) VALUES ($1, $2) \
             ON CONFLICT (account) DO UPDATE SET since_ms = kept.since_ms RETURNING since_ms";
        let account = text(account);
        self.write(about(), false, move |scope| {
            let account = account.clone();
            Box::pin(async move {
                let row = scope.row(ALLOW, &[&account, &millis(at)]).await?;
                let row = row.ok_or_else(|| rows::unreadable(0))?;
                Ok(time(rows::get(&row, 0)?))
            })
        })
        .await
    }

    async fn live_since(&self, account: &str) -> Result<Option<Timestamp>> {
        const SINCE: &str = "SELECT since_ms FROM live_account WHERE account = $1";
        let has = self.reading.row(HAS_LIVE, &[]).await?;
        if !has.is_some_and(|row| row.get(0)) {
            return Ok(None);
        }
        let row = self.reading.row(SINCE, &[&text(account)]).await?;
        row.map(|row| rows::get(&row, 0).map(time)).transpose()
    }

    async fn begin_purchase(&self, new: Purchase, limits: OpenLimits) -> Result<Begun> {
        self.write(about(), false, move |scope| {
            let new = new.clone();
            Box::pin(async move { begin(scope, new, limits).await })
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
        self.write(about(), false, move |scope| {
            let (session, url) = (session.clone(), url.clone());
            Box::pin(async move {
                scope.row(ONE_AT_A_TIME, &[]).await?;
                let taken = find(scope, &PurchaseName::Session(session.clone())).await?;
                if taken.is_some_and(|other| other.id != id) {
                    return Ok(None);
                }
                let Some(mut purchase) = find(scope, &PurchaseName::Id(id)).await? else {
                    return Ok(None);
                };
                if purchase.session.is_none() {
                    purchase.session = Some(session);
                    purchase.url = Some(url);
                    purchase.open_until = open_until;
                    put(scope, &purchase).await?;
                }
                Ok(Some(purchase))
            })
        })
        .await
    }

    async fn learn_purchase(
        &self,
        id: &RequestEventId,
        word: PurchaseWord,
    ) -> Result<Option<(Purchase, bool)>> {
        let name = PurchaseName::Id(*id);
        self.write(about(), false, move |scope| {
            let (name, word) = (name.clone(), word.clone());
            Box::pin(async move {
                scope.row(ONE_AT_A_TIME, &[]).await?;
                let Some(purchase) = find(scope, &name).await? else {
                    return Ok(None);
                };
                let Some(next) = purchase.after(&word) else {
                    return Ok(Some((purchase, false)));
                };
                put(scope, &next).await?;
                Ok(Some((next, true)))
            })
        })
        .await
    }

    async fn purchase(&self, name: &PurchaseName) -> Result<Option<Purchase>> {
        let (sql, value) = named(name);
        let row = self.reading.row(sql, &[&value]).await?;
        row.as_ref().map(read).transpose()
    }

    async fn standing_purchase(
        &self,
        client: &ClientPubkey,
        plan: &str,
    ) -> Result<Option<Purchase>> {
        let (client, plan) = (client.to_string(), text(plan));
        let row = self.reading.row(STANDING, &[&client, &plan]).await?;
        row.as_ref().map(read).transpose()
    }

    async fn purchases(&self, filter: &PurchaseFilter) -> Result<Vec<Purchase>> {
        const LIST: &str = "SELECT body FROM purchase WHERE (cardinality($1::text[]) = 0 OR state = ANY($1)) \
             AND ($2::bigint IS NULL OR seen_at_ms < $2 OR seen_at_ms > $6::bigint) AND (made_at_ms, id) > ($3, $4) \
             ORDER BY made_at_ms, id LIMIT $5";
        let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
        let (seen_before, or_after) = (filter.seen_before.map(millis), filter.or_after.map(millis));
        let (at, id) = filter
            .after
            .map_or((-1, String::new()), |(at, id)| (millis(at), id.to_string()));
        let limit = most(filter.limit);
        let found = self
            .reading
            .rows(LIST, &[&states, &seen_before, &at, &id, &limit, &or_after])
            .await?;
        found.iter().map(read).collect()
    }

    async fn take_in(&self, notice: RailNotice) -> Result<bool> {
        const NOTE: &str = "INSERT INTO rail_notice (id, kind, object, at_ms, treated) \
             VALUES ($1, $2, $3, $4, false) ON CONFLICT DO NOTHING";
        self.write(about(), false, move |scope| {
            let notice = notice.clone();
            Box::pin(async move {
                let (id, kind, object) =
                    (text(&notice.id), text(&notice.kind), text(&notice.object));
                let at = millis(notice.at);
                let noted = scope.change(NOTE, &[&id, &kind, &object, &at]).await?;
                Ok(noted > 0)
            })
        })
        .await
    }

    async fn untreated(&self, limit: usize) -> Result<Vec<RailNotice>> {
        const DUE: &str = "SELECT id, kind, object, at_ms FROM rail_notice WHERE NOT treated ORDER BY at_ms, id LIMIT $1";
        let limit = most(limit);
        let found = self.reading.rows(DUE, &[&limit]).await?;
        let notices = found.iter().map(|row| {
            Ok(RailNotice {
                id: rows::get(row, 0)?,
                kind: rows::get(row, 1)?,
                object: rows::get(row, 2)?,
                at: time(rows::get(row, 3)?),
            })
        });
        notices.collect()
    }

    async fn treated(&self, id: &str) -> Result<()> {
        const DONE: &str = "UPDATE rail_notice SET treated = true WHERE id = $1";
        let id = text(id);
        self.write(about(), false, move |scope| {
            let id = id.clone();
            Box::pin(async move {
                scope.change(DONE, &[&id]).await?;
                Ok(())
            })
        })
        .await
    }

    async fn note_usage(&self, usage: Usage) -> Result<bool> {
        const NOTE: &str = "INSERT INTO rail_usage (event, meter, customer, value, at_ms) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        let value = i64::try_from(usage.value)
            .map_err(|_| Error::ledger("more was used than can be written down"))?;
        self.write(vec![About::Entry(usage.event)], false, move |scope| {
            let usage = usage.clone();
            Box::pin(async move {
                let (event, at) = (usage.event.to_string(), millis(usage.at));
                let (meter, customer) = (text(&usage.meter), text(&usage.customer));
                let noted = scope
                    .change(NOTE, &[&event, &meter, &customer, &value, &at])
                    .await?;
                Ok(noted > 0)
            })
        })
        .await
    }

    async fn unreported(&self, limit: usize) -> Result<Vec<Usage>> {
        const DUE: &str = "SELECT event, meter, customer, value, at_ms FROM rail_usage WHERE reported IS NULL \
             ORDER BY at_ms, event LIMIT $1";
        let limit = most(limit);
        let found = self.reading.rows(DUE, &[&limit]).await?;
        let used = found.iter().map(|row| {
            Ok(Usage {
                event: rows::word(row, 0)?,
                meter: rows::get(row, 1)?,
                customer: rows::get(row, 2)?,
                value: u64::try_from(rows::get::<i64>(row, 3)?).map_err(|_| rows::unreadable(3))?,
                at: time(rows::get(row, 4)?),
            })
        });
        used.collect()
    }

    async fn reported(&self, event: &RequestEventId, how: Reported) -> Result<()> {
        const DONE: &str =
            "UPDATE rail_usage SET reported = $2 WHERE event = $1 AND reported IS NULL";
        let how = match how {
            Reported::Taken => String::new(),
            Reported::Refused(why) => text(&format!("refused: {why}")),
        };
        let (id, event) = (*event, event.to_string());
        self.write(vec![About::Entry(id)], false, move |scope| {
            let (event, how) = (event.clone(), how.clone());
            Box::pin(async move {
                scope.change(DONE, &[&event, &how]).await?;
                Ok(())
            })
        })
        .await
    }

    async fn forget_purchases(&self, before: Timestamp) -> Result<usize> {
        const NOTICES: &str = "DELETE FROM rail_notice WHERE id IN \
             (SELECT id FROM rail_notice WHERE treated AND at_ms < $1 LIMIT 500)";
        const USE: &str = "DELETE FROM rail_usage WHERE event IN \
             (SELECT event FROM rail_usage WHERE reported IS NOT NULL AND at_ms < $1 LIMIT 500)";
        const UNPAID: &str = "DELETE FROM purchase WHERE id IN (SELECT id FROM purchase WHERE made_at_ms < $1 \
             AND state = 'lapsed' AND payment IS NULL AND subscription IS NULL LIMIT 500)";
        self.write(about(), false, move |scope| {
            Box::pin(async move {
                let before = millis(before);
                let mut gone = scope.change(NOTICES, &[&before]).await?;
                gone += scope.change(USE, &[&before]).await?;
                gone += scope.change(UNPAID, &[&before]).await?;
                Ok(usize::try_from(gone).unwrap_or(usize::MAX))
            })
        })
        .await
    }
}

async fn begin(scope: &Scope<'_>, new: Purchase, limits: OpenLimits) -> Result<Begun, Fault> {
    const OPEN: &str = "SELECT count(*), count(*) FILTER (WHERE client = $2) FROM purchase \
         WHERE state = 'open' AND open_until_ms > $1";
    scope.row(ONE_AT_A_TIME, &[]).await?;
    if let Some(known) = find(scope, &PurchaseName::Id(new.id)).await? {
        return Ok(Begun::Standing(known));
    }
    let (client, plan) = (new.client.to_string(), text(&new.plan));
    let row = scope.row(STANDING, &[&client, &plan]).await?;
    let found = row.as_ref().map(read).transpose()?;
    if let Some(standing) = found
        && (standing.state == PurchaseState::Held || standing.is_payable(new.made_at))
    {
        return Ok(Begun::Standing(standing));
    }
    let counted = scope.row(OPEN, &[&millis(new.made_at), &client]).await?;
    let counted = counted.ok_or_else(|| rows::unreadable(0))?;
    let (total, of_client): (i64, i64) = (rows::get(&counted, 0)?, rows::get(&counted, 1)?);
    if of_client >= most(limits.per_client) || total >= most(limits.total) {
        return Ok(Begun::Full);
    }
    put(scope, &new).await?;
    Ok(Begun::New(new))
}

async fn find(scope: &Scope<'_>, name: &PurchaseName) -> Result<Option<Purchase>, Fault> {
    let (sql, value) = named(name);
    let row = scope.row(sql, &[&value]).await?;
    Ok(row.as_ref().map(read).transpose()?)
}

async fn put(scope: &Scope<'_>, purchase: &Purchase) -> Result<(), Fault> {
    const PUT: &str = "INSERT INTO purchase \
         (id, client, plan, state, session, payment, subscription, open_until_ms, made_at_ms, seen_at_ms, body) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (id) DO UPDATE SET state = $4, session = $5, \
         payment = $6, subscription = $7, open_until_ms = $8, seen_at_ms = $10, body = $11";
    let clean = |name: &Option<String>| name.as_deref().map(text);
    let (id, client, plan) = (
        purchase.id.to_string(),
        purchase.client.to_string(),
        text(&purchase.plan),
    );
    let (session, payment, subscription) = (
        clean(&purchase.session),
        clean(&purchase.payment),
        clean(&purchase.subscription),
    );
    scope
        .change(
            PUT,
            &[
                &id,
                &client,
                &plan,
                &purchase.state.as_str(),
                &session,
                &payment,
                &subscription,
                &millis(purchase.open_until),
                &millis(purchase.made_at),
                &millis(purchase.seen_at),
                &to_json(purchase)?,
            ],
        )
        .await?;
    Ok(())
}

fn read(row: &Row) -> Result<Purchase> {
    let body: &str = rows::get(row, 0)?;
    serde_json::from_str(body).map_err(|_| rows::unreadable(0))
}
