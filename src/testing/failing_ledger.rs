//! A ledger that fails when the test says so.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::ledger::intercepted::{Intercept, Step};

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
}

impl Intercept for FailingLedger {
    fn inner(&self) -> &Arc<dyn Ledger> {
        &self.inner
    }

    async fn intercept<T: Send>(
        &self,
        step: Step,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let nth = match step {
            Step::Write => self.writes.fetch_add(1, Ordering::SeqCst) + 1,
            Step::WriteBeside | Step::Read => 0,
        };
        self.reachable()?;
        let fault = match step {
            Step::Write => self.fault_of(nth),
            Step::WriteBeside => self.faults().always,
            Step::Read => LedgerFault::None,
        };
        match fault {
            LedgerFault::None => work.await,
            LedgerFault::Refuse => Err(Error::ledger("scripted: not written")),
            LedgerFault::WriteAndFail => {
                work.await?;
                Err(Error::ledger("scripted: written, but nobody was told"))
            }
        }
    }

    fn has_a_place(&self) -> bool {
        self.reachable().is_ok()
    }
}
