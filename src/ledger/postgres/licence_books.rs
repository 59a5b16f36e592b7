//! What is to be remembered about licences, in the database.

use async_trait::async_trait;
use tokio_postgres::Row;

use super::PostgresLedger;
use super::rows::{self, millis, most, text, time};
use super::writer::{About, Fault, Scope};
use crate::error::Result;
use crate::ledger::{FeedPosition, IssuedLicence, LicenceBooks, Revocation};
use crate::payment::{ClientPubkey, Timestamp};

pub(super) const SCHEMA: &str = r#"
CREATE TABLE licence_revoked (
    issuer        TEXT COLLATE "C" NOT NULL,
    id            TEXT COLLATE "C" NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    PRIMARY KEY (issuer, id)
);
CREATE INDEX licence_revoked_expires ON licence_revoked (expires_at_ms);
CREATE TABLE licence_feed (issuer TEXT COLLATE "C" PRIMARY KEY, cursor TEXT NOT NULL, read_at_ms BIGINT);
CREATE TABLE licence_holder (
    issuer TEXT COLLATE "C" NOT NULL,
    id     TEXT COLLATE "C" NOT NULL,
    client TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (issuer, id, client)
);
CREATE TABLE licence_issued (
    id            TEXT COLLATE "C" PRIMARY KEY,
    holder        TEXT NOT NULL,
    purchase      TEXT NOT NULL,
    capabilities  TEXT NOT NULL,
    issued_at_ms  BIGINT NOT NULL,
    expires_at_ms BIGINT NOT NULL,
    revoked_at_ms BIGINT,
    revoked_nth   BIGINT UNIQUE
);
"#;

/// What is about licences is written one after the other; across instances, too, by the lock that each of these takes.
const LICENCES: &str = "SELECT pg_advisory_xact_lock(1953458285)";

fn about() -> Vec<About> {
    vec![About::All("licences")]
}

#[async_trait]
impl LicenceBooks for PostgresLedger {
    async fn note_revoked(&self, issuer: &str, revoked: Vec<Revocation>) -> Result<()> {
        const NOTE: &str = "INSERT INTO licence_revoked AS known (issuer, id, expires_at_ms) \
             SELECT $1, id, max(expires_at_ms) FROM unnest($2::text[], $3::bigint[]) AS noted (id, expires_at_ms) \
             GROUP BY id ON CONFLICT (issuer, id) DO UPDATE \
             SET expires_at_ms = greatest(known.expires_at_ms, excluded.expires_at_ms)";
        let issuer = text(issuer);
        let (ids, expire): (Vec<String>, Vec<i64>) = revoked
            .iter()
            .map(|revoked| (text(&revoked.id), millis(revoked.expires_at)))
            .unzip();
        self.write(about(), false, move |scope| {
            let (issuer, ids, expire) = (issuer.clone(), ids.clone(), expire.clone());
            Box::pin(async move {
                scope.change(NOTE, &[&issuer, &ids, &expire]).await?;
                Ok(())
            })
        })
        .await
    }

    async fn revoked(
        &self,
        issuer: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Revocation>> {
        const LIST: &str = "SELECT id, expires_at_ms FROM licence_revoked WHERE issuer = $1 AND id > $2 ORDER BY id LIMIT $3";
        let (issuer, after, limit) = (text(issuer), text(after.unwrap_or_default()), most(limit));
        let found = self.reading.rows(LIST, &[&issuer, &after, &limit]).await?;
        let revoked = found.iter().map(|row| {
            Ok(Revocation {
                id: rows::get(row, 0)?,
                expires_at: time(rows::get(row, 1)?),
            })
        });
        revoked.collect()
    }

    async fn forget_revoked(&self, before: Timestamp) -> Result<usize> {
        const FORGET: &str = "DELETE FROM licence_revoked WHERE (issuer, id) IN \
             (SELECT issuer, id FROM licence_revoked WHERE expires_at_ms < $1 LIMIT 500)";
        self.write(about(), false, move |scope| {
            Box::pin(async move {
                let gone = scope.change(FORGET, &[&millis(before)]).await?;
                Ok(usize::try_from(gone).unwrap_or(usize::MAX))
            })
        })
        .await
    }

    async fn set_position(&self, issuer: &str, position: FeedPosition) -> Result<()> {
        const SET: &str = "INSERT INTO licence_feed (issuer, cursor, read_at_ms) VALUES ($1, $2, $3) \
             ON CONFLICT (issuer) DO UPDATE SET cursor = excluded.cursor, read_at_ms = excluded.read_at_ms";
        let (issuer, cursor) = (text(issuer), text(&position.cursor));
        let read_at = position.read_at.map(millis);
        self.write(about(), false, move |scope| {
            let (issuer, cursor) = (issuer.clone(), cursor.clone());
            Box::pin(async move {
                scope.change(SET, &[&issuer, &cursor, &read_at]).await?;
                Ok(())
            })
        })
        .await
    }

    async fn position(&self, issuer: &str) -> Result<Option<FeedPosition>> {
        const GET: &str = "SELECT cursor, read_at_ms FROM licence_feed WHERE issuer = $1";
        let issuer = text(issuer);
        let row = self.reading.row(GET, &[&issuer]).await?;
        let position = row.map(|row| {
            Ok(FeedPosition {
                cursor: rows::get(&row, 0)?,
                read_at: rows::get::<Option<i64>>(&row, 1)?.map(time),
            })
        });
        position.transpose()
    }

    async fn admit_holder(
        &self,
        issuer: &str,
        id: &str,
        client: ClientPubkey,
        most: usize,
    ) -> Result<bool> {
        let (issuer, id, client) = (text(issuer), text(id), client.to_string());
        self.write(about(), false, move |scope| {
            let (issuer, id, client) = (issuer.clone(), id.clone(), client.clone());
            Box::pin(async move { admit(scope, (&issuer, &id, &client), rows::most(most)).await })
        })
        .await
    }

    async fn note_issued(&self, licence: IssuedLicence) -> Result<IssuedLicence> {
        const ISSUE: &str = "INSERT INTO licence_issued (id, holder, purchase, capabilities, issued_at_ms, expires_at_ms) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        self.write(about(), false, move |scope| {
            let licence = licence.clone();
            Box::pin(async move {
                let (holder, purchase) = (licence.holder.to_string(), text(&licence.purchase));
                let (issued_at, expires_at) =
                    (millis(licence.issued_at), millis(licence.expires_at));
                let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] = [
                    &licence.id,
                    &holder,
                    &purchase,
                    &licence.capabilities,
                    &issued_at,
                    &expires_at,
                ];
                scope.change(ISSUE, &values).await?;
                Ok(issued(scope, &licence.id).await?.unwrap_or(licence))
            })
        })
        .await
    }

    async fn take_back(&self, id: &str, at: Timestamp) -> Result<Option<IssuedLicence>> {
        const TAKE: &str = "UPDATE licence_issued SET revoked_at_ms = $2, \
             revoked_nth = (SELECT coalesce(max(revoked_nth), 0) + 1 FROM licence_issued) \
             WHERE id = $1 AND revoked_at_ms IS NULL";
        let id = text(id);
        self.write(about(), false, move |scope| {
            let id = id.clone();
            Box::pin(async move {
                scope.row(LICENCES, &[]).await?;
                scope.change(TAKE, &[&id, &millis(at)]).await?;
                issued(scope, &id).await
            })
        })
        .await
    }

    async fn issued(&self, after: Option<&str>, limit: usize) -> Result<Vec<IssuedLicence>> {
        const LIST: &str = "SELECT id, holder, purchase, capabilities, issued_at_ms, expires_at_ms, revoked_at_ms, \
             revoked_nth FROM licence_issued WHERE id > $1 ORDER BY id LIMIT $2";
        let (after, limit) = (text(after.unwrap_or_default()), most(limit));
        let found = self.reading.rows(LIST, &[&after, &limit]).await?;
        found.iter().map(read_issued).collect()
    }

    async fn taken_back(&self, after: u64, limit: usize) -> Result<Vec<IssuedLicence>> {
        const LIST: &str = "SELECT id, holder, purchase, capabilities, issued_at_ms, expires_at_ms, revoked_at_ms, \
             revoked_nth FROM licence_issued WHERE revoked_nth > $1 ORDER BY revoked_nth LIMIT $2";
        let (after, limit) = (rows::number(after), most(limit));
        let found = self.reading.rows(LIST, &[&after, &limit]).await?;
        found.iter().map(read_issued).collect()
    }
}

async fn admit(
    scope: &Scope<'_>,
    (issuer, id, client): (&str, &str, &str),
    most: i64,
) -> Result<bool, Fault> {
    const ADMIT: &str = "INSERT INTO licence_holder (issuer, id, client) SELECT $1, $2, $3 \
         WHERE (SELECT count(*) FROM licence_holder WHERE issuer = $1 AND id = $2) < $4 ON CONFLICT DO NOTHING";
    const IS: &str = "SELECT 1 FROM licence_holder WHERE issuer = $1 AND id = $2 AND client = $3";
    scope.row(LICENCES, &[]).await?;
    scope.change(ADMIT, &[&issuer, &id, &client, &most]).await?;
    Ok(scope.row(IS, &[&issuer, &id, &client]).await?.is_some())
}

async fn issued(scope: &Scope<'_>, id: &str) -> Result<Option<IssuedLicence>, Fault> {
    const GET: &str = "SELECT id, holder, purchase, capabilities, issued_at_ms, expires_at_ms, revoked_at_ms, \
         revoked_nth FROM licence_issued WHERE id = $1";
    let row = scope.row(GET, &[&id]).await?;
    Ok(row.as_ref().map(read_issued).transpose()?)
}

fn read_issued(row: &Row) -> Result<IssuedLicence> {
    let revoked_at = rows::get::<Option<i64>>(row, 6)?.map(time);
    let nth = rows::get::<Option<i64>>(row, 7)?;
    let nth = nth.and_then(|nth| u64::try_from(nth).ok());
    Ok(IssuedLicence {
        id: rows::get(row, 0)?,
        holder: rows::word(row, 1)?,
        purchase: rows::get(row, 2)?,
        capabilities: rows::get(row, 3)?,
        issued_at: time(rows::get(row, 4)?),
        expires_at: time(rows::get(row, 5)?),
        revoked: revoked_at.zip(nth),
    })
}
