//! A client without any cleverness: it signs exactly what the test says, publishes it, and reads what the relay saw.

use std::sync::Mutex;

use futures_util::{SinkExt, StreamExt};
use nostr_sdk::prelude::{
    Event, EventBuilder, EventId, JsonUtil, Keys, Kind, PublicKey, Tag, TagKind, Timestamp, nip44,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message as Frame;

use super::faulty_relay::{FaultyRelay, open};
use super::world::{PMI, SOON, World};

/// How a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    Plain,
    Persistent,
    Ephemeral,
}

impl Via {
    pub(crate) const ALL: [Self; 3] = [Self::Plain, Self::Persistent, Self::Ephemeral];

    pub(crate) fn kind(self) -> u16 {
        match self {
            Self::Plain => 25910,
            Self::Persistent => 1059,
            Self::Ephemeral => 21059,
        }
    }

    /// The event that goes over the wire; another one each time if it is wrapped.
    pub(crate) fn carry(self, event: &Event, to: &PublicKey) -> Event {
        if self == Self::Plain {
            return event.clone();
        }
        let once = Keys::generate();
        let content = nip44::encrypt(once.secret_key(), to, event.as_json(), nip44::Version::V2);
        EventBuilder::new(Kind::from(self.kind()), content.unwrap())
            .tag(Tag::public_key(*to))
            .sign_with_keys(&once)
            .unwrap()
    }
}

/// A connection to the relay, for publishing only.
pub(crate) struct Wire {
    out: mpsc::UnboundedSender<Frame>,
    /// The relay's answers, in order.
    oks: tokio::sync::Mutex<mpsc::UnboundedReceiver<()>>,
}

impl Wire {
    pub(crate) async fn connect(relay: &FaultyRelay) -> Self {
        let (socket, _) = tokio_tungstenite::connect_async(relay.url()).await.unwrap();
        let (mut sink, mut stream) = socket.split();
        let (out, mut outgoing) = mpsc::unbounded_channel();
        let (answered, oks) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(frame) = outgoing.recv().await {
                if sink.send(frame).await.is_err() {
                    return;
                }
            }
        });
        tokio::spawn(async move {
            while let Some(Ok(frame)) = stream.next().await {
                if matches!(frame, Frame::Text(text) if text.starts_with("[\"OK\"")) {
                    let _ = answered.send(());
                }
            }
        });
        Self {
            out,
            oks: tokio::sync::Mutex::new(oks),
        }
    }

    /// Publishes, and returns once the relay has answered all of it.
    pub(crate) async fn publish(&self, events: &[Event]) {
        let mut oks = self.oks.lock().await;
        for event in events {
            self.out
                .send(Frame::text(format!(r#"["EVENT",{}]"#, event.as_json())))
                .unwrap();
        }
        for _ in events {
            tokio::time::timeout(SOON, oks.recv())
                .await
                .expect("the relay answers")
                .unwrap();
        }
    }
}

/// A message that the relay saw, unwrapped.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    /// The kind of the event that carried it.
    pub(crate) carrier: u16,
    pub(crate) event: Event,
    pub(crate) json: Value,
}

impl Heard {
    pub(crate) fn is(&self, method: &str) -> bool {
        self.json["method"] == format!("notifications/{method}")
    }

    pub(crate) fn is_response(&self) -> bool {
        self.json.get("result").is_some() || self.json.get("error").is_some()
    }

    pub(crate) fn code(&self) -> Option<i64> {
        self.json["error"]["code"].as_i64()
    }

    pub(crate) fn about(&self) -> Option<EventId> {
        self.event.tags.event_ids().next().copied()
    }

    /// The names of its tags, in order.
    pub(crate) fn tag_names(&self) -> Vec<String> {
        self.event
            .tags
            .iter()
            .map(|tag| tag.as_slice()[0].clone())
            .collect()
    }

    /// The tags of this name, as they are.
    pub(crate) fn tags(&self, name: &str) -> Vec<Vec<String>> {
        let tags = self.event.tags.filter(TagKind::custom(name.to_owned()));
        tags.map(|tag| tag.as_slice().to_vec()).collect()
    }

    /// The offer that it makes, in either lifecycle.
    pub(crate) fn offer(&self) -> &Value {
        match self.json.get("params") {
            Some(params) => params,
            None => &self.json["error"]["data"]["payment_options"][0],
        }
    }

    pub(crate) fn pay_req(&self) -> &str {
        self.offer()["pay_req"].as_str().expect("an offer")
    }

    /// What kind of message it is, in one word: the last part of the method, `result`, or the code of the error.
    pub(crate) fn word(&self) -> String {
        match (self.json["method"].as_str(), self.code()) {
            (Some(method), _) => method.rsplit('/').next().unwrap_or_default().to_owned(),
            (None, Some(code)) => code.to_string(),
            (None, None) => "result".to_owned(),
        }
    }
}

/// See the [module](self).
pub(crate) struct Raw<'w> {
    pub(crate) keys: Keys,
    pub(crate) via: Via,
    /// The tags of its requests, beyond `p`.
    pub(crate) tags: Vec<Tag>,
    pub(crate) wire: Wire,
    world: &'w World,
    heard: Mutex<(usize, Vec<Heard>)>,
}

pub(crate) fn tag(parts: &[&str]) -> Tag {
    Tag::parse(parts.iter().copied()).unwrap()
}

impl<'w> Raw<'w> {
    pub(crate) async fn connect(world: &'w World, keys: Keys, via: Via) -> Self {
        Self {
            keys,
            via,
            tags: vec![tag(&["pmi", PMI])],
            wire: Wire::connect(&world.relay).await,
            world,
            heard: Mutex::default(),
        }
    }

    /// The same client, asking for explicit gating on every request.
    pub(crate) fn explicit(mut self) -> Self {
        self.tags
            .push(tag(&["payment_interaction", "explicit_gating"]));
        self
    }

    /// The same client with these tags on its requests.
    pub(crate) fn tagged(mut self, tags: &[&[&str]]) -> Self {
        self.tags = tags.iter().map(|parts| tag(parts)).collect();
        self
    }

    /// An event with this content, not sent yet.
    pub(crate) fn sign(&self, content: &str) -> Event {
        self.sign_at(content, Timestamp::now())
    }

    /// An event that claims to be written at this time.
    pub(crate) fn sign_at(&self, content: &str, at: Timestamp) -> Event {
        EventBuilder::new(Kind::from(25910), content)
            .tag(Tag::public_key(self.world.keys.public_key()))
            .tags(self.tags.clone())
            .custom_created_at(at)
            .sign_with_keys(&self.keys)
            .unwrap()
    }

    pub(crate) fn request(&self, id: Value, method: &str, params: Value) -> Event {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.sign(&request.to_string())
    }

    pub(crate) fn call(&self, id: Value, tool: &str, arguments: Value) -> Event {
        self.request(
            id,
            "tools/call",
            json!({"name": tool, "arguments": arguments}),
        )
    }

    /// Sends an event, or sends it again; wrapped anew each time if it is wrapped.
    pub(crate) async fn send(&self, event: &Event) {
        self.send_by(event, self.via).await;
    }

    pub(crate) async fn send_by(&self, event: &Event, via: Via) {
        self.wire
            .publish(&[via.carry(event, &self.world.keys.public_key())])
            .await;
    }

    /// Everything that the server said to this client, in the order in which it was published. What was said twice within
    /// a second is one event in the clear, but two events to the relay, and is here twice.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        let events = self.world.relay.events();
        let mut heard = self.heard.lock().unwrap();
        let (seen, known) = &mut *heard;
        for carrier in &events[*seen..] {
            let Some(event) = open(carrier, &self.keys) else {
                continue;
            };
            if event.pubkey != self.world.keys.public_key() {
                continue;
            }
            event.verify().expect("the server signs what it says");
            let json = serde_json::from_str(&event.content).expect("the server speaks JSON");
            known.push(Heard {
                carrier: carrier.kind.as_u16(),
                event,
                json,
            });
        }
        *seen = events.len();
        known.clone()
    }

    /// What was said about `request`.
    pub(crate) fn about(&self, request: &Event) -> Vec<Heard> {
        self.heard()
            .into_iter()
            .filter(|heard| heard.about() == Some(request.id))
            .collect()
    }

    /// The same in words, for comparing.
    pub(crate) fn words(&self, request: &Event) -> Vec<String> {
        self.about(request).iter().map(Heard::word).collect()
    }

    /// Waits until so many messages about `request` match, and returns the last of them.
    pub(crate) async fn wait(
        &self,
        request: &Event,
        count: usize,
        matches: impl Fn(&Heard) -> bool,
    ) -> Heard {
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            let mut found: Vec<Heard> = self
                .about(request)
                .into_iter()
                .filter(|h| matches(h))
                .collect();
            if found.len() >= count {
                return found.swap_remove(count - 1);
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "waited in vain for what answers {}; there is {:?}",
                request.content.chars().take(200).collect::<String>(),
                self.about(request)
                    .iter()
                    .map(|heard| &heard.json)
                    .collect::<Vec<_>>(),
            );
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn required(&self, request: &Event) -> Heard {
        self.wait(request, 1, |heard| heard.is("payment_required"))
            .await
    }

    /// The first response, whatever it is.
    pub(crate) async fn response(&self, request: &Event) -> Heard {
        self.wait(request, 1, Heard::is_response).await
    }

    pub(crate) async fn result(&self, request: &Event) -> Heard {
        self.wait(request, 1, |heard| heard.json.get("result").is_some())
            .await
    }

    /// Waits for the first response, which has to be this error.
    pub(crate) async fn error(&self, request: &Event, code: i64) -> Heard {
        let response = self.response(request).await;
        assert_eq!(response.code(), Some(code), "{}", response.json);
        response
    }

    /// Pays an offer.
    pub(crate) async fn pay(&self, offer: &Heard) {
        self.world
            .rail
            .settle(offer.pay_req().trim_start_matches("scripted:"))
            .await;
    }

    /// Sends a priced call, pays for it when asked, and waits for its result.
    pub(crate) async fn buy(&self, request: &Event) -> Heard {
        self.send(request).await;
        let required = self.required(request).await;
        self.pay(&required).await;
        self.result(request).await
    }

    /// Buys an authorization under explicit gating, which is then the right to one execution.
    pub(crate) async fn buy_grant(&self, request: &Event) {
        self.send(request).await;
        let required = self.error(request, -32042).await;
        self.pay(&required).await;
        self.wait(request, 1, |heard| heard.is("payment_accepted"))
            .await;
    }
}
