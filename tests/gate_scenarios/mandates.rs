//! Credentials that let the server take the payment: charged once, whatever is lost, and never asked for anew while nobody knows.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tollkeeper::gate::ChallengeIssuer;
use tollkeeper::ledger::{EntryState, Ledger, MemoryLedger};
use tollkeeper::payment::Unit;
use tollkeeper::server::ServerPaymentsBuilder;
use tollkeeper::testing::{
    FailingLedger, Harness, HarnessBuilder, LedgerFault, MandateControl, MandateScript, RawClient,
    ScriptedMandates, ScriptedProcessor, Survivors,
};
use tollkeeper::transport::Origin;
use tollkeeper::wire::Request;
use tollkeeper::wire::mpp::ChallengeKeys;

use super::books::{self, kind};

fn challenges(payments: ServerPaymentsBuilder) -> ServerPaymentsBuilder {
    let keys = ChallengeKeys::new(["k".repeat(32)]).unwrap();
    payments.challenges(ChallengeIssuer::new("nostr:server", keys))
}

/// Half a dollar a call, by invoice or by mandate.
fn builder(mandates: &MandateControl) -> HarnessBuilder {
    let rail = ScriptedMandates::on(mandates).unwrap();
    Harness::builder(&["tool:add=0.50 usd"])
        .unwrap()
        .payments(challenges)
        .payments(|payments| payments.shared_processor(Arc::new(rail)))
}

fn dollars() -> (ScriptedProcessor, tollkeeper::testing::ProcessorControl) {
    let (processor, control) = ScriptedProcessor::new("scripted".parse().unwrap());
    let units = vec![Unit::USD_CENTS, Unit::SATS];
    (processor.with_units(units), control)
}

async fn harness() -> (Harness, MandateControl) {
    let (_, mandates) = ScriptedMandates::new().unwrap();
    let harness = builder(&mandates).rail(dollars()).start().await.unwrap();
    (harness, mandates)
}

async fn after(survivors: &Survivors, mandates: &MandateControl) -> Harness {
    let harness = builder(mandates).after(survivors).unwrap();
    let (processor, control) =
        ScriptedProcessor::restarted(&survivors.rail, "scripted".parse().unwrap());
    let units = vec![Unit::USD_CENTS, Unit::SATS];
    harness
        .rail((processor.with_units(units), control))
        .start()
        .await
        .unwrap()
}

fn plain(origin: &mut Origin) {
    origin.answers_only = true;
}

async fn answer(client: &RawClient, params: Value, within: Duration) -> Option<Value> {
    let request = Request::new(1, "tools/call", &params).unwrap();
    client.send(request.into()).await.unwrap();
    let answers = client.collect(within).await.unwrap();
    let mut answers = answers.into_iter().map(|(_, message)| message);
    answers.find(|message| message.get("method").is_none())
}

async fn offer(client: &RawClient) -> Value {
    let params = json!({"name": "add", "arguments": {}});
    answer(client, params, books::SOON).await.unwrap()
}

fn listed(answer: &Value) -> Vec<Value> {
    let listed = answer["error"]["data"]["challenges"].as_array();
    listed.cloned().unwrap_or_default()
}

fn mandate(offer: &Value, token: &str) -> Value {
    let listed = listed(offer);
    let challenge = listed.iter().find(|c| c["method"] == "mandate").unwrap();
    json!({"challenge": challenge, "payload": {"token": token}})
}

async fn present_within(client: &RawClient, credential: &Value, within: Duration) -> Option<Value> {
    let meta = json!({"org.paymentauth/credential": credential});
    let params = json!({"name": "add", "arguments": {}, "_meta": meta});
    answer(client, params, within).await
}

async fn present(client: &RawClient, credential: &Value) -> Value {
    present_within(client, credential, Duration::from_secs(30))
        .await
        .unwrap()
}

fn reason(answer: &Value) -> &str {
    answer["error"]["data"]["failure"]["reason"]
        .as_str()
        .unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn one_offer_has_a_challenge_for_each_way_of_paying() {
    let (harness, _) = harness().await;
    let client = harness.client_as(1, plain);
    let offer = offer(&client).await;
    let methods: Vec<Value> = listed(&offer).iter().map(|c| c["method"].clone()).collect();
    assert_eq!(methods, ["scripted", "mandate"]);
    let data = &offer["error"]["data"];
    assert_eq!(data["payment_options"].as_array().unwrap().len(), 1);
    assert_eq!(data["challenges"][1]["request"]["amount"], "50");
    assert_eq!(harness.rail.minted(), 1);
    // It is no way of paying that CEP-8 has a word for.
    let advertised = harness.transport.advertised();
    assert_eq!(advertised.pmis.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_mandate_is_charged_once_and_its_answer_given_again() {
    let (harness, mandates) = harness().await;
    let client = harness.client_as(1, plain);
    let credential = mandate(&offer(&client).await, "spt_1");
    let result = present(&client, &credential).await;
    assert_eq!(kind(&result), "result");
    let receipt = &result["result"]["_meta"]["org.paymentauth/receipt"];
    assert!(
        receipt["reference"]
            .as_str()
            .unwrap()
            .starts_with("charge of")
    );
    assert_eq!(receipt["method"], "mandate");
    let again = present(&client, &credential).await;
    assert_eq!(again["result"], result["result"]);
    // Another mandate for a challenge that was used is not charged.
    let mut second = credential.clone();
    second["payload"]["token"] = json!("spt_2");
    let refused = present(&client, &second).await;
    assert_eq!(reason(&refused), "credential-replayed");
    assert!(listed(&refused).is_empty());
    assert_eq!((mandates.charged(), mandates.asked()), (1, 1));
    assert_eq!(harness.executions(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_at_once_are_one_charge_and_one_execution() {
    let (harness, mandates) = harness().await;
    let client = harness.client_as(1, plain);
    let credential = mandate(&offer(&client).await, "spt_1");
    let meta = json!({"org.paymentauth/credential": credential});
    let params = json!({"name": "add", "arguments": {}, "_meta": meta});
    for id in 0..10 {
        let request = Request::new(id, "tools/call", &params).unwrap();
        client.send(request.into()).await.unwrap();
    }
    let answers = client.collect(Duration::from_secs(5)).await.unwrap();
    for (_, answer) in &answers {
        assert!(listed(answer).is_empty(), "{answer}");
    }
    assert_eq!(kind(&present(&client, &credential).await), "result");
    assert_eq!(mandates.charged(), 1);
    assert_eq!(harness.executions(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_offered_anew() {
    let (harness, mandates) = harness().await;
    let client = harness.client_as(1, plain);
    let credential = mandate(&offer(&client).await, "spt_1");
    mandates.set(MandateScript::Refuse);
    let declined = present(&client, &credential).await;
    assert_eq!(kind(&declined), "-32043");
    assert_eq!(reason(&declined), "payment-declined");
    assert_eq!(declined["error"]["data"]["httpStatus"], 402);
    assert!(declined["error"]["data"].get("retry_after").is_none());
    assert_eq!(listed(&declined).len(), 2);
    mandates.set(MandateScript::Pay);
    let another = mandate(&declined, "spt_2");
    assert_ne!(another["challenge"]["id"], credential["challenge"]["id"]);
    assert_eq!(kind(&present(&client, &another).await), "result");
    assert_eq!(mandates.charged(), 1);
    assert_eq!(harness.executions(), 1);
}

/// What nobody knows is neither a failure nor a reason to ask for money.
#[tokio::test(start_paused = true)]
async fn what_nobody_knows_is_asked_again_and_charged_once() {
    for script in [
        MandateScript::LoseBefore,
        MandateScript::LoseAfter,
        MandateScript::Hang,
        MandateScript::Pending,
    ] {
        let (harness, mandates) = harness().await;
        let client = harness.client_as(1, plain);
        let credential = mandate(&offer(&client).await, "spt_1");
        mandates.set(script);
        let unsettled = present(&client, &credential).await;
        assert_eq!(reason(&unsettled), "payment-unsettled", "{script:?}");
        assert!(unsettled["error"]["data"]["retry_after"].is_u64());
        assert!(listed(&unsettled).is_empty());
        assert!(unsettled["error"]["data"].get("payment_options").is_none());
        assert!(!unsettled.to_string().contains("spt_secret"));
        // The same call without the credential is not offered for money either.
        let asked = offer(&client).await;
        assert!(listed(&asked).is_empty(), "{script:?} {asked}");
        // Unless the money was found meanwhile: then it is served.
        let found = script == MandateScript::LoseAfter;
        assert_eq!(harness.executions(), usize::from(found));
        mandates.set(MandateScript::Pay);
        assert_eq!(kind(&present(&client, &credential).await), "result");
        assert_eq!(mandates.charged(), 1, "{script:?}");
        assert_eq!(harness.executions(), 1);
        assert_eq!(harness.rail.minted(), 1);
    }
}

/// A charge that was taken on is waited for.
#[tokio::test(start_paused = true)]
async fn a_charge_that_is_decided_soon_is_answered_at_once() {
    let (harness, mandates) = harness().await;
    let client = harness.client_as(1, plain);
    let credential = mandate(&offer(&client).await, "spt_1");
    mandates.set(MandateScript::Pending);
    let meta = json!({"org.paymentauth/credential": credential});
    let params = json!({"name": "add", "arguments": {}, "_meta": meta});
    let request = Request::new(1, "tools/call", &params).unwrap();
    client.send(request.into()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    mandates.set(MandateScript::Pay);
    let answers = client.collect(Duration::from_secs(10)).await.unwrap();
    assert_eq!(kind(&answers[0].1), "result");
    assert_eq!(harness.executions(), 1);
}

/// The money of a charge that nobody heard of again is an authorization.
#[tokio::test(start_paused = true)]
async fn a_charge_that_settles_late_serves_the_next_call() {
    let (harness, mandates) = harness().await;
    let client = harness.client_as(1, plain);
    let credential = mandate(&offer(&client).await, "spt_1");
    mandates.set(MandateScript::LoseAfter);
    present(&client, &credential).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(books::authorizations(&harness).await, 1);
    assert_eq!(kind(&offer(&client).await), "result");
    let again = present(&client, &credential).await;
    assert_eq!(kind(&again), "result", "the answer that it paid for");
    assert_eq!((mandates.charged(), harness.executions()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_expired_mandate_is_not_charged() {
    let (harness, mandates) = harness().await;
    let client = harness.client_as(1, plain);
    let credential = mandate(&offer(&client).await, "spt_1");
    tokio::time::sleep(Duration::from_secs(700)).await;
    let refused = present(&client, &credential).await;
    assert_eq!(reason(&refused), "payment-expired");
    assert_eq!(listed(&refused).len(), 2, "nothing was taken");
    assert_eq!((mandates.asked(), harness.executions()), (0, 0));
}

/// Whoever has paid one alternative is not charged for the other.
#[tokio::test(start_paused = true)]
async fn what_is_paid_otherwise_is_not_charged() {
    let (harness, mandates) = harness().await;
    let client = harness.client_as(1, plain);
    let credential = mandate(&offer(&client).await, "spt_1");
    books::settle(&harness, 0).await;
    books::now(&client).await;
    assert_eq!(kind(&present(&client, &credential).await), "result");
    assert_eq!((mandates.asked(), harness.executions()), (0, 1));
    assert_eq!(kind(&present(&client, &credential).await), "result");
    assert_eq!((mandates.asked(), harness.executions()), (0, 1));
}

/// Both alternatives paid are two payments, and two calls.
#[tokio::test(start_paused = true)]
async fn both_alternatives_paid_are_two_calls() {
    let (harness, mandates) = harness().await;
    let client = harness.client_as(1, plain);
    let credential = mandate(&offer(&client).await, "spt_1");
    assert_eq!(kind(&present(&client, &credential).await), "result");
    books::settle(&harness, 0).await;
    books::now(&client).await;
    assert_eq!(books::authorizations(&harness).await, 1);
    assert_eq!(kind(&offer(&client).await), "result");
    assert_eq!((mandates.charged(), harness.executions()), (1, 2));
}

/// Every write fails once, in every way, with and without the death of the process; the credential is charged once at most,
/// and buys one execution.
#[tokio::test(start_paused = true)]
async fn every_write_may_fail_and_the_mandate_is_charged_once() {
    let mut tried = 0;
    for dies in [false, true] {
        for fault in [LedgerFault::Refuse, LedgerFault::WriteAndFail] {
            for nth in 1..14 {
                let case = (dies, fault, nth);
                let (_, mandates) = ScriptedMandates::new().unwrap();
                let inner: Arc<dyn Ledger> = Arc::new(MemoryLedger::new());
                let failing = Arc::new(FailingLedger::new(Arc::clone(&inner)));
                let life = builder(&mandates)
                    .rail(dollars())
                    .ledger(Arc::clone(&failing) as _)
                    .start()
                    .await
                    .unwrap();
                if dies {
                    failing.crash_at(nth, fault);
                } else {
                    failing.fail_at(nth, fault);
                }
                let client = life.client_as(1, plain);
                let params = json!({"name": "add", "arguments": {}});
                let offered = answer(&client, params, books::SOON).await;
                let Some(offered) = offered.filter(|offered| !listed(offered).is_empty()) else {
                    // It failed before anything was offered: other tests are about that.
                    continue;
                };
                tried += 1;
                let credential = mandate(&offered, "spt_1");
                let first = present_within(&client, &credential, Duration::from_secs(20)).await;
                let delivered = first.as_ref().is_some_and(|m| kind(m) == "result");
                let before = life.executions();
                tokio::time::sleep(Duration::from_secs(20)).await;
                let mut survivors = life.crash();
                survivors.ledger = Arc::clone(&inner);
                let life = after(&survivors, &mandates).await;
                tokio::time::sleep(Duration::from_secs(40)).await;
                let client = life.client_as(1, plain);
                let within = Duration::from_secs(30);
                let last = present_within(&client, &credential, within).await;
                let mut last = last.unwrap_or_else(|| panic!("{case:?}"));
                if kind(&last) != "result" && !listed(&last).is_empty() {
                    // Given up before the rail was asked: offered anew.
                    assert_eq!(mandates.charged(), 0, "{case:?}");
                    last = present(&client, &mandate(&last, "spt_2")).await;
                }
                assert_eq!(kind(&last), "result", "{case:?} {last}");
                assert_eq!(mandates.charged(), 1, "{case:?}");
                let executed = before + life.executions();
                assert!(
                    executed == 1 || (executed == 2 && (dies || delivered)),
                    "{case:?}: {executed}"
                );
                let entries = life.entries().await.unwrap();
                let claimed = entries.iter().filter(|e| e.state == EntryState::Claimed);
                assert_eq!(claimed.count(), 0, "{case:?}");
            }
        }
    }
    assert!(tried >= 20, "{tried}");
}
