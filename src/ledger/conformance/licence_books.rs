//! What is remembered about licences: no revocation is lost, and no licence is used by more than may use it.

use std::future::Future;
use std::sync::Arc;

use super::client;
use crate::ledger::{FeedPosition, IssuedLicence, LicenceBooks, Revocation};
use crate::payment::Timestamp;

/// Runs this suite. `make` returns new, empty books each time.
///
/// # Panics
///
/// When the books do not conform; the message names the rule.
pub async fn run<B, F, Fut>(make: F)
where
    B: LicenceBooks + 'static,
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<B>>,
{
    revocations_are_kept_by_issuer_until_they_run_out(make().await).await;
    a_position_is_read_back(make().await).await;
    a_licence_has_so_many_holders_and_no_more(make().await).await;
    what_is_issued_is_listed_and_taken_back_in_order(make().await).await;
}

fn revocation(id: &str, secs: u64) -> Revocation {
    Revocation {
        id: id.to_owned(),
        expires_at: Timestamp::from_secs(secs),
    }
}

async fn revocations_are_kept_by_issuer_until_they_run_out<B: LicenceBooks>(books: Arc<B>) {
    let of = |issuer: &'static str, after: Option<&'static str>, limit| {
        let books = Arc::clone(&books);
        async move { books.revoked(issuer, after, limit).await.unwrap() }
    };
    let batch = vec![
        revocation("2", 20),
        revocation("1", 10),
        revocation("odd \" '🦀", 30),
    ];
    books.note_revoked("a", batch).await.unwrap();
    books
        .note_revoked("b", vec![revocation("1", 40)])
        .await
        .unwrap();
    books.note_revoked("a", vec![]).await.unwrap();
    assert_eq!(
        of("a", None, 2).await,
        [revocation("1", 10), revocation("2", 20)]
    );
    assert_eq!(
        of("a", Some("2"), 2).await,
        [revocation("odd \" '🦀", 30)],
        "a page goes on where the last one ended"
    );
    let again = vec![revocation("1", 15), revocation("2", 5)];
    books.note_revoked("a", again).await.unwrap();
    assert_eq!(
        of("a", None, 2).await,
        [revocation("1", 15), revocation("2", 20)],
        "the later date counts"
    );
    while books
        .forget_revoked(Timestamp::from_secs(20))
        .await
        .unwrap()
        > 0
    {}
    assert_eq!(of("a", None, 9).await.len(), 2);
    assert_eq!(of("b", None, 9).await.len(), 1);
}

async fn a_position_is_read_back<B: LicenceBooks>(books: Arc<B>) {
    assert_eq!(books.position("a").await.unwrap(), None);
    for read_at in [None, Some(Timestamp::from_millis(7))] {
        let position = FeedPosition {
            cursor: format!("{read_at:?}"),
            read_at,
        };
        books.set_position("a", position.clone()).await.unwrap();
        assert_eq!(books.position("a").await.unwrap(), Some(position));
    }
    assert_eq!(books.position("b").await.unwrap(), None);
}

async fn a_licence_has_so_many_holders_and_no_more<B: LicenceBooks + 'static>(books: Arc<B>) {
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let books = Arc::clone(&books);
            tokio::spawn(async move { books.admit_holder("a", "1", client(n), 2).await.unwrap() })
        })
        .collect();
    let mut admitted = Vec::new();
    for (n, task) in (0..).zip(tasks) {
        if task.await.unwrap() {
            admitted.push(n);
        }
    }
    assert_eq!(admitted.len(), 2, "no more than two");
    for n in admitted {
        assert!(
            books.admit_holder("a", "1", client(n), 1).await.unwrap(),
            "whoever was admitted stays"
        );
    }
    assert!(
        books.admit_holder("a", "2", client(9), 1).await.unwrap(),
        "each licence counts for itself"
    );
}

async fn what_is_issued_is_listed_and_taken_back_in_order<B: LicenceBooks>(books: Arc<B>) {
    let licence = |id: &str, secs| IssuedLicence {
        id: id.to_owned(),
        holder: client(1),
        purchase: "p".to_owned(),
        capabilities: "tool:a tool:b".to_owned(),
        issued_at: Timestamp::from_secs(secs),
        expires_at: Timestamp::from_secs(100),
        revoked: None,
    };
    for (id, secs, kept) in [("b", 1, 1), ("a", 2, 2), ("b", 3, 1)] {
        let written = books.note_issued(licence(id, secs)).await.unwrap();
        assert_eq!(written, licence(id, kept), "a name is given once");
    }
    let ids = |listed: Vec<IssuedLicence>| listed.into_iter().map(|l| l.id).collect::<Vec<_>>();
    assert_eq!(ids(books.issued(None, 9).await.unwrap()), ["a", "b"]);
    assert_eq!(ids(books.issued(Some("a"), 9).await.unwrap()), ["b"]);
    let at = Timestamp::from_secs(50);
    for (id, nth) in [("b", 1), ("a", 2), ("b", 1)] {
        let taken = books.take_back(id, at).await.unwrap().unwrap();
        assert_eq!(taken.revoked, Some((at, nth)));
    }
    assert_eq!(books.take_back("none", at).await.unwrap(), None);
    assert_eq!(ids(books.taken_back(0, 9).await.unwrap()), ["b", "a"]);
    assert_eq!(ids(books.taken_back(1, 9).await.unwrap()), ["a"]);
    assert_eq!(ids(books.taken_back(0, 1).await.unwrap()), ["b"]);
}
