//! The durable ledger: one SQLite file, one thread that writes and one that reads.
//!
//! What a call reports is on the disk when it returns (`synchronous = FULL`), and callers that write at the same time share
//! one flush. Several processes may have the file open.

mod accounts;
mod books;
mod free_calls;
mod licence_books;
mod moves;
mod purchases;
mod reader;
mod recent;
mod rows;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

/// How any SQLite file of this crate is made, opened and complained about.
pub(crate) mod file {
    pub(crate) use super::failure;
    pub(crate) use super::schema::{connect, create, into_wal, marks};
}

use std::fmt;
use std::path::Path;
use std::thread::{self, JoinHandle};

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use super::{
    Applied, Caller, Entry, EntryFilter, Ledger, LetIn, NewEntry, OpenLimits, Opened, Retention,
    Standing, Transition,
};
use crate::error::{Error, Result};
use crate::payment::{PaymentInteraction, RequestEventId, Timestamp};

/// How many jobs, and how many questions, may wait for their thread. Beyond that, callers wait for room.
const QUEUE: usize = 1024;

/// Keeps entries in a SQLite file.
///
/// ```
/// # use tollkeeper::ledger::{EntryFilter, Ledger, SqliteLedger};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// let ledger = SqliteLedger::open(folder.path().join("tollkeeper.db"))?;
/// assert!(ledger.list(&EntryFilter::new(vec![], 10)).await?.is_empty());
/// # Ok(()) }
/// ```
///
/// A call whose future is dropped may still take effect, as may one that fails at the very moment the machine stops. When
/// the ledger is dropped, whatever waits is written first.
pub struct SqliteLedger {
    jobs: Option<mpsc::Sender<writer::Job>>,
    questions: Option<mpsc::Sender<reader::Question>>,
    writer: Option<JoinHandle<()>>,
    reader: Option<JoinHandle<()>>,
}

impl SqliteLedger {
    /// Opens the file at `path`; makes it, readable by its owner only, if there is none. Blocks for as long as that takes:
    /// some milliseconds, or up to some seconds if another process is writing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if the file is damaged, read-only, not a ledger, or written by a
    /// later version; the text says what to do.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (to_write, to_read) = (schema::writer(path)?, schema::reader(path)?);
        let (jobs, job_queue) = mpsc::channel(QUEUE);
        let (questions, question_queue) = mpsc::channel(QUEUE);
        let writer = spawn("ledger-writer", move || {
            writer::run(books::Books::new(to_write), job_queue);
        })?;
        let reader = spawn("ledger-reader", move || {
            reader::run(&to_read, question_queue);
        })?;
        Ok(Self {
            jobs: Some(jobs),
            questions: Some(questions),
            writer: Some(writer),
            reader: Some(reader),
        })
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut books::Books) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (job, answer) = writer::job(work);
        hand_over(self.jobs.as_ref(), job, answer).await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (question, answer) = reader::question(work);
        hand_over(self.questions.as_ref(), question, answer).await
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|source| Error::ledger("the ledger cannot start a thread").with_source(source))
}

async fn hand_over<J, T>(
    queue: Option<&mpsc::Sender<J>>,
    job: J,
    answer: oneshot::Receiver<Result<T>>,
) -> Result<T> {
    let stopped = || Error::ledger("the ledger has stopped");
    queue
        .ok_or_else(stopped)?
        .send(job)
        .await
        .map_err(|_| stopped())?;
    answer.await.map_err(|_| stopped())?
}

/// Waits until everything that was asked for is on the disk.
impl Drop for SqliteLedger {
    fn drop(&mut self) {
        // The reader first: the last to close the file must be one that may tidy up its log.
        self.questions = None;
        let reader = self.reader.take().map(JoinHandle::join);
        self.jobs = None;
        let writer = self.writer.take().map(JoinHandle::join);
        if matches!(reader, Some(Err(_))) || matches!(writer, Some(Err(_))) {
            tracing::error!("a thread of the ledger panicked; see its message above");
        }
    }
}

impl fmt::Debug for SqliteLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteLedger").finish_non_exhaustive()
    }
}

#[async_trait]
impl Ledger for SqliteLedger {
    async fn open(&self, new: NewEntry, limits: OpenLimits) -> Result<Opened> {
        self.write(move |books| moves::open(books, new, limits))
            .await
    }

    async fn apply(
        &self,
        id: &RequestEventId,
        moves: Vec<Transition>,
        at: Timestamp,
    ) -> Result<Applied> {
        let id = *id;
        self.write(move |books| moves::apply(books, &id, moves, at))
            .await
    }

    async fn claim_authorization(
        &self,
        caller: &Caller,
        interaction: PaymentInteraction,
        at: Timestamp,
    ) -> Result<Option<Entry>> {
        let caller = *caller;
        self.write(move |books| moves::claim(books, &caller, interaction, at))
            .await
    }

    async fn standing(&self, caller: &Caller) -> Result<Standing> {
        let caller = *caller;
        self.read(move |connection| reader::standing(connection, &caller))
            .await
    }

    async fn note_answered(&self, event: &RequestEventId, at: Timestamp) -> Result<bool> {
        let event = *event;
        self.write(move |books| moves::note_answered(books, &event, at))
            .await
    }

    async fn note_let_in(&self, events: Vec<LetIn>) -> Result<()> {
        self.write(move |books| moves::note_let_in(books, &events))
            .await
    }

    async fn let_in_since(&self, since: Timestamp) -> Result<Vec<LetIn>> {
        self.read(move |connection| reader::let_in_since(connection, since))
            .await
    }

    async fn prune(&self, retention: Retention) -> Result<usize> {
        let Retention {
            unpaid_before,
            responses_before,
            answered_before,
        } = retention;
        // Each in a job of its own: a job makes one write.
        let unpaid = self
            .write(move |books| moves::forget_unpaid(books, unpaid_before))
            .await?;
        let responses = self
            .write(move |books| moves::forget_responses(books, responses_before))
            .await?;
        let answered = self
            .write(move |books| moves::forget_answered(books, answered_before))
            .await?;
        let let_in = self
            .write(move |books| moves::forget_let_in(books, answered_before))
            .await?;
        Ok(unpaid + responses + answered + let_in)
    }

    async fn get(&self, id: &RequestEventId) -> Result<Option<Entry>> {
        let id = *id;
        self.read(move |connection| reader::get(connection, &id))
            .await
    }

    async fn list(&self, filter: &EntryFilter) -> Result<Vec<Entry>> {
        let filter = filter.clone();
        self.read(move |connection| reader::list(connection, &filter))
            .await
    }
}

/// What went wrong, in words that name no path and no content, and what to do.
pub(crate) fn failure(error: &rusqlite::Error) -> Error {
    let message = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => return damaged(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process holds the ledger and does not let go of it; end that process or try again"
        }
        Some(ErrorCode::DiskFull) => "the disk of the ledger is full; make room",
        Some(ErrorCode::SystemIoFailure) => {
            "the disk of the ledger failed; check it before anything else"
        }
        Some(ErrorCode::ReadOnly) => {
            "the ledger file cannot be written; make it and its folder writable for the user of this process"
        }
        Some(ErrorCode::CannotOpen) => "the ledger file cannot be opened; check its folder",
        _ => "the ledger could not be read or written",
    };
    let error = match error {
        // Its own text may name the path.
        rusqlite::Error::SqliteFailure(code, _) => code.to_string(),
        other => other.to_string(),
    };
    Error::ledger(message).with_source(error)
}

fn damaged() -> Error {
    Error::ledger(
        "the ledger file is damaged or not a database; keep a copy of it, then restore a backup or name another file",
    )
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}
