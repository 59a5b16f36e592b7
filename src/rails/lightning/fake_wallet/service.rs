//! One wallet on its relays: requests come in (kind 23194), answers and notifications go out (23195, 23196, 23197), and
//! what it can do is published (13194).

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nostr::{
    Event, EventBuilder, EventId, Keys, Kind, PublicKey, Tag, TagKind, Timestamp as Seconds,
};
use serde_json::{Value, json};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::answer::{self, Desk, Done, NOTIFICATIONS, PAYMENT_RECEIVED, PAYMENT_SENT};
use super::books::{Books, Moved, Transaction, WalletIndex};
use super::cipher::{Cipher, NIP04, NIP44};
use super::faults::{Faults, Hold, NotificationFault};
use super::invoice::{PaymentHash, Signer};
use super::method::{Method, Refusal};
use crate::error::{Error, Result};
use crate::payment::{Clock, SystemClock, Timestamp};
use crate::rails::lightning::Network;
use crate::relays::{Delivery, Relays};

/// Kind of a notification that is encrypted by NIP-44; the library knows only that of NIP-04.
const NOTIFICATION_NIP44: u16 = 23197;
/// Requests that are worked on at once.
const AT_ONCE: usize = 64;
/// Requests that are known again when a relay delivers them twice.
const REMEMBERED: usize = 16_384;
/// Older requests are nobody's any more, and may be replays.
const OLDEST: Duration = Duration::from_secs(600);
/// How often what the wallet can do is published again: a relay for development forgets it when it is restarted.
const SAY_AGAIN: Duration = Duration::from_secs(20);

/// What all wallets share.
pub(super) struct House {
    books: Mutex<Books>,
    signer: Signer,
    network: Network,
    /// Requests whose payment is held.
    waiting: Mutex<HashMap<PaymentHash, oneshot::Sender<bool>>>,
    pub(super) services: Vec<Arc<Service>>,
}

/// One wallet.
pub(super) struct Service {
    pub(super) name: String,
    pub(super) keys: Keys,
    /// Who may ask.
    pub(super) client: Keys,
    pub(super) relays: Relays,
    faults: Mutex<Faults>,
    changed: Notify,
    asked: [AtomicU64; Method::ALL.len()],
    garbage: AtomicU64,
    said_at: AtomicU64,
}

impl Service {
    pub(super) fn new(
        name: String,
        faults: Faults,
        keys: Keys,
        client: Keys,
        relays: Relays,
    ) -> Self {
        Self {
            name,
            keys,
            client,
            relays,
            faults: Mutex::new(faults),
            changed: Notify::new(),
            asked: Default::default(),
            garbage: AtomicU64::new(0),
            said_at: AtomicU64::new(0),
        }
    }

    pub(super) fn faults(&self) -> Faults {
        lock(&self.faults).clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut lock(&self.faults));
        self.changed.notify_one();
    }

    pub(super) fn asked(&self, method: Method) -> u64 {
        self.counter(method)
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    fn counter(&self, method: Method) -> Option<&AtomicU64> {
        let place = Method::ALL.iter().position(|known| *known == method)?;
        self.asked.get(place)
    }

    /// Publishes what the wallet can do.
    pub(super) async fn say_what_it_can(&self) -> Result<()> {
        let faults = self.faults();
        let mut words: Vec<&str> = answer::methods(&faults).collect();
        let mut tags = Vec::new();
        if !faults.nip04_only {
            tags.push(Tag::custom(
                TagKind::custom("encryption"),
                [format!("{NIP44} {NIP04}")],
            ));
        }
        if faults.notifications != Some(NotificationFault::Unsupported) {
            words.push("notifications");
            tags.push(Tag::custom(
                TagKind::custom("notifications"),
                [NOTIFICATIONS.join(" ")],
            ));
        }
        // Of two replaceable events of one second, a relay keeps the one with the lower id.
        let now = Seconds::now().as_secs();
        let before = self.said_at.fetch_max(now, Ordering::Relaxed);
        let at = now.max(before + 1);
        self.said_at.fetch_max(at, Ordering::Relaxed);
        let event = EventBuilder::new(Kind::WalletConnectInfo, words.join(" "))
            .tags(tags)
            .custom_created_at(Seconds::from(at));
        self.relays.publish(&self.sign(event)?).await
    }

    fn sign(&self, event: EventBuilder) -> Result<Event> {
        event
            .sign_with_keys(&self.keys)
            .map_err(|source| Error::transport("an event cannot be signed").with_source(source))
    }

    /// What an answer looks like that cannot be read: each time another way.
    fn garbage(&self, cipher: Cipher, peer: &PublicKey, method: &str) -> String {
        let sealed = |text: &str| cipher.seal(&self.keys, peer, text).unwrap_or_default();
        match self.garbage.fetch_add(1, Ordering::Relaxed) % 4 {
            0 => "not encrypted at all".to_owned(),
            1 => sealed("not JSON"),
            2 => sealed(&json!({"result_type": method, "error": null, "result": {}}).to_string()),
            _ => sealed("[null]"),
        }
    }
}

impl House {
    pub(super) fn new(
        balances_msat: Vec<u64>,
        network: Network,
        services: Vec<Arc<Service>>,
    ) -> Self {
        Self {
            books: Mutex::new(Books::new(balances_msat)),
            signer: Signer::generate(),
            network,
            waiting: Mutex::new(HashMap::new()),
            services,
        }
    }

    pub(super) fn balance_msat(&self, wallet: WalletIndex) -> u64 {
        lock(&self.books).balance_msat(wallet)
    }

    pub(super) fn held(&self) -> Vec<PaymentHash> {
        lock(&self.books).held()
    }

    /// Serves a wallet until `stop`.
    pub(super) async fn serve(
        self: Arc<Self>,
        wallet: WalletIndex,
        mut deliveries: mpsc::Receiver<Delivery>,
        stop: CancellationToken,
    ) {
        let Some(service) = self.services.get(wallet) else {
            return;
        };
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut again = tokio::time::interval(SAY_AGAIN);
        again.tick().await;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = again.tick() => self.say(wallet),
                () = service.changed.notified() => self.say(wallet),
                delivery = deliveries.recv() => {
                    let Some(delivery) = delivery else { return };
                    let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
                    let (house, seen) = (Arc::clone(&self), Arc::clone(&seen));
                    let work = async move { house.request(wallet, delivery, &seen, permit).await };
                    tokio::spawn(stop.clone().run_until_cancelled_owned(work));
                }
            }
        }
    }

    fn say(self: &Arc<Self>, wallet: WalletIndex) {
        let house = Arc::clone(self);
        tokio::spawn(async move {
            if let Some(service) = house.services.get(wallet)
                && let Err(error) = service.say_what_it_can().await
            {
                tracing::debug!(%error, "what a wallet can do was not published");
            }
        });
    }

    async fn request(
        &self,
        wallet: WalletIndex,
        delivery: Delivery,
        seen: &Mutex<Seen>,
        permit: OwnedSemaphorePermit,
    ) {
        let Some(service) = self.services.get(wallet) else {
            return;
        };
        let event = delivery.event;
        // Verified before it is remembered, or a corrupted copy would hide the original.
        if event.pubkey != service.client.public_key()
            || event.kind != Kind::WalletConnectRequest
            || event.verify().is_err()
            || is_over(&event)
            || !lock(seen).is_new(event.id)
        {
            return;
        }
        let faults = service.faults();
        let cipher = match Cipher::of(&event) {
            Some(cipher) if !(faults.nip04_only && cipher == Cipher::Nip44) => cipher,
            _ => {
                let no = refusal("unknown", Refusal::UnsupportedEncryption);
                self.send_answer(service, &event, Cipher::Nip04, &no).await;
                return;
            }
        };
        let text = cipher.open(&service.keys, &event.pubkey, &event.content);
        let Some(request) = text.and_then(|text| serde_json::from_str::<Value>(&text).ok()) else {
            return;
        };
        let name = request["method"].as_str().unwrap_or_default();
        let Ok(method) = name.parse::<Method>() else {
            let no = refusal(name, Refusal::NotImplemented);
            self.send_answer(service, &event, cipher, &no).await;
            return;
        };
        if let Some(counter) = service.counter(method) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        if faults.ignore.contains(method) {
            return;
        }
        let done = if faults.without.contains(method) {
            Err(Refusal::NotImplemented)
        } else if let Some(no) = among(faults.refuse.as_ref(), method) {
            Err(no)
        } else {
            self.desk(wallet, &faults, |desk| {
                desk.answer(method, &request["params"])
            })
        };
        drop(permit);
        let outcome = self.follow_up(wallet, &faults, method, done).await;
        if faults.mute.contains(method) {
            return;
        }
        let answer = match (among(faults.refuse_after.as_ref(), method), outcome) {
            (Some(no), _) | (None, Err(no)) => refusal(method.as_str(), no),
            (None, Ok(result)) => {
                json!({ "result_type": method.as_str(), "error": null, "result": result })
            }
        };
        if let Some((methods, time)) = &faults.late
            && methods.contains(method)
        {
            tokio::time::sleep(*time).await;
        }
        if faults.garbage.contains(method) {
            let content = service.garbage(cipher, &event.pubkey, method.as_str());
            self.publish_answer(service, &event, content).await;
            return;
        }
        self.send_answer(service, &event, cipher, &answer).await;
        if faults.answer_twice {
            self.send_answer(service, &event, cipher, &answer).await;
        }
    }

    /// What follows from a request beside its answer: notifications, and the wait for a payment that is held.
    async fn follow_up(
        &self,
        wallet: WalletIndex,
        faults: &Faults,
        method: Method,
        done: Result<Done, Refusal>,
    ) -> Result<Value, Refusal> {
        let done = done?;
        if method == Method::MakeInvoice
            && faults.notifications == Some(NotificationFault::Early)
            && let Some(hash) = done.made
        {
            self.notify(wallet, PAYMENT_RECEIVED, &hash).await;
        }
        if let Some(moved) = done.moved {
            self.tell_of(&moved).await;
        }
        if let Some(hash) = done.held {
            let (sender, outcome) = oneshot::channel();
            lock(&self.waiting).insert(hash, sender);
            let arrived = match faults.hold {
                Some(Hold::For(time)) => match tokio::time::timeout(time, outcome).await {
                    Ok(outcome) => outcome.unwrap_or(false),
                    Err(_) => self.release(&hash).await,
                },
                _ => outcome.await.unwrap_or(false),
            };
            if !arrived {
                return Err(Refusal::PaymentFailed);
            }
        }
        Ok(done.result)
    }

    /// Works with the books, as a wallet with these faults.
    pub(super) fn desk<T>(
        &self,
        wallet: WalletIndex,
        faults: &Faults,
        work: impl FnOnce(&mut Desk<'_>) -> T,
    ) -> T {
        let name = self
            .services
            .get(wallet)
            .map_or("", |service| &service.name);
        work(&mut Desk {
            wallet,
            name,
            books: &mut lock(&self.books),
            signer: &self.signer,
            network: self.network,
            faults,
            now: now(),
        })
    }

    /// Lets a held payment arrive; whether there was one.
    pub(super) async fn release(&self, hash: &PaymentHash) -> bool {
        let moved = lock(&self.books).release(hash, now());
        let waiting = lock(&self.waiting).remove(hash);
        let Some(moved) = moved else {
            return false;
        };
        if let Some(waiting) = waiting {
            let _ = waiting.send(true);
        }
        self.tell_of(&moved).await;
        true
    }

    /// Lets a held payment fail; whether there was one.
    pub(super) fn fail(&self, hash: &PaymentHash) -> bool {
        let failed = lock(&self.books).fail(hash).is_some();
        if failed {
            // Dropping the sender is the news.
            lock(&self.waiting).remove(hash);
        }
        failed
    }

    /// Notifies both sides of a payment.
    pub(super) async fn tell_of(&self, moved: &Moved) {
        let name = |wallet: WalletIndex| self.services.get(wallet).map(|service| &*service.name);
        let (payer, payee) = (name(moved.payer), name(moved.payee));
        tracing::info!(payer, payee, msat = moved.amount_msat, "settled");
        tokio::join!(
            self.notify(moved.payee, PAYMENT_RECEIVED, &moved.payment_hash),
            self.notify(moved.payer, PAYMENT_SENT, &moved.payment_hash),
        );
    }

    async fn notify(&self, wallet: WalletIndex, what: &'static str, hash: &PaymentHash) {
        let Some(service) = self.services.get(wallet) else {
            return;
        };
        let faults = service.faults();
        if matches!(
            faults.notifications,
            Some(NotificationFault::None | NotificationFault::Unsupported)
        ) {
            return;
        }
        let transaction = self.desk(wallet, &faults, |desk| {
            let found: Option<&Transaction> = if what == PAYMENT_SENT {
                desk.books.payment(wallet, hash)
            } else {
                desk.books.find(wallet, hash)
            };
            found.map(|found| desk.transaction(found))
        });
        let Some(mut transaction) = transaction else {
            return;
        };
        // Only an early notification says so of what is not.
        transaction["state"] = "settled".into();
        let text = json!({ "notification_type": what, "notification": transaction }).to_string();
        let times = match faults.notifications {
            Some(NotificationFault::Twice) => 2,
            _ => 1,
        };
        for _ in 0..times {
            if !faults.nip04_only {
                let kind = Kind::from(NOTIFICATION_NIP44);
                self.send_notification(service, kind, Cipher::Nip44, &text)
                    .await;
            }
            let kind = Kind::WalletConnectNotification;
            self.send_notification(service, kind, Cipher::Nip04, &text)
                .await;
        }
    }

    async fn send_notification(&self, service: &Service, kind: Kind, cipher: Cipher, text: &str) {
        let client = service.client.public_key();
        let Some(content) = cipher.seal(&service.keys, &client, text) else {
            return;
        };
        let event = EventBuilder::new(kind, content).tag(Tag::public_key(client));
        self.publish(service, event).await;
    }

    async fn send_answer(
        &self,
        service: &Service,
        request: &Event,
        cipher: Cipher,
        answer: &Value,
    ) {
        let text = answer.to_string();
        if let Some(content) = cipher.seal(&service.keys, &request.pubkey, &text) {
            self.publish_answer(service, request, content).await;
        }
    }

    async fn publish_answer(&self, service: &Service, request: &Event, content: String) {
        let mut tags = vec![Tag::event(request.id)];
        if !service.faults().unaddressed {
            tags.push(Tag::public_key(request.pubkey));
        }
        let event = EventBuilder::new(Kind::WalletConnectResponse, content).tags(tags);
        self.publish(service, event).await;
    }

    async fn publish(&self, service: &Service, event: EventBuilder) {
        let sent = match service.sign(event) {
            Ok(event) => service.relays.publish(&event).await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::warn!(wallet = service.name, %error, "a message of the wallet was not sent");
        }
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Service({})", self.name)
    }
}

impl fmt::Debug for House {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.services).finish()
    }
}

/// The requests that were taken lately.
#[derive(Default)]
pub(super) struct Seen {
    known: HashSet<EventId>,
    order: VecDeque<EventId>,
}

impl Seen {
    fn is_new(&mut self, id: EventId) -> bool {
        if !self.known.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

/// Whether a request is too old, or no longer wanted by its own word.
fn is_over(request: &Event) -> bool {
    let now = Seconds::now();
    request.created_at.as_secs() + OLDEST.as_secs() < now.as_secs() || request.is_expired_at(&now)
}

fn among(fault: Option<&(super::method::Methods, Refusal)>, method: Method) -> Option<Refusal> {
    fault
        .filter(|(methods, _)| methods.contains(method))
        .map(|(_, refusal)| *refusal)
}

fn refusal(method: &str, refusal: Refusal) -> Value {
    let message = format!("the wallet for development says {}", refusal.as_str());
    json!({
        "result_type": method,
        "error": { "code": refusal.as_str(), "message": message },
        "result": null,
    })
}

fn now() -> Timestamp {
    SystemClock.now()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
