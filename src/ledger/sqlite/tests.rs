//! The suite that every ledger passes, and what only this one can get wrong.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::ledger::{EntryState, PurchaseBooks, conformance};
use crate::payment::{
    Amount, ClientPubkey, InvocationIdentity, PayReq, PaymentRequest, Settlement, Unit,
};

const AT: Timestamp = Timestamp::from_secs(1_000);
const LIMITS: OpenLimits = OpenLimits::new(1_000, 1_000);

fn file(folder: &TempDir) -> std::path::PathBuf {
    folder.path().join("ledger.db")
}

pub(super) fn event(n: u16) -> RequestEventId {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    RequestEventId::from_bytes(bytes)
}

pub(super) fn new(n: u16, capability: &str) -> NewEntry {
    NewEntry {
        id: event(n),
        client: ClientPubkey::from_bytes([1; 32]),
        identity: InvocationIdentity::from_bytes([1; 32]),
        capability: capability.to_owned(),
        interaction: PaymentInteraction::Transparent,
        pmi: "fake".parse().unwrap(),
        amount: Amount::new(7, Unit::SATS).unwrap(),
        description: "add".to_owned(),
        meta: None,
        request: Some("{}".to_owned()),
        route: String::new(),
        deadline: AT,
        quoted_at: AT,
    }
}

fn issue() -> Transition {
    issue_as("1")
}

fn issue_as(reference: &str) -> Transition {
    let amount = Amount::new(7, Unit::SATS).unwrap();
    Transition::Issue {
        payment_request: PaymentRequest::new(
            "fake".parse().unwrap(),
            amount,
            PayReq::new("fake:1"),
            reference,
        ),
        watch_until: AT,
    }
}

fn settle() -> Transition {
    Transition::Settle(Settlement::new(Amount::new(7, Unit::SATS).unwrap(), "paid"))
}

async fn open(ledger: &SqliteLedger, n: u16) {
    let opened = ledger.open(new(n, "tool:add"), LIMITS).await.unwrap();
    assert!(matches!(opened, Opened::New(_)), "{opened:?}");
}

#[tokio::test]
async fn it_conforms() {
    conformance::run(|| async {
        let folder = tempfile::tempdir().unwrap();
        let ledger = SqliteLedger::open(file(&folder)).unwrap();
        Arc::new(ledger)
    })
    .await;
    conformance::licence_books(|| async {
        let folder = tempfile::tempdir().unwrap();
        Arc::new(SqliteLedger::open(file(&folder)).unwrap())
    })
    .await;
    conformance::purchases(|| async {
        let folder = tempfile::tempdir().unwrap();
        Arc::new(SqliteLedger::open(file(&folder)).unwrap())
    })
    .await;
}

#[tokio::test]
async fn what_was_acknowledged_survives() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(file(&folder)).unwrap();
    open(&ledger, 1).await;
    ledger
        .apply(&event(1), vec![issue(), settle()], AT)
        .await
        .unwrap();
    let before = ledger.get(&event(1)).await.unwrap();
    drop(ledger);
    let ledger = SqliteLedger::open(file(&folder)).unwrap();
    assert_eq!(ledger.get(&event(1)).await.unwrap(), before);
    assert_eq!(before.unwrap().state, EntryState::Settled);
}

#[tokio::test]
async fn what_a_vanished_caller_asked_for_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = SqliteLedger::open(file(&folder)).unwrap();
    for n in 0..50 {
        let write = ledger.open(new(n, "tool:add"), LIMITS);
        // Polled once, then dropped.
        let _ = tokio::time::timeout(Duration::ZERO, write).await;
    }
    drop(ledger);
    let ledger = SqliteLedger::open(file(&folder)).unwrap();
    let listed = ledger.list(&EntryFilter::new(vec![], 100)).await.unwrap();
    assert_eq!(listed.len(), 50);
}

#[tokio::test]
async fn two_handles_see_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let one = SqliteLedger::open(file(&folder)).unwrap();
    let two = SqliteLedger::open(file(&folder)).unwrap();
    open(&one, 1).await;
    let again = two.open(new(1, "tool:add"), LIMITS).await.unwrap();
    assert!(matches!(again, Opened::Exists(_)));
    two.apply(&event(1), vec![issue()], AT).await.unwrap();
    assert_eq!(
        one.get(&event(1)).await.unwrap().unwrap().state,
        EntryState::Issued
    );
    let full = one
        .open(new(2, "tool:add"), OpenLimits::new(9, 1))
        .await
        .unwrap();
    assert_eq!(full, Opened::Full, "both count the same offers");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_64_claimers_on_two_handles_one_wins() {
    let folder = tempfile::tempdir().unwrap();
    let ledgers = [0, 1].map(|_| Arc::new(SqliteLedger::open(file(&folder)).unwrap()));
    open(&ledgers[0], 1).await;
    let gone = Transition::Detach {
        reason: "gone".into(),
    };
    ledgers[0]
        .apply(&event(1), vec![issue(), gone, settle()], AT)
        .await
        .unwrap();
    let claims: Vec<_> = (100..164)
        .map(|n| {
            let ledger = Arc::clone(&ledgers[usize::from(n % 2)]);
            let entry = new(n, "tool:add");
            let caller = Caller::new(entry.client, entry.id, entry.identity);
            tokio::spawn(async move {
                ledger
                    .claim_authorization(&caller, PaymentInteraction::Transparent, AT)
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut won = 0;
    for claim in claims {
        won += usize::from(claim.await.unwrap().is_some());
    }
    assert_eq!(won, 1);
}

fn refusal(path: &Path) -> String {
    let text = SqliteLedger::open(path).unwrap_err().to_string();
    assert!(!text.contains("/tmp"), "no path: {text}");
    text
}

#[test]
fn what_is_not_a_ledger_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder);
    std::fs::write(
        &path,
        "not a database, but long enough to be taken for one".repeat(100),
    )
    .unwrap();
    assert!(refusal(&path).contains("damaged"));

    let path = folder.path().join("other.db");
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TABLE notes (a)")
        .unwrap();
    assert!(refusal(&path).contains("not a ledger"));
    assert!(refusal(folder.path()).contains("not a file"));
    assert!(refusal(&folder.path().join("none/ledger.db")).contains("folder"));
}

#[tokio::test]
async fn a_damaged_page_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder);
    let ledger = SqliteLedger::open(&path).unwrap();
    for n in 0..100 {
        open(&ledger, n).await;
    }
    drop(ledger);
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "all is in the one file"
    );
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0x5a);
    std::fs::write(&path, bytes).unwrap();
    assert!(refusal(&path).contains("damaged"));
}

#[test]
fn a_read_only_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder);
    drop(SqliteLedger::open(&path).unwrap());
    let mut permissions = path.metadata().unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(&path, permissions).unwrap();
    assert!(refusal(&path).contains("read-only"));
}

#[test]
fn a_later_schema_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder);
    drop(SqliteLedger::open(&path).unwrap());
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    assert!(refusal(&path).contains("later version (schema 99"));
}

#[tokio::test]
async fn a_ledger_of_an_earlier_build_gets_the_tables_that_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder);
    drop(SqliteLedger::open(&path).unwrap());
    Connection::open(&path)
        .unwrap()
        .execute_batch("DROP TABLE live_account")
        .unwrap();
    let ledger = SqliteLedger::open(&path).unwrap();
    assert_eq!(ledger.allow_live("a", AT).await.unwrap(), AT);
}

#[tokio::test]
async fn a_ledger_of_the_first_version_is_carried_over_with_every_row() {
    let folder = tempfile::tempdir().unwrap();
    let (path, former) = (file(&folder), folder.path().join("former.db"));
    let ledger = SqliteLedger::open(&path).unwrap();
    for n in 0..6 {
        open(&ledger, n).await;
        let moves = [
            issue_as(&n.to_string()),
            settle(),
            Transition::Claim { by: event(n) },
        ];
        let moves = moves.into_iter().take(n.into()).collect();
        ledger.apply(&event(n), moves, AT).await.unwrap();
    }
    ledger.note_answered(&event(99), AT).await.unwrap();
    let everything = EntryFilter::new(vec![], 100);
    let before = ledger.list(&everything).await.unwrap();
    drop(ledger);

    // The same rows as the first version wrote them.
    let connection = Connection::open(&former).unwrap();
    connection
        .execute_batch(include_str!("schema_1.sql"))
        .unwrap();
    connection
        .execute("ATTACH ?1 AS later", [path.to_str().unwrap()])
        .unwrap();
    connection
        .execute_batch(
            "INSERT INTO entry SELECT * FROM later.entry; INSERT INTO answered SELECT * FROM later.answered;
             PRAGMA main.application_id = 0x746f6c6c; PRAGMA main.user_version = 1;",
        )
        .unwrap();
    drop(connection);

    let ledger = SqliteLedger::open(&former).unwrap();
    assert_eq!(ledger.list(&everything).await.unwrap(), before);
    assert!(!ledger.note_answered(&event(99), AT).await.unwrap());
    // Two are open: one quoted, one issued.
    let limits = OpenLimits::new(100, 3);
    for (n, full) in [(20, false), (21, true)] {
        let opened = ledger.open(new(n, "tool:add"), limits).await.unwrap();
        assert_eq!(opened == Opened::Full, full, "{opened:?}");
    }
    ledger
        .apply(&event(20), vec![issue_as("20"), settle()], AT)
        .await
        .unwrap();
    drop(ledger);
    let ledger = SqliteLedger::open(&former).unwrap();
    assert_eq!(
        ledger.list(&everything).await.unwrap().len(),
        before.len() + 1
    );
}

/// What one process remembers of a row must not outlive a write of another.
#[tokio::test]
async fn a_copy_is_never_older_than_the_row() {
    let folder = tempfile::tempdir().unwrap();
    let ledgers = [0, 1].map(|_| SqliteLedger::open(file(&folder)).unwrap());
    for n in 0..20 {
        let (one, two) = (
            &ledgers[usize::from(n % 2)],
            &ledgers[usize::from((n + 1) % 2)],
        );
        open(one, n).await;
        let issued = two
            .apply(&event(n), vec![issue_as(&n.to_string())], AT)
            .await
            .unwrap();
        assert!(matches!(issued, Applied::Moved(_)), "{issued:?}");
        let settled = one.apply(&event(n), vec![settle()], AT).await.unwrap();
        assert!(matches!(settled, Applied::Moved(_)), "{settled:?}");
        let claim = || vec![Transition::Claim { by: event(n) }];
        assert!(matches!(
            two.apply(&event(n), claim(), AT).await.unwrap(),
            Applied::Moved(_)
        ));
        assert!(matches!(
            one.apply(&event(n), claim(), AT).await.unwrap(),
            Applied::Refused(_)
        ));
    }
}

#[cfg(unix)]
#[test]
fn only_the_owner_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let _ledger = SqliteLedger::open(file(&folder)).unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

/// Runs `opens` as one batch, under triggers of `sql`: the writer is held up by another connection meanwhile.
async fn as_one_batch(ledger: &Arc<SqliteLedger>, path: &Path, capabilities: &[&str]) -> Vec<bool> {
    let other = Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut tasks = Vec::new();
    for (n, capability) in (0..).zip(capabilities) {
        let (ledger, new) = (Arc::clone(ledger), new(n, capability));
        tasks.push(tokio::spawn(async move { ledger.open(new, LIMITS).await }));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    other.execute_batch("COMMIT").unwrap();
    let mut kept = Vec::new();
    for task in tasks {
        kept.push(task.await.unwrap().is_ok());
    }
    kept
}

async fn with_trigger(sql: &str, expected: [bool; 3]) {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder);
    let ledger = Arc::new(SqliteLedger::open(&path).unwrap());
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    let kept = as_one_batch(&ledger, &path, &["tool:a", "tool:bad", "tool:c"]).await;
    assert_eq!(kept, expected);
    for (n, kept) in (0..).zip(expected) {
        assert_eq!(ledger.get(&event(n)).await.unwrap().is_some(), kept);
    }
    open(&ledger, 9).await;
    let open_offers = expected.iter().filter(|kept| **kept).count() + 1;
    let full = ledger
        .open(new(10, "tool:a"), OpenLimits::new(100, open_offers))
        .await;
    assert_eq!(
        full.unwrap(),
        Opened::Full,
        "what was undone is not counted"
    );
}

#[tokio::test]
async fn a_job_that_fails_leaves_its_neighbours_alone() {
    with_trigger(
        "CREATE TRIGGER bad BEFORE INSERT ON entry WHEN new.capability = 'tool:bad'
         BEGIN SELECT RAISE(ABORT, 'bad'); END",
        [true, false, true],
    )
    .await;
}

#[tokio::test]
async fn a_failure_that_undoes_the_transaction_is_told_to_all_whom_it_undid() {
    with_trigger(
        "CREATE TRIGGER bad BEFORE INSERT ON entry WHEN new.capability = 'tool:bad'
         BEGIN SELECT RAISE(ROLLBACK, 'bad'); END",
        [false, false, true],
    )
    .await;
}

#[tokio::test]
async fn when_the_commit_fails_nothing_is_acknowledged() {
    with_trigger(
        "CREATE TABLE none (id INTEGER PRIMARY KEY);
         CREATE TABLE debt (id INTEGER REFERENCES none (id) DEFERRABLE INITIALLY DEFERRED);
         CREATE TRIGGER bad AFTER INSERT ON entry WHEN new.capability = 'tool:bad'
         BEGIN INSERT INTO debt VALUES (1); END",
        [false, false, false],
    )
    .await;
}

#[tokio::test]
async fn the_tally_is_put_right_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder);
    let ledger = SqliteLedger::open(&path).unwrap();
    open(&ledger, 1).await;
    drop(ledger);
    Connection::open(&path)
        .unwrap()
        .execute_batch("UPDATE tally SET open_offers = 500")
        .unwrap();
    let ledger = SqliteLedger::open(&path).unwrap();
    let opened = ledger.open(new(2, "tool:a"), OpenLimits::new(9, 2)).await;
    assert!(matches!(opened.unwrap(), Opened::New(_)));
}

#[tokio::test]
async fn every_question_walks_along_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder);
    drop(SqliteLedger::open(&path).unwrap());
    let connection = Connection::open(&path).unwrap();
    for (sql, index) in [
        (reader::BY_ID, "sqlite_autoindex_entry_1"),
        (reader::BY_CLAIMER, "entry_claimed_by"),
        (reader::UNFINISHED, "entry_unfinished"),
        (moves::OBSTACLES, "COVERING INDEX entry_open"),
        (moves::OBSTACLES, "entry_authorization"),
        (moves::OBSTACLES, "entry_claimed_by"),
        (moves::FORGET_UNPAID, "entry_unpaid"),
        (moves::FORGET_RESPONSES, "entry_response"),
        (moves::OUTSTANDING, "entry_open"),
        (moves::OLDEST_AUTHORIZATION, "entry_authorization"),
        (reader::ANYTHING, "entry_unfinished"),
        (reader::ANYTHING, "entry_claimed_by"),
        (reader::AUTHORIZATIONS, "entry_authorization"),
        (
            reader::PAGE_OF_UNFINISHED,
            "entry_unfinished_at ((quoted_at_ms,id)>",
        ),
        (reader::PAGE_OF_ALL, "entry_quoted_at ((quoted_at_ms,id)>"),
    ] {
        let mut explain = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap();
        let nulls = vec![rusqlite::types::Null; explain.parameter_count()];
        let plan: Vec<String> = explain
            .query_map(rusqlite::params_from_iter(nulls), |row| row.get(3))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert!(
            plan.iter().any(|step| step.contains(index)),
            "{sql}: {plan:?}"
        );
        assert!(
            plan.iter().all(|step| !step.contains("TEMP B-TREE")),
            "{sql}: {plan:?}"
        );
    }
}

/// A check that lists more than two values builds a table for itself each time: that cost more than the write.
#[tokio::test]
async fn no_write_builds_a_table_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder);
    drop(SqliteLedger::open(&path).unwrap());
    let connection = Connection::open(&path).unwrap();
    let moves = [
        "state",
        "waiting",
        "is_open",
        "is_finished",
        "is_authorization",
    ];
    let set = moves.map(|column| format!("{column} = ?")).join(", ");
    for sql in [
        moves::OBSTACLES.to_owned(),
        rows::INSERT.to_owned(),
        format!(
            "UPDATE entry SET {set}, history = ?, reference = ?, response = ? WHERE number = ?"
        ),
    ] {
        let mut explain = connection.prepare(&format!("EXPLAIN {sql}")).unwrap();
        let nulls = vec![rusqlite::types::Null; explain.parameter_count()];
        let steps: Vec<String> = explain
            .query_map(rusqlite::params_from_iter(nulls), |row| row.get(1))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert!(
            !steps.contains(&"OpenEphemeral".to_owned()),
            "{sql}: {steps:?}"
        );
    }
}
