//! Every write of both lifecycles fails once, in every way, with and without the death of the process.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tollkeeper::RequestEventId;
use tollkeeper::ledger::{EntryState, Ledger, MemoryLedger};
use tollkeeper::testing::{FailingLedger, Harness, LedgerFault, RawClient, Survivors};

use super::PRICES;
use super::books::{self, kind};

/// No lifecycle here makes as many writes.
const WRITES: usize = 12;

#[derive(Debug, Clone, Copy)]
struct Case {
    explicit: bool,
    nth: usize,
    fault: LedgerFault,
    dies: bool,
}

fn cases() -> impl Iterator<Item = Case> {
    let flags = [false, true];
    flags.into_iter().flat_map(move |explicit| {
        flags.into_iter().flat_map(move |dies| {
            [LedgerFault::Refuse, LedgerFault::WriteAndFail]
                .into_iter()
                .flat_map(move |fault| {
                    (1..=WRITES).map(move |nth| Case {
                        explicit,
                        nth,
                        fault,
                        dies,
                    })
                })
        })
    })
}

fn client(harness: &Harness, case: Case) -> RawClient {
    let client = harness.client(1);
    if case.explicit {
        client.explicit()
    } else {
        client
    }
}

/// Pays what was asked for, if anything was: an invoice that never left cannot be paid.
async fn pay(harness: &Harness, messages: &[(Option<RequestEventId>, Value)]) {
    for reference in harness.rail.references() {
        if messages
            .iter()
            .any(|(_, m)| m.to_string().contains(&reference))
        {
            harness.rail.settle(&reference).await;
        }
    }
}

/// A call, its payment, and a later call of the same: the first life of the server. Returns how much was executed, and
/// how much of that was delivered.
async fn first_life(case: Case, inner: &Arc<dyn Ledger>) -> (Survivors, usize) {
    let failing = Arc::new(FailingLedger::new(Arc::clone(inner)));
    if case.dies {
        failing.crash_at(case.nth, case.fault);
    } else {
        failing.fail_at(case.nth, case.fault);
    }
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .ledger(Arc::clone(&failing) as _)
        .start()
        .await
        .unwrap();
    let client = client(&harness, case);
    client.call_tool(1, "add", json!({})).await.unwrap();
    let first = client.collect(Duration::from_secs(1)).await.unwrap();
    pay(&harness, &first).await;
    client.collect(Duration::from_secs(30)).await.unwrap();
    if case.explicit {
        client.call_tool(2, "add", json!({})).await.unwrap();
        client.collect(Duration::from_secs(30)).await.unwrap();
    }
    let executions = harness.executions();
    assert!(executions <= harness.rail.settled(), "{case:?}: unpaid");
    let mut left = harness.crash();
    left.ledger = Arc::clone(inner);
    (left, executions)
}

/// Invariants 1 and 2 across a failed write and a restart.
#[tokio::test(start_paused = true)]
async fn the_books_balance_after_any_failed_write_and_a_restart() {
    for case in cases() {
        let inner: Arc<dyn Ledger> = Arc::new(MemoryLedger::new());
        let (left, before) = first_life(case, &inner).await;
        let books_before = left
            .ledger
            .list(&tollkeeper::ledger::EntryFilter::new(
                vec![EntryState::Claimed],
                10,
            ))
            .await
            .unwrap()
            .len();

        let harness = Harness::builder(&PRICES)
            .unwrap()
            .after(&left)
            .unwrap()
            .start()
            .await
            .unwrap();
        let client = client(&harness, case);
        client.collect(Duration::from_secs(60)).await.unwrap();
        // Claimed and not delivered when it died: executed or not, that right may come back.
        let restored = before.min(books_before);
        let settled = harness.rail.settled();
        let used = |harness: &Harness| before - restored + harness.executions();
        assert_eq!(
            used(&harness) + books::authorizations(&harness).await,
            settled,
            "{case:?}: {:?}",
            harness.entries().await.unwrap()
        );

        // What is left serves a call, and after that there is nothing left.
        let live = books::authorizations(&harness).await;
        for id in 10..12 {
            client.call_tool(id, "add", json!({})).await.unwrap();
            client.collect(Duration::from_secs(10)).await.unwrap();
        }
        assert_eq!(
            used(&harness),
            settled,
            "{case:?}: {live} authorizations did not serve"
        );
        assert_eq!(books::authorizations(&harness).await, 0, "{case:?}");
    }
}

/// Without a restart, too: a failed write costs nobody what was paid, whether it was written or not.
#[tokio::test(start_paused = true)]
async fn one_failed_write_costs_nobody_a_paid_call() {
    for case in cases().filter(|case| !case.dies) {
        let inner: Arc<dyn Ledger> = Arc::new(MemoryLedger::new());
        let failing = Arc::new(FailingLedger::new(Arc::clone(&inner)));
        failing.fail_at(case.nth, case.fault);
        let harness = Harness::builder(&PRICES)
            .unwrap()
            .ledger(Arc::clone(&failing) as _)
            .start()
            .await
            .unwrap();
        let client = client(&harness, case);
        client.call_tool(1, "add", json!({})).await.unwrap();
        let first = client.collect(Duration::from_secs(1)).await.unwrap();
        assert!(!first.is_empty(), "{case:?}: the caller hangs");
        pay(&harness, &first).await;
        client.collect(Duration::from_secs(120)).await.unwrap();
        for id in 2..5 {
            if harness.executions() < harness.rail.settled() {
                client.call_tool(id, "add", json!({})).await.unwrap();
                let answers = client.collect(Duration::from_secs(30)).await.unwrap();
                assert!(!answers.is_empty(), "{case:?}: the caller hangs");
            }
        }
        assert_eq!(
            harness.executions(),
            harness.rail.settled(),
            "{case:?}: {:?}",
            harness.entries().await.unwrap()
        );
    }
}

/// A ledger that is gone for good lets nobody through, and says so.
#[tokio::test(start_paused = true)]
async fn without_a_ledger_nothing_priced_is_executed() {
    for fault in [LedgerFault::Refuse, LedgerFault::WriteAndFail] {
        for explicit in [false, true] {
            let failing = Arc::new(FailingLedger::new(Arc::new(MemoryLedger::new())));
            let harness = Harness::builder(&PRICES)
                .unwrap()
                .ledger(Arc::clone(&failing) as _)
                .start()
                .await
                .unwrap();
            failing.set(fault);
            let mut client = harness.client(1);
            if explicit {
                client = client.explicit();
            }
            client.call_tool(1, "add", json!({})).await.unwrap();
            let answers = books::now(&client).await;
            assert_eq!(
                kind(&answers.last().unwrap().clone()),
                "-32000",
                "{fault:?}: {answers:?}"
            );
            assert!(
                answers.iter().all(|m| !m.to_string().contains("scripted:")),
                "{answers:?}"
            );
            assert_eq!(harness.executions(), 0);
        }
    }
}

/// A delivery that could not be written down is written down later: its payment buys nothing more, after a restart either.
#[tokio::test(start_paused = true)]
async fn a_delivery_that_could_not_be_written_down_is_written_down_when_it_can_be() {
    let inner: Arc<dyn Ledger> = Arc::new(MemoryLedger::new());
    let failing = Arc::new(FailingLedger::new(Arc::clone(&inner)));
    let broken = Arc::clone(&failing);
    let harness = Harness::builder(&PRICES)
        .unwrap()
        .ledger(Arc::clone(&failing) as _)
        .handler(move |_| {
            broken.set(LedgerFault::Refuse);
            async { tollkeeper::testing::Answer::Echo }
        })
        .start()
        .await
        .unwrap();
    harness.rail.settle_at_once();
    let client = harness.client(1);
    client.call_tool(1, "add", json!({})).await.unwrap();
    let answers = books::now(&client).await;
    assert_eq!(kind(answers.last().unwrap()), "result", "it was paid for");
    assert_eq!(
        harness.entries().await.unwrap()[0].state,
        EntryState::Claimed
    );
    failing.set(LedgerFault::None);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(
        harness.entries().await.unwrap()[0].state,
        EntryState::Delivered
    );
    books::balance(&harness).await;
}

/// When the money comes too late for its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    /// The process lives, and has ended the offer before.
    AfterItsEnd,
    /// The process was down when the offer ended, and the money is there when the next one starts.
    WhileDown,
    /// As before, and the money comes after the start.
    AfterTheStart,
}

/// Expiry, a settlement that comes too late, and the step from "paid for a request" to "paid for whoever asks next": a process
/// that dies at any of these writes costs nobody the money, and gives nobody two executions.
#[tokio::test(start_paused = true)]
async fn late_money_survives_a_death_at_any_write() {
    let stories = [Late::AfterItsEnd, Late::WhileDown, Late::AfterTheStart];
    let faults = [LedgerFault::Refuse, LedgerFault::WriteAndFail];
    for (story, fault) in stories.into_iter().flat_map(|s| faults.map(|f| (s, f))) {
        for explicit in [false, true] {
            for nth in 1..=6 {
                let case = Case {
                    explicit,
                    nth,
                    fault,
                    dies: true,
                };
                late_money(story, case).await;
            }
        }
    }
}

async fn late_money(story: Late, case: Case) {
    let inner: Arc<dyn Ledger> = Arc::new(MemoryLedger::new());
    let first = Harness::builder(&PRICES)
        .unwrap()
        .ledger(Arc::clone(&inner));
    let first = first.start().await.unwrap();
    client(&first, case)
        .call_tool(1, "add", json!({}))
        .await
        .unwrap();
    first.rail.wait_for_minted(1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut left = first.crash();
    left.ledger = Arc::clone(&inner);

    // The life that dies: from here on, every write is counted.
    let failing = Arc::new(FailingLedger::new(Arc::clone(&inner)));
    failing.crash_at(case.nth, case.fault);
    let reference = left.rail.references()[0].clone();
    let pay = || async { left.rail.settle(&reference).await };
    if story != Late::AfterItsEnd {
        left.clock.jump(Duration::from_secs(700));
    }
    if story == Late::WhileDown {
        pay().await;
    }
    let builder = Harness::builder(&PRICES).unwrap().after(&left).unwrap();
    // It may die while it starts.
    if let Ok(second) = builder.ledger(Arc::clone(&failing) as _).start().await {
        tokio::time::sleep(Duration::from_secs(700)).await;
        if story != Late::WhileDown {
            pay().await;
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(
            second.executions(),
            0,
            "{story:?} {case:?}: nobody waits for it"
        );
        let _ = second.crash();
    } else if story != Late::WhileDown {
        pay().await;
    }

    let third = Harness::builder(&PRICES).unwrap().after(&left).unwrap();
    let third = third.start().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let entries = third.entries().await.unwrap();
    assert_eq!(
        books::authorizations(&third).await,
        1,
        "{story:?} {case:?}: {entries:?}"
    );
    let client = client(&third, case);
    client.call_tool(2, "add", json!({})).await.unwrap();
    let answers = client.collect(Duration::from_secs(10)).await.unwrap();
    assert_eq!(
        kind(&answers.last().unwrap().1),
        "result",
        "{story:?} {case:?}"
    );
    assert_eq!(
        (third.executions(), third.rail.minted()),
        (1, 1),
        "{story:?} {case:?}"
    );
    assert_eq!(books::authorizations(&third).await, 0, "{story:?} {case:?}");
}
