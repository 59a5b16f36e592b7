//! What lets a call through without paying: in its order, once for each event, and never in the way of money.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tollkeeper::entitlement::{AllowedClients, ClientPace, DeniedClients, FreePerDay};
use tollkeeper::ledger::{FreeCallFilter, FreeCalls, FreeLimits, MemoryLedger};
use tollkeeper::payment::{
    BearerToken, Cover, Entitled, Entitlement, EntitlementClaim, Refusal, WhenUnknown,
};
use tollkeeper::testing::{Harness, RawClient};
use tollkeeper::wire::Request;
use tollkeeper::{ClientPubkey, Error, Invocation, PriceDecision, PricedCapability, Quote};

use super::PRICES;
use super::books::{self, kinds};

/// What a scripted entitlement answers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Says {
    Covered,
    CoveredByToken,
    NotCovered,
    Nothing,
    Unknown,
    UnknownAndClosed,
    Refused,
    Panics,
    Hangs,
}

/// Answers what the test says.
#[derive(Debug, Clone)]
struct Scripted {
    name: &'static str,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicUsize>,
}

impl Scripted {
    fn new(name: &'static str, says: Says) -> Self {
        Self {
            name,
            says: Arc::new(Mutex::new(says)),
            asked: Arc::default(),
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn says(&self) -> Says {
        *self.says.lock().unwrap()
    }
}

#[async_trait]
impl Entitlement for Scripted {
    fn name(&self) -> &str {
        self.name
    }

    async fn examine(&self, claim: &EntitlementClaim) -> Entitled {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.says() {
            Says::Covered => Entitled::Covered(
                Cover::new("because")
                    .with_claims(json!({"sub": "user_42"}).as_object().unwrap().clone()),
            ),
            Says::CoveredByToken if claim.tokens.iter().any(|token| token.reveal() == "good") => {
                Entitled::Covered(Cover::new("a good token"))
            }
            Says::CoveredByToken | Says::NotCovered => Entitled::NotCovered(Some(
                json!({"error": if claim.exposed { "exposed" } else { "none" }}),
            )),
            Says::Nothing => Entitled::NotCovered(None),
            Says::Unknown | Says::UnknownAndClosed => {
                Entitled::Unknown(Error::ledger("cannot tell"))
            }
            Says::Refused => Entitled::Refused(
                Refusal::new(-32041, "Licence required").with_data(json!({"httpStatus": 401})),
            ),
            Says::Panics => panic!("scripted"),
            Says::Hangs => std::future::pending().await,
        }
    }

    fn when_unknown(&self) -> WhenUnknown {
        match self.says() {
            Says::UnknownAndClosed => WhenUnknown::Refuse,
            _ => WhenUnknown::Pay,
        }
    }
}

async fn harness(entitlements: &[&Scripted]) -> Harness {
    let mut builder = Harness::builder(&PRICES).unwrap();
    for entitlement in entitlements {
        builder = builder.payments(|payments| payments.entitlement((*entitlement).clone()));
    }
    builder.start().await.unwrap()
}

async fn answers(client: &RawClient) -> Vec<serde_json::Value> {
    let collected = client.collect(Duration::from_secs(10)).await.unwrap();
    collected.into_iter().map(|(_, json)| json).collect()
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_covered_is_forwarded_and_it_is_written_why() {
    let first = Scripted::new("first", Says::Nothing);
    let second = Scripted::new("second", Says::Covered);
    let third = Scripted::new("third", Says::Covered);
    let harness = harness(&[&first, &second, &third]).await;
    let client = harness.client(1);
    let sent = client.call_tool(1, "add", json!({"a": 1})).await.unwrap();
    let answers = answers(&client).await;
    assert_eq!(
        answers[0]["result"]["echo"]["_meta"],
        json!({"tollkeeper/entitlement": {"by": "second", "claims": {"sub": "user_42"}}})
    );
    assert_eq!((first.asked(), second.asked(), third.asked()), (1, 1, 0));
    assert_eq!(
        (
            harness.rail.minted(),
            harness.entries().await.unwrap().len()
        ),
        (0, 0)
    );
    let why = harness
        .ledger
        .free_call(&sent.event)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (why.by.as_str(), why.why.as_str(), why.capability.as_str()),
        ("second", "because", "tool:add")
    );
}

#[tokio::test(start_paused = true)]
async fn the_same_event_runs_once_however_often_it_comes() {
    let covered = Scripted::new("covered", Says::Covered);
    let before = harness(&[&covered]).await;
    let client = before.client(1);
    let sent = client.call_tool(1, "add", json!({})).await.unwrap();
    for _ in 0..5 {
        client.send_again(&sent).await.unwrap();
    }
    assert_eq!(answers(&client).await.len(), 1);
    assert_eq!(before.executions(), 1);
    // Nor after a restart, since the record of it is on the disk by then; it is not charged for either.
    let crashed = before.crash();
    let after = Harness::builder(&PRICES)
        .unwrap()
        .after(&crashed)
        .unwrap()
        .payments(|payments| payments.entitlement(covered.clone()))
        .start()
        .await
        .unwrap();
    let client = after.client(1);
    client.send_again(&sent).await.unwrap();
    assert!(answers(&client).await.is_empty());
    assert_eq!((after.executions(), after.rail.minted()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_told_is_paid_for_or_refused_as_the_entitlement_says() {
    for (says, expected) in [
        (Says::Unknown, "payment_required"),
        (Says::Panics, "payment_required"),
        (Says::Hangs, "payment_required"),
        (Says::UnknownAndClosed, "-32000"),
        (Says::Refused, "-32041"),
    ] {
        let harness = harness(&[&Scripted::new("licence", says)]).await;
        let client = harness.client(1);
        client.call_tool(1, "add", json!({})).await.unwrap();
        assert_eq!(kinds(&answers(&client).await), [expected], "{says:?}");
        assert_eq!(harness.executions(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn why_a_call_is_not_covered_goes_with_the_price_in_both_lifecycles() {
    let harness = harness(&[&Scripted::new("licence", Says::NotCovered)]).await;
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    let said = answers(&client).await;
    assert_eq!(
        said[0]["params"]["_meta"]["tollkeeper/entitlements"],
        json!({"licence": {"error": "none"}})
    );
    let explicit = harness.client(2).explicit();
    explicit.call_tool(1, "add", json!({})).await.unwrap();
    let said = answers(&explicit).await;
    assert_eq!(said[0]["error"]["code"], -32042);
    assert_eq!(
        said[0]["error"]["data"]["licence"],
        json!({"error": "none"})
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_is_taken_from_the_params_and_from_the_event_and_the_handler_never_sees_it() {
    let harness = harness(&[&Scripted::new("licence", Says::CoveredByToken)]).await;
    let client = harness.client(1);
    let params = json!({"name": "add", "_meta": {"tollkeeper/licence": "good", "x": 1}});
    let request = Request::new(1, "tools/call", &params).unwrap();
    client.send(request.into()).await.unwrap();
    let mut beside = harness.client(2);
    beside.introduction.licence = BearerToken::new("good");
    beside.call_tool(1, "add", json!({})).await.unwrap();
    assert_eq!(kinds(&answers(&client).await), ["result"]);
    assert_eq!(kinds(&answers(&beside).await), ["result"]);
    for executed in harness.executed() {
        let params = executed.request.params.unwrap();
        assert!(!params.get().contains("good"), "{}", params.get());
    }
    // With a free method, too.
    let params = json!({"_meta": {"license": "good"}});
    let request = Request::new(2, "tools/list", &params).unwrap();
    client.send(request.into()).await.unwrap();
    answers(&client).await;
    assert_eq!(
        harness.executed()[2].request.params.as_ref().unwrap().get(),
        "{}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_that_does_not_count_is_nowhere_in_the_books() {
    let harness = harness(&[&Scripted::new("licence", Says::CoveredByToken)]).await;
    let client = harness.client(1);
    let params = json!({"name": "add", "_meta": {"tollkeeper/licence": "bad-but-secret"}});
    let request = Request::new(1, "tools/call", &params).unwrap();
    client.send(request.into()).await.unwrap();
    assert_eq!(kinds(&answers(&client).await), ["payment_required"]);
    let entry = harness.entries().await.unwrap().remove(0);
    assert!(!entry.request.unwrap().contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn a_token_does_not_change_which_call_it_is() {
    // Paid for without a licence, executed with one that does not count: the authorization is found.
    let harness = harness(&[&Scripted::new("licence", Says::CoveredByToken)]).await;
    let client = harness.client(1).explicit();
    client.call_tool(1, "add", json!({"a": 1})).await.unwrap();
    answers(&client).await;
    books::settle(&harness, 0).await;
    answers(&client).await;
    let params = json!({"name": "add", "arguments": {"a": 1}, "_meta": {"license": "bad"}});
    let request = Request::new(2, "tools/call", &params).unwrap();
    client.send(request.into()).await.unwrap();
    assert_eq!(kinds(&answers(&client).await), ["result"]);
    assert_eq!(harness.rail.minted(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_as_good_as_money_is_never_waived() {
    let covered = Scripted::new("covered", Says::Covered);
    let licence: PricedCapability = "tool:licence=7 sat".parse().unwrap();
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .payments(|payments| payments.price(licence.never_waived()).entitlement(covered))
        .start()
        .await
        .unwrap();
    let client = harness.client(1);
    client.call_tool(1, "licence", json!({})).await.unwrap();
    assert_eq!(kinds(&answers(&client).await), ["payment_required"]);
}

#[tokio::test(start_paused = true)]
async fn a_price_may_depend_on_what_the_entitlements_said() {
    let half = |call: Invocation, listed: PricedCapability| async move {
        Ok::<PriceDecision, Error>(match call.entitlements.get("licence") {
            Some(_) => PriceDecision::Reject {
                message: Some("renew your licence".to_owned()),
            },
            None => Quote::new(listed.price.min()).into(),
        })
    };
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .payments(|payments| {
            payments
                .entitlement(Scripted::new("licence", Says::NotCovered))
                .resolve_price(half)
        })
        .start()
        .await
        .unwrap();
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    assert_eq!(
        kinds(&answers(&client).await),
        ["payment_rejected", "-32000"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_thousand_free_calls_share_a_few_writes() {
    let harness = harness(&[&Scripted::new("covered", Says::Covered)]).await;
    let client = harness.client(1);
    for n in 0..1000 {
        client.call_tool(n, "add", json!({"n": n})).await.unwrap();
    }
    assert_eq!(answers(&client).await.len(), 1000);
    let calls = harness.ledger.free_calls(&FreeCallFilter::new(2000)).await;
    assert_eq!(calls.unwrap().len(), 1000);
    assert!(books::nothing_minted(&harness));
}

#[tokio::test(start_paused = true)]
async fn what_is_paid_for_is_served_to_somebody_who_is_refused_since() {
    let list = Scripted::new("deny", Says::Nothing);
    let harness = harness(&[&list]).await;
    let client = harness.client(1).explicit();
    client.call_tool(1, "add", json!({"a": 1})).await.unwrap();
    answers(&client).await;
    books::settle(&harness, 0).await;
    answers(&client).await;
    *list.says.lock().unwrap() = Says::Refused;
    client.call_tool(2, "add", json!({"a": 1})).await.unwrap();
    assert_eq!(kinds(&answers(&client).await), ["result"]);
    client.call_tool(3, "add", json!({"a": 1})).await.unwrap();
    assert_eq!(kinds(&answers(&client).await), ["-32041"]);
    assert_eq!(harness.rail.minted(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_free_calls_of_a_day_survive_a_restart_and_come_back_the_next_day() {
    let start = |crashed: Option<tollkeeper::testing::Survivors>, ledger: Arc<MemoryLedger>| async move {
        let books = Arc::clone(&ledger) as Arc<dyn FreeCalls>;
        let free = FreePerDay::new(books, FreeLimits::new(2, 3)).unwrap();
        let builder = Harness::builder(&PRICES).unwrap().ledger(ledger);
        let builder = match &crashed {
            Some(crashed) => builder.after(crashed).unwrap(),
            None => builder,
        };
        let builder = builder.payments(|payments| payments.entitlement(free));
        builder.start().await.unwrap()
    };
    let ledger = Arc::new(MemoryLedger::new());
    let before = start(None, Arc::clone(&ledger)).await;
    let client = before.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    assert_eq!(kinds(&answers(&client).await), ["result"]);
    let after = start(Some(before.crash()), ledger).await;
    let client = after.client(1);
    for (n, expected) in [(2, "result"), (3, "payment_required")] {
        client.call_tool(n, "add", json!({"n": n})).await.unwrap();
        assert_eq!(kinds(&answers(&client).await), [expected]);
    }
    // Another key gets the last call of all of the day, and a third none.
    for (who, expected) in [(2, "result"), (3, "payment_required")] {
        let client = after.client(who);
        client.call_tool(1, "add", json!({})).await.unwrap();
        assert_eq!(kinds(&answers(&client).await), [expected]);
    }
    after.clock.jump(Duration::from_secs(86_400));
    let client = after.client(1);
    client.call_tool(9, "add", json!({"n": 9})).await.unwrap();
    assert_eq!(kinds(&answers(&client).await), ["result"]);
}

#[tokio::test(start_paused = true)]
async fn lists_and_paces_count_for_each_client() {
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .payments(|payments| {
            payments
                .entitlement(DeniedClients::new([key(1)]))
                .entitlement(ClientPace::new(60, 2).unwrap())
                .entitlement(AllowedClients::new([key(1), key(2)]))
        })
        .start()
        .await
        .unwrap();
    for (who, expected) in [(1, "-32000"), (2, "result"), (3, "payment_required")] {
        let client = harness.client(who);
        client.call_tool(1, "add", json!({})).await.unwrap();
        assert_eq!(kinds(&answers(&client).await), [expected], "client {who}");
    }
    let client = harness.client(2);
    for n in 0..4 {
        client.call_tool(n, "add", json!({"n": n})).await.unwrap();
    }
    // A refusal does not wait for the handler, so it may overtake a result.
    let mut answers = kinds(&books::now(&client).await);
    answers.sort();
    assert_eq!(answers, ["-32000", "-32000", "result", "result"]);
}

fn key(n: u8) -> ClientPubkey {
    ClientPubkey::from_bytes([n; 32])
}

#[tokio::test(start_paused = true)]
async fn the_same_event_again_gets_around_no_refusal_and_uses_up_no_free_call() {
    let ledger = Arc::new(MemoryLedger::new());
    let books = Arc::clone(&ledger) as Arc<dyn FreeCalls>;
    let deny = Scripted::new("deny", Says::Refused);
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .ledger(ledger)
        .payments(|payments| {
            payments
                .entitlement(deny.clone())
                .entitlement(FreePerDay::new(books, FreeLimits::new(1, 9)).unwrap())
        })
        .start()
        .await
        .unwrap();
    let client = harness.client(1);
    let sent = client.call_tool(1, "add", json!({})).await.unwrap();
    for _ in 0..3 {
        client.send_again(&sent).await.unwrap();
    }
    assert_eq!(kinds(&books::now(&client).await), ["-32041"; 4]);
    // Not refused any more, but answered: it is not served, and the free call is not used up by it.
    *deny.says.lock().unwrap() = Says::Nothing;
    client.send_again(&sent).await.unwrap();
    books::now(&client).await;
    assert_eq!(harness.executions(), 0);
    let sent = client.call_tool(2, "add", json!({"n": 2})).await.unwrap();
    assert_eq!(kinds(&books::now(&client).await), ["result"]);
    // And an event that was let through is never charged for, whatever covers it now.
    *deny.says.lock().unwrap() = Says::Refused;
    harness.clock.jump(Duration::from_secs(30));
    client.send_again(&sent).await.unwrap();
    assert!(books::now(&client).await.is_empty());
}
