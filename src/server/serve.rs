//! The paid server: a transport that yields only what may be executed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc};

use super::ServerPayments;
use crate::error::Result;
use crate::gate::{Gate, GateParts, direct_of};
use crate::ledger::EntryFilter;
use crate::payment::{ClientPubkey, PaymentInteractionPolicy};
use crate::transport::{Advertisement, Inbound, Outbound, ReplyTo, ServerTransport};
use crate::wire::Message;

/// Puts the gate in front of `transport`: the returned transport is served as before, but priced requests come out of it
/// only when they are paid, each once.
///
/// ```
/// # use std::sync::Arc;
/// # use tollkeeper::{rails::fake::FakeProcessor, server::{ServerPayments, with_server_payments}, transport::memory};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> tollkeeper::Result<()> {
/// let (transport, _client) = memory::pair();
/// let payments = ServerPayments::builder()
///     .price("tool:search=10 sat".parse()?)
///     .processor(FakeProcessor::new())
///     .build()?;
/// let server = with_server_payments(transport, payments).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if the ledger cannot be read: a gate that cannot keep books does not
/// open.
pub async fn with_server_payments(
    transport: Arc<dyn ServerTransport>,
    payments: ServerPayments,
) -> Result<Arc<PaidServer>> {
    payments
        .ledger
        .list(&EntryFilter::new(Vec::new(), 1))
        .await?;
    let asked_for = payments
        .processors
        .iter()
        .filter(|processor| processor.mandates().is_none())
        .map(|processor| processor.pmi());
    // Last: nobody is asked to pay by these, but who can send them along must know that they are taken (N-106).
    let sent_along = payments.processors.iter().filter_map(direct_of);
    let pmis = asked_for.chain(sent_along).cloned().collect();
    let explicit_gating = payments.settings.interaction == PaymentInteractionPolicy::Optional;
    transport.advertise(Advertisement::new(
        pmis,
        explicit_gating,
        payments.prices.cap_tags(),
    ));
    let (gate, to_handler) = Gate::new(GateParts {
        prices: payments.prices,
        resolver: payments.resolver,
        check: payments.check,
        entitlements: payments.entitlements,
        processors: payments.processors,
        rates: payments.rates,
        challenges: payments.challenges,
        observers: payments.observers,
        ledger: payments.ledger,
        transport: Arc::clone(&transport),
        clock: payments.clock,
        settings: payments.settings,
    });
    tokio::spawn(let_in(Arc::clone(&gate), Arc::clone(&transport)));
    Ok(Arc::new(PaidServer {
        transport,
        gate,
        to_handler: Mutex::new(to_handler),
    }))
}

/// Recovers what a former run left, then lets messages in until the transport or the gate closes.
async fn let_in(gate: Arc<Gate>, transport: Arc<dyn ServerTransport>) {
    if let Err(error) = gate.recover().await {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the ledger could not be recovered; nothing is let in"
        );
        gate.close(Duration::from_secs(5)).await;
        return;
    }
    loop {
        let inbound = tokio::select! {
            inbound = transport.recv() => inbound,
            () = gate.closing().cancelled() => None,
        };
        match inbound {
            Some(inbound) => gate.enter(inbound).await,
            None => break,
        }
    }
    gate.closing().cancel();
}

/// A server transport behind a gate. See [`with_server_payments`].
#[derive(Debug)]
pub struct PaidServer {
    transport: Arc<dyn ServerTransport>,
    gate: Arc<Gate>,
    to_handler: Mutex<mpsc::Receiver<Inbound>>,
}

impl PaidServer {
    /// The gate.
    #[must_use]
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Takes no new work, waits until what is paid is written down, at most `within`, and closes the transport. Whatever
    /// is unfinished then is in the ledger, and is picked up at the next start.
    pub async fn shutdown(&self, within: Duration) {
        self.gate.close(within).await;
        self.transport.close().await;
    }
}

impl Drop for PaidServer {
    fn drop(&mut self) {
        self.gate.closing().cancel();
    }
}

#[async_trait]
impl ServerTransport for PaidServer {
    async fn recv(&self) -> Option<Inbound> {
        let mut to_handler = self.to_handler.lock().await;
        tokio::select! {
            biased;
            inbound = to_handler.recv() => inbound,
            () = self.gate.closing().cancelled() => None,
        }
    }

    async fn send(&self, to: &ReplyTo, outbound: Outbound) -> Result<()> {
        self.gate.deliver(to, outbound).await
    }

    async fn notify(&self, client: Option<&ClientPubkey>, message: Message) -> Result<()> {
        self.transport.notify(client, message).await
    }

    fn can_carry(&self, to: &ReplyTo, outbound: &Outbound) -> bool {
        self.transport.can_carry(to, outbound)
    }

    fn advertise(&self, payments: Advertisement) {
        self.transport.advertise(payments);
    }

    async fn close(&self) {
        self.shutdown(Duration::from_secs(3)).await;
    }
}
