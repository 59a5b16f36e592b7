//! The client's side: books and a transport that one write, or one message, does not survive.

use std::sync::Arc;

use async_trait::async_trait;

use super::{CrashPoint, Fuse, What};
use crate::client::DeclineReason;
use crate::client::ledger::{
    AnswerState, Attempt, AttemptFilter, AttemptId, BuyerLedger, Heard, NewAttempt, Settled, Tally,
    Used,
};
use crate::client::policy::Case;
use crate::error::Result;
use crate::gateway::exit::Outcome;
use crate::payment::{InvocationIdentity, ServerPubkey, Timestamp};
use crate::transport::{ClientInbound, ClientTransport, Introduction, Prepared};
use crate::wire::Message;

/// `ledger`, deadly where the environment says so.
pub(in crate::gateway) fn buyer_ledger(
    ledger: Arc<dyn BuyerLedger>,
) -> Outcome<Arc<dyn BuyerLedger>> {
    Ok(match CrashPoint::wanted(What::Write)? {
        Some(point) => Arc::new(CrashingBooks {
            inner: ledger,
            fuse: Fuse::new(point),
        }),
        None => ledger,
    })
}

/// `transport`, deadly where the environment says so.
pub(in crate::gateway) fn client_transport(
    transport: Arc<dyn ClientTransport>,
) -> Outcome<Arc<dyn ClientTransport>> {
    Ok(match CrashPoint::wanted(What::Send)? {
        Some(point) => Arc::new(CrashingClient {
            inner: transport,
            fuse: Fuse::new(point),
        }),
        None => transport,
    })
}

#[derive(Debug)]
struct CrashingBooks {
    inner: Arc<dyn BuyerLedger>,
    fuse: Fuse,
}

#[async_trait]
impl BuyerLedger for CrashingBooks {
    fn has_books(&self) -> bool {
        self.inner.has_books()
    }

    async fn reserve(
        &self,
        new: NewAttempt,
        case: Case,
    ) -> Result<Result<AttemptId, DeclineReason>> {
        self.fuse.burn(self.inner.reserve(new, case)).await
    }

    async fn settle(&self, id: AttemptId, end: Settled, at: Timestamp) -> Result<()> {
        self.fuse.burn(self.inner.settle(id, end, at)).await
    }

    async fn note(&self, id: AttemptId, heard: Heard) -> Result<()> {
        self.fuse.burn(self.inner.note(id, heard)).await
    }

    async fn make_up(
        &self,
        server: &ServerPubkey,
        identity: Option<InvocationIdentity>,
        answer: AnswerState,
    ) -> Result<usize> {
        let made_up = self.inner.make_up(server, identity, answer);
        self.fuse.burn(made_up).await
    }

    async fn list(&self, filter: &AttemptFilter) -> Result<Vec<Attempt>> {
        self.inner.list(filter).await
    }

    async fn used(&self, tallies: Vec<Tally>) -> Result<Vec<Vec<Used>>> {
        self.inner.used(tallies).await
    }
}

#[derive(Debug)]
struct CrashingClient {
    inner: Arc<dyn ClientTransport>,
    fuse: Fuse,
}

#[async_trait]
impl ClientTransport for CrashingClient {
    fn server(&self) -> ServerPubkey {
        self.inner.server()
    }

    async fn prepare(&self, message: &Message, introduction: &Introduction) -> Result<Prepared> {
        self.inner.prepare(message, introduction).await
    }

    async fn publish(&self, prepared: &Prepared) -> Result<()> {
        self.fuse.burn(self.inner.publish(prepared)).await
    }

    async fn recv(&self) -> Option<ClientInbound> {
        self.inner.recv().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
