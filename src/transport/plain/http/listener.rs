//! Takes connections in.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::error::{Error, Result};

/// Connections that are served at a time; further ones wait in the queue of the system.
const AT_ONCE: usize = 2048;
/// How long a connection may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr)> {
    let cannot = |error: std::io::Error| {
        Error::config(format!("cannot listen on {address}: {error}")).with_source(error)
    };
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let address = listener.local_addr().map_err(cannot)?;
    Ok((listener, address))
}

/// Serves connections until `closed`. Answers that are on their way then still get a moment.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>, closed: CancellationToken) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let next = async {
            let permit = Arc::clone(&room).acquire_owned().await.ok()?;
            Some((permit, listener.accept().await))
        };
        let Some(Some((permit, accepted))) = closed.run_until_cancelled(next).await else {
            return;
        };
        let Ok((stream, peer)) = accepted else {
            // Out of sockets, say: it passes.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (shared, closed) = (Arc::clone(&shared), closed.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(shared.answer(peer.ip(), request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = closed.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke");
            }
            drop(permit);
        });
    }
}
