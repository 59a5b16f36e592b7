//! Durable books: one SQLite file that several processes share, and one thread that reads and writes it.
//!
//! The file is opened with the first question, so that a call that costs nothing costs nothing here either. What a call
//! reports is on the disk when it returns (`synchronous = FULL`).

mod owner;
mod rows;
mod schema;
mod stand;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use async_trait::async_trait;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use self::owner::Owner;
use super::{
    AnswerState, Attempt, AttemptFilter, AttemptId, BuyerLedger, Heard, NewAttempt, Settled, Tally,
    Used,
};
use crate::client::event::DeclineReason;
use crate::client::policy::Case;
use crate::error::{Error, Result};
use crate::ledger::file::failure;
use crate::payment::{InvocationIdentity, ServerPubkey, Timestamp};

/// How many jobs may wait for the thread. Beyond that, callers wait for room.
const QUEUE: usize = 256;

/// What is said of an attempt whose process died while the wallet was being asked.
const DIED: &str = "the process that asked the wallet ended before it had an answer";

/// Keeps attempts in a SQLite file.
pub struct SqliteBuyerLedger {
    path: PathBuf,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

type Job = Box<dyn FnOnce(Result<&mut Open>) + Send>;

/// The open file.
struct Open {
    connection: Connection,
    owner: Owner,
}

impl SqliteBuyerLedger {
    /// Books in the file at `path`, which is opened, and made if need be, when it is first needed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if there can be no thread for it. What is wrong with the file is
    /// said by whatever needs it first.
    pub fn new(path: impl AsRef<Path>) -> Result<Self> {
        Self::start(path.as_ref(), false)
    }

    /// The same, opened at once in the background, for whoever is likely to need it soon.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn open_soon(path: impl AsRef<Path>) -> Result<Self> {
        Self::start(path.as_ref(), true)
    }

    fn start(path: &Path, at_once: bool) -> Result<Self> {
        let path = path.to_owned();
        let (jobs, queue) = mpsc::channel(QUEUE);
        let file = path.clone();
        let thread = thread::Builder::new()
            .name("buyer-ledger".to_owned())
            .spawn(move || serve(&file, queue, at_once))
            .map_err(|source| {
                Error::ledger("the ledger cannot start a thread").with_source(source)
            })?;
        Ok(Self {
            path,
            jobs: Some(jobs),
            thread: Mutex::new(Some(thread)),
        })
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Open) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let stopped = || Error::ledger("the ledger has stopped");
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |open| {
            // A caller that has gone does not undo what it asked for.
            let _ = reply.send(open.and_then(work));
        });
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        jobs.send(job).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Reads a row, changes it, writes it back, all or nothing.
    async fn change(
        &self,
        id: AttemptId,
        change: impl FnOnce(&mut Attempt) + Send + 'static,
    ) -> Result<()> {
        self.ask(move |open| {
            let transaction = open.begin()?;
            let mut found = stand::list(&transaction, &AttemptFilter::one(id)).map_err(sql)?;
            let Some(mut attempt) = found.pop() else {
                return Err(Error::ledger("there is no such payment"));
            };
            let before = attempt.clone();
            change(&mut attempt);
            if attempt != before {
                rows::update(&transaction, &attempt).map_err(sql)?;
            }
            transaction.commit().map_err(sql)
        })
        .await
    }
}

#[expect(clippy::needless_pass_by_value, reason = "shaped for map_err")]
fn sql(error: rusqlite::Error) -> Error {
    failure(&error)
}

/// Serves jobs until there are no more. A file that cannot be opened is tried again with each job.
fn serve(path: &Path, mut jobs: mpsc::Receiver<Job>, at_once: bool) {
    let mut open = at_once.then(|| Open::new(path).ok()).flatten();
    while let Some(job) = jobs.blocking_recv() {
        if open.is_none() {
            match Open::new(path) {
                Ok(opened) => open = Some(opened),
                Err(error) => {
                    job(Err(error));
                    continue;
                }
            }
        }
        if let Some(open) = &mut open {
            job(Ok(open));
        }
    }
}

impl Open {
    fn new(path: &Path) -> Result<Self> {
        let connection = schema::open(path)?;
        let owner = Owner::claim(path).map_err(|source| {
            Error::ledger("a file cannot be made beside the ledger; check its folder")
                .with_source(source.kind().to_string())
        })?;
        Ok(Self { connection, owner })
    }

    /// A transaction that has the file to itself.
    fn begin(&mut self) -> Result<Transaction<'_>> {
        self.connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(sql)
    }

    /// What died with its process is unknown from here on.
    fn bury_the_dead(&mut self) -> Result<()> {
        let owners: Vec<String> = {
            let mut statement = self
                .connection
                .prepare_cached(
                    "SELECT DISTINCT owner FROM payment WHERE state = 'reserved' OR answer = 'waiting'",
                )
                .map_err(sql)?;
            let owners = statement.query_map([], |row| row.get(0)).map_err(sql)?;
            owners.collect::<rusqlite::Result<_>>().map_err(sql)?
        };
        for dead in owners.iter().filter(|owner| !self.owner.lives(owner)) {
            let transaction = self
                .connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(sql)?;
            transaction
                .execute(
                    "UPDATE payment SET answer = 'interrupted' WHERE owner = ?1 AND answer = 'waiting'",
                    [dead],
                )
                .and_then(|_| {
                    transaction.execute(
                        "UPDATE payment SET state = 'unknown', note = ?2 WHERE owner = ?1 AND state = 'reserved'",
                        [dead.as_str(), DIED],
                    )
                })
                .map_err(sql)?;
            transaction.commit().map_err(sql)?;
        }
        Ok(())
    }
}

#[async_trait]
impl BuyerLedger for SqliteBuyerLedger {
    fn has_books(&self) -> bool {
        self.path.is_file()
    }

    async fn reserve(
        &self,
        new: NewAttempt,
        case: Case,
    ) -> Result<Result<AttemptId, DeclineReason>> {
        self.ask(move |open| {
            open.bury_the_dead()?;
            let owner = open.owner.name().to_owned();
            let transaction = open.begin()?;
            let stand = stand::stand(&transaction, &new, &case.tallies()).map_err(sql)?;
            if let Err(reason) = case.judge(&stand) {
                return Ok(Err(reason));
            }
            let id = rows::insert(&transaction, &new, &owner).map_err(sql)?;
            transaction.commit().map_err(sql)?;
            Ok(Ok(id))
        })
        .await
    }

    async fn settle(&self, id: AttemptId, end: Settled, at: Timestamp) -> Result<()> {
        self.change(id, move |attempt| attempt.settle(end, at))
            .await
    }

    async fn note(&self, id: AttemptId, heard: Heard) -> Result<()> {
        self.change(id, move |attempt| attempt.hear(heard)).await
    }

    async fn make_up(
        &self,
        server: &ServerPubkey,
        identity: Option<InvocationIdentity>,
        answer: AnswerState,
    ) -> Result<usize> {
        let (server, identity) = (
            server.to_string(),
            identity.map(|identity| identity.to_string()),
        );
        self.ask(move |open| {
            open.bury_the_dead()?;
            let transaction = open.begin()?;
            let made_up = transaction
                .execute(
                    "UPDATE payment SET answer = ?3 WHERE server = ?1 AND (?2 IS NULL OR identity = ?2) \
                     AND state <> 'refused' AND answer IN ('missing', 'interrupted', 'error')",
                    (server, identity, answer.as_str()),
                )
                .map_err(sql)?;
            transaction.commit().map_err(sql)?;
            Ok(made_up)
        })
        .await
    }

    async fn list(&self, filter: &AttemptFilter) -> Result<Vec<Attempt>> {
        let filter = filter.clone();
        self.ask(move |open| {
            open.bury_the_dead()?;
            stand::list(&open.connection, &filter).map_err(sql)
        })
        .await
    }

    async fn used(&self, tallies: Vec<Tally>) -> Result<Vec<Vec<Used>>> {
        self.ask(move |open| {
            tallies
                .iter()
                .map(|tally| stand::used(&open.connection, tally).map_err(sql))
                .collect()
        })
        .await
    }
}

/// Waits until everything that was asked for is on the disk.
impl Drop for SqliteBuyerLedger {
    fn drop(&mut self) {
        self.jobs = None;
        let thread = self
            .thread
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if matches!(thread.map(JoinHandle::join), Some(Err(_))) {
            tracing::error!("the thread of the buyer's ledger panicked; see its message above");
        }
    }
}

impl fmt::Debug for SqliteBuyerLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteBuyerLedger").finish_non_exhaustive()
    }
}
