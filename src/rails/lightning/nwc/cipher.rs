//! What client and wallet say to each other, encrypted.
//!
//! A wallet that offers NIP-44 is spoken to in NIP-44, every other in NIP-04. What comes is read by its own form: NIP-04
//! carries `?iv=`, which NIP-44 cannot contain, so a wallet that mixes them up is still understood. Every event is signed
//! by its author, so nobody in between can choose.

use nostr::nips::{nip04, nip44};
use nostr::{PublicKey, SecretKey};

/// How requests are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encryption {
    Nip44,
    Nip04,
}

impl Encryption {
    /// The name in `encryption` tags.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Self::Nip44 => "nip44_v2",
            Self::Nip04 => "nip04",
        }
    }

    /// The best of what an info event offers. One that says nothing is from before there was a choice.
    pub(crate) fn best_of<'a>(offered: impl IntoIterator<Item = &'a str>) -> Self {
        let mut words = offered.into_iter().flat_map(str::split_whitespace);
        if words.any(|word| word == Self::Nip44.tag()) {
            Self::Nip44
        } else {
            Self::Nip04
        }
    }

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Nip44 => Self::Nip04,
            Self::Nip04 => Self::Nip44,
        }
    }
}

/// Encrypts `text` for `peer`. `None`: it is too long.
pub(crate) fn seal(
    secret: &SecretKey,
    peer: &PublicKey,
    encryption: Encryption,
    text: &str,
) -> Option<String> {
    match encryption {
        Encryption::Nip44 => nip44::encrypt(secret, peer, text, nip44::Version::V2).ok(),
        Encryption::Nip04 => nip04::encrypt(secret, peer, text).ok(),
    }
}

/// Reads what `peer` encrypted.
pub(crate) fn open(secret: &SecretKey, peer: &PublicKey, sealed: &str) -> Option<String> {
    if sealed.contains("?iv=") {
        nip04::decrypt(secret, peer, sealed).ok()
    } else {
        nip44::decrypt(secret, peer, sealed).ok()
    }
}

#[cfg(test)]
mod tests {
    use nostr::Keys;

    use super::*;

    #[test]
    fn d_06_both_encryptions_are_read_by_their_form() {
        let (wallet, client) = (Keys::generate(), Keys::generate());
        for encryption in [Encryption::Nip44, Encryption::Nip04] {
            let sealed = seal(wallet.secret_key(), &client.public_key(), encryption, "{}").unwrap();
            let opened = open(client.secret_key(), &wallet.public_key(), &sealed);
            assert_eq!(opened.as_deref(), Some("{}"));
            let stranger = Keys::generate();
            assert_eq!(
                open(stranger.secret_key(), &wallet.public_key(), &sealed),
                None
            );
        }
        for junk in ["", "x", "?iv=", "aGk=?iv=aGk=", "é"] {
            assert_eq!(open(client.secret_key(), &wallet.public_key(), junk), None);
        }
    }

    #[test]
    fn nip_44_is_preferred_and_silence_means_nip_04() {
        let best = |offered: &[&str]| Encryption::best_of(offered.iter().copied());
        assert_eq!(best(&["nip44_v2 nip04"]), Encryption::Nip44);
        assert_eq!(best(&["nip04", "nip44_v2"]), Encryption::Nip44);
        assert_eq!(best(&["nip04"]), Encryption::Nip04);
        assert_eq!(best(&["nip44_v3"]), Encryption::Nip04);
        assert_eq!(best(&[]), Encryption::Nip04);
    }
}
