//! Challenges, credentials, receipts: the same offer, paid by clients of MPP. And every way in which a credential may lie.

use std::time::Duration;

use serde_json::{Value, json};
use tollkeeper::gate::ChallengeIssuer;
use tollkeeper::ledger::EntryState;
use tollkeeper::server::ServerPaymentsBuilder;
use tollkeeper::testing::{Answer, Harness, HarnessBuilder, LookupScript, RawClient};
use tollkeeper::transport::Origin;
use tollkeeper::wire::mpp::{Challenge, ChallengeKeys};
use tollkeeper::wire::{Message, Request};

use super::books::{self, kind, kinds};

const PRICES: [&str; 2] = ["tool:add=7 sat", "tool:sub=7 sat"];
const REALM: &str = "nostr:server";

fn issuer() -> ChallengeIssuer {
    ChallengeIssuer::new(REALM, ChallengeKeys::new(["k".repeat(32)]).unwrap())
}

fn with_challenges(payments: ServerPaymentsBuilder) -> ServerPaymentsBuilder {
    payments.challenges(issuer())
}

fn builder() -> HarnessBuilder {
    Harness::builder(&PRICES).unwrap().payments(with_challenges)
}

async fn harness() -> Harness {
    builder().start().await.unwrap()
}

fn plain(origin: &mut Origin) {
    origin.answers_only = true;
}

fn anonymous(origin: &mut Origin) {
    origin.answers_only = true;
    origin.bearer = true;
}

fn in_the_clear(origin: &mut Origin) {
    origin.confidential = false;
}

/// A client of a plain MCP transport.
fn mpp(harness: &Harness, n: u8) -> RawClient {
    harness.client_as(n, plain)
}

async fn ask(client: &RawClient, params: Value) -> Vec<Value> {
    let request = Request::new(1, "tools/call", &params).unwrap();
    client.send(request.into()).await.unwrap();
    books::now(client).await
}

/// The answer to a request; notices beside it are passed over.
async fn answer(client: &RawClient, params: Value) -> Value {
    let mut answers = ask(client, params).await;
    answers.retain(|message| message.get("method").is_none());
    assert_eq!(answers.len(), 1, "{answers:?}");
    answers.remove(0)
}

async fn call(client: &RawClient, tool: &str) -> Value {
    answer(client, json!({"name": tool, "arguments": {}})).await
}

async fn present(client: &RawClient, tool: &str, credential: &Value) -> Value {
    let meta = json!({"org.paymentauth/credential": credential});
    answer(
        client,
        json!({"name": tool, "arguments": {}, "_meta": meta}),
    )
    .await
}

fn challenges(answer: &Value) -> Vec<Value> {
    let listed = answer["error"]["data"]["challenges"].as_array();
    listed.cloned().unwrap_or_default()
}

fn reference(challenge: &Value) -> String {
    let invoice = challenge["request"]["invoice"].as_str().unwrap();
    invoice.strip_prefix("scripted:").unwrap().to_owned()
}

fn credential(challenge: &Value, payload: Value) -> Value {
    json!({"challenge": challenge, "payload": payload, "source": "did:key:z6Mk"})
}

/// Asks, pays, and returns the credential.
async fn pay(harness: &Harness, client: &RawClient, tool: &str) -> Value {
    let offer = call(client, tool).await;
    let challenge = challenges(&offer).remove(0);
    let proof = harness.rail.proof_of(&reference(&challenge));
    credential(&challenge, proof)
}

/// Nothing in `answer` asks for money.
fn asks_for_nothing(answer: &Value) {
    let data = &answer["error"]["data"];
    for key in ["challenges", "payment_options", "elicitations"] {
        assert!(data.get(key).is_none(), "{answer}");
    }
}

fn reason(answer: &Value) -> &str {
    answer["error"]["data"]["failure"]["reason"]
        .as_str()
        .unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn one_error_offers_the_same_payment_to_both_protocols() {
    let harness = harness().await;
    for client in [
        mpp(&harness, 1),
        harness.client(2).explicit(),
        harness.client_as(3, anonymous),
    ] {
        let offer = call(&client, "add").await;
        assert_eq!(kind(&offer), "-32042");
        let data = &offer["error"]["data"];
        assert_eq!(data["httpStatus"], 402);
        assert!(data.get("elicitations").is_none());
        let option = &data["payment_options"][0];
        let challenge = &data["challenges"][0];
        assert_eq!(option["pay_req"], challenge["request"]["invoice"]);
        assert_eq!(option["amount"], 7);
        assert_eq!(challenge["request"]["amount"], "7");
        assert_eq!(challenge["realm"], REALM);
        assert_eq!(challenge["intent"], "charge");
        let expires = challenge["expires"].as_str().unwrap();
        assert!(expires.len() == 20 && expires.ends_with('Z'), "{expires}");
        let read: Challenge = serde_json::from_value(challenge.clone()).unwrap();
        assert!(issuer().keys.signed(&read));
        assert_eq!(data["problem"]["challengeId"], challenge["id"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_of_the_other_protocol_is_not_told_to_wait() {
    let harness = harness().await;
    let client = mpp(&harness, 1);
    let first = call(&client, "add").await;
    let again = call(&client, "add").await;
    assert_eq!(kind(&again), "-32042");
    assert_eq!(challenges(&first), challenges(&again));
    assert_eq!(harness.rail.minted(), 1);
    // A CEP-8 client is told to wait, and is shown no challenge that it could pay a second time.
    let cep8 = harness.client(2).explicit();
    call(&cep8, "add").await;
    let pending = call(&cep8, "add").await;
    assert_eq!(kind(&pending), "-32043");
    assert!(pending["error"]["data"]["retry_after"].is_u64());
    assert!(challenges(&pending).is_empty());
}

/// Calls side by side get one offer, also those that come while it is made.
#[tokio::test(start_paused = true)]
async fn calls_side_by_side_are_offered_one_payment() {
    use tollkeeper::testing::MintScript;

    let harness = harness().await;
    harness
        .rail
        .on_mint(MintScript::Slow(Duration::from_secs(2)));
    let client = mpp(&harness, 1);
    for id in 0..5 {
        let params = json!({"name": "add", "arguments": {}});
        let request = Request::new(id, "tools/call", &params).unwrap();
        client.send(request.into()).await.unwrap();
    }
    let answers = client.collect(Duration::from_secs(5)).await.unwrap();
    assert_eq!(answers.len(), 5);
    let first = challenges(&answers[0].1);
    for (_, answer) in &answers {
        assert_eq!(kind(answer), "-32042");
        assert_eq!(challenges(answer), first);
    }
    assert_eq!(harness.rail.minted(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_declares_it_pays_by_challenge_over_any_transport() {
    let harness = harness().await;
    let mut client = harness.client(1);
    client.introduction.pmis.clear();
    // Nothing declared: the notifications of CEP-8.
    let said = ask(&client, json!({"name": "add", "arguments": {"a": 1}})).await;
    assert_eq!(kinds(&said), ["payment_required"]);
    let payment = json!({"methods": {"lightning": {"intents": ["charge"]}}});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {"experimental": {"payment": payment}}});
    let initialize = Request::new(1, "initialize", &params).unwrap();
    client.send(initialize.into()).await.unwrap();
    books::now(&client).await;
    let offer = call(&client, "add").await;
    assert_eq!(kind(&offer), "-32042");
    assert_eq!(challenges(&offer).len(), 1);
    // One that also speaks CEP-8 keeps to it.
    let both = harness.client(2);
    let initialize = Request::new(1, "initialize", &params).unwrap();
    both.send(initialize.into()).await.unwrap();
    books::now(&both).await;
    let said = ask(&both, json!({"name": "add"})).await;
    assert_eq!(kinds(&said), ["payment_required"]);
}

#[tokio::test(start_paused = true)]
async fn a_credential_pays_for_one_call_and_gets_a_receipt() {
    let harness = harness().await;
    // The proof is enough: the wallet is not asked, and does not answer.
    harness.rail.on_lookup(LookupScript::Hang);
    for (n, client) in [
        mpp(&harness, 1),
        harness.client(2).explicit(),
        harness.client_as(3, anonymous),
    ]
    .into_iter()
    .enumerate()
    {
        let credential = pay(&harness, &client, "add").await;
        let result = present(&client, "add", &credential).await;
        assert_eq!(kind(&result), "result");
        let echo = &result["result"]["echo"];
        assert!(echo.get("_meta").is_none(), "{echo}");
        let receipt = &result["result"]["_meta"]["org.paymentauth/receipt"];
        assert_eq!(receipt["status"], "success");
        assert_eq!(receipt["challengeId"], credential["challenge"]["id"]);
        assert_eq!(receipt["reference"], reference(&credential["challenge"]));
        assert!(!receipt.to_string().contains("preimage"));
        assert_eq!(harness.executions(), n + 1);
    }
    books::balance(&harness).await;
    // What is paid for by CEP-8 carries no receipt of another protocol.
    let cep8 = harness.client(4).explicit();
    call(&cep8, "add").await;
    books::settle(&harness, 3).await;
    books::now(&cep8).await;
    let result = call(&cep8, "add").await;
    assert_eq!(kind(&result), "result");
    assert!(result["result"].get("_meta").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_credential_beside_the_params_counts_too() {
    let harness = harness().await;
    let client = mpp(&harness, 1);
    let credential = pay(&harness, &client, "add").await;
    let text = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add", "arguments": {}},
        "_meta": {"org.paymentauth/credential": credential}
    });
    client
        .send(Message::parse(&text.to_string()).unwrap())
        .await
        .unwrap();
    let answers = books::now(&client).await;
    assert_eq!(kinds(&answers), ["result"]);
    assert!(!answers[0]["result"]["echo"].to_string().contains("_meta"));
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_is_sent_again_gets_the_answer_that_it_paid_for() {
    let harness = harness().await;
    let client = mpp(&harness, 1);
    let credential = pay(&harness, &client, "add").await;
    let first = present(&client, "add", &credential).await;
    let request = json!({"name": "add", "arguments": {}, "_meta": {"org.paymentauth/credential": credential}});
    let request = Request::new("another id", "tools/call", &request).unwrap();
    client.send(request.into()).await.unwrap();
    let again = &books::now(&client).await[0];
    assert_eq!(again["id"], "another id");
    assert_eq!(again["result"], first["result"]);
    assert_eq!(harness.executions(), 1);
    assert_eq!(harness.rail.minted(), 1);
    books::balance(&harness).await;
}

#[tokio::test(start_paused = true)]
async fn a_result_that_is_no_longer_kept_is_refused_without_an_offer() {
    let harness = builder()
        .payments(|payments| {
            with_challenges(payments).settings(|settings| settings.stored_response_bytes = 1)
        })
        .start()
        .await
        .unwrap();
    let client = mpp(&harness, 1);
    let credential = pay(&harness, &client, "add").await;
    present(&client, "add", &credential).await;
    let again = present(&client, "add", &credential).await;
    assert_eq!(kind(&again), "-32043");
    assert_eq!(reason(&again), "credential-replayed");
    assert_eq!(again["error"]["data"]["httpStatus"], 403);
    asks_for_nothing(&again);
    assert_eq!(harness.executions(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_credentials_at_once_are_one_execution() {
    let harness = builder()
        .handler(|_| async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Answer::Result(json!({"content": []}))
        })
        .start()
        .await
        .unwrap();
    let client = mpp(&harness, 1);
    let credential = pay(&harness, &client, "add").await;
    let meta = json!({"org.paymentauth/credential": credential});
    let params = json!({"name": "add", "arguments": {}, "_meta": meta});
    for id in 0..20 {
        let request = Request::new(id, "tools/call", &params).unwrap();
        client.send(request.into()).await.unwrap();
    }
    let answers = books::now(&client).await;
    assert_eq!(answers.len(), 19);
    for answer in &answers {
        assert_eq!(reason(answer), "credential-in-use");
        assert!(answer["error"]["data"]["retry_after"].is_u64());
        asks_for_nothing(answer);
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(kinds(&books::now(&client).await), ["result"]);
    assert_eq!(kind(&present(&client, "add", &credential).await), "result");
    assert_eq!(harness.executions(), 1);
    books::balance(&harness).await;
}

#[tokio::test(start_paused = true)]
async fn the_preimage_and_the_wallet_are_two_witnesses_of_one_payment() {
    for wallet_first in [true, false] {
        let harness = harness().await;
        let client = mpp(&harness, 1);
        let credential = pay(&harness, &client, "add").await;
        let reference = reference(&credential["challenge"]);
        if wallet_first {
            harness.rail.settle(&reference).await;
            books::now(&client).await;
        }
        assert_eq!(kind(&present(&client, "add", &credential).await), "result");
        if !wallet_first {
            harness.rail.settle(&reference).await;
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(harness.executions(), 1);
        assert_eq!(books::authorizations(&harness).await, 0);
        books::balance(&harness).await;
    }
}

/// Both are the same client to the server, and know the same invoice.
#[tokio::test(start_paused = true)]
async fn a_client_of_each_protocol_race_for_one_invoice() {
    for credential_first in [true, false] {
        let harness = harness().await;
        let cep8 = harness.client(1).explicit();
        let offer = call(&cep8, "add").await;
        let challenge = challenges(&offer).remove(0);
        let proof = harness.rail.proof_of(&reference(&challenge));
        let credential = credential(&challenge, proof);
        harness.rail.settle(&reference(&challenge)).await;
        books::now(&cep8).await;
        let plain_call = || json!({"name": "add", "arguments": {}});
        let mut proven = plain_call();
        proven["_meta"] = json!({"org.paymentauth/credential": credential});
        let mut race = vec![proven, plain_call()];
        if !credential_first {
            race.reverse();
        }
        for (id, params) in race.into_iter().enumerate() {
            let request = Request::new(id as i64, "tools/call", &params).unwrap();
            cep8.send(request.into()).await.unwrap();
        }
        books::now(&cep8).await;
        assert_eq!(
            harness.executions(),
            1,
            "credential first: {credential_first}"
        );
        assert_eq!(harness.rail.settled(), 1);
        books::balance(&harness).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_credential_for_another_call_is_refused_and_keeps_its_worth() {
    let harness = harness().await;
    let client = mpp(&harness, 1);
    let credential = pay(&harness, &client, "add").await;
    let refused = present(&client, "sub", &credential).await;
    assert_eq!(kind(&refused), "-32043");
    assert_eq!(reason(&refused), "challenge-for-another-call");
    asks_for_nothing(&refused);
    let other = json!({"name": "add", "arguments": {"a": 1}, "_meta": {"org.paymentauth/credential": credential}});
    let refused = &ask(&client, other).await[0];
    assert_eq!(reason(refused), "challenge-for-another-call");
    assert_eq!(harness.executions(), 0);
    assert_eq!(harness.rail.minted(), 1, "nothing else was offered");
    assert_eq!(kind(&present(&client, "add", &credential).await), "result");
    books::balance(&harness).await;
}

#[tokio::test(start_paused = true)]
async fn a_credential_of_another_client_is_refused_and_keeps_its_worth() {
    let harness = harness().await;
    let client = mpp(&harness, 1);
    let credential = pay(&harness, &client, "add").await;
    let thieves = [
        mpp(&harness, 2),
        harness.client_as(3, anonymous),
        harness.client(4).explicit(),
    ];
    for thief in &thieves {
        let refused = present(thief, "add", &credential).await;
        assert_eq!(reason(&refused), "challenge-for-another-client");
        asks_for_nothing(&refused);
    }
    assert_eq!(harness.executions(), 0);
    assert_eq!(kind(&present(&client, "add", &credential).await), "result");
    // Nor does a thief get the answer.
    let refused = present(&thieves[0], "add", &credential).await;
    assert_eq!(reason(&refused), "challenge-for-another-client");
    books::balance(&harness).await;
}

/// The preimage that one client paid for proves nothing about the invoice of another.
#[tokio::test(start_paused = true)]
async fn a_preimage_that_is_shared_serves_one() {
    let harness = harness().await;
    let (payer, friend) = (mpp(&harness, 1), mpp(&harness, 2));
    let credential_of_payer = pay(&harness, &payer, "add").await;
    let offer = call(&friend, "add").await;
    let challenge = challenges(&offer).remove(0);
    let shared = credential(&challenge, credential_of_payer["payload"].clone());
    let refused = present(&friend, "add", &shared).await;
    assert_eq!(reason(&refused), "verification-failed");
    // Nothing was paid for this one, so the same invoice is offered again.
    assert_eq!(challenges(&refused), [challenge]);
    assert_eq!(refused["error"]["data"]["httpStatus"], 402);
    assert!(refused["error"]["data"].get("retry_after").is_none());
    assert_eq!(harness.executions(), 0);
    assert_eq!(harness.rail.minted(), 2);
    present(&payer, "add", &credential_of_payer).await;
    assert_eq!(harness.executions(), 1);
    books::balance(&harness).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_is_changed_in_a_challenge_is_refused() {
    let harness = harness().await;
    let client = mpp(&harness, 1);
    let paid = pay(&harness, &client, "add").await;
    let changes: [(&str, Value); 8] = [
        ("/challenge/id", json!("forged")),
        ("/challenge/request/amount", json!("1")),
        ("/challenge/request/currency", json!("msat")),
        ("/challenge/method", json!("other")),
        ("/challenge/intent", json!("session")),
        ("/challenge/realm", json!("nostr:other")),
        ("/challenge/expires", json!("2099-01-01T00:00:00Z")),
        ("/challenge/opaque", json!("e30")),
    ];
    for (pointer, value) in changes {
        let mut forged = paid.clone();
        *forged.pointer_mut(pointer).unwrap() = value;
        let refused = present(&client, "add", &forged).await;
        assert_eq!(kind(&refused), "-32043", "{pointer}");
        assert_eq!(reason(&refused), "invalid-challenge", "{pointer}");
        asks_for_nothing(&refused);
    }
    // Another server's, with another secret.
    let mut foreign: Challenge = serde_json::from_value(paid["challenge"].clone()).unwrap();
    foreign.id = String::new();
    let keys = ChallengeKeys::new(["x".repeat(32)]).unwrap();
    let foreign = serde_json::to_value(foreign.signed(&keys).unwrap()).unwrap();
    let refused = present(
        &client,
        "add",
        &credential(&foreign, paid["payload"].clone()),
    )
    .await;
    assert_eq!(reason(&refused), "invalid-challenge");
    assert_eq!(harness.executions(), 0);
    assert_eq!(harness.rail.minted(), 1);
    assert_eq!(kind(&present(&client, "add", &paid).await), "result");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_credential_is_invalid_params() {
    let harness = harness().await;
    let client = mpp(&harness, 1);
    let paid = pay(&harness, &client, "add").await;
    let other = mpp(&harness, 2);
    let offer = call(&other, "add").await;
    let unpaid = credential(&challenges(&offer).remove(0), json!({}));
    for bad in [
        json!("text"),
        json!({}),
        json!(null),
        json!({"challenge": paid["challenge"]}),
        json!({"challenge": unpaid["challenge"], "payload": {}}),
        json!({"challenge": unpaid["challenge"], "payload": {"preimage": 7}}),
    ] {
        // The wallet is asked once in two seconds at most.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let client = if bad["challenge"] == unpaid["challenge"] {
            &other
        } else {
            &client
        };
        let refused = present(client, "add", &bad).await;
        assert_eq!(kind(&refused), "-32602", "{bad}");
        asks_for_nothing(&refused);
    }
    assert_eq!(harness.executions(), 0);
    assert_eq!(kind(&present(&client, "add", &paid).await), "result");
}

#[tokio::test(start_paused = true)]
async fn a_credential_in_the_clear_is_refused_and_uses_nothing_up() {
    let harness = harness().await;
    let open = harness.client_as(1, in_the_clear).explicit();
    let credential = pay(&harness, &open, "add").await;
    let refused = present(&open, "add", &credential).await;
    assert_eq!(kind(&refused), "-32602");
    assert_eq!(reason(&refused), "credential-exposed");
    asks_for_nothing(&refused);
    assert_eq!(harness.executions(), 0);
    let sealed = harness.client(1).explicit();
    assert_eq!(kind(&present(&sealed, "add", &credential).await), "result");
    books::balance(&harness).await;
}

/// An expired challenge that was not paid is offered anew; one that was paid is served, because the money is there.
#[tokio::test(start_paused = true)]
async fn an_expired_challenge_is_offered_anew_unless_it_was_paid() {
    let harness = harness().await;
    let client = mpp(&harness, 1);
    let offer = call(&client, "add").await;
    let expired = challenges(&offer).remove(0);
    tokio::time::sleep(Duration::from_secs(700)).await;
    let refused = present(
        &client,
        "add",
        &credential(&expired, json!({"preimage": "made up"})),
    )
    .await;
    assert_eq!(kind(&refused), "-32043");
    assert_eq!(reason(&refused), "payment-expired");
    let fresh = challenges(&refused);
    assert_eq!(fresh.len(), 1);
    assert_ne!(fresh[0]["id"], expired["id"]);
    assert_eq!(harness.executions(), 0);

    let proof = harness.rail.proof_of(&reference(&expired));
    let late = present(&client, "add", &credential(&expired, proof)).await;
    assert_eq!(kind(&late), "result");
    assert_eq!(harness.executions(), 1);
    books::balance(&harness).await;
}

/// A wallet that hands out no preimage has paid all the same.
#[tokio::test(start_paused = true)]
async fn a_wrong_proof_of_what_was_paid_is_no_reason_to_pay_again() {
    let harness = harness().await;
    let client = mpp(&harness, 1);
    let offer = call(&client, "add").await;
    let challenge = challenges(&offer).remove(0);
    harness.rail.settle_quietly(&reference(&challenge));
    let bad = credential(&challenge, json!({"preimage": "none"}));
    assert_eq!(kind(&present(&client, "add", &bad).await), "result");
    assert_eq!(harness.executions(), 1);
    let again = present(&client, "add", &bad).await;
    asks_for_nothing(&again);
    books::balance(&harness).await;

    // The wallet's word came first; its form does not matter either.
    for form in [json!({"preimage": "none"}), json!({})] {
        let harness = self::harness().await;
        let client = mpp(&harness, 1);
        let offer = call(&client, "add").await;
        books::settle(&harness, 0).await;
        let bad = credential(&challenges(&offer).remove(0), form);
        assert_eq!(kind(&present(&client, "add", &bad).await), "result");
        books::balance(&harness).await;
    }

    // Nobody knows whether it was paid: an offer might be paid a second time.
    let harness = self::harness().await;
    let client = mpp(&harness, 1);
    let offer = call(&client, "add").await;
    let bad = credential(&challenges(&offer).remove(0), json!({"preimage": "none"}));
    let refused = present(&client, "add", &bad).await;
    assert_eq!(reason(&refused), "verification-failed");
    // The wallet was asked this very second.
    let refused = present(&client, "add", &bad).await;
    asks_for_nothing(&refused);

    // Whoever holds nothing but a challenge of somebody has no right to what was paid for it.
    let harness = self::harness().await;
    let payer = harness.client_as(1, anonymous);
    let offer = call(&payer, "add").await;
    let challenge = challenges(&offer).remove(0);
    harness.rail.settle_quietly(&reference(&challenge));
    let thief = harness.client_as(2, anonymous);
    let bad = credential(&challenge, json!({"preimage": "none"}));
    let refused = present(&thief, "add", &bad).await;
    assert_eq!(reason(&refused), "verification-failed");
    asks_for_nothing(&refused);
    assert_eq!(harness.executions(), 0);
    let proof = harness.rail.proof_of(&reference(&challenge));
    let moved = harness.client_as(3, anonymous);
    let good = credential(&challenge, proof);
    assert_eq!(
        kind(&present(&moved, "add", &good).await),
        "result",
        "a bearer may have a new connection"
    );
    books::balance(&harness).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_execution_leaves_the_credential_its_worth() {
    let harness = builder()
        .handler(|request| async move {
            let first = request.id == 1.into();
            if first { Answer::Lost } else { Answer::Echo }
        })
        .start()
        .await
        .unwrap();
    let client = mpp(&harness, 1);
    let credential = pay(&harness, &client, "add").await;
    let lost = present(&client, "add", &credential).await;
    assert_eq!(kind(&lost), "-32000");
    let params = json!({"name": "add", "arguments": {}, "_meta": {"org.paymentauth/credential": credential}});
    let again = Request::new(2, "tools/call", &params).unwrap();
    client.send(again.into()).await.unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["result"]);
    assert_eq!(harness.rail.minted(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_secret_is_exchanged_while_challenges_are_out() {
    let harness = harness().await;
    let client = mpp(&harness, 1);
    let credential = pay(&harness, &client, "add").await;
    let survivors = harness.crash();
    let keys = ChallengeKeys::new(["n".repeat(32), "k".repeat(32)]).unwrap();
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .after(&survivors)
        .unwrap()
        .payments(|payments| payments.challenges(ChallengeIssuer::new(REALM, keys)))
        .start()
        .await
        .unwrap();
    let client = mpp(&harness, 1);
    assert_eq!(kind(&present(&client, "add", &credential).await), "result");
    books::balance(&harness).await;
}

#[tokio::test(start_paused = true)]
async fn credentials_are_taken_from_free_calls_and_notifications_as_well() {
    let harness = harness().await;
    let client = mpp(&harness, 1);
    let meta = json!({"org.paymentauth/credential": {"payload": {"preimage": "secret"}}});
    let result = ask(&client, json!({"name": "free", "_meta": meta})).await;
    assert_eq!(kinds(&result), ["result"]);
    assert!(!result[0].to_string().contains("secret"));
    assert!(result[0]["result"].get("_meta").is_none(), "no receipt");
    let executed = harness.executed();
    assert!(!format!("{:?}", executed[0].request).contains("secret"));
}

/// Nothing is offered to somebody who asks without a server that has challenges, and nothing is believed of one.
#[tokio::test(start_paused = true)]
async fn a_server_without_challenges_ignores_them() {
    let harness = Harness::builder(&PRICES).unwrap().start().await.unwrap();
    let client = harness.client(1).explicit();
    let forged = json!({"challenge": {}, "payload": {"preimage": "x"}});
    let offer = present(&client, "add", &forged).await;
    assert_eq!(kind(&offer), "-32042");
    assert!(challenges(&offer).is_empty());
    assert!(offer["error"]["data"].get("httpStatus").is_none());
}

/// Every write of a call that is paid by credential fails once, in every way: the credential gets one execution in the end, or
/// its right to it stands.
#[tokio::test(start_paused = true)]
async fn every_write_may_fail_and_the_credential_still_buys_one_execution() {
    use std::sync::Arc;

    use tollkeeper::ledger::{Ledger, MemoryLedger};
    use tollkeeper::testing::{FailingLedger, LedgerFault};

    for dies in [false, true] {
        for fault in [LedgerFault::Refuse, LedgerFault::WriteAndFail] {
            for nth in 1..8 {
                let case = (dies, fault, nth);
                let inner: Arc<dyn Ledger> = Arc::new(MemoryLedger::new());
                let failing = Arc::new(FailingLedger::new(Arc::clone(&inner)));
                if dies {
                    failing.crash_at(nth, fault);
                } else {
                    failing.fail_at(nth, fault);
                }
                let harness = builder().ledger(failing as _).start().await.unwrap();
                let client = mpp(&harness, 1);
                let offer = ask(&client, json!({"name": "add", "arguments": {}})).await;
                let mut challenge = offer.first().and_then(|o| challenges(o).pop());
                let mut delivered = 0;
                let mut paid = None;
                if let Some(challenge) = &challenge {
                    let proof = harness.rail.proof_of(&reference(challenge));
                    let proven = credential(challenge, proof);
                    let params = json!({"name": "add", "arguments": {}, "_meta": {"org.paymentauth/credential": proven}});
                    let answers = ask(&client, params).await;
                    delivered += answers.iter().filter(|m| kind(m) == "result").count();
                    paid = Some(proven);
                }
                let executed_before = harness.executions();
                tokio::time::sleep(Duration::from_secs(20)).await;
                let mut survivors = harness.crash();
                survivors.ledger = inner;
                let harness = Harness::builder(&PRICES)
                    .unwrap()
                    .after(&survivors)
                    .unwrap()
                    .payments(with_challenges)
                    .start()
                    .await
                    .unwrap();
                let client = mpp(&harness, 1);
                tokio::time::sleep(Duration::from_secs(20)).await;
                if paid.is_none() {
                    challenge = challenges(&call(&client, "add").await).pop();
                    let challenge = challenge.as_ref().unwrap();
                    let proof = harness.rail.proof_of(&reference(challenge));
                    paid = Some(credential(challenge, proof));
                }
                let answer = present(&client, "add", &paid.unwrap()).await;
                assert_eq!(kind(&answer), "result", "{case:?} {answer}");
                let executed = executed_before + harness.executions();
                // What was executed and not delivered before the process ended is executed again: nobody had it.
                assert!(
                    executed == 1 || (executed == 2 && delivered <= 1),
                    "{case:?}: {executed}"
                );
                if !dies && fault == LedgerFault::Refuse {
                    assert_eq!(executed, 1, "{case:?}");
                }
                let entries = harness.entries().await.unwrap();
                let settled = entries.iter().filter(|e| e.settlement.is_some()).count();
                assert_eq!(settled, 1, "{case:?} {entries:?}");
                assert!(entries.iter().any(|e| e.state == EntryState::Delivered));
            }
        }
    }
}
