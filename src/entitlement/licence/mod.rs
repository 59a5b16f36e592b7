//! Licences: a buyer pays once, and then calls with a token that is verified here, without asking anybody.
//!
//! A licence is a JWT under HMAC-SHA-256, for one server, with a name, an issuer and an end. Its issuer says which licences
//! were taken back, in a feed that is read every few minutes. The shapes are those of
//! [AI Coach](https://aicoach.pw/docs/reference/license-tokens), so its licences count, and ours count with verifiers of
//! those.

mod claims;
mod error;
mod feed;
mod http;
mod issue;
mod issuer;
mod issuer_api;
mod key_file;
mod keys;
mod moment;
mod own_feed;
#[cfg(feature = "nostr")]
mod public;
mod remote;
mod revoked;
mod token;

#[cfg(test)]
mod tests;

use async_trait::async_trait;

pub use self::claims::Claims;
pub use self::error::LicenceError;
pub use self::feed::{FeedPage, RevocationFeed};
pub use self::issue::{LicenceSigner, LicenceTerms};
use self::issuer::Failure;
pub use self::issuer::{Issuer, IssuerBuilder, VerifyMode};
pub use self::issuer_api::IssuerApi;
pub use self::key_file::KeyFile;
pub use self::keys::{Key, KeySource, Keyring};
pub use self::moment::format as rfc3339;
pub use self::own_feed::OwnFeed;
#[cfg(feature = "nostr")]
pub use self::public::{
    LICENCE_KIND, PublicLicence, PublicRevocation, PublicSigner, REVOCATION_KIND, is_public,
    read_public, read_revocation,
};
pub use self::remote::{Opinion, VerifyRemotely};
pub use self::revoked::RevokedSet;
use crate::error::{Error, Result};
use crate::payment::{
    Capability, Cover, Entitled, Entitlement, EntitlementClaim, Refusal, WhenUnknown,
};

/// JSON-RPC error: what was called is for holders of a licence only, and none that counts was presented.
pub const LICENCE_REQUIRED_CODE: i64 = -32041;

/// Lets holders of a licence through.
#[derive(Debug)]
pub struct Licences {
    issuers: Vec<Issuer>,
    covers: Vec<Capability>,
    required: bool,
    when_unknown: WhenUnknown,
    tell_handler: bool,
}

impl Licences {
    /// Licences of `issuers`, for everything that is priced.
    #[must_use]
    pub fn new(issuers: Vec<Issuer>) -> Self {
        Self {
            issuers,
            covers: Vec::new(),
            required: false,
            when_unknown: WhenUnknown::Pay,
            tell_handler: true,
        }
    }

    /// Only for these capabilities; for everything if there are none.
    #[must_use]
    pub fn covering(mut self, covers: Vec<Capability>) -> Self {
        self.covers = covers;
        self
    }

    /// What they cover is not sold by the call: whoever has no licence is refused.
    #[must_use]
    pub fn required(mut self, required: bool) -> Self {
        self.required = required;
        self
    }

    /// What happens while nobody can tell whether a licence counts.
    #[must_use]
    pub fn when_unknown(mut self, when: WhenUnknown) -> Self {
        self.when_unknown = when;
        self
    }

    /// Whether handlers see the claims of the licence that a call came with.
    #[must_use]
    pub fn telling_handlers(mut self, tell: bool) -> Self {
        self.tell_handler = tell;
        self
    }

    /// The issuers.
    #[must_use]
    pub fn issuers(&self) -> &[Issuer] {
        &self.issuers
    }

    fn are_for(&self, claim: &EntitlementClaim) -> bool {
        let listed = &claim.listed.capability;
        self.covers.is_empty() || self.covers.iter().any(|own| claims::covers(own, listed))
    }

    /// The claims of the first licence that counts; otherwise what is wrong with the one that came closest.
    async fn verify(&self, claim: &EntitlementClaim) -> Result<(Claims, &Issuer), Failure> {
        let mut closest = if claim.exposed {
            LicenceError::invalid("sent in the clear")
        } else {
            LicenceError::MissingToken
        };
        let mut unknown = None;
        for token in &claim.tokens {
            for issuer in &self.issuers {
                match issuer.verify(token, claim).await {
                    Ok(claims) => return Ok((claims, issuer)),
                    Err(Failure::Unknown(error)) => unknown = Some(error),
                    Err(Failure::Rejected(error)) if rank(&error) >= rank(&closest) => {
                        closest = error;
                    }
                    Err(Failure::Rejected(_)) => {}
                }
            }
        }
        match unknown {
            Some(error) => Err(Failure::Unknown(error)),
            None => Err(closest.into()),
        }
    }
}

/// How close a licence came to counting: of several issuers, the one whose licence it is knows best.
fn rank(error: &LicenceError) -> u8 {
    match error {
        LicenceError::MissingToken => 0,
        LicenceError::InvalidToken { reason } if reason == "unknown kid" => 1,
        LicenceError::ServerMismatch => 2,
        LicenceError::InvalidToken { .. } => 3,
        LicenceError::Revoked => 4,
    }
}

#[async_trait]
impl Entitlement for Licences {
    fn name(&self) -> &str {
        "licence"
    }

    async fn examine(&self, claim: &EntitlementClaim) -> Entitled {
        if !self.are_for(claim) {
            return Entitled::NotCovered(None);
        }
        match self.verify(claim).await {
            Ok((claims, issuer)) => {
                let id = claims.id().unwrap_or_default();
                let cover = Cover::new(format!("licence {id} of {}", issuer.name()));
                Entitled::Covered(match self.tell_handler {
                    true => cover.with_claims(claims.as_map().clone()),
                    false => cover,
                })
            }
            Err(Failure::Unknown(error)) => Entitled::Unknown(error),
            Err(Failure::Rejected(error)) if self.required => {
                // The error as it is on HTTP, at the top and where the other errors have it.
                let mut data = error.to_json();
                data["httpStatus"] = 401.into();
                data["licence"] = error.to_json();
                let refusal = Refusal::new(LICENCE_REQUIRED_CODE, "Licence required");
                Entitled::Refused(refusal.with_data(data))
            }
            Err(Failure::Rejected(error)) => Entitled::NotCovered(Some(error.to_json())),
        }
    }

    fn when_unknown(&self) -> WhenUnknown {
        self.when_unknown
    }
}

/// An id goes into addresses and into the names of keys.
fn check_server_id(id: &str) -> Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if id.is_empty() || id.len() > 128 || !id.bytes().all(plain) {
        return Err(Error::config(
            "the id of a server must be letters, digits, '.', '_' and '-'",
        ));
    }
    Ok(())
}
