//! Asking the issuer about a licence: where there is no secret, where the key is unknown, or where the feed of revocations
//! has fallen silent. One question at a time for each licence, few in all, and a good answer counts for a minute at most.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use super::LicenceError;
use crate::error::{Error, Result};

/// What the issuer thinks of a licence: its claims, or why it does not count.
pub type Opinion = Result<Map<String, Value>, LicenceError>;

/// How long an opinion counts.
const COUNTS_FOR: Duration = Duration::from_secs(60);

/// How many opinions are remembered.
const REMEMBERED: usize = 2_000;

/// How many questions may be open: an issuer that is slow must not hold up more calls than these.
const AT_ONCE: usize = 16;

/// Asks the issuer of a licence whether it counts.
#[async_trait]
pub trait VerifyRemotely: fmt::Debug + Send + Sync {
    /// What the issuer thinks of `token`.
    ///
    /// # Errors
    ///
    /// When it did not say. That is no opinion.
    async fn verify(&self, token: &str) -> Result<Opinion>;
}

type Slot = Arc<Mutex<Option<(Instant, Opinion)>>>;

#[derive(Debug)]
pub(super) struct Remote {
    issuer: Arc<dyn VerifyRemotely>,
    open: Semaphore,
    slots: std::sync::Mutex<HashMap<[u8; 32], Slot>>,
}

impl Remote {
    pub(super) fn new(issuer: Arc<dyn VerifyRemotely>) -> Self {
        Self {
            issuer,
            open: Semaphore::new(AT_ONCE),
            slots: std::sync::Mutex::default(),
        }
    }

    /// The issuer's opinion of `token`, not older than a minute.
    pub(super) async fn opinion(&self, token: &str) -> Result<Opinion> {
        let slot = self.slot(token)?;
        let mut opinion = slot.lock().await;
        if let Some((at, opinion)) = &*opinion
            && at.elapsed() < COUNTS_FOR
        {
            return Ok(opinion.clone());
        }
        // Not waited for: whoever comes with many licences must not make a queue.
        let _permit = self.open.try_acquire().map_err(|_| {
            Error::transport("too many questions to the issuer of licences at once")
        })?;
        let asked = Instant::now();
        let told = self.issuer.verify(token).await?;
        *opinion = Some((asked, told.clone()));
        Ok(told)
    }

    fn slot(&self, token: &str) -> Result<Slot> {
        let name: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&name) {
            return Ok(Arc::clone(slot));
        }
        if slots.len() >= REMEMBERED {
            slots.retain(|_, slot| match slot.try_lock() {
                Ok(opinion) => opinion
                    .as_ref()
                    .is_some_and(|(at, _)| at.elapsed() < COUNTS_FOR),
                // Being asked about right now.
                Err(_) => true,
            });
        }
        if slots.len() >= REMEMBERED {
            return Err(Error::transport("too many licences to ask about at once"));
        }
        Ok(Arc::clone(slots.entry(name).or_default()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct Slow {
        asked: AtomicUsize,
    }

    #[async_trait]
    impl VerifyRemotely for Slow {
        async fn verify(&self, token: &str) -> Result<Opinion> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            match token {
                "down" => Err(Error::transport("down")),
                "bad" => Ok(Err(LicenceError::Revoked)),
                _ => Ok(Ok(Map::new())),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_question_for_each_licence_and_a_minute() {
        let issuer = Arc::new(Slow::default());
        let remote = Arc::new(Remote::new(issuer.clone()));
        let asking: Vec<_> = (0..50)
            .map(|_| {
                let remote = Arc::clone(&remote);
                tokio::spawn(async move { remote.opinion("good").await.unwrap().is_ok() })
            })
            .collect();
        for told in asking {
            assert!(told.await.unwrap());
        }
        assert_eq!(issuer.asked.load(Ordering::SeqCst), 1);
        assert_eq!(
            remote.opinion("bad").await.unwrap(),
            Err(LicenceError::Revoked)
        );
        tokio::time::advance(COUNTS_FOR).await;
        assert!(remote.opinion("good").await.unwrap().is_ok());
        assert_eq!(issuer.asked.load(Ordering::SeqCst), 3);
        assert!(remote.opinion("down").await.is_err());
        assert!(
            remote.opinion("down").await.is_err(),
            "no opinion is not remembered"
        );
        assert_eq!(issuer.asked.load(Ordering::SeqCst), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn many_licences_do_not_make_a_queue_nor_fill_the_memory() {
        let remote = Arc::new(Remote::new(Arc::new(Slow::default())));
        let asking: Vec<_> = (0..5_000)
            .map(|n| {
                let remote = Arc::clone(&remote);
                tokio::spawn(async move { remote.opinion(&n.to_string()).await.is_ok() })
            })
            .collect();
        let mut told = 0;
        for asked in asking {
            told += usize::from(asked.await.unwrap());
        }
        assert_eq!(told, AT_ONCE);
        assert!(remote.slots.lock().unwrap().len() <= REMEMBERED);
    }
}
