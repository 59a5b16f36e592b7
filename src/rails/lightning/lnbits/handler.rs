//! The buyer's side: pays invoices from an LNbits wallet with its admin key, each once.
//!
//! "Refused" is said only where it is certain: LNbits never took the payment on, or its own books say that it failed, or
//! know nothing of it after LNbits has said no. Everything else is looked up until it is known, and unknown until then.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::config::LnbitsConfig;
use super::error::ApiError;
use super::payment::{Payment, State};
use super::processor::{tolerate_silence, warn_if_in_the_clear};
use crate::error::{Error, Result};
use crate::payment::{
    BITCOIN_LIGHTNING_BOLT11, Clock, Examined, PayOutcome, PaymentHandler, PaymentProof,
    PaymentRequest, Pmi, RailError, SystemClock,
};
use crate::rails::lightning::bolt11::{self, Invoice};
use crate::rails::lightning::{Network, Preimage, judge_preimage};

/// How long between two questions, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(5));
/// How long after its expiry an invoice of which LNbits knows nothing can no longer be paid by a request that is still on
/// its way.
const ON_ITS_WAY: Duration = Duration::from_secs(600);

/// Pays BOLT11 invoices from an LNbits wallet.
pub struct LnbitsHandler {
    pmi: Pmi,
    /// Which wallet it is.
    name: String,
    api: Api,
    network: Network,
    /// How long the outcome of a payment is asked for before it is unknown.
    patience: Duration,
}

impl LnbitsHandler {
    /// A handler for the wallet that the admin key of `config` opens. Asks nothing yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the HTTP client cannot be set up.
    pub fn new(config: &LnbitsConfig) -> Result<Self> {
        warn_if_in_the_clear(config);
        Ok(Self {
            pmi: BITCOIN_LIGHTNING_BOLT11.parse()?,
            name: config.wallet_name(),
            api: Api::new(config)?,
            network: config.network,
            patience: config.payment_timeout.saturating_mul(2),
        })
    }

    /// Asks LNbits whether it knows the key, and whether it may pay.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it says no. An LNbits that does not answer is not an error.
    pub async fn check(&self) -> Result<()> {
        match self.api.wallet().await {
            Ok(wallet) if wallet.id.is_some() => Ok(()),
            Ok(_) => Err(Error::config(format!(
                "LNbits at {}: this is the invoice key of the wallet, and paying takes its admin key",
                self.api.host()
            ))),
            Err(error) => tolerate_silence(&self.api, error),
        }
    }

    /// What LNbits's books say of a payment by this wallet; `None`: nothing.
    async fn booked(&self, hash: &str) -> Result<Option<Payment>, ApiError> {
        match self.api.payment(hash).await {
            Ok(row) if row.is_outgoing() => Ok(Some(row)),
            // The wallet asks itself for money: the invoice is there, and perhaps the payment, too.
            Ok(_) => self.api.payment_on_side(hash, false).await,
            Err(ApiError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks for the outcome until it is known. `refused`: LNbits has said no, so that books without an entry are certain.
    async fn find_out(&self, hash: &str, refused: bool, cancel: &CancellationToken) -> PayOutcome {
        let until = Instant::now() + self.patience;
        let mut pause = PAUSES.0;
        loop {
            match self.booked(hash).await {
                Ok(Some(row)) => {
                    if let Some(outcome) = outcome_of(&row, hash) {
                        return outcome;
                    }
                }
                Ok(None) if refused => return PayOutcome::Refused,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(
                        host = self.api.host(),
                        error = &error as &dyn std::error::Error,
                        "a payment could not be looked up"
                    );
                }
            }
            if Instant::now() + pause > until {
                return PayOutcome::Unknown;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = cancel.cancelled() => return PayOutcome::Unknown,
            }
            pause = pause.saturating_mul(2).min(PAUSES.1);
        }
    }
}

/// What became of the payment in `row`; `None` while it is under way.
fn outcome_of(row: &Payment, hash: &str) -> Option<PayOutcome> {
    match row.state()? {
        State::Pending => None,
        State::Failed => Some(PayOutcome::Refused),
        State::Success => Some(match judge_preimage(row.preimage(), hash) {
            Preimage::Matches(preimage) => PayOutcome::Paid(PaymentProof::new(preimage)),
            Preimage::Absent => {
                tracing::warn!("LNbits says that it paid, and shows no preimage");
                PayOutcome::Paid(PaymentProof::default())
            }
            Preimage::Differs => {
                tracing::error!(
                    "LNbits says that it paid, and shows a preimage that is not the invoice's"
                );
                PayOutcome::Unknown
            }
        }),
    }
}

#[async_trait]
impl PaymentHandler for LnbitsHandler {
    fn pmi(&self) -> &Pmi {
        &self.pmi
    }

    fn examine(&self, request: &PaymentRequest) -> Result<Examined, RailError> {
        bolt11::examine(request, self.network, SystemClock.now())
    }

    async fn can_handle(&self, request: &PaymentRequest) -> bool {
        self.examine(request).is_ok()
    }

    async fn handle(
        &self,
        request: &PaymentRequest,
        cancel: &CancellationToken,
    ) -> Result<PayOutcome, RailError> {
        // Whoever asked may have waited since it was examined.
        let hash = self.examine(request)?.payment_id;
        if cancel.is_cancelled() {
            return Err(RailError::refused("cancelled before it was paid"));
        }
        let refused = match self.api.pay(request.pay_req.as_str()).await {
            Ok(row) => {
                if row.payment_hash == hash
                    && row.is_outgoing()
                    && let Some(outcome) = outcome_of(&row, &hash)
                {
                    return Ok(outcome);
                }
                false
            }
            Err(error) if error.is_certain() => {
                let text = format!("LNbits at {}: {error}; nothing was paid", self.api.host());
                return Err(RailError::refused(text).with_source(error));
            }
            Err(error) => {
                tracing::warn!(
                    host = self.api.host(),
                    error = &error as &dyn std::error::Error,
                    "LNbits did not say that it paid; its books are asked"
                );
                matches!(error, ApiError::Refused(_))
            }
        };
        Ok(self.find_out(&hash, refused, cancel).await)
    }

    fn wallet(&self) -> Option<String> {
        Some(self.name.clone())
    }

    async fn lookup_payment(&self, request: &PaymentRequest) -> Result<PayOutcome, RailError> {
        let invoice = Invoice::parse(request.pay_req.as_str())?;
        let booked = self
            .booked(&invoice.payment_hash)
            .await
            .map_err(|error| error.into_rail(self.api.host()))?;
        Ok(match booked {
            Some(row) => outcome_of(&row, &invoice.payment_hash).unwrap_or(PayOutcome::Unknown),
            None if invoice.expires_at.plus(ON_ITS_WAY) < SystemClock.now() => PayOutcome::Refused,
            None => PayOutcome::Unknown,
        })
    }
}

impl fmt::Debug for LnbitsHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LnbitsHandler")
            .field("host", &self.api.host())
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}
