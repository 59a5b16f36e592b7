//! Keys and names as people write them, so that nothing outside this folder needs a Nostr type.

use std::fmt;

use nostr::nips::nip19::{FromBech32, Nip19Profile, ToBech32};
use nostr::{EventId, Keys, PublicKey};

use crate::error::{Error, Result};
use crate::payment::{ClientPubkey, RequestEventId, ServerPubkey};

/// The secret key that messages are signed with. Its text form is only given out on request.
#[derive(Clone)]
pub struct NostrKeys(Keys);

impl NostrKeys {
    /// A fresh random key.
    #[must_use]
    pub fn generate() -> Self {
        Self(Keys::generate())
    }

    /// Reads `nsec1…` or 64 hex digits.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) for any other text. The text is not repeated.
    pub fn parse(text: &str) -> Result<Self> {
        // The library's error may quote its input, so it is not kept as a source.
        Keys::parse(text.trim())
            .map(Self)
            .map_err(|_| Error::config("a secret key must be nsec1… or 64 hex digits"))
    }

    /// The secret as hex, for whoever has to store it.
    #[must_use]
    pub fn reveal_secret_hex(&self) -> String {
        self.0.secret_key().to_secret_hex()
    }

    /// The public key as `npub1…`.
    #[must_use]
    pub fn npub(&self) -> String {
        npub(&self.0.public_key())
    }

    /// The public key of a server that signs with this key.
    #[must_use]
    pub fn server_pubkey(&self) -> ServerPubkey {
        ServerPubkey::from_bytes(self.0.public_key().to_bytes())
    }

    /// The public key of a client that signs with this key.
    #[must_use]
    pub fn client_pubkey(&self) -> ClientPubkey {
        ClientPubkey::from_bytes(self.0.public_key().to_bytes())
    }

    pub(super) fn inner(&self) -> &Keys {
        &self.0
    }

    pub(super) fn public(&self) -> PublicKey {
        self.0.public_key()
    }
}

impl fmt::Debug for NostrKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NostrKeys({})", self.server_pubkey().short())
    }
}

/// Reads the name of a server: `npub1…`, `nprofile1…` (whose relays come second) or 64 hex digits, each also behind
/// `nostr:`.
///
/// # Errors
///
/// [`Config`](crate::ErrorKind::Config) for any other text.
pub fn parse_server(text: &str) -> Result<(ServerPubkey, Vec<String>)> {
    let text = text.trim();
    let text = text.strip_prefix("nostr:").unwrap_or(text);
    let wrong = || Error::config("a server must be npub1…, nprofile1… or 64 hex digits");
    if text.starts_with("nprofile1") {
        let profile =
            Nip19Profile::from_bech32(text).map_err(|source| wrong().with_source(source))?;
        let relays = profile.relays.iter().map(ToString::to_string).collect();
        return Ok((
            ServerPubkey::from_bytes(profile.public_key.to_bytes()),
            relays,
        ));
    }
    let key = PublicKey::parse(text).map_err(|source| wrong().with_source(source))?;
    Ok((ServerPubkey::from_bytes(key.to_bytes()), Vec::new()))
}

pub(super) fn npub(key: &PublicKey) -> String {
    key.to_bech32().unwrap_or_else(|never| match never {})
}

pub(super) fn client_of(key: &PublicKey) -> ClientPubkey {
    ClientPubkey::from_bytes(key.to_bytes())
}

pub(super) fn event_of(id: &EventId) -> RequestEventId {
    RequestEventId::from_bytes(id.to_bytes())
}

/// A public key from its bytes. Which bytes are points of the curve is only checked when they are used.
pub(super) fn public_key(bytes: &[u8; 32]) -> PublicKey {
    PublicKey::from_byte_array(*bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_and_never_show_the_secret() {
        let keys = NostrKeys::generate();
        let again = NostrKeys::parse(&keys.reveal_secret_hex()).unwrap();
        assert_eq!(keys.npub(), again.npub());
        assert!(!format!("{keys:?}").contains(&keys.reveal_secret_hex()));
        let error = NostrKeys::parse("nsec1secret").unwrap_err();
        assert!(!format!("{error:?}").contains("nsec1secret"));
    }

    #[test]
    fn servers_are_read_in_every_notation() {
        let keys = NostrKeys::generate();
        let hex = keys.server_pubkey().to_string();
        let relay = nostr::RelayUrl::parse("wss://relay.example.com").unwrap();
        let profile = Nip19Profile::new(keys.public(), [relay])
            .to_bech32()
            .unwrap();
        for text in [hex.clone(), keys.npub(), format!("nostr:{}", keys.npub())] {
            assert_eq!(
                parse_server(&text).unwrap(),
                (keys.server_pubkey(), Vec::new())
            );
        }
        let (server, relays) = parse_server(&profile).unwrap();
        assert_eq!(server, keys.server_pubkey());
        assert_eq!(relays.len(), 1);
        assert!(parse_server("npub1nonsense").is_err());
    }
}
