//! One issuer: whose licences count, by which keys, and how it is known which were taken back.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;

use super::claims::{Claims, Expected};
use super::feed::{FeedReader, RevocationFeed};
use super::keys::{Found, Key, KeySource, Keyring, Keys};
use super::remote::{Remote, VerifyRemotely};
use super::token::Unverified;
use super::{LicenceError, check_server_id};
use crate::error::{Error, Result};
use crate::ledger::LicenceBooks;
use crate::payment::{BearerToken, ClientPubkey, Clock, EntitlementClaim, SystemClock, Timestamp};

/// How often keys are fetched without a reason.
const KEYS_EVERY: Duration = Duration::from_secs(3600);

/// How many pairs of licence and client are remembered as admitted.
const ADMITTED: usize = 100_000;

/// How an issuer's licences are verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum VerifyMode {
    /// Here, with the issuer's keys.
    #[default]
    Local,
    /// By the issuer. Each licence costs a question a minute.
    Remote,
    /// Here; by the issuer where the key is unknown or the feed of revocations has fallen silent.
    LocalThenRemote,
}

/// Why a licence did not open the gate.
#[derive(Debug)]
pub(super) enum Failure {
    /// It does not count.
    Rejected(LicenceError),
    /// It cannot be told.
    Unknown(Error),
}

impl From<LicenceError> for Failure {
    fn from(error: LicenceError) -> Self {
        Self::Rejected(error)
    }
}

/// Describes an [`Issuer`].
#[must_use]
pub struct IssuerBuilder {
    expected: Expected,
    keys: Keyring,
    source: Option<Arc<dyn KeySource>>,
    feed: Option<Arc<dyn RevocationFeed>>,
    remote: Option<Arc<dyn VerifyRemotely>>,
    mode: VerifyMode,
    public: bool,
    most_clients: usize,
    poll_every: Duration,
    fail_closed_after: Duration,
    clock: Arc<dyn Clock>,
}

/// An issuer whose licences count.
pub struct Issuer {
    expected: Expected,
    keys: Arc<Keys>,
    feed: Option<Arc<FeedReader>>,
    remote: Option<Remote>,
    mode: VerifyMode,
    #[cfg_attr(not(feature = "nostr"), expect(dead_code, reason = "there are none"))]
    public: bool,
    most_clients: usize,
    fail_closed_after: Duration,
    books: Arc<dyn LicenceBooks>,
    admitted: Mutex<HashSet<(String, ClientPubkey)>>,
    tasks: Vec<AbortHandle>,
}

impl Issuer {
    /// The issuer that calls itself `issuer` (`iss`), for the server that it calls `server_id`.
    pub fn builder(issuer: &str, server_id: &str) -> IssuerBuilder {
        IssuerBuilder {
            expected: Expected {
                issuer: issuer.to_owned(),
                server_id: server_id.to_owned(),
                leeway: Duration::from_secs(60),
            },
            keys: Keyring::new(),
            source: None,
            feed: None,
            remote: None,
            mode: VerifyMode::Local,
            public: false,
            most_clients: 5,
            poll_every: Duration::from_secs(300),
            fail_closed_after: Duration::from_secs(86_400),
            clock: Arc::new(SystemClock),
        }
    }

    /// What it calls itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.expected.issuer
    }

    /// How long ago its feed of revocations was read to the end; `None` if it has none, or it never was.
    #[must_use]
    pub fn feed_age(&self, now: Timestamp) -> Option<Duration> {
        self.feed.as_ref()?.age(now)
    }

    /// Reads the feed of revocations now.
    ///
    /// # Errors
    ///
    /// When it could not be read to its end.
    pub async fn read_feed(&self) -> Result<()> {
        match &self.feed {
            Some(feed) => feed.read().await.map(drop),
            None => Ok(()),
        }
    }

    /// Verifies `token` for the call of `claim`.
    pub(super) async fn verify(
        &self,
        token: &BearerToken,
        claim: &EntitlementClaim,
    ) -> Result<Claims, Failure> {
        let claims = self.genuine(token, claim.at).await?;
        if !claims.allow(&claim.listed) {
            return Err(LicenceError::invalid("not for this capability").into());
        }
        let id = claims.id().unwrap_or_default();
        self.held_by(&claims, id, claim).await?;
        Ok(claims)
    }

    /// Verifies `token` without asking who uses it for what: the answer to somebody who verifies remotely.
    ///
    /// # Errors
    ///
    /// When it cannot be told now. That a licence does not count is no error of that kind.
    pub async fn verify_token(
        &self,
        token: &BearerToken,
        at: Timestamp,
    ) -> Result<Result<Claims, LicenceError>> {
        match self.genuine(token, at).await {
            Ok(claims) => Ok(Ok(claims)),
            Err(Failure::Rejected(error)) => Ok(Err(error)),
            Err(Failure::Unknown(error)) => Err(error),
        }
    }

    /// The claims of `token`, if it is for this server, counts at `at`, and was not taken back.
    async fn genuine(&self, token: &BearerToken, at: Timestamp) -> Result<Claims, Failure> {
        #[cfg(feature = "nostr")]
        if self.public && super::public::is_public(token) {
            return self.genuine_public(token, at).await;
        }
        let token = token.reveal();
        let unverified = Unverified::parse(token)?;
        let server = unverified.kid.rsplit_once(':').map(|(server, _)| server);
        if server.is_some_and(|server| server != self.expected.server_id) {
            return Err(LicenceError::ServerMismatch.into());
        }
        let (claims, asked) = self.claims(token, &unverified).await?;
        claims.check(&self.expected, at)?;
        let id = claims.id().unwrap_or_default();
        self.not_revoked(token, id, asked, at).await?;
        Ok(claims)
    }

    /// The same of a public licence: the server's own key signed it, nobody's secret.
    #[cfg(feature = "nostr")]
    async fn genuine_public(&self, token: &BearerToken, at: Timestamp) -> Result<Claims, Failure> {
        let licence = super::public::read_public(token)?;
        if licence.server.to_string() != self.expected.server_id {
            return Err(LicenceError::ServerMismatch.into());
        }
        let claims = licence.claims_of(&self.expected.issuer);
        claims.check(&self.expected, at)?;
        let id = claims.id().unwrap_or_default();
        self.not_revoked(token.reveal(), id, false, at).await?;
        Ok(claims)
    }

    /// The claims of a genuine token, and whether the issuer was asked.
    async fn claims(
        &self,
        token: &str,
        unverified: &Unverified<'_>,
    ) -> Result<(Claims, bool), Failure> {
        if self.mode == VerifyMode::Remote {
            return Ok((self.ask(token).await?, true));
        }
        let local = |key: &Key| unverified.verify(key).map(Claims);
        let unnamed = match self.keys.find(&unverified.kid) {
            Found::Named(key) => return Ok((local(&key)?, false)),
            Found::Unnamed(key) => Some(local(&key)),
            Found::None => None,
        };
        if let Some(Ok(claims)) = unnamed {
            return Ok((claims, false));
        }
        if let Some(key) = self.keys.find_anew(&unverified.kid).await {
            return Ok((local(&key)?, false));
        }
        if self.mode == VerifyMode::LocalThenRemote {
            return Ok((self.ask(token).await?, true));
        }
        match unnamed {
            Some(Err(error)) => Err(error.into()),
            _ => Err(LicenceError::invalid("unknown kid").into()),
        }
    }

    async fn ask(&self, token: &str) -> Result<Claims, Failure> {
        let remote = self
            .remote
            .as_ref()
            .ok_or_else(|| Failure::Unknown(Error::config("the issuer cannot be asked")))?;
        match remote.opinion(token).await {
            Ok(opinion) => Ok(Claims(opinion?)),
            Err(error) => Err(Failure::Unknown(error)),
        }
    }

    async fn not_revoked(
        &self,
        token: &str,
        id: &str,
        asked: bool,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let Some(feed) = &self.feed else {
            return Ok(());
        };
        if feed.revoked().contains(&self.expected.issuer, id) {
            return Err(LicenceError::Revoked.into());
        }
        let fresh = feed
            .age(now)
            .is_some_and(|age| age <= self.fail_closed_after);
        if fresh || asked {
            return Ok(());
        }
        if self.mode == VerifyMode::LocalThenRemote {
            return self.ask(token).await.map(drop);
        }
        Err(Failure::Unknown(Error::transport(
            "the feed of revocations was not read for too long",
        )))
    }

    /// Whether the client of `claim` may use the licence: its holder, if it names one; else one of the first clients that came with it.
    /// Connections without a name are not counted: each would be another client.
    async fn held_by(
        &self,
        claims: &Claims,
        id: &str,
        claim: &EntitlementClaim,
    ) -> Result<(), Failure> {
        let client = claim.invocation.client;
        if let Some(holder) = claims.holder()? {
            if holder != client {
                return Err(LicenceError::invalid("not the holder of this licence").into());
            }
            return Ok(());
        }
        if claim.nameless {
            return Ok(());
        }
        let holder = (id.to_owned(), client);
        if self.admitted().contains(&holder) {
            return Ok(());
        }
        let admitted = self
            .books
            .admit_holder(&self.expected.issuer, id, client, self.most_clients)
            .await
            .map_err(Failure::Unknown)?;
        if !admitted {
            return Err(LicenceError::invalid("in use by too many clients").into());
        }
        let mut known = self.admitted();
        if known.len() >= ADMITTED {
            known.clear();
        }
        known.insert(holder);
        Ok(())
    }

    fn admitted(&self) -> std::sync::MutexGuard<'_, HashSet<(String, ClientPubkey)>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IssuerBuilder {
    /// Knows these keys from the start.
    pub fn keys(mut self, keys: Keyring) -> Self {
        self.keys = keys;
        self
    }

    /// Fetches keys here, at the start, now and then, and when a licence names one that is not known.
    pub fn key_source(mut self, source: Arc<dyn KeySource>) -> Self {
        self.source = Some(source);
        self
    }

    /// Reads revocations here.
    pub fn feed(mut self, feed: Arc<dyn RevocationFeed>) -> Self {
        self.feed = Some(feed);
        self
    }

    /// Asks the issuer here.
    pub fn remote(mut self, remote: Arc<dyn VerifyRemotely>) -> Self {
        self.remote = Some(remote);
        self
    }

    /// How licences are verified.
    pub fn mode(mut self, mode: VerifyMode) -> Self {
        self.mode = mode;
        self
    }

    /// Public licences count, too: those that are signed with the key of the server, whose id is then its public key in hex.
    #[cfg(feature = "nostr")]
    pub fn public_licences(mut self) -> Self {
        self.public = true;
        self
    }

    /// How far clocks may differ. 60 s unless set.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.expected.leeway = leeway;
        self
    }

    /// How many keys may use a licence that names no holder. 5 unless set.
    pub fn most_clients(mut self, most: usize) -> Self {
        self.most_clients = most;
        self
    }

    /// How often the feed is read. 5 minutes unless set.
    pub fn poll_every(mut self, interval: Duration) -> Self {
        self.poll_every = interval;
        self
    }

    /// For how long licences count although the feed cannot be read. A day unless set.
    pub fn fail_closed_after(mut self, patience: Duration) -> Self {
        self.fail_closed_after = patience;
        self
    }

    /// The clock; for tests.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Loads what `books` remember, and starts to read the feed. Must be called inside a Tokio runtime; what it starts ends
    /// with the issuer.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for what does not fit together, and
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if the books cannot be read.
    pub async fn start(self, books: Arc<dyn LicenceBooks>) -> Result<Issuer> {
        check_server_id(&self.expected.server_id)?;
        if self.expected.issuer.is_empty() {
            return Err(Error::config("an issuer of licences needs a name"));
        }
        if self.most_clients == 0 {
            return Err(Error::config(
                "a licence must be usable by at least 1 client",
            ));
        }
        if self.mode != VerifyMode::Local && self.remote.is_none() {
            return Err(Error::config(
                "verifying licences remotely needs the address of their issuer",
            ));
        }
        let knows = self.keys.names().next().is_some() || self.keys.has_unnamed();
        if self.mode == VerifyMode::Local && !knows && self.source.is_none() {
            return Err(Error::config(
                "verifying licences needs a signing secret, or where to fetch it",
            ));
        }
        let keys = Arc::new(Keys::new(self.keys, self.source));
        let mut tasks = Vec::new();
        if self.mode != VerifyMode::Remote && keys.has_source() {
            let keys = Arc::clone(&keys);
            tasks.push(tokio::spawn(async move {
                loop {
                    keys.refresh().await;
                    tokio::time::sleep(KEYS_EVERY).await;
                }
            }));
        }
        let feed = match self.feed {
            None => None,
            Some(feed) => {
                let issuer = self.expected.issuer.clone();
                let reader = FeedReader::load(issuer, feed, Arc::clone(&books), self.clock).await?;
                let reader = Arc::new(reader);
                let (reading, leeway) = (Arc::clone(&reader), self.expected.leeway);
                tasks.push(tokio::spawn(async move {
                    reading.run(self.poll_every, leeway).await;
                }));
                Some(reader)
            }
        };
        Ok(Issuer {
            expected: self.expected,
            keys,
            feed,
            remote: self.remote.map(Remote::new),
            mode: self.mode,
            public: self.public,
            most_clients: self.most_clients,
            fail_closed_after: self.fail_closed_after,
            books,
            admitted: Mutex::default(),
            tasks: tasks.iter().map(|task| task.abort_handle()).collect(),
        })
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("name", &self.expected.issuer)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for IssuerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerBuilder")
            .field("name", &self.expected.issuer)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}
