//! How NIP-47 messages are encrypted: NIP-44, or NIP-04 for those that know no better.
//!
//! Written apart from the client's own code for the same: a wallet that shares its mistakes would not show them.

use nostr::nips::{nip04, nip44};
use nostr::{Event, Keys, PublicKey, TagKind};

/// The name of NIP-44 in the `encryption` tag.
pub(super) const NIP44: &str = "nip44_v2";
/// The name of NIP-04.
pub(super) const NIP04: &str = "nip04";

/// One way to encrypt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cipher {
    Nip04,
    Nip44,
}

impl Cipher {
    /// How `request` says that it is encrypted; `None` if in a way that nobody knows. What does not say is old, and NIP-04.
    pub(super) fn of(request: &Event) -> Option<Self> {
        let tag = request.tags.find(TagKind::custom("encryption"));
        match tag.and_then(|tag| tag.content()) {
            None | Some(NIP04) => Some(Self::Nip04),
            Some(NIP44) => Some(Self::Nip44),
            Some(_) => None,
        }
    }

    /// Decrypts what `peer` wrote to the owner of `keys`.
    pub(super) fn open(self, keys: &Keys, peer: &PublicKey, content: &str) -> Option<String> {
        match self {
            Self::Nip04 => nip04::decrypt(keys.secret_key(), peer, content).ok(),
            Self::Nip44 => nip44::decrypt(keys.secret_key(), peer, content).ok(),
        }
    }

    /// Encrypts for `peer`. `None` if it is too long.
    pub(super) fn seal(self, keys: &Keys, peer: &PublicKey, text: &str) -> Option<String> {
        match self {
            Self::Nip04 => nip04::encrypt(keys.secret_key(), peer, text).ok(),
            Self::Nip44 => nip44::encrypt(keys.secret_key(), peer, text, nip44::Version::V2).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use nostr::{EventBuilder, Kind, Tag};

    use super::*;

    #[test]
    fn what_is_sealed_can_be_opened_by_the_other_side_only() {
        let (wallet, client, stranger) = (Keys::generate(), Keys::generate(), Keys::generate());
        for cipher in [Cipher::Nip04, Cipher::Nip44] {
            let sealed = cipher.seal(&wallet, &client.public_key(), "{}").unwrap();
            let open = |keys: &Keys| cipher.open(keys, &wallet.public_key(), &sealed);
            assert_eq!(open(&client).as_deref(), Some("{}"));
            assert_ne!(open(&stranger).as_deref(), Some("{}"));
        }
    }

    #[test]
    fn the_request_says_how_it_is_encrypted() {
        let of = |tag: Option<&str>| {
            let tags = tag.map(|tag| Tag::parse(["encryption", tag]).unwrap());
            let request = EventBuilder::new(Kind::WalletConnectRequest, "").tags(tags);
            Cipher::of(&request.sign_with_keys(&Keys::generate()).unwrap())
        };
        assert_eq!(of(None), Some(Cipher::Nip04));
        assert_eq!(of(Some("nip04")), Some(Cipher::Nip04));
        assert_eq!(of(Some("nip44_v2")), Some(Cipher::Nip44));
        assert_eq!(of(Some("nip99")), None);
    }
}
