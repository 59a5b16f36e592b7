//! A paid server in memory that sells by the fake Stripe.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tollkeeper::Result;
use tollkeeper::entitlement::stripe::{Desk, DeskSettings, Meter, Plan, StripePlans};
use tollkeeper::ledger::{Ledger, MemoryLedger, PurchaseBooks};
use tollkeeper::payment::{Amount, STRIPE_CHECKOUT_URL, Unit};
use tollkeeper::rails::stripe::{About, PlanMode, StripeCheckout, WebhookEvent};
use tollkeeper::testing::{Answer, Harness, RawClient, TestClock};

use super::client;
use super::fake_stripe::FakeStripe;

/// Where payers are sent.
pub(crate) const SUCCESS: &str = "https://shop.example.com/thanks";

/// What is sold, and how to look behind it.
pub(crate) struct Shop {
    pub(crate) stripe: FakeStripe,
    pub(crate) harness: Harness,
    pub(crate) desk: Arc<Desk>,
    pub(crate) books: Arc<dyn PurchaseBooks>,
    pub(crate) clock: Arc<TestClock>,
    stop: CancellationToken,
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The books of a shop, as two views of one ledger.
#[derive(Clone)]
pub(crate) struct Books {
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) purchases: Arc<dyn PurchaseBooks>,
}

impl Books {
    pub(crate) fn in_memory() -> Self {
        let ledger = Arc::new(MemoryLedger::new());
        Self {
            ledger: Arc::clone(&ledger) as _,
            purchases: ledger,
        }
    }
}

/// The plans: a tool for good, a tool by subscription, a tool by use.
fn plans() -> Vec<Plan> {
    let plan = |tool: &str, price: &str, mode, cents| {
        let capability = vec![tool.parse().unwrap()];
        let amount = Amount::new(cents, Unit::USD_CENTS).unwrap();
        Plan::new(tool, capability, (price, mode, amount), SUCCESS)
            .unwrap()
            .reason("Payment required")
    };
    vec![
        plan("tool:once", "price_once", PlanMode::Payment, 999),
        plan("tool:monthly", "price_monthly", PlanMode::Subscription, 500),
        plan("tool:metered", "price_metered", PlanMode::Metered, 2).meter(Meter {
            event: "api_usage".to_owned(),
            value: 1,
            value_from: Some("/_meta/tollkeeper~1usage/tokens".to_owned()),
        }),
    ]
}

pub(crate) fn prices(stripe: &FakeStripe) {
    stripe.price("price_once", 999, None);
    stripe.price("price_monthly", 500, Some("licensed"));
    stripe.price("price_metered", 2, Some("metered"));
}

impl Shop {
    pub(crate) async fn open() -> Self {
        let stripe = FakeStripe::start().await;
        prices(&stripe);
        Self::on(stripe, Books::in_memory(), DeskSettings::default(), true).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut DeskSettings)) -> Self {
        let stripe = FakeStripe::start().await;
        prices(&stripe);
        let mut settings = DeskSettings::default();
        change(&mut settings);
        Self::on(stripe, Books::in_memory(), settings, true).await
    }

    /// `kept`: in rounds, as `serve` does.
    pub(crate) async fn on(
        stripe: FakeStripe,
        books: Books,
        settings: DeskSettings,
        kept: bool,
    ) -> Self {
        let clock = Arc::new(TestClock::new());
        let checkout = StripeCheckout::new(client(&stripe), SUCCESS).unwrap();
        let desk = Desk::new(client(&stripe), Arc::clone(&books.purchases), plans())
            .settings(settings)
            .clock(Arc::clone(&clock) as _)
            .with_hints(checkout.hints())
            .with_ledger(Arc::clone(&books.ledger));
        let desk = Arc::new(desk);
        let entitlement = StripePlans::new(Arc::clone(&desk)).unwrap();
        let listed = plans()
            .iter()
            .flat_map(|plan| plan.priced().unwrap())
            .collect::<Vec<_>>();
        let harness = Harness::builder(&["tool:call=1.00 usd"])
            .unwrap()
            .ledger(Arc::clone(&books.ledger))
            .clock(Arc::clone(&clock))
            .handler(|request| async move {
                let params: Value = serde_json::from_str(request.params.unwrap().get()).unwrap();
                match params["arguments"]["how"].as_str() {
                    Some("fails") => Answer::Result(json!({ "content": [], "isError": true })),
                    Some("dies") => Answer::Lost,
                    Some("tokens") => Answer::Result(json!({
                        "content": [], "_meta": { "tollkeeper/usage": { "tokens": 37 } }
                    })),
                    _ => Answer::Result(json!({ "content": [] })),
                }
            })
            .payments(|payments| {
                payments
                    .prices(listed)
                    .processor(checkout)
                    .entitlement(entitlement)
            })
            .start()
            .await
            .unwrap();
        let stop = CancellationToken::new();
        if kept {
            tokio::spawn(Arc::clone(&desk).keep(stop.clone()));
        }
        Self {
            stripe,
            harness,
            desk,
            books: books.purchases,
            clock,
            stop,
        }
    }

    /// A client that takes part in explicit gating, and pays by Checkout.
    pub(crate) fn buyer(&self, n: u8) -> Buyer {
        let mut raw = self.harness.client(n).explicit();
        raw.introduction.pmis = vec![STRIPE_CHECKOUT_URL.parse().unwrap()];
        Buyer {
            raw,
            asked: std::cell::Cell::new(0),
        }
    }

    /// The webhook about `object`, taken in as if it had been verified.
    pub(crate) async fn webhook(&self, kind: &str, object: &str) -> Value {
        let event = self.stripe.event(kind, object);
        self.take_in(&event).await.unwrap();
        event
    }

    pub(crate) async fn take_in(&self, event: &Value) -> Result<()> {
        let event = WebhookEvent::parse(event.to_string().as_bytes()).unwrap();
        self.desk
            .take_in(event.expect("about something of ours"))
            .await
    }

    /// Waits until everything that was taken in has been acted upon.
    pub(crate) async fn treated(&self) {
        eventually(|| async { self.books.untreated(1).await.unwrap().is_empty() }).await;
    }

    /// Pays the page of `answer`, which is a demand. Returns the session.
    pub(crate) fn pay(&self, answer: &Value) -> String {
        let session = session_of(answer);
        self.stripe.pay(&session);
        session
    }
}

/// The session that a demand is about.
pub(crate) fn session_of(answer: &Value) -> String {
    assert_eq!(answer["error"]["code"], -32042, "{answer}");
    let option = &answer["error"]["data"]["payment_options"][0];
    assert_eq!(option["pmi"], STRIPE_CHECKOUT_URL);
    let url = option["pay_req"].as_str().unwrap();
    let session = url.rsplit('/').next().unwrap().split('#').next().unwrap();
    session.to_owned()
}

/// Whether a call was served.
pub(crate) fn is_served(answer: &Value) -> bool {
    answer["result"]["content"].is_array() && answer["result"]["isError"].is_null()
}

/// A client of the shop.
pub(crate) struct Buyer {
    pub(crate) raw: RawClient,
    asked: std::cell::Cell<i64>,
}

impl Buyer {
    pub(crate) async fn call(&self, tool: &str) -> Value {
        self.call_with(tool, json!({})).await
    }

    /// Calls, and waits for the answer; notifications are passed over.
    pub(crate) async fn call_with(&self, tool: &str, arguments: Value) -> Value {
        self.asked.set(self.asked.get() + 1);
        let prepared = self
            .raw
            .call_tool(self.asked.get(), tool, arguments)
            .await
            .unwrap();
        loop {
            let next = tokio::time::timeout(Duration::from_secs(10), self.raw.next_json());
            let (event, json) = next.await.expect("an answer in time").unwrap();
            if event == Some(prepared.event) && json["method"].is_null() {
                return json;
            }
        }
    }
}

/// Asks until it is so.
pub(crate) async fn eventually<F, Fut>(is_so: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = bool>,
{
    let asked = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asked)
        .await
        .expect("it never came to be so");
}

/// What a webhook about `session` points at.
#[allow(dead_code, reason = "for the tests that take in by hand")]
pub(crate) fn about(session: &str) -> About {
    About::Session(session.to_owned())
}
