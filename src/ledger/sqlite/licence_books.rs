//! What is to be remembered about licences, in the file.

use rusqlite::{Connection, OptionalExtension, Row};

use super::rows::{millis, time, word};
use super::{SqliteLedger, failure};
use crate::error::Result;
use crate::ledger::{FeedPosition, IssuedLicence, LicenceBooks, Revocation};
use crate::payment::{ClientPubkey, Timestamp};

pub(super) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS licence_revoked (
    issuer        TEXT NOT NULL,
    id            TEXT NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    PRIMARY KEY (issuer, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS licence_revoked_expires ON licence_revoked (expires_at_ms);
CREATE TABLE IF NOT EXISTS licence_feed (
    issuer     TEXT PRIMARY KEY,
    cursor     TEXT NOT NULL,
    read_at_ms INTEGER
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS licence_holder (
    issuer TEXT NOT NULL,
    id     TEXT NOT NULL,
    client TEXT NOT NULL,
    PRIMARY KEY (issuer, id, client)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS licence_issued (
    id            TEXT PRIMARY KEY,
    holder        TEXT NOT NULL,
    purchase      TEXT NOT NULL,
    capabilities  TEXT NOT NULL,
    issued_at_ms  INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    revoked_at_ms INTEGER,
    revoked_nth   INTEGER UNIQUE
) STRICT, WITHOUT ROWID;
";

const ISSUED: &str = "SELECT id, holder, purchase, capabilities, issued_at_ms, expires_at_ms, revoked_at_ms, revoked_nth FROM licence_issued";

const NOTE: &str = "INSERT INTO licence_revoked (issuer, id, expires_at_ms) \
     SELECT ?1, value ->> 0, value ->> 1 FROM json_each(?2) WHERE true \
     ON CONFLICT DO UPDATE SET expires_at_ms = max(expires_at_ms, excluded.expires_at_ms)";

const LIST: &str = "SELECT id, expires_at_ms FROM licence_revoked WHERE issuer = ?1 AND id > ?2 ORDER BY id LIMIT ?3";

const FORGET: &str = "DELETE FROM licence_revoked WHERE (issuer, id) IN \
     (SELECT issuer, id FROM licence_revoked WHERE expires_at_ms < ?1 LIMIT 500)";

const ADMIT: &str = "INSERT OR IGNORE INTO licence_holder (issuer, id, client) SELECT ?1, ?2, ?3 \
     WHERE (SELECT count(*) FROM (SELECT 1 FROM licence_holder WHERE issuer = ?1 AND id = ?2 LIMIT ?4)) < ?4";

#[async_trait::async_trait]
impl LicenceBooks for SqliteLedger {
    async fn note_revoked(&self, issuer: &str, revoked: Vec<Revocation>) -> Result<()> {
        let issuer = issuer.to_owned();
        let batch: Vec<_> = revoked
            .iter()
            .map(|revoked| serde_json::json!([revoked.id, millis(revoked.expires_at)]))
            .collect();
        let batch = serde_json::Value::Array(batch).to_string();
        self.write(move |books| execute(books.connection(), NOTE, (issuer, batch)).map(drop))
            .await
    }

    async fn revoked(
        &self,
        issuer: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Revocation>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let values = (
            issuer.to_owned(),
            after.unwrap_or_default().to_owned(),
            limit,
        );
        self.read(move |connection| {
            connection
                .prepare_cached(LIST)?
                .query_map(values, |row| {
                    Ok(Revocation {
                        id: row.get(0)?,
                        expires_at: time(row.get(1)?),
                    })
                })?
                .collect()
        })
        .await
    }

    async fn forget_revoked(&self, before: Timestamp) -> Result<usize> {
        self.write(move |books| execute(books.connection(), FORGET, [millis(before)]))
            .await
    }

    async fn set_position(&self, issuer: &str, position: FeedPosition) -> Result<()> {
        const SET: &str =
            "INSERT OR REPLACE INTO licence_feed (issuer, cursor, read_at_ms) VALUES (?1, ?2, ?3)";
        let issuer = issuer.to_owned();
        let read_at = position.read_at.map(millis);
        self.write(move |books| {
            let connection = books.connection();
            execute(connection, SET, (issuer, position.cursor, read_at)).map(drop)
        })
        .await
    }

    async fn position(&self, issuer: &str) -> Result<Option<FeedPosition>> {
        const GET: &str = "SELECT cursor, read_at_ms FROM licence_feed WHERE issuer = ?1";
        let issuer = issuer.to_owned();
        self.read(move |connection| {
            connection
                .prepare_cached(GET)?
                .query_row([issuer], |row| {
                    Ok(FeedPosition {
                        cursor: row.get(0)?,
                        read_at: row.get::<_, Option<i64>>(1)?.map(time),
                    })
                })
                .optional()
        })
        .await
    }

    async fn admit_holder(
        &self,
        issuer: &str,
        id: &str,
        client: ClientPubkey,
        most: usize,
    ) -> Result<bool> {
        const IS: &str =
            "SELECT 1 FROM licence_holder WHERE issuer = ?1 AND id = ?2 AND client = ?3";
        let holder = (issuer.to_owned(), id.to_owned(), client.to_string());
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        self.write(move |books| {
            let connection = books.connection();
            let (issuer, id, client) = holder;
            execute(connection, ADMIT, (&issuer, &id, &client, most))?;
            connection
                .prepare_cached(IS)
                .and_then(|mut statement| statement.exists((issuer, id, client)))
                .map_err(|e| failure(&e))
        })
        .await
    }

    async fn note_issued(&self, licence: IssuedLicence) -> Result<IssuedLicence> {
        const ISSUE: &str = "INSERT OR IGNORE INTO licence_issued \
             (id, holder, purchase, capabilities, issued_at_ms, expires_at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.write(move |books| {
            let connection = books.connection();
            let values = (
                &licence.id,
                licence.holder.to_string(),
                &licence.purchase,
                &licence.capabilities,
                millis(licence.issued_at),
                millis(licence.expires_at),
            );
            execute(connection, ISSUE, values)?;
            let written = issued(connection, &licence.id).map_err(|e| failure(&e))?;
            Ok(written.unwrap_or(licence))
        })
        .await
    }

    async fn take_back(&self, id: &str, at: Timestamp) -> Result<Option<IssuedLicence>> {
        const TAKE: &str = "UPDATE licence_issued SET revoked_at_ms = ?2, \
             revoked_nth = (SELECT coalesce(max(revoked_nth), 0) + 1 FROM licence_issued) \
             WHERE id = ?1 AND revoked_at_ms IS NULL";
        let id = id.to_owned();
        self.write(move |books| {
            let connection = books.connection();
            execute(connection, TAKE, (&id, millis(at)))?;
            issued(connection, &id).map_err(|e| failure(&e))
        })
        .await
    }

    async fn issued(&self, after: Option<&str>, limit: usize) -> Result<Vec<IssuedLicence>> {
        let after = after.unwrap_or_default().to_owned();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(move |connection| {
            connection
                .prepare_cached(&format!("{ISSUED} WHERE id > ?1 ORDER BY id LIMIT ?2"))?
                .query_map((after, limit), read_issued)?
                .collect()
        })
        .await
    }

    async fn taken_back(&self, after: u64, limit: usize) -> Result<Vec<IssuedLicence>> {
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(move |connection| {
            let list = format!("{ISSUED} WHERE revoked_nth > ?1 ORDER BY revoked_nth LIMIT ?2");
            connection
                .prepare_cached(&list)?
                .query_map((after, limit), read_issued)?
                .collect()
        })
        .await
    }
}

fn issued(connection: &Connection, id: &str) -> rusqlite::Result<Option<IssuedLicence>> {
    connection
        .prepare_cached(&format!("{ISSUED} WHERE id = ?1"))?
        .query_row([id], read_issued)
        .optional()
}

fn read_issued(row: &Row<'_>) -> rusqlite::Result<IssuedLicence> {
    let revoked_at = row.get::<_, Option<i64>>(6)?.map(time);
    let nth = row.get::<_, Option<i64>>(7)?;
    let nth = nth.and_then(|nth| u64::try_from(nth).ok());
    Ok(IssuedLicence {
        id: row.get(0)?,
        holder: word(row, 1)?,
        purchase: row.get(2)?,
        capabilities: row.get(3)?,
        issued_at: time(row.get(4)?),
        expires_at: time(row.get(5)?),
        revoked: revoked_at.zip(nth),
    })
}

fn execute(connection: &Connection, sql: &str, values: impl rusqlite::Params) -> Result<usize> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute(values))
        .map_err(|e| failure(&e))
}
