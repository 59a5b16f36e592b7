//! The durable ledger that several processes share: a database in PostgreSQL.
//!
//! What a call reports is on the disk of the database when it returns, and callers that write at the same time share one commit.
//! Each process has a place among its peers ([`Instances`](super::Instances)), and everything that it writes is written under
//! it: once others have taken over, nothing of it counts any more.

mod accounts;
mod config;
mod free_calls;
mod licence_books;
mod moves;
mod place;
mod purchases;
mod reader;
mod rows;
mod schema;
mod session;
mod tls;
mod writer;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;

pub use self::config::PostgresConfig;
use self::place::{Place, Wish};
use self::session::{Line, Purpose};
use self::writer::{About, Job, Scope, Working, Writer};
use super::{
    Applied, Caller, Entry, EntryFilter, Instances, Ledger, LetIn, NewEntry, OpenLimits, Opened,
    Retention, Standing, Transition,
};
use crate::error::{Error, Result};
use crate::payment::{PaymentInteraction, RequestEventId, Timestamp};

/// How many jobs may wait for the writer. Beyond that, callers wait for room.
const QUEUE: usize = 1024;

/// How many events may wait to be taken.
const WISHES: usize = 4096;

/// Keeps entries in a PostgreSQL database, which other instances may use at the same time.
///
/// A call whose future is dropped may still take effect. One whose connection is lost in the middle of a commit waits until the
/// database can say what became of it.
pub struct PostgresLedger {
    jobs: Option<mpsc::Sender<Box<dyn Job>>>,
    wishes: mpsc::Sender<Wish>,
    /// For what comes and goes with our place. The writer has a line of its own, in the middle of a transaction at most times.
    door: Line,
    /// For what need not.
    passing: Arc<Line>,
    reading: Line,
    place: Arc<Place>,
}

impl PostgresLedger {
    /// Connects, makes the tables if there are none, and takes a place among the instances. Must be called inside a Tokio
    /// runtime, which has to live as long as the ledger.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if the database cannot be reached, or is not a ledger's; the text says what
    /// to do.
    pub async fn open(config: &PostgresConfig) -> Result<Self> {
        let mut ledger = Self::unopened(config);
        place::begin(&ledger.place, &ledger.door).await?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = Writer {
            line: Line::new(config, Purpose::Money),
            place: Arc::clone(&ledger.place),
            batch: 0,
        };
        tokio::spawn(writer.run(queue));
        ledger.jobs = Some(jobs);
        let (wishes, wished) = mpsc::channel(WISHES);
        ledger.wishes = wishes;
        let place = Arc::downgrade(&ledger.place);
        let passing = Arc::clone(&ledger.passing);
        tokio::spawn(place::take_wishes(
            place.clone(),
            Arc::clone(&passing),
            wished,
        ));
        tokio::spawn(place::keep_beating(place, passing));
        Ok(ledger)
    }

    /// Connects to look only: takes no place, makes nothing, and refuses to write.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and if there is no ledger.
    pub async fn look(config: &PostgresConfig) -> Result<Self> {
        let ledger = Self::unopened(config);
        let session = ledger.reading.session().await?;
        schema::examine(&session).await?;
        Ok(ledger)
    }

    fn unopened(config: &PostgresConfig) -> Self {
        Self {
            jobs: None,
            // Nobody listens at the other end.
            wishes: mpsc::channel(1).0,
            door: Line::new(config, Purpose::Money),
            passing: Arc::new(Line::new(config, Purpose::Passing)),
            reading: Line::new(config, Purpose::Passing),
            place: Arc::new(Place::nowhere()),
        }
    }

    /// Has `work` done in a transaction, together with that of others who wait.
    async fn write<T, W>(&self, about: Vec<About>, opens: bool, work: W) -> Result<T>
    where
        T: Send + 'static,
        W: for<'s> Fn(&'s Scope<'s>) -> Working<'s, T> + Send + Sync + 'static,
    {
        let stopped = || Error::ledger("the ledger has stopped");
        let jobs = self
            .jobs
            .as_ref()
            .ok_or_else(|| Error::ledger("the ledger was opened to look only"))?;
        let (job, answer) = writer::job(about, opens, work);
        jobs.send(job).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl fmt::Debug for PostgresLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresLedger")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Ledger for PostgresLedger {
    async fn open(&self, new: NewEntry, limits: OpenLimits) -> Result<Opened> {
        let about = vec![About::Client(new.client), About::Entry(new.id)];
        self.write(about, true, move |scope| {
            let new = new.clone();
            Box::pin(async move { moves::open(scope, new, limits).await })
        })
        .await
    }

    async fn apply(
        &self,
        id: &RequestEventId,
        moves: Vec<Transition>,
        at: Timestamp,
    ) -> Result<Applied> {
        let id = *id;
        self.write(vec![About::Entry(id)], false, move |scope| {
            let moves = moves.clone();
            Box::pin(async move { moves::apply(scope, &id, moves, at).await })
        })
        .await
    }

    async fn claim_authorization(
        &self,
        caller: &Caller,
        interaction: PaymentInteraction,
        at: Timestamp,
    ) -> Result<Option<Entry>> {
        let caller = *caller;
        let about = vec![About::Client(caller.client), About::Entry(caller.event)];
        self.write(about, false, move |scope| {
            Box::pin(async move { moves::claim(scope, &caller, interaction, at).await })
        })
        .await
    }

    async fn standing(&self, caller: &Caller) -> Result<Standing> {
        reader::standing(&self.reading, caller).await
    }

    async fn note_answered(&self, event: &RequestEventId, at: Timestamp) -> Result<bool> {
        let event = *event;
        self.write(vec![About::Entry(event)], false, move |scope| {
            Box::pin(async move { moves::note_answered(scope, &event, at).await })
        })
        .await
    }

    async fn note_let_in(&self, events: Vec<LetIn>) -> Result<()> {
        self.write(vec![About::All("let in")], false, move |scope| {
            let events = events.clone();
            Box::pin(async move { moves::note_let_in(scope, &events).await })
        })
        .await
    }

    async fn let_in_since(&self, since: Timestamp) -> Result<Vec<LetIn>> {
        reader::let_in_since(&self.reading, since).await
    }

    async fn prune(&self, retention: Retention) -> Result<usize> {
        self.write(vec![About::All("prune")], false, move |scope| {
            Box::pin(async move { moves::prune(scope, retention).await })
        })
        .await
    }

    async fn get(&self, id: &RequestEventId) -> Result<Option<Entry>> {
        reader::get(&self.reading, id).await
    }

    async fn list(&self, filter: &EntryFilter) -> Result<Vec<Entry>> {
        reader::list(&self.reading, filter).await
    }

    fn instances(&self) -> Option<&dyn Instances> {
        Some(self)
    }
}

/// What went wrong, in words that name no address and no content, and what to do.
fn failure(error: &tokio_postgres::Error) -> Error {
    let Some(cause) = error.as_db_error() else {
        return not_said_by_the_database(error);
    };
    let code = cause.code().code().to_owned();
    let message = match code.get(..2).unwrap_or_default() {
        "28" => "the database of the ledger does not let us in; check user and password",
        "3D" => {
            "there is no such database; make it with createdb, and name it in the URL of the ledger"
        }
        "42" if code == "42501" => {
            "the user of the ledger may not do that; make it the owner of the database"
        }
        "53" => "the database of the ledger has no room left: disk, memory or connections",
        "25" if code == "25006" => {
            "the database of the ledger is read-only; name the one that takes writes"
        }
        "57" => "the database of the ledger is being shut down or started",
        _ => "the ledger could not be read or written",
    };
    // Its own text may hold what was written.
    Error::ledger(message).with_source(format!("SQLSTATE {code}"))
}

/// An error of the connection, without the address in it; or a value of another kind than the table's.
fn not_said_by_the_database(error: &tokio_postgres::Error) -> Error {
    use std::error::Error as _;
    let io = error
        .source()
        .and_then(|cause| cause.downcast_ref::<std::io::Error>());
    match io {
        Some(io) => session::unreachable().with_source(io.kind().to_string()),
        None if error.is_closed() => session::unreachable(),
        None => {
            Error::ledger("the ledger could not be read or written").with_source(error.to_string())
        }
    }
}
