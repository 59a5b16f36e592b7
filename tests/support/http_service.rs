//! An HTTP service on loopback that does what the test says: it answers, hangs, breaks off, sends too much.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What came in.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Asked {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The value of a parameter of the query, as it stands there.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.path.split_once('?')?;
        query.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            (key == name).then_some(value)
        })
    }
}

/// What goes out.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// A status and a body.
    Answer(u16, String),
    /// A status and where to.
    Redirect(u16, String),
    /// Nothing, ever.
    Hang,
    /// The connection ends without a word.
    Drop,
    /// Half of an answer, and the connection ends.
    Half(String),
    /// An answer of so many bytes.
    Huge(usize),
    /// The handshake of a websocket with this `sec-websocket-accept`; the connection is the test's from then on.
    Upgrade(String),
}

/// A running service. It ends with this.
pub(crate) struct HttpService {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl HttpService {
    /// Answers each request by `reply`; connections that become something else go to `upgraded`.
    pub(crate) async fn start<R, U>(reply: R, upgraded: U) -> Self
    where
        R: Fn(Asked) -> Reply + Send + Sync + 'static,
        U: Fn(TcpStream) + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (reply, upgraded) = (Arc::new(reply), Arc::new(upgraded));
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let (reply, upgraded) = (Arc::clone(&reply), Arc::clone(&upgraded));
                tokio::spawn(async move {
                    let _ = serve(stream, &*reply, &*upgraded).await;
                });
            }
        });
        Self {
            address,
            connections,
            task,
        }
    }

    /// Answers each request by `reply`.
    pub(crate) async fn answering<R>(reply: R) -> Self
    where
        R: Fn(Asked) -> Reply + Send + Sync + 'static,
    {
        Self::start(reply, drop).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for HttpService {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    reply: &(impl Fn(Asked) -> Reply + Sync),
    upgraded: &(impl Fn(TcpStream) + Sync),
) -> std::io::Result<()> {
    loop {
        let Some(asked) = read(&mut stream).await? else {
            return Ok(());
        };
        match reply(asked) {
            Reply::Answer(status, body) => {
                let head = format!(
                    "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all(head.as_bytes()).await?;
                stream.write_all(body.as_bytes()).await?;
            }
            Reply::Redirect(status, to) => {
                let head =
                    format!("HTTP/1.1 {status} x\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
            }
            Reply::Hang => std::future::pending().await,
            Reply::Drop => return Ok(()),
            Reply::Half(body) => {
                let head = format!(
                    "HTTP/1.1 200 x\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len() * 2
                );
                return stream.write_all(head.as_bytes()).await;
            }
            Reply::Huge(bytes) => {
                stream
                    .write_all(b"HTTP/1.1 200 x\r\nconnection: close\r\n\r\n[")
                    .await?;
                let chunk = vec![b' '; 64 * 1024];
                for _ in 0..bytes.div_ceil(chunk.len()) {
                    stream.write_all(&chunk).await?;
                }
                return Ok(());
            }
            Reply::Upgrade(accept) => {
                let head = format!(
                    "HTTP/1.1 101 x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-accept: {accept}\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).await?;
                upgraded(stream);
                return Ok(());
            }
        }
    }
}

async fn read(stream: &mut TcpStream) -> std::io::Result<Option<Asked>> {
    let mut read = Vec::new();
    let head = loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&read[..head]).into_owned();
    let mut body = read.split_off(head + 4);
    let mut words = text.split(' ');
    let mut asked = Asked {
        method: words.next().unwrap_or_default().to_owned(),
        path: words.next().unwrap_or_default().to_owned(),
        head: text.clone(),
        body: String::new(),
    };
    let length = asked
        .header("content-length")
        .map_or(0, |l| l.parse().unwrap());
    while body.len() < length {
        if stream.read_buf(&mut body).await? == 0 {
            return Ok(None);
        }
    }
    asked.body = String::from_utf8_lossy(&body).into_owned();
    Ok(Some(asked))
}
