//! Where this process kills itself, and the wallet that outlives it: for the crash test (`tests/crash/`), and compiled in
//! with the feature `testing` only.
//!
//! `TOLLKEEPER_CRASH_AT=KIND:N` names the point: `write-before:3` is right before the third write to the ledger,
//! `write-after:3` is when that write is durable and nobody has been told; `send-before:2` and `send-after:2` are the same
//! for what goes out to clients. Reads are not counted, nor what is written by the clock and stands for no money.
//!
//! In a client, writes are those to the buyer's books, and `pay-before:1` and `pay-after:1` are right before the wallet pays
//! and when it has paid and nobody has been told.

mod buyer;
mod purse;
mod till;

use std::env;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;

pub(super) use self::buyer::{buyer_ledger, client_transport};
pub(super) use self::purse::Purse;
pub(super) use self::till::Till;
use super::exit::{Failure, Outcome};
use crate::error::Result;
use crate::ledger::Ledger;
use crate::ledger::intercepted::{Intercept, Step};
use crate::payment::ClientPubkey;
use crate::transport::{Advertisement, Inbound, Outbound, ReplyTo, ServerTransport};
use crate::wire::Message;

/// Says where to die.
const CRASH_AT: &str = "TOLLKEEPER_CRASH_AT";

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Write,
    Send,
    Pay,
}

/// On which side of it the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

/// One point in the life of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CrashPoint {
    what: What,
    side: Side,
    nth: usize,
}

impl FromStr for CrashPoint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (kind, nth) = text.split_once(':').ok_or(())?;
        let (what, side) = match kind {
            "write-before" => (What::Write, Side::Before),
            "write-after" => (What::Write, Side::After),
            "send-before" => (What::Send, Side::Before),
            "send-after" => (What::Send, Side::After),
            "pay-before" => (What::Pay, Side::Before),
            "pay-after" => (What::Pay, Side::After),
            _ => return Err(()),
        };
        let nth = nth.parse().ok().filter(|nth| *nth > 0).ok_or(())?;
        Ok(Self { what, side, nth })
    }
}

impl CrashPoint {
    /// The point that the environment names, if it is one at `what`.
    fn wanted(what: What) -> Outcome<Option<Self>> {
        let Ok(text) = env::var(CRASH_AT) else {
            return Ok(None);
        };
        let point: Self = text.parse().map_err(|()| {
            Failure::usage(format!(
                "{CRASH_AT} must be write-before:N, write-after:N, send-before:N, send-after:N, pay-before:N or \
                 pay-after:N"
            ))
        })?;
        Ok((point.what == what).then_some(point))
    }
}

/// Counts up to its point.
#[derive(Debug)]
struct Fuse {
    point: CrashPoint,
    counted: AtomicUsize,
}

impl Fuse {
    fn new(point: CrashPoint) -> Self {
        Self {
            point,
            counted: AtomicUsize::new(0),
        }
    }

    /// Does `step`, unless this is where to die; does not return from it, if that is.
    async fn burn<T>(&self, step: impl Future<Output = T> + Send) -> T {
        let reached = self.counted.fetch_add(1, Ordering::SeqCst) + 1 == self.point.nth;
        if reached && self.point.side == Side::Before {
            die();
        }
        let done = step.await;
        if reached {
            die();
        }
        done
    }
}

/// Ends this process as `kill -9` does: nothing is flushed, closed or dropped.
fn die() -> ! {
    #[cfg(unix)]
    {
        use rustix::process::{Signal, getpid, kill_process};
        let _ = kill_process(getpid(), Signal::KILL);
    }
    std::process::abort()
}

/// `ledger`, deadly where the environment says so.
pub(super) fn ledger(ledger: Arc<dyn Ledger>) -> Outcome<Arc<dyn Ledger>> {
    Ok(match CrashPoint::wanted(What::Write)? {
        Some(point) => Arc::new(CrashingLedger {
            inner: ledger,
            fuse: Fuse::new(point),
        }),
        None => ledger,
    })
}

/// `transport`, deadly where the environment says so.
pub(super) fn transport(transport: Arc<dyn ServerTransport>) -> Outcome<Arc<dyn ServerTransport>> {
    Ok(match CrashPoint::wanted(What::Send)? {
        Some(point) => Arc::new(CrashingTransport {
            inner: transport,
            fuse: Fuse::new(point),
        }),
        None => transport,
    })
}

/// A ledger that one write does not survive.
#[derive(Debug)]
struct CrashingLedger {
    inner: Arc<dyn Ledger>,
    fuse: Fuse,
}

impl Intercept for CrashingLedger {
    fn inner(&self) -> &Arc<dyn Ledger> {
        &self.inner
    }

    async fn intercept<T: Send>(
        &self,
        step: Step,
        work: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match step {
            Step::Write => self.fuse.burn(work).await,
            Step::WriteBeside | Step::Read => work.await,
        }
    }
}

/// A transport that one message does not survive.
#[derive(Debug)]
struct CrashingTransport {
    inner: Arc<dyn ServerTransport>,
    fuse: Fuse,
}

#[async_trait]
impl ServerTransport for CrashingTransport {
    async fn recv(&self) -> Option<Inbound> {
        self.inner.recv().await
    }

    async fn send(&self, to: &ReplyTo, outbound: Outbound) -> Result<()> {
        self.fuse.burn(self.inner.send(to, outbound)).await
    }

    async fn notify(&self, client: Option<&ClientPubkey>, message: Message) -> Result<()> {
        self.fuse.burn(self.inner.notify(client, message)).await
    }

    fn can_carry(&self, to: &ReplyTo, outbound: &Outbound) -> bool {
        self.inner.can_carry(to, outbound)
    }

    fn advertise(&self, payments: Advertisement) {
        self.inner.advertise(payments);
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_a_kind_and_a_number_from_1() {
        let point = CrashPoint {
            what: What::Send,
            side: Side::After,
            nth: 2,
        };
        assert_eq!("send-after:2".parse(), Ok(point));
        for wrong in ["", "send-after", "send-after:0", "send:1", "write-before:x"] {
            assert_eq!(wrong.parse::<CrashPoint>(), Err(()), "{wrong}");
        }
    }
}
