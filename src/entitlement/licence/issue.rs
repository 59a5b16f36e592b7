//! Licences of our own: the same shape, so that whoever can verify licences can verify these.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use super::keys::Key;
use super::{check_server_id, token};
use crate::error::{Error, Result};
use crate::payment::{BearerToken, Capability, ClientPubkey, Timestamp};

/// Signs licences.
#[derive(Clone)]
pub struct LicenceSigner {
    issuer: String,
    server_id: String,
    kid: String,
    key: Key,
}

/// What a licence is for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LicenceTerms {
    /// Its name; no two licences of an issuer share one.
    pub id: String,
    /// The purchase that it came of.
    pub purchase: String,
    /// The client that alone can use it. Without one, whoever has the licence can.
    pub holder: Option<ClientPubkey>,
    /// What it is good for; everything if empty.
    pub capabilities: Vec<Capability>,
    /// When it begins to count.
    pub issued_at: Timestamp,
    /// For how long.
    pub lives: Duration,
}

impl LicenceTerms {
    /// A licence `id` for everything, for anybody, for a year.
    #[must_use]
    pub fn new(id: impl Into<String>, purchase: impl Into<String>, issued_at: Timestamp) -> Self {
        Self {
            id: id.into(),
            purchase: purchase.into(),
            holder: None,
            capabilities: Vec::new(),
            issued_at,
            lives: Duration::from_secs(365 * 86_400),
        }
    }

    /// Only for `holder`.
    #[must_use]
    pub fn held_by(mut self, holder: ClientPubkey) -> Self {
        self.holder = Some(holder);
        self
    }

    /// Only for `capabilities`.
    #[must_use]
    pub fn good_for(mut self, capabilities: Vec<Capability>) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// For so long.
    #[must_use]
    pub fn living(mut self, lives: Duration) -> Self {
        self.lives = lives;
        self
    }

    /// When it runs out.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.issued_at.plus(self.lives)
    }
}

impl LicenceSigner {
    /// Signs as `issuer`, for the server `server_id`, with the `version`th `key`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for an id or a name that cannot be used.
    pub fn new(issuer: &str, server_id: &str, version: u32, key: Key) -> Result<Self> {
        check_server_id(server_id)?;
        if issuer.is_empty() {
            return Err(Error::config("an issuer of licences needs a name"));
        }
        Ok(Self {
            issuer: issuer.to_owned(),
            server_id: server_id.to_owned(),
            kid: format!("{server_id}:{version}"),
            key,
        })
    }

    /// The name of the key.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The licence with these terms.
    #[must_use]
    pub fn sign(&self, terms: &LicenceTerms) -> Option<BearerToken> {
        let mut claims = Map::new();
        let mut claim = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        claim("iss", self.issuer.clone().into());
        let subject = terms.holder.map_or_else(
            || terms.purchase.clone(),
            |holder| format!("nostr:{holder}"),
        );
        claim("sub", subject.into());
        claim("aud", format!("mcp_server:{}", self.server_id).into());
        claim("jti", terms.id.clone().into());
        claim("purchaseId", terms.purchase.clone().into());
        claim("serverId", self.server_id.clone().into());
        claim("scope", "mcp:invoke".into());
        claim("iat", terms.issued_at.as_secs().into());
        claim("exp", terms.expires_at().as_secs().into());
        if let Some(holder) = terms.holder {
            claim("cnf", serde_json::json!({ "nostr": holder }));
        }
        if !terms.capabilities.is_empty() {
            let words = terms.capabilities.iter().map(|c| c.to_string().into());
            claim("capabilities", Value::Array(words.collect()));
        }
        // `None` only if the terms make it longer than a token may be.
        BearerToken::new(&token::sign(&claims.into(), &self.kid, &self.key))
    }
}

impl fmt::Debug for LicenceSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LicenceSigner")
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}
