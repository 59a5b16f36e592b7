//! One hostile server, one client with a scripted wallet, and everything that a test wants to see of them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tollkeeper::client::ledger::{Attempt, AttemptFilter, BuyerLedger, MemoryBuyerLedger};
use tollkeeper::client::{
    CallOutcome, ClientPayments, ClientPaymentsBuilder, PaidClient, with_client_payments,
};
use tollkeeper::payment::Amount;
use tollkeeper::testing::{
    HandlerControl, HostileServer, ScriptedHandler, TestClock, Victim, pay_req_asking,
};
use tollkeeper::wire::{ErrorObject, Request, Tag};

const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn sats(value: u64) -> Amount {
    format!("{value} sats").parse().unwrap()
}

pub(crate) struct Stage {
    pub(crate) server: HostileServer,
    pub(crate) client: Arc<PaidClient>,
    pub(crate) wallet: HandlerControl,
    pub(crate) ledger: Arc<dyn BuyerLedger>,
    pub(crate) clock: Arc<TestClock>,
}

impl Stage {
    pub(crate) fn set() -> Self {
        Self::with(|payments| payments)
    }

    pub(crate) fn with(
        change: impl FnOnce(ClientPaymentsBuilder) -> ClientPaymentsBuilder,
    ) -> Self {
        Self::on(Arc::new(MemoryBuyerLedger::new()), change)
    }

    /// A client with a budget of 1000 sats that writes to these books.
    pub(crate) fn on(
        ledger: Arc<dyn BuyerLedger>,
        change: impl FnOnce(ClientPaymentsBuilder) -> ClientPaymentsBuilder,
    ) -> Self {
        let (server, transport) = HostileServer::new();
        let (handler, wallet) = ScriptedHandler::new("scripted".parse().unwrap(), None);
        let clock = Arc::new(TestClock::new());
        let payments = ClientPayments::builder()
            .handler(handler)
            .budget(sats(1000))
            .ledger(Arc::clone(&ledger))
            .clock(Arc::clone(&clock) as _);
        Self {
            client: with_client_payments(transport, change(payments).build().unwrap()),
            server,
            wallet,
            ledger,
            clock,
        }
    }

    /// Starts a call of `add`; different `n`, different calls.
    pub(crate) fn call(&self, n: u64) -> JoinHandle<CallOutcome> {
        self.call_for(n, PATIENCE)
    }

    pub(crate) fn call_for(&self, n: u64, patience: Duration) -> JoinHandle<CallOutcome> {
        let client = Arc::clone(&self.client);
        let request = call(n);
        tokio::spawn(async move { client.call(request, patience).await.unwrap() })
    }

    /// The next request; there must be one within a day.
    pub(crate) async fn victim(&self) -> Victim {
        let day = Duration::from_secs(24 * 3600);
        let request = tokio::time::timeout(day, self.server.request()).await;
        request.unwrap_or_else(|_| panic!("no request")).unwrap()
    }

    /// Lets the client see a list in which `add` costs `price`.
    pub(crate) async fn see_price(&self, price: &str, unit: &str) {
        let client = Arc::clone(&self.client);
        let request = Request::new(900, "tools/list", &json!({})).unwrap();
        let listing = tokio::spawn(async move { client.call(request, PATIENCE).await.unwrap() });
        let victim = self.victim().await;
        let tags = vec![Tag::new(["cap", "tool:add", price, unit])];
        let tools = json!({"tools": [{"name": "add"}]});
        self.server
            .answer_tagged(&victim, &tools, tags)
            .await
            .unwrap();
        listing.await.unwrap();
    }

    /// Demands `amount`, by a payment request that asks for as much.
    pub(crate) async fn demand(&self, victim: &Victim, amount: u64, id: &str) {
        let offer = HostileServer::offer(amount, &pay_req_asking(amount, id));
        self.server.demand(victim, &offer).await.unwrap();
    }

    pub(crate) async fn answer(&self, victim: &Victim) {
        self.server
            .answer(victim, &json!({"ok": true}))
            .await
            .unwrap();
    }

    /// A call that is asked for `amount` under `id`, and answered once the wallet was asked, if it is.
    pub(crate) async fn bargain(&self, n: u64, amount: u64, id: &str) -> CallOutcome {
        let before = self.paid().len();
        let call = self.call(n);
        let victim = self.victim().await;
        self.demand(&victim, amount, id).await;
        while self.paid().len() == before && !call.is_finished() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.answer(&victim).await;
        call.await.unwrap()
    }

    /// A call that is asked for `amount` under `id`, and fails while the wallet is asked, if it is.
    pub(crate) async fn fail_while_paying(&self, n: u64, amount: u64, id: &str) -> CallOutcome {
        let before = self.paid().len();
        let call = self.call(n);
        let victim = self.victim().await;
        self.demand(&victim, amount, id).await;
        while self.paid().len() == before && !call.is_finished() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.server
            .refuse(&victim, -32000, &json!({}))
            .await
            .unwrap();
        let outcome = call.await.unwrap();
        // Until it is written down.
        tokio::time::sleep(Duration::from_secs(1)).await;
        outcome
    }

    /// What the wallet was asked to pay.
    pub(crate) fn paid(&self) -> Vec<u64> {
        let asked = self.wallet.asked();
        asked.iter().map(|paid| paid.amount.value()).collect()
    }

    pub(crate) async fn books(&self) -> Vec<Attempt> {
        self.ledger.list(&AttemptFilter::default()).await.unwrap()
    }
}

pub(crate) fn call(n: u64) -> Request {
    let params = json!({"name": "add", "arguments": {"n": n}});
    Request::new(i64::try_from(n).unwrap(), "tools/call", &params).unwrap()
}

pub(crate) fn error(outcome: &CallOutcome) -> ErrorObject {
    outcome
        .response
        .error()
        .unwrap_or_else(|| panic!("{outcome:?}"))
}

pub(crate) fn data(outcome: &CallOutcome) -> Value {
    serde_json::from_str(error(outcome).data.unwrap().get()).unwrap()
}

/// The rule that a refusal names, in its data.
pub(crate) fn rule(outcome: &CallOutcome) -> String {
    data(outcome)["rule"]
        .as_str()
        .unwrap_or_else(|| panic!("no rule in {outcome:?}"))
        .to_owned()
}
