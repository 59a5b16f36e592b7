//! What can be chosen, and the fixed numbers that bound everything else.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use nostr::{Filter, Keys, Kind, RelayUrl};
use serde::{Deserialize, Serialize};

use super::keys::NostrKeys;
use crate::error::{Error, Result};
use crate::relays::{self, Interest, Subscription};

/// Kind of a direct message, always ephemeral.
pub(super) const MESSAGE: u16 = 25910;
/// Kind of a gift wrap that relays store (CEP-4).
pub(super) const WRAP_PERSISTENT: u16 = 1059;
/// Kind of a gift wrap that relays pass on only (CEP-19).
pub(super) const WRAP_EPHEMERAL: u16 = 21059;

/// Longest content of an event sent in the clear: what public relays commonly take.
pub(super) const MAX_PLAIN_CONTENT: usize = 256 * 1024;
/// How long `connect` waits for the first relay unless told otherwise.
pub(super) const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Which messages travel encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EncryptionMode {
    /// A server answers as it was asked; a client encrypts.
    #[default]
    Optional,
    /// What is not encrypted is ignored.
    Required,
    /// What is encrypted is ignored.
    Disabled,
}

/// Which gift wraps are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum GiftWrapMode {
    /// Both; ephemeral where the other side is known to take them.
    #[default]
    Optional,
    /// Kind 21059 only.
    Ephemeral,
    /// Kind 1059 only.
    Persistent,
}

impl FromStr for EncryptionMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "optional" => Ok(Self::Optional),
            "required" => Ok(Self::Required),
            "disabled" => Ok(Self::Disabled),
            _ => Err(Error::config(
                "encryption must be optional, required or disabled",
            )),
        }
    }
}

impl FromStr for GiftWrapMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "optional" => Ok(Self::Optional),
            "ephemeral" => Ok(Self::Ephemeral),
            "persistent" => Ok(Self::Persistent),
            _ => Err(Error::config(
                "gift wrap must be optional, ephemeral or persistent",
            )),
        }
    }
}

impl EncryptionMode {
    pub(super) fn takes_plain(self) -> bool {
        self != Self::Required
    }

    pub(super) fn takes_wraps(self) -> bool {
        self != Self::Disabled
    }
}

impl GiftWrapMode {
    pub(super) fn takes_persistent(self) -> bool {
        self != Self::Ephemeral
    }

    pub(super) fn takes_ephemeral(self) -> bool {
        self != Self::Persistent
    }
}

/// How a server introduces itself to people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ServerInfo {
    /// Its name.
    pub name: Option<String>,
    /// What it is for.
    pub about: Option<String>,
    /// Where to read more.
    pub website: Option<String>,
    /// Address of a picture.
    pub picture: Option<String>,
}

impl ServerInfo {
    /// A server with these descriptions.
    #[must_use]
    pub fn new(
        name: Option<String>,
        about: Option<String>,
        website: Option<String>,
        picture: Option<String>,
    ) -> Self {
        Self {
            name,
            about,
            website,
            picture,
        }
    }
}

/// What both ends need to know.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) keys: NostrKeys,
    pub(super) relays: Vec<String>,
    pub(super) encryption: EncryptionMode,
    pub(super) gift_wrap: GiftWrapMode,
    /// Messages that are too large for one event are taken, and sent, in pieces.
    pub(super) oversized: bool,
    pub(super) ready_timeout: Duration,
}

impl Settings {
    pub(super) fn new(keys: NostrKeys) -> Self {
        Self {
            keys,
            relays: Vec::new(),
            encryption: EncryptionMode::default(),
            gift_wrap: GiftWrapMode::default(),
            oversized: true,
            ready_timeout: READY_TIMEOUT,
        }
    }

    pub(super) fn keys(&self) -> &Keys {
        self.keys.inner()
    }

    /// The relays as addresses, each once.
    pub(super) fn relay_urls(&self) -> Result<Vec<RelayUrl>> {
        relays::parse_urls(&self.relays)
    }

    /// What is asked of the relays: messages to us, of the kinds that are accepted.
    pub(super) fn subscription(&self) -> Subscription {
        let filter = Filter::new().pubkey(self.keys.public()).kinds(self.kinds());
        Subscription {
            keys: self.keys().clone(),
            interests: vec![Interest::Recent(filter)],
        }
    }

    /// The kinds to listen for: what is not accepted is not even asked for.
    fn kinds(&self) -> Vec<Kind> {
        let wraps = self.encryption.takes_wraps();
        [
            (self.encryption.takes_plain(), MESSAGE),
            (wraps && self.gift_wrap.takes_persistent(), WRAP_PERSISTENT),
            (wraps && self.gift_wrap.takes_ephemeral(), WRAP_EPHEMERAL),
        ]
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .map(|(_, kind)| Kind::from(kind))
        .collect()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("keys", &self.keys)
            .field("relays", &self.relays.len())
            .field("encryption", &self.encryption)
            .field("gift_wrap", &self.gift_wrap)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subscription_is_as_narrow_as_the_modes() {
        let mut settings = Settings::new(NostrKeys::generate());
        let kinds = |s: &Settings| s.kinds().iter().map(Kind::as_u16).collect::<Vec<_>>();
        assert_eq!(kinds(&settings), [MESSAGE, WRAP_PERSISTENT, WRAP_EPHEMERAL]);
        settings.encryption = EncryptionMode::Required;
        settings.gift_wrap = GiftWrapMode::Ephemeral;
        assert_eq!(kinds(&settings), [WRAP_EPHEMERAL]);
        settings.encryption = EncryptionMode::Disabled;
        assert_eq!(kinds(&settings), [MESSAGE]);
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let settings = Settings::new(NostrKeys::generate());
        assert!(!format!("{settings:?}").contains(&settings.keys.reveal_secret_hex()));
    }
}
