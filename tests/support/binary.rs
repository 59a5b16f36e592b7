//! The real binary as child processes: a relay, a server, clients. Each is killed with its handle, and only it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// A folder for everything that one test writes.
pub(crate) struct Scratch(TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// `tollkeeper` with a home of its own and nothing inherited that could change what it does.
    pub(crate) fn tollkeeper(&self, home: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollkeeper"));
        for name in [
            "TOLLKEEPER_RELAYS",
            "TOLLKEEPER_DISCOVERY_RELAYS",
            "TOLLKEEPER_SECRET_KEY",
            "TOLLKEEPER_LOG",
            "NWC_CONNECTION",
            "AICOACH_SIGNING_SECRET",
            "AICOACH_SERVER_ID",
            "AICOACH_API_KEY",
            "MCP_LICENSE_TOKEN",
            "LNBITS_URL",
            "LNBITS_INVOICE_KEY",
            "LNBITS_ADMIN_KEY",
            "STRIPE_SECRET_KEY",
            "STRIPE_WEBHOOK_SECRET",
            "STRIPE_PRICE_ID",
        ] {
            command.env_remove(name);
        }
        command
            .current_dir(self.0.path())
            .env("TOLLKEEPER_HOME", self.path(home))
            .env("MINI_MCP_COUNT", self.path("count"))
            .env("NO_COLOR", "1");
        command
    }

    /// How often the tools that count were executed.
    pub(crate) fn executions(&self) -> usize {
        std::fs::read(self.path("count")).map_or(0, |text| text.len())
    }
}

/// The MCP server that the tests sell.
pub(crate) fn mini_mcp() -> [String; 2] {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/mini_mcp.py");
    ["python3".to_owned(), script.display().to_string()]
}

/// Arguments of `add` that make 3, and another call each time: an offer that the fake rail has settled by itself, although the buyer
/// declined it, buys the same call again and no other.
#[allow(dead_code, reason = "not every test adds")]
pub(crate) fn three() -> [String; 2] {
    static NEXT: AtomicI64 = AtomicI64::new(1);
    let a = NEXT.fetch_add(1, Ordering::Relaxed);
    [format!("a={a}"), format!("b={}", 3 - a)]
}

/// A process that writes JSON lines on stdout.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
}

impl Running {
    pub(crate) fn start(command: Command) -> Self {
        Self::start_with_stderr(command, Stdio::inherit())
    }

    /// With everything that it logs in `log`.
    #[allow(dead_code, reason = "not every test reads logs")]
    pub(crate) fn start_logging(command: Command, log: std::fs::File) -> Self {
        Self::start_with_stderr(command, log.into())
    }

    fn start_with_stderr(mut command: Command, stderr: Stdio) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        Self {
            stdin: child.stdin.take(),
            child,
            lines,
        }
    }

    /// The next line; `None` once there are no more.
    pub(crate) fn next(&self) -> Option<Value> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("no line in time"),
        }
    }

    /// The next line that `wanted` wants; what comes before it is passed over, and returned.
    pub(crate) fn until(&self, wanted: impl Fn(&Value) -> bool) -> (Value, Vec<Value>) {
        let mut before = Vec::new();
        loop {
            let line = self
                .next()
                .unwrap_or_else(|| panic!("ended after {before:?}"));
            if wanted(&line) {
                return (line, before);
            }
            before.push(line);
        }
    }

    pub(crate) fn say(&mut self, message: &Value) {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{message}").unwrap();
        stdin.flush().unwrap();
    }

    /// Asks as an MCP client and waits for the answer.
    pub(crate) fn ask(&mut self, id: impl Into<Value>, method: &str, params: &Value) -> Value {
        let id = id.into();
        self.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        self.until(|line| line["id"] == id).0
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    #[allow(dead_code, reason = "not every test looks at the process")]
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGTERM, to this process only.
    pub(crate) fn terminate(&self) {
        let id = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &id])
                .status()
                .unwrap()
                .success()
        );
    }

    /// SIGKILL, to this process only: no chance to put anything in order.
    #[allow(dead_code, reason = "not every test kills")]
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "did not end in time");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A relay in a process of its own.
pub(crate) struct Relay {
    _running: Running,
    pub(crate) url: String,
}

impl Relay {
    pub(crate) fn start(scratch: &Scratch) -> Self {
        let mut command = scratch.tollkeeper("relay");
        command.args(["relay", "--listen", "127.0.0.1:0", "--json"]);
        let running = Running::start(command);
        let ready = running.next().unwrap();
        assert_eq!(ready["event"], "ready");
        Self {
            url: ready["url"].as_str().unwrap().to_owned(),
            _running: running,
        }
    }
}

/// `serve` with the tests' MCP server.
pub(crate) struct Server {
    pub(crate) running: Running,
    pub(crate) ready: Value,
    relay: String,
}

impl Server {
    pub(crate) fn start(scratch: &Scratch, relay: &Relay, flags: &[&str]) -> Self {
        Self::start_with(scratch.tollkeeper("server"), relay, flags)
    }

    pub(crate) fn start_with(mut command: Command, relay: &Relay, flags: &[&str]) -> Self {
        command
            .args(["serve", "--json", "--allow-fake", "--relay", &relay.url])
            .args(flags)
            .arg("--")
            .args(mini_mcp());
        let running = Running::start(command);
        let ready = running.next().expect("serve must become ready");
        Self {
            running,
            ready,
            relay: relay.url.clone(),
        }
    }

    pub(crate) fn npub(&self) -> &str {
        self.ready["npub"].as_str().unwrap()
    }

    /// A command that talks to this server, from `home`.
    fn client(&self, scratch: &Scratch, home: &str, command: &str) -> Command {
        self.client_within(scratch, home, command, 30)
    }

    fn client_within(&self, scratch: &Scratch, home: &str, command: &str, secs: u32) -> Command {
        let mut client = scratch.tollkeeper(home);
        client.args([
            command,
            self.npub(),
            "--relay",
            &self.relay,
            "--timeout",
            &secs.to_string(),
            "--allow-fake",
        ]);
        client
    }

    pub(crate) fn call(&self, scratch: &Scratch, home: &str, words: &[&str]) -> Called {
        Self::called(self.client(scratch, home, "call"), words)
    }

    /// A call of a server that may die over it: killed itself if it still waits after a while, for what it has paid, say.
    #[allow(dead_code, reason = "not every test kills")]
    pub(crate) fn call_briefly(&self, scratch: &Scratch, home: &str, words: &[&str]) -> Called {
        let mut command = self.client_within(scratch, home, "call", 3);
        command.arg("--json").args(words);
        let mut running = Running::start(command);
        let until = Instant::now() + Duration::from_secs(5);
        let mut code = None;
        while code.is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
            code = running.child.try_wait().unwrap();
        }
        if code.is_none() {
            running.kill();
        }
        let lines: Vec<Value> = std::iter::from_fn(|| running.next()).collect();
        Called {
            code: code.and_then(|code| code.code()),
            last: lines.last().cloned().unwrap_or_default(),
            lines,
        }
    }

    fn called(mut command: Command, words: &[&str]) -> Called {
        command.arg("--json").args(words);
        let output = command.output().unwrap();
        let lines: Vec<Value> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        Called {
            code: output.status.code(),
            last: lines.last().cloned().unwrap_or_default(),
            lines,
        }
    }

    pub(crate) fn connect(&self, scratch: &Scratch, home: &str, flags: &[&str]) -> Running {
        let mut command = self.client(scratch, home, "connect");
        command.args(flags);
        Running::start(command)
    }
}

/// What came of `call --json`.
#[derive(Debug)]
pub(crate) struct Called {
    pub(crate) code: Option<i32>,
    pub(crate) last: Value,
    pub(crate) lines: Vec<Value>,
}

impl Called {
    /// The text of a result.
    pub(crate) fn text(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        assert_eq!(self.last["event"], "result", "{self:?}");
        self.last["result"]["content"][0]["text"].as_str().unwrap()
    }
}
