//! A buyer that signs exactly what the test says, with tags that our own client does not send.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use nostr_sdk::prelude::{
    Event, EventBuilder, FromBech32, JsonUtil, Keys, Kind, PublicKey, Tag, nip44,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// The kinds of a message in the clear, and of its wraps.
pub(crate) const PLAIN: u16 = 25910;
pub(crate) const PERSISTENT: u16 = 1059;
pub(crate) const EPHEMERAL: u16 = 21059;

const PATIENCE: Duration = Duration::from_secs(40);

pub(crate) struct RawBuyer {
    keys: Keys,
    server: PublicKey,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl RawBuyer {
    pub(crate) async fn connect(relay: &str, npub: &str) -> Self {
        let (mut socket, _) = connect_async(relay).await.unwrap();
        let keys = Keys::generate();
        let filter = json!({"kinds": [PLAIN, PERSISTENT, EPHEMERAL], "#p": [keys.public_key()]});
        let subscribe = json!(["REQ", "all", filter]).to_string();
        socket.send(Frame::text(subscribe)).await.unwrap();
        let server = PublicKey::from_bech32(npub).unwrap();
        Self {
            keys,
            server,
            socket,
        }
    }

    /// A call with these tags, not sent yet.
    pub(crate) fn call(&self, id: i64, name: &str, arguments: &Value, tags: &[&[&str]]) -> Event {
        let params = json!({"name": name, "arguments": arguments});
        let request = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        let tags = tags
            .iter()
            .map(|tag| Tag::parse(tag.iter().copied()).unwrap());
        EventBuilder::new(Kind::from(PLAIN), request.to_string())
            .tag(Tag::public_key(self.server))
            .tags(tags)
            .sign_with_keys(&self.keys)
            .unwrap()
    }

    /// Sends it as an event of this kind, wrapped anew each time if that is the kind of a wrap.
    pub(crate) async fn send(&mut self, event: &Event, kind: u16) {
        let carried = if kind == PLAIN {
            event.clone()
        } else {
            let once = Keys::generate();
            let (key, text) = (once.secret_key(), event.as_json());
            let content = nip44::encrypt(key, &self.server, text, nip44::Version::V2).unwrap();
            EventBuilder::new(Kind::from(kind), content)
                .tag(Tag::public_key(self.server))
                .sign_with_keys(&once)
                .unwrap()
        };
        let frame = format!(r#"["EVENT",{}]"#, carried.as_json());
        self.socket.send(Frame::text(frame)).await.unwrap();
    }

    /// What is said about `request` until it is answered, the answer last.
    pub(crate) async fn answers(&mut self, request: &Event) -> Vec<Value> {
        let mut said = Vec::new();
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.socket.next()).await;
            let frame = frame.expect("answered in time").unwrap().unwrap();
            let Some(event) = self.open(&frame) else {
                continue;
            };
            if event.tags.event_ids().next() != Some(&request.id) {
                continue;
            }
            let message: Value = serde_json::from_str(&event.content).unwrap();
            let last = message.get("method").is_none();
            said.push(message);
            if last {
                return said;
            }
        }
    }

    pub(crate) async fn ask(&mut self, request: &Event, kind: u16) -> Vec<Value> {
        self.send(request, kind).await;
        self.answers(request).await
    }

    /// The server's event in a frame of the relay.
    fn open(&self, frame: &Frame) -> Option<Event> {
        let Frame::Text(text) = frame else {
            return None;
        };
        let frame: Value = serde_json::from_str(text).unwrap();
        let event = frame.get(2).filter(|_| frame[0] == "EVENT")?;
        let event = Event::from_json(event.to_string()).unwrap();
        let event = if event.kind == Kind::from(PLAIN) {
            event
        } else {
            let key = self.keys.secret_key();
            let inner = nip44::decrypt(key, &event.pubkey, &event.content).unwrap();
            Event::from_json(inner).unwrap()
        };
        event.verify().unwrap();
        (event.pubkey == self.server).then_some(event)
    }
}
