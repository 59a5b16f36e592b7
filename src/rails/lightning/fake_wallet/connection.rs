//! What connects a program with its wallet.

use std::fmt;

use nostr::nips::nip47::NostrWalletConnectURI;
use nostr::{Keys, PublicKey, RelayUrl};

/// A `nostr+walletconnect://` URI. Whoever has it can spend what the wallet holds, so `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionUri(String);

impl ConnectionUri {
    pub(super) fn new(wallet: PublicKey, relays: Vec<RelayUrl>, client: &Keys) -> Self {
        let uri = NostrWalletConnectURI::new(wallet, relays, client.secret_key().clone(), None);
        Self(uri.to_string())
    }

    /// The URI, for the one program that is to use the wallet.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ConnectionUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionUri(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uri_holds_what_a_client_needs_and_is_not_printed() {
        let (wallet, client) = (Keys::generate(), Keys::generate());
        let relays =
            ["ws://127.0.0.1:1", "ws://127.0.0.1:2"].map(|url| RelayUrl::parse(url).unwrap());
        let uri = ConnectionUri::new(wallet.public_key(), relays.to_vec(), &client);
        let read = NostrWalletConnectURI::parse(uri.reveal()).unwrap();
        assert_eq!(read.public_key, wallet.public_key());
        assert_eq!(read.relays, relays);
        assert_eq!(&read.secret, client.secret_key());
        let secret = client.secret_key().to_secret_hex();
        assert!(uri.reveal().contains(&secret) && !format!("{uri:?}").contains(&secret));
    }
}
