//! A database that goes away, and comes back, at any time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tollkeeper::ledger::{EntryFilter, EntryState, Ledger};
use tollkeeper::payment::PaymentInteraction;

use super::postgres::End;
use super::{AT, LIMITS, Postgres, event, issue, new, open, settle};

/// What was acknowledged is there after a crash of the database, and what was told to have failed is not there twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_crash_of_the_database() {
    let Some(mut server) = Postgres::start() else {
        return;
    };
    let ledger = open(&server.database()).await;
    let writing = (0..8u32).map(|worker| {
        let ledger = Arc::clone(&ledger);
        tokio::spawn(async move {
            let (mut kept, mut n) = (Vec::new(), 0);
            while n < 400 {
                let id = worker * 1_000 + n;
                n += 1;
                if ledger
                    .open(new(id, PaymentInteraction::Transparent), LIMITS)
                    .await
                    .is_err()
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                let moves = vec![issue(id), settle(id)];
                let settled = ledger.apply(&event(id), moves, AT).await.is_ok();
                kept.push((id, settled));
            }
            kept
        })
    });
    let writing: Vec<_> = writing.collect();
    for end in [End::Immediate, End::Fast, End::Immediate] {
        tokio::time::sleep(Duration::from_millis(400)).await;
        tokio::task::block_in_place(|| {
            server.stop(end);
            server.start_again();
        });
    }
    let acknowledged: Vec<(u32, bool)> = join_all(writing)
        .await
        .into_iter()
        .flat_map(Result::unwrap)
        .collect();
    assert!(
        acknowledged.len() > 100,
        "only {} writes were made",
        acknowledged.len()
    );
    let entries = ledger
        .list(&EntryFilter::new(vec![], 100_000))
        .await
        .unwrap();
    for (id, settled) in acknowledged {
        let entry = entries.iter().find(|entry| entry.id == event(id));
        let entry = entry.unwrap_or_else(|| panic!("{id} was acknowledged and is not there"));
        assert!(
            !settled || entry.state == EntryState::Settled,
            "{id} is {}",
            entry.state
        );
        // Told to have failed, or made, once.
        assert!(entry.history.len() <= 3, "{:?}", entry.history);
    }
}

/// A session that is ended in the middle of a commit: the answer is asked for, not guessed.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_asked_about() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.database();
    let name = url.rsplit('/').next().unwrap().to_owned();
    let ledger = open(&url).await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    // Ends every session of the ledger again and again, wherever it is.
    let ending = {
        let stop = Arc::clone(&stop);
        tokio::task::spawn_blocking(move || {
            let mut ended = 0;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                let sql = format!(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND pid <> pg_backend_pid()"
                );
                ended += server.query("postgres", &sql).len();
                std::thread::sleep(Duration::from_millis(15));
            }
            (ended, server)
        })
    };
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    for n in 0..300u32 {
        match ledger
            .open(new(n, PaymentInteraction::Transparent), LIMITS)
            .await
        {
            Ok(tollkeeper::ledger::Opened::New(_)) => acknowledged.push(n),
            // Made, but told to have failed: that must not be.
            Ok(other) => panic!("{n}: {other:?}"),
            Err(_) => refused += 1,
        }
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let (ended, _server) = ending.await.unwrap();
    assert!(ended > 10, "only {ended} sessions were ended");
    let entries = ledger.list(&EntryFilter::new(vec![], 1_000)).await.unwrap();
    assert_eq!(entries.len(), acknowledged.len(), "{refused} were refused");
    assert_eq!(entries.len() + refused, 300);
}

/// Without a database nothing hangs for ever, and everything goes on when it is back.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_calls_fail_soon_and_go_on_when_it_is_back() {
    let Some(mut server) = Postgres::start() else {
        return;
    };
    let ledger = open(&server.database()).await;
    tokio::task::block_in_place(|| server.stop(End::Fast));
    let asking = tokio::time::timeout(Duration::from_secs(20), async {
        let opened = ledger
            .open(new(1, PaymentInteraction::Transparent), LIMITS)
            .await;
        (opened, ledger.get(&event(1)).await)
    });
    let (opened, read) = asking.await.expect("an answer");
    assert!(
        opened
            .unwrap_err()
            .to_string()
            .contains("cannot be reached")
    );
    read.unwrap_err();
    tokio::task::block_in_place(|| server.start_again());
    ledger
        .open(new(1, PaymentInteraction::Transparent), LIMITS)
        .await
        .unwrap();
    assert!(
        !ledger.instances().unwrap().is_lost(),
        "nobody was there to take over"
    );
}
