//! A PostgreSQL server of its own for a test: on loopback, on a free port, in a folder that goes with it.

use std::fs::{self, Permissions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::NoTls;

/// PostgreSQL refuses to run as root, so root runs it as this user.
const NOBODY: u32 = 65534;

/// What the server wants to hear.
pub(crate) const PASSWORD: &str = "sesame & co:1@";

const PATIENCE: Duration = Duration::from_secs(60);

/// A running server.
pub(crate) struct Postgres {
    bin: PathBuf,
    folder: TempDir,
    pub(crate) port: u16,
    /// A shell that ends the server when this process is gone, whatever happens to it.
    keeper: Child,
}

/// How a server ends.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code, reason = "not every test ends one in every way")]
pub(crate) enum End {
    /// In order, but without waiting for clients.
    Fast,
    /// As in a crash.
    Immediate,
}

impl Postgres {
    /// Starts one; `None`, said aloud, where that is not possible.
    pub(crate) fn start() -> Option<Self> {
        match Self::try_start(&[]) {
            Ok(server) => Some(server),
            Err(reason) => skipped(&reason),
        }
    }

    /// As [`start`](Self::start), with settings in the words of the command line (`-c name=value`).
    #[allow(dead_code, reason = "not every test has settings")]
    pub(crate) fn start_with(settings: &[&str]) -> Option<Self> {
        match Self::try_start(settings) {
            Ok(server) => Some(server),
            Err(reason) => skipped(&reason),
        }
    }

    fn try_start(settings: &[&str]) -> Result<Self, String> {
        let bin = bin()?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        let password = folder.path().join("password");
        fs::write(&password, PASSWORD).unwrap();
        if is_root() {
            chown(&data, Some(NOBODY), Some(NOBODY)).map_err(|error| error.to_string())?;
        }
        let made = as_nobody(&bin.join("initdb").to_string_lossy())
            .args([
                "--username=toll",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ])
            .arg(format!("--pwfile={}", password.display()))
            .arg(format!("--pgdata={}", data.display()))
            .output()
            .map_err(|error| format!("initdb: {error}"))?;
        if !made.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let port = free_port();
        let keeper = run(&bin, &folder, port, settings);
        let server = Self {
            bin,
            folder,
            port,
            keeper,
        };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// A new, empty database; its URL is without a password.
    pub(crate) fn database(&self) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("shop_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.execute("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://toll@127.0.0.1:{}/{database}", self.port)
    }

    /// Executes `sql` in a database, as somebody else who has a password.
    pub(crate) fn execute(&self, database: &str, sql: &str) {
        self.query(database, sql);
    }

    /// The first column of the rows of the last statement.
    pub(crate) fn query(&self, database: &str, sql: &str) -> Vec<String> {
        let (database, sql, port) = (database.to_owned(), sql.to_owned(), self.port);
        // In a thread of its own: the caller may be in a runtime.
        std::thread::spawn(move || {
            block_on(async {
                let (client, connection) = config(port, &database).connect(NoTls).await.unwrap();
                tokio::spawn(connection);
                let messages = client.simple_query(&sql).await.unwrap();
                let rows = messages.iter().filter_map(|message| match message {
                    tokio_postgres::SimpleQueryMessage::Row(row) => {
                        Some(row.get(0).unwrap_or_default().to_owned())
                    }
                    _ => None,
                });
                rows.collect()
            })
        })
        .join()
        .unwrap()
    }

    /// Ends the server.
    #[allow(dead_code, reason = "not every test ends one")]
    pub(crate) fn stop(&mut self, end: End) {
        let signal = match end {
            End::Fast => "INT",
            End::Immediate => "QUIT",
        };
        self.keeper
            .stdin
            .take()
            .unwrap()
            .write_all(signal.as_bytes())
            .unwrap();
        self.keeper.wait().unwrap();
    }

    /// Starts it again on the same data and the same port.
    #[allow(dead_code, reason = "not every test ends one")]
    pub(crate) fn start_again(&mut self) {
        self.keeper = run(&self.bin, &self.folder, self.port, &[]);
        self.wait_until_ready().unwrap();
    }

    fn wait_until_ready(&self) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        let port = self.port;
        loop {
            let ready = std::thread::spawn(move || {
                block_on(async { config(port, "postgres").connect(NoTls).await.is_ok() })
            });
            if ready.join().unwrap() {
                return Ok(());
            }
            if Instant::now() > until {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                return Err(format!("postgres does not start: {log}"));
            }
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.keeper.stdin.take().is_some() {
            // The end of its input is the end of the server.
            let _ = self.keeper.wait();
        }
    }
}

fn run(bin: &std::path::Path, folder: &TempDir, port: u16, settings: &[&str]) -> Child {
    let log = fs::File::create(folder.path().join("log")).unwrap();
    // What it reads is the signal to end with; nothing, if whoever started it is gone.
    let script =
        r#""$@" & server=$!; read -r signal; kill -"${signal:-QUIT}" $server; wait $server"#;
    as_nobody("sh")
        .args(["-c", script, "sh"])
        .arg(bin.join("postgres"))
        .arg("-D")
        .arg(folder.path().join("data"))
        .args([
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
        ])
        .args(["-c", &format!("port={port}"), "-c", "max_connections=200"])
        .args(settings)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn as_nobody(program: &str) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}")])
        .args(["--clear-groups", program])
        .current_dir("/");
    command
}

fn is_root() -> bool {
    fs::metadata("/proc/self")
        .is_ok_and(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0)
}

fn bin() -> Result<PathBuf, String> {
    static BIN: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BIN.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/setup-postgres");
        let output = Command::new("bash")
            .arg(script)
            .output()
            .map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            return Ok(PathBuf::from(text(&output.stdout)));
        }
        Err(text(&output.stderr)
            .lines()
            .last()
            .unwrap_or("it says nothing")
            .to_owned())
    })
    .clone()
}

/// Says aloud that the test is skipped, and why. In CI a test that did not run is a test that failed.
pub(crate) fn skipped<T>(reason: &str) -> Option<T> {
    if std::env::var_os("CI").is_some_and(|ci| ci == "true") {
        panic!("no PostgreSQL: {reason}");
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not `eprintln!`, which the harness keeps to itself while a test passes.
    let _ = writeln!(
        std::io::stderr(),
        "\n{test}: SKIPPED (no PostgreSQL: {reason})"
    );
    None
}

fn config(port: u16, database: &str) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(port)
        .user("toll")
        .password(PASSWORD)
        .dbname(database);
    config
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
