//! MCP over Streamable HTTP: one path that takes messages by POST, answers with JSON or with a stream of events, and
//! offers a stream of what belongs to no request by GET.
//!
//! ```text
//! listener ── door (is this request for us?) ── caller (who is it?) ── exchange (message in, answer out)
//!                                                                 └── listeners (GET)
//! ```
//!
//! It speaks plain HTTP. What ends TLS stands in front of it, on this machine or named as a proxy that is trusted; nobody else is
//! let in, so nothing that is presented here was readable on the way.
//!
//! Source: Model Context Protocol, "Streamable HTTP" of the transports chapter, 2025-03-26 to 2025-11-25.

mod body;
mod caller;
mod door;
mod exchange;
mod listener;
mod listeners;
mod session;
mod settings;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use self::exchange::Exchanges;
use self::listeners::Listeners;
use self::session::Sessions;
pub use self::settings::{HttpSettings, TrustedProxy};
use super::identity::{Fresh, PlainKey};
use super::outbound::{is_for_plain_clients, on_one_line};
use crate::error::{Error, Result};
use crate::payment::ClientPubkey;
use crate::transport::{Advertisement, Inbound, Outbound, ReplyTo, ServerTransport};
use crate::wire::Message;

/// Messages that wait to be taken in. Beyond that clients wait for their turn.
const QUEUE: usize = 256;

/// The server's end of Streamable HTTP.
pub struct HttpServerTransport {
    shared: Arc<Shared>,
    inbound: Mutex<mpsc::Receiver<Inbound>>,
    address: SocketAddr,
    closed: CancellationToken,
}

/// What all connections share.
struct Shared {
    settings: HttpSettings,
    address: SocketAddr,
    key: PlainKey,
    fresh: Fresh,
    sessions: Sessions,
    exchanges: Exchanges,
    listeners: Listeners,
    came_in: mpsc::Sender<Inbound>,
}

impl HttpServerTransport {
    /// What the routes of this transport begin with.
    pub const ROUTE: &'static str = "http:";

    /// Listens. Clients are the same after a restart for as long as `key` is the same.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the address cannot be listened on.
    pub async fn bind(settings: HttpSettings, key: PlainKey) -> Result<Arc<Self>> {
        let (socket, address) = listener::bind(settings.address).await?;
        let (came_in, inbound) = mpsc::channel(QUEUE);
        let closed = CancellationToken::new();
        let shared = Arc::new(Shared {
            sessions: Sessions::new(key.clone()),
            settings,
            address,
            key,
            fresh: Fresh::new(),
            exchanges: Exchanges::default(),
            listeners: Listeners::default(),
            came_in,
        });
        tokio::spawn(listener::accept(
            socket,
            Arc::clone(&shared),
            closed.clone(),
        ));
        Ok(Arc::new(Self {
            shared,
            inbound: Mutex::new(inbound),
            address,
            closed,
        }))
    }

    /// Where it listens: with the port that was found, if any would do.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the server, as clients on this machine name it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}{}", self.address, self.shared.settings.path)
    }
}

#[async_trait]
impl ServerTransport for HttpServerTransport {
    async fn recv(&self) -> Option<Inbound> {
        let mut inbound = self.inbound.lock().await;
        tokio::select! {
            biased;
            message = inbound.recv() => message,
            () = self.closed.cancelled() => None,
        }
    }

    async fn send(&self, to: &ReplyTo, outbound: Outbound) -> Result<()> {
        if !is_for_plain_clients(&outbound.message) {
            return Ok(());
        }
        let last = matches!(outbound.message, Message::Response(_));
        let json = on_one_line(&outbound.message);
        if self.shared.exchanges.put(&to.event, json, last).await {
            return Ok(());
        }
        if last {
            // The client hung up. What it paid for is in the ledger, and the same request gets it again.
            return Err(Error::transport("the client did not wait for its answer"));
        }
        self.shared
            .listeners
            .tell(Some(&to.client), &outbound.message);
        Ok(())
    }

    async fn notify(&self, client: Option<&ClientPubkey>, message: Message) -> Result<()> {
        if is_for_plain_clients(&message) {
            self.shared.listeners.tell(client, &message);
        }
        Ok(())
    }

    /// Where the client is told about payments is the error that asks for one.
    fn advertise(&self, _: Advertisement) {}

    async fn close(&self) {
        self.closed.cancel();
        self.shared.listeners.close();
    }
}

impl std::fmt::Debug for HttpServerTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpServerTransport")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
