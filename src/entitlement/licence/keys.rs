//! The keys that licences are signed with, by their names. A rotation adds one and takes none away, so what was signed
//! before it counts until it runs out.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use hmac::Mac as _;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::token::HmacSha256;
use crate::error::{Error, ErrorKind, Result};

/// Shorter secrets can be guessed from one token.
const SHORTEST_SECRET: usize = 16;

/// How often a name that nobody knows makes the source be asked. Whoever invents names must not have it asked at his pace.
const ASKED_EVERY: Duration = Duration::from_secs(30);

/// How long the source may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A secret, ready to sign and to verify with. Never printed.
#[derive(Clone)]
pub struct Key(HmacSha256);

impl Key {
    /// The key with this secret: its bytes as they are. (Issuers hand out text, and verify with the bytes of that text.)
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a secret that could be guessed.
    pub fn new(secret: &[u8]) -> Result<Self> {
        if secret.len() < SHORTEST_SECRET {
            return Err(Error::config(format!(
                "a signing secret must be at least {SHORTEST_SECRET} bytes long"
            )));
        }
        HmacSha256::new_from_slice(secret)
            .map(Self)
            .map_err(|_| Error::config("a signing secret cannot be used"))
    }

    pub(super) fn mac(&self) -> HmacSha256 {
        self.0.clone()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Keys by their names (`kid`).
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    keys: HashMap<String, Key>,
    unnamed: Option<Key>,
}

impl Keyring {
    /// No keys.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a key under the name `kid`.
    #[must_use]
    pub fn with(mut self, kid: impl Into<String>, key: Key) -> Self {
        self.keys.insert(kid.into(), key);
        self
    }

    /// Adds a key for names that are not known: for a secret that was handed over without its name.
    #[must_use]
    pub fn with_unnamed(mut self, key: Key) -> Self {
        self.unnamed = Some(key);
        self
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    pub(super) fn has_unnamed(&self) -> bool {
        self.unnamed.is_some()
    }

    fn absorb(&mut self, other: Self) {
        self.keys.extend(other.keys);
        self.unnamed = other.unnamed.or(self.unnamed.take());
    }
}

/// Where keys come from, and new ones after a rotation.
#[async_trait]
pub trait KeySource: fmt::Debug + Send + Sync {
    /// The keys that it knows now; at least the one that new licences are signed with.
    ///
    /// # Errors
    ///
    /// When it cannot tell. What is known already stays in use.
    async fn fetch(&self) -> Result<Keyring>;
}

/// The keys in use.
#[derive(Debug)]
pub(super) struct Keys {
    ring: Arc<RwLock<Arc<Keyring>>>,
    source: Option<Arc<dyn KeySource>>,
    asked: Mutex<Option<Instant>>,
}

/// What a name leads to.
pub(super) enum Found {
    /// The key of that name.
    Named(Key),
    /// A key that may be of that name, or of another.
    Unnamed(Key),
    None,
}

impl Keys {
    pub(super) fn new(ring: Keyring, source: Option<Arc<dyn KeySource>>) -> Self {
        Self {
            ring: Arc::new(RwLock::new(Arc::new(ring))),
            source,
            asked: Mutex::new(None),
        }
    }

    pub(super) fn has_source(&self) -> bool {
        self.source.is_some()
    }

    pub(super) fn find(&self, kid: &str) -> Found {
        let ring = self.ring();
        match (ring.keys.get(kid), &ring.unnamed) {
            (Some(key), _) => Found::Named(key.clone()),
            (None, Some(key)) => Found::Unnamed(key.clone()),
            (None, None) => Found::None,
        }
    }

    /// The key `kid`, after asking the source if nobody asked it lately. One asks, the others wait for its answer.
    pub(super) async fn find_anew(&self, kid: &str) -> Option<Key> {
        let named = |found| match found {
            Found::Named(key) => Some(key),
            _ => None,
        };
        self.source.as_ref()?;
        let mut asked = self.asked.lock().await;
        if let Some(key) = named(self.find(kid)) {
            return Some(key);
        }
        if asked.is_some_and(|at| at.elapsed() < ASKED_EVERY) {
            return None;
        }
        // Noted before it is asked: a caller that gives up while it waits must not set the pace back.
        *asked = Some(Instant::now());
        self.refresh().await;
        named(self.find(kid))
    }

    /// Asks the source and adds what it knows. What fails is logged: the keys in use stay.
    ///
    /// A caller that stops waiting does not stop it: what was asked for would be asked for again.
    pub(super) async fn refresh(&self) {
        let Some(source) = self.source.clone() else {
            return;
        };
        let ring = Arc::clone(&self.ring);
        let fetching = tokio::spawn(async move {
            let fetched = tokio::time::timeout(PATIENCE, source.fetch()).await;
            let late = || Error::new(ErrorKind::Timeout, "no answer in time");
            match fetched.unwrap_or_else(|_| Err(late())) {
                Ok(fetched) => {
                    let mut ring = ring.write().unwrap_or_else(PoisonError::into_inner);
                    let mut new = Keyring::clone(&ring);
                    new.absorb(fetched);
                    *ring = Arc::new(new);
                }
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the keys of licences could not be fetched; those that are known stay in use"
                ),
            }
        });
        if fetching.await.is_err() {
            tracing::error!("fetching the keys of licences panicked");
        }
    }

    fn ring(&self) -> Arc<Keyring> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text.repeat(32).as_bytes()).unwrap()
    }

    #[derive(Debug, Default)]
    struct Rotating {
        asked: AtomicUsize,
        fails: bool,
    }

    #[async_trait]
    impl KeySource for Rotating {
        async fn fetch(&self) -> Result<Keyring> {
            let n = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
            if self.fails {
                return Err(Error::transport("down"));
            }
            Ok(Keyring::new().with(format!("srv:{n}"), key("k")))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_name_asks_once_however_many_come_with_it() {
        let source = Arc::new(Rotating::default());
        let keys = Arc::new(Keys::new(Keyring::new(), Some(source.clone())));
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let keys = Arc::clone(&keys);
                tokio::spawn(async move { keys.find_anew("srv:1").await.is_some() })
            })
            .collect();
        for found in waiting {
            assert!(found.await.unwrap());
        }
        assert_eq!(source.asked.load(Ordering::SeqCst), 1);
        // Invented names do not set the pace, and a rotation is noticed after a while; the old key stays.
        for n in 0..100 {
            assert!(keys.find_anew(&format!("srv:x{n}")).await.is_none());
        }
        assert_eq!(source.asked.load(Ordering::SeqCst), 1);
        tokio::time::advance(ASKED_EVERY).await;
        assert!(keys.find_anew("srv:2").await.is_some());
        assert!(matches!(keys.find("srv:1"), Found::Named(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_fails_takes_nothing_away() {
        let source = Arc::new(Rotating {
            fails: true,
            ..Rotating::default()
        });
        let keys = Keys::new(Keyring::new().with("srv:1", key("a")), Some(source));
        assert!(keys.find_anew("srv:2").await.is_none());
        assert!(matches!(keys.find("srv:1"), Found::Named(_)));
    }

    #[test]
    fn a_secret_is_long_enough_and_never_printed() {
        assert!(Key::new(b"short").is_err());
        let ring = Keyring::new().with("a", key("secret"));
        assert!(!format!("{ring:?}").contains("secret"));
    }
}
