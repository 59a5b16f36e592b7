//! A relay in the same process, for development and tests. It keeps everything in memory and asks nobody anything.

use std::net::SocketAddr;

use nostr_relay_builder::prelude::{LocalRelay, RateLimit, RelayBuilder};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::{Error, Result};

/// A running development relay; it ends when this is dropped.
#[derive(Debug)]
pub struct DevRelay {
    address: SocketAddr,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl DevRelay {
    /// Listens on `127.0.0.1:port`; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// [`Transport`](crate::ErrorKind::Transport) if the port cannot be had.
    pub async fn start(port: u16) -> Result<Self> {
        let failed =
            |source| Error::transport(format!("cannot listen on port {port}")).with_source(source);
        // The listener is ours rather than the library's: it leaves Nagle's algorithm on, at 44 ms a round trip.
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let limit = RateLimit {
            max_reqs: 100_000,
            notes_per_minute: 10_000_000,
        };
        let relay = LocalRelay::new(RelayBuilder::default().rate_limit(limit));
        let stop = CancellationToken::new();
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(accept(listener, relay, stop.clone())),
        );
        Ok(Self {
            address,
            _guard: stop.clone().drop_guard(),
            stop,
        })
    }

    /// Where it is reached.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Ends it and all its connections.
    pub fn shutdown(&self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, relay: LocalRelay, stop: CancellationToken) {
    loop {
        let Ok((mut stream, from)) = listener.accept().await else {
            // Out of descriptors, most likely: others may be freed.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let relay = relay.clone();
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            if stream.set_nodelay(true).is_err() {
                return;
            }
            // The library wants the stream behind the handshake; nothing was read past it, because a client waits for its
            // end.
            if tokio_tungstenite::accept_async(&mut stream).await.is_ok() {
                let _ = relay.take_connection(stream, from).await;
            }
        }));
    }
}
