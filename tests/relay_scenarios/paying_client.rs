//! Our paying client against our paid server.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tollkeeper::PaymentInteraction;
use tollkeeper::client::{CallOutcome, ClientPayments, PaidClient, with_client_payments};
use tollkeeper::testing::{HandlerControl, HandlerScript, ScriptedHandler};
use tollkeeper::transport::nostr::{
    EncryptionMode, GiftWrapMode, NostrClientTransport, NostrKeys, parse_server,
};
use tollkeeper::wire::Request;

use super::world::{PMI, SOON, World};

struct Payer {
    client: Arc<PaidClient>,
    wallet: HandlerControl,
}

impl Payer {
    async fn connect(
        world: &World,
        budget: &str,
        encryption: EncryptionMode,
        gift_wrap: GiftWrapMode,
    ) -> Self {
        let (server, _) = parse_server(&world.keys.public_key().to_hex()).unwrap();
        let transport = NostrClientTransport::builder(NostrKeys::generate(), server)
            .relays([world.relay.url()])
            .encryption(encryption)
            .gift_wrap(gift_wrap)
            .connect()
            .await
            .unwrap();
        let (handler, wallet) =
            ScriptedHandler::new(PMI.parse().unwrap(), Some(world.rail.clone()));
        let payments = ClientPayments::builder()
            .handler(handler)
            .budget(budget.parse().unwrap())
            .build()
            .unwrap();
        Self {
            client: with_client_payments(transport, payments),
            wallet,
        }
    }

    async fn call(&self, tool: &str, arguments: Value) -> CallOutcome {
        let request = Request::new(
            1,
            "tools/call",
            &json!({"name": tool, "arguments": arguments}),
        )
        .unwrap();
        self.client.call(request, SOON).await.unwrap()
    }

    fn spent(&self) -> u64 {
        self.client.payments().budget().spending().spent.value()
    }
}

const MODES: [(EncryptionMode, GiftWrapMode); 3] = [
    (EncryptionMode::Disabled, GiftWrapMode::Optional),
    (EncryptionMode::Required, GiftWrapMode::Persistent),
    (EncryptionMode::Optional, GiftWrapMode::Optional),
];

#[tokio::test]
async fn a_paid_call_goes_through_from_end_to_end() {
    for (encryption, gift_wrap) in MODES {
        let world = World::start().await;
        let payer = Payer::connect(&world, "100 sats", encryption, gift_wrap).await;
        let free = payer.call("free", json!({})).await;
        assert!(free.response.result().is_some());
        assert_eq!(free.paid, None);
        for n in 1..4 {
            let paid = payer.call("add", json!({"n": n})).await;
            assert!(
                paid.response.result().is_some(),
                "{:?}",
                paid.response.error()
            );
            assert_eq!(paid.paid, Some("7 sats".parse().unwrap()));
            assert_eq!(payer.spent(), 7 * n);
        }
        assert_eq!((world.rail.minted(), world.tools.executions("add")), (3, 3));
        let in_the_clear = world.relay.events_of(25910).len();
        assert_eq!(in_the_clear > 0, encryption == EncryptionMode::Disabled);
    }
}

#[tokio::test]
async fn calls_survive_a_relay_that_repeats_corrupts_and_stumbles() {
    for (encryption, gift_wrap) in MODES {
        let world = World::start().await;
        let payer = Payer::connect(&world, "1000 sats", encryption, gift_wrap).await;
        world.relay.set(|faults| {
            faults.duplicates = 2;
            faults.corrupt_first = true;
            faults.delay = Duration::from_millis(20);
        });
        for n in 0..5u64 {
            let paid = payer.call("add", json!({"n": n})).await;
            assert!(
                paid.response.result().is_some(),
                "{:?}",
                paid.response.error()
            );
        }
        assert_eq!(payer.wallet.asked().len(), 5);
        assert_eq!(
            (
                payer.spent(),
                world.rail.minted(),
                world.tools.executions("add")
            ),
            (35, 5, 5)
        );
    }
}

/// C-21, with our own client, whose connection is cut too.
#[tokio::test]
async fn an_outage_between_payment_and_result_loses_nothing() {
    let outage = async |(encryption, gift_wrap)| {
        let world = World::start().await;
        let payer = Payer::connect(&world, "100 sats", encryption, gift_wrap).await;
        let call = payer.call("slow", json!({}));
        let break_off = async {
            world.tools.wait_for("slow", 1).await;
            world.relay.go_down_for(Duration::from_millis(1500));
            world.tools.release(1);
        };
        let (paid, ()) = tokio::join!(call, break_off);
        assert!(
            paid.response.result().is_some(),
            "{:?}",
            paid.response.error()
        );
        assert_eq!(
            (
                payer.spent(),
                world.rail.minted(),
                world.tools.executions("slow")
            ),
            (7, 1, 1)
        );
    };
    tokio::join!(outage(MODES[0]), outage(MODES[1]), outage(MODES[2]));
}

/// C-46
#[tokio::test]
async fn of_twenty_calls_at_once_the_budget_pays_for_five() {
    for (encryption, gift_wrap) in MODES {
        let world = World::start().await;
        let payer = Payer::connect(&world, "35 sats", encryption, gift_wrap).await;
        let calls = (0..20).map(|n| payer.call("add", json!({"n": n})));
        let outcomes = futures_util::future::join_all(calls).await;
        let paid = outcomes
            .iter()
            .filter(|outcome| outcome.response.result().is_some())
            .count();
        assert_eq!((paid, payer.wallet.asked().len()), (5, 5));
        assert_eq!((payer.spent(), world.tools.executions("add")), (35, 5));
        for outcome in outcomes
            .iter()
            .filter(|outcome| outcome.response.result().is_none())
        {
            let error = outcome.response.error().unwrap();
            assert!(
                error.message.starts_with("Payment declined"),
                "{}",
                error.message
            );
            assert_eq!(outcome.paid, None);
        }
    }
}

#[tokio::test]
async fn a_lost_answer_of_the_wallet_blocks_a_second_payment_for_the_same_call() {
    let world = World::start().await;
    let payer = Payer::connect(
        &world,
        "100 sats",
        EncryptionMode::Optional,
        GiftWrapMode::Optional,
    )
    .await;
    payer.wallet.script(HandlerScript::PayAndLoseTheAnswer);
    let paid = payer.call("add", json!({"a": 1})).await;
    assert!(paid.response.result().is_some(), "the server saw the money");
    assert_eq!(paid.unknown, Some("7 sats".parse().unwrap()));
    assert_eq!(
        payer.client.payments().budget().spending().reserved.value(),
        7
    );
}

#[tokio::test]
async fn a_wallet_that_will_not_pay_ends_the_call() {
    for script in [
        HandlerScript::Refuse,
        HandlerScript::Fail,
        HandlerScript::CannotHandle,
    ] {
        let world = World::start().await;
        let payer = Payer::connect(
            &world,
            "100 sats",
            EncryptionMode::Optional,
            GiftWrapMode::Optional,
        )
        .await;
        payer.wallet.script(script);
        let declined = payer.call("add", json!({})).await;
        assert_eq!(declined.response.error().unwrap().code, -32000);
        assert_eq!((payer.spent(), world.tools.executions("add")), (0, 0));
    }
}

/// The client does not pay under explicit gating by itself yet: the offer reaches the caller as it is (N-101).
#[tokio::test]
async fn an_offer_under_explicit_gating_reaches_the_caller() {
    let world = World::start().await;
    let (server, _) = parse_server(&world.keys.public_key().to_hex()).unwrap();
    let transport = NostrClientTransport::builder(NostrKeys::generate(), server)
        .relays([world.relay.url()])
        .connect()
        .await
        .unwrap();
    let payments = ClientPayments::builder()
        .interaction(PaymentInteraction::ExplicitGating)
        .build()
        .unwrap();
    let client = with_client_payments(transport, payments);
    let request = Request::new("x", "tools/call", &json!({"name": "add"})).unwrap();
    let outcome = client.call(request, SOON).await.unwrap();
    let error = outcome.response.error().unwrap();
    assert_eq!(error.code, -32042);
    assert!(error.data.unwrap().get().contains("payment_options"));
}
