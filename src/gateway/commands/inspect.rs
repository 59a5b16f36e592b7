//! `inspect`: what a server offers, for how much, and how it is paid. Asks, and pays nothing.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::offer::{Offer, offers_of};
use super::session;
use crate::gateway::args::InspectArgs;
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::output::{self, Paint, harmless};
use crate::gateway::wire_up;
use crate::payment::{PaymentInteraction, Pmi};
use crate::transport::nostr::NostrClientTransport;
use crate::transport::{ClientInbound, ClientTransport, Introduction};
use crate::wire::{ErrorObject, Message, Notification, Request, Response, Tag, method};

const MOST_PAGES: usize = 1000;
/// How long slower relays are waited for before it is said that they are not there.
const OTHER_RELAYS: Duration = Duration::from_secs(3);

const LISTS: [(&str, &str, &str); 4] = [
    (method::TOOLS_LIST, "tools", "tool"),
    (method::PROMPTS_LIST, "prompts", "prompt"),
    (method::RESOURCES_LIST, "resources", "resource"),
    (method::RESOURCE_TEMPLATES_LIST, "resources", "resource"),
];

pub(super) async fn run(args: &InspectArgs) -> Outcome {
    let transport = wire_up::client_transport(&args.server).await?;
    let mut inspection = Inspection {
        transport,
        patience: Duration::from_secs(args.server.link.timeout),
        next: wire_up::first_request_id(),
        tags: Vec::new(),
    };
    let outcome = inspection.run(args.json).await;
    if outcome.is_ok() {
        inspection.print_health(args.json).await;
    }
    inspection.transport.close().await;
    outcome
}

struct Inspection {
    transport: Arc<NostrClientTransport>,
    patience: Duration,
    next: i64,
    /// All tags of all answers: a server introduces itself in the first of them.
    tags: Vec<Tag>,
}

impl Inspection {
    async fn run(&mut self, as_json: bool) -> Outcome {
        let introduction = self
            .ask(method::INITIALIZE, &session::introduction())
            .await??;
        self.say(session::initialized()).await?;
        let mut offers = Vec::new();
        for (list, capability, kind) in LISTS {
            if introduction
                .pointer(&format!("/capabilities/{capability}"))
                .is_none()
            {
                continue;
            }
            match self.list(list, kind).await? {
                Ok(listed) => offers.extend(listed),
                Err(error) => tracing::debug!(list, code = error.code, "no list"),
            }
        }
        let pmis = Tag::pmis(&self.tags);
        let interactions = self.interactions();
        if as_json {
            self.print_json(&introduction, &offers, &pmis, &interactions);
        } else {
            print_text(&introduction, &offers, &pmis, &interactions);
        }
        Ok(())
    }

    async fn list(&mut self, list: &str, kind: &str) -> Outcome<Result<Vec<Offer>, ErrorObject>> {
        let (mut offers, mut cursor) = (Vec::new(), Value::Null);
        for _ in 0..MOST_PAGES {
            let mut params = Map::new();
            if cursor.is_string() {
                params.insert("cursor".to_owned(), cursor.clone());
            }
            let before = self.tags.len();
            let mut page = match self.ask(list, &params).await? {
                Ok(page) => page,
                Err(error) => return Ok(Err(error.0)),
            };
            offers.extend(offers_of(list, kind, &mut page, &self.tags[before..]));
            let next = page.get("nextCursor").cloned().unwrap_or(Value::Null);
            if !next.is_string() || next == cursor {
                break;
            }
            cursor = next;
        }
        Ok(Ok(offers))
    }

    /// Transparent is what every server does; explicit gating is on offer where a tag says so (N-26).
    fn interactions(&self) -> Vec<PaymentInteraction> {
        let mut interactions = vec![PaymentInteraction::Transparent];
        if Tag::interaction(&self.tags) == Some(PaymentInteraction::ExplicitGating) {
            interactions.push(PaymentInteraction::ExplicitGating);
        }
        interactions
    }

    async fn ask(
        &mut self,
        method: &str,
        params: &impl serde::Serialize,
    ) -> Outcome<Result<Value, Refused>> {
        let request = Request::new(self.next, method, params)?;
        self.next += 1;
        let patience = self.patience;
        let asked = self.exchange(request.into());
        let response = tokio::time::timeout(patience, asked).await.map_err(|_| {
            Failure::failed(format!(
                "the server did not answer {method} in time (--timeout)"
            ))
        })??;
        if let Some(result) = response.result() {
            let result = serde_json::from_str(result.get())
                .map_err(|_| Failure::failed(format!("the answer to {method} cannot be read")))?;
            return Ok(Ok(result));
        }
        let error = response
            .error()
            .unwrap_or_else(|| ErrorObject::new(0, "unreadable error"));
        Ok(Err(Refused(error)))
    }

    async fn exchange(&mut self, message: Message) -> Outcome<Response> {
        let prepared = self
            .transport
            .prepare(&message, &Introduction::default())
            .await?;
        self.transport.publish(&prepared).await?;
        while let Some(ClientInbound {
            message,
            in_reply_to,
            tags,
            ..
        }) = self.transport.recv().await
        {
            self.tags.extend(tags);
            if let Message::Response(response) = message
                && in_reply_to == Some(prepared.event)
            {
                return Ok(response);
            }
        }
        Err(Failure::failed("the connection to the relays was closed"))
    }

    /// Which of the relays are there: an answer needs one of them.
    async fn print_health(&self, as_json: bool) {
        let relays = self.transport.relay_health(OTHER_RELAYS).await;
        if !as_json {
            output::line("");
        }
        for (relay, state) in relays {
            if as_json {
                output::json(&json!({ "event": "relay", "relay": relay, "state": state }));
            } else {
                output::line(&format!("relay       {relay}  {state}"));
            }
        }
    }

    async fn say(&self, said: Notification) -> Outcome {
        let prepared = self
            .transport
            .prepare(&said.into(), &Introduction::default())
            .await?;
        Ok(self.transport.publish(&prepared).await?)
    }

    fn print_json(
        &self,
        introduction: &Value,
        offers: &[Offer],
        pmis: &[Pmi],
        interactions: &[PaymentInteraction],
    ) {
        output::json(&json!({
            "event": "server",
            "pubkey": self.transport.server(),
            "server_info": introduction.get("serverInfo"),
            "protocol_version": introduction.get("protocolVersion"),
            "instructions": introduction.get("instructions"),
            "pmis": pmis,
            "payment_interactions": interactions,
        }));
        for offer in offers {
            output::json(&offer.to_json());
        }
    }
}

/// An error that the server answered with.
struct Refused(ErrorObject);

impl From<Refused> for Failure {
    fn from(Refused(error): Refused) -> Self {
        Self::failed(format!(
            "the server answered: {} ({})",
            harmless(&error.message),
            error.code
        ))
    }
}

fn print_text(
    introduction: &Value,
    offers: &[Offer],
    pmis: &[Pmi],
    interactions: &[PaymentInteraction],
) {
    let paint = Paint::stdout();
    let text = |pointer: &str| {
        introduction
            .pointer(pointer)
            .and_then(Value::as_str)
            .map(harmless)
    };
    let name = text("/serverInfo/name").unwrap_or_else(|| "a server without a name".to_owned());
    let version = text("/serverInfo/version").unwrap_or_default();
    output::line(&paint.bold(format!("{name} {version}").trim_end()));
    let words = |words: Vec<&str>| match words.is_empty() {
        true => "none".to_owned(),
        false => words.join(", "),
    };
    output::line(&format!(
        "paid by     {}",
        words(pmis.iter().map(Pmi::as_str).collect())
    ));
    let interactions = interactions
        .iter()
        .map(|interaction| interaction.as_str())
        .collect();
    output::line(&format!("lifecycles  {}", words(interactions)));
    for offer in offers {
        offer.print(&paint);
    }
}
