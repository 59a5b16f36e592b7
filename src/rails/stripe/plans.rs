//! What is sold by a price of Stripe's: its page, its customer, and how a purchase stands. Each is one question; what becomes
//! of the answers is for the books.

use std::time::Duration;

use serde::Deserialize;

use super::checkout::{
    LONGEST, ORDER, SHORTEST, check_url, is_under_way, taken_back, under_way_until,
};
use super::client::StripeClient;
use super::error::{Cause, StripeError};
use super::form::{Form, cut};
use super::money::{currency_of, unit_of};
use super::objects::{InvoicePayment, List, Named, Price, Ref, Session, Subscription, fact};
use crate::error::{Error, Result};
use crate::payment::{Amount, Timestamp};

/// Where pages, subscriptions and customers of ours keep whose they are.
const PURCHASE: &str = "tollkeeper_purchase";
const CLIENT: &str = "tollkeeper_client";
const PLAN: &str = "tollkeeper_plan";

/// How a price charges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the modes that are sold here")]
pub enum PlanMode {
    /// Once.
    Payment,
    /// Each period.
    Subscription,
    /// Each period, for what was used.
    Metered,
}

/// A price of Stripe's.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StripePrice {
    /// Its id.
    pub id: String,
    /// How it charges.
    pub mode: PlanMode,
    /// How much for one; `None` if it is a scale.
    pub amount: Option<Amount>,
}

/// What a page is ordered for.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "made field by field")]
pub struct PlanOrder<'a> {
    /// The purchase: the same name is the same order.
    pub purchase: &'a str,
    /// Who buys, as hex.
    pub client: &'a str,
    /// Who that is to Stripe.
    pub customer: &'a str,
    /// The name of the plan.
    pub plan: &'a str,
    /// The price.
    pub price: &'a str,
    /// How it charges.
    pub mode: PlanMode,
    /// How many of it.
    pub quantity: u64,
    /// What must be paid, where that is known.
    pub amount: Option<&'a Amount>,
    /// Where a payer is sent.
    pub success_url: &'a str,
    /// Where a payer is sent who does not want to pay.
    pub cancel_url: Option<&'a str>,
    /// When the page ends.
    pub ends: Timestamp,
}

/// A page that was made.
#[derive(Clone)]
#[non_exhaustive]
pub struct PlanPage {
    /// Its id.
    pub session: String,
    /// Where it is.
    pub url: String,
    /// When it ends.
    pub ends: Timestamp,
}

impl std::fmt::Debug for PlanPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PlanPage({})", self.session)
    }
}

/// What a purchase must be for its page to count.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "made field by field")]
pub struct Expected<'a> {
    /// The purchase.
    pub purchase: &'a str,
    /// Who buys, as hex.
    pub client: &'a str,
    /// The price.
    pub price: &'a str,
    /// Prices that count as well.
    pub former_prices: &'a [String],
    /// How it charges.
    pub mode: PlanMode,
    /// What must be paid, for what is paid once.
    pub amount: Option<&'a Amount>,
}

/// How a purchase stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "callers must handle each of these")]
pub enum Standing {
    /// Nobody has paid yet.
    Open,
    /// It is paid, and the money is on its way until then at the latest.
    UnderWay(Timestamp),
    /// It counts.
    Good,
    /// The payment of a period is due.
    PastDue,
    /// It does not count, and may again.
    Bad,
    /// It does not count, and never will.
    Over,
}

/// What Stripe says of a purchase.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurchaseReport {
    /// How it stands.
    pub standing: Standing,
    /// In Stripe's word.
    pub status: String,
    /// The PaymentIntent, for what is paid once.
    pub payment: Option<String>,
    /// The subscription.
    pub subscription: Option<String>,
    /// The customer.
    pub customer: Option<String>,
    /// The end of the period.
    pub period_end: Option<Timestamp>,
}

/// What Stripe says of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PaymentReport {
    /// Whether its money was given back, or is wanted back, in a word.
    pub taken_back: Option<&'static str>,
    /// The key of the order that it is for, if it is one of the gate's: of a page, or of a shared payment token.
    pub order: Option<String>,
}

/// What became of a report of use.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "it was taken or it was not")]
pub enum MeterReport {
    /// Stripe has it, from now or before.
    Taken,
    /// Stripe will never take it, for this reason.
    Refused(String),
}

impl StripeClient {
    /// How long a page stands when `wanted` is asked for.
    #[must_use]
    pub fn page_ttl(wanted: Duration) -> Duration {
        wanted.clamp(SHORTEST, LONGEST)
    }

    /// Whether Stripe knows the key.
    ///
    /// # Errors
    ///
    /// A [`StripeError`].
    pub async fn check_key(&self) -> Result<(), StripeError> {
        let query = Form::new().with("limit", "1");
        let asked = self.get::<serde_json::Value>(&["checkout", "sessions"], &query);
        asked.await.map(drop)
    }

    /// The price `id`.
    ///
    /// # Errors
    ///
    /// A [`StripeError`]; [`is_not_found`](StripeError::is_not_found) if there is none.
    pub async fn price(&self, id: &str) -> Result<StripePrice, StripeError> {
        let price: Price = self.get(&["prices", id], &Form::new()).await?;
        if price.id != id || price.livemode != self.is_live() {
            return Err(StripeError::invalid("it answered about another price"));
        }
        if !price.active {
            return Err(StripeError::invalid("the price is not active"));
        }
        let mode = match price.recurring {
            None => PlanMode::Payment,
            Some(recurring) if recurring.usage_type == "metered" => PlanMode::Metered,
            Some(_) => PlanMode::Subscription,
        };
        let unit = unit_of(&price.currency);
        let unit = unit.ok_or(StripeError::invalid(
            "the price is in a currency not known here",
        ))?;
        let amount = price
            .unit_amount
            .and_then(|value| Amount::new(value, unit).ok());
        Ok(StripePrice {
            id: price.id,
            mode,
            amount,
        })
    }

    /// Who `client` (a key, as hex) is to Stripe: a new customer, or the one that was made of the same question before.
    ///
    /// # Errors
    ///
    /// A [`StripeError`].
    pub async fn make_customer(&self, client: &str) -> Result<String, StripeError> {
        let form = Form::new()
            .with("metadata[nostr_pubkey]", client)
            .with(&format!("metadata[{CLIENT}]"), client);
        let key = format!("tollkeeper-customer-{client}");
        let made: Named = self.post(&["customers"], &form, &key).await?;
        Ok(made.id)
    }

    /// Makes the page of `order`, or the one that was made of the same order before.
    ///
    /// # Errors
    ///
    /// A [`StripeError`], also for a page that is not what was ordered.
    pub async fn make_page(&self, order: &PlanOrder<'_>) -> Result<PlanPage, StripeError> {
        let once = order.mode == PlanMode::Payment;
        let facts = if once {
            "payment_intent_data"
        } else {
            "subscription_data"
        };
        let mut form = Form::new()
            .with("mode", if once { "payment" } else { "subscription" })
            .with("line_items[0][price]", order.price);
        if order.mode != PlanMode::Metered {
            form = form.with("line_items[0][quantity]", order.quantity.to_string());
        }
        form = form
            .with("customer", order.customer)
            .with("client_reference_id", order.purchase)
            .with("success_url", order.success_url)
            .with_some("cancel_url", order.cancel_url)
            .with("expires_at", order.ends.as_secs().to_string());
        for (name, value) in [
            (PURCHASE, order.purchase),
            (CLIENT, order.client),
            (PLAN, cut(order.plan, 200)),
        ] {
            form = form
                .with(&format!("metadata[{name}]"), value)
                .with(&format!("{facts}[metadata][{name}]"), value);
        }
        let key = format!("tollkeeper-purchase-{}", order.purchase);
        let session: Session = self.post(&["checkout", "sessions"], &form, &key).await?;
        let expected = Expected {
            purchase: order.purchase,
            client: order.client,
            price: order.price,
            former_prices: &[],
            mode: order.mode,
            amount: order.amount,
        };
        if let Some(objection) = self.objection_to(&session, &expected) {
            return Err(StripeError::invalid(objection));
        }
        let url = session.url.filter(|_| session.status == "open");
        let url = url.ok_or(StripeError::invalid("the page cannot be opened"))?;
        Ok(PlanPage {
            session: session.id,
            url,
            ends: Timestamp::from_secs(session.expires_at),
        })
    }

    /// How the purchase of the page `session` stands.
    ///
    /// # Errors
    ///
    /// A [`StripeError`], also for a page that is not the purchase's, or was paid otherwise than it had to be.
    pub async fn look_at(
        &self,
        session: &str,
        expected: &Expected<'_>,
    ) -> Result<PurchaseReport, StripeError> {
        let query = Form::new()
            .with("expand[0]", "payment_intent.latest_charge")
            .with("expand[1]", "subscription");
        let path = ["checkout", "sessions", session];
        let found: Session = self.get(&path, &query).await?;
        if found.id != session {
            return Err(StripeError::invalid("it answered about another page"));
        }
        if let Some(objection) = self.objection_to(&found, expected) {
            return Err(StripeError::invalid(objection));
        }
        report(&found, expected)
    }

    /// The purchase that the subscription `id` says it is, if it says so, and its latest invoice.
    ///
    /// # Errors
    ///
    /// A [`StripeError`].
    pub async fn subscription(
        &self,
        id: &str,
    ) -> Result<(Option<String>, Option<String>), StripeError> {
        let found: Subscription = self.get(&["subscriptions", id], &Form::new()).await?;
        let purchase = fact(&found.metadata, PURCHASE).map(str::to_owned);
        let invoice = found.latest_invoice.as_ref().map(Ref::id);
        Ok((purchase, invoice.map(str::to_owned)))
    }

    /// The subscription that the payment `id` was for, if it was for one, and the invoice.
    ///
    /// # Errors
    ///
    /// A [`StripeError`].
    pub async fn subscription_paid_by(
        &self,
        id: &str,
    ) -> Result<Option<(String, String)>, StripeError> {
        let query = Form::new()
            .with("payment[type]", "payment_intent")
            .with("payment[payment_intent]", id)
            .with("expand[0]", "data.invoice");
        let found: List<InvoicePayment> = self.get(&["invoice_payments"], &query).await?;
        for paid in found.data {
            let invoice = match paid.invoice {
                Ref::Full(invoice) => *invoice,
                Ref::Id(id) => self.get(&["invoices", &id], &Form::new()).await?,
            };
            if let Some(subscription) = invoice.subscription() {
                return Ok(Some((subscription.to_owned(), invoice.id.clone())));
            }
        }
        Ok(None)
    }

    /// The page that the payment `id` was made on, if there was one.
    ///
    /// # Errors
    ///
    /// A [`StripeError`].
    pub async fn page_paid_by(&self, id: &str) -> Result<Option<String>, StripeError> {
        let query = Form::new().with("payment_intent", id).with("limit", "1");
        let found: List<Session> = self.get(&["checkout", "sessions"], &query).await?;
        Ok(found.data.into_iter().next().map(|session| session.id))
    }

    /// The payment `id`.
    ///
    /// # Errors
    ///
    /// A [`StripeError`].
    pub async fn payment(&self, id: &str) -> Result<PaymentReport, StripeError> {
        #[derive(Deserialize)]
        struct Intent {
            latest_charge: Option<Ref<super::objects::Charge>>,
            #[serde(default)]
            metadata: Option<serde_json::Map<String, serde_json::Value>>,
        }
        let query = Form::new().with("expand[0]", "latest_charge");
        let intent: Intent = self.get(&["payment_intents", id], &query).await?;
        let charge = intent.latest_charge.as_ref().and_then(Ref::full);
        let taken_back = charge.and_then(|charge| match (charge.refunded, charge.disputed) {
            (true, _) => Some("refunded"),
            (_, true) => Some("disputed"),
            _ => None,
        });
        Ok(PaymentReport {
            taken_back,
            order: fact(&intent.metadata, ORDER).map(str::to_owned),
        })
    }

    /// Reports that `customer` used `value` of `meter`, once for each `identifier`.
    ///
    /// # Errors
    ///
    /// A [`StripeError`]: it is not known whether Stripe has it, and safe to report again.
    pub async fn report_use(
        &self,
        (meter, customer, value): (&str, &str, u64),
        identifier: &str,
        at: Timestamp,
    ) -> Result<MeterReport, StripeError> {
        let form = Form::new()
            .with("event_name", meter)
            .with("payload[stripe_customer_id]", customer)
            .with("payload[value]", value.to_string())
            .with("identifier", identifier)
            .with("timestamp", at.as_secs().to_string());
        let key = format!("tollkeeper-use-{identifier}");
        let path = ["billing", "meter_events"];
        match self.post::<serde_json::Value>(&path, &form, &key).await {
            Ok(_) => Ok(MeterReport::Taken),
            // It has counted this identifier.
            Err(StripeError(Cause::Refused { code, .. })) if code.contains("duplicate") => {
                Ok(MeterReport::Taken)
            }
            Err(StripeError(Cause::Refused { code, .. })) => Ok(MeterReport::Refused(code)),
            Err(error) => Err(error),
        }
    }

    /// Why `session` is not the page of the purchase that is expected.
    fn objection_to(&self, session: &Session, expected: &Expected<'_>) -> Option<&'static str> {
        if session.livemode != self.is_live() {
            return Some("it mixes test and live mode up");
        }
        if fact(&session.metadata, PURCHASE) != Some(expected.purchase)
            || fact(&session.metadata, CLIENT) != Some(expected.client)
        {
            return Some("the page is another client's, or of another purchase");
        }
        let once = expected.mode == PlanMode::Payment;
        if (session.mode == "payment") != once {
            return Some("the page charges otherwise than was ordered");
        }
        let amount = expected.amount.filter(|_| once)?;
        let currency = currency_of(amount.unit());
        (session.amount_total != Some(amount.value()) || session.currency.as_deref() != currency)
            .then_some("the page asks for another amount than was ordered")
    }
}

/// An address to send payers to, checked.
///
/// # Errors
///
/// [`ErrorKind::Config`](crate::ErrorKind::Config) for what cannot be one.
pub fn check_return_url(key: &str, url: &str) -> Result<(), Error> {
    check_url(key, url)
}

fn report(session: &Session, expected: &Expected<'_>) -> Result<PurchaseReport, StripeError> {
    let mut report = PurchaseReport {
        standing: Standing::Open,
        status: session.status.clone(),
        payment: None,
        subscription: None,
        customer: session.customer.as_ref().map(|named| named.id().to_owned()),
        period_end: None,
    };
    match session.status.as_str() {
        "open" => {}
        "expired" => report.standing = Standing::Bad,
        "complete" if expected.mode == PlanMode::Payment => once(session, &mut report)?,
        "complete" => each_period(session, expected, &mut report)?,
        _ => {
            return Err(StripeError::invalid(
                "the page is in a state that is not known",
            ));
        }
    }
    Ok(report)
}

/// What is paid once.
fn once(session: &Session, report: &mut PurchaseReport) -> Result<(), StripeError> {
    let intent = session.payment_intent.as_ref().and_then(Ref::full);
    let intent = intent.ok_or(StripeError::invalid("it does not show the payment"))?;
    report.payment = Some(intent.id.clone());
    (report.standing, report.status) = match session.payment_status.as_str() {
        "paid" => match taken_back(session) {
            Some(how) => (Standing::Over, how.to_owned()),
            None => (Standing::Good, "paid".to_owned()),
        },
        _ if is_under_way(&intent.status) => {
            let until = under_way_until(session.created);
            (Standing::UnderWay(until), "processing".to_owned())
        }
        _ => (Standing::Bad, intent.status.clone()),
    };
    Ok(())
}

/// What is paid each period.
fn each_period(
    session: &Session,
    expected: &Expected<'_>,
    report: &mut PurchaseReport,
) -> Result<(), StripeError> {
    let subscription = session.subscription.as_ref().and_then(Ref::full);
    let subscription =
        subscription.ok_or(StripeError::invalid("it does not show the subscription"))?;
    let former = &mut expected.former_prices.iter();
    if !subscription.is_for(expected.price) && !former.any(|price| subscription.is_for(price)) {
        return Err(StripeError::invalid(
            "the subscription is one for another price",
        ));
    }
    report.subscription = Some(subscription.id.clone());
    report.status.clone_from(&subscription.status);
    report.period_end = subscription.period_end().map(Timestamp::from_secs);
    report.standing = match subscription.status.as_str() {
        "active" | "trialing" => Standing::Good,
        "past_due" => Standing::PastDue,
        "canceled" | "incomplete_expired" => Standing::Over,
        "incomplete" | "unpaid" | "paused" => Standing::Bad,
        _ => {
            return Err(StripeError::invalid(
                "the subscription is in a state that is not known",
            ));
        }
    };
    Ok(())
}
