//! Somebody who wants one result for one payment, and does what a reasonable buyer does when a server dies.
//!
//! A request that got no answer is sent again as it is, so that a result that was only lost on the way comes again. A
//! request that was answered with an error is followed by a new one for the same call. An offer is paid once; who has paid
//! and is asked to pay something else has been robbed.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use nostr_sdk::prelude::{Event, EventBuilder, EventId, JsonUtil, Keys, Kind, Tag, nip44};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::faulty_relay::open;
use super::script::{Lifecycle, Script};
use super::shop::{PATIENCE, Shop};

/// How long an answer may take before the same request is sent again.
const RESEND: Duration = Duration::from_secs(3);
/// How long a buyer waits between two requests.
const POLL: Duration = Duration::from_millis(200);
/// How often a buyer looks at what came.
const LOOK: Duration = Duration::from_millis(15);

/// Those who share a client key and a call, so that the payment of one may serve the other.
pub(crate) struct Group {
    pub(crate) call: u32,
    pub(crate) buyers: usize,
    pub(crate) keys: Keys,
    /// The events of all their requests.
    pub(crate) events: Mutex<HashSet<EventId>>,
    /// What they paid.
    pub(crate) paid: Mutex<HashSet<String>>,
}

/// See the [module](self).
pub(crate) struct Buyer<'r> {
    pub(crate) shop: &'r Shop,
    pub(crate) script: &'r Script,
    pub(crate) group: &'r Group,
    pub(crate) number: u32,
    /// What happened to it, for when it matters.
    pub(crate) story: &'r Mutex<Vec<String>>,
    requests: u32,
    read: usize,
    heard: Vec<Event>,
    /// What each request was asked to pay: one thing, for ever.
    offers: HashMap<EventId, String>,
}

enum Answer {
    Result(Value),
    Error(Value),
}

impl<'r> Buyer<'r> {
    pub(crate) fn new(
        shop: &'r Shop,
        script: &'r Script,
        group: &'r Group,
        number: u32,
        story: &'r Mutex<Vec<String>>,
    ) -> Self {
        Self {
            shop,
            script,
            group,
            number,
            story,
            requests: 0,
            read: 0,
            heard: Vec::new(),
            offers: HashMap::new(),
        }
    }

    /// Buys. Fails if it is turned away, or robbed.
    pub(crate) async fn buy(mut self) -> Result<(), String> {
        let outcome = timeout(PATIENCE, self.until_served()).await;
        let outcome = outcome.unwrap_or_else(|_| Err("was turned away".to_owned()));
        outcome.map_err(|why| {
            self.tell(&why);
            format!("buyer {} {why}", self.number)
        })
    }

    async fn until_served(&mut self) -> Result<(), String> {
        loop {
            let request = self.sign();
            match self.ask(&request).await? {
                Answer::Result(result) => {
                    let text = result["content"][0]["text"].as_str();
                    if text != Some(&self.group.call.to_string()) {
                        return Err(format!("got the result of another call: {result}"));
                    }
                    return self.ask_once_more(&request, &result).await;
                }
                Answer::Error(error) => {
                    self.tell(&format!("was answered {error}"));
                    sleep(POLL).await;
                }
            }
        }
    }

    /// The request that was served, sent once more, gets the same result.
    async fn ask_once_more(&mut self, request: &Event, result: &Value) -> Result<(), String> {
        self.heard.clear();
        match self.ask(request).await? {
            Answer::Result(again) if again == *result => Ok(()),
            Answer::Result(other) => {
                Err(format!("got another result for the same request: {other}"))
            }
            Answer::Error(error) => Err(format!(
                "got an error for a request that was served: {error}"
            )),
        }
    }

    fn sign(&mut self) -> Event {
        self.requests += 1;
        let arguments = json!({"call": self.group.call, "ms": self.script.busy_ms});
        let content = json!({
            "jsonrpc": "2.0", "id": format!("{}-{}", self.number, self.requests), "method": "tools/call",
            "params": {"name": "record", "arguments": arguments},
        });
        let tag = |parts: &[&str]| Tag::parse(parts.iter().copied()).unwrap();
        let mut tags = vec![
            Tag::public_key(self.shop.keys.public_key()),
            tag(&["pmi", "fake"]),
        ];
        if self.script.lifecycle == Lifecycle::ExplicitGating {
            tags.push(tag(&["payment_interaction", "explicit_gating"]));
        }
        let event = EventBuilder::new(Kind::from(25910), content.to_string())
            .tags(tags)
            .sign_with_keys(&self.group.keys)
            .unwrap();
        self.group.events.lock().unwrap().insert(event.id);
        event
    }

    /// Sends `request`, and sends it again, until it is answered; pays when asked to.
    async fn ask(&mut self, request: &Event) -> Result<Answer, String> {
        let mut openings = self.shop.openings.subscribe();
        openings.wait_for(|count| *count > 0).await.unwrap();
        loop {
            openings.mark_unchanged();
            self.send(request);
            let resend = Instant::now() + RESEND;
            while Instant::now() < resend && !openings.has_changed().unwrap() {
                if let Some(answer) = self.listen(request).await? {
                    return Ok(answer);
                }
                sleep(LOOK).await;
            }
        }
    }

    fn send(&self, request: &Event) {
        self.tell(&format!(
            "sends request {} {}",
            self.requests,
            &request.id.to_hex()[..8]
        ));
        if !self.script.encrypted {
            return self.shop.relay.inject(request);
        }
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
    }

    /// Deals with what came about `request`.
    async fn listen(&mut self, request: &Event) -> Result<Option<Answer>, String> {
        let new = self.shop.relay.events_after(self.read);
        self.read += new.len();
        self.heard
            .extend(new.iter().filter_map(|event| open(event, &self.group.keys)));
        for event in std::mem::take(&mut self.heard) {
            if event.tags.event_ids().next() != Some(&request.id) {
                continue;
            }
            let message: Value = serde_json::from_str(&event.content).unwrap();
            if message["method"] == "notifications/payment_required" {
                self.offered(request, &message["params"]).await?;
            }
            if let Some(error) = message.get("error") {
                if let Some(option) = error["data"]["payment_options"].get(0) {
                    self.offered(request, option).await?;
                }
                return Ok(Some(Answer::Error(error.clone())));
            }
            if let Some(result) = message.get("result") {
                return Ok(Some(Answer::Result(result.clone())));
            }
        }
        Ok(None)
    }

    /// Pays, unless that was done already.
    async fn offered(&mut self, request: &Event, offer: &Value) -> Result<(), String> {
        let pay_req = offer["pay_req"].as_str().unwrap().to_owned();
        let known = self
            .offers
            .entry(request.id)
            .or_insert_with(|| pay_req.clone());
        if *known != pay_req {
            return Err("was asked to pay two things for one request".to_owned());
        }
        let reference = pay_req.strip_prefix("till:").unwrap().to_owned();
        {
            let mut paid = self.group.paid.lock().unwrap();
            if paid.contains(&reference) {
                return Ok(());
            }
            if paid.len() == self.group.buyers {
                return Err(format!(
                    "was asked to pay a second time: {}",
                    &reference[..20]
                ));
            }
            paid.insert(reference.clone());
        }
        sleep(Duration::from_millis(self.script.pay_ms)).await;
        self.shop.pay(&reference);
        self.tell(&format!("pays {}", &reference[..20]));
        Ok(())
    }

    fn tell(&self, what: &str) {
        let at = self.shop.began.elapsed().as_millis();
        self.story
            .lock()
            .unwrap()
            .push(format!("{at:>6} ms  buyer {} {what}", self.number));
    }
}
