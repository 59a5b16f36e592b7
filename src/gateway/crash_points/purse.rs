//! A wallet that pays into the [till](super::Till), and outlives the process: the same folder.
//!
//! Each time it is asked to pay it adds a line to `asked`, so that a second payment cannot be hidden by the first.

use std::env;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{CrashPoint, Fuse, What};
use crate::gateway::exit::Outcome;
use crate::payment::{PayOutcome, PaymentHandler, PaymentProof, PaymentRequest, Pmi, RailError};
use crate::rails::fake::FakeHandler;

/// Names the folder.
const PURSE: &str = "TOLLKEEPER_CRASH_PURSE";

/// See the [module](self). Its payment method is that of the fake rail, which it stands in for.
#[derive(Debug)]
pub(in crate::gateway) struct Purse {
    pmi: Pmi,
    folder: PathBuf,
    fuse: Option<Arc<Fuse>>,
}

impl Purse {
    /// The purse that the environment names, if it does.
    pub(in crate::gateway) fn from_environment() -> Outcome<Option<Self>> {
        let Some(folder) = env::var_os(PURSE) else {
            return Ok(None);
        };
        let point = CrashPoint::wanted(What::Pay)?;
        Ok(Some(Self {
            pmi: FakeHandler::new().pmi().clone(),
            folder: folder.into(),
            fuse: point.map(|point| Arc::new(Fuse::new(point))),
        }))
    }

    fn paid_file(&self, request: &PaymentRequest) -> Result<PathBuf, RailError> {
        let reference = request.pay_req.as_str().strip_prefix("till:");
        let reference =
            reference.ok_or_else(|| RailError::invalid("not a payment request of the till"))?;
        Ok(self.folder.join(format!("{reference}.paid")))
    }

    fn pay(&self, request: &PaymentRequest) -> Result<PayOutcome, RailError> {
        let paid = self.paid_file(request)?;
        let lost = |error| RailError::unknown("the purse is out of reach").with_source(error);
        let mut asked = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("asked"))
            .map_err(lost)?;
        writeln!(asked, "{}", paid.display()).map_err(lost)?;
        std::fs::write(paid, "").map_err(lost)?;
        Ok(PayOutcome::Paid(PaymentProof::new("purse")))
    }
}

#[async_trait]
impl PaymentHandler for Purse {
    fn pmi(&self) -> &Pmi {
        &self.pmi
    }

    async fn handle(
        &self,
        request: &PaymentRequest,
        _cancel: &CancellationToken,
    ) -> Result<PayOutcome, RailError> {
        match &self.fuse {
            Some(fuse) => fuse.burn(async { self.pay(request) }).await,
            None => self.pay(request),
        }
    }

    /// It pays at once or never: what is not paid when it is asked about will not be.
    async fn lookup_payment(&self, request: &PaymentRequest) -> Result<PayOutcome, RailError> {
        if self.paid_file(request)?.exists() {
            return Ok(PayOutcome::Paid(PaymentProof::new("purse")));
        }
        Ok(PayOutcome::Refused)
    }
}
