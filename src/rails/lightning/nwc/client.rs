//! The talk with one wallet: one subscription for as long as it lasts, requests tied to their answers.
//!
//! An answer counts if the wallet signed it and it names a request that is waiting. So a stranger's, a replayed and a late
//! one change nothing. Silence is silence: what became of the request is then not known.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nostr::{Event, EventBuilder, EventId, Filter, Kind, PublicKey, Tag, TagKind, Timestamp};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::answer::{Abilities, Transaction, read_answer, text_of};
use super::cipher::{self, Encryption};
use super::connection::NwcConnection;
use super::error::{Code, NwcError};
use super::{
    GET_INFO, INFO, NOTIFICATION_NIP04, NOTIFICATION_NIP44, PAY_INVOICE, REQUEST, RESPONSE,
};
use crate::error::Result;
use crate::relays::{Delivery, Interest, Relays, SKEW, Subscription};

/// Requests that wait for an answer, at most.
const MOST_PENDING: usize = 4096;
/// Requests that are named when answers are asked for by request, at most: no rail has so many under way.
const MOST_NAMED: usize = 256;
/// Notifications that wait to be taken. What finds no room is found by look-up.
const NOTIFICATIONS: usize = 1024;
/// Notifications that are remembered, so that a relay cannot have the same one worked on again and again.
const REMEMBERED: usize = 4096;
/// How long a relay may take to hand out the info event that it keeps, once it is connected.
const INFO_WITHIN: Duration = Duration::from_secs(2);
/// How long a wallet may take to answer `get_info` before it is asked in the other encryption.
const PROBE: Duration = Duration::from_secs(8);

/// What a wallet said by itself.
#[derive(Clone)]
pub(super) struct Notification {
    pub(super) kind: String,
    pub(super) transaction: Transaction,
}

/// What an info event says.
#[derive(Debug, Clone)]
struct Info {
    created_at: Timestamp,
    encryption: Encryption,
    abilities: Abilities,
}

/// See the [module](self).
pub(super) struct NwcClient {
    connection: NwcConnection,
    relays: Relays,
    pending: Arc<Pending>,
    info: watch::Receiver<Option<Info>>,
    /// What worked, where no info event says what will.
    learned: Mutex<Option<Encryption>>,
    notifications: Mutex<Option<mpsc::Receiver<Notification>>>,
}

impl fmt::Debug for NwcClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NwcClient")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

impl NwcClient {
    /// Connects, in the background, and stays connected until this is dropped. `notified`: notifications are wanted too.
    pub(super) fn start(connection: NwcConnection, notified: bool) -> Self {
        let ours = connection.keys.public_key();
        let mut kinds = vec![RESPONSE];
        if notified {
            kinds.extend([NOTIFICATION_NIP04, NOTIFICATION_NIP44]);
        }
        let by_wallet = Filter::new().author(connection.wallet);
        let to_us = by_wallet.clone().pubkey(ours);
        let subscription = Subscription {
            keys: connection.keys.clone(),
            interests: vec![
                Interest::Recent(to_us.kinds(kinds.into_iter().map(Kind::from))),
                Interest::Kept(by_wallet.kind(Kind::from(INFO))),
            ],
        };
        let (relays, deliveries) = Relays::spawn(connection.relays.clone(), &subscription);
        let pending = Arc::new(Pending::new(connection.wallet, relays.meanwhile()));
        let (info, infos) = watch::channel(None);
        let (notify, notifications) = mpsc::channel(NOTIFICATIONS);
        let listener = Listener {
            connection: connection.clone(),
            pending: Arc::clone(&pending),
            info,
            notify,
            seen: Seen::default(),
        };
        // It ends with the links, and they end with this.
        tokio::spawn(listener.run(deliveries));
        Self {
            connection,
            relays,
            pending,
            info: infos,
            learned: Mutex::new(None),
            notifications: Mutex::new(Some(notifications)),
        }
    }

    /// Waits until one relay of the wallet has confirmed the subscription.
    pub(super) async fn ready(&self, patience: Duration) -> Result<()> {
        self.relays.ready(patience).await
    }

    /// What the wallet says by itself. There is one stream.
    pub(super) fn notifications(&self) -> Option<mpsc::Receiver<Notification>> {
        lock(&self.notifications).take()
    }

    /// What the wallet can do for this connection: its answer to `get_info`, or else its info event.
    pub(super) async fn abilities(
        &self,
        patience: Duration,
    ) -> std::result::Result<Abilities, NwcError> {
        let deadline = Instant::now() + patience;
        self.await_info(deadline).await;
        loop {
            let Some(info) = self.info.borrow().clone() else {
                return self.probe(deadline).await;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            match self.ask(GET_INFO, json!({}), left.min(PROBE)).await {
                Ok(result) => {
                    let mut abilities = Abilities::read(&result);
                    if abilities.methods.is_none() {
                        abilities.methods = info.abilities.methods;
                    }
                    if abilities.notifications.is_empty() {
                        abilities.notifications = info.abilities.notifications;
                    }
                    return Ok(abilities);
                }
                Err(NwcError::Said(Code::Unauthorized, words)) => {
                    return Err(NwcError::Said(Code::Unauthorized, words));
                }
                // It does not offer get_info, or keeps to itself what it can do.
                Err(NwcError::Said(code, _)) if code.is_for_good() => return Ok(info.abilities),
                Err(error) if Instant::now() >= deadline => {
                    tracing::warn!(
                        wallet = self.connection.wallet(), %error,
                        "the wallet does not answer now; going by what it announced"
                    );
                    return Ok(info.abilities);
                }
                Err(NwcError::Silent) => {}
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }

    /// What the wallet has announced that it can do; one that has announced nothing is asked.
    pub(super) async fn announced_or_asked(
        &self,
        patience: Duration,
    ) -> std::result::Result<Abilities, NwcError> {
        let deadline = Instant::now() + patience;
        if lock(&self.learned).is_none() {
            self.await_info(deadline).await;
        }
        let announced = self
            .info
            .borrow()
            .as_ref()
            .map(|info| info.abilities.clone());
        match announced {
            Some(abilities) => Ok(abilities),
            None if lock(&self.learned).is_some() => Ok(Abilities::default()),
            None => self.probe(deadline).await,
        }
    }

    /// Asks a wallet that has announced nothing: first as the first wallets did, then as the newest do.
    async fn probe(&self, deadline: Instant) -> std::result::Result<Abilities, NwcError> {
        loop {
            let mut refusal = NwcError::Silent;
            for encryption in [Encryption::Nip04, Encryption::Nip44] {
                let left = deadline.saturating_duration_since(Instant::now());
                match self
                    .ask_in(encryption, GET_INFO, &json!({}), left.min(PROBE))
                    .await
                {
                    Ok(result) => {
                        *lock(&self.learned) = Some(encryption);
                        return Ok(Abilities::read(&result));
                    }
                    Err(NwcError::Said(Code::UnsupportedEncryption, _) | NwcError::Silent) => {}
                    Err(NwcError::Said(Code::NotImplemented | Code::Restricted, _)) => {
                        *lock(&self.learned) = Some(encryption);
                        return Ok(Abilities::default());
                    }
                    Err(error) => refusal = error,
                }
            }
            if Instant::now() >= deadline || refusal.code() == Some(Code::Unauthorized) {
                return Err(refusal);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn await_info(&self, deadline: Instant) {
        let mut info = self.info.clone();
        let until = deadline.min(Instant::now() + INFO_WITHIN);
        let _ = timeout_at(until, info.wait_for(Option::is_some)).await;
    }

    fn encryption(&self) -> Encryption {
        let announced = self.info.borrow().as_ref().map(|info| info.encryption);
        let learned = *lock(&self.learned);
        learned.or(announced).unwrap_or(Encryption::Nip04)
    }

    /// Asks the wallet, once, and waits for its answer.
    ///
    /// Dropping the future takes nothing back: what was asked for may happen.
    pub(super) async fn ask(
        &self,
        method: &'static str,
        params: Value,
        patience: Duration,
    ) -> std::result::Result<Value, NwcError> {
        let encryption = self.encryption();
        let answer = self.ask_in(encryption, method, &params, patience).await;
        // The wallet could not even read it.
        if let Err(NwcError::Said(Code::UnsupportedEncryption, _)) = answer {
            let other = encryption.other();
            let answer = self.ask_in(other, method, &params, patience).await;
            if !matches!(answer, Err(NwcError::Said(Code::UnsupportedEncryption, _))) {
                *lock(&self.learned) = Some(other);
            }
            return answer;
        }
        answer
    }

    async fn ask_in(
        &self,
        encryption: Encryption,
        method: &'static str,
        params: &Value,
        patience: Duration,
    ) -> std::result::Result<Value, NwcError> {
        let deadline = Instant::now() + patience;
        if self.relays.ready(patience).await.is_err() {
            return Err(NwcError::NotSent("no relay of the wallet can be reached"));
        }
        let request = self.request(encryption, method, params, patience)?;
        let (id, mut expected) = (request.id, self.pending.expect(request.id)?);
        let publishing = async {
            // Asked to pay twice, a wallet could answer "no" to the second while it pays the first.
            if method == PAY_INVOICE {
                self.relays.publish_once(&request).await
            } else {
                self.relays.publish(&request).await
            }
        };
        let waiting = async {
            match (&mut expected.answer).await {
                Ok(text) => read_answer(&text.map_err(NwcError::Garbage)?, method),
                Err(_) => Err(NwcError::Silent),
            }
        };
        tokio::pin!(publishing, waiting);
        let late = sleep_until(deadline);
        tokio::pin!(late);
        let mut published = false;
        loop {
            tokio::select! {
                // What came counts, even if the time is over.
                biased;
                answered = &mut waiting => return answered,
                sent = &mut publishing, if !published => {
                    published = true;
                    if let Err(error) = sent {
                        // The relay may have passed on what it says that it refused; an answer would tell.
                        tracing::warn!(
                            method, request = %id, wallet = self.connection.wallet(), %error,
                            "the wallet's relays do not take a request"
                        );
                        return Err(NwcError::Silent);
                    }
                }
                () = &mut late => return Err(NwcError::Silent),
            }
        }
    }

    fn request(
        &self,
        encryption: Encryption,
        method: &str,
        params: &Value,
        patience: Duration,
    ) -> std::result::Result<Event, NwcError> {
        let (keys, wallet) = (&self.connection.keys, self.connection.wallet);
        let text = json!({ "method": method, "params": params }).to_string();
        let content = cipher::seal(keys.secret_key(), &wallet, encryption, &text)
            .ok_or(NwcError::NotSent("the request is too long"))?;
        // Not to be acted on long after nobody expects it any more; but the wallet's clock may be ahead of ours.
        let expires = Timestamp::now() + (patience + SKEW).as_secs();
        let mut tags = vec![Tag::public_key(wallet), Tag::expiration(expires)];
        if encryption == Encryption::Nip44 {
            tags.push(Tag::custom(
                TagKind::custom("encryption"),
                [encryption.tag()],
            ));
        }
        EventBuilder::new(Kind::from(REQUEST), content)
            .tags(tags)
            .sign_with_keys(keys)
            .map_err(|_| NwcError::NotSent("the request could not be signed"))
    }
}

/// The requests that wait for an answer.
///
/// Answers are asked for by the key that they are for. Some wallets leave it out (the wallet service of `@getalby/sdk`
/// 7.0.0 does) and name the request only, so until an answer was seen that is addressed as NIP-47 says, answers are asked
/// for by request as well.
struct Pending {
    requests: Mutex<HashMap<EventId, oneshot::Sender<std::result::Result<String, &'static str>>>>,
    wallet: PublicKey,
    addressed: AtomicBool,
    meanwhile: watch::Sender<Option<Filter>>,
}

/// A request that waits; dropping it forgets the request.
struct Expected {
    id: EventId,
    pending: Arc<Pending>,
    answer: oneshot::Receiver<std::result::Result<String, &'static str>>,
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut requests = lock(&self.pending.requests);
        if requests.remove(&self.id).is_some() {
            self.pending.ask_by_request(&requests);
        }
    }
}

impl Pending {
    fn new(wallet: PublicKey, meanwhile: watch::Sender<Option<Filter>>) -> Self {
        Self {
            requests: Mutex::default(),
            wallet,
            addressed: AtomicBool::new(false),
            meanwhile,
        }
    }

    /// Asks for the answers to `requests` by their ids, while that may be needed.
    fn ask_by_request<T>(&self, requests: &HashMap<EventId, T>) {
        if requests.len() > MOST_NAMED {
            return;
        }
        let needed = !requests.is_empty() && !self.addressed.load(Ordering::Relaxed);
        let filter = needed.then(|| {
            Filter::new()
                .author(self.wallet)
                .kind(Kind::from(RESPONSE))
                .events(requests.keys().copied())
        });
        self.meanwhile.send_if_modified(|wanted| {
            let changed = *wanted != filter;
            *wanted = filter;
            changed
        });
    }

    fn expect(self: &Arc<Self>, id: EventId) -> std::result::Result<Expected, NwcError> {
        let (give, answer) = oneshot::channel();
        let mut requests = lock(&self.requests);
        if requests.len() >= MOST_PENDING {
            return Err(NwcError::NotSent("too many requests wait for the wallet"));
        }
        requests.insert(id, give);
        self.ask_by_request(&requests);
        Ok(Expected {
            id,
            pending: Arc::clone(self),
            answer,
        })
    }

    /// Which waiting request an event claims to answer.
    fn answered_by(&self, event: &Event) -> Option<EventId> {
        let requests = lock(&self.requests);
        event
            .tags
            .event_ids()
            .find(|id| requests.contains_key(id))
            .copied()
    }
}

/// Takes what the relays deliver.
struct Listener {
    connection: NwcConnection,
    pending: Arc<Pending>,
    info: watch::Sender<Option<Info>>,
    notify: mpsc::Sender<Notification>,
    seen: Seen,
}

impl Listener {
    async fn run(mut self, mut deliveries: mpsc::Receiver<Delivery>) {
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
        if event.tags.public_keys().any(|key| *key == ours) {
            self.pending.addressed.store(true, Ordering::Relaxed);
        }
        let mut requests = lock(&self.pending.requests);
        let waiting = requests.remove(&id);
        self.pending.ask_by_request(&requests);
        drop(requests);
        if let Some(waiting) = waiting {
            // Whoever asked may have gone meanwhile.
            let _ = waiting.send(text);
        }
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use nostr::Keys;
    use nostr::RelayUrl;

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
        let (info, infos) = watch::channel(None);
        let (notify, notifications) = mpsc::channel(2);
        Bench {
            wallet,
            listener: Listener {
                connection,
                pending: Arc::new(pending),
                info,
                notify,
                seen: Seen::default(),
            },
            info: infos,
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
        assert!(lock(&bench.listener.pending.requests).is_empty());
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_is_forgotten_and_there_is_a_limit() {
        let bench = bench();
        let pending = &bench.listener.pending;
        drop(pending.expect(EventId::from_byte_array([1; 32])).unwrap());
        assert!(lock(&pending.requests).is_empty());
        let id = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            EventId::from_byte_array(bytes)
        };
        let waiting: Vec<Expected> = (0..MOST_PENDING)
            .map(|n| pending.expect(id(n)).unwrap())
            .collect();
        assert!(matches!(
            pending.expect(id(MOST_PENDING)),
            Err(NwcError::NotSent(_))
        ));
        drop(waiting);
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
