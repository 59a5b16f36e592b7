//! Our place among the instances: a heartbeat, what is taken, what is inherited.
//!
//! Times are those of the database. An instance whose heartbeat is older than [`LEASE`] loses its place to one that has itself been
//! beating without a break for as long: after an outage of the database everybody gets the whole time again.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::rows::{self, columns, most};
use super::session::Line;
use super::writer::{About, Scope, fenced};
use super::{PostgresLedger, failure, reader, schema};
use crate::error::{Error, Result};
use crate::ledger::{Crowd, Entry, Instances, Taken};
use crate::payment::{ClientPubkey, RequestEventId};

/// After how long without a heartbeat an instance loses its place.
pub(super) const LEASE: Duration = Duration::from_secs(10);

/// How often it beats.
const BEAT: Duration = Duration::from_secs(2);

/// For so long after a heartbeat nobody can have taken over; the rest of the lease is for clocks that run unevenly.
const SURE: Duration = Duration::from_secs(8);

/// How many events are taken in one statement.
const TOGETHER: usize = 256;

/// What is known here of our place.
pub(super) struct Place {
    number: AtomicI64,
    lost: AtomicBool,
    left: AtomicBool,
    live: AtomicU32,
    first: AtomicBool,
    /// When the last heartbeat that counted was sent, by two clocks: one stands still while the machine sleeps, the other one can be
    /// set.
    heard: Mutex<(Instant, SystemTime)>,
}

impl Place {
    pub(super) fn nowhere() -> Self {
        Self {
            number: AtomicI64::new(0),
            lost: AtomicBool::new(false),
            left: AtomicBool::new(false),
            live: AtomicU32::new(1),
            first: AtomicBool::new(false),
            heard: Mutex::new((Instant::now(), SystemTime::now())),
        }
    }

    pub(super) fn number(&self) -> i64 {
        self.number.load(Ordering::SeqCst)
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// The place `number` is gone. No matter, if we have taken another one meanwhile.
    pub(super) fn lose(&self, number: i64) {
        if number != self.number() {
            return;
        }
        let left = self.left.load(Ordering::SeqCst);
        if !self.lost.swap(true, Ordering::SeqCst) && !left {
            tracing::error!(
                instance = number,
                "others have taken over what this instance was doing: it had been silent for too long"
            );
        }
    }

    fn note_heard(&self, at: (Instant, SystemTime)) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Whether nobody can have taken over yet.
    fn is_sure(&self) -> bool {
        let (at, wall) = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let by_wall = wall.elapsed().unwrap_or(SURE);
        !self.is_lost() && at.elapsed().max(by_wall) < SURE
    }

    /// Takes a new place, and gives up the former one.
    pub(super) async fn join(&self, door: &Line) -> Result<()> {
        const END: &str = "UPDATE instance SET ended_at = clock_timestamp(), why = 'began anew' WHERE number = $1 AND ended_at IS NULL";
        const SILENCE: &str = "DELETE FROM heartbeat WHERE instance = $1";
        const BEGIN: &str = "INSERT INTO instance DEFAULT VALUES RETURNING number";
        const HEART: &str = "INSERT INTO heartbeat (instance) VALUES ($1)";
        const TALLY: &str = "INSERT INTO tally (instance, open_offers) VALUES ($1, 0)";
        let session = door.session().await?;
        let former = self.number();
        let before = (Instant::now(), SystemTime::now());
        let joining = async {
            session.run("BEGIN").await?;
            session.change(SILENCE, &[&former]).await?;
            session.change(END, &[&former]).await?;
            let row = session.row(BEGIN, &[]).await?;
            let number: i64 = row.map_or(0, |row| row.get(0));
            session.change(HEART, &[&number]).await?;
            session.change(TALLY, &[&number]).await?;
            session.run("COMMIT").await?;
            Ok(number)
        };
        let joined: Result<i64, tokio_postgres::Error> = joining.await;
        // On an error the session goes, and with it what was begun. A place that was taken all the same falls silent.
        let number = match joined {
            Ok(number) => number,
            Err(error) => {
                door.drop_session().await;
                return Err(failure(&error));
            }
        };
        self.number.store(number, Ordering::SeqCst);
        self.lost.store(false, Ordering::SeqCst);
        self.left.store(false, Ordering::SeqCst);
        self.note_heard(before);
        tracing::info!(instance = number, "joined the ledger");
        Ok(())
    }

    /// Gives the place up.
    async fn leave(&self, door: &Line) -> Result<()> {
        const LEAVE: &str = "WITH silent AS (DELETE FROM heartbeat WHERE instance = $1) \
             UPDATE instance SET ended_at = clock_timestamp(), why = 'left' WHERE number = $1 AND ended_at IS NULL";
        self.left.store(true, Ordering::SeqCst);
        let number = self.number();
        door.rows(LEAVE, &[&number]).await?;
        self.lose(number);
        Ok(())
    }

    /// One heartbeat. An error is neither yes nor no.
    async fn beat(&self, passing: &Line) -> Result<bool> {
        const HEARTBEAT: &str = "UPDATE heartbeat SET beat_at = clock_timestamp(), steady_since = \
                 CASE WHEN beat_at < clock_timestamp() - $2 * interval '1 millisecond' \
                 THEN clock_timestamp() ELSE steady_since END WHERE instance = $1 RETURNING 1";
        const CROWD: &str = "SELECT count(*), min(instance) FROM heartbeat";
        if self.is_lost() {
            return Ok(false);
        }
        let number = self.number();
        let pause = LEASE.as_secs_f64() * 500.0;
        let before = (Instant::now(), SystemTime::now());
        let beaten = passing.row(HEARTBEAT, &[&number, &pause]).await?;
        if beaten.is_none() {
            self.lose(number);
            return Ok(number != self.number());
        }
        self.note_heard(before);
        if let Some(row) = passing.row(CROWD, &[]).await? {
            let live = u32::try_from(row.get::<_, i64>(0)).unwrap_or(u32::MAX);
            self.live.store(live.max(1), Ordering::SeqCst);
            let first: Option<i64> = row.get(1);
            self.first.store(first == Some(number), Ordering::SeqCst);
        }
        Ok(true)
    }
}

/// Beats until the ledger is gone, or the place.
pub(super) async fn keep_beating(place: Weak<Place>, passing: Arc<Line>) {
    while let Some(place) = place.upgrade() {
        if let Err(error) = place.beat(&passing).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "no heartbeat could be given"
            );
        }
        drop(place);
        sleep(BEAT).await;
    }
}

/// A request for an event, with the way back.
pub(super) struct Wish {
    event: RequestEventId,
    reply: oneshot::Sender<Result<Taken>>,
}

/// Takes what is wished for, together with whatever else is, until nobody can wish any more.
pub(super) async fn take_wishes(
    place: Weak<Place>,
    passing: Arc<Line>,
    mut wishes: mpsc::Receiver<Wish>,
) {
    let mut together = Vec::with_capacity(TOGETHER);
    while wishes.recv_many(&mut together, TOGETHER).await > 0 {
        let Some(place) = place.upgrade() else { return };
        let mut wished: HashMap<String, Vec<oneshot::Sender<Result<Taken>>>> = HashMap::new();
        for Wish { event, reply } in together.drain(..) {
            wished.entry(event.to_string()).or_default().push(reply);
        }
        let events: Vec<String> = wished.keys().cloned().collect();
        match take_all(&place, &passing, &events).await {
            Ok(mut taken) => {
                for (event, replies) in wished {
                    let mut one = taken.remove(&event).unwrap_or(Taken::Elsewhere);
                    for reply in replies {
                        let _ = reply.send(Ok(one));
                        if one != Taken::Elsewhere {
                            one = Taken::Again;
                        }
                    }
                }
            }
            Err(error) => {
                for reply in wished.into_values().flatten() {
                    let _ = reply.send(Err(Error::ledger(error.to_string())));
                }
            }
        }
    }
}

async fn take_all(
    place: &Place,
    passing: &Line,
    events: &[String],
) -> Result<HashMap<String, Taken>> {
    /// A taker that is gone takes nothing.
    const TAKE: &str = "INSERT INTO taken AS mine (event, instance, at_ms) \
         SELECT event, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint \
         FROM unnest($1::text[]) AS wished (event) \
         WHERE EXISTS (SELECT 1 FROM instance WHERE number = $2 AND ended_at IS NULL) ORDER BY event \
         ON CONFLICT (event) DO UPDATE SET before = mine.instance, instance = $2 \
         WHERE mine.instance = $2 OR NOT EXISTS \
         (SELECT 1 FROM instance WHERE number = mine.instance AND ended_at IS NULL) \
         RETURNING event, before";
    if place.is_lost() {
        return Err(fenced());
    }
    let number = place.number();
    let found = passing.rows(TAKE, &[&events, &number]).await?;
    let taken = found.iter().map(|row| {
        let before: Option<i64> = rows::get(row, 1)?;
        let taken = match before {
            None => Taken::First,
            Some(before) if before == number => Taken::Again,
            Some(_) => Taken::Inherited,
        };
        Ok((rows::get(row, 0)?, taken))
    });
    taken.collect()
}

#[async_trait]
impl Instances for PostgresLedger {
    async fn join(&self) -> Result<()> {
        self.place.join(&self.door).await?;
        self.recount().await
    }

    async fn leave(&self) -> Result<()> {
        self.place.leave(&self.door).await
    }

    async fn take(&self, event: RequestEventId) -> Result<Taken> {
        let (reply, answer) = oneshot::channel();
        let stopped = || Error::ledger("the ledger has stopped");
        let wish = Wish { event, reply };
        self.wishes.send(wish).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    async fn inherit(&self, limit: usize) -> Result<Vec<Entry>> {
        if !self.anything_to_inherit().await? {
            return Ok(Vec::new());
        }
        let limit = most(limit);
        self.write(vec![About::All("inherit")], false, move |scope| {
            Box::pin(async move { inherit(scope, limit).await })
        })
        .await
    }

    fn is_lost(&self) -> bool {
        self.place.is_lost()
    }

    async fn holds(&self) -> bool {
        if self.place.is_sure() {
            return true;
        }
        matches!(
            timeout(SURE, self.place.beat(&self.passing)).await,
            Ok(Ok(true))
        )
    }

    fn crowd(&self) -> Crowd {
        Crowd {
            live: self.place.live.load(Ordering::SeqCst),
            first: self.place.first.load(Ordering::SeqCst),
        }
    }

    async fn waiting_of(&self, client: &ClientPubkey) -> Result<Vec<Entry>> {
        reader::waiting_of(&self.reading, client).await
    }
}

impl PostgresLedger {
    /// Whether an instance is gone whose entries nobody has taken over, or is about to.
    async fn anything_to_inherit(&self) -> Result<bool> {
        const ANYTHING: &str = "SELECT EXISTS (SELECT 1 FROM instance WHERE ended_at IS NOT NULL AND NOT resolved) \
             OR EXISTS (SELECT 1 FROM heartbeat WHERE beat_at < clock_timestamp() - $1 * interval '1 millisecond')";
        let lease = LEASE.as_secs_f64() * 1000.0;
        let anything = self.passing.row(ANYTHING, &[&lease]).await?;
        Ok(anything.is_some_and(|row| row.get(0)))
    }

    /// If we are alone, what was counted by others is counted once more: a count that has drifted would drift for ever.
    async fn recount(&self) -> Result<()> {
        const RECOUNT: &str = "UPDATE tally SET open_offers = CASE WHEN instance = $1 \
             THEN (SELECT count(*) FROM entry WHERE state IN ('quoted', 'issued')) ELSE 0 END \
             WHERE NOT EXISTS (SELECT 1 FROM heartbeat WHERE instance <> $1)";
        let number = self.place.number();
        self.write(vec![About::All("recount")], false, move |scope| {
            Box::pin(async move { Ok(scope.change(RECOUNT, &[&number]).await?) })
        })
        .await?;
        Ok(())
    }
}

async fn inherit(scope: &Scope<'_>, limit: i64) -> Result<Vec<Entry>, super::writer::Fault> {
    /// Their row of `heartbeat` goes with their place: a heartbeat that comes too late finds nothing to write to, and one that comes
    /// right now has this statement pass over it.
    const TAKE_OVER: &str = "WITH silent AS (DELETE FROM heartbeat WHERE instance <> $1 \
             AND beat_at < clock_timestamp() - $2 * interval '1 millisecond' \
             AND EXISTS (SELECT 1 FROM heartbeat WHERE instance = $1 \
                 AND steady_since < clock_timestamp() - $2 * interval '1 millisecond') RETURNING instance) \
         UPDATE instance SET ended_at = clock_timestamp(), why = 'silent' \
         FROM silent WHERE number = silent.instance AND ended_at IS NULL RETURNING number";
    const ENTRIES: &str = concat!(
        "UPDATE entry SET instance = $1, version = version + 1 WHERE number IN (SELECT number FROM entry \
         WHERE state NOT IN ('delivered', 'abandoned') AND instance IN \
         (SELECT number FROM instance WHERE ended_at IS NOT NULL AND NOT resolved) \
         LIMIT $2 FOR UPDATE SKIP LOCKED) RETURNING ",
        columns!()
    );
    const EVENTS: &str = "UPDATE taken SET before = instance, instance = $1 WHERE event = ANY($2)";
    const RESOLVED: &str = "UPDATE instance SET resolved = true WHERE ended_at IS NOT NULL AND NOT resolved \
         AND NOT EXISTS (SELECT 1 FROM entry WHERE entry.instance = instance.number \
             AND state NOT IN ('delivered', 'abandoned'))";
    let lease = LEASE.as_secs_f64() * 1000.0;
    for row in scope.rows(TAKE_OVER, &[&scope.instance, &lease]).await? {
        let gone: i64 = rows::get(&row, 0)?;
        tracing::warn!(
            instance = gone,
            "an instance has fallen silent; taking over what it was doing"
        );
    }
    let found = scope.rows(ENTRIES, &[&scope.instance, &limit]).await?;
    let mut entries = rows::entries(&found)?;
    entries.sort_by_key(|entry| (entry.quoted_at, entry.id));
    if entries.is_empty() {
        scope.change(RESOLVED, &[]).await?;
    } else {
        let events: Vec<String> = entries
            .iter()
            .flat_map(|entry| [Some(entry.id), entry.claimed_by])
            .flatten()
            .map(|event| event.to_string())
            .collect();
        scope.change(EVENTS, &[&scope.instance, &events]).await?;
    }
    Ok(entries)
}

/// Leaves out everything but the number.
impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.number()).finish()
    }
}

/// What a start needs: the tables, and a place.
pub(super) async fn begin(place: &Place, door: &Line) -> Result<()> {
    let session = door.session().await?;
    schema::prepare(&session).await?;
    place.join(door).await
}
