//! What is wanted of a relay for a while, beside the lasting subscription.

use nostr::{ClientMessage, Filter, JsonUtil, SubscriptionId};
use tokio::sync::watch;

const SUBSCRIPTION: &str = "tollkeeper-meanwhile";

/// The second subscription of one connection.
pub(super) struct Meanwhile {
    wanted: watch::Receiver<Option<Filter>>,
    /// Whether the relay has been asked, and not been told that it is over.
    asked: bool,
}

impl Meanwhile {
    pub(super) fn new(wanted: &watch::Receiver<Option<Filter>>) -> Self {
        let mut wanted = wanted.clone();
        wanted.mark_changed();
        Self {
            wanted,
            asked: false,
        }
    }

    /// Waits until there is something to tell the relay. Never ends if nothing can be wanted any more.
    pub(super) async fn changed(&mut self) {
        if self.wanted.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.wanted.mark_changed();
    }

    /// What to tell the relay, if it does not know yet.
    pub(super) fn news(&mut self) -> Option<String> {
        if !self.wanted.has_changed().unwrap_or(false) {
            return None;
        }
        let filter = self.wanted.borrow_and_update().clone();
        let id = SubscriptionId::new(SUBSCRIPTION);
        let message = match filter {
            // In place of what was wanted before.
            Some(filter) => ClientMessage::req(id, filter),
            None if self.asked => ClientMessage::close(id),
            None => return None,
        };
        self.asked = matches!(message, ClientMessage::Req { .. });
        Some(message.as_json())
    }
}

#[cfg(test)]
mod tests {
    use nostr::Kind;

    use super::*;

    #[tokio::test]
    async fn the_relay_is_told_what_changed_and_no_more() {
        let (want, wanted) = watch::channel(None);
        let mut first = Meanwhile::new(&wanted);
        assert_eq!(first.news(), None, "nothing was wanted");
        want.send_replace(Some(Filter::new().kind(Kind::WalletConnectResponse)));
        first.changed().await;
        let question = first.news().unwrap();
        assert!(question.contains("23195") && question.contains(r#"["REQ","#));
        assert_eq!(first.news(), None);
        let mut after_a_reconnect = Meanwhile::new(&wanted);
        assert_eq!(after_a_reconnect.news(), Some(question));
        want.send_replace(None);
        assert!(first.news().unwrap().contains("CLOSE"));
        assert_eq!(first.news(), None);
    }
}
