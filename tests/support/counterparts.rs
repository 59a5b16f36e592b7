//! What others wrote, as `tests/real/setup` installs it, and a relay of theirs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::binary::{Running, Scratch};

/// Runs a script that installs something. What it prints on stdout, or the last that it says on stderr.
pub(crate) fn set_up(script: &str) -> Result<String, String> {
    let output = Command::new("bash")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
        .output()
        .map_err(|error| format!("bash: {error}"))?;
    let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = text(&output.stderr);
    Err(said.lines().last().unwrap_or("it says nothing").to_owned())
}

/// Says aloud that the test is skipped, and why. In CI a test that did not run is a test that failed.
pub(crate) fn skipped<T>(script: &str, reason: &str) -> Option<T> {
    if std::env::var_os("CI").is_some_and(|ci| ci == "true") {
        panic!("{script} failed: {reason}");
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not `eprintln!`, which the harness keeps to itself while a test passes.
    let _ = writeln!(
        std::io::stderr(),
        "\n{test}: SKIPPED ({script} failed: {reason})"
    );
    None
}

/// What others wrote, as installed.
pub(crate) struct Counterparts {
    folder: PathBuf,
}

impl Counterparts {
    /// Installs what is missing; `None`, said aloud, where that cannot be done.
    pub(crate) fn get() -> Option<&'static Self> {
        static INSTALLED: OnceLock<Result<Counterparts, String>> = OnceLock::new();
        match INSTALLED.get_or_init(Self::install) {
            Ok(counterparts) => Some(counterparts),
            Err(reason) => skipped("tests/real/setup", reason),
        }
    }

    fn install() -> Result<Self, String> {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
        set_up("tests/real/setup")?;
        let folder = std::env::var_os("TOLLKEEPER_SERVICES")
            .map_or_else(|| checkout.join(".services"), PathBuf::from);
        let folder = folder.canonicalize().map_err(|error| error.to_string())?;
        Ok(Self { folder })
    }

    /// The MCP project's own test server, from npm.
    pub(crate) fn everything(&self) -> Vec<String> {
        let script = "node/node_modules/@modelcontextprotocol/server-everything/dist/index.js";
        vec!["node".to_owned(), self.path(script), "stdio".to_owned()]
    }

    /// The MCP project's clock, from PyPI.
    pub(crate) fn time(&self) -> Vec<String> {
        [
            &self.path("python/bin/mcp-server-time"),
            "--local-timezone",
            "UTC",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    pub(crate) fn python(&self) -> String {
        self.path("python/bin/python")
    }

    fn path(&self, below: &str) -> String {
        self.folder.join(below).display().to_string()
    }

    /// A script of ours in `tests/real`, which loads what others wrote.
    pub(crate) fn script(
        &self,
        scratch: &Scratch,
        interpreter: &str,
        name: &str,
        home: &str,
    ) -> Command {
        // The environment is that of a `tollkeeper`, because a buyer's script launches one.
        let environment = scratch.tollkeeper(home);
        let mut command = Command::new(interpreter);
        for (name, value) in environment.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("TOLLKEEPER_SERVICES", &self.folder).arg(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/real")
                .join(name),
        );
        command
    }

    pub(crate) fn relay(&self, scratch: &Scratch) -> Relay {
        let running = Running::start(self.script(scratch, "node", "relay.mjs", "relay"));
        let ready = running.next().expect("the relay must become ready");
        Relay {
            url: ready["url"].as_str().unwrap().to_owned(),
            _running: running,
        }
    }
}

/// A relay from npm, in a process of its own.
pub(crate) struct Relay {
    _running: Running,
    pub(crate) url: String,
}
