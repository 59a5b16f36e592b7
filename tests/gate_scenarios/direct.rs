//! Money that comes with the request (CEP-8, direct payment): taken once, under encryption only, from whoever has to pay.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tollkeeper::entitlement::AllowedClients;
use tollkeeper::ledger::{Credit, EntryState, Ledger, MemoryLedger, MovementKind};
use tollkeeper::payment::{Clock as _, Unit};
use tollkeeper::server::ServerPayments;
use tollkeeper::testing::{
    FailingLedger, Harness, HarnessBuilder, LedgerFault, MandateControl, MandateScript,
    ProcessorControl, RawClient, ScriptedMandates, ScriptedProcessor, Survivors,
};
use tollkeeper::transport::{Origin, Prepared};
use tollkeeper::wire::DirectPayment;
use tollkeeper::{Amount, ClientPubkey};

use super::books::{self, kind, kinds};

const DIRECT: &str = "scripted-direct";

/// Longer than a request waits for a charge.
const LONG: Duration = Duration::from_secs(30);

fn builder(mandates: &MandateControl) -> HarnessBuilder {
    let rail = ScriptedMandates::on(mandates).unwrap();
    let rail = rail.direct(DIRECT.parse().unwrap());
    Harness::builder(&["tool:add=0.50 usd", "tool:sub=0.50 usd", "tool:cheap=7 sat"])
        .unwrap()
        .payments(|payments| payments.shared_processor(Arc::new(rail)))
}

fn dollars() -> (ScriptedProcessor, ProcessorControl) {
    let (processor, control) = ScriptedProcessor::new("scripted".parse().unwrap());
    (processor.with_units(units()), control)
}

fn units() -> Vec<Unit> {
    vec![Unit::USD_CENTS, Unit::SATS]
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
    harness
        .rail((processor.with_units(units()), control))
        .start()
        .await
        .unwrap()
}

fn sends(origin: &mut Origin, pmi: &str, payload: &str) {
    let payment = DirectPayment::new(pmi.parse().unwrap(), payload);
    origin.direct_payments.push(payment);
}

fn spt_1(origin: &mut Origin) {
    sends(origin, DIRECT, "spt_1");
}

fn spt_2(origin: &mut Origin) {
    sends(origin, DIRECT, "spt_2");
}

fn nothing(_: &mut Origin) {}

/// A client in the lifecycle that is tried, of whose requests the server is told what `dress` writes.
fn client(harness: &Harness, n: u8, explicit: bool, dress: fn(&mut Origin)) -> RawClient {
    let client = harness.client_as(n, dress);
    if explicit { client.explicit() } else { client }
}

async fn call(client: &RawClient, id: i64, tool: &str) -> (Prepared, Vec<Value>) {
    let sent = client.call_tool(id, tool, json!({})).await.unwrap();
    (sent, heard(client).await)
}

async fn heard(client: &RawClient) -> Vec<Value> {
    let mut heard = Vec::new();
    while let Ok(next) = tokio::time::timeout(LONG, client.next_json()).await {
        let (_, message) = next.unwrap();
        let last = message.get("method").is_none();
        heard.push(message);
        if last {
            break;
        }
    }
    heard
}

fn reason(messages: &[Value]) -> &str {
    let data = &messages.last().unwrap()["error"]["data"];
    data["failure"]["reason"].as_str().unwrap_or_default()
}

/// Nothing that anybody could pay.
fn offers_nothing(messages: &[Value]) {
    for message in messages {
        let text = message.to_string();
        assert!(
            !text.contains("payment_required") && !text.contains("pay_req"),
            "{text}"
        );
    }
}

const REJECTED: [&str; 2] = ["payment_rejected", "-32000"];

#[tokio::test(start_paused = true)]
async fn a_payment_that_comes_along_is_taken_and_the_call_served() {
    for explicit in [false, true] {
        let (harness, mandates) = harness().await;
        let a = client(&harness, 1, explicit, spt_1);
        let (sent, answers) = call(&a, 1, "add").await;
        assert_eq!(kinds(&answers), ["payment_accepted", "result"]);
        let params = &answers[0]["params"];
        assert_eq!(
            (&params["amount"], &params["pmi"]),
            (&json!(50), &json!(DIRECT))
        );
        assert!(answers[1]["result"].get("_meta").is_none());
        // Sent again, it is answered again.
        a.send_again(&sent).await.unwrap();
        assert_eq!(heard(&a).await, answers[1..]);
        assert_eq!((mandates.charged(), mandates.asked()), (1, 1));
        assert_eq!(harness.executions(), 1);
        assert!(books::nothing_minted(&harness));
        // Who brings none is asked, as ever.
        let (_, asked) = call(&client(&harness, 2, explicit, nothing), 1, "add").await;
        let offer = if explicit {
            "-32042"
        } else {
            "payment_required"
        };
        assert_eq!(kind(&asked[0]), offer);
        let entries = harness.entries().await.unwrap();
        let made = entries
            .iter()
            .find(|e| e.pmi.as_str() == "scripted-mandate");
        let made = made.unwrap();
        let kept = format!("{:?} {:?}", made.payment_request, made.history);
        assert!(!kept.contains("spt_1") && made.settlement.is_some());
        let made = made.payment_request.as_ref().unwrap();
        assert!(made.pay_req.as_str().starts_with("sha-256="));
    }
}

/// N-106: whoever could send one must know, and nobody is asked to pay by it.
#[tokio::test(start_paused = true)]
async fn the_method_is_advertised_last_and_never_asked_for() {
    let (harness, mandates) = harness().await;
    let advertised = harness.transport.advertised().pmis;
    let advertised: Vec<&str> = advertised.iter().map(|pmi| pmi.as_str()).collect();
    assert_eq!(advertised, ["scripted", DIRECT]);
    for explicit in [false, true] {
        let mut a = client(&harness, 1, explicit, nothing);
        a.introduction.pmis = vec![DIRECT.parse().unwrap()];
        let (_, answers) = call(&a, i64::from(explicit), "add").await;
        offers_nothing(&answers);
        let said = answers.last().unwrap().to_string();
        assert!(said.contains("No compatible payment method"), "{said}");
        a.introduction.pmis.push("scripted".parse().unwrap());
        let (_, answers) = call(&a, 2 + i64::from(explicit), "add").await;
        assert!(answers[0].to_string().contains("\"scripted\""));
    }
    assert_eq!(mandates.asked(), 0);
    let other = ScriptedMandates::on(&mandates).unwrap();
    let named = other.direct("scripted-bearer".parse().unwrap());
    let refused = ServerPayments::builder().processor(named).build();
    assert!(refused.unwrap_err().to_string().contains("-direct"));
}

/// N-108
#[tokio::test(start_paused = true)]
async fn in_the_clear_nothing_is_taken_and_the_buyer_is_told() {
    fn in_the_clear(origin: &mut Origin) {
        spt_1(origin);
        origin.confidential = false;
    }
    for explicit in [false, true] {
        let (harness, mandates) = harness().await;
        let (_, answers) = call(&client(&harness, 1, explicit, in_the_clear), 1, "add").await;
        assert_eq!(kinds(&answers), REJECTED);
        assert_eq!(answers[0]["params"]["pmi"], DIRECT);
        let said = answers[0]["params"]["message"].as_str().unwrap();
        assert!(said.contains("unencrypted") && said.contains("revoke"));
        assert!(!format!("{answers:?}").contains("spt_1"));
        assert_eq!((mandates.asked(), harness.executions()), (0, 0));
        assert!(harness.entries().await.unwrap().is_empty());
        // Encrypted it still counts.
        let (_, answers) = call(&client(&harness, 1, explicit, spt_1), 2, "add").await;
        assert_eq!(kinds(&answers), ["payment_accepted", "result"]);
    }
}

/// N-103
#[tokio::test(start_paused = true)]
async fn of_several_the_first_supported_one_counts() {
    let (harness, mandates) = harness().await;
    let several = client(&harness, 1, false, |origin| {
        sends(origin, "cashu-direct", "cashuA");
        spt_1(origin);
        spt_2(origin);
    });
    assert_eq!(kind(&call(&several, 1, "add").await.1[1]), "result");
    assert_eq!(mandates.charged(), 1);
    let (_, again) = call(&client(&harness, 2, false, spt_1), 1, "sub").await;
    assert_eq!(kinds(&again), REJECTED);
    let (_, second) = call(&client(&harness, 2, false, spt_2), 2, "sub").await;
    assert_eq!(kinds(&second), ["payment_accepted", "result"]);
    assert_eq!((mandates.charged(), harness.executions()), (2, 2));
    // N-107: none that is supported is none at all.
    let unknown = client(&harness, 3, false, |origin| {
        sends(origin, "cashu-direct", "cashuA");
    });
    unknown.call_tool(3, "add", json!({})).await.unwrap();
    assert_eq!(kinds(&books::now(&unknown).await), ["payment_required"]);
    assert!(!format!("{:?}", harness.executed()).contains("spt_"));
}

/// N-105
#[tokio::test(start_paused = true)]
async fn what_cannot_pay_the_price_is_left_alone() {
    let (harness, mandates) = harness().await;
    let a = client(&harness, 1, false, spt_1);
    a.call_tool(1, "cheap", json!({})).await.unwrap();
    assert_eq!(kinds(&books::now(&a).await), ["payment_required"]);
    assert_eq!(mandates.asked(), 0);
    assert_eq!(kind(&call(&a, 2, "add").await.1[1]), "result");
    let nonsense = client(&harness, 1, false, |origin| {
        sends(origin, DIRECT, "pm_1");
    });
    assert_eq!(kinds(&call(&nonsense, 3, "add").await.1), REJECTED);
    assert_eq!((mandates.asked(), harness.executions()), (1, 1));
}

/// Who has a right already keeps the money.
#[tokio::test(start_paused = true)]
async fn who_need_not_pay_keeps_the_payment() {
    for explicit in [false, true] {
        let (harness, mandates) = harness().await;
        let a = client(&harness, 1, explicit, nothing);
        a.call_tool(1, "add", json!({})).await.unwrap();
        books::now(&a).await;
        // Paid, and nobody waits for it any more.
        a.cancel(1).await.unwrap();
        books::now(&a).await;
        books::settle(&harness, 0).await;
        books::now(&a).await;
        assert_eq!(books::authorizations(&harness).await, 1);
        let b = client(&harness, 1, explicit, spt_1);
        let (_, answers) = call(&b, 2, "add").await;
        assert_eq!(kinds(&answers), ["result"]);
        assert_eq!((mandates.asked(), harness.executions()), (0, 1));
        let (_, answers) = call(&b, 3, "add").await;
        assert_eq!(kinds(&answers), ["payment_accepted", "result"]);
        let free = client(&harness, 1, explicit, spt_2);
        assert_eq!(kinds(&call(&free, 4, "free").await.1), ["result"]);
        assert_eq!((mandates.asked(), harness.executions()), (1, 3));
    }
}

#[tokio::test(start_paused = true)]
async fn an_entitlement_or_an_account_goes_before_the_payment() {
    let (_, mandates) = ScriptedMandates::new().unwrap();
    let harness = builder(&mandates)
        .rail(dollars())
        .payments(|payments| {
            let friends = [ClientPubkey::from_bytes([2; 32])];
            payments
                .balances(true)
                .entitlement(AllowedClients::new(friends))
        })
        .start()
        .await
        .unwrap();
    let credit = Credit {
        client: ClientPubkey::from_bytes([1; 32]),
        amount: Amount::new(60, Unit::USD_CENTS).unwrap(),
        kind: MovementKind::TopUp,
        key: "top_up".to_owned(),
        at: harness.clock.now(),
    };
    harness.ledger.credit(credit).await.unwrap();
    let friend = client(&harness, 2, false, spt_1);
    assert_eq!(kinds(&call(&friend, 1, "add").await.1), ["result"]);
    let (_, answers) = call(&client(&harness, 1, false, spt_1), 1, "add").await;
    assert_eq!(answers[0]["params"]["pmi"], "balance");
    assert_eq!((mandates.asked(), harness.executions()), (0, 2));
    // Ten cents are left, which do not pay for another.
    let (_, answers) = call(&client(&harness, 1, false, spt_1), 2, "add").await;
    assert_eq!(answers[0]["params"]["pmi"], DIRECT);
    assert_eq!((mandates.charged(), harness.executions()), (1, 3));
}

/// N-107
#[tokio::test(start_paused = true)]
async fn a_payment_is_taken_once_whoever_sends_it_with_what() {
    for explicit in [false, true] {
        let (harness, mandates) = harness().await;
        let a = client(&harness, 1, explicit, spt_1);
        let (_, first) = call(&a, 1, "add").await;
        let (_, same) = call(&a, 2, "add").await;
        assert_eq!(kinds(&same), ["result"], "the answer that it paid for");
        assert_eq!(same[0]["result"], first[1]["result"]);
        assert_eq!(same[0]["id"], 2);
        let (_, other_call) = call(&a, 3, "sub").await;
        assert_eq!(kinds(&other_call), REJECTED);
        let b = client(&harness, 2, explicit, spt_1);
        for (id, tool) in [(1, "add"), (2, "sub")] {
            assert_eq!(kinds(&call(&b, id, tool).await.1), REJECTED);
        }
        tokio::time::sleep(Duration::from_secs(8 * 86_400)).await;
        let (_, forgotten) = call(&client(&harness, 1, explicit, spt_1), 9, "add").await;
        assert_eq!(kinds(&forgotten), REJECTED, "its answer is kept no longer");
        assert_eq!((mandates.charged(), harness.executions()), (1, 1));
        assert_eq!(mandates.asked(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn many_at_once_are_one_charge_and_one_execution() {
    for explicit in [false, true] {
        let (harness, mandates) = harness().await;
        let a = client(&harness, 1, explicit, spt_1);
        for id in 0..10 {
            let sent = a.call_tool(id, "add", json!({})).await.unwrap();
            for _ in 0..3 {
                a.send_again(&sent).await.unwrap();
            }
        }
        let answers = a.collect(Duration::from_secs(5)).await.unwrap();
        let answers: Vec<Value> = answers.into_iter().map(|(_, m)| m).collect();
        offers_nothing(&answers);
        assert_eq!((mandates.charged(), harness.executions()), (1, 1));
        let ids: std::collections::HashSet<i64> =
            answers.iter().filter_map(|m| m["id"].as_i64()).collect();
        assert_eq!(ids.len(), 10, "each is answered: {answers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_declined_is_rejected_and_another_one_taken() {
    for explicit in [false, true] {
        let (harness, mandates) = harness().await;
        let a = client(&harness, 1, explicit, spt_1);
        mandates.set(MandateScript::Refuse);
        let (sent, declined) = call(&a, 1, "add").await;
        assert_eq!(kinds(&declined), REJECTED);
        assert!(
            declined[1]
                .to_string()
                .contains("declined; nothing was taken")
        );
        mandates.set(MandateScript::Pay);
        // The rail has decided; nothing is charged for the same order later.
        a.send_again(&sent).await.unwrap();
        assert_eq!(kinds(&heard(&a).await), REJECTED);
        let (_, again) = call(&a, 2, "add").await;
        assert_eq!(kinds(&again), REJECTED);
        // Whoever sends it again later does not even have the rail asked to charge.
        tokio::time::sleep(Duration::from_secs(11)).await;
        let asked = mandates.asked();
        a.send_again(&sent).await.unwrap();
        assert_eq!(kinds(&heard(&a).await), REJECTED);
        assert_eq!(mandates.asked(), asked);
        assert_eq!((mandates.charged(), harness.executions()), (0, 0));
        let b = client(&harness, 1, explicit, spt_2);
        let (_, another) = call(&b, 3, "add").await;
        assert_eq!(kinds(&another), ["payment_accepted", "result"]);
        let (_, none) = call(&client(&harness, 1, explicit, nothing), 4, "add").await;
        assert!(["payment_required", "-32042"].contains(&kind(&none[0]).as_str()));
        assert_eq!((mandates.charged(), harness.executions()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn while_nobody_knows_nothing_is_offered_and_the_one_charge_is_found() {
    for script in [
        MandateScript::LoseBefore,
        MandateScript::LoseAfter,
        MandateScript::Hang,
        MandateScript::Pending,
    ] {
        for (explicit, same_event) in [(false, false), (false, true), (true, false), (true, true)] {
            let case = (script, explicit, same_event);
            let (harness, mandates) = harness().await;
            let a = client(&harness, 1, explicit, spt_1);
            mandates.set(script);
            let (sent, unknown) = call(&a, 1, "add").await;
            assert_eq!(kinds(&unknown), ["-32043"], "{case:?}");
            assert_eq!(reason(&unknown), "payment-unsettled");
            offers_nothing(&unknown);
            assert!(!unknown[0].to_string().contains("spt_"));
            let found = script == MandateScript::LoseAfter;
            if !found {
                // Neither without money nor with other money.
                for (id, dress) in [(2, nothing as fn(&mut Origin)), (3, spt_2)] {
                    let other = client(&harness, 1, explicit, dress);
                    let (_, answers) = call(&other, id, "add").await;
                    assert_eq!(reason(&answers), "payment-unsettled", "{case:?}");
                    offers_nothing(&answers);
                }
                // Other calls are none of its business.
                let (_, other) = call(&client(&harness, 1, explicit, nothing), 4, "sub").await;
                assert!(!kinds(&other).contains(&"-32043".to_owned()), "{case:?}");
            }
            assert_eq!(harness.executions(), 0);
            mandates.set(MandateScript::Pay);
            let a = client(&harness, 1, explicit, spt_1);
            let answers = if same_event && !found {
                a.send_again(&sent).await.unwrap();
                heard(&a).await
            } else {
                call(&a, 5, "add").await.1
            };
            assert_eq!(kind(answers.last().unwrap()), "result", "{case:?}");
            assert_eq!(
                (mandates.charged(), harness.executions()),
                (1, 1),
                "{case:?}"
            );
        }
    }
}

/// The money of a charge that nobody heard of again is an authorization, in the lifecycle that it was sent in.
#[tokio::test(start_paused = true)]
async fn a_payment_that_is_found_late_serves_the_next_call() {
    for explicit in [false, true] {
        let (harness, mandates) = harness().await;
        let a = client(&harness, 1, explicit, spt_1);
        mandates.set(MandateScript::LoseAfter);
        let (sent, _) = call(&a, 1, "add").await;
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(books::authorizations(&harness).await, 1);
        // A stranger's replay does not use it up.
        a.send_again(&sent).await.unwrap();
        assert_eq!(kinds(&heard(&a).await), ["-32600"]);
        let b = client(&harness, 1, explicit, nothing);
        assert_eq!(kinds(&call(&b, 2, "add").await.1), ["result"]);
        let a = client(&harness, 1, explicit, spt_1);
        let (_, again) = call(&a, 3, "add").await;
        assert_eq!(kinds(&again), ["result"], "the answer that it paid for");
        assert_eq!((mandates.charged(), harness.executions()), (1, 1));
    }
}

/// A charge that is never decided ends as an offer does; the payment is then still taken once.
#[tokio::test(start_paused = true)]
async fn a_charge_without_an_end_blocks_nobody_for_ever() {
    for explicit in [false, true] {
        let (harness, mandates) = harness().await;
        mandates.set(MandateScript::Pending);
        call(&client(&harness, 1, explicit, spt_1), 1, "add").await;
        tokio::time::sleep(Duration::from_secs(700)).await;
        let (_, offered) = call(&client(&harness, 1, explicit, nothing), 2, "add").await;
        assert!(["payment_required", "-32042"].contains(&kind(&offered[0]).as_str()));
        mandates.set(MandateScript::Pay);
        let (_, answers) = call(&client(&harness, 1, explicit, spt_1), 3, "add").await;
        assert_eq!(kinds(&answers), ["payment_accepted", "result"]);
        assert_eq!((mandates.charged(), harness.executions()), (1, 1));
    }
}

/// What is taken back while it is charged is not executed; the money is an authorization.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_taken_back_meanwhile_is_not_executed() {
    for explicit in [false, true] {
        let (harness, mandates) = harness().await;
        let a = client(&harness, 1, explicit, spt_1);
        mandates.set(MandateScript::Pending);
        a.call_tool(1, "add", json!({})).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        a.cancel(1).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        mandates.set(MandateScript::Pay);
        assert!(a.is_silent_for(LONG).await);
        assert_eq!((mandates.charged(), harness.executions()), (1, 0));
        assert_eq!(books::authorizations(&harness).await, 1);
        let (_, answers) = call(&client(&harness, 1, explicit, nothing), 2, "add").await;
        assert_eq!(kinds(&answers), ["result"]);
        assert_eq!((mandates.charged(), harness.executions()), (1, 1));
    }
}

/// A request that was refused is not charged for later, when somebody who saw it sends it again.
#[tokio::test(start_paused = true)]
async fn what_was_refused_for_other_reasons_is_not_taken_by_a_replay() {
    let (_, mandates) = ScriptedMandates::new().unwrap();
    let harness = builder(&mandates)
        .rail(dollars())
        .payments(|payments| payments.settings(|rules| rules.offers_per_minute = 1))
        .start()
        .await
        .unwrap();
    let (_, first) = call(&client(&harness, 1, false, spt_1), 1, "add").await;
    assert_eq!(kind(&first[1]), "result");
    let a = client(&harness, 1, false, spt_2);
    let (sent, refused) = call(&a, 2, "add").await;
    assert!(refused.last().unwrap().to_string().contains("capacity"));
    tokio::time::sleep(Duration::from_secs(61)).await;
    a.send_again(&sent).await.unwrap();
    assert_eq!(kinds(&heard(&a).await), REJECTED);
    assert_eq!((mandates.charged(), mandates.asked()), (1, 1));
    let (_, anew) = call(&a, 3, "add").await;
    assert_eq!(kinds(&anew), ["payment_accepted", "result"]);
    assert_eq!((mandates.charged(), harness.executions()), (2, 2));
}

/// Too many charges that nobody knows the end of are too many open offers.
#[tokio::test(start_paused = true)]
async fn charges_without_an_end_count_towards_the_limits() {
    let (_, mandates) = ScriptedMandates::new().unwrap();
    let harness = builder(&mandates)
        .rail(dollars())
        .payments(|payments| payments.limits(tollkeeper::ledger::OpenLimits::new(1, 10)))
        .start()
        .await
        .unwrap();
    mandates.set(MandateScript::Hang);
    call(&client(&harness, 1, false, spt_1), 1, "add").await;
    mandates.set(MandateScript::Pay);
    let (_, refused) = call(&client(&harness, 1, false, spt_2), 2, "sub").await;
    assert!(refused.last().unwrap().to_string().contains("capacity"));
    assert_eq!((mandates.charged(), mandates.asked()), (0, 1));
}

/// Every write fails once, in every way, with and without the death of the process; the payment is taken once at most, and
/// buys one execution.
#[tokio::test(start_paused = true)]
async fn every_write_may_fail_and_the_payment_is_taken_once() {
    let flags = [false, true];
    let mut taken_in_first_life = 0;
    for (explicit, dies) in flags.into_iter().flat_map(|e| flags.map(|d| (e, d))) {
        for fault in [LedgerFault::Refuse, LedgerFault::WriteAndFail] {
            for nth in 1..8 {
                let case = (explicit, dies, fault, nth);
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
                let (_, first) = call(&client(&life, 1, explicit, spt_1), 1, "add").await;
                offers_nothing(&first);
                let delivered = first.last().is_some_and(|m| kind(m) == "result");
                tokio::time::sleep(Duration::from_secs(20)).await;
                let before = life.executions();
                taken_in_first_life += mandates.charged();
                let mut survivors = life.crash();
                survivors.ledger = Arc::clone(&inner);
                let life = after(&survivors, &mandates).await;
                tokio::time::sleep(Duration::from_secs(40)).await;
                let (_, last) = call(&client(&life, 1, explicit, spt_1), 2, "add").await;
                assert_eq!(kind(last.last().unwrap()), "result", "{case:?} {last:?}");
                assert_eq!(mandates.charged(), 1, "{case:?}");
                let executed = before + life.executions();
                assert!(
                    executed == 1 || (executed == 2 && (dies || delivered)),
                    "{case:?}: {executed}"
                );
                let entries = life.entries().await.unwrap();
                let open = |state: EntryState| !state.is_final();
                assert!(!entries.iter().any(|e| open(e.state)), "{case:?}");
            }
        }
    }
    assert!(taken_in_first_life >= 30, "{taken_in_first_life}");
}
