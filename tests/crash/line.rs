//! How a client reaches the shop, whichever of its processes lives: over the relay, encrypted, or over HTTP, in a session.
//!
//! What got no answer from a process that has ended is sent to the next one as it is.

use std::time::Duration;

use nostr_sdk::prelude::{Event, EventBuilder, JsonUtil, Keys, Kind, Tag, nip44};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::faulty_relay::open;
use super::shop::Shop;

/// How long an answer may take before the same request is sent again to a process that lives. Nothing is lost on the way, so
/// this is for what was lost with a process that ended unnoticed.
const RESEND: Duration = Duration::from_secs(20);
/// How often a client looks at what came.
const LOOK: Duration = Duration::from_millis(15);

/// The ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Over the relay, under explicit gating.
    Gated,
    /// Over the relay, by a client that declares that it pays by challenge, to each process anew.
    Challenged,
    /// Over HTTP.
    Http,
}

/// A request that can be sent more than once.
pub(crate) enum Request {
    Signed(Box<Event>),
    Posted(Value),
}

/// See the [module](self).
pub(crate) struct Line<'r> {
    shop: &'r Shop,
    way: Way,
    keys: Keys,
    session: Option<String>,
    /// How many processes had become ready when it introduced itself.
    introduced_at: usize,
    requests: u32,
    /// How much of what the relay has carried was looked at.
    read: usize,
    openings: watch::Receiver<usize>,
}

impl<'r> Line<'r> {
    pub(crate) fn new(shop: &'r Shop, way: Way) -> Self {
        Self {
            shop,
            way,
            keys: Keys::generate(),
            session: None,
            introduced_at: 0,
            requests: 0,
            read: 0,
            openings: shop.openings.subscribe(),
        }
    }

    /// How many processes have become ready since this was asked last.
    pub(crate) fn openings(&self) -> usize {
        *self.shop.openings.borrow()
    }

    /// A new request to call the tool.
    pub(crate) fn call(&mut self, params: &Value) -> Request {
        self.request("tools/call", params)
    }

    fn request(&mut self, method: &str, params: &Value) -> Request {
        self.requests += 1;
        let message =
            json!({"jsonrpc": "2.0", "id": self.requests, "method": method, "params": params});
        let mut tags = vec![Tag::public_key(self.shop.keys.public_key())];
        match self.way {
            Way::Http => return Request::Posted(message),
            Way::Gated => {
                tags.push(Tag::parse(["payment_interaction", "explicit_gating"]).unwrap());
            }
            Way::Challenged => {}
        }
        let event = EventBuilder::new(Kind::from(25910), message.to_string())
            .tags(tags)
            .sign_with_keys(&self.keys)
            .unwrap();
        Request::Signed(Box::new(event))
    }

    /// Sends `request`, and sends it again, until it is answered.
    pub(crate) async fn ask(&mut self, request: &Request) -> Value {
        self.openings.wait_for(|count| *count > 0).await.unwrap();
        loop {
            self.openings.mark_unchanged();
            if !self.is_introduced() && !self.introduce().await {
                continue;
            }
            if let Some(answer) = self.exchange(request).await {
                return answer;
            }
        }
    }

    fn is_introduced(&self) -> bool {
        match self.way {
            Way::Gated => true,
            Way::Challenged => self.introduced_at == self.openings(),
            Way::Http => self.session.is_some(),
        }
    }

    async fn introduce(&mut self) -> bool {
        let openings = self.openings();
        let payment = json!({"methods": {"lightning": {"intents": ["charge"]}, "stripe": {"intents": ["charge"]}}});
        let request = self.request(
            "initialize",
            &json!({
                "protocolVersion": "2025-06-18", "capabilities": {"experimental": {"payment": payment}},
                "clientInfo": {"name": "crash", "version": "0"},
            }),
        );
        let known = self.exchange(&request).await.is_some();
        if known {
            self.introduced_at = openings;
        }
        known
    }

    async fn exchange(&mut self, request: &Request) -> Option<Value> {
        match request {
            Request::Signed(event) => self.send(event).await,
            Request::Posted(message) => self.post(message).await,
        }
    }

    /// The answer to `request`, unless the process ends first.
    async fn send(&mut self, request: &Event) -> Option<Value> {
        let (once, to) = (Keys::generate(), self.shop.keys.public_key());
        let content = nip44::encrypt(
            once.secret_key(),
            &to,
            request.as_json(),
            nip44::Version::V2,
        );
        let wrap = EventBuilder::new(Kind::from(21059), content.unwrap())
            .tag(Tag::public_key(to))
            .sign_with_keys(&once)
            .unwrap();
        self.shop.relay.inject(&wrap);
        let until = Instant::now() + RESEND;
        while Instant::now() < until && !self.openings.has_changed().unwrap() {
            let new = self.shop.relay.events_after(self.read);
            self.read += new.len();
            let own = new.iter().filter_map(|event| open(event, &self.keys));
            let of_it = own.filter(|event| event.tags.event_ids().next() == Some(&request.id));
            let mut said = of_it.map(|event| serde_json::from_str(&event.content).unwrap());
            if let Some(answer) = said.find(|said: &Value| said.get("method").is_none()) {
                return Some(answer);
            }
            sleep(LOOK).await;
        }
        None
    }

    /// The answer to `message`. If there is none, the next process is waited for, or long enough for one that only did not answer.
    async fn post(&mut self, message: &Value) -> Option<Value> {
        let url = self.shop.url.lock().unwrap().clone();
        if let Some(url) = url
            && let Some(answer) = self.post_to(&url, &message.to_string()).await
        {
            return Some(answer);
        }
        let _ = timeout(RESEND, self.openings.changed()).await;
        None
    }

    async fn post_to(&mut self, url: &str, body: &str) -> Option<Value> {
        let address = url.strip_prefix("http://")?.strip_suffix("/mcp")?;
        let session = self.session.as_ref();
        let session = session.map_or(String::new(), |id| format!("mcp-session-id: {id}\r\n"));
        let request = format!(
            "POST /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\naccept: application/json\r\n{session}\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let answer = serde_json::from_str(body).ok()?;
        let begun = head
            .lines()
            .find_map(|line| line.strip_prefix("mcp-session-id: "));
        if let Some(id) = begun {
            self.session = Some(id.to_owned());
        }
        Some(answer)
    }
}
