//! Our paying client against a server that wants more than its money.

use std::sync::Arc;
use std::time::Duration;

use nostr_sdk::prelude::{EventBuilder, EventId, Keys, Kind, Tag};
use serde_json::{Value, json};
use tollkeeper::PaymentInteraction;
use tollkeeper::client::{
    CallOutcome, ClientPayments, ClientPaymentsBuilder, PaidClient, PaymentEvent,
    with_client_payments,
};
use tollkeeper::testing::{HandlerControl, HandlerScript, ScriptedHandler};
use tollkeeper::transport::MessageChannel;
use tollkeeper::transport::nostr::{EncryptionMode, NostrClientTransport, NostrKeys, parse_server};
use tollkeeper::wire::{
    FrameKind, Message, Notification, OversizedFrame, ProgressToken, Request, oversized_digest,
};

use super::faulty_relay::FaultyRelay;
use super::raw::{Via, Wire};
use super::world::{PMI, SOON};

/// Time for a payment that must not happen to happen, after the client is known to have read the demand.
const QUIET: Duration = Duration::from_millis(150);

/// A server that is only a key, and the client that wants to be served by it.
struct Stage {
    relay: FaultyRelay,
    keys: Keys,
    wire: Wire,
    via: Via,
    client: Arc<PaidClient>,
    client_keys: Keys,
    wallet: HandlerControl,
}

impl Stage {
    async fn set(via: Via) -> Self {
        Self::with(via, |payments| payments).await
    }

    async fn with(
        via: Via,
        change: impl FnOnce(ClientPaymentsBuilder) -> ClientPaymentsBuilder,
    ) -> Self {
        let relay = FaultyRelay::start().await;
        let (keys, secret) = (Keys::generate(), NostrKeys::generate());
        let client_keys = Keys::parse(&secret.reveal_secret_hex()).unwrap();
        let (server, _) = parse_server(&keys.public_key().to_hex()).unwrap();
        let mode = if via == Via::Plain {
            EncryptionMode::Disabled
        } else {
            EncryptionMode::Required
        };
        let transport = NostrClientTransport::builder(secret, server)
            .relays([relay.url()])
            .encryption(mode)
            .connect()
            .await
            .unwrap();
        let (handler, wallet) = ScriptedHandler::new(PMI.parse().unwrap(), None);
        let payments = ClientPayments::builder()
            .handler(handler)
            .budget("5000 sats".parse().unwrap())
            .per_call("2000 sats".parse().unwrap());
        let client = with_client_payments(transport, change(payments).build().unwrap());
        let wire = Wire::connect(&relay).await;
        Self {
            relay,
            keys,
            wire,
            via,
            client,
            client_keys,
            wallet,
        }
    }

    /// The event of the `n`th request that reached the server, from 0.
    async fn request(&self, n: usize) -> EventId {
        let deadline = tokio::time::Instant::now() + SOON;
        loop {
            // A transport may say a request again; it is the same one.
            let mut requests: Vec<EventId> = Vec::new();
            for event in self.relay.messages_to(&self.keys) {
                if event.content.contains("\"id\":") && !requests.contains(&event.id) {
                    requests.push(event.id);
                }
            }
            if let Some(request) = requests.get(n) {
                return *request;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "request {n} never came"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Says `content` as `author`, with these tags and no others.
    async fn say_as(&self, author: &Keys, content: &str, tags: Vec<Tag>) {
        let event = EventBuilder::new(Kind::from(25910), content)
            .tags(tags)
            .sign_with_keys(author)
            .unwrap();
        self.wire
            .publish(&[self.via.carry(&event, &self.client_keys.public_key())])
            .await;
    }

    async fn say(&self, about: EventId, message: &Value) {
        let tags = vec![
            Tag::public_key(self.client_keys.public_key()),
            Tag::event(about),
        ];
        self.say_as(&self.keys, &message.to_string(), tags).await;
    }

    async fn call(&self, id: i64) -> CallOutcome {
        self.client.call(call(id), SOON).await.unwrap()
    }

    /// Waits until the client has read everything so far: a call that is answered at once.
    async fn read(&self, so_far: usize) {
        let answer = async {
            let request = self.request(so_far).await;
            self.say(request, &json!({"jsonrpc": "2.0", "id": 0, "result": {}}))
                .await;
        };
        let (outcome, ()) = tokio::join!(self.call(1000), answer);
        assert!(
            outcome.response.result().is_some(),
            "{:?}",
            outcome.response.error()
        );
        tokio::time::sleep(QUIET).await;
    }

    fn paid(&self) -> Vec<u64> {
        self.wallet
            .asked()
            .iter()
            .map(|request| request.amount.value())
            .collect()
    }
}

fn call(id: i64) -> Request {
    Request::new(
        id,
        "tools/call",
        &json!({"name": "add", "arguments": {"n": id}}),
    )
    .unwrap()
}

fn demand(amount: u64, pay_req: &str) -> Value {
    let params = json!({"amount": amount, "pay_req": pay_req, "pmi": PMI, "ttl": 60});
    json!({"jsonrpc": "2.0", "method": "notifications/payment_required", "params": params})
}

fn result(id: i64) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": {"ok": true}})
}

/// C-42
#[tokio::test]
async fn of_several_demands_for_one_request_one_is_paid_at_most() {
    for via in [Via::Plain, Via::Ephemeral] {
        for amounts in [[1, 1_000_000, 1], [1_000_000, 1, 1], [1, 1, 1]] {
            let stage = Stage::set(via).await;
            let serve = async {
                let request = stage.request(0).await;
                for (n, amount) in amounts.into_iter().enumerate() {
                    stage
                        .say(request, &demand(amount, &format!("invoice-{n}")))
                        .await;
                }
                stage.read(1).await;
                let accepted = json!({"jsonrpc": "2.0", "method": "notifications/payment_accepted",
                    "params": {"amount": amounts[0], "pmi": PMI}});
                stage.say(request, &accepted).await;
                stage.say(request, &demand(1, "invoice-after")).await;
                stage.read(2).await;
                stage.say(request, &result(1)).await;
            };
            let (outcome, ()) = tokio::join!(stage.call(1), serve);
            let affordable = amounts[0] == 1;
            assert_eq!(stage.paid(), if affordable { vec![1] } else { vec![] });
            assert_eq!(outcome.response.result().is_some(), affordable);
        }
    }
}

/// C-42: also while the wallet is still paying the first.
#[tokio::test]
async fn a_demand_during_a_payment_is_not_paid() {
    let stage = Stage::set(Via::Plain).await;
    stage.wallet.script(HandlerScript::Hang);
    let serve = async {
        let request = stage.request(0).await;
        stage.say(request, &demand(1, "first")).await;
        stage.say(request, &demand(1, "second")).await;
        stage.read(1).await;
        assert_eq!(stage.paid(), [1]);
    };
    tokio::select! {
        outcome = stage.call(1) => panic!("nobody answered: {outcome:?}"),
        () = serve => {}
    }
}

/// What the client could not put together is still owed: it is asked for again, not paid for again.
#[tokio::test]
async fn an_answer_that_breaks_on_the_way_is_asked_for_again() {
    let stage = Stage::set(Via::Ephemeral).await;
    let broken = async {
        let request = stage.request(0).await;
        stage.say(request, &demand(1, "first")).await;
        stage.read(1).await;
        let start = FrameKind::Start {
            completion_mode: "in a way that nobody knows".to_owned(),
            digest: oversized_digest("lost"),
            total_bytes: 4,
            total_chunks: 1,
        };
        let frame = OversizedFrame::new(ProgressToken::new("t"), 1, start);
        let frame: Message = frame.to_notification().unwrap().into();
        let frame = serde_json::from_str(&frame.to_json()).unwrap();
        stage.say(request, &frame).await;
        request
    };
    let (outcome, first) = tokio::join!(stage.call(1), broken);
    let error = outcome.response.error().unwrap();
    assert!(error.message.contains("put together"), "{error:?}");
    assert_eq!(outcome.paid.unwrap().value(), 1);
    tokio::time::sleep(QUIET).await;

    let repeated = async {
        let request = stage.request(2).await;
        stage.say(request, &demand(1, "second")).await;
        let came = || {
            let events = stage.relay.messages_to(&stage.keys);
            events.iter().filter(|event| event.id == first).count()
        };
        let deadline = tokio::time::Instant::now() + SOON;
        while came() < 2 {
            assert!(
                tokio::time::Instant::now() < deadline && stage.paid() == [1],
                "not asked for again; paid {:?}",
                stage.paid()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stage.say(first, &result(1)).await;
    };
    let (outcome, ()) = tokio::join!(stage.call(1), repeated);
    assert!(outcome.response.result().is_some());
    assert_eq!(stage.paid(), [1]);
}

/// C-42: a demand that was declined was the only one, also while the caller is being told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demand_that_follows_a_declined_one_is_not_paid_either() {
    let (declined, being_declined) = tokio::sync::watch::channel(false);
    let (proceed, wait) = std::sync::mpsc::channel();
    let wait = std::sync::Mutex::new(wait);
    let stage = Stage::with(Via::Plain, |payments| {
        // Holds the moment between the decision and the answer to the caller.
        payments.on_event(move |event| {
            if matches!(event, PaymentEvent::Declined { .. }) {
                declined.send_replace(true);
                let _ = wait.lock().unwrap().recv_timeout(SOON);
            }
        })
    })
    .await;
    let serve = async {
        let request = stage.request(0).await;
        stage.say(request, &demand(1_000_000, "too much")).await;
        being_declined
            .clone()
            .wait_for(|declined| *declined)
            .await
            .unwrap();
        stage.say(request, &demand(1, "a bargain")).await;
        stage.read(1).await;
        proceed.send(()).unwrap();
    };
    let (outcome, ()) = tokio::join!(stage.call(1), serve);
    assert_eq!(outcome.response.error().unwrap().code, -32000);
    assert_eq!(stage.paid(), [0; 0]);
}

/// C-44
#[tokio::test]
async fn a_demand_about_nothing_that_is_open_is_not_paid() {
    for via in [Via::Plain, Via::Persistent] {
        let stage = Stage::set(via).await;
        let to_client = Tag::public_key(stage.client_keys.public_key());

        // After the response.
        let serve = async {
            let request = stage.request(0).await;
            stage.say(request, &result(1)).await;
            request
        };
        let (_, answered) = tokio::join!(stage.call(1), serve);
        stage.say(answered, &demand(1, "after the response")).await;

        // After the caller's patience.
        let late = stage
            .client
            .call(call(2), Duration::from_millis(50))
            .await
            .unwrap();
        assert_eq!(late.response.error().unwrap().code, -32001);
        stage
            .say(stage.request(1).await, &demand(1, "after the time-out"))
            .await;

        // After a cancellation.
        stage.client.send(call(3).into()).await.unwrap();
        let cancelled = stage.request(2).await;
        let cancel =
            Notification::new("notifications/cancelled", &json!({"requestId": 3})).unwrap();
        stage.client.send(cancel.into()).await.unwrap();
        stage
            .say(cancelled, &demand(1, "after the cancellation"))
            .await;

        // While one is open: of somebody else, about something else, about nothing, and in no protocol.
        let serve = async {
            let open = stage.request(3).await;
            let about = |id: EventId| vec![to_client.clone(), Tag::event(id)];
            let text = demand(1, "odd").to_string();
            stage.say_as(&Keys::generate(), &text, about(open)).await;
            stage
                .say_as(&stage.keys, &text, about(EventId::all_zeros()))
                .await;
            stage.say_as(&stage.keys, &text, about(answered)).await;
            stage
                .say_as(&stage.keys, &text, vec![to_client.clone()])
                .await;
            stage
                .say_as(
                    &stage.keys,
                    &text.replace(r#""jsonrpc":"2.0","#, ""),
                    about(open),
                )
                .await;
            stage
                .say_as(&stage.keys, &text.replace("2.0", "1.0"), about(open))
                .await;
            stage.read(4).await;
            stage.say(open, &result(4)).await;
        };
        let (outcome, ()) = tokio::join!(stage.call(4), serve);
        assert!(
            outcome.response.result().is_some(),
            "{:?}",
            outcome.response.error()
        );
        assert_eq!(stage.paid(), [0; 0]);
        assert_eq!(stage.client.payments().budget().spending().spent.value(), 0);
    }
}

/// D-37: what cannot be read is declined, not paid.
#[tokio::test]
async fn a_demand_that_cannot_be_read_is_declined() {
    let odd = [
        json!(null),
        json!("5"),
        json!(-5),
        json!(0),
        json!(1.5),
        json!(1e300),
        json!(9_007_199_254_740_992_u64),
        json!([5]),
    ];
    for amount in odd {
        let stage = Stage::set(Via::Plain).await;
        let serve = async {
            let mut message = demand(1, "odd");
            message["params"]["amount"] = amount.clone();
            stage.say(stage.request(0).await, &message).await;
        };
        let (outcome, ()) = tokio::join!(stage.call(1), serve);
        assert_eq!(outcome.response.error().unwrap().code, -32000, "{amount}");
        assert_eq!(stage.paid(), [0; 0]);
    }
}

/// C-47
#[tokio::test]
async fn a_transparent_demand_is_not_paid_by_who_asked_for_explicit_gating() {
    for via in [Via::Plain, Via::Ephemeral] {
        let explicit = |payments: ClientPaymentsBuilder| {
            payments.interaction(PaymentInteraction::ExplicitGating)
        };
        let stage = Stage::with(via, explicit).await;
        let serve = async {
            let request = stage.request(0).await;
            stage.say(request, &demand(1, "unasked")).await;
        };
        let (outcome, ()) = tokio::join!(stage.call(1), serve);
        let error = outcome.response.error().unwrap();
        assert_eq!(error.code, -32000);
        assert_eq!(
            error.message,
            "Payment declined: explicit_gating was not accepted by the server"
        );
        stage.read(1).await;
        assert_eq!(stage.paid(), [0; 0]);
        // Nor later in the session, when the request no longer says how it wants to pay.
        let serve = async {
            let request = stage.request(2).await;
            stage.say(request, &demand(1, "unasked again")).await;
        };
        let (outcome, ()) = tokio::join!(stage.call(2), serve);
        assert_eq!(outcome.response.error().unwrap().code, -32000);
        assert_eq!(stage.paid(), [0; 0]);
    }
}

/// N-13, N-8: an answer of somebody else, or about something else, ends no call.
#[tokio::test]
async fn only_the_server_answers() {
    for via in [Via::Plain, Via::Ephemeral] {
        let stage = Stage::set(via).await;
        let serve = async {
            let request = stage.request(0).await;
            let about = |id| {
                vec![
                    Tag::public_key(stage.client_keys.public_key()),
                    Tag::event(id),
                ]
            };
            let forged = json!({"jsonrpc": "2.0", "id": 1, "result": {"forged": true}}).to_string();
            stage
                .say_as(&Keys::generate(), &forged, about(request))
                .await;
            stage
                .say_as(&stage.keys, &forged, about(EventId::all_zeros()))
                .await;
            stage
                .say_as(
                    &stage.keys,
                    &forged,
                    vec![Tag::public_key(stage.client_keys.public_key())],
                )
                .await;
            stage.read(1).await;
            // The id in the body is of no account, as with servers that put the event's there.
            stage
                .say(
                    request,
                    &json!({"jsonrpc": "2.0", "id": request.to_hex(), "result": {"ok": true}}),
                )
                .await;
        };
        let (outcome, ()) = tokio::join!(stage.call(1), serve);
        assert_eq!(outcome.response.id, 1.into());
        assert_eq!(outcome.response.result().unwrap().get(), r#"{"ok":true}"#);
    }
}

/// N-59: what asks for money by a method of which this client knows nothing is not paid by another.
#[tokio::test]
async fn a_demand_by_an_unknown_method_is_not_paid_by_a_known_one() {
    let stage = Stage::set(Via::Plain).await;
    let serve = async {
        let request = stage.request(0).await;
        let mut other = demand(1, "invoice");
        other["params"]["pmi"] = "another".into();
        stage.say(request, &other).await;
        stage.read(1).await;
        stage.say(request, &result(1)).await;
    };
    let (_, ()) = tokio::join!(stage.call(1), serve);
    assert_eq!(stage.paid(), [0; 0]);
}
