//! The writer's transaction, with what it knows beside the rows: copies of entries that move, and how many offers are open.

use rusqlite::Connection;

use super::failure;
use super::recent::Recent;
use crate::error::Result;

const OPEN_IN_ALL: &str = "SELECT open_offers FROM tally";
const COUNT: &str = "UPDATE tally SET open_offers = open_offers + ?1";

/// The connection that writes, and what it remembers.
///
/// What it remembers is true inside a transaction only, and only until another connection writes.
#[derive(Debug)]
pub(super) struct Books {
    connection: Connection,
    pub(super) recent: Recent,
    /// How many offers are open as far as the last commit; read when it is asked for.
    open_offers: Option<i64>,
    /// How many more are open since.
    opened: i64,
    /// What SQLite says it was when the last transaction began: another number if somebody else has written.
    data_version: i64,
}

impl Books {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            recent: Recent::default(),
            open_offers: None,
            opened: 0,
            data_version: 0,
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Begins a transaction that may write.
    pub(super) fn begin(&mut self) -> rusqlite::Result<()> {
        self.execute("BEGIN IMMEDIATE")?;
        let version = self
            .connection
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        if version != self.data_version {
            self.forget();
            self.data_version = version;
        }
        Ok(())
    }

    /// Puts what was done on the disk; on an error nothing of it was kept.
    pub(super) fn commit(&mut self) -> rusqlite::Result<()> {
        let committed = self.count().and_then(|()| self.execute("COMMIT"));
        match committed {
            Ok(()) => {
                self.open_offers = self.open_offers.map(|open| open + self.opened);
                self.opened = 0;
            }
            Err(_) => self.roll_back(),
        }
        committed
    }

    /// Undoes what was done, if that has not happened already.
    pub(super) fn roll_back(&mut self) {
        if !self.connection.is_autocommit() {
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        self.forget();
    }

    /// Does several writes or none of them, in a job that makes more than one: one that fails must leave no trace.
    pub(super) fn all_or_nothing<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let run = |books: &Self, sql| books.execute(sql).map_err(|e| failure(&e));
        let opened = self.opened;
        run(self, "SAVEPOINT part")?;
        let done = work(self);
        if done.is_ok() {
            run(self, "RELEASE part")?;
        } else if !self.is_undone() {
            run(self, "ROLLBACK TO part")?;
            run(self, "RELEASE part")?;
            self.recent.forget();
            self.opened = opened;
        }
        done
    }

    /// Whether a failure has ended the transaction.
    pub(super) fn is_undone(&self) -> bool {
        self.connection.is_autocommit()
    }

    /// Notes that so many more offers are open than before.
    pub(super) fn note_opened(&mut self, more: i64) {
        self.opened += more;
    }

    /// How many offers are open.
    pub(super) fn open_offers(&mut self) -> rusqlite::Result<i64> {
        let counted = match self.open_offers {
            Some(counted) => counted,
            None => self
                .connection
                .prepare_cached(OPEN_IN_ALL)?
                .query_row([], |row| row.get(0))?,
        };
        self.open_offers = Some(counted);
        Ok(counted + self.opened)
    }

    fn count(&self) -> rusqlite::Result<()> {
        if self.opened != 0 {
            self.connection
                .prepare_cached(COUNT)?
                .execute([self.opened])?;
        }
        Ok(())
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(sql)?.execute([]).map(drop)
    }

    fn forget(&mut self) {
        self.recent.forget();
        self.open_offers = None;
        self.opened = 0;
    }
}
