//! A client and a server in one process, with nothing between them: for tests, benches and examples.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    Advertisement, ClientInbound, ClientTransport, Inbound, Introduction, Origin, Outbound,
    Prepared, ReplyTo, ServerTransport,
};
use crate::error::{Error, Result};
use crate::payment::{
    BearerToken, ClientPubkey, Clock, PaymentInteraction, Pmi, RequestEventId, ServerPubkey,
    SystemClock, Timestamp,
};
use crate::wire::{Message, raw};

/// How many messages may wait in each direction.
const QUEUE: usize = 1024;

/// How many published events a client remembers, to tell a repetition.
const REMEMBERED: usize = 10_000;

/// Both ends of one connection.
#[must_use]
pub fn pair() -> (Arc<MemoryServer>, Arc<MemoryClient>) {
    let server = server();
    let client = server.client(ClientPubkey::from_bytes([1; 32]));
    (server, client)
}

/// A server without clients; [`MemoryServer::client`] connects them.
#[must_use]
pub fn server() -> Arc<MemoryServer> {
    server_with_clock(Arc::new(SystemClock))
}

/// As [`server`], with clients that date their messages by `clock`.
#[must_use]
pub fn server_with_clock(clock: Arc<dyn Clock>) -> Arc<MemoryServer> {
    let (inbox, inbound) = mpsc::channel(QUEUE);
    Arc::new(MemoryServer {
        inbox,
        inbound: Mutex::new(inbound),
        clients: SyncMutex::default(),
        advertised: SyncMutex::default(),
        clock,
        closed: CancellationToken::new(),
    })
}

/// The server's end.
#[derive(Debug)]
pub struct MemoryServer {
    inbox: mpsc::Sender<Inbound>,
    inbound: Mutex<mpsc::Receiver<Inbound>>,
    /// Who comes back under a key has the newer end.
    clients: SyncMutex<HashMap<ClientPubkey, mpsc::Sender<ClientInbound>>>,
    advertised: SyncMutex<Advertisement>,
    clock: Arc<dyn Clock>,
    closed: CancellationToken,
}

impl MemoryServer {
    /// Connects a client that signs as `key`.
    #[must_use]
    pub fn client(&self, key: ClientPubkey) -> Arc<MemoryClient> {
        self.client_as(key, |_| {})
    }

    /// The same, of whose messages the server is told what `dress` writes: that they came unencrypted, or that nothing but answers
    /// reaches the client.
    #[must_use]
    pub fn client_as(&self, key: ClientPubkey, dress: fn(&mut Origin)) -> Arc<MemoryClient> {
        let (outbox, inbound) = mpsc::channel(QUEUE);
        self.clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, outbox);
        Arc::new(MemoryClient {
            key,
            dress,
            to_server: self.inbox.clone(),
            inbound: Mutex::new(inbound),
            next: AtomicU64::new(0),
            published: SyncMutex::default(),
            clock: Arc::clone(&self.clock),
            closed: CancellationToken::new(),
        })
    }

    /// What the server last said about payments.
    #[must_use]
    pub fn advertised(&self) -> Advertisement {
        self.advertised
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn outbox(&self, client: &ClientPubkey) -> Option<mpsc::Sender<ClientInbound>> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.get(client).cloned()
    }
}

#[async_trait]
impl ServerTransport for MemoryServer {
    async fn recv(&self) -> Option<Inbound> {
        let mut inbound = self.inbound.lock().await;
        tokio::select! {
            biased;
            message = inbound.recv() => message,
            () = self.closed.cancelled() => None,
        }
    }

    async fn send(&self, to: &ReplyTo, outbound: Outbound) -> Result<()> {
        let outbox = self
            .outbox(&to.client)
            .ok_or_else(|| Error::transport("no such client"))?;
        let mut message = ClientInbound::new(outbound.message, Some(to.event));
        message.tags = outbound.tags;
        outbox
            .send(message)
            .await
            .map_err(|_| Error::closed("the client is gone"))
    }

    async fn notify(&self, client: Option<&ClientPubkey>, message: Message) -> Result<()> {
        let outboxes: Vec<_> = {
            let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
            clients
                .iter()
                .filter(|(key, _)| client.is_none_or(|c| c == *key))
                .map(|(_, out)| out.clone())
                .collect()
        };
        for outbox in outboxes {
            let _ = outbox.send(ClientInbound::new(message.clone(), None)).await;
        }
        Ok(())
    }

    fn advertise(&self, payments: Advertisement) {
        *self
            .advertised
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = payments;
    }

    async fn close(&self) {
        self.closed.cancel();
    }
}

/// A client's end.
#[derive(Debug)]
pub struct MemoryClient {
    key: ClientPubkey,
    dress: fn(&mut Origin),
    to_server: mpsc::Sender<Inbound>,
    inbound: Mutex<mpsc::Receiver<ClientInbound>>,
    next: AtomicU64,
    published: SyncMutex<HashSet<RequestEventId>>,
    clock: Arc<dyn Clock>,
    closed: CancellationToken,
}

/// What stands in for a signed event.
#[derive(Serialize, Deserialize)]
struct Signed {
    message: Box<RawValue>,
    pmis: Vec<Pmi>,
    interaction: Option<PaymentInteraction>,
    licence: Option<String>,
    created_at: u64,
}

#[async_trait]
impl ClientTransport for MemoryClient {
    fn server(&self) -> ServerPubkey {
        ServerPubkey::from_bytes([0; 32])
    }

    async fn prepare(&self, message: &Message, introduction: &Introduction) -> Result<Prepared> {
        let message = RawValue::from_string(message.to_json())
            .map_err(|source| Error::wire("not JSON").with_source(source))?;
        let Introduction {
            pmis,
            interaction,
            licence,
        } = introduction.clone();
        let created_at = self.clock.now().as_secs();
        let signed = raw(&Signed {
            message,
            pmis,
            interaction,
            licence: licence.map(|token| token.reveal().to_owned()),
            created_at,
        })?
        .get()
        .to_owned();
        let mut hash = Sha256::new();
        hash.update(self.key.as_bytes());
        hash.update(self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        hash.update(&signed);
        Ok(Prepared::new(
            RequestEventId::from_bytes(hash.finalize().into()),
            signed,
        ))
    }

    async fn publish(&self, prepared: &Prepared) -> Result<()> {
        let signed: Signed = serde_json::from_str(&prepared.signed)
            .map_err(|source| Error::wire("not a prepared message").with_source(source))?;
        let mut origin = Origin::new(
            self.key,
            prepared.event,
            Timestamp::from_secs(signed.created_at),
        );
        origin.pmis = signed.pmis;
        origin.interaction = signed.interaction;
        origin.tokens = signed
            .licence
            .iter()
            .filter_map(|text| BearerToken::new(text))
            .collect();
        // Nothing leaves the process.
        origin.confidential = true;
        origin.redelivered = {
            let mut published = self
                .published
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if published.len() >= REMEMBERED {
                published.clear();
            }
            !published.insert(prepared.event)
        };
        (self.dress)(&mut origin);
        let inbound = Inbound::new(Message::parse(signed.message.get())?, origin);
        self.to_server
            .send(inbound)
            .await
            .map_err(|_| Error::closed("the server is gone"))
    }

    async fn recv(&self) -> Option<ClientInbound> {
        let mut inbound = self.inbound.lock().await;
        tokio::select! {
            biased;
            message = inbound.recv() => message,
            () = self.closed.cancelled() => None,
        }
    }

    async fn close(&self) {
        self.closed.cancel();
    }
}
