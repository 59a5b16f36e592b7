//! A page of Stripe Checkout as a payment method of CEP-8: a person opens it and pays for one call.
//!
//! A page stands from half an hour to a day, because Stripe closes none sooner. It counts as paid when Stripe, asked for it,
//! says so, and shows exactly the amount and the currency that were ordered. A webhook has the gate ask, and no more.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::client::StripeClient;
use super::error::StripeError;
use super::form::{Form, cut};
use super::money::{currency_of, minimum_of};
use super::objects::{List, Ref, Session, fact};
use crate::error::{Error, Result};
use crate::payment::{
    Amount, Clock, PayReq, PaymentOrder, PaymentProcessor, PaymentRequest, Pmi, RailError,
    STRIPE_CHECKOUT_URL, Settlement, SettlementNotice, SettlementStatus, SettlementStream,
    SystemClock, Timestamp, Unit,
};

/// How long a page stands: Stripe's limits, with a minute for the way there.
pub(super) const SHORTEST: Duration = Duration::from_secs(31 * 60);
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600 - 60);
/// How long money may be on its way: bank debits take days.
const UNDER_WAY: Duration = Duration::from_secs(14 * 86_400);
/// The longest address that Stripe takes.
const LONGEST_URL: usize = 2048;
/// The longest name of a product.
const LONGEST_PRODUCT: usize = 250;
/// How many orders are remembered, so that one that is placed again asks for the same page.
const REMEMBERED: usize = 4096;
/// How many hints may wait. One that finds no room is found by a look-up.
const HINTS: usize = 1024;
/// Pages of what was paid that are read at a time, of a hundred each.
const MOST_PAGES: usize = 10;
const PAGE: &str = "100";

/// Where a page keeps the key of the order that it is for.
pub(super) const ORDER: &str = "tollkeeper_order";

/// Makes pages of Checkout and says whether they were paid.
pub struct StripeCheckout {
    pmi: Pmi,
    client: StripeClient,
    success_url: String,
    cancel_url: Option<String>,
    /// When each order's page was to end: the same order must ask for the same.
    orders: Mutex<VecDeque<(String, u64)>>,
    hints: mpsc::Sender<SettlementNotice>,
    stream: Mutex<Option<SettlementStream>>,
}

/// Says that a page may have been paid; for whoever hears Stripe's webhooks.
#[derive(Clone)]
pub struct CheckoutHints(mpsc::Sender<SettlementNotice>);

impl CheckoutHints {
    /// The page `session` may have been paid: it is looked up.
    pub fn may_be_paid(&self, session: &str) {
        let _ = self.0.try_send(SettlementNotice::new(session, None));
    }
}

impl fmt::Debug for CheckoutHints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckoutHints")
    }
}

impl StripeCheckout {
    /// Pages of the account of `client`. Whoever has paid is sent to `success_url`, which proves nothing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for an address that cannot be one.
    pub fn new(client: StripeClient, success_url: &str) -> Result<Self> {
        check_url("success_url", success_url)?;
        let (hints, stream) = mpsc::channel(HINTS);
        Ok(Self {
            pmi: STRIPE_CHECKOUT_URL.parse()?,
            client,
            success_url: success_url.to_owned(),
            cancel_url: None,
            orders: Mutex::default(),
            hints,
            stream: Mutex::new(Some(stream)),
        })
    }

    /// Shows a way back to whoever does not want to pay.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for an address that cannot be one.
    pub fn cancel_url(mut self, url: &str) -> Result<Self> {
        check_url("cancel_url", url)?;
        self.cancel_url = Some(url.to_owned());
        Ok(self)
    }

    /// For whoever hears Stripe's webhooks.
    #[must_use]
    pub fn hints(&self) -> CheckoutHints {
        CheckoutHints(self.hints.clone())
    }

    /// When the page of the order `key` ends: as was asked for first, should it be placed again.
    fn ends_at(&self, key: &str, ttl: Duration) -> u64 {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, ends)) = orders.iter().find(|(placed, _)| placed == key) {
            return *ends;
        }
        let ends = SystemClock.now().plus(ttl).as_secs();
        if orders.len() >= REMEMBERED {
            orders.pop_front();
        }
        orders.push_back((key.to_owned(), ends));
        ends
    }

    async fn place(&self, order: &PaymentOrder, currency: &str) -> Result<Session, StripeError> {
        let key = &order.idempotency_key;
        let ends = self.ends_at(key, self.offer_ttl(order.ttl));
        let form = Form::new()
            .with("mode", "payment")
            .with("line_items[0][quantity]", "1")
            .with("line_items[0][price_data][currency]", currency)
            .with(
                "line_items[0][price_data][unit_amount]",
                order.amount.value().to_string(),
            )
            .with(
                "line_items[0][price_data][product_data][name]",
                product(&order.description),
            )
            .with("client_reference_id", cut(key, 200))
            .with(&format!("metadata[{ORDER}]"), key)
            .with(&format!("payment_intent_data[metadata][{ORDER}]"), key)
            .with("success_url", &self.success_url)
            .with_some("cancel_url", self.cancel_url.as_ref())
            .with("expires_at", ends.to_string());
        let path = ["checkout", "sessions"];
        self.client.post(&path, &form, &format!("cs_{key}")).await
    }

    /// Why `session` is not what was ordered.
    fn objection(&self, session: &Session, amount: &Amount) -> Option<&'static str> {
        if session.livemode != self.client.is_live() {
            return Some("it mixes test and live mode up");
        }
        if session.mode != "payment" || fact(&session.metadata, ORDER).is_none() {
            return Some("the page is not one that was made for a call");
        }
        let currency = currency_of(amount.unit());
        if session.amount_total != Some(amount.value()) || session.currency.as_deref() != currency {
            return Some("the page asks for another amount than was ordered");
        }
        None
    }
}

/// What a page is for, as its buyer reads it.
fn product(description: &str) -> String {
    let plain: String = description.chars().filter(|c| !c.is_control()).collect();
    match cut(plain.trim(), LONGEST_PRODUCT) {
        "" => "one call".to_owned(),
        text => text.to_owned(),
    }
}

/// Whether `session`'s money was given back, or is wanted back.
pub(super) fn taken_back(session: &Session) -> Option<&'static str> {
    let intent = session.payment_intent.as_ref()?.full()?;
    let charge = intent.latest_charge.as_ref()?.full()?;
    match (charge.refunded, charge.disputed) {
        (true, _) => Some("refunded"),
        (_, true) => Some("disputed"),
        _ => None,
    }
}

pub(super) fn check_url(key: &str, url: &str) -> Result<()> {
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic());
    let web = url.starts_with("https://") || url.starts_with("http://");
    if !web || !plain || url.len() > LONGEST_URL {
        return Err(Error::config(format!(
            "{key}: must be an address that begins with https://, of at most {LONGEST_URL} characters"
        )));
    }
    Ok(())
}

#[async_trait]
impl PaymentProcessor for StripeCheckout {
    fn pmi(&self) -> &Pmi {
        &self.pmi
    }

    fn accepts(&self, unit: &Unit) -> bool {
        currency_of(unit).is_some()
    }

    fn can_charge(&self, amount: &Amount) -> bool {
        minimum_of(amount.unit()).is_some_and(|least| amount.covers(&least) == Some(true))
    }

    fn offer_ttl(&self, wanted: Duration) -> Duration {
        wanted.clamp(SHORTEST, LONGEST)
    }

    fn takes_a_person(&self) -> bool {
        true
    }

    async fn create_payment_required(
        &self,
        order: &PaymentOrder,
    ) -> Result<PaymentRequest, RailError> {
        let currency = currency_of(order.amount.unit());
        let currency = currency.filter(|_| self.can_charge(&order.amount));
        let currency = currency
            .ok_or_else(|| RailError::refused("Stripe: the amount is less than can be charged"))?;
        let session = self
            .place(order, currency)
            .await
            .map_err(StripeError::into_rail)?;
        let invalid = |what| Err(StripeError::invalid(what).into_rail());
        if let Some(objection) = self.objection(&session, &order.amount) {
            return invalid(objection);
        }
        if fact(&session.metadata, ORDER) != Some(&order.idempotency_key) {
            return invalid("the page is one for another order");
        }
        let Some(url) = session.url.filter(|_| session.status == "open") else {
            return invalid("the page cannot be opened");
        };
        let made = PaymentRequest::new(
            self.pmi.clone(),
            order.amount.clone(),
            PayReq::new(url),
            session.id,
        );
        Ok(made.expiring(Timestamp::from_secs(session.expires_at)))
    }

    async fn lookup_payment(
        &self,
        request: &PaymentRequest,
    ) -> Result<SettlementStatus, RailError> {
        let path = ["checkout", "sessions", request.reference.as_str()];
        let query = Form::new().with("expand[]", "payment_intent.latest_charge");
        let asked = self.client.get(&path, &query).await;
        let session: Session = asked.map_err(StripeError::into_rail)?;
        if session.id != request.reference {
            return Err(StripeError::invalid("it answered about another page").into_rail());
        }
        if let Some(objection) = self.objection(&session, &request.amount) {
            return Err(StripeError::invalid(objection).into_rail());
        }
        Ok(status_of(&session, &request.amount))
    }

    async fn list_settled(
        &self,
        made_since: Timestamp,
    ) -> Result<Option<Vec<SettlementNotice>>, RailError> {
        let mut notices = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let query = Form::new()
                .with("status", "complete")
                .with("created[gte]", made_since.as_secs().to_string())
                .with("limit", PAGE)
                .with_some("starting_after", after.as_ref());
            let asked = self.client.get(&["checkout", "sessions"], &query).await;
            let page: List<Session> = asked.map_err(StripeError::into_rail)?;
            after = page.data.last().map(|session| session.id.clone());
            let ours = page.data.into_iter().filter(|session| {
                session.payment_status == "paid" && fact(&session.metadata, ORDER).is_some()
            });
            // A list does not show whether the money was given back, so each is looked up.
            notices.extend(ours.map(|session| SettlementNotice::new(session.id, None)));
            if !page.has_more || after.is_none() {
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
}

/// How a page stands whose amount and currency are right.
fn status_of(session: &Session, amount: &Amount) -> SettlementStatus {
    match (session.status.as_str(), session.payment_status.as_str()) {
        ("complete", "paid") => match taken_back(session) {
            Some(_) => SettlementStatus::Failed,
            None => {
                let settlement = Settlement::new(amount.clone(), session.id.clone());
                SettlementStatus::Settled(settlement)
            }
        },
        ("expired", _) => SettlementStatus::Expired,
        ("open", _) => SettlementStatus::Pending,
        // Finished with a method whose money is on its way for days, unless that has failed.
        ("complete", _) => match session.payment_intent.as_ref().and_then(Ref::full) {
            Some(intent) if !is_under_way(&intent.status) => SettlementStatus::Failed,
            _ => SettlementStatus::UnderWay(under_way_until(session.created)),
        },
        _ => SettlementStatus::Unknown,
    }
}

/// Whether money is on its way by a payment whose page is finished and not paid.
pub(super) fn is_under_way(status: &str) -> bool {
    matches!(status, "processing" | "requires_capture" | "succeeded")
}

/// Until when the money must have come of what was made at `created`.
pub(super) fn under_way_until(created: u64) -> Timestamp {
    Timestamp::from_secs(created).plus(UNDER_WAY)
}

impl fmt::Debug for StripeCheckout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StripeCheckout")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}
