//! The listener for LNbits's webhook, for those who configure one.
//!
//! A webhook is not signed, comes twice, and anybody may send one who knows the address. So the address has a part that
//! cannot be guessed, every number here is bounded, and all that comes of a call is a look-up. As much of HTTP/1.1 is
//! understood as a POST needs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nostr::hashes::{Hash, sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::config::{ApiKey, WebhookConfig};
use super::hints::{Hints, of_webhook};
use crate::error::{Error, Result};

/// The longest head of a request.
const LONGEST_HEAD: usize = 8 * 1024;
/// The longest body: a payment is a few kilobytes, twice that when it is wrapped in a string.
const LONGEST_BODY: usize = 64 * 1024;
/// How many calls are read at a time. The next ones wait outside.
const AT_ONCE: usize = 32;
/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long nobody is let in when nobody can be.
const OUT_OF_BREATH: Duration = Duration::from_millis(200);

/// A webhook that is listened to.
pub(super) struct Webhook {
    listener: TcpListener,
    token: String,
}

impl Webhook {
    /// Listens where `config` says. Returns the address for LNbits, too.
    ///
    /// The part that cannot be guessed is made of `key`: it is the same after a restart, for invoices that are still open.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if nothing can listen there.
    pub(super) async fn bind(config: &WebhookConfig, key: &ApiKey) -> Result<(Self, String)> {
        let token = token_of(key);
        let listener = TcpListener::bind(config.listen).await.map_err(|source| {
            let message = format!("nothing can listen at {} for the webhook", config.listen);
            Error::config(message).with_source(source)
        })?;
        let mut url = config.public_url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(&token);
        }
        Ok((Self { listener, token }, url.into()))
    }

    /// Where it listens.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Takes calls until it is dropped.
    pub(super) async fn listen(self, hints: Hints) {
        let slots = Arc::new(Semaphore::new(AT_ONCE));
        let token: Arc<str> = self.token.into();
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the webhook takes no call");
                    tokio::time::sleep(OUT_OF_BREATH).await;
                    continue;
                }
            };
            let (hints, token) = (hints.clone(), Arc::clone(&token));
            tokio::spawn(async move {
                // Whatever goes wrong here, a look-up finds the payment.
                let _ = timeout(PATIENCE, take(stream, &token, &hints)).await;
                drop(slot);
            });
        }
    }
}

/// 32 hex digits that only those know who know the key, and that do not tell it.
fn token_of(key: &ApiKey) -> String {
    let text = format!("tollkeeper webhook {}", key.reveal());
    let mut token = sha256::Hash::hash(text.as_bytes()).to_string();
    token.truncate(32);
    token
}

async fn take(mut stream: TcpStream, token: &str, hints: &Hints) -> io::Result<()> {
    let status = match read_call(&mut stream, token).await? {
        Call::Hint(hash) => {
            hints.may_be_paid(hash);
            "204 No Content"
        }
        // Said alike to whoever does not know the address and to whoever says nothing of use.
        Call::Nonsense => "404 Not Found",
    };
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

enum Call {
    Hint(String),
    Nonsense,
}

async fn read_call(stream: &mut TcpStream, token: &str) -> io::Result<Call> {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    let head_ends = loop {
        if let Some(at) = find(&read, b"\r\n\r\n") {
            break at;
        }
        let count = stream.read(&mut buffer).await?;
        if count == 0 || read.len() > LONGEST_HEAD {
            return Ok(Call::Nonsense);
        }
        read.extend_from_slice(buffer.get(..count).unwrap_or_default());
    };
    let head = String::from_utf8_lossy(read.get(..head_ends).unwrap_or_default()).into_owned();
    let Some(length) = body_length(&head, token) else {
        return Ok(Call::Nonsense);
    };
    let mut body = read.split_off((head_ends + 4).min(read.len()));
    while body.len() < length {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(Call::Nonsense);
        }
        body.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
    body.truncate(length);
    Ok(of_webhook(&body).map_or(Call::Nonsense, Call::Hint))
}

/// How long the body is, if the call is one: a POST to the address that cannot be guessed.
fn body_length(head: &str, token: &str) -> Option<usize> {
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, path, version) = (words.next()?, words.next()?, words.next()?);
    let path = path.split('?').next()?;
    // A proxy may have put something before it, or taken it away.
    let last = path.rsplit('/').next()?;
    if method != "POST" || !version.starts_with("HTTP/1.") || !same(last, token) {
        return None;
    }
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    length.filter(|length| *length <= LONGEST_BODY)
}

/// Compares in a time that does not tell how much was right.
fn same(given: &str, token: &str) -> bool {
    given.len() == token.len()
        && given
            .bytes()
            .zip(token.bytes())
            .fold(0, |differ, (a, b)| differ | (a ^ b))
            == 0
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_post_to_the_secret_address_is_a_call() {
        let token = "0123456789abcdef0123456789abcdef";
        let head = |line: &str, length: &str| format!("{line}\r\nHost: x\r\n{length}");
        for (line, length, taken) in [
            (
                format!("POST /{token} HTTP/1.1"),
                "Content-Length: 7",
                Some(7),
            ),
            (
                format!("POST /shop/{token}?x=1 HTTP/1.1"),
                "content-length:7",
                Some(7),
            ),
            (format!("GET /{token} HTTP/1.1"), "Content-Length: 7", None),
            (
                format!("POST /{token}/ HTTP/1.1"),
                "Content-Length: 7",
                None,
            ),
            (
                "POST /0123456789abcdef0123456789abcdee HTTP/1.1".to_owned(),
                "Content-Length: 7",
                None,
            ),
            ("POST / HTTP/1.1".to_owned(), "Content-Length: 7", None),
            (format!("POST /{token}"), "Content-Length: 7", None),
            (
                format!("POST /{token} HTTP/1.1"),
                "Content-Length: 65537",
                None,
            ),
            (
                format!("POST /{token} HTTP/1.1"),
                "Content-Length: -1",
                None,
            ),
            (
                format!("POST /{token} HTTP/1.1"),
                "Transfer-Encoding: chunked",
                None,
            ),
        ] {
            assert_eq!(
                body_length(&head(&line, length), token),
                taken,
                "{line} {length}"
            );
        }
    }
}
