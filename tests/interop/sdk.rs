//! The SDK as installed, and its two ends as processes that a test steers.

use std::cell::Cell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::binary::{Running, Scratch};

/// The SDK, as installed.
pub(crate) struct Sdk {
    folder: PathBuf,
}

impl Sdk {
    /// Installs what is missing; `None`, said aloud, where that cannot be done.
    pub(crate) fn get() -> Option<&'static Self> {
        static INSTALLED: OnceLock<Result<Sdk, String>> = OnceLock::new();
        match INSTALLED.get_or_init(Self::install) {
            Ok(sdk) => Some(sdk),
            Err(reason) if std::env::var_os("CI").is_some_and(|ci| ci == "true") => {
                panic!("tests/real/setup-contextvm failed: {reason}")
            }
            Err(reason) => {
                let test = std::thread::current().name().unwrap_or("a test").to_owned();
                // Not `eprintln!`, which the harness keeps to itself while a test passes.
                let _ = writeln!(
                    std::io::stderr(),
                    "\n{test}: SKIPPED (tests/real/setup-contextvm failed: {reason})"
                );
                None
            }
        }
    }

    fn install() -> Result<Self, String> {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
        let output = Command::new("bash")
            .arg(checkout.join("tests/real/setup-contextvm"))
            .output()
            .map_err(|error| format!("bash: {error}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let reason = said.trim().lines().last().unwrap_or("it says nothing");
            return Err(reason.to_owned());
        }
        let services = std::env::var_os("TOLLKEEPER_SERVICES")
            .map_or_else(|| checkout.join(".services"), PathBuf::from);
        let folder = services.join("contextvm").canonicalize();
        Ok(Self {
            folder: folder.map_err(|error| error.to_string())?,
        })
    }

    /// A script of `tests/interop/node`.
    pub(crate) fn script(&self, name: &str, config: &Value) -> Running {
        self.script_with(name, config, None)
    }

    /// The same, with a wallet.
    fn script_with(&self, name: &str, config: &Value, wallet: Option<&str>) -> Running {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/node");
        let mut command = Command::new("node");
        command
            .env("TOLLKEEPER_SERVICES", &self.folder)
            .env("LOG_LEVEL", "error")
            .arg(scripts.join(name))
            .arg(config.to_string());
        match wallet {
            Some(connection) => command.env("NWC_CONNECTION", connection),
            None => command.env_remove("NWC_CONNECTION"),
        };
        Running::start(command)
    }

    /// The SDK as a client that has not connected yet.
    pub(crate) fn client(&self, config: Value) -> Client {
        self.client_with(config, None)
    }

    /// The same, with a wallet.
    pub(crate) fn client_with(&self, config: Value, wallet: Option<&str>) -> Client {
        let running = self.script_with("client.mjs", &config, wallet);
        let ready = running.next().expect("the client must become ready");
        assert_eq!(ready["event"], "ready", "{ready}");
        Client {
            running,
            next: Cell::new(0),
        }
    }

    /// The SDK as a server.
    pub(crate) fn server(&self, config: Value) -> Server {
        self.server_with(config, None)
    }

    /// The same, with a wallet.
    pub(crate) fn server_with(&self, config: Value, wallet: Option<&str>) -> Server {
        let running = self.script_with("server.mjs", &config, wallet);
        let (ready, _) = running.until(|line| line["event"] == "ready");
        Server {
            running,
            pubkey: ready["pubkey"].as_str().unwrap().to_owned(),
        }
    }
}

/// The SDK's client.
pub(crate) struct Client {
    running: Running,
    next: Cell<i64>,
}

/// What came of one thing that a client was told to do.
#[derive(Debug)]
pub(crate) struct Done {
    /// The last line.
    pub(crate) last: Value,
    /// What was reported before it.
    pub(crate) before: Vec<Value>,
}

impl Client {
    /// Tells it to do something; what comes of it is had with [`done`](Self::done).
    pub(crate) fn start(&mut self, op: &str, mut line: Value) -> i64 {
        let id = self.next.get() + 1;
        self.next.set(id);
        line["id"] = id.into();
        line["op"] = op.into();
        self.running.say(&line);
        id
    }

    pub(crate) fn done(&self, id: i64) -> Done {
        let (last, before) = self
            .running
            .until(|line| line["event"] == "done" && line["id"] == id);
        Done { last, before }
    }

    pub(crate) fn act(&mut self, op: &str, line: Value) -> Done {
        let id = self.start(op, line);
        self.done(id)
    }

    /// Opens the session.
    pub(crate) fn connect(&mut self) -> Done {
        let done = self.act("connect", json!({}));
        assert!(done.last["result"].is_object(), "{done:?}");
        done
    }

    /// The next report of this name, whatever it belongs to.
    pub(crate) fn wait_for(&self, event: &str) -> Value {
        self.running.until(|line| line["event"] == event).0
    }

    pub(crate) fn call(&mut self, name: &str, arguments: Value) -> Done {
        self.act("call", json!({ "name": name, "arguments": arguments }))
    }

    /// Calls with a progress token, which is what allows for a large answer.
    pub(crate) fn call_with_progress(&mut self, name: &str, arguments: Value) -> Done {
        let line = json!({ "name": name, "arguments": arguments, "progress": true });
        self.act("call", line)
    }

    pub(crate) fn request(&mut self, method: &str, params: Value) -> Done {
        self.act("request", json!({ "method": method, "params": params }))
    }

    /// The tags of the event that last brought `of`.
    pub(crate) fn tags(&mut self, of: &str) -> Vec<Vec<String>> {
        let done = self.act("tags", json!({ "of": of }));
        serde_json::from_value(done.last["result"].clone()).unwrap_or_default()
    }
}

impl Done {
    /// The text of a result.
    pub(crate) fn text(&self) -> &str {
        self.last["result"]["content"][0]["text"]
            .as_str()
            .unwrap_or_else(|| panic!("{self:?}"))
    }

    pub(crate) fn code(&self) -> i64 {
        self.last["error"]["code"]
            .as_i64()
            .unwrap_or_else(|| panic!("{self:?}"))
    }

    pub(crate) fn message(&self) -> &str {
        self.last["error"]["message"]
            .as_str()
            .unwrap_or_else(|| panic!("{self:?}"))
    }

    /// What was reported under this name.
    pub(crate) fn reports(&self, event: &str) -> Vec<&Value> {
        let reports = self.before.iter();
        reports.filter(|line| line["event"] == event).collect()
    }

    /// The payment notifications that came, in order.
    pub(crate) fn notifications(&self) -> Vec<&str> {
        self.reports("notification")
            .iter()
            .filter_map(|line| line["method"].as_str())
            .collect()
    }
}

/// The SDK's server.
pub(crate) struct Server {
    pub(crate) running: Running,
    pub(crate) pubkey: String,
}

impl Server {
    /// What it reports next.
    pub(crate) fn report(&self, event: &str) -> Value {
        self.running.until(|line| line["event"] == event).0
    }
}

/// The values of the tags of one name.
pub(crate) fn named<'a>(tags: &'a [Vec<String>], name: &str) -> Vec<&'a [String]> {
    tags.iter()
        .filter(|tag| tag.first().is_some_and(|first| first == name))
        .map(|tag| &tag[1..])
        .collect()
}

/// `tollkeeper` as a client of `server`.
pub(crate) fn buyer(scratch: &Scratch, server: &str, relays: &[&str], word: &str) -> Command {
    let mut command = scratch.tollkeeper("buyer");
    command.args([word, server, "--timeout", "30"]);
    if word != "inspect" {
        command.arg("--allow-fake");
    }
    for relay in relays {
        command.args(["--relay", relay]);
    }
    command
}
