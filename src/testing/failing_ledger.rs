//! A ledger that fails when the test says so.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::error::{Error, Result};
use crate::ledger::{
    Account, Accounts, Applied, Caller, Credit, Drawn, Entry, EntryFilter, FreeCall,
    FreeCallFilter, FreeCalls, FreeLimits, FreeSpend, GiveBack, Ledger, LetIn, Movement, NewEntry,
    OpenLimits, Opened, Retention, Standing, Transition,
};
use crate::payment::{ClientPubkey, PaymentInteraction, RequestEventId, Timestamp, Unit};

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
    faults: Mutex<Faults>,
    writes: AtomicUsize,
    cut: AtomicBool,
}

/// Which write fails, and how.
#[derive(Debug, Default)]
struct Faults {
    always: LedgerFault,
    /// The number of one write, from 1, how it fails, and whether it is the last that this process makes.
    once: Option<(usize, LedgerFault, bool)>,
}

impl FailingLedger {
    /// `inner`, without faults at first.
    #[must_use]
    pub fn new(inner: Arc<dyn Ledger>) -> Self {
        Self {
            inner,
            faults: Mutex::default(),
            writes: AtomicUsize::new(0),
            cut: AtomicBool::new(false),
        }
    }

    /// How writes fail from now on.
    pub fn set(&self, fault: LedgerFault) {
        self.faults().always = fault;
    }

    /// The `nth` write, counted from 1 since the ledger was made, fails like this; the others do not.
    pub fn fail_at(&self, nth: usize, fault: LedgerFault) {
        self.faults().once = Some((nth, fault, false));
    }

    /// As [`fail_at`](Self::fail_at), and then the process has no ledger any more: it died there.
    pub fn crash_at(&self, nth: usize, fault: LedgerFault) {
        self.faults().once = Some((nth, fault, true));
    }

    /// Answers nothing from now on, so that what is left of a process that is said to have died cannot write.
    pub fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the write with this number fails.
    fn fault_of(&self, nth: usize) -> LedgerFault {
        let faults = self.faults();
        match faults.once {
            Some((at, fault, last)) if at == nth => {
                if last {
                    self.cut();
                }
                fault
            }
            _ => faults.always,
        }
    }

    fn reachable(&self) -> Result<()> {
        if self.cut.load(Ordering::SeqCst) {
            return Err(Error::ledger("scripted: gone"));
        }
        Ok(())
    }

    /// How many writes were asked for.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.writes.load(Ordering::SeqCst)
    }

    async fn write<T>(&self, write: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let nth = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        self.reachable()?;
        let fault = self.fault_of(nth);
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
        self.reachable()?;
        self.inner.standing(caller).await
    }

    async fn note_answered(&self, event: &RequestEventId, at: Timestamp) -> Result<bool> {
        self.write(self.inner.note_answered(event, at)).await
    }

    /// Not counted among the writes: it happens beside what a test does.
    async fn note_let_in(&self, events: Vec<LetIn>) -> Result<()> {
        self.reachable()?;
        match self.faults().always {
            LedgerFault::None => {}
            _ => return Err(Error::ledger("scripted: not written")),
        }
        self.inner.note_let_in(events).await
    }

    async fn let_in_since(&self, since: Timestamp) -> Result<Vec<LetIn>> {
        self.reachable()?;
        self.inner.let_in_since(since).await
    }

    async fn prune(&self, retention: Retention) -> Result<usize> {
        self.write(self.inner.prune(retention)).await
    }

    async fn get(&self, id: &RequestEventId) -> Result<Option<Entry>> {
        self.reachable()?;
        self.inner.get(id).await
    }

    async fn list(&self, filter: &EntryFilter) -> Result<Vec<Entry>> {
        self.reachable()?;
        self.inner.list(filter).await
    }
}

#[async_trait]
impl FreeCalls for FailingLedger {
    async fn note_free(&self, calls: Vec<FreeCall>) -> Result<()> {
        self.write(self.inner.note_free(calls)).await
    }

    async fn spend_free(&self, call: FreeCall, limits: FreeLimits) -> Result<FreeSpend> {
        self.write(self.inner.spend_free(call, limits)).await
    }

    async fn free_call(&self, event: &RequestEventId) -> Result<Option<FreeCall>> {
        self.reachable()?;
        self.inner.free_call(event).await
    }

    async fn free_calls(&self, filter: &FreeCallFilter) -> Result<Vec<FreeCall>> {
        self.reachable()?;
        self.inner.free_calls(filter).await
    }

    async fn forget_free(&self, before: Timestamp, keep: usize) -> Result<usize> {
        self.reachable()?;
        self.inner.forget_free(before, keep).await
    }
}

#[async_trait]
impl Accounts for FailingLedger {
    async fn draw(&self, new: NewEntry, at: Timestamp) -> Result<Drawn> {
        self.write(self.inner.draw(new, at)).await
    }

    async fn credit(&self, credit: Credit) -> Result<Account> {
        self.write(self.inner.credit(credit)).await
    }

    async fn give_back(
        &self,
        id: &RequestEventId,
        back: GiveBack,
        at: Timestamp,
    ) -> Result<Applied> {
        self.write(self.inner.give_back(id, back, at)).await
    }

    async fn account(&self, client: &ClientPubkey, unit: &Unit) -> Result<Option<Account>> {
        self.inner.account(client, unit).await
    }

    async fn accounts(
        &self,
        after: Option<(ClientPubkey, Unit)>,
        limit: usize,
    ) -> Result<Vec<Account>> {
        self.inner.accounts(after, limit).await
    }

    async fn movements(
        &self,
        client: &ClientPubkey,
        unit: &Unit,
        after: u64,
        limit: usize,
    ) -> Result<Vec<Movement>> {
        self.inner.movements(client, unit, after, limit).await
    }

    async fn latest_movements(
        &self,
        client: &ClientPubkey,
        unit: &Unit,
        limit: usize,
    ) -> Result<Vec<Movement>> {
        self.inner.latest_movements(client, unit, limit).await
    }

    async fn expire_accounts(&self, since: Timestamp, at: Timestamp) -> Result<usize> {
        self.inner.expire_accounts(since, at).await
    }
}
