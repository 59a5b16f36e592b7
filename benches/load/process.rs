//! Processes of the load program, and what the kernel says that they used.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// A process that prints one line of JSON once it is ready, and ends with its standard input. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    _stdin: ChildStdin,
    /// What it said when it was ready.
    pub(crate) ready: Value,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdin = child.stdin.take().expect("a pipe");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("a line");
        let ready = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{command:?} said {line:?}: {error}"));
        // Whatever else it says is not kept, but must not hold it up.
        std::thread::spawn(move || for _ in lines.lines().map_while(Result::ok) {});
        Self {
            child,
            _stdin: stdin,
            ready,
        }
    }

    /// This program again, in another part.
    pub(crate) fn role(role: &str, config: &Value) -> Self {
        let program = std::env::current_exe().expect("this program");
        Self::start(Command::new(program).args(["role", role, &config.to_string()]))
    }

    pub(crate) fn text(&self, key: &str) -> String {
        self.ready[key].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn used(&self) -> Used {
        Used::of(&self.child.id().to_string())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has used so far, all its threads together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    pub(crate) cpu: Duration,
    /// The most that it ever held in memory.
    pub(crate) peak_mib: f64,
    /// What it holds now.
    pub(crate) now_mib: f64,
    /// How often a thread of it went to sleep, and so was woken.
    pub(crate) sleeps: u64,
}

impl Used {
    /// Of the process with this number, or of `self`.
    pub(crate) fn of(process: &str) -> Self {
        let read = |name: &str| {
            std::fs::read_to_string(format!("/proc/{process}/{name}")).unwrap_or_default()
        };
        let (stat, status) = (read("stat"), read("status"));
        // The name of the program may hold anything; the numbers follow its last bracket.
        let fields: Vec<u64> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        let ticks = |at: usize| fields.get(at).copied().unwrap_or(0);
        let mib = |key: &str| number(&status, key) as f64 / 1024.0;
        let threads = std::fs::read_dir(format!("/proc/{process}/task"));
        let sleeps = threads
            .into_iter()
            .flatten()
            .flatten()
            .map(|thread| {
                let status = std::fs::read_to_string(thread.path().join("status"));
                number(&status.unwrap_or_default(), "voluntary_ctxt_switches:")
            })
            .sum();
        Self {
            // User and system time, in hundredths of a second.
            cpu: Duration::from_millis(10 * (ticks(11) + ticks(12))),
            peak_mib: mib("VmHWM:"),
            now_mib: mib("VmRSS:"),
            sleeps,
        }
    }
}

fn number(status: &str, key: &str) -> u64 {
    let line = status.lines().find(|line| line.starts_with(key));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or(0)
}

/// What this thread has computed so far.
pub(crate) fn thread_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// Says that this process is ready.
pub(crate) fn ready(line: &Value) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Returns when whoever started this process is gone.
pub(crate) async fn until_stdin_ends() {
    let (gone, end) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = gone.send(());
    });
    let _ = end.await;
}
