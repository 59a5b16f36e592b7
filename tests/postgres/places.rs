//! Instances: who takes what, who takes over, and who is kept out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tollkeeper::ledger::{EntryState, Ledger, PostgresLedger, Taken, Transition};

use super::{AT, Postgres, event, open, paid};

/// Has an instance look silent for longer than anybody waits, to the others and not to itself: its heart beats, and no time is
/// written down for it.
pub(crate) fn silence(server: &Postgres, url: &str, instance: i64) {
    let name = url.rsplit('/').next().unwrap();
    server.execute(
        name,
        &format!(
            "UPDATE heartbeat SET beat_at = beat_at - interval '1 hour' WHERE instance = {instance};
             CREATE FUNCTION no_time() RETURNS trigger LANGUAGE plpgsql
                 AS $$ BEGIN NEW.beat_at := OLD.beat_at; RETURN NEW; END $$;
             CREATE TRIGGER silence BEFORE UPDATE ON heartbeat FOR EACH ROW
                 WHEN (OLD.instance = {instance}) EXECUTE FUNCTION no_time();
             UPDATE heartbeat SET steady_since = steady_since - interval '1 hour' WHERE instance <> {instance}"
        ),
    );
}

pub(crate) fn first_instance(server: &Postgres, url: &str) -> i64 {
    let name = url.rsplit('/').next().unwrap();
    server.query(name, "SELECT min(instance) FROM heartbeat")[0]
        .parse()
        .unwrap()
}

/// Takes over until there is nothing left; says what.
async fn take_over(ledger: &PostgresLedger) -> Vec<tollkeeper::ledger::Entry> {
    let mut all = Vec::new();
    loop {
        let some = ledger.instances().unwrap().inherit(10).await.unwrap();
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_hundreds_of_events_each_is_taken_by_one_instance() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.database();
    let ledgers = [open(&url).await, open(&url).await, open(&url).await];
    let taking = (0..900u32)
        .flat_map(|n| (0..3).map(move |at| (n, at)))
        .map(|(n, at)| {
            let ledger = Arc::clone(&ledgers[at]);
            tokio::spawn(async move {
                (
                    n,
                    at,
                    ledger.instances().unwrap().take(event(n)).await.unwrap(),
                )
            })
        });
    let mut takers: HashMap<u32, Vec<usize>> = HashMap::new();
    for taken in join_all(taking).await {
        let (n, at, taken) = taken.unwrap();
        match taken {
            Taken::First => takers.entry(n).or_default().push(at),
            Taken::Elsewhere => {}
            other => panic!("{n} at {at}: {other:?}"),
        }
    }
    assert_eq!(takers.len(), 900);
    assert!(takers.values().all(|takers| takers.len() == 1));
    let (n, taker) = takers
        .iter()
        .next()
        .map(|(n, takers)| (*n, takers[0]))
        .unwrap();
    let again = ledgers[taker]
        .instances()
        .unwrap()
        .take(event(n))
        .await
        .unwrap();
    assert_eq!(again, Taken::Again);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_silent_instance_was_doing_is_taken_over_once_and_it_is_kept_out() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.database();
    let silent = open(&url).await;
    let number = first_instance(&server, &url);
    for n in 0..40 {
        paid(&*silent, n).await;
        silent.instances().unwrap().take(event(n)).await.unwrap();
    }
    let claim = |n| vec![Transition::Claim { by: event(n) }];
    silent.apply(&event(0), claim(0), AT).await.unwrap();

    let heirs = [open(&url).await, open(&url).await];
    assert!(take_over(&heirs[0]).await.is_empty(), "it is alive");
    assert_eq!(
        heirs[0].instances().unwrap().take(event(3)).await.unwrap(),
        Taken::Elsewhere
    );
    silence(&server, &url, number);
    let (one, other) = tokio::join!(take_over(&heirs[0]), take_over(&heirs[1]));
    let mut all: Vec<_> = one.iter().chain(&other).map(|entry| entry.id).collect();
    assert_eq!(all.len(), 40, "each by one");
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 40);

    // The fence: whatever it believes to be its own, nothing of it counts.
    let late = silent.apply(&event(1), claim(1), AT).await.unwrap_err();
    assert!(
        late.to_string().contains("others have taken over"),
        "{late}"
    );
    silent
        .apply(&event(0), vec![Transition::Deliver { response: None }], AT)
        .await
        .unwrap_err();
    assert!(silent.instances().unwrap().is_lost());
    assert!(!silent.instances().unwrap().holds().await);
    silent
        .instances()
        .unwrap()
        .take(event(1_000))
        .await
        .unwrap_err();
    let kept = heirs[0].get(&event(1)).await.unwrap().unwrap();
    assert_eq!(kept.state, EntryState::Settled);

    // Its events are those of whoever has its entries now.
    let heir = usize::from(!one.iter().any(|entry| entry.id == event(3)));
    assert_eq!(
        heirs[heir]
            .instances()
            .unwrap()
            .take(event(3))
            .await
            .unwrap(),
        Taken::Again
    );
    assert_eq!(
        heirs[1 - heir]
            .instances()
            .unwrap()
            .take(event(3))
            .await
            .unwrap(),
        Taken::Elsewhere
    );

    // It may come back as somebody else.
    silent.instances().unwrap().join().await.unwrap();
    assert!(take_over(&silent).await.is_empty());
    paid(&*silent, 2_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_not_been_there_for_long_takes_nothing_over() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.database();
    let silent = open(&url).await;
    let number = first_instance(&server, &url);
    paid(&*silent, 1).await;
    let new = open(&url).await;
    let name = url.rsplit('/').next().unwrap();
    let sql = format!(
        "UPDATE heartbeat SET beat_at = beat_at - interval '1 hour' WHERE instance = {number}"
    );
    server.execute(name, &sql);
    // After an outage of the database everybody looks silent to the first who is back.
    assert!(take_over(&new).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_is_succeeded_at_once_and_who_begins_anew_succeeds_himself() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.database();
    let (leaver, heir) = (open(&url).await, open(&url).await);
    paid(&*leaver, 1).await;
    leaver.instances().unwrap().leave().await.unwrap();
    assert_eq!(take_over(&heir).await.len(), 1);
    leaver
        .apply(&event(1), vec![Transition::Claim { by: event(1) }], AT)
        .await
        .unwrap_err();

    heir.instances().unwrap().take(event(7)).await.unwrap();
    heir.instances().unwrap().join().await.unwrap();
    assert_eq!(take_over(&heir).await.len(), 1);
    assert_eq!(
        heir.instances().unwrap().take(event(7)).await.unwrap(),
        Taken::Inherited
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_stops_in_the_middle_does_not_keep_others_from_taking_over() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.database();
    let silent = open(&url).await;
    let number = first_instance(&server, &url);
    paid(&*silent, 1).await;
    let heir = open(&url).await;
    // As a process that is stopped between the fence and its commit.
    let mut config: tokio_postgres::Config = url.parse().unwrap();
    let (stopped, connection) = config
        .password(super::PASSWORD)
        .connect(tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let begin = format!(
        "SET idle_in_transaction_session_timeout = '4s'; BEGIN; UPDATE instance SET batch = 99 WHERE number = {number}"
    );
    stopped.batch_execute(&begin).await.unwrap();
    silence(&server, &url, number);
    let taken = tokio::time::timeout(Duration::from_secs(9), take_over(&heir)).await;
    assert_eq!(taken.expect("in time").len(), 1);
}
