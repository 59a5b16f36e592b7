//! The tables, and how they come about when several instances start at once.

use super::failure;
use super::session::Session;
use crate::error::{Error, Result};

/// The schema that this version writes.
const VERSION: i32 = 1;

/// Of all who start, one looks at the tables at a time. The number is "toll".
const ONE_AT_A_TIME: &str = "SELECT pg_advisory_xact_lock(1953458284)";

/// The columns are those of the SQLite ledger, with three more: `version`, which each move counts up, so that none is lost that was
/// decided on an older row; `reference`; and `instance`, who is at work on it. Texts are compared byte by byte.
const ENTRY: &str = r#"
CREATE TABLE entry (
    number          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version         INTEGER NOT NULL DEFAULT 0,
    id              TEXT COLLATE "C" NOT NULL UNIQUE,
    client          TEXT COLLATE "C" NOT NULL,
    identity        TEXT COLLATE "C" NOT NULL,
    capability      TEXT NOT NULL,
    amount          BIGINT NOT NULL CHECK (amount >= 0),
    unit            TEXT NOT NULL,
    pmi             TEXT COLLATE "C" NOT NULL,
    interaction     TEXT NOT NULL,
    state           TEXT COLLATE "C" NOT NULL CHECK (state IN
        ('quoted', 'issued', 'settled', 'claimed', 'delivered', 'abandoned', 'expired')),
    waiting         BOOLEAN NOT NULL,
    quoted_at_ms    BIGINT NOT NULL,
    deadline_ms     BIGINT NOT NULL,
    watch_until_ms  BIGINT,
    claimed_by      TEXT COLLATE "C",
    route           TEXT NOT NULL,
    description     TEXT NOT NULL,
    meta            TEXT,
    payment_request TEXT,
    reference       TEXT COLLATE "C",
    settlement      TEXT,
    history         TEXT NOT NULL,
    request         TEXT,
    response        TEXT,
    instance        BIGINT NOT NULL
) WITH (fillfactor = 70);

CREATE INDEX entry_open          ON entry (client, identity) WHERE state IN ('quoted', 'issued');
CREATE INDEX entry_unfinished    ON entry (client, identity, quoted_at_ms) WHERE state NOT IN ('delivered', 'abandoned');
CREATE INDEX entry_unfinished_at ON entry (quoted_at_ms, id) WHERE state NOT IN ('delivered', 'abandoned');
CREATE INDEX entry_authorization ON entry (client, identity, quoted_at_ms, number) WHERE state = 'settled' AND NOT waiting;
CREATE INDEX entry_claimed_by    ON entry (claimed_by) WHERE claimed_by <> id;
CREATE INDEX entry_quoted_at     ON entry (quoted_at_ms, id);
CREATE INDEX entry_unpaid        ON entry (quoted_at_ms) WHERE state IN ('abandoned', 'expired');
CREATE INDEX entry_response      ON entry (quoted_at_ms) WHERE response IS NOT NULL;
CREATE INDEX entry_instance      ON entry (instance) WHERE state NOT IN ('delivered', 'abandoned');
CREATE UNIQUE INDEX entry_reference ON entry (pmi, reference) WHERE reference IS NOT NULL;

CREATE TABLE answered (event TEXT COLLATE "C" PRIMARY KEY, at_ms BIGINT NOT NULL);
CREATE INDEX answered_at ON answered (at_ms);

CREATE TABLE let_in (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event  TEXT NOT NULL,
    at_ms  BIGINT NOT NULL
);
"#;

/// `batch` is the last commit of an instance, by which it learns what became of one whose answer was lost. A row of `heartbeat`
/// is the right to go on: whoever takes it away takes over. `tally` has a row for each instance, so that none waits for
/// another to count.
const INSTANCES: &str = r#"
CREATE TABLE instance (
    number   BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    began_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    ended_at TIMESTAMPTZ,
    why      TEXT,
    resolved BOOLEAN NOT NULL DEFAULT false,
    batch    BIGINT NOT NULL DEFAULT 0
) WITH (fillfactor = 20);
CREATE INDEX instance_unresolved ON instance (number) WHERE NOT resolved;

CREATE TABLE heartbeat (
    instance     BIGINT PRIMARY KEY,
    beat_at      TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    steady_since TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 20);

CREATE TABLE tally (instance BIGINT PRIMARY KEY, open_offers BIGINT NOT NULL) WITH (fillfactor = 20);

CREATE TABLE taken (
    event    TEXT COLLATE "C" PRIMARY KEY,
    instance BIGINT NOT NULL,
    before   BIGINT,
    at_ms    BIGINT NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX taken_at ON taken (at_ms);
"#;

/// Makes the tables, unless they are there; an error if they are somebody else's, or of a later version.
pub(super) async fn prepare(session: &Session) -> Result<()> {
    let done = prepare_in_one(session).await;
    if done.is_err() {
        // Whatever was begun is undone with the session, at the latest.
        let _ = session.run("ROLLBACK").await;
    }
    done
}

async fn prepare_in_one(session: &Session) -> Result<()> {
    let run = async |sql: &str| session.run(sql).await.map_err(|e| failure(&e));
    run("BEGIN").await?;
    run("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0").await?;
    run(ONE_AT_A_TIME).await?;
    match version(session).await? {
        None => {
            refuse_foreign(session).await?;
            for part in [
                ENTRY,
                INSTANCES,
                super::free_calls::SCHEMA,
                super::accounts::SCHEMA,
                super::licence_books::SCHEMA,
                super::purchases::SCHEMA,
                super::purchases::LIVE,
                "CREATE TABLE tollkeeper (version INTEGER NOT NULL)",
            ] {
                run(part).await?;
            }
            run(&format!("INSERT INTO tollkeeper VALUES ({VERSION})")).await?;
        }
        Some(VERSION) => {
            let has = session.row(super::purchases::HAS_LIVE, &[]).await;
            if !has.map_err(|e| failure(&e))?.is_some_and(|row| row.get(0)) {
                run(super::purchases::LIVE).await?;
            }
        }
        Some(other) => return Err(other_version(other)),
    }
    run("COMMIT").await
}

/// As [`prepare`], but makes nothing: for whoever only wants to look.
pub(super) async fn examine(session: &Session) -> Result<()> {
    match version(session).await? {
        Some(VERSION) => Ok(()),
        Some(other) => Err(other_version(other)),
        None => Err(Error::ledger(
            "there is no ledger in this database; name another",
        )),
    }
}

fn other_version(found: i32) -> Error {
    Error::ledger(format!(
        "the ledger was written by another version (schema {found}, this version knows {VERSION}); use that version"
    ))
}

async fn version(session: &Session) -> Result<Option<i32>> {
    const THERE: &str = "SELECT to_regclass('tollkeeper') IS NOT NULL";
    let there = session.row(THERE, &[]).await.map_err(|e| failure(&e))?;
    if !there.is_some_and(|row| row.get(0)) {
        return Ok(None);
    }
    let version = session.row("SELECT version FROM tollkeeper", &[]).await;
    let version = version.map_err(|e| failure(&e))?;
    Ok(Some(version.map_or(0, |row| row.get(0))))
}

/// A database with tables of the same names is not ours to write to.
async fn refuse_foreign(session: &Session) -> Result<()> {
    const FOREIGN: &str =
        "SELECT EXISTS (SELECT 1 FROM pg_tables WHERE schemaname = current_schema())";
    let foreign = session.row(FOREIGN, &[]).await.map_err(|e| failure(&e))?;
    if foreign.is_some_and(|row| row.get(0)) {
        return Err(Error::ledger(
            "the database has tables, but not those of a ledger of Tollkeeper; give the ledger a database of its own",
        ));
    }
    Ok(())
}
