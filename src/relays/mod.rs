//! Links to Nostr relays: connected for as long as they are wanted, subscribed, and never trusted. Both the transport for
//! MCP and the rails that reach a wallet over relays stand on them.
//!
//! The way in: `socket` → `link` → `reader` → a bounded queue of deliveries. The way out: `publish` → `outbox` → `link`.
//! What a relay delivers is not verified here; whoever takes it does that before anything else.
//!
//! They are made here, on the types of the `nostr` crate, rather than with the pool of `nostr-sdk`. For a service that
//! moves money the pool does too much and too little: its cache of verified ids lets a malicious relay forge an author,
//! it verifies under one lock, hands over through channels that drop when they lag, writes the whole text of a bad event
//! to the log, waits for the slowest relay, and notices a dead link after a minute.

mod link;
mod meanwhile;
mod outbox;
mod publish;
mod reader;
mod socket;

use std::time::Duration;

use nostr::{Filter, Keys, RelayUrl};

use crate::error::{Error, Result};

pub(crate) use publish::Relays;
pub(crate) use reader::{Delivery, Phase};

/// Longest frame taken from a relay; longer ones are dropped unread.
pub(crate) const MAX_FRAME: usize = 1024 * 1024;
/// Longest frame that the socket buffers before it gives up on the connection.
const MAX_SOCKET_FRAME: usize = 8 * MAX_FRAME;
/// How far the clocks of peers may be apart (N-135): subscriptions reach back this far.
pub(crate) const SKEW: Duration = Duration::from_secs(600);
/// How long a relay that does not answer is waited for before its silence counts as consent.
const SILENCE: Duration = Duration::from_secs(2);
/// How long a message that cannot be sent is kept.
const KEEP_TRYING: Duration = Duration::from_secs(60);
/// Relays of one set of links, at most.
const MOST_RELAYS: usize = 32;

/// What is asked of relays.
#[derive(Clone)]
pub(crate) struct Subscription {
    /// Who asks, where a relay wants to know (NIP-42).
    pub(crate) keys: Keys,
    pub(crate) interests: Vec<Interest>,
}

/// One kind of thing that is asked for.
#[derive(Clone)]
pub(crate) enum Interest {
    /// What is published from now on, and what may have been missed within the tolerated difference of clocks.
    Recent(Filter),
    /// That, and whatever the relay has kept.
    Kept(Filter),
}

/// Relays as addresses, each once.
///
/// # Errors
///
/// [`Config`](crate::ErrorKind::Config) if there is none, if there are too many, or for one that is no address; it is
/// named by its number, because an address may hold an access token.
pub(crate) fn parse_urls<T: AsRef<str>>(relays: &[T]) -> Result<Vec<RelayUrl>> {
    let mut urls = Vec::new();
    for (index, relay) in relays.iter().enumerate() {
        let url = RelayUrl::parse(relay.as_ref()).map_err(|source| {
            Error::config(format!("relay {} is no ws:// or wss:// address", index + 1))
                .with_source(source)
        })?;
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    match urls.len() {
        0 => Err(Error::config("at least one relay is needed")),
        n if n > MOST_RELAYS => Err(Error::config(format!("more than {MOST_RELAYS} relays"))),
        _ => Ok(urls),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_must_be_there_and_be_addresses() {
        assert!(parse_urls::<&str>(&[]).is_err());
        assert!(parse_urls(&["http://example.com"]).is_err());
        let twice = ["ws://localhost:1", "ws://localhost:1/"];
        assert_eq!(parse_urls(&twice).unwrap().len(), 1);
    }
}
