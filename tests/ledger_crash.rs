//! What a ledger acknowledged is there after the process was killed.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tollkeeper::ledger::{
    Applied, EntryState, Ledger, NewEntry, OpenLimits, Opened, SqliteLedger, Transition,
};
use tollkeeper::payment::{
    InvocationIdentity, PayReq, PaymentInteraction, PaymentRequest, Timestamp,
};
use tollkeeper::{ClientPubkey, RequestEventId};

const FILE: &str = "TOLLKEEPER_TEST_LEDGER";
const LIMITS: OpenLimits = OpenLimits::new(1_000_000, 1_000_000);

fn entry(n: u32) -> NewEntry {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&n.to_be_bytes());
    NewEntry {
        id: RequestEventId::from_bytes(id),
        client: ClientPubkey::from_bytes([1; 32]),
        identity: InvocationIdentity::from_bytes([1; 32]),
        capability: "tool:add".to_owned(),
        interaction: PaymentInteraction::Transparent,
        pmi: "fake".parse().unwrap(),
        amount: "7 sats".parse().unwrap(),
        description: String::new(),
        meta: None,
        request: Some("{}".to_owned()),
        route: String::new(),
        deadline: Timestamp::from_secs(2),
        quoted_at: Timestamp::from_secs(1),
    }
}

fn issue(n: u32) -> Transition {
    let amount = "7 sats".parse().unwrap();
    let pay_req = PayReq::new("fake:1");
    Transition::Issue {
        payment_request: PaymentRequest::new(
            "fake".parse().unwrap(),
            amount,
            pay_req,
            n.to_string(),
        ),
        watch_until: Timestamp::from_secs(2),
    }
}

/// Writes with 16 callers at a time and says on stdout what was acknowledged, until it is killed. Only does so as the
/// child of the other test.
#[test]
fn the_child_writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(FILE) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let ledger = Arc::new(SqliteLedger::open(path).unwrap());
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..16 {
            let ledger = Arc::clone(&ledger);
            callers.spawn(async move {
                for n in (caller * 1_000_000).. {
                    let id = entry(n).id;
                    let opened = ledger.open(entry(n), LIMITS).await.unwrap();
                    assert!(matches!(opened, Opened::New(_)));
                    say(n, "quoted");
                    let at = Timestamp::from_secs(1);
                    let issued = ledger.apply(&id, vec![issue(n)], at).await.unwrap();
                    assert!(matches!(issued, Applied::Moved(_)));
                    say(n, "issued");
                }
            });
        }
        callers.join_all().await;
    });
}

fn say(n: u32, state: &str) {
    let mut stdout = std::io::stdout().lock();
    // Once the parent has gone there is nobody to tell.
    let _ = writeln!(stdout, "\nacknowledged {n} {state}");
    let _ = stdout.flush();
}

#[tokio::test]
async fn what_was_acknowledged_before_a_kill_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.db");
    for acknowledgements in [1, 400] {
        let _ = std::fs::remove_file(&path);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "the_child_writes_until_it_is_killed",
                "--nocapture",
            ])
            .env(FILE, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = Vec::new();
        for line in lines.by_ref() {
            told.extend(acknowledged(&line.unwrap()));
            if told.len() >= acknowledgements {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died, but had not been read yet. The last line may be torn.
        told.extend(
            lines
                .map_while(|line| line.ok())
                .filter_map(|line| acknowledged(&line)),
        );

        let ledger = SqliteLedger::open(&path).unwrap();
        for (n, state) in &told {
            let found = ledger.get(&entry(*n).id).await.unwrap().unwrap();
            assert!(found.state == *state || *state == EntryState::Quoted, "{n}");
        }
        let opened = ledger.open(entry(u32::MAX), LIMITS).await.unwrap();
        assert!(matches!(opened, Opened::New(_)), "it goes on");
        assert!(told.len() >= acknowledgements);
        drop(ledger);
    }
}

fn acknowledged(line: &str) -> Option<(u32, EntryState)> {
    let (n, state) = line.strip_prefix("acknowledged ")?.split_once(' ')?;
    Some((n.parse().ok()?, state.parse().ok()?))
}
