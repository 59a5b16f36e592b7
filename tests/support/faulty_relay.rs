//! A relay with switches: it speaks just enough Nostr, and breaks in every way that real relays do.
//!
//! ```ignore
//! let relay = FaultyRelay::start().await;
//! relay.set(|faults| faults.drop_next(|event| event.kind.as_u16() == 25910));
//! let requests = relay.messages_to(&server_keys);
//! ```
#![allow(
    dead_code,
    reason = "every test file that includes this uses another part of it"
)]
#![allow(clippy::unwrap_used, reason = "a test that cannot listen cannot go on")]

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use nostr_sdk::prelude::*;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_util::sync::{CancellationToken, DropGuard};

type Matcher = Box<dyn FnMut(&Event) -> bool + Send>;

/// How the relay answers what is published to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// `OK true`.
    Accept,
    /// `OK false` with this reason; the event goes nowhere.
    Refuse(String),
    /// No `OK` at all, as `nostr-rs-relay` does for ephemeral events; the event is passed on.
    Silence,
}

/// The switches. All are off at first.
pub(crate) struct Faults {
    /// How many more copies of each event are delivered.
    pub(crate) duplicates: usize,
    /// How long each event is held back.
    pub(crate) delay: Duration,
    /// Before each event a copy with the same id and other content is delivered.
    pub(crate) corrupt_first: bool,
    /// How publishing is answered.
    pub(crate) answer: Answer,
    /// Answers to the next published events, before `answer` counts.
    pub(crate) next_answers: Vec<Answer>,
    /// Published events for which this is true are accepted and lost.
    pub(crate) lose: Option<Matcher>,
    /// Connections are refused until then.
    pub(crate) refuse_until: Option<Instant>,
    /// Subscriptions are refused with this reason, so many times.
    pub(crate) close_subscriptions: Option<(usize, String)>,
    /// Clients must authenticate (NIP-42) before they subscribe.
    pub(crate) require_auth: bool,
}

impl Faults {
    fn new() -> Self {
        Self {
            duplicates: 0,
            delay: Duration::ZERO,
            corrupt_first: false,
            answer: Answer::Accept,
            next_answers: Vec::new(),
            lose: None,
            refuse_until: None,
            close_subscriptions: None,
            require_auth: false,
        }
    }

    /// Loses the next event for which `matches` is true, and no other.
    pub(crate) fn drop_next(&mut self, mut matches: impl FnMut(&Event) -> bool + Send + 'static) {
        let mut done = false;
        self.lose = Some(Box::new(move |event| {
            let hit = !done && matches(event);
            done |= hit;
            hit
        }));
    }

    /// Loses the next message to the owner of `keys` for which `matches` is true, wrapped or not.
    pub(crate) fn drop_next_to(
        &mut self,
        keys: &Keys,
        mut matches: impl FnMut(&serde_json::Value) -> bool + Send + 'static,
    ) {
        let keys = keys.clone();
        self.drop_next(move |event| {
            let message =
                open(event, &keys).and_then(|inner| serde_json::from_str(&inner.content).ok());
            message.is_some_and(|message| matches(&message))
        });
    }

    /// Loses every event for which `matches` is true.
    pub(crate) fn drop_all(&mut self, matches: impl FnMut(&Event) -> bool + Send + 'static) {
        self.lose = Some(Box::new(matches));
    }

    /// Refuses connections for a while.
    pub(crate) fn refuse_for(&mut self, time: Duration) {
        self.refuse_until = Some(Instant::now() + time);
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("answer", &self.answer)
            .finish_non_exhaustive()
    }
}

struct Connection {
    out: mpsc::UnboundedSender<String>,
    subscriptions: HashMap<SubscriptionId, Vec<Filter>>,
    authenticated: bool,
}

struct Shared {
    faults: Faults,
    log: Vec<Event>,
    stored: Vec<Event>,
    connections: HashMap<usize, Connection>,
    cut: CancellationToken,
}

/// See the [module](self). Ends when it is dropped.
pub(crate) struct FaultyRelay {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    frozen: watch::Sender<bool>,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl fmt::Debug for FaultyRelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyRelay({})", self.address)
    }
}

impl FaultyRelay {
    /// Listens on a free port of this machine.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(Shared {
            faults: Faults::new(),
            log: Vec::new(),
            stored: Vec::new(),
            connections: HashMap::new(),
            cut: CancellationToken::new(),
        }));
        let stop = CancellationToken::new();
        let (frozen, freezing) = watch::channel(false);
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept(
            listener,
            shared.clone(),
            freezing,
            stop.clone(),
        )));
        Self {
            address,
            shared,
            frozen,
            _guard: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Where it is reached.
    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Turns switches.
    pub(crate) fn set(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut lock(&self.shared).faults);
    }

    /// Turns all switches off.
    pub(crate) fn heal(&self) {
        lock(&self.shared).faults = Faults::new();
        self.frozen.send_replace(false);
    }

    /// Everything that was published, in order, whatever became of it.
    pub(crate) fn events(&self) -> Vec<Event> {
        lock(&self.shared).log.clone()
    }

    /// What was published after the first `known`.
    pub(crate) fn events_after(&self, known: usize) -> Vec<Event> {
        lock(&self.shared)
            .log
            .get(known..)
            .unwrap_or_default()
            .to_vec()
    }

    /// The published events of a kind.
    pub(crate) fn events_of(&self, kind: u16) -> Vec<Event> {
        self.events()
            .into_iter()
            .filter(|event| event.kind.as_u16() == kind)
            .collect()
    }

    /// The messages (kind 25910) that were published for the owner of `keys`, unwrapped.
    pub(crate) fn messages_to(&self, keys: &Keys) -> Vec<Event> {
        self.events()
            .iter()
            .filter_map(|event| open(event, keys))
            .collect()
    }

    /// The contents of [`messages_to`](Self::messages_to) as JSON.
    pub(crate) fn json_to(&self, keys: &Keys) -> Vec<serde_json::Value> {
        self.messages_to(keys)
            .iter()
            .filter_map(|event| serde_json::from_str(&event.content).ok())
            .collect()
    }

    /// Waits until something that was or will be published matches.
    pub(crate) async fn wait_for(
        &self,
        patience: Duration,
        matches: impl Fn(&Event) -> bool,
    ) -> Option<Event> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(event) = self.events().into_iter().find(|event| matches(event)) {
                return Some(event);
            }
            if Instant::now() >= deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a message to the owner of `keys` that was or will be published matches.
    pub(crate) async fn wait_for_message(
        &self,
        patience: Duration,
        keys: &Keys,
        matches: impl Fn(&serde_json::Value) -> bool,
    ) -> Option<Event> {
        let message = |event: &Event| -> Option<serde_json::Value> {
            serde_json::from_str(&open(event, keys)?.content).ok()
        };
        let found = self
            .wait_for(patience, |event| {
                message(event).is_some_and(|message| matches(&message))
            })
            .await?;
        open(&found, keys)
    }

    /// Waits until there are this many live subscriptions.
    pub(crate) async fn subscribed(&self, count: usize) {
        while self.subscriptions() < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Delivers `event` to whom it concerns, as if it were published, without storing or logging it.
    pub(crate) fn inject(&self, event: &Event) {
        deliver(&lock(&self.shared), event, 1, false);
    }

    /// Keeps `event` for whoever asks, as a relay that lies may: nothing about it is checked.
    pub(crate) fn keep(&self, event: &Event) {
        lock(&self.shared).stored.push(event.clone());
    }

    /// Delivers a published event once more.
    pub(crate) fn replay(&self, id: EventId) {
        let shared = lock(&self.shared);
        if let Some(event) = shared.log.iter().find(|event| event.id == id) {
            deliver(&shared, event, 1, false);
        }
    }

    /// Sends this text to everybody.
    pub(crate) fn say(&self, text: &str) {
        for connection in lock(&self.shared).connections.values() {
            let _ = connection.out.send(text.to_owned());
        }
    }

    /// Cuts all connections. New ones are accepted at once.
    pub(crate) fn disconnect_all(&self) {
        let mut shared = lock(&self.shared);
        std::mem::take(&mut shared.cut).cancel();
        shared.connections.clear();
    }

    /// Down for a while: cuts all connections and refuses new ones.
    pub(crate) fn go_down_for(&self, time: Duration) {
        self.set(|faults| faults.refuse_for(time));
        self.disconnect_all();
    }

    /// Neither reads nor writes while frozen, but keeps the connections: half-open links.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> usize {
        lock(&self.shared).connections.len()
    }

    /// How many live subscriptions there are.
    pub(crate) fn subscriptions(&self) -> usize {
        lock(&self.shared)
            .connections
            .values()
            .map(|connection| connection.subscriptions.len())
            .sum()
    }

    /// The filters of the live subscriptions.
    pub(crate) fn filters(&self) -> Vec<Filter> {
        let shared = lock(&self.shared);
        shared
            .connections
            .values()
            .flat_map(|c| c.subscriptions.values().flatten().cloned())
            .collect()
    }

    /// Ends it for good.
    pub(crate) fn shutdown(&self) {
        self.stop.cancel();
    }
}

/// The message in `event`, if it is one for the owner of `keys`.
pub(crate) fn open(event: &Event, keys: &Keys) -> Option<Event> {
    if !event
        .tags
        .public_keys()
        .any(|key| *key == keys.public_key())
    {
        return None;
    }
    match event.kind.as_u16() {
        25910 => Some(event.clone()),
        1059 | 21059 => {
            let json = nip44::decrypt(keys.secret_key(), &event.pubkey, &event.content).ok()?;
            Event::from_json(json).ok()
        }
        _ => None,
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Mutex<Shared>>,
    frozen: watch::Receiver<bool>,
    stop: CancellationToken,
) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    while let Ok((stream, _)) = listener.accept().await {
        if lock(&shared)
            .faults
            .refuse_until
            .is_some_and(|until| Instant::now() < until)
        {
            continue;
        }
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let (shared, frozen) = (shared.clone(), frozen.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            let cut = lock(&shared).cut.clone();
            cut.run_until_cancelled(serve(id, stream, &shared, frozen))
                .await;
            lock(&shared).connections.remove(&id);
        }));
    }
}

async fn serve(
    id: usize,
    stream: TcpStream,
    shared: &Arc<Mutex<Shared>>,
    mut frozen: watch::Receiver<bool>,
) {
    stream.set_nodelay(true).unwrap();
    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else {
        return;
    };
    let (mut sink, mut stream) = socket.split();
    let (out, mut outgoing) = mpsc::unbounded_channel::<String>();
    let connection = Connection {
        out,
        subscriptions: HashMap::new(),
        authenticated: false,
    };
    {
        let mut shared = lock(shared);
        if shared.faults.require_auth {
            let _ = connection.out.send(r#"["AUTH","challenge"]"#.to_owned());
        }
        shared.connections.insert(id, connection);
    }
    loop {
        if frozen.wait_for(|frozen| !frozen).await.is_err() {
            return;
        }
        tokio::select! {
            text = outgoing.recv() => {
                let Some(text) = text else { return };
                if sink.send(Frame::text(text)).await.is_err() {
                    return;
                }
            }
            frame = stream.next() => match frame {
                Some(Ok(Frame::Text(text))) => hear(id, &text, shared),
                Some(Ok(Frame::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
            _ = frozen.changed() => {}
        }
    }
}

fn hear(id: usize, text: &str, shared: &Arc<Mutex<Shared>>) {
    let Ok(message) = ClientMessage::from_json(text) else {
        return;
    };
    let mut guard = lock(shared);
    let answer = |guard: &Shared, message: RelayMessage<'_>| {
        if let Some(connection) = guard.connections.get(&id) {
            let _ = connection.out.send(message.as_json());
        }
    };
    match message {
        ClientMessage::Event(event) => {
            let event = event.into_owned();
            guard.log.push(event.clone());
            let faults = &mut guard.faults;
            let verdict = if faults.next_answers.is_empty() {
                faults.answer.clone()
            } else {
                faults.next_answers.remove(0)
            };
            match &verdict {
                Answer::Accept => answer(&guard, RelayMessage::ok(event.id, true, "")),
                Answer::Refuse(reason) => {
                    return answer(&guard, RelayMessage::ok(event.id, false, reason.as_str()));
                }
                Answer::Silence => {}
            }
            if guard.faults.lose.as_mut().is_some_and(|lose| lose(&event)) {
                return;
            }
            store(&mut guard.stored, &event);
            pass_on(&guard, shared, event);
        }
        ClientMessage::Req {
            subscription_id,
            filters,
        } => {
            let subscription = subscription_id.into_owned();
            if guard.faults.require_auth
                && !guard.connections.get(&id).is_some_and(|c| c.authenticated)
            {
                return answer(
                    &guard,
                    RelayMessage::closed(subscription, "auth-required: who are you?"),
                );
            }
            if let Some((times, reason)) = &mut guard.faults.close_subscriptions
                && *times > 0
            {
                *times -= 1;
                let reason = reason.clone();
                return answer(&guard, RelayMessage::closed(subscription, reason));
            }
            let filters: Vec<Filter> = filters
                .into_iter()
                .map(|filter| filter.into_owned())
                .collect();
            for event in matching(&guard.stored, &filters) {
                answer(&guard, RelayMessage::event(subscription.clone(), event));
            }
            answer(&guard, RelayMessage::eose(subscription.clone()));
            if let Some(connection) = guard.connections.get_mut(&id) {
                connection.subscriptions.insert(subscription, filters);
            }
        }
        ClientMessage::Close(subscription) => {
            if let Some(connection) = guard.connections.get_mut(&id) {
                connection.subscriptions.remove(subscription.as_ref());
            }
        }
        ClientMessage::Auth(event) => {
            let fine = event.verify().is_ok() && event.tags.challenge() == Some("challenge");
            if let Some(connection) = guard.connections.get_mut(&id) {
                connection.authenticated |= fine;
            }
            answer(&guard, RelayMessage::ok(event.id, fine, ""));
        }
        _ => {}
    }
}

/// Ephemeral events are not kept, of replaceable ones only the newest.
fn store(stored: &mut Vec<Event>, event: &Event) {
    let kind = event.kind.as_u16();
    let replaceable = matches!(kind, 0 | 3 | 10_000..20_000);
    if (20_000..30_000).contains(&kind) || stored.iter().any(|known| known.id == event.id) {
        return;
    }
    if replaceable {
        let same = |known: &Event| known.kind == event.kind && known.pubkey == event.pubkey;
        if stored
            .iter()
            .any(|known| same(known) && known.created_at >= event.created_at)
        {
            return;
        }
        stored.retain(|known| !same(known));
    }
    stored.push(event.clone());
}

fn matching(stored: &[Event], filters: &[Filter]) -> Vec<Event> {
    let mut found: Vec<Event> = Vec::new();
    for filter in filters {
        let mut hits: Vec<&Event> = stored
            .iter()
            .filter(|event| filter.match_event(event, MatchEventOptions::new()))
            .collect();
        hits.sort_by_key(|event| std::cmp::Reverse(event.created_at));
        hits.truncate(filter.limit.unwrap_or(usize::MAX));
        for hit in hits {
            if !found.iter().any(|event| event.id == hit.id) {
                found.push(hit.clone());
            }
        }
    }
    found
}

fn pass_on(guard: &Shared, shared: &Arc<Mutex<Shared>>, event: Event) {
    let (delay, copies, corrupt) = (
        guard.faults.delay,
        guard.faults.duplicates + 1,
        guard.faults.corrupt_first,
    );
    if delay.is_zero() {
        return deliver(guard, &event, copies, corrupt);
    }
    let shared = shared.clone();
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        deliver(&lock(&shared), &event, copies, corrupt);
    });
}

fn deliver(shared: &Shared, event: &Event, copies: usize, corrupt: bool) {
    for connection in shared.connections.values() {
        for (subscription, filters) in &connection.subscriptions {
            if !filters
                .iter()
                .any(|filter| filter.match_event(event, MatchEventOptions::new()))
            {
                continue;
            }
            let send = |event: Event| {
                let _ = connection
                    .out
                    .send(RelayMessage::event(subscription.clone(), event).as_json());
            };
            if corrupt {
                send(corrupted(event));
            }
            for _ in 0..copies {
                send(event.clone());
            }
        }
    }
}

/// The same id and signature around other content.
pub(crate) fn corrupted(event: &Event) -> Event {
    let mut copy = event.clone();
    copy.content = format!("{} ", event.content.replace("tools/call", "tools/list"));
    copy
}
