//! Licences of our own: signed with a key beside the ledger, written down in it, bound to one client each.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::exit::{Failure, Outcome};
use super::wire_up::Books;
use crate::entitlement::licence::{KeyFile, LicenceSigner, LicenceTerms};
use crate::error::{Error, Result};
use crate::ledger::{IssuedLicence, LicenceBooks};
use crate::payment::{BearerToken, Capability, ClientPubkey, ServerPubkey, Timestamp};
use crate::transport::nostr::NostrKeys;

/// What we call ourselves in licences.
pub(super) const ISSUER: &str = "tollkeeper";

/// Issues licences for one server.
#[derive(Debug, Clone)]
pub(super) struct OwnLicences {
    pub(super) server_id: String,
    pub(super) keys: KeyFile,
    pub(super) books: Arc<dyn LicenceBooks>,
}

impl OwnLicences {
    /// Those of `server`, whose books are in the file `ledger`. Makes the first key if there is none.
    pub(super) fn beside(ledger: &Path, server: ServerPubkey, books: &Books) -> Outcome<Self> {
        let own = Self {
            server_id: server.to_string(),
            keys: KeyFile::new(ledger.with_extension("licence-keys.json")),
            books: Arc::clone(&books.licences),
        };
        if own.keys.newest(&own.server_id)?.is_none() {
            own.rotate()?;
        }
        Ok(own)
    }

    /// Makes a new key, which signs from now on; what was signed before still counts.
    pub(super) fn rotate(&self) -> Outcome<u32> {
        // A Nostr key is 32 random bytes, which is what is needed here.
        let secret = NostrKeys::generate().reveal_secret_hex();
        Ok(self.keys.rotate(&self.server_id, &secret)?)
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
                capabilities: words.join(" "),
                issued_at: now,
                expires_at: now.plus(lives),
                revoked: None,
            })
            .await?;
        if issued.holder != holder {
            return Err(Error::ledger("a licence of that name is somebody else's"));
        }
        let (keys, server_id) = (self.keys.clone(), self.server_id.clone());
        let newest = tokio::task::spawn_blocking(move || keys.newest(&server_id)).await;
        let newest =
            newest.unwrap_or_else(|_| Err(Error::config("the signing keys cannot be read")));
        let (version, key) =
            newest?.ok_or_else(|| Error::config("there is no key to sign licences with"))?;
        let signer = LicenceSigner::new(ISSUER, &self.server_id, version, key)?;
        let terms = LicenceTerms::new(&issued.id, &issued.purchase, issued.issued_at)
            .held_by(holder)
            .good_for(capabilities)
            .living(issued.expires_at.since(issued.issued_at));
        let token = signer
            .sign(&terms)
            .ok_or_else(|| Error::config("the licence would be longer than a licence may be"))?;
        Ok((issued, token))
    }
}

/// Reads capabilities as they are typed.
pub(super) fn capabilities(words: &[String]) -> Outcome<Vec<Capability>> {
    let read: Result<Vec<Capability>> = words.iter().map(|word| word.parse()).collect();
    read.map_err(|error| Failure::usage(format!("--covers: {error}")))
}
