//! What outlives the processes of a run: the relay, the folder with ledger, till and records, and the key of the server.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nostr_sdk::prelude::Keys;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;
use tollkeeper::ledger::{Entry, EntryFilter, Ledger, SqliteLedger};

use super::faulty_relay::FaultyRelay;

/// Longer than anything takes that works, also on a machine with other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// What one execution costs.
pub(crate) const PRICE: u64 = 7;

/// `begins`, `call 3`, `ends`, each with the number of the process that did it.
pub(crate) struct Record {
    pub(crate) what: String,
    pub(crate) call: Option<u32>,
    pub(crate) process: usize,
}

/// See the [module](self).
pub(crate) struct Shop {
    folder: TempDir,
    /// What `--ledger` names, and the password for it.
    ledger: (String, Option<&'static str>),
    /// What is sold, and how it is paid: words of the command line.
    pub(crate) flags: Vec<String>,
    /// What goes with them and is for no command line.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Where the process that lives is reached over HTTP, if it is.
    pub(crate) url: Arc<Mutex<Option<String>>>,
    pub(crate) relay: FaultyRelay,
    pub(crate) keys: Keys,
    /// How many processes have become ready so far, which is what a buyer waits for before it sends something again.
    pub(crate) openings: watch::Sender<usize>,
    pub(crate) began: Instant,
}

impl Shop {
    pub(crate) async fn new() -> Self {
        Self::with_ledger("books.db".to_owned(), None).await
    }

    /// With another ledger than a file in the folder.
    pub(crate) async fn with_ledger(ledger: String, password: Option<&'static str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("till")).unwrap();
        Self {
            folder,
            ledger: (ledger, password),
            flags: vec![
                "--allow-fake".to_owned(),
                "--price".to_owned(),
                format!("tool:record={PRICE} sat"),
            ],
            environment: Vec::new(),
            url: Arc::default(),
            relay: FaultyRelay::start().await,
            keys: Keys::generate(),
            openings: watch::Sender::new(0),
            began: Instant::now(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `serve` with this ledger and this key, as the words of a command line.
    pub(crate) fn words(&self) -> Vec<String> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/mini_mcp.py");
        let url = self.relay.url();
        let mut words = vec![super::binary(), "serve", "--json", "--relay", &url];
        words.extend(["--ledger", &self.ledger.0]);
        words.extend(self.flags.iter().map(String::as_str));
        words.extend(["--", "python3", "-S", "-E", script]);
        words.into_iter().map(ToOwned::to_owned).collect()
    }

    /// Starts `words` as the process number `process`.
    pub(crate) fn start(&self, process: usize, words: &[String], crash_at: Option<&str>) -> Serve {
        let log = std::fs::File::create(self.path(&format!("{process}.log"))).unwrap();
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .current_dir(self.folder.path())
            .env_remove("TOLLKEEPER_RELAYS")
            .env_remove("TOLLKEEPER_LOG")
            .env_remove("TOLLKEEPER_LEDGER")
            .env_remove("PGPASSWORD")
            .env_remove("TOLLKEEPER_CRASH_AT")
            .env("TOLLKEEPER_HOME", self.path("home"))
            .env(
                "TOLLKEEPER_SECRET_KEY",
                self.keys.secret_key().to_secret_hex(),
            )
            .env("TOLLKEEPER_CRASH_TILL", self.path("till"))
            .env("MINI_MCP_RECORD", self.path("record"))
            .env("MINI_MCP_RUN", process.to_string())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        if let Some(password) = self.ledger.1 {
            command.env("PGPASSWORD", password);
        }
        if let Some(point) = crash_at {
            command.env("TOLLKEEPER_CRASH_AT", point);
        }
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (openings, at) = (self.openings.clone(), Arc::clone(&self.url));
        // Where there are several, one more is no reason to send anything again.
        let several = self.ledger.1.is_some();
        let (ready, is_ready) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains(r#""event":"ready""#) {
                    let said: serde_json::Value = serde_json::from_str(&line).unwrap();
                    *at.lock().unwrap() = said["url"].as_str().map(ToOwned::to_owned);
                    openings.send_if_modified(|count| {
                        let counts = *count == 0 || !several;
                        *count += usize::from(counts);
                        counts
                    });
                    ready.send_replace(true);
                }
            }
            // Its port may soon be somebody else's.
            at.lock().unwrap().take();
        });
        Serve {
            child,
            ready: is_ready,
        }
    }

    /// The wallet of the buyers: it pays the invoice, and nothing can undo that.
    pub(crate) fn pay(&self, reference: &str) {
        std::fs::write(self.path(&format!("till/{reference}.paid")), "").unwrap();
    }

    /// What was really paid.
    pub(crate) fn paid(&self) -> HashSet<String> {
        let files = std::fs::read_dir(self.path("till")).unwrap();
        files
            .filter_map(|file| {
                Some(
                    file.unwrap()
                        .file_name()
                        .to_str()?
                        .strip_suffix(".paid")?
                        .to_owned(),
                )
            })
            .collect()
    }

    /// How many offers were made.
    pub(crate) fn invoices(&self) -> usize {
        let files = std::fs::read_dir(self.path("till")).unwrap();
        files
            .filter(|file| {
                file.as_ref()
                    .unwrap()
                    .path()
                    .extension()
                    .is_some_and(|it| it == "invoice")
            })
            .count()
    }

    /// Keeps the ledger as it is on the disk at this moment: nobody has it open.
    pub(crate) fn keep_ledger(&self, name: &str) {
        std::fs::create_dir(self.path(name)).unwrap();
        for file in ["books.db", "books.db-wal"] {
            if self.path(file).exists() {
                std::fs::copy(self.path(file), self.path(name).join(file)).unwrap();
            }
        }
    }

    /// The entries of a ledger that was kept, or of the one that is sold with.
    pub(crate) async fn entries(&self, kept: Option<&str>) -> Vec<Entry> {
        let file = kept.map_or_else(
            || self.path("books.db"),
            |name| self.path(name).join("books.db"),
        );
        self.entries_of(&file).await
    }

    pub(crate) async fn entries_of(&self, file: &Path) -> Vec<Entry> {
        if !file.exists() {
            return Vec::new();
        }
        Self::ledger_in(file)
            .list(&EntryFilter::new(Vec::new(), 100_000))
            .await
            .unwrap()
    }

    pub(crate) fn ledger_in(file: &Path) -> SqliteLedger {
        SqliteLedger::open(file).expect("whatever happened, the file is a ledger")
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        let text = std::fs::read_to_string(self.path("record")).unwrap_or_default();
        let records = text.lines().map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            Record {
                what: words[0].to_owned(),
                call: (words.len() == 3).then(|| words[1].parse().unwrap()),
                process: words.last().unwrap().parse().unwrap(),
            }
        });
        records.collect()
    }

    /// Which process did each of the executions.
    pub(crate) fn executed_by(&self) -> Vec<usize> {
        let records = self.records().into_iter();
        records
            .filter(|record| record.call.is_some())
            .map(|record| record.process)
            .collect()
    }

    /// How often the call of this number was executed.
    pub(crate) fn executions_of(&self, call: usize) -> usize {
        let call = u32::try_from(call).unwrap();
        let records = self.records().into_iter();
        records.filter(|record| record.call == Some(call)).count()
    }

    /// Waits until no child works any more. Those of a process that was killed read what it wrote to them, to the end.
    pub(crate) async fn closed(&self) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let records = self.records();
            let count = |what: &str| records.iter().filter(|record| record.what == what).count();
            if count("begins") == count("ends") {
                return Ok(());
            }
            if Instant::now() > until {
                return Err("a child of a process that is gone works on".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The end of what a process logged.
    pub(crate) fn log(&self, process: usize) -> String {
        let text =
            std::fs::read_to_string(self.path(&format!("{process}.log"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n    ")
    }
}

/// A running `serve`.
pub(crate) struct Serve {
    child: Child,
    ready: watch::Receiver<bool>,
}

impl Serve {
    /// Waits until it takes calls; `false` if it ended before.
    pub(crate) async fn ready(&mut self) -> bool {
        self.ready.wait_for(|ready| *ready).await.is_ok()
    }

    /// For somebody else to wait on.
    pub(crate) fn ready_signal(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    pub(crate) async fn wait(&mut self) -> ExitStatus {
        self.child.wait().await.unwrap()
    }

    /// Waits for its end at most so long.
    pub(crate) async fn ends_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        Some(
            tokio::time::timeout(patience, self.child.wait())
                .await
                .ok()?
                .unwrap(),
        )
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.start_kill();
    }

    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Asks it to leave.
    pub(crate) fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Has it stand still, wherever it is.
    #[cfg(feature = "postgres")]
    pub(crate) fn stop(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Has it go on.
    #[cfg(feature = "postgres")]
    pub(crate) fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        use rustix::process::{Pid, kill_process};
        if let Some(pid) = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(i32::try_from(id).unwrap()))
        {
            let _ = kill_process(pid, signal);
        }
    }
}
