//! Who subscribed to which resource of a shared child.
//!
//! The child sees one subscriber; an update goes to the clients that asked for it and to nobody else.

use std::collections::VecDeque;

use crate::payment::ClientPubkey;

/// How many subscriptions are kept. Clients over relays do not say goodbye, so the oldest make room.
const MOST: usize = 4096;

/// Subscriptions, oldest first.
#[derive(Debug, Default)]
pub(super) struct Subscriptions(VecDeque<(ClientPubkey, String)>);

impl Subscriptions {
    pub(super) fn add(&mut self, client: ClientPubkey, uri: &str) {
        self.remove(&client, uri);
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back((client, uri.to_owned()));
    }

    pub(super) fn remove(&mut self, client: &ClientPubkey, uri: &str) {
        self.0
            .retain(|(who, what)| (who, what.as_str()) != (client, uri));
    }

    /// Whether somebody is subscribed to `uri`.
    pub(super) fn has(&self, uri: &str) -> bool {
        self.0.iter().any(|(_, what)| what == uri)
    }

    /// Who wants to hear about `uri`: whoever subscribed to it or to something that it is a part of.
    pub(super) fn subscribers(&self, uri: &str) -> Vec<ClientPubkey> {
        let mut subscribers = Vec::new();
        for (who, what) in &self.0 {
            let part = uri.strip_prefix(what.as_str()).is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('/') || what.ends_with('/')
            });
            if part && !subscribers.contains(who) {
                subscribers.push(*who);
            }
        }
        subscribers
    }

    /// Everything that is subscribed to, each once: what a new child must be told.
    pub(super) fn uris(&self) -> Vec<String> {
        let mut uris: Vec<String> = self.0.iter().map(|(_, uri)| uri.clone()).collect();
        uris.sort();
        uris.dedup();
        uris
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_reach_their_subscribers_only() {
        let (a, b) = (
            ClientPubkey::from_bytes([1; 32]),
            ClientPubkey::from_bytes([2; 32]),
        );
        let mut subscriptions = Subscriptions::default();
        subscriptions.add(a, "x://1");
        subscriptions.add(a, "x://1");
        subscriptions.add(b, "x://2");
        assert_eq!(subscriptions.subscribers("x://1"), [a]);
        assert_eq!(subscriptions.subscribers("x://1/part"), [a]);
        assert!(subscriptions.subscribers("x://12").is_empty());
        subscriptions.add(b, "x://1");
        subscriptions.remove(&a, "x://1");
        assert_eq!(subscriptions.subscribers("x://1"), [b]);
        assert_eq!(subscriptions.uris(), ["x://1", "x://2"]);
        subscriptions.remove(&b, "x://1");
        assert!(!subscriptions.has("x://1") && subscriptions.has("x://2"));
    }
}
