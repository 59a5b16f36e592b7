//! Whatever happens in whatever order, from however many processes and through crashes: never more than the limits say, and
//! never twice for one thing.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::Config;
use tollkeeper::client::Policy;
use tollkeeper::client::ledger::{
    AnswerState, Attempt, AttemptFilter, AttemptId, AttemptState, BuyerLedger, Heard,
    MemoryBuyerLedger, NewAttempt, Settled, SqliteBuyerLedger,
};
use tollkeeper::client::policy::{Case, Facts};
use tollkeeper::payment::{
    Clock, InvocationIdentity, PayReq, PaymentRequest, RequestEventId, ServerPubkey, SystemClock,
};

use super::stage::sats;

const TOTAL: u64 = 100;
const OF_SERVER: u64 = 60;

#[derive(Debug, Clone)]
enum Step {
    /// A process wants to pay for a call.
    Pay {
        process: usize,
        server: u8,
        call: u8,
        payment: u8,
        amount: u64,
    },
    /// The wallet says something about one of the open payments, or nothing.
    Settle { which: usize, state: AttemptState },
    /// The call ends.
    Answer { which: usize, answer: AnswerState },
    /// A process dies, and another takes its place.
    Die { process: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let state = prop_oneof![
        Just(AttemptState::Paid),
        Just(AttemptState::Refused),
        Just(AttemptState::Unknown)
    ];
    let answer = prop_oneof![
        Just(AnswerState::Result),
        Just(AnswerState::Error),
        Just(AnswerState::Missing)
    ];
    prop_oneof![
        5 => (0..3usize, 0..2u8, 0..4u8, 0..6u8, 1..40u64).prop_map(
            |(process, server, call, payment, amount)| Step::Pay { process, server, call, payment, amount }
        ),
        3 => (any::<usize>(), state).prop_map(|(which, state)| Step::Settle { which, state }),
        2 => (any::<usize>(), answer).prop_map(|(which, answer)| Step::Answer { which, answer }),
        1 => (0..3usize).prop_map(|process| Step::Die { process }),
    ]
}

/// What really happened, as the wallet saw it.
#[derive(Debug, Default)]
struct Truth {
    attempts: Vec<(AttemptId, u8, u8, u64)>,
    refused: Vec<AttemptId>,
    paid: Vec<AttemptId>,
    answered: Vec<AttemptId>,
}

fn policy() -> Policy {
    let mut policy = Policy::default();
    policy.limits.total = Some(sats(TOTAL));
    policy.each_server.total = Some(sats(OF_SERVER));
    policy.breaker = 0;
    policy
}

fn attempt(n: usize, server: u8, call: u8, payment: u8, amount: u64) -> NewAttempt {
    let id = format!("{payment}");
    let request = PaymentRequest::new(
        "scripted".parse().unwrap(),
        sats(amount),
        PayReq::new("x"),
        id,
    );
    let mut event = [0; 32];
    event[..8].copy_from_slice(&(n as u64).to_be_bytes());
    NewAttempt::new(
        RequestEventId::from_bytes(event),
        ServerPubkey::from_bytes([server; 32]),
        InvocationIdentity::from_bytes([call; 32]),
        "tool:add",
        request,
        SystemClock.now(),
    )
}

async fn play(
    steps: Vec<Step>,
    mut processes: Vec<Arc<dyn BuyerLedger>>,
    restart: impl Fn() -> Option<Arc<dyn BuyerLedger>>,
) {
    let mut truth = Truth::default();
    for (n, step) in steps.into_iter().enumerate() {
        match step {
            Step::Pay {
                process,
                server,
                call,
                payment,
                amount,
            } => {
                let new = attempt(n, server, call, payment, amount);
                let facts = Facts::new(new.server, "tool:add", new.call, sats(amount), new.at);
                let case = Case::new(Arc::new(policy()), facts);
                if let Ok(id) = processes[process].reserve(new, case).await.unwrap() {
                    truth.attempts.push((id, server, payment, amount));
                }
            }
            Step::Settle { which, state } if !truth.attempts.is_empty() => {
                let (id, ..) = truth.attempts[which % truth.attempts.len()];
                if state == AttemptState::Refused && truth.paid.contains(&id) {
                    continue;
                }
                // A wallet that said that it never will does not, for the sake of this test.
                if truth.refused.contains(&id) {
                    continue;
                }
                let end = Settled::new(state, "tested");
                processes[which % processes.len()]
                    .settle(id, end, SystemClock.now())
                    .await
                    .unwrap();
                match state {
                    AttemptState::Refused => truth.refused.push(id),
                    AttemptState::Paid => truth.paid.push(id),
                    _ => {}
                }
            }
            Step::Answer { which, answer } if !truth.attempts.is_empty() => {
                let (id, ..) = truth.attempts[which % truth.attempts.len()];
                // A call ends once; only that it timed out may be followed by an answer.
                if truth.answered.contains(&id) {
                    continue;
                }
                if !answer.is_open() {
                    truth.answered.push(id);
                }
                processes[which % processes.len()]
                    .note(id, Heard::Ended(answer, None))
                    .await
                    .unwrap();
            }
            Step::Die { process } => {
                if let Some(fresh) = restart() {
                    processes[process] = fresh;
                }
            }
            Step::Settle { .. } | Step::Answer { .. } => {}
        }
        check(&truth, &*processes[0]).await;
    }
}

/// Everything that was not refused counts: it may have been paid.
async fn check(truth: &Truth, ledger: &dyn BuyerLedger) {
    let live: Vec<_> = truth
        .attempts
        .iter()
        .filter(|(id, ..)| !truth.refused.contains(id))
        .collect();
    let total: u64 = live.iter().map(|(.., amount)| amount).sum();
    assert!(total <= TOTAL, "{total} of {TOTAL}");
    for server in 0..2 {
        let at_server: u64 = live
            .iter()
            .filter(|(_, of, ..)| *of == server)
            .map(|(.., amount)| amount)
            .sum();
        assert!(at_server <= OF_SERVER, "{at_server} of {OF_SERVER}");
    }
    let mut payments: HashMap<u8, usize> = HashMap::new();
    for (_, _, payment, _) in &live {
        *payments.entry(*payment).or_default() += 1;
    }
    assert!(
        payments.values().all(|count| *count == 1),
        "one payment request twice: {live:?}"
    );
    let books = ledger.list(&AttemptFilter::default()).await.unwrap();
    // One call: at most one payment that has brought nothing yet, or may still turn out to have brought an error only.
    let mut open: HashMap<_, usize> = HashMap::new();
    let blocks = |attempt: &&Attempt| match attempt.state {
        AttemptState::Refused => false,
        AttemptState::Paid => attempt.answer.is_open(),
        AttemptState::Reserved | AttemptState::Unknown => attempt.answer != AnswerState::Result,
    };
    for attempt in books.iter().filter(blocks) {
        *open
            .entry((attempt.new.server, attempt.new.identity))
            .or_default() += 1;
    }
    assert!(open.values().all(|count| *count == 1), "{books:?}");
    for id in &truth.paid {
        let attempt = books.iter().find(|attempt| attempt.id == *id).unwrap();
        assert_eq!(attempt.state, AttemptState::Paid);
    }
}

proptest! {
    #![proptest_config(Config { cases: 200, failure_persistence: None, ..Config::default() })]

    #[test]
    fn in_memory(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ledger: Arc<dyn BuyerLedger> = Arc::new(MemoryBuyerLedger::new());
        runtime.block_on(play(steps, vec![ledger; 3], || None));
    }
}

proptest! {
    #![proptest_config(Config { cases: 8, failure_persistence: None, ..Config::default() })]

    #[test]
    fn on_disk_by_processes_that_die(steps in prop::collection::vec(step(), 1..50)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("buyer.db");
        let open = || Arc::new(SqliteBuyerLedger::new(&path).unwrap()) as Arc<dyn BuyerLedger>;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(play(steps, vec![open(), open(), open()], || Some(open())));
    }
}
