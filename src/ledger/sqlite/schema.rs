//! The file: how it is opened, what its tables are, and what is refused rather than guessed at.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};

use super::failure;
use crate::error::{Error, Result};

/// Marks a SQLite file as a ledger of ours (`PRAGMA application_id`): "toll".
const APPLICATION_ID: i32 = 0x746f_6c6c;

/// The schema that this version writes (`PRAGMA user_version`). Version 1 kept an index by state, which every move changed,
/// and counted open offers by triggers.
const VERSION: i32 = 2;

/// How long one process waits for another that writes.
const BUSY: Duration = Duration::from_secs(5);

/// Up to this size a file is checked page by page at every start.
const CHECKED_UP_TO: i64 = 64 << 20;

/// One row per payment request, for people too: `sqlite3 tollkeeper.db 'SELECT * FROM entry'`.
///
/// `is_open`, `is_finished` and `is_authorization` repeat what `state` and `waiting` say, so that a move touches only the
/// indexes that it changes. The states are checked one by one, because a list of more than two is built anew, as a table of
/// its own, for every row that is written.
const ENTRY: &str = "
CREATE TABLE entry (
    number             INTEGER PRIMARY KEY,
    id                 TEXT NOT NULL UNIQUE,
    client             TEXT NOT NULL,
    identity           TEXT NOT NULL,
    capability         TEXT NOT NULL,
    amount             INTEGER NOT NULL CHECK (amount >= 0),
    unit               TEXT NOT NULL,
    pmi                TEXT NOT NULL,
    interaction        TEXT NOT NULL,
    state              TEXT NOT NULL CHECK (state = 'quoted' OR state = 'issued' OR state = 'settled' OR
        state = 'claimed' OR state = 'delivered' OR state = 'abandoned' OR state = 'expired'),
    waiting            INTEGER NOT NULL CHECK (waiting = 0 OR waiting = 1),
    is_open            INTEGER NOT NULL CHECK (is_open = (state = 'quoted' OR state = 'issued')),
    is_finished        INTEGER NOT NULL CHECK (is_finished = (state = 'delivered' OR state = 'abandoned')),
    is_authorization   INTEGER NOT NULL CHECK (is_authorization = (state = 'settled' AND waiting = 0)),
    quoted_at_ms       INTEGER NOT NULL,
    deadline_ms        INTEGER NOT NULL,
    watch_until_ms     INTEGER,
    claimed_by         TEXT,
    route              TEXT NOT NULL,
    description        TEXT NOT NULL,
    meta               TEXT,
    payment_request    TEXT,
    reference          TEXT,
    settlement         TEXT,
    history            TEXT NOT NULL,
    request            TEXT,
    response           TEXT
) STRICT;
";

/// Most of them hold only the few rows that are asked for by them, so that a paid call enters and leaves few.
const INDEXES: &str = "
CREATE INDEX entry_open          ON entry (client, identity) WHERE is_open = 1;
CREATE INDEX entry_unfinished    ON entry (client, identity, quoted_at_ms) WHERE is_finished = 0;
CREATE INDEX entry_unfinished_at ON entry (quoted_at_ms, id) WHERE is_finished = 0;
CREATE INDEX entry_authorization ON entry (client, identity, quoted_at_ms) WHERE is_authorization = 1;
CREATE INDEX entry_claimed_by    ON entry (claimed_by) WHERE claimed_by <> id;
CREATE INDEX entry_quoted_at     ON entry (quoted_at_ms, id);
CREATE INDEX entry_unpaid        ON entry (quoted_at_ms) WHERE state IN ('abandoned', 'expired');
CREATE INDEX entry_response      ON entry (quoted_at_ms) WHERE response IS NOT NULL;

CREATE UNIQUE INDEX entry_reference ON entry (pmi, reference) WHERE reference IS NOT NULL;
";

/// `tally` is kept by the writer, once for each commit.
const BESIDE: &str = "
CREATE TABLE answered (event TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX answered_at ON answered (at_ms);

CREATE TABLE tally (open_offers INTEGER NOT NULL) STRICT;
INSERT INTO tally VALUES (0);
";

/// Read as a whole at the start and otherwise only written, so it needs no index.
const LET_IN: &str = "
CREATE TABLE let_in (number INTEGER PRIMARY KEY, event TEXT NOT NULL, at_ms INTEGER NOT NULL) STRICT;
";

/// The columns are the same, in the same order.
const AWAY_FROM_1: &str = "
DROP TRIGGER entry_opens;
DROP TRIGGER entry_opens_or_closes;
DROP TRIGGER entry_goes;
ALTER TABLE entry RENAME TO former_entry;
";
const INTO_2: &str = "
INSERT INTO entry SELECT * FROM former_entry;
DROP TABLE former_entry;
";

/// What the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Empty.
    Nothing,
    /// A ledger of an earlier version.
    Former,
    /// A ledger of this version.
    Ours,
}

/// Opens the file for writing, makes it if there is none, and checks that it can be trusted.
pub(super) fn writer(path: &Path) -> Result<Connection> {
    create(path)?;
    let mut connection = connect(path)?;
    let found = examine(&connection)?;
    if connection.is_readonly("main").map_err(|e| failure(&e))? {
        return Err(read_only());
    }
    into_wal(&connection)?;
    connection
        .execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 16000;
             PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -8000; PRAGMA temp_store = MEMORY;",
        )
        .map_err(|e| failure(&e))?;
    if found == Found::Former {
        // What is damaged must not be copied over.
        check_pages(&connection)?;
        tracing::info!("the ledger is of an earlier version; it is being converted");
    }
    if found != Found::Ours {
        install(&mut connection)?;
    }
    add_tables(&connection)?;
    check_pages(&connection)?;
    recount(&connection).map_err(|e| failure(&e))?;
    Ok(connection)
}

/// Opens the file a second time, to read only.
pub(super) fn reader(path: &Path) -> Result<Connection> {
    let connection = connect(path)?;
    connection
        .execute_batch(
            "PRAGMA query_only = ON; PRAGMA cache_size = -8000; PRAGMA temp_store = MEMORY;",
        )
        .map_err(|e| failure(&e))?;
    Ok(connection)
}

/// Makes an empty file that only its owner can read, unless there is a file. SQLite gives its side files the same mode.
pub(crate) fn create(path: &Path) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = path.metadata().map_err(|error| cannot_open(&error))?;
            if !metadata.is_file() {
                return Err(Error::ledger("the ledger is not a file; name a file"));
            }
            if metadata.permissions().readonly() {
                return Err(read_only());
            }
            Ok(())
        }
        Err(error) => Err(cannot_open(&error)),
    }
}

fn cannot_open(error: &io::Error) -> Error {
    let message = match error.kind() {
        io::ErrorKind::NotFound => {
            "the folder of the ledger does not exist; make it, or name another"
        }
        io::ErrorKind::PermissionDenied => {
            "the ledger cannot be opened: no permission; give the user of this process access to its folder"
        }
        _ => "the ledger cannot be opened; check its folder",
    };
    Error::ledger(message).with_source(error.kind().to_string())
}

fn read_only() -> Error {
    Error::ledger(
        "the ledger file is read-only; make it and its folder writable for the user of this process",
    )
}

pub(crate) fn connect(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|e| failure(&e))?;
    connection.busy_timeout(BUSY).map_err(|e| failure(&e))?;
    // Without this, each new value bound to a cached statement has it planned anew.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map_err(|e| failure(&e))?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Whose file it is, in which version, and how many tables and indexes it has. Read at once: while another process sets the file
/// up, the one would be read before that and the other after it.
pub(crate) fn marks(connection: &Connection) -> Result<(i32, i32, i32)> {
    const MARKS: &str = "SELECT (SELECT application_id FROM pragma_application_id), \
         (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_schema)";
    connection
        .query_row(MARKS, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .map_err(|e| failure(&e))
}

/// What the file is; an error if it is somebody else's, damaged, or from a later version.
fn examine(connection: &Connection) -> Result<Found> {
    let (application, version, objects) = marks(connection)?;
    match (application, version) {
        (APPLICATION_ID, VERSION) => Ok(Found::Ours),
        (APPLICATION_ID, 1) => Ok(Found::Former),
        (APPLICATION_ID, newer) if newer > VERSION => Err(Error::ledger(format!(
            "the ledger was written by a later version (schema {newer}, this version knows {VERSION}); use that version"
        ))),
        (0, 0) if objects == 0 => Ok(Found::Nothing),
        _ => Err(Error::ledger(
            "the file is a SQLite database, but not a ledger of Tollkeeper; name another file",
        )),
    }
}

/// Write-ahead logging: readers never wait for the writer, and a commit is one flush. Another process that opens the file
/// at the same moment can be in the way for a moment.
pub(crate) fn into_wal(connection: &Connection) -> Result<()> {
    let mut tries = 0;
    loop {
        let mode = connection.query_row("PRAGMA journal_mode = WAL", [], |row| {
            row.get::<_, String>(0)
        });
        match mode {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(_) => {
                return Err(Error::ledger(
                    "the file system of the ledger does not allow write-ahead logging; use a local disk",
                ));
            }
            Err(error) if super::is_busy(&error) && tries < 50 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(failure(&error)),
        }
    }
}

/// Writes the schema, or carries the rows over into it, unless another process was faster.
fn install(connection: &mut Connection) -> Result<()> {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(|e| failure(&e))?;
    let steps: &[&str] = match examine(&transaction)? {
        Found::Nothing => &[ENTRY, INDEXES, BESIDE, LET_IN],
        Found::Former => &[AWAY_FROM_1, ENTRY, INTO_2, INDEXES, LET_IN],
        Found::Ours => &[],
    };
    for step in steps {
        transaction.execute_batch(step).map_err(|e| failure(&e))?;
    }
    if !steps.is_empty() {
        transaction
            .pragma_update(None, "application_id", APPLICATION_ID)
            .and_then(|()| transaction.pragma_update(None, "user_version", VERSION))
            .map_err(|e| failure(&e))?;
    }
    transaction.commit().map_err(|e| failure(&e))
}

/// Adds what a ledger of an earlier build does not have yet. An earlier build passes over these tables.
fn add_tables(connection: &Connection) -> Result<()> {
    const HAS: &str = "SELECT 1 FROM sqlite_schema WHERE name = ?1";
    for (table, schema) in [
        ("free_call", super::free_calls::SCHEMA),
        ("licence_holder", super::licence_books::SCHEMA),
        ("movement", super::accounts::SCHEMA),
        ("live_account", super::purchases::SCHEMA),
    ] {
        let has = connection
            .prepare(HAS)
            .and_then(|mut statement| statement.exists([table]));
        if !has.map_err(|e| failure(&e))? {
            connection
                .execute_batch(&format!("BEGIN IMMEDIATE; {schema} COMMIT;"))
                .map_err(|e| failure(&e))?;
        }
    }
    Ok(())
}

/// Looks for damage, unless the file is so large that the start would take seconds.
fn check_pages(connection: &Connection) -> Result<()> {
    let number = |pragma: &str| {
        connection
            .query_row(pragma, [], |row| row.get::<_, i64>(0))
            .map_err(|e| failure(&e))
    };
    if number("PRAGMA page_count")?.saturating_mul(number("PRAGMA page_size")?) > CHECKED_UP_TO {
        return Ok(());
    }
    let report: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|e| failure(&e))?;
    if report == "ok" {
        return Ok(());
    }
    Err(super::damaged())
}

/// Puts the count of open offers right, should somebody have edited the file by hand.
fn recount(connection: &Connection) -> rusqlite::Result<()> {
    let counted: Option<i64> = connection
        .query_row("SELECT open_offers FROM tally", [], |row| row.get(0))
        .optional()?;
    let open: i64 = connection.query_row(
        "SELECT count(*) FROM entry INDEXED BY entry_open WHERE is_open = 1",
        [],
        |row| row.get(0),
    )?;
    if counted == Some(open) {
        return Ok(());
    }
    // Counted once more inside the one statement that writes: another process may be at work.
    connection.execute_batch(
        "BEGIN IMMEDIATE; DELETE FROM tally;
         INSERT INTO tally SELECT count(*) FROM entry WHERE is_open = 1; COMMIT;",
    )
}
