//! An issuer's HTTP interface, as AI Coach has it (and as we serve it): signing secret, feed of revocations, remote
//! verification.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::feed::{FeedPage, RevocationFeed};
use super::http::Http;
use super::key_file::{self, KeyFile, NamedSecret};
use super::keys::{KeySource, Keyring};
use super::remote::{Opinion, VerifyRemotely};
use super::{LicenceError, moment};
use crate::error::{Error, Result};
use crate::ledger::Revocation;
use crate::payment::Timestamp;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_millis(2500);
/// A page of the feed may be long.
const FEED_PATIENCE: Duration = Duration::from_secs(30);

/// An issuer that is asked over HTTP.
#[derive(Clone)]
pub struct IssuerApi {
    quick: Http,
    patient: Http,
    server_id: String,
    kept: Option<KeyFile>,
}

impl IssuerApi {
    /// The issuer at `base` (`https://aicoach.pw`), about the server `server_id`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for an address, a key or an id that cannot be used.
    pub fn new(base: &str, server_id: &str, api_key: Option<&str>) -> Result<Self> {
        super::check_server_id(server_id)?;
        Ok(Self {
            quick: Http::new(base, api_key, PATIENCE)?,
            patient: Http::new(base, None, FEED_PATIENCE)?,
            server_id: server_id.to_owned(),
            kept: None,
        })
    }

    /// Keeps every signing secret that was fetched in `file`: the issuer tells only the newest one, and older ones are
    /// needed until their licences run out.
    #[must_use]
    pub fn keeping_keys_in(mut self, file: KeyFile) -> Self {
        self.kept = Some(file);
        self
    }
}

impl fmt::Debug for IssuerApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerApi")
            .field("server_id", &self.server_id)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl KeySource for IssuerApi {
    async fn fetch(&self) -> Result<Keyring> {
        let path = format!("/api/publisher/mcp/{}/signing-secret", self.server_id);
        let secret: NamedSecret = self.quick.get(&path, &[]).await?.body;
        let kept = self.kept.clone();
        let all = tokio::task::spawn_blocking(move || match kept {
            Some(file) => file.add(secret),
            None => Ok(vec![secret]),
        });
        let all = all
            .await
            .unwrap_or_else(|_| Err(Error::config("the signing secret could not be kept")))?;
        key_file::ring(&all)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    revocations: Vec<Revoked>,
    #[serde(default)]
    next_cursor: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Revoked {
    /// The name of the licence.
    #[serde(alias = "jti")]
    id: String,
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default)]
    revoked_at: Option<String>,
}

#[async_trait]
impl RevocationFeed for IssuerApi {
    async fn page(&self, since: &str) -> Result<FeedPage> {
        let query = [("since", since), ("serverId", self.server_id.as_str())];
        let answer = self
            .patient
            .get::<Page>("/api/mcp/licenses/revoked", &query)
            .await?;
        let mut page = FeedPage {
            server_time: answer.date,
            ..FeedPage::default()
        };
        for revoked in answer.body.revocations {
            let at = |text: Option<String>| moment::parse(&text?);
            page.server_time = page.server_time.max(at(revoked.revoked_at));
            page.revoked.push(Revocation {
                id: revoked.id,
                // What cannot be read is held for ever rather than let go.
                expires_at: at(revoked.expires_at).unwrap_or(Timestamp::from_secs(u32::MAX.into())),
            });
        }
        page.next = match answer.body.next_cursor {
            Some(Value::String(cursor)) => Some(cursor),
            Some(Value::Number(cursor)) => Some(cursor.to_string()),
            _ => None,
        };
        Ok(page)
    }
}

#[derive(Deserialize)]
struct Verdict {
    ok: bool,
    #[serde(default)]
    claims: Option<Map<String, Value>>,
    #[serde(default)]
    error: Option<String>,
}

#[async_trait]
impl VerifyRemotely for IssuerApi {
    async fn verify(&self, token: &str) -> Result<Opinion> {
        let body = json!({ "token": token, "serverId": self.server_id });
        let verdict: Verdict = self
            .quick
            .post("/api/mcp/licenses/verify", &body)
            .await?
            .body;
        match verdict.claims {
            Some(claims) if verdict.ok => Ok(Ok(claims)),
            _ if verdict.ok => Err(Error::transport(
                "the issuer of licences says yes, but not to what",
            )),
            _ => Ok(Err(match verdict.error.as_deref() {
                Some("revoked") => LicenceError::Revoked,
                Some("server_mismatch") => LicenceError::ServerMismatch,
                _ => LicenceError::invalid("refused by its issuer"),
            })),
        }
    }
}
