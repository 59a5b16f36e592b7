//! The one thread that writes: it makes whatever waits part of one commit, and answers when that is on the disk.
//!
//! A flush of the disk costs a thousand times what a row costs. So the jobs of all callers that come in while a flush is
//! under way share the next one.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use super::books::Books;
use super::failure;
use crate::error::{Error, Result};

/// The most jobs in one commit.
const BATCH: usize = 256;

/// The longest wait for jobs that are expected to join.
const PATIENCE: Duration = Duration::from_micros(500);

/// Something to do inside a transaction. It makes at most one write statement, so that one that fails leaves no trace and
/// the others intact.
///
/// It is given the error instead if there is no transaction.
pub(super) type Job = Box<dyn FnOnce(Result<&mut Books, &rusqlite::Error>) -> Told + Send>;

/// Answers the caller of a job, once it is known what became of the commit.
type Told = Box<dyn FnOnce(Fate<'_>) + Send>;

/// What became of a commit.
#[derive(Clone, Copy)]
pub(super) enum Fate<'a> {
    /// It is on the disk.
    Kept,
    /// Nothing of it was kept.
    Failed(&'a rusqlite::Error),
    /// Nothing of it was kept, because of another job.
    Undone,
}

/// A job with the way back to its caller.
pub(super) fn job<T: Send + 'static>(
    work: impl FnOnce(&mut Books) -> Result<T> + Send + 'static,
) -> (Job, oneshot::Receiver<Result<T>>) {
    let (reply, answer) = oneshot::channel();
    let job = move |books: Result<&mut Books, &rusqlite::Error>| -> Told {
        let done = books.map_err(failure).and_then(work);
        Box::new(move |fate| {
            let told = match (done, fate) {
                (Ok(_), Fate::Failed(error)) => Err(failure(error)),
                (Ok(_), Fate::Undone) => Err(Error::ledger(
                    "the write was undone together with another that failed; try again",
                )),
                (done, _) => done,
            };
            // A caller that has gone does not undo what it asked for.
            let _ = reply.send(told);
        })
    };
    (Box::new(job), answer)
}

/// Serves jobs until every sender is gone and the queue is empty.
pub(super) fn run(mut books: Books, mut jobs: mpsc::Receiver<Job>) {
    let mut pace = Pace::default();
    while let Some(first) = jobs.blocking_recv() {
        commit_together(&mut books, first, &mut jobs, &mut pace);
    }
}

/// Makes `first` and whatever else comes one commit.
fn commit_together(books: &mut Books, first: Job, jobs: &mut mpsc::Receiver<Job>, pace: &mut Pace) {
    if let Err(error) = books.begin() {
        return refuse_what_waits(books, first, jobs, &error);
    }
    let mut told = Vec::with_capacity(pace.expected.max(1));
    let mut next = Some(first);
    while let Some(job) = next {
        told.push(job(Ok(books)));
        if books.is_undone() {
            // The failure of this job took the whole transaction with it.
            books.roll_back();
            return told.into_iter().for_each(|tell| tell(Fate::Undone));
        }
        next = (told.len() < BATCH)
            .then(|| pace.next(jobs, told.len()))
            .flatten();
    }
    let begun = Instant::now();
    let committed = books.commit();
    pace.note(told.len(), begun.elapsed());
    let fate = match &committed {
        Ok(()) => Fate::Kept,
        Err(error) => Fate::Failed(error),
    };
    for tell in told {
        tell(fate);
    }
}

/// No transaction could begin: tells everybody who waits now, rather than letting each wait as long again.
fn refuse_what_waits(
    books: &mut Books,
    first: Job,
    jobs: &mut mpsc::Receiver<Job>,
    error: &rusqlite::Error,
) {
    books.roll_back();
    first(Err(error))(Fate::Failed(error));
    for _ in 1..BATCH {
        match jobs.try_recv() {
            Ok(job) => job(Err(error))(Fate::Failed(error)),
            Err(_) => return,
        }
    }
}

/// How many jobs to expect in a commit, and how long to wait for them.
///
/// Callers that were answered together tend to come back together, a moment later. Going to the disk with the first of
/// them would make the others wait for two flushes. So a commit waits for half as many as the last one had, but far shorter
/// than a flush takes. Only half: while the others are on their way, the disk is not idle, and neither are they.
#[derive(Debug, Default)]
struct Pace {
    expected: usize,
    patience: Duration,
}

impl Pace {
    /// The next job for a commit that has `so_far`; `None` when it should go to the disk.
    fn next(&self, jobs: &mut mpsc::Receiver<Job>, so_far: usize) -> Option<Job> {
        let mut since = None;
        loop {
            match jobs.try_recv() {
                Ok(job) => return Some(job),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) if so_far >= self.expected => return None,
                Err(TryRecvError::Empty) => {
                    if since.get_or_insert_with(Instant::now).elapsed() >= self.patience {
                        return None;
                    }
                    std::thread::yield_now();
                }
            }
        }
    }

    /// Notes how many jobs the last commit had and how long its flush took.
    fn note(&mut self, jobs: usize, flush: Duration) {
        self.expected = jobs / 2;
        self.patience = (flush / 4).min(PATIENCE);
    }
}
