//! Who buys in the demo: a client with a budget, over the same relay.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::{content, session};
use super::story::Story;
use crate::client::{CallOutcome, ClientPayments, PaidClient, with_client_payments};
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::wire_up;
use crate::payment::ServerPubkey;
use crate::rails::fake::FakeHandler;
use crate::transport::MessageChannel;
use crate::transport::nostr::{DevRelay, NostrClientTransport, NostrKeys};
use crate::wire::{Request, method};

const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Buyer {
    client: Arc<PaidClient>,
    story: Arc<Story>,
}

/// What the buyer saw.
#[derive(Debug, Default)]
pub(super) struct Bought {
    /// Results that cost nothing.
    pub(super) free: usize,
    /// Results that were paid for.
    pub(super) paid: usize,
    /// Calls that were refused.
    pub(super) rejected: usize,
    /// What all of it cost.
    pub(super) spent_sats: u64,
}

impl Buyer {
    pub(super) async fn connect(
        server: ServerPubkey,
        relay: &DevRelay,
        story: Arc<Story>,
    ) -> Outcome<Self> {
        let transport = NostrClientTransport::builder(NostrKeys::generate(), server)
            .relays([relay.url()])
            .connect()
            .await?;
        let telling = Arc::clone(&story);
        let payments = ClientPayments::builder()
            .handler(FakeHandler::new())
            .budget("100 sats".parse()?)
            .on_event(move |event| telling.payment(event))
            .build()?;
        Ok(Self {
            client: with_client_payments(transport, payments),
            story,
        })
    }

    /// Free, priced, priced by what is asked, refused.
    pub(super) async fn go_shopping(&self) -> Outcome<Bought> {
        let first = wire_up::first_request_id();
        let opened = session::open(&self.client, first, PATIENCE).await?;
        if opened.response.result().is_none() {
            return Err(Failure::failed("the demo's server does not open a session"));
        }
        let list = [
            ("hello", json!({})),
            ("add", json!({"a": 19, "b": 23})),
            ("reverse", json!({"text": "pay as you go"})),
            ("add", json!({"a": 2, "b": 2})),
            ("secret", json!({})),
            ("hello", json!({})),
        ];
        let mut bought = Bought::default();
        for (id, (tool, arguments)) in (first + 1..).zip(list) {
            let outcome = self.call(id, tool, &arguments).await?;
            match (outcome.response.result(), &outcome.paid) {
                (Some(_), Some(paid)) => {
                    bought.paid += 1;
                    bought.spent_sats += paid.value();
                }
                (Some(_), None) => bought.free += 1,
                (None, _) => bought.rejected += 1,
            }
        }
        self.client.close().await;
        Ok(bought)
    }

    async fn call(&self, id: i64, tool: &str, arguments: &Value) -> Outcome<CallOutcome> {
        self.story.call(tool, arguments);
        let params = json!({ "name": tool, "arguments": arguments });
        let request = Request::new(id, method::TOOLS_CALL, &params)?;
        let outcome = self.client.call(request, PATIENCE).await?;
        match (outcome.response.result(), outcome.response.error()) {
            (Some(result), _) => {
                let result: Value = serde_json::from_str(result.get()).unwrap_or_default();
                self.story.result(&content::as_text(&result));
            }
            (None, error) => {
                let message = error.map_or_else(|| "unreadable".to_owned(), |error| error.message);
                self.story.error(&message);
            }
        }
        Ok(outcome)
    }
}
