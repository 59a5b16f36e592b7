//! The suites that every ledger passes.

use std::sync::Arc;

use futures_util::future::join_all;
use tollkeeper::ledger::{
    Caller, EntryFilter, Ledger, Opened, PostgresLedger, PurchaseBooks, conformance,
};
use tollkeeper::payment::{InvocationIdentity, PaymentInteraction};

use super::{AT, LIMITS, Postgres, client, config, event, new, open, paid};

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms() {
    let Some(server) = Postgres::start() else {
        return;
    };
    conformance::run(|| async { open(&server.database()).await }).await;
    conformance::licence_books(|| async { open(&server.database()).await }).await;
    conformance::purchases(|| async { open(&server.database()).await }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_of_an_earlier_build_gets_the_table_that_it_lacks() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.database();
    drop(open(&url).await);
    let (_, name) = url.rsplit_once('/').unwrap();
    server.execute(name, "DROP TABLE live_account");
    let looking = PostgresLedger::look(&config(&url)).await.unwrap();
    assert_eq!(looking.live_since("a").await.unwrap(), None);
    let ledger = open(&url).await;
    assert_eq!(ledger.allow_live("a", AT).await.unwrap(), AT);
    assert_eq!(looking.live_since("a").await.unwrap(), Some(AT));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_64_claimers_on_two_instances_one_wins() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.database();
    let ledgers = [open(&url).await, open(&url).await];
    paid(&*ledgers[0], 1).await;
    let detach = tollkeeper::ledger::Transition::Detach {
        reason: "gone".to_owned(),
    };
    ledgers[0].apply(&event(1), vec![detach], AT).await.unwrap();
    let claimers = (0..64u32).map(|n| {
        let ledger = Arc::clone(&ledgers[n as usize % 2]);
        tokio::spawn(async move {
            let caller = Caller::new(
                client(1),
                event(100 + n),
                InvocationIdentity::from_bytes([1; 32]),
            );
            let claimed = ledger
                .claim_authorization(&caller, PaymentInteraction::Transparent, AT)
                .await;
            claimed.unwrap().is_some()
        })
    });
    let won = join_all(claimers)
        .await
        .into_iter()
        .filter(|won| *won.as_ref().unwrap())
        .count();
    assert_eq!(won, 1);
}

/// Many at once, over two instances: no limit is exceeded, and one request has one entry.
#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_across_instances() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.database();
    let ledgers = [open(&url).await, open(&url).await];
    let limits = tollkeeper::ledger::OpenLimits::new(10, 100_000);
    let opening = (0..60u32).flat_map(|n| [(0, n), (1, n)]).map(|(at, n)| {
        let ledger = Arc::clone(&ledgers[at]);
        tokio::spawn(async move {
            ledger
                .open(new(n, PaymentInteraction::Transparent), limits)
                .await
                .unwrap()
        })
    });
    let opened: Vec<Opened> = join_all(opening)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let made = opened
        .iter()
        .filter(|opened| matches!(opened, Opened::New(_)))
        .count();
    assert_eq!(made, 10);
    let entries = ledgers[1]
        .list(&EntryFilter::new(vec![], 100))
        .await
        .unwrap();
    assert_eq!(entries.len(), 10);
}

/// One open offer of a call under explicit gating, whichever instance is asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_gated_call_has_one_open_offer_across_instances() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.database();
    let ledgers = [open(&url).await, open(&url).await];
    let opening = (0..40u32).map(|n| {
        let ledger = Arc::clone(&ledgers[n as usize % 2]);
        tokio::spawn(async move {
            ledger
                .open(new(n, PaymentInteraction::ExplicitGating), LIMITS)
                .await
                .unwrap()
        })
    });
    let opened: Vec<Opened> = join_all(opening)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let made = opened
        .iter()
        .filter(|opened| matches!(opened, Opened::New(_)))
        .count();
    assert_eq!(made, 1);
    assert_eq!(
        opened
            .iter()
            .filter(|opened| matches!(opened, Opened::Outstanding(_)))
            .count(),
        39
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_instances_start_at_once() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.database();
    let starting = (0..8).map(|_| {
        let config = config(&url);
        tokio::spawn(async move { PostgresLedger::open(&config).await })
    });
    for started in join_all(starting).await {
        started.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_ledger_is_refused() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let refusal = async |url: &str| {
        let refused = PostgresLedger::open(&config(url)).await.unwrap_err();
        refused.to_string()
    };
    let url = server.database();
    let name = url.rsplit('/').next().unwrap();
    server.execute(name, "CREATE TABLE customers (name TEXT)");
    let said = refusal(&url).await;
    assert!(said.contains("not those of a ledger"), "{said}");

    let url = server.database();
    let name = url.rsplit('/').next().unwrap();
    drop(open(&url).await);
    server.execute(name, "UPDATE tollkeeper SET version = 99");
    let said = refusal(&url).await;
    assert!(said.contains("another version (schema 99"), "{said}");

    let said = refusal(&server.url("nowhere")).await;
    assert!(said.contains("no such database"), "{said}");
    let wrong = tollkeeper::ledger::PostgresConfig::parse(&server.url("postgres"))
        .unwrap()
        .password("wrong");
    let said = PostgresLedger::open(&wrong).await.unwrap_err();
    assert!(
        said.to_string().contains("check user and password"),
        "{said}"
    );
    assert!(!format!("{said:?}").contains("wrong"), "{said:?}");

    let looking = PostgresLedger::look(&config(&server.database()))
        .await
        .unwrap_err();
    assert!(
        looking.to_string().contains("no ledger in this database"),
        "{looking}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_looks_makes_nothing_and_writes_nothing() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.database();
    paid(&*open(&url).await, 1).await;
    let looking = PostgresLedger::look(&config(&url)).await.unwrap();
    assert_eq!(
        looking
            .list(&EntryFilter::new(vec![], 10))
            .await
            .unwrap()
            .len(),
        1
    );
    let refused = looking
        .open(new(2, PaymentInteraction::Transparent), LIMITS)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("to look only"), "{refused}");
}
