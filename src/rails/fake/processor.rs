//! The server's side: every payment request is paid a moment after it was made.

use std::fmt;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::proof::FakeProofs;
use crate::payment::{
    CheckProof, Clock, FAKE, PayReq, PaymentOrder, PaymentProcessor, PaymentRequest, Pmi,
    RailError, Settlement, SettlementNotice, SettlementStatus, SettlementStream, SystemClock, Unit,
};

/// How many notices may wait to be taken.
const QUEUE: usize = 1024;

/// Makes payment requests that settle by themselves after a delay, in any unit. No money moves.
pub struct FakeProcessor {
    pmi: Pmi,
    settles_after: Duration,
    pushes: mpsc::Sender<SettlementNotice>,
    stream: Mutex<Option<SettlementStream>>,
}

impl FakeProcessor {
    /// Settles at once.
    #[must_use]
    pub fn new() -> Self {
        let (pushes, stream) = mpsc::channel(QUEUE);
        Self {
            pmi: fake_pmi(),
            settles_after: Duration::ZERO,
            pushes,
            stream: Mutex::new(Some(stream)),
        }
    }

    /// Settles after `delay`.
    #[must_use]
    pub fn settling_after(mut self, delay: Duration) -> Self {
        self.settles_after = delay;
        self
    }
}

impl Default for FakeProcessor {
    fn default() -> Self {
        Self::new()
    }
}

/// The constant is a legal identifier; a test says so.
#[expect(clippy::expect_used, reason = "a constant, checked by a test")]
pub(super) fn fake_pmi() -> Pmi {
    FAKE.parse().expect("a legal identifier")
}

impl fmt::Debug for FakeProcessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeProcessor")
            .field("settles_after", &self.settles_after)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl PaymentProcessor for FakeProcessor {
    fn pmi(&self) -> &Pmi {
        &self.pmi
    }

    fn accepts(&self, _unit: &Unit) -> bool {
        true
    }

    async fn create_payment_required(
        &self,
        order: &PaymentOrder,
    ) -> Result<PaymentRequest, RailError> {
        let now = SystemClock.now();
        // The reference says when it settles, so that a look-up has an answer after a restart too.
        let settles_at = now.plus(self.settles_after);
        let reference = format!("{}@{}", order.idempotency_key, settles_at.as_millis());
        let notice = SettlementNotice::new(
            reference.clone(),
            Some(Settlement::new(order.amount.clone(), "fake")),
        );
        let (pushes, delay) = (self.pushes.clone(), self.settles_after);
        tokio::spawn(async move {
            // A timer takes up to a millisecond even for no time at all.
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            // A notice that finds no room is found by look-up.
            let _ = pushes.try_send(notice);
        });
        let pay_req = PayReq::new(format!("fake:{reference}"));
        Ok(
            PaymentRequest::new(self.pmi.clone(), order.amount.clone(), pay_req, reference)
                .expiring(now.plus(order.ttl)),
        )
    }

    async fn lookup_payment(
        &self,
        request: &PaymentRequest,
    ) -> Result<SettlementStatus, RailError> {
        let settles_at = request
            .reference
            .rsplit_once('@')
            .and_then(|(_, at)| at.parse::<u64>().ok());
        let Some(settles_at) = settles_at else {
            return Err(RailError::invalid("not a reference of the fake rail"));
        };
        if SystemClock.now().as_millis() < settles_at {
            return Ok(SettlementStatus::Pending);
        }
        Ok(SettlementStatus::Settled(Settlement::new(
            request.amount.clone(),
            "fake",
        )))
    }

    fn settlements(&self) -> Option<SettlementStream> {
        self.stream
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn proofs(&self) -> Option<&dyn CheckProof> {
        Some(&FakeProofs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_settles_by_push_and_by_look_up() {
        let processor = FakeProcessor::new();
        let mut stream = processor.settlements().unwrap();
        assert!(processor.settlements().is_none(), "there is one stream");
        let amount = "5 sats".parse().unwrap();
        let order = PaymentOrder::new("key".into(), amount, "x".into(), Duration::from_secs(60));
        let request = processor.create_payment_required(&order).await.unwrap();
        let notice = stream.recv().await.unwrap();
        assert_eq!(notice.reference, request.reference);
        assert!(matches!(
            processor.lookup_payment(&request).await,
            Ok(SettlementStatus::Settled(_))
        ));

        let slow = FakeProcessor::new().settling_after(Duration::from_secs(3600));
        let request = slow.create_payment_required(&order).await.unwrap();
        assert!(matches!(
            slow.lookup_payment(&request).await,
            Ok(SettlementStatus::Pending)
        ));
    }
}
