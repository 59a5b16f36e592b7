//! The host's pipes: lines in, lines out, and what is still to be answered.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::gateway::exit::{Failure, Outcome, with_causes};
use crate::transport::BoundedLines;
use crate::transport::MessageChannel;
use crate::wire::{
    ErrorObject, INVALID_REQUEST_CODE, Message, RequestId, Response, SERVER_ERROR_CODE,
};

/// Longest line taken from the host.
const MAX_LINE: usize = 16 * 1024 * 1024;
/// Requests that go out at the same time.
const SIDE_BY_SIDE: u32 = 64;
/// JSON-RPC Parse error.
const PARSE_ERROR: i64 = -32700;

/// Carries messages between a host's pipes and a channel.
pub(super) struct Bridge<C, W> {
    channel: Arc<C>,
    stdout: tokio::sync::Mutex<W>,
    open: Open,
    /// Requests on their way out.
    room: Arc<Semaphore>,
}

impl<C, W> Bridge<C, W>
where
    C: MessageChannel + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    /// A bridge between `channel` and a host that reads from `stdout`.
    pub(super) fn new(channel: Arc<C>, stdout: W) -> Self {
        Self {
            channel,
            stdout: tokio::sync::Mutex::new(stdout),
            open: Open::default(),
            room: Arc::new(Semaphore::new(SIDE_BY_SIDE as usize)),
        }
    }

    pub(super) async fn close(&self) {
        self.channel.close().await;
    }

    /// Until the host closes stdin and has all its answers, or the channel ends.
    pub(super) async fn carry(
        self: &Arc<Self>,
        stdin: impl AsyncRead + Unpin,
        patience: Duration,
    ) -> Outcome {
        tokio::select! {
            outcome = self.carry_to_host() => outcome,
            outcome = async {
                self.carry_from_host(stdin).await?;
                // The host may have asked and closed at once, as scripts do.
                let _ = timeout(patience, self.open.all_answered()).await;
                Ok(())
            } => outcome,
        }
    }

    async fn carry_from_host(self: &Arc<Self>, stdin: impl AsyncRead + Unpin) -> Outcome {
        let mut lines = BoundedLines::new(stdin, MAX_LINE);
        while let Some(line) = lines
            .next()
            .await
            .map_err(|error| Failure::failed(format!("stdin: {error}")))?
        {
            let text = std::str::from_utf8(&line.bytes).ok().filter(|_| !line.cut);
            match text.map(Message::parse) {
                Some(Ok(message)) => self.forward(message).await?,
                Some(Err(_))
                    if serde_json::from_slice::<serde::de::IgnoredAny>(&line.bytes).is_ok() =>
                {
                    self.complain(INVALID_REQUEST_CODE, "Invalid Request")
                        .await?;
                }
                _ => self.complain(PARSE_ERROR, "Parse error").await?,
            }
        }
        debug!("the host closed stdin");
        Ok(())
    }

    /// Requests go out side by side, because a relay may take its time to confirm each. What is only said keeps its place
    /// behind everything before it: a cancellation must not overtake its request.
    async fn forward(self: &Arc<Self>, message: Message) -> Outcome {
        let gone = |_| Failure::failed("the connection is closing");
        let Message::Request(request) = message else {
            let _all = self.room.acquire_many(SIDE_BY_SIDE).await.map_err(gone)?;
            if let Err(error) = self.channel.send(message).await {
                warn!(error = with_causes(&error), "a message was not sent");
            }
            return Ok(());
        };
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(gone)?;
        let id = request.id.clone();
        self.open.add(&id);
        let bridge = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = bridge.channel.send(request.into()).await {
                warn!(error = with_causes(&error), "a request was not sent");
                let message = format!("The server cannot be reached: {error}");
                let error = ErrorObject::new(SERVER_ERROR_CODE, message);
                // A host that does not read any more is noticed elsewhere.
                let _ = bridge.write(Response::from_error(id, &error).into()).await;
            }
            drop(room);
        });
        Ok(())
    }

    async fn carry_to_host(&self) -> Outcome {
        while let Some(message) = self.channel.recv().await {
            self.write(message).await?;
        }
        Err(Failure::failed("the connection to the relays was closed"))
    }

    async fn write(&self, message: Message) -> Outcome {
        self.write_line(message.to_json()).await?;
        if let Message::Response(response) = &message {
            self.open.remove(&response.id);
        }
        Ok(())
    }

    /// An error about something that has no id.
    async fn complain(&self, code: i64, message: &str) -> Outcome {
        let error =
            json!({ "jsonrpc": "2.0", "id": null, "error": { "code": code, "message": message } });
        self.write_line(error.to_string()).await
    }

    async fn write_line(&self, mut line: String) -> Outcome {
        line.push('\n');
        let mut stdout = self.stdout.lock().await;
        let written = async {
            stdout.write_all(line.as_bytes()).await?;
            stdout.flush().await
        };
        // A host that does not read any more is gone.
        written
            .await
            .map_err(|error: std::io::Error| Failure::failed(format!("stdout: {error}")))
    }
}

/// The requests that the host waits for.
#[derive(Debug, Default)]
struct Open {
    ids: Mutex<HashSet<RequestId>>,
    answered: Notify,
}

impl Open {
    fn add(&self, id: &RequestId) {
        self.ids().insert(id.clone());
    }

    fn remove(&self, id: &RequestId) {
        self.ids().remove(id);
        self.answered.notify_one();
    }

    async fn all_answered(&self) {
        while !self.ids().is_empty() {
            self.answered.notified().await;
        }
    }

    fn ids(&self) -> MutexGuard<'_, HashSet<RequestId>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
