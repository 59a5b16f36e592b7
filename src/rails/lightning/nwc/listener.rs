//! What the relays deliver from the wallet: answers, its info event, and what it says by itself.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use nostr::{Event, EventId, Tag, Timestamp};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::answer::{Abilities, Transaction, text_of};
use super::cipher::{self, Encryption};
use super::connection::NwcConnection;
use super::pending::Pending;
use super::{INFO, NOTIFICATION_NIP04, NOTIFICATION_NIP44, RESPONSE};
use crate::relays::Delivery;

/// Notifications that are remembered, so that a relay cannot have the same one worked on again and again.
const REMEMBERED: usize = 4096;

/// What a wallet said by itself.
#[derive(Clone)]
pub(super) struct Notification {
    pub(super) kind: String,
    pub(super) transaction: Transaction,
}

/// What an info event says.
#[derive(Debug, Clone)]
pub(super) struct Info {
    created_at: Timestamp,
    pub(super) encryption: Encryption,
    pub(super) abilities: Abilities,
}

/// Takes what the relays deliver.
pub(super) struct Listener {
    connection: NwcConnection,
    pending: Arc<Pending>,
    info: watch::Sender<Option<Info>>,
    notify: mpsc::Sender<Notification>,
    seen: Seen,
}

impl Listener {
    /// Ties answers to what waits in `pending`. Also returned: the newest info event, and what the wallet says by itself.
    pub(super) fn new(
        connection: NwcConnection,
        pending: Arc<Pending>,
        room: usize,
    ) -> (
        Self,
        watch::Receiver<Option<Info>>,
        mpsc::Receiver<Notification>,
    ) {
        let (info, infos) = watch::channel(None);
        let (notify, notifications) = mpsc::channel(room);
        let listener = Self {
            connection,
            pending,
            info,
            notify,
            seen: Seen::default(),
        };
        (listener, infos, notifications)
    }

    pub(super) async fn run(mut self, mut deliveries: mpsc::Receiver<Delivery>) {
        while let Some(delivery) = deliveries.recv().await {
            self.take(&delivery.event);
        }
    }

    /// The author is compared before anything is computed, and nothing is done before the signature was checked: a
    /// corrupted copy must not get in the way of the genuine one.
    fn take(&mut self, event: &Event) {
        if event.pubkey != self.connection.wallet {
            return;
        }
        match event.kind.as_u16() {
            RESPONSE => self.take_answer(event),
            INFO => self.take_info(event),
            NOTIFICATION_NIP04 | NOTIFICATION_NIP44 => self.take_notification(event),
            _ => {}
        }
    }

    fn take_answer(&self, event: &Event) {
        let Some(id) = self.pending.answered_by(event) else {
            return;
        };
        if event.verify().is_err() {
            tracing::warn!(
                wallet = self.connection.wallet(),
                "an answer was not signed by the wallet"
            );
            return;
        }
        let text = self.open(event).ok_or("it cannot be decrypted");
        let ours = self.connection.keys.public_key();
        let addressed = event.tags.public_keys().any(|key| *key == ours);
        self.pending.answer(&id, text, addressed);
    }

    fn take_info(&self, event: &Event) {
        let known = self.info.borrow().as_ref().map(|info| info.created_at);
        if known.is_some_and(|at| at >= event.created_at) || event.verify().is_err() {
            return;
        }
        let tag = |name: &str| {
            let found = event
                .tags
                .iter()
                .map(Tag::as_slice)
                .find(|tag| tag.first().is_some_and(|own| own == name));
            found.map_or(String::new(), |tag| {
                tag.get(1..).unwrap_or_default().join(" ")
            })
        };
        self.info.send_replace(Some(Info {
            created_at: event.created_at,
            encryption: Encryption::best_of([tag("encryption").as_str()]),
            abilities: Abilities::of_info_event(&event.content, &tag("notifications")),
        }));
    }

    fn take_notification(&mut self, event: &Event) {
        if self.seen.has(&event.id) || event.verify().is_err() {
            return;
        }
        self.seen.remember(event.id);
        let Some(notification) = self.open(event).and_then(|text| read_notification(&text)) else {
            tracing::warn!(
                wallet = self.connection.wallet(),
                "a notification of the wallet cannot be read"
            );
            return;
        };
        if self.notify.try_send(notification).is_err() {
            tracing::warn!(
                "notifications of the wallet are not taken; look-ups find what they said"
            );
        }
    }

    fn open(&self, event: &Event) -> Option<String> {
        let secret = self.connection.keys.secret_key();
        cipher::open(secret, &self.connection.wallet, &event.content)
    }
}

fn read_notification(text: &str) -> Option<Notification> {
    let value: Value = serde_json::from_str(text).ok()?;
    Some(Notification {
        kind: text_of(&value, "notification_type")?.to_owned(),
        transaction: Transaction::read(value.get("notification")?)?,
    })
}

/// The last notifications.
#[derive(Default)]
struct Seen {
    ids: HashSet<EventId>,
    order: VecDeque<EventId>,
}

impl Seen {
    fn has(&self, id: &EventId) -> bool {
        self.ids.contains(id)
    }

    fn remember(&mut self, id: EventId) {
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        if self.ids.insert(id) {
            self.order.push_back(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use nostr::{EventBuilder, Keys, Kind, RelayUrl, TagKind};

    use super::*;

    struct Bench {
        wallet: Keys,
        listener: Listener,
        info: watch::Receiver<Option<Info>>,
        notifications: mpsc::Receiver<Notification>,
    }

    fn bench() -> Bench {
        let wallet = Keys::generate();
        let connection = NwcConnection {
            wallet: wallet.public_key(),
            keys: Keys::generate(),
            relays: vec![RelayUrl::parse("ws://localhost").unwrap()],
        };
        let pending = Pending::new(wallet.public_key(), watch::Sender::new(None));
        let (listener, info, notifications) = Listener::new(connection, Arc::new(pending), 2);
        Bench {
            wallet,
            listener,
            info,
            notifications,
        }
    }

    impl Bench {
        fn event(&self, author: &Keys, kind: u16, text: &str, answers: &[EventId]) -> Event {
            let ours = self.listener.connection.keys.public_key();
            let content =
                cipher::seal(author.secret_key(), &ours, Encryption::Nip44, text).unwrap();
            let tags = answers.iter().map(|id| Tag::event(*id));
            EventBuilder::new(Kind::from(kind), content)
                .tags(tags)
                .sign_with_keys(author)
                .unwrap()
        }
    }

    #[tokio::test]
    async fn only_the_wallets_own_answer_to_a_waiting_request_counts() {
        let mut bench = bench();
        let id = EventId::from_byte_array([1; 32]);
        let mut expected = bench.listener.pending.expect(id).unwrap();
        let stranger = bench.event(&Keys::generate(), RESPONSE, "{}", &[id]);
        let elsewhere = bench.event(
            &bench.wallet,
            RESPONSE,
            "{}",
            &[EventId::from_byte_array([2; 32])],
        );
        let untied = bench.event(&bench.wallet, RESPONSE, "{}", &[]);
        let mut forged = bench.event(&bench.wallet, RESPONSE, "{}", &[id]);
        forged.content = bench
            .event(&bench.wallet, RESPONSE, "{\"forged\":1}", &[id])
            .content;
        for event in [&stranger, &elsewhere, &untied, &forged] {
            bench.listener.take(event);
            assert!(expected.answer.try_recv().is_err());
        }
        let genuine = bench.event(&bench.wallet, RESPONSE, "{\"a\":1}", &[id]);
        bench.listener.take(&genuine);
        assert_eq!(
            expected.answer.try_recv().unwrap(),
            Ok("{\"a\":1}".to_owned())
        );
        // Replayed, it finds nobody; nor would it be taken for the answer to another request.
        bench.listener.take(&genuine);
        assert!(bench.listener.pending.is_empty());
    }

    #[tokio::test]
    async fn the_newest_info_event_counts() {
        let mut bench = bench();
        let info = |author: &Keys, at: u64, encryption: Option<&str>| {
            let tags = encryption.map(|words| Tag::custom(TagKind::custom("encryption"), [words]));
            EventBuilder::new(Kind::from(INFO), "pay_invoice")
                .tags(tags)
                .custom_created_at(Timestamp::from(at))
                .sign_with_keys(author)
                .unwrap()
        };
        bench
            .listener
            .take(&info(&Keys::generate(), 9, Some("nip44_v2")));
        assert!(bench.info.borrow().is_none());
        bench
            .listener
            .take(&info(&bench.wallet, 5, Some("nip44_v2 nip04")));
        let encryption = |bench: &Bench| bench.info.borrow().as_ref().unwrap().encryption;
        assert_eq!(encryption(&bench), Encryption::Nip44);
        bench.listener.take(&info(&bench.wallet, 4, None));
        assert_eq!(
            encryption(&bench),
            Encryption::Nip44,
            "an older one changes nothing"
        );
        bench.listener.take(&info(&bench.wallet, 6, None));
        assert_eq!(encryption(&bench), Encryption::Nip04);
    }

    #[tokio::test]
    async fn a_notification_counts_once_and_a_full_queue_drops_it() {
        let mut bench = bench();
        let text =
            r#"{"notification_type":"payment_received","notification":{"payment_hash":"ab"}}"#;
        let event = bench.event(&bench.wallet, NOTIFICATION_NIP44, text, &[]);
        bench.listener.take(&event);
        bench.listener.take(&event);
        assert_eq!(
            bench.notifications.recv().await.unwrap().kind,
            "payment_received"
        );
        assert!(bench.notifications.try_recv().is_err());
        let junk = bench.event(&bench.wallet, NOTIFICATION_NIP04, "{}", &[]);
        bench.listener.take(&junk);
        assert!(bench.notifications.try_recv().is_err());
        for _ in 0..5 {
            let event = bench.event(&bench.wallet, NOTIFICATION_NIP44, text, &[]);
            bench.listener.take(&event);
        }
        assert!(bench.notifications.try_recv().is_ok());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seen = Seen::default();
        for n in 0..REMEMBERED + 10 {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            seen.remember(EventId::from_byte_array(bytes));
        }
        assert_eq!((seen.ids.len(), seen.order.len()), (REMEMBERED, REMEMBERED));
        assert!(!seen.has(&EventId::from_byte_array([0; 32])));
    }
}
