//! Money that was paid ahead: it pays for calls, each once, and none of it is ever lost or spent twice.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tollkeeper::ledger::{
    Accounts as _, BALANCE, Credit, Drawn, EntryState, Ledger, MemoryLedger, MovementKind,
    NewEntry, SqliteLedger,
};
use tollkeeper::payment::{
    Clock as _, Entitled, Entitlement, EntitlementClaim, InvocationIdentity, OnFailure, Refusal,
    Unit,
};
use tollkeeper::testing::{Answer, FailingLedger, Harness, HarnessBuilder, LedgerFault, RawClient};
use tollkeeper::{Amount, ClientPubkey, PaymentInteraction, PricedCapability, RequestEventId};

use super::PRICES;
use super::books::{self, kinds};

fn sats(n: u64) -> Amount {
    Amount::new(n, Unit::SATS).unwrap()
}

fn builder() -> HarnessBuilder {
    Harness::builder(&PRICES)
        .unwrap()
        .payments(|payments| payments.balances(true))
}

async fn has(harness: &Harness, who: u8, amount: u64) {
    let credit = Credit {
        client: ClientPubkey::from_bytes([who; 32]),
        amount: sats(amount),
        kind: MovementKind::TopUp,
        key: format!("top_up:{who}:{amount}"),
        at: harness.clock.now(),
    };
    harness.ledger.credit(credit).await.unwrap();
}

async fn left(ledger: &dyn Ledger, who: u8) -> u64 {
    let client = ClientPubkey::from_bytes([who; 32]);
    let account = ledger.account(&client, &Unit::SATS).await.unwrap();
    account.map_or(0, |account| account.amount.value())
}

async fn answers(client: &RawClient) -> Vec<Value> {
    books::now(client).await
}

#[tokio::test(start_paused = true)]
async fn a_call_is_paid_from_the_account_and_the_client_is_told_what_is_left() {
    let harness = builder().start().await.unwrap();
    has(&harness, 1, 20).await;
    let mut client = harness.client(1);
    for explicit in [false, true] {
        client.introduction.interaction = explicit.then_some(PaymentInteraction::ExplicitGating);
        let call = json!({"explicit": explicit});
        let sent = client.call_tool(1, "add", call).await.unwrap();
        let said = answers(&client).await;
        assert_eq!(kinds(&said), ["payment_accepted", "result"]);
        let left = if explicit { 6 } else { 13 };
        assert_eq!(
            said[0]["params"],
            json!({"amount": 7, "pmi": "balance",
                "_meta": {"tollkeeper/balance": {"amount": left, "unit": "sats"}}})
        );
        // The same event again gets the same answer again, and costs nothing.
        client.send_again(&sent).await.unwrap();
        assert_eq!(kinds(&answers(&client).await), ["result"]);
    }
    // Not enough is left: the rail is asked, for all of it.
    client.call_tool(9, "add", json!({"n": 9})).await.unwrap();
    assert_eq!(kinds(&answers(&client).await), ["-32042"]);
    assert_eq!(
        (left(&*harness.ledger, 1).await, harness.rail.minted()),
        (6, 1)
    );
    let states: Vec<EntryState> = harness
        .entries()
        .await
        .unwrap()
        .iter()
        .map(|e| e.state)
        .collect();
    assert_eq!(
        states,
        [
            EntryState::Delivered,
            EntryState::Delivered,
            EntryState::Issued
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_as_good_as_money_is_not_bought_with_it_and_others_do_not_share() {
    let top_up: PricedCapability = "tool:top_up=7 sat".parse().unwrap();
    let harness = builder()
        .payments(|payments| payments.price(top_up.never_waived()))
        .start()
        .await
        .unwrap();
    has(&harness, 1, 100).await;
    for (who, tool) in [(1, "top_up"), (2, "add")] {
        let client = harness.client(who);
        client.call_tool(1, tool, json!({})).await.unwrap();
        assert_eq!(
            kinds(&answers(&client).await),
            ["payment_required"],
            "{tool}"
        );
    }
    assert_eq!(left(&*harness.ledger, 1).await, 100);
}

#[tokio::test(start_paused = true)]
async fn a_lost_handler_gives_the_call_back_or_the_money_as_the_price_list_says() {
    let credited: PricedCapability = {
        let mut priced: PricedCapability = "tool:credited=7 sat".parse().unwrap();
        priced.on_failure = OnFailure::Credit;
        priced
    };
    let harness = builder()
        .payments(|payments| payments.price(credited))
        .handler(|_| async { Answer::Lost })
        .start()
        .await
        .unwrap();
    has(&harness, 1, 7).await;
    let client = harness.client(1);
    client.call_tool(1, "credited", json!({})).await.unwrap();
    assert_eq!(
        kinds(&answers(&client).await),
        ["payment_accepted", "-32000"]
    );
    assert_eq!(left(&*harness.ledger, 1).await, 7, "the money is back");
    assert_eq!(
        books::authorizations(&harness).await,
        0,
        "and not the call, too"
    );
    client.call_tool(2, "add", json!({})).await.unwrap();
    assert_eq!(
        kinds(&answers(&client).await),
        ["payment_accepted", "-32000"]
    );
    assert_eq!(left(&*harness.ledger, 1).await, 0);
    assert_eq!(books::authorizations(&harness).await, 1, "the call is back");
    // What came by another rail is credited, too.
    let other = harness.client(2);
    other.call_tool(1, "credited", json!({})).await.unwrap();
    books::settle(&harness, 0).await;
    answers(&other).await;
    assert_eq!(left(&*harness.ledger, 2).await, 7);
}

#[tokio::test(start_paused = true)]
async fn what_lapses_lapses_and_what_does_not_fit_together_is_refused() {
    let harness = builder()
        .payments(|payments| {
            payments.settings(|s| s.balances_lapse_after = Some(Duration::from_secs(86_400)))
        })
        .start()
        .await
        .unwrap();
    has(&harness, 1, 20).await;
    harness.clock.jump(Duration::from_secs(86_401));
    tokio::time::sleep(Duration::from_secs(601)).await;
    assert_eq!(left(&*harness.ledger, 1).await, 0);
    let mut credited: PricedCapability = "tool:credited=7 sat".parse().unwrap();
    credited.on_failure = OnFailure::Credit;
    let without = Harness::builder(&PRICES)
        .unwrap()
        .payments(|payments| payments.price(credited))
        .start()
        .await;
    assert!(without.unwrap_err().to_string().contains("tool:credited"));
}

/// Calls side by side, over two instances on one file: never overdrawn, and each payment is one execution.
#[tokio::test(flavor = "multi_thread")]
async fn calls_over_two_instances_never_overdraw() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("books.db");
    let mut harnesses = Vec::new();
    for _ in 0..2 {
        let ledger = Arc::new(SqliteLedger::open(&file).unwrap());
        let limits = tollkeeper::ledger::OpenLimits::new(20_000, 20_000);
        let builder = builder()
            .payments(|p| p.limits(limits).settings(|s| s.offers_per_minute = 100_000))
            .ledger(ledger);
        harnesses.push(builder.start().await.unwrap());
    }
    has(&harnesses[0], 1, 7 * 300 + 3).await;
    let mut asking = Vec::new();
    for (n, harness) in harnesses.iter().enumerate() {
        let client = harness.client(1);
        asking.push(async move {
            let (mut paid, mut answered) = (0, 0);
            for round in 0..2 {
                for m in 0..250 {
                    let id = n as i64 * 10_000 + round * 250 + m;
                    client.call_tool(id, "add", json!({"n": id})).await.unwrap();
                }
                while answered < (round + 1) * 250 {
                    let (_, said) = client.next_json().await.unwrap();
                    answered += i64::from(books::kind(&said) != "payment_accepted");
                    paid += usize::from(books::kind(&said) == "result");
                }
            }
            paid
        });
    }
    let paid: usize = futures_util::future::join_all(asking).await.iter().sum();
    assert_eq!(paid, 300);
    assert_eq!(left(&*harnesses[0].ledger, 1).await, 3);
    let executions: usize = harnesses.iter().map(Harness::executions).sum();
    assert_eq!(executions, 300);
}

/// The process dies at each write in turn, before it and after it: what is left, what is owed and what was executed add up.
#[tokio::test(start_paused = true)]
async fn wherever_the_process_dies_the_account_adds_up() {
    for nth in 1..=4 {
        for fault in [LedgerFault::Refuse, LedgerFault::WriteAndFail] {
            let inner = Arc::new(MemoryLedger::new());
            let dying = Arc::new(FailingLedger::new(Arc::clone(&inner) as _));
            let before = builder()
                .ledger(Arc::clone(&dying) as _)
                .start()
                .await
                .unwrap();
            has(&before, 1, 14).await;
            dying.crash_at(dying.writes() + nth, fault);
            let client = before.client(1);
            client.call_tool(1, "add", json!({"a": 1})).await.unwrap();
            answers(&client).await;
            let executed = before.executions();
            let mut survivors = before.crash();
            survivors.ledger = inner.clone();
            let after = builder().after(&survivors).unwrap().start().await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let entries = after.entries().await.unwrap();
            let delivered = entries
                .iter()
                .filter(|e| e.state == EntryState::Delivered)
                .count();
            let authorized = books::authorizations(&after).await;
            let spent = (14 - left(&*inner, 1).await) / 7;
            assert_eq!(
                spent as usize,
                delivered + authorized,
                "{nth} {fault:?}: {entries:?}"
            );
            assert!(
                executed <= spent as usize,
                "{nth} {fault:?}: nobody passes unpaid"
            );
            // Whoever paid and got nothing asks again, and is not asked to pay again.
            let client = after.client(1);
            client.call_tool(2, "add", json!({"a": 1})).await.unwrap();
            assert!(kinds(&answers(&client).await).contains(&"result".to_owned()));
            let used = if delivered == 1 { 2 } else { 1 };
            assert_eq!(left(&*inner, 1).await, 14 - 7 * used, "{nth} {fault:?}");
        }
    }
}

/// Ten thousand draws side by side on two handles of one file.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_draws_side_by_side_never_overdraw() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("books.db");
    let ledgers = [0, 1].map(|_| Arc::new(SqliteLedger::open(&file).unwrap()));
    let at = tollkeeper::payment::SystemClock.now();
    let client = ClientPubkey::from_bytes([1; 32]);
    let credit = Credit {
        client,
        amount: sats(7 * 4_000 + 3),
        kind: MovementKind::TopUp,
        key: "top_up:1".to_owned(),
        at,
    };
    ledgers[0].credit(credit).await.unwrap();
    let drawing: Vec<_> = (0..10_000u32)
        .map(|n| {
            let mut name = [0; 32];
            name[..4].copy_from_slice(&n.to_be_bytes());
            let ledger = Arc::clone(&ledgers[n as usize % 2]);
            let new = NewEntry {
                id: RequestEventId::from_bytes(name),
                client,
                identity: InvocationIdentity::from_bytes(name),
                capability: "tool:add".to_owned(),
                interaction: PaymentInteraction::Transparent,
                pmi: BALANCE.parse().unwrap(),
                amount: sats(7),
                description: String::new(),
                meta: None,
                request: None,
                route: String::new(),
                deadline: at,
                quoted_at: at,
            };
            tokio::spawn(async move { ledger.draw(new, at).await.unwrap() })
        })
        .collect();
    let mut paid = 0;
    for drawn in drawing {
        paid += usize::from(matches!(drawn.await.unwrap(), Drawn::Paid { .. }));
    }
    assert_eq!((paid, left(&*ledgers[1], 1).await), (4_000, 3));
}

/// A call that its client takes back after the account has paid it goes on: it is paid once, and its answer is kept.
#[tokio::test(start_paused = true)]
async fn a_call_cancelled_after_it_was_drawn_is_paid_once_and_its_answer_is_kept() {
    let harness = builder()
        .handler(|_| async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Answer::Result(json!({"late": true}))
        })
        .start()
        .await
        .unwrap();
    has(&harness, 1, 20).await;
    let client = harness.client(1);
    let sent = client.call_tool(1, "add", json!({})).await.unwrap();
    assert_eq!(kinds(&answers(&client).await), ["payment_accepted"]);
    client.cancel(1).await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    answers(&client).await;
    client.send_again(&sent).await.unwrap();
    assert_eq!(kinds(&answers(&client).await), ["result"]);
    assert_eq!(
        (left(&*harness.ledger, 1).await, harness.executions()),
        (13, 1)
    );
    // Taken back before it was let in: nothing is drawn, nothing runs.
    let request = tollkeeper::wire::Request::new(
        2,
        "tools/call",
        &json!({"name": "add", "arguments": {"n": 2}}),
    );
    let call = client.prepare(request.unwrap().into()).await.unwrap();
    client.send_again(&call).await.unwrap();
    client.cancel(2).await.unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    let spent = 13 - left(&*harness.ledger, 1).await;
    let ran = harness.executions() - 1;
    assert_eq!(spent, 7 * ran as u64, "paid if it ran, and only then");
}

/// Who shows something that does not count and has an account is told why the account pays.
#[tokio::test(start_paused = true)]
async fn why_a_licence_did_not_count_is_told_when_the_account_pays() {
    #[derive(Debug)]
    struct Says;
    #[async_trait::async_trait]
    impl tollkeeper::payment::Entitlement for Says {
        fn name(&self) -> &str {
            "licence"
        }
        async fn examine(
            &self,
            _: &tollkeeper::payment::EntitlementClaim,
        ) -> tollkeeper::payment::Entitled {
            tollkeeper::payment::Entitled::NotCovered(Some(json!({"error": "revoked"})))
        }
    }
    let harness = builder()
        .payments(|payments| payments.entitlement(Says))
        .start()
        .await
        .unwrap();
    has(&harness, 1, 7).await;
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    let said = answers(&client).await;
    let meta = &said[0]["params"]["_meta"];
    assert_eq!(
        meta["tollkeeper/entitlements"]["licence"]["error"],
        "revoked"
    );
    assert_eq!(meta["tollkeeper/balance"]["amount"], 0);
}

/// Each list says what its reader has, and nothing of what others have.
#[tokio::test(start_paused = true)]
async fn lists_tell_what_is_left_to_whom_it_belongs() {
    let harness = builder()
        .handler(|_| async { Answer::Result(json!({"tools": [], "_meta": {"own": 1}})) })
        .start()
        .await
        .unwrap();
    has(&harness, 1, 20).await;
    for (who, left) in [
        (1, json!([{"amount": 20, "unit": "sats"}])),
        (2, Value::Null),
    ] {
        let client = harness.client(who);
        let list = tollkeeper::wire::Request::new(1, "tools/list", &json!({})).unwrap();
        client.send(list.into()).await.unwrap();
        let said = answers(&client).await;
        let meta = &said[0]["result"]["_meta"];
        assert_eq!(meta["tollkeeper/balances"], left, "{said:?}");
        assert_eq!(meta["own"], 1);
    }
}

/// A draw that was made although the ledger said no: the call is executed, and nothing is drawn a second time.
#[tokio::test(start_paused = true)]
async fn a_draw_that_was_written_although_the_ledger_said_no_is_a_draw() {
    let mut served_all_the_same = 0;
    for nth in 1..=4 {
        for fault in [LedgerFault::Refuse, LedgerFault::WriteAndFail] {
            let ledger = Arc::new(FailingLedger::new(Arc::new(MemoryLedger::new())));
            let harness = builder()
                .ledger(Arc::clone(&ledger) as _)
                .start()
                .await
                .unwrap();
            has(&harness, 1, 20).await;
            let client = harness.client(1);
            ledger.fail_at(ledger.writes() + nth, fault);
            client.call_tool(1, "add", json!({})).await.unwrap();
            let said = kinds(&answers(&client).await);
            let served = usize::from(said.contains(&"result".to_owned()));
            let drawn = (20 - left(&*harness.ledger, 1).await) / 7;
            assert_eq!(harness.executions(), served, "{nth} {fault:?} {said:?}");
            assert_eq!(drawn as usize, served, "{nth} {fault:?} {said:?}");
            served_all_the_same += served;
        }
    }
    // Only a draw that was not written is none.
    assert_eq!(served_all_the_same, 7);
}

/// Whoever sends an old event of somebody again does not spend what is on his account.
#[tokio::test(start_paused = true)]
async fn a_refused_request_that_is_sent_again_draws_nothing() {
    let harness = builder()
        .payments(|p| p.entitlement(OnceRefused::default()))
        .start()
        .await
        .unwrap();
    has(&harness, 1, 20).await;
    let client = harness.client(1);
    let sent = client.call_tool(1, "add", json!({})).await.unwrap();
    assert_eq!(kinds(&answers(&client).await), ["-32000"]);
    // Within the seconds in which a client may send the same event once more.
    client.send_again(&sent).await.unwrap();
    answers(&client).await;
    assert_eq!(
        (left(&*harness.ledger, 1).await, harness.executions()),
        (20, 0)
    );
    client.call_tool(2, "add", json!({})).await.unwrap();
    assert!(kinds(&answers(&client).await).contains(&"result".to_owned()));
    assert_eq!(left(&*harness.ledger, 1).await, 13);
}

/// Refuses the first call that it sees.
#[derive(Debug, Default)]
struct OnceRefused(std::sync::atomic::AtomicBool);

#[async_trait::async_trait]
impl Entitlement for OnceRefused {
    fn name(&self) -> &str {
        "pace"
    }

    async fn examine(&self, _: &EntitlementClaim) -> Entitled {
        if self.0.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return Entitled::NotCovered(None);
        }
        Entitled::Refused(Refusal::new(-32000, "too fast"))
    }
}

/// What is kept for its buyer is not sold to a connection, nor is money put onto an account that nobody can name again.
#[tokio::test(start_paused = true)]
async fn nothing_is_kept_for_clients_that_nobody_vouches_for() {
    let top_up: PricedCapability = "tool:top_up=7 sat".parse().unwrap();
    let mut credited: PricedCapability = "tool:credited=7 sat".parse().unwrap();
    credited.on_failure = OnFailure::Credit;
    let harness = builder()
        .payments(|p| p.price(top_up.never_waived()).price(credited))
        .handler(|_| async { Answer::Lost })
        .start()
        .await
        .unwrap();
    let client = harness.client_as(1, |origin| {
        origin.answers_only = true;
        origin.bearer = true;
    });
    client.call_tool(1, "top_up", json!({})).await.unwrap();
    assert_eq!(kinds(&answers(&client).await), ["-32602"]);
    assert_eq!(harness.rail.minted(), 0);
    client.call_tool(2, "credited", json!({})).await.unwrap();
    assert_eq!(kinds(&answers(&client).await), ["-32042"]);
    books::settle(&harness, 0).await;
    client.call_tool(3, "credited", json!({})).await.unwrap();
    assert!(kinds(&answers(&client).await).contains(&"-32000".to_owned()));
    assert_eq!(left(&*harness.ledger, 1).await, 0);
    assert_eq!(books::authorizations(&harness).await, 1, "the call is back");
}

/// Who may not buy may not pay ahead either.
#[tokio::test(start_paused = true)]
async fn a_denied_client_buys_nothing_that_only_money_buys() {
    let top_up: PricedCapability = "tool:top_up=7 sat".parse().unwrap();
    let harness = builder()
        .payments(|p| {
            p.price(top_up.never_waived())
                .entitlement(OnceRefused::default())
        })
        .start()
        .await
        .unwrap();
    let client = harness.client(1);
    client.call_tool(1, "top_up", json!({})).await.unwrap();
    assert_eq!(kinds(&answers(&client).await), ["-32000"]);
    assert_eq!(harness.rail.minted(), 0);
    client.call_tool(2, "top_up", json!({})).await.unwrap();
    assert_eq!(kinds(&answers(&client).await), ["payment_required"]);
}
