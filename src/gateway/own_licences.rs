//! Licences of our own: written down in the ledger, bound to one client each, and signed with a key beside the ledger, or with the
//! server's own key, for everybody to verify.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::exit::{Failure, Outcome};
use super::wire_up::Books;
use crate::entitlement::licence::{KeyFile, LicenceSigner, LicenceTerms, PublicSigner};
use crate::error::{Error, Result};
use crate::ledger::{IssuedLicence, LicenceBooks};
use crate::payment::{BearerToken, Capability, ClientPubkey, Timestamp};
use crate::transport::nostr::NostrKeys;

/// What we call ourselves in licences.
pub(super) const ISSUER: &str = "tollkeeper";

/// How a licence is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Signed {
    /// A JWT, with the key beside the ledger: who has that key can verify it.
    #[default]
    Secretly,
    /// A Nostr event, with the server's key: anybody can verify it.
    Publicly,
}

impl Signed {
    /// What the name of such a licence begins with. Revocations of public ones are published, and told by it.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Secretly => "tk_",
            Self::Publicly => "np_",
        }
    }

    /// The name of a licence that comes of `origin`: 64 hex digits that no other licence comes of.
    pub(super) fn id(self, origin: &str) -> String {
        let some = origin.get(..32).unwrap_or(origin);
        format!("{}{some}", self.prefix())
    }

    /// How the licence `id` is signed.
    pub(super) fn of(id: &str) -> Self {
        match id.starts_with(Self::Publicly.prefix()) {
            true => Self::Publicly,
            false => Self::Secretly,
        }
    }
}

/// Issues licences for one server.
#[derive(Debug, Clone)]
pub(super) struct OwnLicences {
    pub(super) server_id: String,
    pub(super) keys: KeyFile,
    pub(super) public: PublicSigner,
    pub(super) books: Arc<dyn LicenceBooks>,
}

impl OwnLicences {
    /// Those of the server with these `keys`, whose books are in the file `ledger`. Makes the first signing key if there is none.
    pub(super) fn beside(ledger: &Path, keys: &NostrKeys, books: &Books) -> Outcome<Self> {
        let own = Self {
            server_id: keys.server_pubkey().to_string(),
            keys: KeyFile::new(ledger.with_extension("licence-keys.json")),
            public: PublicSigner::new(&keys.reveal_secret_hex())?,
            books: Arc::clone(&books.licences),
        };
        own.keys.ensure(&own.server_id, &new_secret())?;
        Ok(own)
    }

    /// Makes a new key, which signs from now on; what was signed before still counts.
    pub(super) fn rotate(&self) -> Outcome<u32> {
        Ok(self.keys.rotate(&self.server_id, &new_secret())?)
    }

    /// Issues the licence `id` to `holder`, or issues it again as it was.
    pub(super) async fn issue(
        &self,
        id: String,
        holder: ClientPubkey,
        purchase: String,
        capabilities: Vec<Capability>,
        (now, lives): (Timestamp, Duration),
    ) -> Result<(IssuedLicence, BearerToken)> {
        let words: Vec<String> = capabilities.iter().map(ToString::to_string).collect();
        let issued = self
            .books
            .note_issued(IssuedLicence {
                id,
                holder,
                purchase,
                // Names may hold spaces.
                capabilities: words.join("\n"),
                issued_at: now,
                expires_at: now.plus(lives),
                revoked: None,
            })
            .await?;
        if issued.holder != holder {
            return Err(Error::ledger("a licence of that name is somebody else's"));
        }
        // As it is on the books: issued again, it is good for what it was good for.
        let covers: Result<Vec<Capability>> = issued.capabilities.lines().map(str::parse).collect();
        let terms = LicenceTerms::new(&issued.id, &issued.purchase, issued.issued_at)
            .held_by(issued.holder)
            .good_for(covers?)
            .living(issued.expires_at.since(issued.issued_at));
        let token = match Signed::of(&issued.id) {
            Signed::Publicly => self.public.sign(&terms),
            Signed::Secretly => self.signer().await?.sign(&terms),
        };
        let token = token
            .ok_or_else(|| Error::config("the licence would be longer than a licence may be"))?;
        Ok((issued, token))
    }

    /// Signs with the newest key.
    async fn signer(&self) -> Result<LicenceSigner> {
        let (keys, server_id) = (self.keys.clone(), self.server_id.clone());
        let newest = tokio::task::spawn_blocking(move || keys.newest(&server_id)).await;
        let newest =
            newest.unwrap_or_else(|_| Err(Error::config("the signing keys cannot be read")));
        let (version, key) =
            newest?.ok_or_else(|| Error::config("there is no key to sign licences with"))?;
        LicenceSigner::new(ISSUER, &self.server_id, version, key)
    }
}

/// A Nostr key is 32 random bytes, which is what is needed here.
fn new_secret() -> String {
    NostrKeys::generate().reveal_secret_hex()
}

/// Reads capabilities as they are typed.
pub(super) fn capabilities(words: &[String]) -> Outcome<Vec<Capability>> {
    let read: Result<Vec<Capability>> = words.iter().map(|word| word.parse()).collect();
    read.map_err(|error| Failure::usage(format!("--covers: {error}")))
}
