//! MCP over a pipe: whoever started this process is its client.

use std::collections::HashSet;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::identity::{Fresh, KnownBy, PlainKey};
use super::outbound::{is_for_plain_clients, on_one_line};
use crate::error::{Error, Result};
use crate::payment::{ClientPubkey, Clock, RequestEventId, SystemClock, Timestamp};
use crate::transport::lines::BoundedLines;
use crate::transport::{Advertisement, Inbound, Origin, Outbound, ReplyTo, ServerTransport};
use crate::wire::Message;

/// The longest message.
const LONGEST: usize = 4 * 1024 * 1024;
/// Messages that wait to be taken in. Beyond that the pipe is left alone, which holds the client back.
const QUEUE: usize = 64;
/// Messages that wait to be written.
const TO_WRITE: usize = 256;
/// The most requests whose answers the end waits for.
const UNANSWERED: usize = 4096;
/// How long a client may leave us waiting with a message.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long after the client has said its last word its requests may go on. It may still read.
const LAST_ANSWERS: Duration = Duration::from_secs(10);
/// How long the end waits for what is being written.
const LAST_WRITES: Duration = Duration::from_millis(500);

/// The server's end of a pipe that carries one message per line, as MCP's stdio transport has it.
pub struct StdioServerTransport {
    inbound: Mutex<mpsc::Receiver<Inbound>>,
    to_write: SyncMutex<Option<mpsc::Sender<String>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    unanswered: Arc<SyncMutex<HashSet<RequestEventId>>>,
    client: ClientPubkey,
    ended: CancellationToken,
    closed: CancellationToken,
}

impl StdioServerTransport {
    /// What the routes of this transport begin with.
    pub const ROUTE: &'static str = "stdio:";

    /// Serves the client that writes to `input` and reads `output`. It is the same client for as long as `key` is the same.
    #[must_use]
    pub fn new(
        key: &PlainKey,
        input: impl AsyncRead + Unpin + Send + 'static,
        output: impl AsyncWrite + Unpin + Send + 'static,
    ) -> Arc<Self> {
        let (to_write, writes) = mpsc::channel(TO_WRITE);
        let (came_in, inbound) = mpsc::channel(QUEUE);
        let ended = CancellationToken::new();
        let closed = CancellationToken::new();
        let unanswered = Arc::<SyncMutex<HashSet<RequestEventId>>>::default();
        let client = key.client(KnownBy::Pipe, b"");
        let writer = tokio::spawn(write(writes, output, ended.clone()));
        let reader = Reader {
            key: key.clone(),
            fresh: Fresh::new(),
            client,
            came_in,
            complain: to_write.clone(),
            unanswered: Arc::clone(&unanswered),
        };
        let (over, stop) = (ended.clone(), closed.clone());
        tokio::spawn(async move {
            stop.run_until_cancelled(reader.read(input)).await;
            // Said before `recv` says that there is nothing more.
            over.cancel();
            drop(reader);
        });
        Arc::new(Self {
            inbound: Mutex::new(inbound),
            to_write: SyncMutex::new(Some(to_write)),
            writer: Mutex::new(Some(writer)),
            unanswered,
            client,
            ended,
            closed,
        })
    }

    /// Cancelled when the client has closed its end and has all its answers.
    #[must_use]
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    async fn put(&self, message: &Message) -> Result<()> {
        let to_write = self.to_write.lock();
        let to_write = to_write.unwrap_or_else(PoisonError::into_inner).clone();
        let to_write = to_write.ok_or_else(|| Error::closed("the pipe is closed"))?;
        let sent = to_write.send_timeout(on_one_line(message), WRITE_TIMEOUT);
        sent.await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => {
                Error::transport("the client does not read what it is sent")
            }
            mpsc::error::SendTimeoutError::Closed(_) => Error::closed("the pipe is closed"),
        })
    }
}

struct Reader {
    key: PlainKey,
    fresh: Fresh,
    client: ClientPubkey,
    came_in: mpsc::Sender<Inbound>,
    complain: mpsc::Sender<String>,
    unanswered: Arc<SyncMutex<HashSet<RequestEventId>>>,
}

impl Reader {
    async fn read(&self, input: impl AsyncRead + Unpin) {
        let mut lines = BoundedLines::new(input, LONGEST);
        while let Ok(Some(line)) = lines.next().await {
            let text = (!line.cut).then(|| String::from_utf8(line.bytes).ok());
            let Some(text) = text.flatten() else {
                self.complain("a message must be UTF-8 and at most 4 MiB")
                    .await;
                continue;
            };
            match Message::parse(&text) {
                Ok(message) => {
                    let origin = self.origin();
                    if matches!(message, Message::Request(_)) {
                        let mut open = unanswered(&self.unanswered);
                        // One that is cancelled is never answered.
                        if open.len() < UNANSWERED {
                            open.insert(origin.event);
                        }
                    }
                    if self
                        .came_in
                        .send(Inbound::new(message, origin))
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
                Err(error) => self.complain(&error.to_string()).await,
            }
        }
        let answered = async {
            while !unanswered(&self.unanswered).is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(LAST_ANSWERS, answered).await;
    }

    fn origin(&self) -> Origin {
        let event = self.fresh.event(&self.key, &self.client);
        let mut origin = Origin::new(self.client, event, now());
        origin.answers_only = true;
        // Nobody is between the two ends of a pipe.
        origin.confidential = true;
        origin.reply_to.route = StdioServerTransport::ROUTE.to_owned();
        origin
    }

    /// Says what is wrong with a message that cannot be answered under its id.
    async fn complain(&self, why: &str) {
        let error =
            json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -32600, "message": why } });
        let _ = self.complain.send(error.to_string()).await;
    }
}

fn unanswered(
    of: &SyncMutex<HashSet<RequestEventId>>,
) -> std::sync::MutexGuard<'_, HashSet<RequestEventId>> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn now() -> Timestamp {
    SystemClock.now()
}

async fn write(
    mut writes: mpsc::Receiver<String>,
    mut output: impl AsyncWrite + Unpin,
    ended: CancellationToken,
) {
    while let Some(mut line) = writes.recv().await {
        line.push('\n');
        let written = async {
            output.write_all(line.as_bytes()).await?;
            // What else waits goes into the same write.
            if writes.is_empty() {
                output.flush().await?;
            }
            std::io::Result::Ok(())
        };
        if let Err(error) = written.await {
            tracing::warn!(%error, "the client does not read any more");
            ended.cancel();
            return;
        }
    }
    let _ = output.flush().await;
}

#[async_trait]
impl ServerTransport for StdioServerTransport {
    async fn recv(&self) -> Option<Inbound> {
        let mut inbound = self.inbound.lock().await;
        tokio::select! {
            biased;
            message = inbound.recv() => message,
            () = self.closed.cancelled() => None,
        }
    }

    async fn send(&self, to: &ReplyTo, outbound: Outbound) -> Result<()> {
        let ends = matches!(outbound.message, Message::Response(_));
        let sent = match is_for_plain_clients(&outbound.message) {
            true => self.put(&outbound.message).await,
            false => Ok(()),
        };
        if ends {
            unanswered(&self.unanswered).remove(&to.event);
        }
        sent
    }

    async fn notify(&self, client: Option<&ClientPubkey>, message: Message) -> Result<()> {
        if client.is_some_and(|client| *client != self.client) || !is_for_plain_clients(&message) {
            return Ok(());
        }
        self.put(&message).await
    }

    /// Where the client is told about payments is the error that asks for one.
    fn advertise(&self, _: Advertisement) {}

    async fn close(&self) {
        self.closed.cancel();
        self.to_write
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = self.writer.lock().await.take() {
            let _ = tokio::time::timeout(LAST_WRITES, writer).await;
        }
    }
}

impl std::fmt::Debug for StdioServerTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StdioServerTransport")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, BufReader, DuplexStream, duplex};

    use super::*;
    use crate::wire::{Notification, Payload, Response, raw};

    fn pipe() -> (Arc<StdioServerTransport>, DuplexStream, DuplexStream) {
        let (to_server, input) = duplex(1 << 16);
        let (output, from_server) = duplex(1 << 16);
        let key = PlainKey::derived_from(b"test");
        let transport = StdioServerTransport::new(&key, input, output);
        (transport, to_server, from_server)
    }

    fn answer(id: i64) -> Outbound {
        Outbound::new(Response {
            id: id.into(),
            payload: Payload::Result(raw(&json!({ "n": id })).unwrap()),
        })
    }

    #[tokio::test]
    async fn lines_are_messages_of_one_client_that_only_answers_reach() {
        let (transport, mut to_server, from_server) = pipe();
        let said = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\"}\nnonsense\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\"}\n";
        to_server.write_all(said.as_bytes()).await.unwrap();
        let one = transport.recv().await.unwrap();
        let two = transport.recv().await.unwrap();
        assert_eq!(one.origin.client, two.origin.client);
        // The same words twice are two requests: nobody sends a line again.
        assert_ne!(one.origin.event, two.origin.event);
        assert!(one.origin.confidential && one.origin.answers_only);
        // Whoever is at the other end of the pipe is the same client in every run.
        assert!(!one.origin.bearer);
        let mut lines = BufReader::new(from_server).lines();
        let complaint = lines.next_line().await.unwrap().unwrap();
        assert!(complaint.contains("\"id\":null"), "{complaint}");
        let accepted = Notification::new("notifications/payment_accepted", &json!({})).unwrap();
        let to = &one.origin.reply_to;
        transport
            .send(to, Outbound::new(Message::from(accepted)))
            .await
            .unwrap();
        transport.send(to, answer(7)).await.unwrap();
        let line = lines.next_line().await.unwrap().unwrap();
        assert_eq!(line, r#"{"jsonrpc":"2.0","id":7,"result":{"n":7}}"#);
        transport.close().await;
        assert_eq!(lines.next_line().await.unwrap(), None);
        assert!(transport.recv().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_input_waits_for_answers_but_not_for_ever() {
        let (transport, mut to_server, _from_server) = pipe();
        let said = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\"}\n{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"a\"}\n";
        to_server.write_all(said.as_bytes()).await.unwrap();
        drop(to_server);
        let one = transport.recv().await.unwrap();
        let _two = transport.recv().await.unwrap();
        let begin = tokio::time::Instant::now();
        transport
            .send(&one.origin.reply_to, answer(1))
            .await
            .unwrap();
        assert!(!transport.ended().is_cancelled());
        assert!(transport.recv().await.is_none());
        transport.ended().cancelled().await;
        assert!(begin.elapsed() >= LAST_ANSWERS);
    }
}
