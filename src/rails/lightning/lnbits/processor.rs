//! The seller's side: invoices of an LNbits wallet, made and looked up with its invoice key, which cannot spend.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::api::{Api, InvoiceOrder, PAGE};
use super::config::LnbitsConfig;
use super::error::ApiError;
use super::hints::Hints;
use super::payment::{Payment, State};
use super::webhook::Webhook;
use super::websocket;
use crate::error::{Error, ErrorKind, Result};
use crate::payment::{
    BITCOIN_LIGHTNING_BOLT11, CheckProof, Clock, PayReq, PaymentOrder, PaymentProcessor,
    PaymentRequest, Pmi, RailError, Settlement, SettlementNotice, SettlementStatus,
    SettlementStream, SystemClock, Timestamp, Unit,
};
use crate::rails::http::is_in_the_clear;
use crate::rails::lightning::Network;
use crate::rails::lightning::bolt11::{check_made, description_of, msat_of, sats_of};
use crate::rails::lightning::proof::PreimageProofs;

/// How many keys of orders are remembered, to know one that is placed again.
const REMEMBERED: usize = 4096;
/// How many pages of settlements are read at a time. What lies beyond is found by look-ups of one each.
const MOST_PAGES: usize = 10;

/// Makes invoices of an LNbits wallet and says whether they were paid.
pub struct LnbitsProcessor {
    pmi: Pmi,
    api: Api,
    network: Network,
    /// The address that LNbits is to call.
    webhook: Option<String>,
    /// The orders placed lately: for one that comes again, its invoice may be there already.
    orders: Mutex<VecDeque<String>>,
    stream: Mutex<Option<SettlementStream>>,
    _listening: DropGuard,
}

impl LnbitsProcessor {
    /// Asks LNbits whether it knows the key, and listens to it from then on. Must be called inside a Tokio runtime.
    ///
    /// An LNbits that does not answer is not an error: it may be starting, and what was paid before is served without it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if it answers that the key or the address is wrong, or that it is not set up; also if nothing
    /// can listen for its webhook.
    pub async fn connect(config: LnbitsConfig) -> Result<Self> {
        let pmi = BITCOIN_LIGHTNING_BOLT11.parse()?;
        let api = Api::new(&config)?;
        warn_if_in_the_clear(&config);
        match api.wallet().await {
            Ok(wallet) if wallet.id.is_some() => tracing::warn!(
                host = api.host(),
                "this is the admin key of the LNbits wallet, which can spend; the invoice key is all that selling needs"
            ),
            Ok(_) => tracing::info!(host = api.host(), "LNbits knows the invoice key"),
            Err(error) => tolerate_silence(&api, error)?,
        }
        let (hints, stream) = Hints::channel();
        let stop = CancellationToken::new();
        let webhook = match &config.webhook {
            None => None,
            Some(wanted) => {
                let (webhook, url) = Webhook::bind(wanted, &config.key).await?;
                if let Ok(address) = webhook.address() {
                    tracing::info!(%address, "listening for the webhook of LNbits");
                }
                spawn_until(&stop, webhook.listen(hints.clone()));
                Some(url)
            }
        };
        spawn_until(
            &stop,
            websocket::listen(api.clone(), config.key.clone(), hints),
        );
        Ok(Self {
            pmi,
            api,
            network: config.network,
            webhook,
            orders: Mutex::default(),
            stream: Mutex::new(Some(stream)),
            _listening: stop.drop_guard(),
        })
    }

    /// Whether `key` was placed before, as far as this process remembers.
    fn is_placed_again(&self, key: &str) -> bool {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if orders.iter().any(|placed| placed == key) {
            return true;
        }
        if orders.len() >= REMEMBERED {
            orders.pop_front();
        }
        orders.push_back(key.to_owned());
        false
    }

    async fn place(&self, order: &PaymentOrder) -> Result<Payment, ApiError> {
        let key = order.idempotency_key.as_str();
        if self.is_placed_again(key)
            && let Some(made) = self.api.invoice_for(key).await?
        {
            return Ok(made);
        }
        let memo = description_of(order);
        let invoice = InvoiceOrder {
            key,
            sats: order.amount.value(),
            memo: &memo,
            expiry_secs: order.ttl.as_secs().max(1),
            webhook: self.webhook.as_deref(),
        };
        let error = match self.api.make_invoice(&invoice).await {
            Ok(made) => return Ok(made),
            Err(error) => error,
        };
        if error.is_certain() || !error.is_unknown() {
            return Err(error);
        }
        // The answer was lost; the invoice may be there. If it is and is not found now, it is harmless: nobody ever gets
        // to see it, so nobody can pay it.
        match self.api.invoice_for(key).await {
            Ok(Some(made)) => Ok(made),
            Ok(None) | Err(_) => Err(error),
        }
    }

    /// The row of `request`, on the side where money comes in.
    async fn row(&self, request: &PaymentRequest) -> Result<Payment, ApiError> {
        let hash = request.reference.as_str();
        let ended = request.expires_at.is_some_and(|at| at <= SystemClock.now());
        if !ended {
            let row = self.api.payment(hash).await?;
            if row.is_incoming() {
                return Ok(row);
            }
        }
        // Asked about an invoice that has expired, LNbits notes it down as failed without asking its node. So the question
        // is put in a way that changes nothing.
        let row = self.api.payment_on_side(hash, true).await?;
        row.ok_or(ApiError::NotFound)
    }
}

fn spawn_until(stop: &CancellationToken, work: impl Future<Output = ()> + Send + 'static) {
    let stop = stop.clone();
    tokio::spawn(async move {
        stop.run_until_cancelled(work).await;
    });
}

/// Says that a key travels where others can read it.
pub(super) fn warn_if_in_the_clear(config: &LnbitsConfig) {
    if is_in_the_clear(&config.url) {
        tracing::warn!(
            host = config.host(),
            "LNbits is reached by http: whoever is on the way can read the key"
        );
    }
}

/// An answer that no is final; silence may pass.
pub(super) fn tolerate_silence(api: &Api, error: ApiError) -> Result<()> {
    if matches!(
        error,
        ApiError::Http(_) | ApiError::Busy | ApiError::Status(500.., _)
    ) {
        tracing::error!(
            host = api.host(),
            error = &error as &dyn std::error::Error,
            "LNbits does not answer; until it does, nothing can be paid"
        );
        return Ok(());
    }
    let host = api.host().to_owned();
    Err(Error::new(ErrorKind::Config, format!("LNbits at {host}: {error}")).with_source(error))
}

#[async_trait]
impl PaymentProcessor for LnbitsProcessor {
    fn pmi(&self) -> &Pmi {
        &self.pmi
    }

    fn accepts(&self, unit: &Unit) -> bool {
        *unit == Unit::SATS
    }

    async fn create_payment_required(
        &self,
        order: &PaymentOrder,
    ) -> Result<PaymentRequest, RailError> {
        let asked = msat_of(&order.amount)?;
        let made = self
            .place(order)
            .await
            .map_err(|error| error.into_rail(self.api.host()))?;
        let text = made
            .invoice()
            .ok_or_else(|| RailError::invalid("LNbits made an invoice without an invoice"))?;
        let invoice = check_made(text, order, self.network, SystemClock.now())?;
        // What is looked up later is the row, so the row must be about this invoice.
        if invoice.payment_hash != made.payment_hash || !made.is_incoming() || made.msat() != asked
        {
            return Err(RailError::invalid(
                "LNbits says something else of the invoice than the invoice does",
            ));
        }
        let request = PaymentRequest::new(
            self.pmi.clone(),
            order.amount.clone(),
            PayReq::new(text),
            invoice.payment_hash,
        );
        Ok(request.expiring(invoice.expires_at))
    }

    async fn lookup_payment(
        &self,
        request: &PaymentRequest,
    ) -> Result<SettlementStatus, RailError> {
        let row = self
            .row(request)
            .await
            .map_err(|error| error.into_rail(self.api.host()))?;
        match row.state() {
            Some(State::Pending) => Ok(SettlementStatus::Pending),
            Some(State::Success) => match settlement_of(&row) {
                Some(settlement) => Ok(SettlementStatus::Settled(settlement)),
                None => Err(RailError::invalid("LNbits names an amount that cannot be")),
            },
            // It says "failed" of what has expired, too.
            Some(State::Failed) => Ok(SettlementStatus::Expired),
            None => Err(RailError::invalid(
                "LNbits names a state of a payment that is not known",
            )),
        }
    }

    async fn list_settled(
        &self,
        made_since: Timestamp,
    ) -> Result<Option<Vec<SettlementNotice>>, RailError> {
        let mut notices = Vec::new();
        for number in 0..MOST_PAGES {
            let page = self
                .api
                .settled(made_since, number)
                .await
                .map_err(|error| error.into_rail(self.api.host()))?;
            let full = page.len() >= PAGE;
            // A filter that this version does not know is ignored by it.
            let paid = page
                .into_iter()
                .filter(|row| row.state() == Some(State::Success) && row.is_incoming());
            notices.extend(paid.filter_map(|row| {
                Some(SettlementNotice::new(
                    row.payment_hash.clone(),
                    Some(settlement_of(&row)?),
                ))
            }));
            if !full {
                break;
            }
        }
        Ok(Some(notices))
    }

    fn settlements(&self) -> Option<SettlementStream> {
        self.stream
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn proofs(&self) -> Option<&dyn CheckProof> {
        Some(&PreimageProofs)
    }
}

/// What arrived by `row`, in whole sats.
fn settlement_of(row: &Payment) -> Option<Settlement> {
    Some(Settlement::new(
        sats_of(row.msat())?,
        row.payment_hash.clone(),
    ))
}

impl fmt::Debug for LnbitsProcessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LnbitsProcessor")
            .field("host", &self.api.host())
            .field("network", &self.network)
            .field("webhook", &self.webhook.is_some())
            .finish_non_exhaustive()
    }
}
