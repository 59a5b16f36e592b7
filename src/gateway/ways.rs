//! The ways by which clients reach the server: relays, a pipe, HTTP. One gate stands behind all of them.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::config::Serving;
use super::exit::{Failure, Outcome};
use super::wire_up;
use crate::transport::nostr::{NostrKeys, NostrServerTransport};
use crate::transport::plain::http::HttpServerTransport;
use crate::transport::plain::{PlainKey, StdioServerTransport};
use crate::transport::{Joined, ServerTransport};

/// What is open.
pub(super) struct Ways {
    pub(super) relays: Option<Arc<NostrServerTransport>>,
    pub(super) http: Option<Arc<HttpServerTransport>>,
    pub(super) stdio: Option<Arc<StdioServerTransport>>,
}

impl Ways {
    /// Opens what `serving` asks for.
    pub(super) async fn open(serving: &Serving, keys: NostrKeys) -> Outcome<Self> {
        // The same clients for as long as the server has the same key.
        let key = PlainKey::derived_from(keys.reveal_secret_hex().as_bytes());
        let http = match &serving.listen {
            Some(settings) => {
                let bound = HttpServerTransport::bind(settings.clone(), key.clone()).await;
                Some(bound.map_err(|error| {
                    Failure::usage(format!("listen.address (--listen): {error}"))
                })?)
            }
            None => None,
        };
        let relays = match serving.relays.is_empty() {
            true => None,
            false => Some(wire_up::server_transport(serving, keys).await?),
        };
        // Last: from here on the client may speak.
        let stdio = serving
            .stdio
            .then(|| StdioServerTransport::new(&key, tokio::io::stdin(), tokio::io::stdout()));
        Ok(Self {
            relays,
            http,
            stdio,
        })
    }

    /// All of them as one.
    pub(super) fn joined(&self) -> Arc<dyn ServerTransport> {
        let mut ways: Vec<(&'static str, Arc<dyn ServerTransport>)> = Vec::new();
        if let Some(relays) = &self.relays {
            ways.push(("", Arc::clone(relays) as _));
        }
        if let Some(http) = &self.http {
            ways.push((HttpServerTransport::ROUTE, Arc::clone(http) as _));
        }
        if let Some(stdio) = &self.stdio {
            ways.push((StdioServerTransport::ROUTE, Arc::clone(stdio) as _));
        }
        match ways.as_slice() {
            [("", only)] => Arc::clone(only),
            _ => Joined::new(ways),
        }
    }

    /// Cancelled when the client at the other end of the pipe has left.
    pub(super) fn client_left(&self) -> CancellationToken {
        match &self.stdio {
            Some(stdio) => stdio.ended().clone(),
            None => CancellationToken::new(),
        }
    }
}
