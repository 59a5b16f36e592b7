//! A ledger that fails when the test says so.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::ledger::{
    Applied, Caller, Entry, EntryFilter, Ledger, NewEntry, OpenLimits, Opened, Standing, Transition,
};
use crate::payment::{PaymentInteraction, RequestEventId, Timestamp};

/// How a write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LedgerFault {
    /// It does not.
    #[default]
    None,
    /// Nothing is written, and an error is returned: a full or read-only disk.
    Refuse,
    /// It is written, and an error is returned all the same: a crash between commit and answer.
    WriteAndFail,
}

/// Wraps a ledger and makes its writes fail.
#[derive(Debug)]
pub struct FailingLedger {
    inner: Arc<dyn Ledger>,
    fault: Mutex<LedgerFault>,
    writes: AtomicUsize,
}

impl FailingLedger {
    /// `inner`, without faults at first.
    #[must_use]
    pub fn new(inner: Arc<dyn Ledger>) -> Self {
        Self {
            inner,
            fault: Mutex::default(),
            writes: AtomicUsize::new(0),
        }
    }

    /// How writes fail from now on.
    pub fn set(&self, fault: LedgerFault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// How many writes were asked for.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }

    async fn write<T>(&self, write: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        let fault = *self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            LedgerFault::None => write.await,
            LedgerFault::Refuse => Err(Error::ledger("scripted: not written")),
            LedgerFault::WriteAndFail => {
                write.await?;
                Err(Error::ledger("scripted: written, but nobody was told"))
            }
        }
    }
}

#[async_trait]
impl Ledger for FailingLedger {
    async fn open(&self, new: NewEntry, limits: OpenLimits) -> Result<Opened> {
        self.write(self.inner.open(new, limits)).await
    }

    async fn apply(
        &self,
        id: &RequestEventId,
        moves: Vec<Transition>,
        at: Timestamp,
    ) -> Result<Applied> {
        self.write(self.inner.apply(id, moves, at)).await
    }

    async fn claim_authorization(
        &self,
        caller: &Caller,
        interaction: PaymentInteraction,
        at: Timestamp,
    ) -> Result<Option<Entry>> {
        self.write(self.inner.claim_authorization(caller, interaction, at))
            .await
    }

    async fn standing(&self, caller: &Caller) -> Result<Standing> {
        self.inner.standing(caller).await
    }

    async fn get(&self, id: &RequestEventId) -> Result<Option<Entry>> {
        self.inner.get(id).await
    }

    async fn list(&self, filter: &EntryFilter) -> Result<Vec<Entry>> {
        self.inner.list(filter).await
    }
}
