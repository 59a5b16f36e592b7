//! The crate `mpp`, a client of the Machine Payments Protocol that others wrote, buys from the gate; and holds what the gate says
//! against its own reading of the protocol. How the bytes travel is left to other tests: here they go through memory.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mpp::client::{PaymentContext, PaymentProvider};
use mpp::mcp::client::{McpClient, McpClientError, ToolCaller};
use mpp::{MppError, PaymentChallenge, PaymentCredential, Receipt};
use serde_json::{Value, json};
use tollkeeper::gate::ChallengeIssuer;
use tollkeeper::testing::{Harness, ProcessorControl, RawClient};
use tollkeeper::transport::Origin;
use tollkeeper::wire::Request;
use tollkeeper::wire::mpp::ChallengeKeys;

const SECRET: &str = "a secret that is long enough for everybody";
const REALM: &str = "nostr:server";

fn plain(origin: &mut Origin) {
    origin.answers_only = true;
}

async fn harness() -> Harness {
    let keys = ChallengeKeys::new([SECRET]).unwrap();
    Harness::builder(&["tool:add=7 sat"])
        .unwrap()
        .payments(|payments| payments.challenges(ChallengeIssuer::new(REALM, keys)))
        .start()
        .await
        .unwrap()
}

/// What the crate asks of an MCP library.
#[derive(Clone)]
struct Caller(Arc<RawClient>);

impl ToolCaller for Caller {
    type Params = Value;
    type Output = Value;
    type Error = Value;

    async fn call_tool(&self, params: Value) -> Result<Value, Value> {
        let request = Request::new(1, "tools/call", &params).unwrap();
        self.0.send(request.into()).await.unwrap();
        loop {
            let (_, message) = self.0.next_json().await.unwrap();
            match (message.get("result"), message.get("error")) {
                (Some(result), _) => return Ok(result.clone()),
                (_, Some(error)) => return Err(error.clone()),
                _ => {}
            }
        }
    }

    fn payment_challenges_from_error(&self, error: &Value) -> Option<Vec<PaymentChallenge>> {
        mpp::mcp::extract_challenges(error)
    }

    fn receipt_from_output(&self, output: &Value) -> Option<Receipt> {
        mpp::mcp::extract_receipt(output.get("_meta")?)
    }

    fn attach_credential(
        &self,
        params: &mut Value,
        credential: &PaymentCredential,
    ) -> Result<(), MppError> {
        mpp::mcp::try_attach_credential(params, credential)
    }
}

/// A wallet for the rail of the harness.
#[derive(Clone)]
struct Wallet {
    rail: ProcessorControl,
    paid: Arc<AtomicUsize>,
    last: Arc<Mutex<Option<PaymentCredential>>>,
}

impl PaymentProvider for Wallet {
    fn supports(&self, method: &str, intent: &str) -> bool {
        (method, intent) == ("scripted", "charge")
    }

    async fn pay(&self, challenge: &PaymentChallenge) -> Result<PaymentCredential, MppError> {
        self.paid.fetch_add(1, Ordering::SeqCst);
        let request: Value = challenge.request.decode().unwrap();
        let invoice = request["invoice"].as_str().unwrap();
        let reference = invoice.strip_prefix("scripted:").unwrap();
        let proof = self.rail.proof_of(reference);
        let credential = PaymentCredential::with_source(challenge.to_echo(), "did:key:z6Mk", proof);
        *self.last.lock().unwrap() = Some(credential.clone());
        Ok(credential)
    }
}

fn client(harness: &Harness) -> (McpClient<Caller, Wallet>, Wallet) {
    let caller = Caller(Arc::new(harness.client_as(1, plain)));
    let wallet = Wallet {
        rail: harness.rail.clone(),
        paid: Arc::default(),
        last: Arc::default(),
    };
    let context = PaymentContext {
        url: reqwest::Url::parse("https://server.example.com/mcp").unwrap(),
        headers: reqwest::header::HeaderMap::new(),
        http_client: None,
    };
    (McpClient::new(caller, wallet.clone(), context), wallet)
}

fn call(n: u64) -> Value {
    json!({ "name": "add", "arguments": { "n": n } })
}

#[tokio::test(start_paused = true)]
async fn it_pays_once_for_each_call() {
    let harness = harness().await;
    let (client, wallet) = client(&harness);
    for n in 1..=3u64 {
        let result = client.call_tool(call(n)).await;
        let Ok(result) = result else {
            panic!("not served")
        };
        assert_eq!(result["echo"]["arguments"]["n"], n);
        let receipt = mpp::mcp::extract_receipt(&result["_meta"]).unwrap();
        assert_eq!(receipt.method.to_string(), "scripted");
        assert_eq!(wallet.paid.load(Ordering::SeqCst) as u64, n);
        assert_eq!(harness.executions() as u64, n);
    }
    assert_eq!(harness.rail.settled(), 3);
}

#[tokio::test(start_paused = true)]
async fn its_own_reading_of_a_challenge_is_ours() {
    let harness = harness().await;
    let raw = Caller(Arc::new(harness.client_as(1, plain)));
    let error = raw.call_tool(call(1)).await.unwrap_err();
    assert!(mpp::mcp::is_payment_required(&error));
    let challenges = mpp::mcp::extract_challenges(&error).unwrap();
    assert_eq!(challenges.len(), 1);
    let challenge = &challenges[0];
    assert_eq!(challenge.realm, REALM);
    assert!(challenge.verify(SECRET), "signed as the crate signs");
    assert!(!challenge.verify("another secret that is long enough"));
    assert!(!challenge.is_expired());
}

#[tokio::test(start_paused = true)]
async fn what_it_sends_again_buys_nothing_more_and_costs_nothing_more() {
    let harness = harness().await;
    let (client, wallet) = client(&harness);
    client.call_tool(call(1)).await.ok().unwrap();
    let credential = wallet.last.lock().unwrap().clone().unwrap();
    // The same call with it: the answer that it paid for.
    let mut again = call(1);
    mpp::mcp::attach_credential(&mut again, &credential);
    let result = client.caller().call_tool(again).await.unwrap();
    assert_eq!(result["echo"]["arguments"]["n"], 1);
    // Another call with it: no, and nothing that the client would pay.
    let mut other = call(2);
    mpp::mcp::attach_credential(&mut other, &credential);
    let refused = client.caller().call_tool(other.clone()).await.unwrap_err();
    assert!(
        mpp::mcp::extract_challenges(&refused).is_none(),
        "{refused}"
    );
    match client.call_tool(other).await {
        Err(McpClientError::Transport(_)) => {}
        _ => panic!("it must be refused"),
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(wallet.paid.load(Ordering::SeqCst), 1);
    assert_eq!(harness.executions(), 1);
    assert_eq!(harness.rail.minted(), 1);
}
