//! The one task that writes: it makes whatever waits part of one transaction, and answers when that is on the disk.
//!
//! A commit whose answer is lost with the connection is neither believed nor repeated blindly: the transaction had left its number
//! in the row of this instance, and is asked about until that is known.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error as SqlError, Row};

use super::failure;
use super::place::Place;
use super::session::{ANSWER, Line, Session, is_conflict, is_lost, unreachable};
use crate::error::{Error, Result};
use crate::payment::{ClientPubkey, RequestEventId};

/// The most jobs in one commit.
const BATCH: usize = 256;

/// How often a job is tried that others are in the way of.
const TRIES: u32 = 6;

/// Between two questions about a commit whose answer was lost.
const AGAIN: Duration = Duration::from_millis(300);

/// Why a job came to nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// It cannot be done. Nothing was written for it.
    Said(Error),
    /// It cannot be done, and what was written for it must be undone.
    Undo(Error),
    /// The row was changed since it was read: try again.
    Overtaken,
    /// A statement failed, and the whole transaction with it.
    Sql(SqlError),
}

impl From<SqlError> for Fault {
    fn from(error: SqlError) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Said(error)
    }
}

/// What a job is about: two that share one of these are not made part of the same transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum About {
    /// This entry.
    Entry(RequestEventId),
    /// What this client may do, and what it has. Locked against other instances, too.
    Client(ClientPubkey),
    /// Everything of a kind.
    All(&'static str),
}

/// The transaction that jobs work in.
pub(super) struct Scope<'s> {
    session: &'s Session,
    /// Who writes.
    pub(super) instance: i64,
    /// How many offers are open, as far as other transactions go; read if need be.
    open_before: Option<i64>,
    opened: AtomicI64,
}

impl Scope<'_> {
    pub(super) async fn rows(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, SqlError> {
        self.session.rows(sql, values).await
    }

    pub(super) async fn row(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, SqlError> {
        self.session.row(sql, values).await
    }

    pub(super) async fn change(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, SqlError> {
        self.session.change(sql, values).await
    }

    /// Notes that so many more offers are open than before.
    pub(super) fn note_opened(&self, more: i64) {
        self.opened.fetch_add(more, Ordering::Relaxed);
    }

    /// How many offers are open.
    pub(super) fn open_offers(&self) -> i64 {
        self.open_before.unwrap_or_default() + self.opened.load(Ordering::Relaxed)
    }
}

/// A future that borrows the transaction.
pub(super) type Working<'s, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 's>>;

/// Something to do in a transaction. It may be done again, if the transaction is undone.
#[async_trait]
pub(super) trait Job: Send {
    fn about(&self) -> &[About];
    /// Whether it opens offers.
    fn opens(&self) -> bool;
    async fn work(&mut self, scope: &Scope<'_>) -> Result<(), Fault>;
    /// Answers its caller: with what was done, or with `fate`.
    fn tell(self: Box<Self>, fate: Result<()>);
}

struct Asked<T, W> {
    about: Vec<About>,
    opens: bool,
    work: W,
    done: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

#[async_trait]
impl<T, W> Job for Asked<T, W>
where
    T: Send + 'static,
    W: for<'s> Fn(&'s Scope<'s>) -> Working<'s, T> + Send + Sync,
{
    fn about(&self) -> &[About] {
        &self.about
    }

    fn opens(&self) -> bool {
        self.opens
    }

    async fn work(&mut self, scope: &Scope<'_>) -> Result<(), Fault> {
        match (self.work)(scope).await {
            Ok(done) => self.done = Some(Ok(done)),
            Err(Fault::Said(error)) => self.done = Some(Err(error)),
            Err(fault) => return Err(fault),
        }
        Ok(())
    }

    fn tell(self: Box<Self>, fate: Result<()>) {
        let done = self
            .done
            .unwrap_or_else(|| Err(Error::ledger("the ledger has stopped")));
        // A caller that has gone does not undo what it asked for.
        let _ = self.reply.send(fate.and(done));
    }
}

/// A job with the way back to its caller.
pub(super) fn job<T, W>(
    about: Vec<About>,
    opens: bool,
    work: W,
) -> (Box<dyn Job>, oneshot::Receiver<Result<T>>)
where
    T: Send + 'static,
    W: for<'s> Fn(&'s Scope<'s>) -> Working<'s, T> + Send + Sync + 'static,
{
    let (reply, answer) = oneshot::channel();
    let asked = Asked {
        about,
        opens,
        work,
        done: None,
        reply,
    };
    (Box::new(asked), answer)
}

/// What became of a transaction.
enum Fate {
    Kept,
    /// Nothing of it was kept, and it may be tried again.
    Undone(Undone),
}

enum Undone {
    /// The connection was lost before the commit was asked for.
    Lost,
    /// Our place is somebody else's.
    Fenced,
    /// A statement of some job failed, or somebody was in the way.
    Job(Fault),
}

/// Writes.
pub(super) struct Writer {
    pub(super) line: Line,
    pub(super) place: Arc<Place>,
    /// The number of the last transaction.
    pub(super) batch: i64,
}

impl Writer {
    /// Serves jobs until every sender is gone and the queue is empty.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Box<dyn Job>>) {
        let mut waiting: Vec<Box<dyn Job>> = Vec::with_capacity(BATCH);
        loop {
            if waiting.is_empty() && queue.recv_many(&mut waiting, BATCH).await == 0 {
                return;
            }
            while waiting.len() < BATCH
                && let Ok(job) = queue.try_recv()
            {
                waiting.push(job);
            }
            let (batch, later) = apart(waiting);
            waiting = later;
            self.write(batch).await;
        }
    }

    /// Writes a batch, and tells everybody in it.
    async fn write(&mut self, mut batch: Vec<Box<dyn Job>>) {
        match self.transact(&mut batch).await {
            Fate::Kept => batch.into_iter().for_each(|job| job.tell(Ok(()))),
            Fate::Undone(Undone::Lost) => {
                // Once more on a new connection, if there is one.
                if self.line.session().await.is_err() {
                    return batch
                        .into_iter()
                        .for_each(|job| job.tell(Err(unreachable())));
                }
                self.write_alone(batch).await;
            }
            Fate::Undone(Undone::Fenced) => {
                batch.into_iter().for_each(|job| job.tell(Err(fenced())))
            }
            Fate::Undone(Undone::Job(_)) => self.write_alone(batch).await,
        }
    }

    /// Writes each job in a transaction of its own, so that one that fails leaves its neighbours alone.
    async fn write_alone(&mut self, batch: Vec<Box<dyn Job>>) {
        for job in batch {
            let mut alone = vec![job];
            let mut tries = 0;
            let fate = loop {
                tries += 1;
                match self.transact(&mut alone).await {
                    Fate::Kept => break Ok(()),
                    Fate::Undone(Undone::Fenced) => break Err(fenced()),
                    Fate::Undone(Undone::Job(Fault::Said(error) | Fault::Undo(error))) => {
                        break Err(error);
                    }
                    Fate::Undone(Undone::Job(Fault::Sql(error))) if !is_conflict(&error) => {
                        break Err(failure(&error));
                    }
                    Fate::Undone(_) if tries >= TRIES => break Err(busy()),
                    Fate::Undone(Undone::Lost) => {
                        if let Err(error) = self.line.session().await {
                            break Err(error);
                        }
                    }
                    Fate::Undone(Undone::Job(_)) => sleep(Duration::from_millis(5 << tries)).await,
                }
            };
            for job in alone {
                job.tell(match &fate {
                    Ok(()) => Ok(()),
                    Err(error) => Err(Error::ledger(error.to_string())),
                });
            }
        }
    }

    /// Does the jobs in one transaction.
    async fn transact(&mut self, batch: &mut [Box<dyn Job>]) -> Fate {
        if self.place.is_lost() {
            return Fate::Undone(Undone::Fenced);
        }
        let Ok(session) = self.line.session().await else {
            return Fate::Undone(Undone::Lost);
        };
        self.batch += 1;
        let number = self.batch;
        let instance = self.place.number();
        let worked = timeout(ANSWER, work(&session, instance, number, batch)).await;
        let undone = match worked {
            Ok(Ok(())) => match timeout(ANSWER, session.run("COMMIT")).await {
                Ok(Ok(())) => return Fate::Kept,
                Ok(Err(error)) if !is_lost(&error) && !session.is_closed() => {
                    Undone::Job(Fault::Sql(error))
                }
                // It may be on the disk or not.
                Ok(Err(_)) | Err(_) => {
                    self.line.drop_session().await;
                    return match self.was_kept(instance, number).await {
                        true => Fate::Kept,
                        false => Fate::Undone(Undone::Lost),
                    };
                }
            },
            Ok(Err(Undone::Job(Fault::Sql(error)))) if is_lost(&error) || session.is_closed() => {
                Undone::Lost
            }
            Ok(Err(undone)) => undone,
            Err(_) => Undone::Lost,
        };
        let undone = match undone {
            // A place that we have left for another one.
            Undone::Fenced if self.place.number() != instance => Undone::Job(Fault::Overtaken),
            Undone::Fenced => {
                self.place.lose(instance);
                Undone::Fenced
            }
            other => other,
        };
        if matches!(undone, Undone::Lost) || session.run("ROLLBACK").await.is_err() {
            self.line.drop_session().await;
        }
        Fate::Undone(undone)
    }

    /// Whether the transaction `number` is on the disk. Asks until that is known: neither answer may be guessed.
    async fn was_kept(&self, instance: i64, number: i64) -> bool {
        // Waits for the transaction, should it still be under way.
        const LAST: &str = "SELECT batch FROM instance WHERE number = $1 FOR UPDATE";
        tracing::warn!(
            "the connection to the ledger was lost during a commit; asking what became of it"
        );
        loop {
            match self.line.row(LAST, &[&instance]).await {
                Ok(row) => return row.is_some_and(|row| row.get::<_, i64>(0) >= number),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "what became of a commit is not known yet"
                    );
                    sleep(AGAIN).await;
                }
            }
        }
    }
}

/// Everything but the commit.
async fn work(
    session: &Session,
    instance: i64,
    number: i64,
    batch: &mut [Box<dyn Job>],
) -> Result<(), Undone> {
    // The fence: whoever takes over changes this row first, and waits for whoever is writing.
    const FENCE: &str = "UPDATE instance SET batch = $2 WHERE number = $1 AND ended_at IS NULL";
    const LOCK: &str =
        "SELECT pg_advisory_xact_lock(key) FROM (SELECT unnest($1::bigint[]) AS key) AS keys";
    const OPEN: &str = "SELECT coalesce(sum(open_offers), 0)::bigint FROM tally";
    const COUNT: &str = "UPDATE tally SET open_offers = open_offers + $2 WHERE instance = $1";
    let sql = |error| Undone::Job(Fault::Sql(error));
    let mut locks: Vec<i64> = batch
        .iter()
        .flat_map(|job| job.about())
        .filter_map(lock)
        .collect();
    locks.sort_unstable();
    locks.dedup();
    let opens = batch.iter().any(|job| job.opens());

    let ours: [&(dyn ToSql + Sync); 2] = [&instance, &number];
    let keys: [&(dyn ToSql + Sync); 1] = [&locks];
    // One round trip: PostgreSQL does them in this order.
    let (begun, fence, locked, open) = tokio::join!(
        biased;
        session.run("BEGIN"),
        session.change(FENCE, &ours),
        async {
            match locks.is_empty() {
                true => Ok(Vec::new()),
                false => session.rows(LOCK, &keys).await,
            }
        },
        async {
            match opens {
                true => session.row(OPEN, &[]).await,
                false => Ok(None),
            }
        },
    );
    begun.map_err(sql)?;
    if fence.map_err(sql)? == 0 {
        return Err(Undone::Fenced);
    }
    locked.map_err(sql)?;
    let scope = Scope {
        session,
        instance,
        open_before: open.map_err(sql)?.map(|row| row.get(0)),
        opened: AtomicI64::new(0),
    };
    let mut working: Vec<_> = batch.iter_mut().map(|job| job.work(&scope)).collect();
    // Side by side, so that their statements share round trips.
    let done = together(&mut working).await;
    drop(working);
    done.map_err(Undone::Job)?;
    let opened = scope.opened.load(Ordering::Relaxed);
    if opened != 0 {
        session
            .change(COUNT, &[&instance, &opened])
            .await
            .map_err(sql)?;
    }
    Ok(())
}

/// Drives all futures to their end; the first failure is the outcome.
async fn together<F: Future<Output = Result<(), Fault>> + Unpin>(
    futures: &mut [F],
) -> Result<(), Fault> {
    let mut done = vec![false; futures.len()];
    std::future::poll_fn(|cx| {
        let mut waiting = false;
        for (future, done) in futures.iter_mut().zip(&mut done) {
            if *done {
                continue;
            }
            match Pin::new(future).poll(cx) {
                std::task::Poll::Ready(Ok(())) => *done = true,
                std::task::Poll::Ready(Err(fault)) => return std::task::Poll::Ready(Err(fault)),
                std::task::Poll::Pending => waiting = true,
            }
        }
        match waiting {
            true => std::task::Poll::Pending,
            false => std::task::Poll::Ready(Ok(())),
        }
    })
    .await
}

type Jobs = Vec<Box<dyn Job>>;

/// Those that do not get in each other's way, in the order of what they are about; and the others, for later.
fn apart(waiting: Jobs) -> (Jobs, Jobs) {
    let (mut batch, mut later): (Jobs, Jobs) = (Vec::new(), Vec::new());
    let mut touched = HashSet::new();
    for job in waiting {
        let free = job.about().iter().all(|about| !touched.contains(about));
        // Also what waits: nothing overtakes what is about the same.
        touched.extend(job.about().iter().copied());
        if free {
            batch.push(job);
        } else {
            later.push(job);
        }
    }
    // Instances that lock rows in the same order do not lock each other out.
    batch.sort_by(|one, other| one.about().cmp(other.about()));
    (batch, later)
}

/// The lock that other instances see.
fn lock(about: &About) -> Option<i64> {
    match about {
        About::Client(client) => client
            .as_bytes()
            .first_chunk::<8>()
            .map(|bytes| i64::from_be_bytes(*bytes)),
        About::Entry(_) | About::All(_) => None,
    }
}

pub(super) fn fenced() -> Error {
    Error::ledger(
        "this instance was silent for too long, and others have taken over; start it again",
    )
}

fn busy() -> Error {
    Error::ledger("the ledger is busy; nothing was written, try again")
}
