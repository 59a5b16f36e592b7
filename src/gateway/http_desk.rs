//! A desk at which others ask or tell the gateway something over HTTP: one JSON answer for each request. Plain HTTP on an address of
//! your choice: put what terminates TLS in front of it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::exit::{Failure, Outcome};

/// Connections that are served at a time; further ones wait in the queue of the system.
const AT_ONCE: usize = 64;
/// How long a connection may take to say something.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may live: whoever sends one byte a second must not keep a place.
const LIFETIME: Duration = Duration::from_secs(60);

/// What is said to a request.
pub(super) type Said = (StatusCode, Value);

/// Whoever sits at the desk.
pub(super) trait Desk: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Said> + Send;
}

/// Listens on `address`, which `key` names, and serves until `stop`.
pub(super) async fn open(
    key: &str,
    address: SocketAddr,
    desk: impl Desk,
    stop: CancellationToken,
) -> Outcome<SocketAddr> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Failure::usage(format!("{key}: cannot listen on {address}: {error}")))?;
    let bound = listener
        .local_addr()
        .map_err(|error| Failure::failed(format!("{key}: {error}")))?;
    tokio::spawn(async move {
        stop.run_until_cancelled(accept(listener, Arc::new(desk)))
            .await;
    });
    Ok(bound)
}

/// The body of `request`; `None` if it is longer than `longest`, or does not come.
pub(super) async fn body(request: Request<Incoming>, longest: usize) -> Option<Bytes> {
    let body = Limited::new(request.into_body(), longest).collect();
    let body = tokio::time::timeout(PATIENCE, body).await.ok()?.ok()?;
    Some(body.to_bytes())
}

async fn accept(listener: TcpListener, desk: Arc<impl Desk>) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of sockets, say: it passes.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let desk = Arc::clone(&desk);
                async move { Ok::<_, Infallible>(as_json(desk.answer(request).await)) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            // Whoever is cut off in the middle asks, or tells, again.
            let _ = tokio::time::timeout(LIFETIME, connection).await;
            drop(permit);
        });
    }
}

fn as_json((status, said): Said) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(said.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    struct Echo;

    impl Desk for Echo {
        async fn answer(&self, request: Request<Incoming>) -> Said {
            let path = request.uri().path().to_owned();
            (StatusCode::OK, Value::String(path))
        }
    }

    /// Strangers that connect and say nothing, or one byte, hold every place; they lose them, and others are served.
    #[tokio::test(start_paused = true)]
    async fn whoever_says_nothing_does_not_keep_a_place() {
        let stop = CancellationToken::new();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let bound = open("test", nowhere, Echo, stop.clone()).await.unwrap();
        let mut silent = Vec::new();
        for n in 0..AT_ONCE {
            let mut stream = TcpStream::connect(bound).await.unwrap();
            if n % 2 == 0 {
                stream.write_all(b"G").await.unwrap();
            }
            silent.push(stream);
        }
        let mut stream = TcpStream::connect(bound).await.unwrap();
        let ask = b"GET /x HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(ask).await.unwrap();
        let mut said = String::new();
        let patience = 2 * LIFETIME;
        tokio::time::timeout(patience, stream.read_to_string(&mut said))
            .await
            .expect("the others keep their places")
            .unwrap();
        assert!(
            said.starts_with("HTTP/1.1 200") && said.ends_with("\"/x\""),
            "{said}"
        );
        stop.cancel();
    }
}
