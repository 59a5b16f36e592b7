//! The paying client, against an honest server and against servers that are not; in memory and in paused time.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "assertions and their helpers"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tollkeeper::client::{
    ClientPayments, DeclineReason, PaidClient, PaymentEvent, with_client_payments,
};
use tollkeeper::payment::{Amount, ClientPubkey, PaymentInteraction};
use tollkeeper::testing::{HandlerControl, HandlerScript, Harness, ScriptedHandler};
use tollkeeper::transport::memory::{self, MemoryServer};
use tollkeeper::transport::{Inbound, MessageChannel, Outbound, ReplyTo, ServerTransport};
use tollkeeper::wire::{Message, Notification, Payload, Request, Response, raw};

const TIMEOUT: Duration = Duration::from_secs(60);

fn sats(value: u64) -> Amount {
    format!("{value} sats").parse().unwrap()
}

fn call(id: i64, token: Option<i64>) -> Request {
    let mut params = json!({"name": "add", "arguments": {"a": id}});
    if let Some(token) = token {
        params["_meta"] = json!({"progressToken": token});
    }
    Request::new(id, "tools/call", &params).unwrap()
}

type Events = Arc<Mutex<Vec<PaymentEvent>>>;

/// A client on `transport` with a scripted wallet and a budget.
fn client(
    transport: Arc<memory::MemoryClient>,
    wallet: Option<tollkeeper::testing::ProcessorControl>,
    budget: u64,
) -> (Arc<PaidClient>, HandlerControl, Events) {
    let (handler, control) = ScriptedHandler::new("scripted".parse().unwrap(), wallet);
    let events = Events::default();
    let seen = Arc::clone(&events);
    let payments = ClientPayments::builder()
        .handler(handler)
        .budget(sats(budget))
        .on_event(move |event| seen.lock().unwrap().push(event.clone()))
        .build()
        .unwrap();
    (with_client_payments(transport, payments), control, events)
}

async fn honest(budget: u64) -> (Harness, Arc<PaidClient>, HandlerControl, Events) {
    let harness = Harness::builder(&["tool:add=7 sat"])
        .unwrap()
        .start()
        .await
        .unwrap();
    let transport = harness.transport.client(ClientPubkey::from_bytes([1; 32]));
    let (client, control, events) = client(transport, Some(harness.rail.clone()), budget);
    (harness, client, control, events)
}

#[tokio::test(start_paused = true)]
async fn a_call_is_paid_within_the_budget_and_no_further() {
    let (harness, client, control, _) = honest(20).await;
    for id in 1..=2 {
        let outcome = client.call(call(id, None), TIMEOUT).await.unwrap();
        assert_eq!(outcome.paid, Some(sats(7)));
        assert!(outcome.response.result().is_some());
    }
    let outcome = client.call(call(3, None), TIMEOUT).await.unwrap();
    assert_eq!(outcome.paid, None);
    let error = outcome.response.error().unwrap();
    assert!(
        error
            .message
            .contains("more than is left of the budget (6 sats)"),
        "{}",
        error.message
    );
    assert_eq!(control.asked().len(), 2);
    assert_eq!(client.payments().budget().spending().spent, sats(14));
    assert_eq!(harness.executions(), 2);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_paid_unasked() {
    let harness = Harness::builder(&["tool:add=7 sat"])
        .unwrap()
        .start()
        .await
        .unwrap();
    let (handler, control) =
        ScriptedHandler::new("scripted".parse().unwrap(), Some(harness.rail.clone()));
    let payments = ClientPayments::builder().handler(handler).build().unwrap();
    let client = with_client_payments(
        harness.transport.client(ClientPubkey::from_bytes([1; 32])),
        payments,
    );
    let outcome = client.call(call(1, None), TIMEOUT).await.unwrap();
    assert_eq!(outcome.response.error().unwrap().code, -32000);
    assert!(control.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn twenty_calls_at_once_with_a_budget_for_five_pay_five() {
    let (harness, client, control, _) = honest(35).await;
    let calls: Vec<_> = (1..=20)
        .map(|id| {
            let client = Arc::clone(&client);
            tokio::spawn(async move {
                client
                    .call(call(id, None), TIMEOUT)
                    .await
                    .unwrap()
                    .paid
                    .is_some()
            })
        })
        .collect();
    let mut paid = 0;
    for call in calls {
        paid += usize::from(call.await.unwrap());
    }
    assert_eq!(
        (paid, control.asked().len(), harness.executions()),
        (5, 5, 5)
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_holds_the_budget_and_blocks_the_same_call() {
    let (_harness, client, control, _) = honest(100).await;
    control.script(HandlerScript::LoseTheAnswer);
    let outcome = client.call(call(1, None), TIMEOUT).await.unwrap();
    assert_eq!(outcome.unknown, Some(sats(7)));
    assert_eq!(client.payments().budget().spending().reserved, sats(7));
    control.script(HandlerScript::Pay);
    let outcome = client.call(call(1, None), TIMEOUT).await.unwrap();
    assert!(
        outcome
            .response
            .error()
            .unwrap()
            .message
            .contains("unknown outcome")
    );
    assert_eq!(
        control.asked().len(),
        1,
        "never a second payment while the first may have happened"
    );
}

#[tokio::test(start_paused = true)]
async fn a_payment_whose_answer_was_lost_still_brings_the_result() {
    let (harness, client, control, _) = honest(100).await;
    control.script(HandlerScript::PayAndLoseTheAnswer);
    let outcome = client.call(call(1, None), TIMEOUT).await.unwrap();
    assert!(outcome.response.result().is_some());
    assert_eq!(harness.executions(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_wallet_that_refuses_gives_the_money_back_to_the_budget() {
    let (_harness, client, control, events) = honest(7).await;
    for script in [
        HandlerScript::Refuse,
        HandlerScript::Fail,
        HandlerScript::CannotHandle,
    ] {
        control.script(script);
        let outcome = client.call(call(1, None), TIMEOUT).await.unwrap();
        assert_eq!(outcome.response.error().unwrap().code, -32000, "{script:?}");
    }
    assert_eq!(client.payments().budget().spending().reserved, sats(0));
    let declined = |event: &PaymentEvent| {
        matches!(
            event,
            PaymentEvent::Declined {
                reason: DeclineReason::Refused,
                ..
            }
        )
    };
    assert_eq!(
        events
            .lock()
            .unwrap()
            .iter()
            .filter(|event| declined(event))
            .count(),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn the_caller_is_kept_alive_while_a_payment_settles() {
    let (harness, client, _, _) = {
        let harness = Harness::builder(&["tool:add=7 sat"])
            .unwrap()
            .start()
            .await
            .unwrap();
        let transport = harness.transport.client(ClientPubkey::from_bytes([1; 32]));
        // A wallet that pays into nowhere: the server waits.
        let (client, control, events) = client(transport, None, 100);
        (harness, client, control, events)
    };
    client.send(call(1, Some(42)).into()).await.unwrap();
    let mut last = 0.0;
    for _ in 0..5 {
        let Some(Message::Notification(progress)) = client.recv().await else {
            panic!("no sign of life")
        };
        assert_eq!(progress.method, "notifications/progress");
        let params: Value = serde_json::from_str(progress.params.unwrap().get()).unwrap();
        assert_eq!(params["progressToken"], 42, "the token keeps its type");
        assert!(
            params["progress"].as_f64().unwrap() > last,
            "progress increases"
        );
        last = params["progress"].as_f64().unwrap();
    }
    harness.rail.settle(&harness.rail.references()[0]).await;
    loop {
        match client.recv().await.unwrap() {
            Message::Response(response) => {
                assert!(response.result().is_some());
                break;
            }
            Message::Notification(_) => {}
            Message::Request(_) => panic!("no requests come this way"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_is_extended_by_a_payment_and_ends_all_the_same() {
    let harness = Harness::builder(&["tool:add=7 sat"])
        .unwrap()
        .start()
        .await
        .unwrap();
    let transport = harness.transport.client(ClientPubkey::from_bytes([1; 32]));
    let (client, _, _) = client(transport, None, 100);
    let started = tokio::time::Instant::now();
    let outcome = client.call(call(1, None), TIMEOUT).await.unwrap();
    assert!(
        started.elapsed() >= Duration::from_secs(600),
        "an offer of 600 s was paid for"
    );
    assert_eq!(outcome.paid, Some(sats(7)));
    let error = outcome.response.error().unwrap();
    assert_eq!(error.code, -32001);
    assert_eq!(
        error.data.unwrap().get(),
        r#"{"spent":{"amount":7,"unit":"sats"}}"#
    );
}

/// A server that does what the test says.
struct Hostile {
    server: Arc<MemoryServer>,
}

impl Hostile {
    async fn request(&self) -> (Request, ReplyTo) {
        loop {
            let Inbound {
                message, origin, ..
            } = self.server.recv().await.unwrap();
            if let Message::Request(request) = message {
                return (request, origin.reply_to);
            }
        }
    }

    async fn demand(&self, to: &ReplyTo, params: Value) {
        let demand = Notification::new("notifications/payment_required", &params).unwrap();
        self.server.send(to, Outbound::new(demand)).await.unwrap();
    }

    async fn answer(&self, to: &ReplyTo, request: &Request) {
        let response = Response {
            id: request.id.clone(),
            payload: Payload::Result(raw(&1).unwrap()),
        };
        self.server.send(to, Outbound::new(response)).await.unwrap();
    }
}

fn demand(amount: impl Into<Value>, pay_req: &str) -> Value {
    json!({"amount": amount.into(), "pay_req": pay_req, "pmi": "scripted", "ttl": 300})
}

#[tokio::test(start_paused = true)]
async fn one_call_is_paid_once_whatever_the_server_demands() {
    let (server, transport) = memory::pair();
    let hostile = Hostile { server };
    let (client, control, _) = client(transport, None, 2_000_000);
    let calling = Arc::clone(&client);
    let outcome = tokio::spawn(async move { calling.call(call(1, None), TIMEOUT).await.unwrap() });
    let (request, to) = hostile.request().await;
    for (amount, pay_req) in [(1, "a"), (1_000_000, "b"), (1, "c"), (1, "a")] {
        hostile.demand(&to, demand(amount, pay_req)).await;
    }
    while control.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    hostile.answer(&to, &request).await;
    assert_eq!(outcome.await.unwrap().paid, Some(sats(1)));
    hostile.demand(&to, demand(1, "d")).await;
    client
        .call(call(2, None), Duration::from_millis(1))
        .await
        .unwrap();
    assert_eq!(control.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn demands_that_cannot_be_trusted_are_declined_at_once() {
    let (server, transport) = memory::pair();
    let hostile = Hostile { server };
    let (client, control, _) = client(transport, None, 1000);
    for params in [
        demand(Value::Null, "a"),
        demand("5", "a"),
        demand(-5, "a"),
        demand(0, "a"),
        demand(1.5, "a"),
        demand(1, ""),
        json!({"amount": 1, "pmi": "scripted"}),
        json!({"amount": 1, "pay_req": "a", "pmi": "other"}),
    ] {
        let calling = Arc::clone(&client);
        let outcome =
            tokio::spawn(async move { calling.call(call(1, None), TIMEOUT).await.unwrap() });
        let (_, to) = hostile.request().await;
        hostile.demand(&to, params.clone()).await;
        let error = outcome.await.unwrap().response.error().unwrap();
        assert_eq!(error.code, -32000, "{params}");
        assert!(error.message.starts_with("Payment declined"), "{params}");
    }
    assert!(control.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_paid_for_a_call_that_nobody_waits_for() {
    let (server, transport) = memory::pair();
    let hostile = Hostile { server };
    let (client, control, _) = client(transport, None, 1000);

    // Timed out.
    let outcome = client
        .call(call(1, None), Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!(outcome.response.error().unwrap().code, -32001);
    let (_, to) = hostile.request().await;
    hostile.demand(&to, demand(1, "a")).await;

    // Cancelled by the caller.
    client.send(call(2, None).into()).await.unwrap();
    let (_, to) = hostile.request().await;
    let cancelled = Notification::new("notifications/cancelled", &json!({"requestId": 2})).unwrap();
    client.send(cancelled.into()).await.unwrap();
    hostile.demand(&to, demand(1, "b")).await;

    // About nothing that was asked.
    let unknown = ReplyTo::new(
        to.client,
        tollkeeper::RequestEventId::from_bytes([9; 32]),
        "",
    );
    hostile.demand(&unknown, demand(1, "c")).await;

    // A barrier: this one is answered after all of the above was looked at.
    let calling = Arc::clone(&client);
    let outcome = tokio::spawn(async move { calling.call(call(3, None), TIMEOUT).await.unwrap() });
    let (request, to) = hostile.request().await;
    hostile.answer(&to, &request).await;
    assert!(outcome.await.unwrap().response.result().is_some());
    assert!(control.asked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asked_for_explicit_gating_is_not_paid_for_transparently() {
    let (server, transport) = memory::pair();
    let hostile = Hostile { server };
    let (handler, control) = ScriptedHandler::new("scripted".parse().unwrap(), None);
    let payments = ClientPayments::builder()
        .handler(handler)
        .budget(sats(100))
        .interaction(PaymentInteraction::ExplicitGating)
        .build()
        .unwrap();
    let client = with_client_payments(transport, payments);
    let outcome = tokio::spawn(async move { client.call(call(1, None), TIMEOUT).await.unwrap() });
    let (_, to) = hostile.request().await;
    hostile.demand(&to, demand(1, "a")).await;
    let error = outcome.await.unwrap().response.error().unwrap();
    assert_eq!(
        error.message,
        "Payment declined: explicit_gating was not accepted by the server"
    );
    assert!(control.asked().is_empty());
}
