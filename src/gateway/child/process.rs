//! One run of the server program: its pipes as bounded channels of messages, and its end.
//!
//! Three small tasks carry stdin, stdout and stderr, and one waits for the end, so that a child that stops reading can
//! never stop us from reading what it writes.

use std::collections::VecDeque;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, info, warn};

use super::ChildCommand;
use crate::error::{Error, ErrorKind, Result};
use crate::gateway::secrets;
use crate::transport::BoundedLines;
use crate::wire::{ErrorObject, Message, RequestId, Response, SERVER_ERROR_CODE};

/// Longest line taken from a child; what is longer counts as a crash.
const MAX_LINE: usize = 16 * 1024 * 1024;
/// Longest line of stderr that is kept.
const MAX_STDERR_LINE: usize = 2048;
/// How many lines of stderr are shown when a child dies.
const LAST_WORDS: usize = 10;
/// Messages on their way in or out of a child.
const QUEUE: usize = 32;
/// How long a child may take to leave by itself once its stdin is closed, and then after SIGTERM.
const PATIENCE: Duration = Duration::from_millis(400);

/// A running child.
#[derive(Debug)]
pub(super) struct Process {
    /// What the child reads. Full while the child does not.
    pub(super) to: mpsc::Sender<Message>,
    /// What the child says; `None` once it is gone or can no longer be understood.
    pub(super) from: mpsc::Receiver<Message>,
    stop: DropGuard,
    watch: JoinHandle<()>,
}

impl Process {
    /// Starts the program.
    pub(super) fn spawn(command: &ChildCommand) -> Result<Self> {
        let mut builder = Command::new(&command.program);
        builder
            .args(&command.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // What only the gateway may know is not handed down.
        for name in secrets::ENVIRONMENT {
            builder.env_remove(name);
        }
        #[cfg(unix)]
        builder.process_group(0);
        let mut child = builder.spawn().map_err(|source| {
            let kind = match source.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => {
                    ErrorKind::Config
                }
                _ => ErrorKind::Closed,
            };
            let message = format!(
                "cannot start {:?}: what follows -- must be a program that speaks MCP on stdin and stdout",
                command.program
            );
            Error::new(kind, message).with_source(source)
        })?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Error::closed("the child has no pipes"));
        };

        let (to, outgoing) = mpsc::channel(QUEUE);
        let (incoming, from) = mpsc::channel(QUEUE);
        let (stop, gone) = (CancellationToken::new(), CancellationToken::new());
        let last_words = LastWords::default();
        tokio::spawn(write(stdin, outgoing));
        let reader = tokio::spawn(read(stdout, incoming, gone.clone()));
        tokio::spawn(listen(stderr, last_words.clone(), gone.clone()));
        let watch = tokio::spawn(watch(child, reader, stop.clone(), gone, last_words));
        Ok(Self {
            to,
            from,
            stop: stop.drop_guard(),
            watch,
        })
    }

    /// Closes stdin, then asks the child to leave, then makes it. Takes at most about a second.
    pub(super) async fn stop(self) {
        drop(self.to);
        drop(self.from);
        drop(self.stop);
        let _ = self.watch.await;
    }
}

async fn write(mut stdin: ChildStdin, mut outgoing: mpsc::Receiver<Message>) {
    while let Some(message) = outgoing.recv().await {
        let mut line = message.to_json();
        line.push('\n');
        if let Err(error) = stdin.write_all(line.as_bytes()).await {
            debug!(%error, "the child does not read any more");
            return;
        }
    }
}

async fn read(
    stdout: impl AsyncRead + Unpin,
    incoming: mpsc::Sender<Message>,
    gone: CancellationToken,
) {
    let mut lines = BoundedLines::new(stdout, MAX_LINE);
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            () = gone.cancelled() => return,
        };
        let line = match line {
            Ok(Some(line)) if !line.cut => line,
            Ok(Some(_)) => {
                warn!(limit = MAX_LINE, "the child wrote a line beyond the limit");
                return;
            }
            Ok(None) => return,
            Err(error) => {
                debug!(%error, "the child cannot be read any more");
                return;
            }
        };
        if let Some(message) = understand(&line.bytes)
            && incoming.send(message).await.is_err()
        {
            return;
        }
    }
}

/// A line as a message. A response that breaks the format still ends the request that it names.
fn understand(line: &[u8]) -> Option<Message> {
    #[derive(Deserialize)]
    struct IdOnly {
        id: RequestId,
    }
    let text = std::str::from_utf8(line).ok();
    if let Some(Ok(message)) = text.map(Message::parse) {
        return Some(message);
    }
    warn!(
        bytes = line.len(),
        "the child wrote a line on stdout that is not a JSON-RPC message"
    );
    let named: IdOnly = serde_json::from_slice(line).ok()?;
    let error = ErrorObject::new(SERVER_ERROR_CODE, "The server gave no usable answer");
    Some(Response::from_error(named.id, &error).into())
}

/// The last lines that a child wrote on stderr.
#[derive(Debug, Clone, Default)]
struct LastWords(Arc<Mutex<VecDeque<String>>>);

impl LastWords {
    fn add(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LAST_WORDS {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn show(&self) {
        let lines = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for line in lines {
            info!(target: "tollkeeper::child", "{line}");
        }
    }
}

async fn listen(stderr: impl AsyncRead + Unpin, last_words: LastWords, gone: CancellationToken) {
    let mut lines = BoundedLines::new(stderr, MAX_STDERR_LINE);
    loop {
        let line = tokio::select! {
            line = lines.next() => line,
            () = gone.cancelled() => return,
        };
        let Ok(Some(line)) = line else { return };
        let text: String = String::from_utf8_lossy(&line.bytes)
            .chars()
            .map(|c| if c.is_control() && c != '\t' { ' ' } else { c })
            .collect();
        debug!(target: "tollkeeper::child", "{text}");
        last_words.add(text);
    }
}

/// Waits for the end of the child, or brings it about.
async fn watch(
    mut child: Child,
    mut reader: JoinHandle<()>,
    stop: CancellationToken,
    gone: CancellationToken,
    last_words: LastWords,
) {
    let group = child.id();
    let ended = tokio::select! {
        status = child.wait() => Some(status),
        () = stop.cancelled() => None,
    };
    if let Some(status) = ended {
        report(status.ok(), &last_words);
        // What it wrote before it died is still in the pipe.
        let _ = tokio::time::timeout(PATIENCE, &mut reader).await;
    } else {
        let stopped = async {
            if let Ok(status) = tokio::time::timeout(PATIENCE, child.wait()).await {
                // It closed its stdout and left by itself before it was told to.
                if status.as_ref().is_ok_and(|status| !status.success()) {
                    report(status.ok(), &last_words);
                }
                return;
            }
            signal::terminate(group);
            if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
                signal::kill(group);
                let _ = child.kill().await;
            }
        };
        stopped.await;
    }
    gone.cancel();
    // Whatever the program started itself (`npx`, a shell) goes with it.
    signal::kill(group);
}

fn report(status: Option<ExitStatus>, last_words: &LastWords) {
    let status = status.map_or_else(|| "unknown status".to_owned(), |status| status.to_string());
    warn!(%status, "the child ended");
    last_words.show();
}

/// Signals to the process group of a child.
#[cfg(unix)]
mod signal {
    use rustix::process::{Pid, Signal, kill_process_group};

    fn send(group: Option<u32>, signal: Signal) {
        let group = group
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        if let Some(group) = group {
            // No such group: nothing is left to signal.
            let _ = kill_process_group(group, signal);
        }
    }

    pub(super) fn terminate(group: Option<u32>) {
        send(group, Signal::TERM);
    }

    pub(super) fn kill(group: Option<u32>) {
        send(group, Signal::KILL);
    }
}

/// Elsewhere the child itself is killed, and nothing more.
#[cfg(not(unix))]
mod signal {
    pub(super) fn terminate(_group: Option<u32>) {}
    pub(super) fn kill(_group: Option<u32>) {}
}
