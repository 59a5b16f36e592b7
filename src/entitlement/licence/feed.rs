//! The feed of revocations, read to its end every few minutes, and on from where it was left: a restart forgets none.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::moment;
use super::revoked::RevokedSet;
use crate::error::{Error, Result};
use crate::ledger::{FeedPosition, LicenceBooks, Revocation};
use crate::payment::{BearerToken, Clock, Timestamp};

/// How far back the first look goes: longer than licences live (a year), so that none that was ever revoked counts.
const FIRST_LOOK: Duration = Duration::from_secs(400 * 86_400);

/// How much is read again if the feed names no place to read on from: clocks differ, and entries become visible late.
const OVERLAP: Duration = Duration::from_secs(600);

/// Nobody revokes so many; a feed of more pages goes in circles.
const MOST_PAGES: usize = 10_000;

/// The pause after a failure, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(15);
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// How many revocations are read from the books at a time.
const LOADED_AT_ONCE: usize = 10_000;

/// Where revocations are read.
#[async_trait]
pub trait RevocationFeed: fmt::Debug + Send + Sync {
    /// The page of the feed that begins at `since`: a moment in RFC 3339 at first, then what the page before named as next.
    ///
    /// # Errors
    ///
    /// When it could not be read.
    async fn page(&self, since: &str) -> Result<FeedPage>;
}

/// A page of a feed.
#[derive(Debug, Clone, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "made by implementors, field by field"
)]
pub struct FeedPage {
    /// What was revoked.
    pub revoked: Vec<Revocation>,
    /// Where to read on, if the feed says so.
    pub next: Option<String>,
    /// The latest time that the feed's own clock is known to have shown.
    pub server_time: Option<Timestamp>,
}

/// Reads one issuer's feed.
pub(super) struct FeedReader {
    issuer: String,
    feed: Arc<dyn RevocationFeed>,
    books: Arc<dyn LicenceBooks>,
    revoked: Arc<RevokedSet>,
    clock: Arc<dyn Clock>,
    /// When it was last read to its end, in milliseconds; 0 for never.
    read_at: AtomicU64,
    /// Where this reader reads on; one reads at a time. The place in the books is for the next start: another process on the same
    /// books may be further, and what it has read is not in our memory.
    place: Mutex<Option<FeedPosition>>,
}

impl FeedReader {
    /// A reader that begins with what the books know.
    pub(super) async fn load(
        issuer: String,
        feed: Arc<dyn RevocationFeed>,
        books: Arc<dyn LicenceBooks>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        // The place before the names: what is written down meanwhile is read twice rather than not at all.
        let place = books.position(&issuer).await?;
        let revoked = Arc::new(RevokedSet::new());
        let mut after: Option<String> = None;
        loop {
            let page = books
                .revoked(&issuer, after.as_deref(), LOADED_AT_ONCE)
                .await?;
            let entries = page.iter().map(|r| (r.id.as_str(), r.expires_at));
            revoked.extend(&issuer, entries);
            match page.last() {
                Some(last) => after = Some(last.id.clone()),
                None => break,
            }
        }
        let read_at = place.as_ref().and_then(|place| place.read_at);
        let read_at = AtomicU64::new(read_at.unwrap_or_default().as_millis());
        Ok(Self {
            issuer,
            feed,
            books,
            revoked,
            clock,
            read_at,
            place: Mutex::new(place),
        })
    }

    pub(super) fn revoked(&self) -> &RevokedSet {
        &self.revoked
    }

    /// How long ago the feed was read to its end; `None` if it never was.
    pub(super) fn age(&self, now: Timestamp) -> Option<Duration> {
        match self.read_at.load(Ordering::Acquire) {
            0 => None,
            at => Some(now.since(Timestamp::from_millis(at))),
        }
    }

    /// Reads the feed to its end. What was read is on the disk before the place to read on from is.
    pub(super) async fn read(&self) -> Result<usize> {
        let mut place = self.place.lock().await;
        let begun = self.clock.now();
        let first = moment::format(begun.minus(FIRST_LOOK));
        let (mut found, mut server_time) = (0, None);
        for _ in 0..MOST_PAGES {
            let cursor = place.as_ref().map_or(&first, |place| &place.cursor);
            let page = self.feed.page(cursor).await?;
            server_time = server_time.max(page.server_time);
            let ended = page.revoked.is_empty();
            found += self.take(page.revoked).await?;
            let (next, ended) = match page.next {
                // A place that does not move is the end.
                Some(next) => (next.clone(), ended || next == *cursor),
                // By the feed's clock, never by ours alone: entries between the two would be lost.
                None => match server_time {
                    Some(at) => (moment::format(at.minus(OVERLAP)), true),
                    None => (cursor.clone(), true),
                },
            };
            let read_at = match ended {
                true => Some(begun),
                false => place.as_ref().and_then(|place| place.read_at),
            };
            let reached = FeedPosition {
                cursor: next,
                read_at,
            };
            self.books
                .set_position(&self.issuer, reached.clone())
                .await?;
            *place = Some(reached);
            if ended {
                self.read_at
                    .store(begun.as_millis().max(1), Ordering::Release);
                return Ok(found);
            }
        }
        Err(Error::transport("the feed of revocations does not end"))
    }

    async fn take(&self, mut revoked: Vec<Revocation>) -> Result<usize> {
        // No licence that anybody can show has a longer name.
        revoked.retain(|r| r.id.len() <= BearerToken::LONGEST);
        if revoked.is_empty() {
            return Ok(0);
        }
        let entries = revoked.iter().map(|r| (r.id.as_str(), r.expires_at));
        // In force at once, whatever the disk says.
        self.revoked.extend(&self.issuer, entries);
        let found = revoked.len();
        self.books.note_revoked(&self.issuer, revoked).await?;
        Ok(found)
    }

    /// Reads every `interval` or so, for ever. Failures are repeated ever more slowly.
    pub(super) async fn run(&self, interval: Duration, leeway: Duration) {
        let mut failures = 0u32;
        loop {
            let read = self.read().await;
            let age = self.age(self.clock.now()).map(|age| age.as_secs());
            let pause = match read {
                Ok(found) => {
                    failures = 0;
                    tracing::debug!(
                        issuer = self.issuer,
                        found,
                        revoked = self.revoked.len(),
                        "read the feed of revocations"
                    );
                    self.forget(self.clock.now().minus(leeway)).await;
                    jittered(interval)
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(
                        issuer = self.issuer,
                        licence_feed_age_seconds = age,
                        failures,
                        error = &error as &dyn std::error::Error,
                        "the feed of revocations could not be read"
                    );
                    let doubled = FIRST_PAUSE * 2u32.saturating_pow(failures.min(10) - 1);
                    jittered(doubled.min(LONGEST_PAUSE))
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn forget(&self, before: Timestamp) {
        self.revoked.forget(before);
        loop {
            match self.books.forget_revoked(before).await {
                Ok(0) => return,
                Ok(_) => tokio::task::yield_now().await,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "revocations that do not matter any more could not be forgotten"
                    );
                    return;
                }
            }
        }
    }
}

/// Within a tenth, so that many servers do not ask at the same second.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0u8) % 1000;
    let random = u32::try_from(random).unwrap_or_default();
    pause * 9 / 10 + pause / 5 * random / 1000
}

impl fmt::Debug for FeedReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedReader")
            .field("issuer", &self.issuer)
            .field("revoked", &self.revoked.len())
            .finish_non_exhaustive()
    }
}
