//! A wallet that knows what was really paid, whatever becomes of the process: a folder.
//!
//! The test pays an invoice by making the file `REFERENCE.paid`. As with a real wallet, somebody who listens is told once,
//! at the time; what was paid while nobody listened has to be asked for.

use std::collections::HashSet;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::payment::{
    Amount, Clock, PayReq, PaymentOrder, PaymentProcessor, PaymentRequest, Pmi, RailError,
    Settlement, SettlementNotice, SettlementStatus, SettlementStream, SystemClock, Unit,
};
use crate::rails::fake::FakeProcessor;

/// Names the folder.
const TILL: &str = "TOLLKEEPER_CRASH_TILL";

/// How often the folder is looked at on behalf of who listens.
const LOOK: Duration = Duration::from_millis(15);

/// See the [module](self). Its payment method is that of the fake rail, which it stands in for.
#[derive(Debug)]
pub(in crate::gateway) struct Till {
    pmi: Pmi,
    folder: PathBuf,
}

impl Till {
    /// The till that the environment names, if it does.
    pub(in crate::gateway) fn from_environment() -> Option<Self> {
        Some(Self {
            pmi: FakeProcessor::new().pmi().clone(),
            folder: env::var_os(TILL)?.into(),
        })
    }

    fn file(&self, reference: &str, what: &str) -> PathBuf {
        self.folder.join(format!("{reference}.{what}"))
    }
}

/// The references that were paid so far.
fn paid(folder: &Path) -> HashSet<String> {
    let Ok(files) = std::fs::read_dir(folder) else {
        return HashSet::new();
    };
    files
        .filter_map(|file| {
            Some(
                file.ok()?
                    .file_name()
                    .to_str()?
                    .strip_suffix(".paid")?
                    .to_owned(),
            )
        })
        .collect()
}

/// What an invoice asked for.
fn invoiced(folder: &Path, reference: &str) -> Option<Amount> {
    std::fs::read_to_string(folder.join(format!("{reference}.invoice")))
        .ok()?
        .parse()
        .ok()
}

#[async_trait]
impl PaymentProcessor for Till {
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
        let reference = order.idempotency_key.clone();
        std::fs::write(self.file(&reference, "invoice"), order.amount.to_string())
            .map_err(|error| RailError::unknown("the till is out of reach").with_source(error))?;
        let pay_req = PayReq::new(format!("till:{reference}"));
        let made = PaymentRequest::new(self.pmi.clone(), order.amount.clone(), pay_req, reference);
        Ok(made.expiring(SystemClock.now().plus(order.ttl)))
    }

    async fn lookup_payment(
        &self,
        request: &PaymentRequest,
    ) -> Result<SettlementStatus, RailError> {
        if !self.file(&request.reference, "paid").exists() {
            return Ok(SettlementStatus::Pending);
        }
        Ok(SettlementStatus::Settled(Settlement::new(
            request.amount.clone(),
            "till",
        )))
    }

    fn settlements(&self) -> Option<SettlementStream> {
        let (pushes, stream) = mpsc::channel(1024);
        let folder = self.folder.clone();
        // Nobody was listening when these were paid.
        let mut known = paid(&folder);
        tokio::spawn(async move {
            while !pushes.is_closed() {
                tokio::time::sleep(LOOK).await;
                for reference in paid(&folder) {
                    let Some(amount) = invoiced(&folder, &reference) else {
                        continue;
                    };
                    if known.insert(reference.clone()) {
                        let settlement = Settlement::new(amount, "till");
                        let notice = SettlementNotice::new(reference, Some(settlement));
                        let _ = pushes.try_send(notice);
                    }
                }
            }
        });
        Some(stream)
    }
}
