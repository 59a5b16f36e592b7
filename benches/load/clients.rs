//! The clients of the load program: one connection and one key each, so many calls in flight, in bare Nostr messages.
//!
//! They are no more than is needed to keep a server busy: what they send is signed before the clock starts, and what they
//! hear is matched by the event that it answers, not verified. Nothing has to be paid: the rail settles by itself.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use nostr::nips::nip44::{self, Version};
use nostr::{
    Event, EventBuilder, JsonUtil, Keys, Kind, PublicKey, RelayMessage, SecretKey, Tag, TagKind,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;

/// Kinds of a plaintext message and of an ephemeral wrap.
pub(crate) const MESSAGE: u16 = 25910;
const WRAP: u16 = 21059;

/// Calls that were made in turns.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(30);

type Sink = SplitSink<WebSocketStream<TcpStream>, Frame>;
type Stream = SplitStream<WebSocketStream<TcpStream>>;

/// What is called.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) relay: String,
    pub(crate) server: PublicKey,
    pub(crate) tool: &'static str,
    pub(crate) encrypted: bool,
}

/// What came of a phase.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) times: Vec<Duration>,
    /// Answers that were errors, or that did not come.
    pub(crate) failed: usize,
}

/// A request that is signed, and wrapped if need be.
struct Signed {
    id: String,
    frame: String,
}

/// One client, connected.
pub(crate) struct Caller {
    target: Arc<Target>,
    keys: Keys,
    sink: Sink,
    stream: Stream,
    next: u64,
    signed: VecDeque<Signed>,
}

/// Opens a connection and subscribes to what is for `pubkey`.
pub(crate) async fn connect(relay: &str, pubkey: &str) -> (Sink, Stream) {
    let address = relay.trim_start_matches("ws://").trim_end_matches('/');
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    let (socket, _) = tokio_tungstenite::client_async(relay, stream)
        .await
        .expect("a websocket");
    let (mut sink, mut stream) = socket.split();
    let filter = json!({ "kinds": [MESSAGE, WRAP, 1059], "#p": [pubkey] });
    let subscription = json!(["REQ", "load", filter]).to_string();
    sink.send(Frame::text(subscription)).await.expect("sent");
    while let Some(Ok(frame)) = stream.next().await {
        if frame.to_text().is_ok_and(|text| text.contains("EOSE")) {
            break;
        }
    }
    (sink, stream)
}

impl Caller {
    pub(crate) async fn new(target: &Arc<Target>) -> Self {
        let keys = Keys::generate();
        let (sink, stream) = connect(&target.relay, &keys.public_key().to_hex()).await;
        Self {
            target: Arc::clone(target),
            keys,
            sink,
            stream,
            next: 0,
            signed: VecDeque::new(),
        }
    }

    /// Signs `count` requests beforehand.
    pub(crate) fn sign_ahead(&mut self, count: usize) {
        while self.signed.len() < count {
            let signed = self.sign();
            self.signed.push_back(signed);
        }
    }

    fn sign(&mut self) -> Signed {
        self.next += 1;
        request(&self.target, &self.keys, self.next)
    }

    /// Calls for `time` with `in_flight` calls at once, then waits for the last answers.
    pub(crate) async fn call(&mut self, in_flight: usize, time: Duration) -> Heard {
        let mut heard = Heard::default();
        let mut open: HashMap<String, Instant> = HashMap::new();
        let end = Instant::now() + time;
        loop {
            while open.len() < in_flight && Instant::now() < end {
                let signed = self.signed.pop_front();
                let signed = signed.unwrap_or_else(|| self.sign());
                open.insert(signed.id, Instant::now());
                let _ = self.sink.send(Frame::text(signed.frame)).await;
            }
            if open.is_empty() {
                return heard;
            }
            let Ok(Some(Ok(frame))) = tokio::time::timeout(PATIENCE, self.stream.next()).await
            else {
                heard.failed += open.len();
                return heard;
            };
            let Frame::Text(text) = frame else { continue };
            if let Some((about, answer)) = self.read(&text)
                && (answer.get("result").is_some() || answer.get("error").is_some())
                && let Some(began) = open.remove(&about)
            {
                if answer.get("error").is_some() {
                    heard.failed += 1;
                    eprintln!("{answer}");
                } else if Instant::now() < end {
                    heard.times.push(began.elapsed());
                }
            }
        }
    }

    /// The message in a frame, and the event that it is about.
    fn read(&self, text: &str) -> Option<(String, Value)> {
        let Ok(RelayMessage::Event { event, .. }) = RelayMessage::from_json(text) else {
            return None;
        };
        let event = if event.kind.as_u16() == MESSAGE {
            event.into_owned()
        } else {
            let inner =
                nip44::decrypt(self.keys.secret_key(), &event.pubkey, &event.content).ok()?;
            Event::from_json(inner).ok()?
        };
        let about = event.tags.event_ids().next()?.to_hex();
        Some((about, serde_json::from_str(&event.content).ok()?))
    }
}

/// Has each of `keys` in turn call, `calls` times in all, with no more than `window` at once. Returns how many frames came back
/// with `word` in them.
pub(crate) async fn take_turns(
    target: &Target,
    keys: &Arc<Vec<Keys>>,
    calls: usize,
    window: usize,
    word: &str,
) -> usize {
    let (mut sink, mut stream) = connect(&target.relay, "nobody").await;
    let all: Vec<String> = keys.iter().map(|keys| keys.public_key().to_hex()).collect();
    let filter = json!(["REQ", "all", { "#p": all }]).to_string();
    sink.send(Frame::text(filter)).await.expect("sent");
    let room = Arc::new(tokio::sync::Semaphore::new(window));
    let (target, keys, taken) = (target.clone(), Arc::clone(keys), Arc::clone(&room));
    let sending = tokio::spawn(async move {
        for keys in keys.iter().cycle().take(calls) {
            taken.acquire().await.expect("open").forget();
            // Two equal calls of one key within a second would be one event.
            let n = CALLS.fetch_add(1, Ordering::Relaxed);
            let frame = request(&target, keys, n).frame;
            sink.send(Frame::text(frame)).await.expect("sent");
        }
        sink
    });
    let mut heard = 0;
    while heard < calls
        && let Ok(Some(Ok(frame))) = tokio::time::timeout(PATIENCE, stream.next()).await
    {
        if frame.to_text().is_ok_and(|text| text.contains(word)) {
            heard += 1;
            room.add_permits(1);
        }
    }
    sending.abort();
    heard
}

/// A call, signed, and wrapped if need be.
fn request(target: &Target, keys: &Keys, n: u64) -> Signed {
    let params = json!({ "name": target.tool, "arguments": { "n": n, "text": "a sentence of ordinary length" } });
    let request = json!({ "jsonrpc": "2.0", "id": n, "method": "tools/call", "params": params });
    let mut tags = vec![
        Tag::public_key(target.server),
        Tag::custom(TagKind::custom("pmi"), ["fake"]),
    ];
    if target.encrypted {
        for word in ["support_encryption", "support_encryption_ephemeral"] {
            tags.push(Tag::custom(TagKind::custom(word), [""; 0]));
        }
    }
    let event = EventBuilder::new(Kind::from(MESSAGE), request.to_string())
        .tags(tags)
        .sign_with_keys(keys)
        .expect("a signature");
    let carrier = if target.encrypted {
        wrap(&event, &target.server)
    } else {
        event.as_json()
    };
    Signed {
        id: event.id.to_hex(),
        frame: format!("[\"EVENT\",{carrier}]"),
    }
}

/// `event` in a wrap of a fresh key.
fn wrap(event: &Event, to: &PublicKey) -> String {
    let once = Keys::new(SecretKey::generate());
    let content =
        nip44::encrypt(once.secret_key(), to, event.as_json(), Version::V2).expect("encrypted");
    EventBuilder::new(Kind::from(WRAP), content)
        .tag(Tag::public_key(*to))
        .sign_with_keys(&once)
        .expect("a signature")
        .as_json()
}
