//! The connection URI that a wallet hands out: which wallet, over which relays, and the secret that speaks for it.

use std::fmt;
use std::str::FromStr;

use nostr::{Keys, PublicKey, RelayUrl, SecretKey, Url};

use crate::error::{Error, Result};
use crate::rails::lightning::wallet_name::wallet_name;
use crate::relays;

/// What begins a connection URI. The second is how some wallets write it.
const SCHEMES: [&str; 2] = ["nostr+walletconnect:", "nostrwalletconnect:"];

/// A connection to a NIP-47 wallet, read from its URI. It is a secret: whoever has it may spend.
#[derive(Clone)]
pub struct NwcConnection {
    /// The wallet service.
    pub(super) wallet: PublicKey,
    /// The key that speaks for this connection, and for nothing else.
    pub(super) keys: Keys,
    pub(super) relays: Vec<RelayUrl>,
}

impl FromStr for NwcConnection {
    type Err = Error;

    /// Reads `nostr+walletconnect://PUBKEY?relay=…&secret=…`.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config), which says what is missing and repeats nothing.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let rest = SCHEMES
            .iter()
            .find_map(|scheme| {
                let head = text.get(..scheme.len())?;
                head.eq_ignore_ascii_case(scheme)
                    .then(|| &text[scheme.len()..])
            })
            .ok_or_else(|| {
                Error::config("a wallet's connection must begin with nostr+walletconnect://")
            })?;
        let rest = rest.trim_start_matches('/');
        let (wallet, query) = rest.split_once('?').unwrap_or((rest, ""));
        let wallet = PublicKey::parse(wallet.trim_end_matches('/')).map_err(|_| {
            Error::config(
                "a wallet's connection must name the wallet's public key, 64 hex digits, after nostr+walletconnect://",
            )
        })?;
        // The library decodes what the URI has percent-encoded.
        let query = Url::parse(&format!("nwc://wallet?{query}"))
            .map_err(|_| Error::config("a wallet's connection must be a URI"))?;
        let (mut relays, mut secret) = (Vec::new(), None);
        for (key, value) in query.query_pairs() {
            match key.as_ref() {
                "relay" => relays.push(value.into_owned()),
                "secret" => secret = Some(value.into_owned()),
                _ => {}
            }
        }
        let secret = secret.ok_or_else(|| {
            Error::config("a wallet's connection must carry its secret (secret=…)")
        })?;
        let secret = SecretKey::parse(secret.trim()).map_err(|_| {
            Error::config("the secret of a wallet's connection must be 64 hex digits")
        })?;
        if relays.is_empty() {
            return Err(Error::config(
                "a wallet's connection must name its relay (relay=wss://…)",
            ));
        }
        let relays = relays::parse_urls(&relays)
            .map_err(|error| Error::config(format!("a wallet's connection: {error}")))?;
        Ok(Self {
            wallet,
            keys: Keys::new(secret),
            relays,
        })
    }
}

impl NwcConnection {
    /// Which books a payment over this connection is in: some wallets keep them for each connection.
    pub(super) fn name(&self) -> String {
        let ours = self.keys.public_key();
        wallet_name("nwc", &[&self.wallet.to_hex(), &ours.to_hex()])
    }

    /// The wallet, in the few characters by which people tell keys apart.
    #[must_use]
    pub fn wallet(&self) -> String {
        self.wallet.to_hex().chars().take(8).collect()
    }
}

/// Neither the secret nor the relays, whose addresses may hold a token.
impl fmt::Debug for NwcConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NwcConnection")
            .field("wallet", &self.wallet())
            .field("relays", &self.relays.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALLET: &str = "b889ff5b1513b641e2a139f661a661364979c5beee91842f8f0ef42ab558e9d4";
    const SECRET: &str = "71a8c14c1407c113601079c4302dab36460f0ccd0ad506f1f2dc73b5100e4f3c";

    #[test]
    fn the_example_of_nip_47_and_its_dialects_are_read() {
        for text in [
            format!(
                "nostr+walletconnect://{WALLET}?relay=wss%3A%2F%2Frelay.damus.io&secret={SECRET}"
            ),
            format!(
                " nostr+walletconnect:{WALLET}?secret={SECRET}&relay=wss://relay.damus.io&lud16=a@b.c\n"
            ),
            format!(
                "nostrwalletconnect://{WALLET}/?relay=wss%3A%2F%2Frelay.damus.io&secret={SECRET}"
            ),
            format!(
                "NOSTR+WALLETCONNECT://{WALLET}?relay=wss%3A%2F%2Frelay.damus.io&secret={SECRET}"
            ),
        ] {
            let connection: NwcConnection = text.parse().unwrap();
            assert_eq!(connection.wallet.to_hex(), WALLET);
            assert_eq!(connection.keys.secret_key().to_secret_hex(), SECRET);
            assert_eq!(
                connection.relays,
                [RelayUrl::parse("wss://relay.damus.io").unwrap()]
            );
        }
        let two =
            format!("nostr+walletconnect://{WALLET}?relay=wss://a&relay=ws://b:1&secret={SECRET}");
        assert_eq!(two.parse::<NwcConnection>().unwrap().relays.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named_and_nothing_is_repeated() {
        for (text, named) in [
            (
                format!("https://{WALLET}?secret={SECRET}"),
                "nostr+walletconnect://",
            ),
            (SECRET.to_owned(), "nostr+walletconnect://"),
            (
                format!("nostr+walletconnect://?relay=wss://a&secret={SECRET}"),
                "public key",
            ),
            (
                format!("nostr+walletconnect://{SECRET}00?relay=wss://a&secret={SECRET}"),
                "public key",
            ),
            (
                format!("nostr+walletconnect://{WALLET}?relay=wss://a"),
                "secret=…",
            ),
            (
                format!("nostr+walletconnect://{WALLET}?relay=wss://a&secret={SECRET}0"),
                "64 hex digits",
            ),
            (
                format!("nostr+walletconnect://{WALLET}?secret={SECRET}"),
                "relay=wss://…",
            ),
            (
                format!("nostr+walletconnect://{WALLET}?relay=https://{SECRET}&secret={SECRET}"),
                "relay 1",
            ),
            ("é".to_owned(), "nostr+walletconnect://"),
        ] {
            let error = text.parse::<NwcConnection>().unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(named), "{shown}");
            assert!(!shown.contains(SECRET), "{shown}");
        }
    }

    #[test]
    fn connections_to_one_wallet_have_names_of_their_own() {
        let other = "00".repeat(31) + "07";
        let [one, same, another] = [
            format!("?relay=wss://a&secret={SECRET}"),
            format!("?relay=wss://b&relay=wss://c&secret={SECRET}"),
            format!("?relay=wss://a&secret={other}"),
        ]
        .map(|rest| {
            let text = format!("nostr+walletconnect://{WALLET}{rest}");
            text.parse::<NwcConnection>().unwrap().name()
        });
        assert_eq!(one, same, "the relays are only the way there");
        assert_ne!(one, another);
    }

    #[test]
    fn debug_shows_no_secret_and_no_address() {
        let text =
            format!("nostr+walletconnect://{WALLET}?relay=wss://r.example/token&secret={SECRET}");
        let shown = format!("{:?}", text.parse::<NwcConnection>().unwrap());
        assert!(
            !shown.contains(SECRET) && !shown.contains("token"),
            "{shown}"
        );
    }
}
