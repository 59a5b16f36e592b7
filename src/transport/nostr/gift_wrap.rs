//! CEP-4 and CEP-19: the signed message, encrypted to its recipient, inside an event of a throw-away key.
//!
//! There is no seal and no rumour as in NIP-59: the inner event carries the author's signature, and its id is the one
//! that answers are correlated to.

use nostr::nips::nip44::{self, Version};
use nostr::{Event, JsonUtil, Keys, Kind, PublicKey, SecretKey, Tag, Tags, Timestamp};

use super::config::{MESSAGE, WRAP_EPHEMERAL, WRAP_PERSISTENT};
use super::event;
use crate::error::{Error, ErrorKind, Result};

/// Longest text that NIP-44 takes in this version of the library.
pub(super) const MAX_INNER: usize = 65_408;

/// Which of the two kinds of wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrap {
    /// 1059: relays store it.
    Persistent,
    /// 21059: relays pass it on.
    Ephemeral,
}

impl Wrap {
    pub(super) fn kind(self) -> u16 {
        match self {
            Self::Persistent => WRAP_PERSISTENT,
            Self::Ephemeral => WRAP_EPHEMERAL,
        }
    }

    pub(super) fn from_kind(kind: u16) -> Option<Self> {
        match kind {
            WRAP_PERSISTENT => Some(Self::Persistent),
            WRAP_EPHEMERAL => Some(Self::Ephemeral),
            _ => None,
        }
    }
}

/// Refuses what cannot be wrapped, before anything is sent.
pub(super) fn check_size(inner: &str) -> Result<()> {
    if inner.len() > MAX_INNER {
        let text = format!(
            "{} bytes are more than an encrypted message can carry ({MAX_INNER})",
            inner.len()
        );
        return Err(Error::new(ErrorKind::TooLarge, text));
    }
    Ok(())
}

/// Wraps the JSON of a signed event. The time is now: peers subscribe from their start, so a back-dated wrap is lost.
pub(super) fn wrap(inner: &str, recipient: &PublicKey, wrap: Wrap) -> Result<Event> {
    check_size(inner)?;
    // Not `Keys::generate`, which computes the public key twice.
    let once = Keys::new(SecretKey::generate());
    let content = nip44::encrypt(once.secret_key(), recipient, inner, Version::V2)
        .map_err(|source| Error::transport("cannot encrypt").with_source(source))?;
    let (kind, tags) = (
        Kind::from(wrap.kind()),
        Tags::from_list(vec![Tag::public_key(*recipient)]),
    );
    Ok(event::sign(&once, kind, content, tags, Timestamp::now()))
}

/// Opens a wrap and verifies what is inside.
pub(super) fn unwrap(keys: &Keys, outer: &Event) -> Result<Event> {
    let json = nip44::decrypt(keys.secret_key(), &outer.pubkey, &outer.content)
        .map_err(|_| Error::wire("a wrap that is not for this key"))?;
    let inner = Event::from_json(json).map_err(|_| Error::wire("a wrap without an event"))?;
    if !event::has_own_id(&inner) || !inner.verify_signature() {
        return Err(Error::wire("a wrap around an event that is not genuine"));
    }
    if inner.kind.as_u16() != MESSAGE {
        return Err(Error::wire("a wrap around another kind of event"));
    }
    Ok(inner)
}

#[cfg(test)]
mod tests {
    use nostr::EventBuilder;

    use super::*;

    fn inner(author: &Keys, content: &str) -> String {
        EventBuilder::new(Kind::from(MESSAGE), content)
            .sign_with_keys(author)
            .unwrap()
            .as_json()
    }

    #[test]
    fn a_wrap_is_as_cep_4_says() {
        let (author, recipient) = (Keys::generate(), Keys::generate());
        for kind in [Wrap::Persistent, Wrap::Ephemeral] {
            let text = inner(&author, "{}");
            let outer = wrap(&text, &recipient.public_key(), kind).unwrap();
            assert_eq!(outer.kind.as_u16(), kind.kind());
            assert_ne!(outer.pubkey, author.public_key());
            let tags: Vec<_> = outer
                .tags
                .iter()
                .map(|tag| tag.as_slice().to_vec())
                .collect();
            assert_eq!(tags, [["p".to_owned(), recipient.public_key().to_hex()]]);
            assert!(nostr::Timestamp::now().as_secs() - outer.created_at.as_secs() < 5);
            assert_eq!(unwrap(&recipient, &outer).unwrap().as_json(), text);
            assert!(unwrap(&Keys::generate(), &outer).is_err());
        }
    }

    #[test]
    fn a_forged_author_inside_is_refused() {
        let (author, recipient) = (Keys::generate(), Keys::generate());
        let forged = inner(&author, "{}").replace("\"{}\"", "\"{ }\"");
        let outer = wrap(&forged, &recipient.public_key(), Wrap::Ephemeral).unwrap();
        assert!(unwrap(&recipient, &outer).is_err());
    }

    #[test]
    fn the_limit_is_exact_and_above_it_is_too_large() {
        let recipient = Keys::generate();
        assert!(
            wrap(
                &"x".repeat(MAX_INNER),
                &recipient.public_key(),
                Wrap::Persistent
            )
            .is_ok()
        );
        let error = wrap(
            &"x".repeat(MAX_INNER + 1),
            &recipient.public_key(),
            Wrap::Persistent,
        )
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }
}
