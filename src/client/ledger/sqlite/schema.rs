//! The file: its tables, and what is refused rather than guessed at.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::error::{Error, Result};
use crate::ledger::file;

/// Marks a SQLite file as the books of a buyer (`PRAGMA application_id`): "buyr".
const APPLICATION_ID: i32 = 0x6275_7972;

/// The schema that this version writes (`PRAGMA user_version`).
const VERSION: i32 = 3;

/// What makes the books of each former version those of the next, beginning with version 1.
///
/// 2: what may have been taken counts as well as what was. 3: which wallet was asked.
const STEPS: [&str; 2] = [
    "
DROP INDEX payment_of_server;
CREATE INDEX payment_of_server ON payment (server, number) WHERE state <> 'refused';
",
    "ALTER TABLE payment ADD COLUMN wallet TEXT;",
];

/// One row per attempt to pay, for people too: `sqlite3 buyer.db 'SELECT * FROM payment'`.
///
/// A payment id (a payment hash, say) is in at most one row that is not refused, for ever (N-131).
const SCHEMA: &str = "
CREATE TABLE payment (
    number          INTEGER PRIMARY KEY AUTOINCREMENT,
    call            TEXT NOT NULL,
    event           TEXT NOT NULL,
    server          TEXT NOT NULL,
    identity        TEXT NOT NULL,
    capability      TEXT NOT NULL,
    pmi             TEXT NOT NULL,
    payment_id      TEXT NOT NULL,
    amount          INTEGER NOT NULL CHECK (amount > 0),
    unit            TEXT NOT NULL,
    worth           INTEGER,
    worth_unit      TEXT,
    state           TEXT NOT NULL CHECK (state IN ('reserved', 'paid', 'refused', 'unknown')),
    answer          TEXT NOT NULL CHECK (answer IN
        ('waiting', 'missing', 'interrupted', 'result', 'error', 'forgiven')),
    reserved_at_ms  INTEGER NOT NULL,
    decided_at_ms   INTEGER,
    owner           TEXT NOT NULL,
    note            TEXT NOT NULL,
    proof           TEXT,
    payment_request TEXT NOT NULL,
    request         TEXT NOT NULL,
    demand          TEXT NOT NULL,
    retry_event     TEXT,
    retry           TEXT,
    acceptance      TEXT,
    response        TEXT,
    wallet          TEXT
) STRICT;

CREATE UNIQUE INDEX payment_once ON payment (pmi, payment_id) WHERE state <> 'refused';
CREATE INDEX payment_call     ON payment (server, identity) WHERE state <> 'refused';
CREATE INDEX payment_spent    ON payment (reserved_at_ms, server, capability, unit, worth_unit, amount, worth)
    WHERE state <> 'refused';
CREATE INDEX payment_of_server ON payment (server, number) WHERE state <> 'refused';
CREATE INDEX payment_state    ON payment (state, number);
CREATE INDEX payment_answer   ON payment (server, answer);
CREATE INDEX payment_reserved ON payment (owner) WHERE state = 'reserved' OR answer = 'waiting';
";

/// What the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Empty.
    Nothing,
    /// Books of this former version.
    Former(i32),
    /// Books of this version.
    Ours,
}

/// Opens the file, makes it readable by its owner only if there is none, and checks that it is what it should be.
pub(super) fn open(path: &Path) -> Result<Connection> {
    file::create(path)?;
    let mut connection = file::connect(path)?;
    let found = examine(&connection)?;
    file::into_wal(&connection)?;
    connection
        .execute_batch("PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY;")
        .map_err(|e| file::failure(&e))?;
    if found != Found::Ours {
        install(&mut connection)?;
    }
    Ok(connection)
}

/// What the file is; an error if it is somebody else's or from a later version.
fn examine(connection: &Connection) -> Result<Found> {
    let (application, version, objects) = file::marks(connection)?;
    match (application, version) {
        (APPLICATION_ID, VERSION) => Ok(Found::Ours),
        (APPLICATION_ID, former @ 1..VERSION) => Ok(Found::Former(former)),
        (APPLICATION_ID, newer) if newer > VERSION => Err(Error::ledger(format!(
            "the books were written by a later version (schema {newer}, this version knows {VERSION}); use that version"
        ))),
        (0, 0) if objects == 0 => Ok(Found::Nothing),
        _ => Err(Error::ledger(
            "the file is a SQLite database, but not the books of a buyer; move it away",
        )),
    }
}

/// Writes the schema, or carries former books over into it, unless another process was faster.
fn install(connection: &mut Connection) -> Result<()> {
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(|e| file::failure(&e))?;
    let steps: Vec<&str> = match examine(&transaction)? {
        Found::Ours => Vec::new(),
        Found::Nothing => vec![SCHEMA],
        Found::Former(version) => (1..VERSION)
            .zip(STEPS)
            .filter(|(from, _)| *from >= version)
            .map(|(_, step)| step)
            .collect(),
    };
    if !steps.is_empty() {
        steps
            .into_iter()
            .try_for_each(|step| transaction.execute_batch(step))
            .and_then(|()| transaction.pragma_update(None, "application_id", APPLICATION_ID))
            .and_then(|()| transaction.pragma_update(None, "user_version", VERSION))
            .map_err(|e| file::failure(&e))?;
    }
    transaction.commit().map_err(|e| file::failure(&e))
}
