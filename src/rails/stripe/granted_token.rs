//! Shared payment tokens (`spt_…`): an agent's wallet grants the seller the right to one charge up to a limit, and the seller
//! charges it with one PaymentIntent. Used by the Machine Payments Protocol, whose method is `stripe`.
//!
//! One order is one PaymentIntent, for ever: the idempotency key is the order's, so a second token for the same order is
//! never charged, and asking again after a lost answer, or after a crash, finds the first charge. An error is never "not
//! charged" unless Stripe says that it took nothing on.

use std::fmt;

use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::Value;

use super::checkout::under_way_until;
use super::client::StripeClient;
use super::error::{Cause, StripeError};
use super::form::{Form, cut};
use super::money::currency_of;
use crate::error::{Error, Result};
use crate::payment::{Amount, PaymentOrder, RailError, Settlement, SettlementStatus, Timestamp};

/// The version of the API that knows the parameter; it is a preview.
const PREVIEW: &str = "2026-07-29.preview";
/// Where a PaymentIntent keeps the key of its order.
const ORDER: &str = "tollkeeper_order";
/// The most facts that go along, and the longest of each: Stripe's limits.
const MOST_FACTS: usize = 40;
const LONGEST_NAME: usize = 40;
const LONGEST_FACT: usize = 500;

/// A shared payment token that was granted to us. Whoever holds it can use it, so it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct GrantedToken(String);

impl GrantedToken {
    /// Reads a token; `None` for what cannot be one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let token = text.starts_with("spt_") && text.len() > 4 && text.len() <= 200;
        (token && text.bytes().all(legal)).then(|| Self(text.to_owned()))
    }
}

impl fmt::Debug for GrantedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GrantedToken(hidden)")
    }
}

/// How a charge stands.
#[derive(Debug)]
#[non_exhaustive]
pub enum TokenCharge {
    /// Charged: exactly what was ordered, in its currency.
    Succeeded {
        /// What arrived; its reference is the PaymentIntent.
        settlement: Settlement,
    },
    /// Taken on; the bank has not answered. Not a failure: ask again.
    Processing {
        /// The PaymentIntent.
        payment_intent: String,
        /// When it must have been decided.
        until: Timestamp,
    },
    /// The payer must do something first, which an agent cannot. Nothing was charged.
    RequiresAction {
        /// The PaymentIntent.
        payment_intent: String,
    },
    /// Not charged, and this order will not be: it takes a new one.
    Failed {
        /// The PaymentIntent, if one was made.
        payment_intent: Option<String>,
        /// Why, as a code of Stripe's such as `card_declined`.
        code: String,
    },
    /// Nobody knows: no answer, or one that cannot be right. Ask again with the same order and token.
    Unknown(RailError),
}

impl TokenCharge {
    /// As the gate's rails say it.
    #[must_use]
    pub fn into_status(self) -> SettlementStatus {
        match self {
            Self::Succeeded { settlement } => SettlementStatus::Settled(settlement),
            Self::Processing { until, .. } => SettlementStatus::UnderWay(until),
            Self::RequiresAction { .. } => SettlementStatus::Pending,
            Self::Failed { .. } => SettlementStatus::Failed,
            Self::Unknown(_) => SettlementStatus::Unknown,
        }
    }
}

/// Which parameter carries the token: Stripe documents one, and its libraries send the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TokenParam {
    /// `shared_payment_granted_token`, as the libraries of the protocol send it.
    #[default]
    TopLevel,
    /// `payment_method_data[shared_payment_granted_token]`, as Stripe's changelog of 2026-04-22 has it.
    PaymentMethodData,
}

impl TokenParam {
    const fn name(self) -> &'static str {
        match self {
            Self::TopLevel => "shared_payment_granted_token",
            Self::PaymentMethodData => "payment_method_data[shared_payment_granted_token]",
        }
    }
}

/// Charges shared payment tokens to one account.
#[derive(Debug, Clone)]
pub struct TokenCharger {
    client: StripeClient,
    param: TokenParam,
}

#[derive(Deserialize)]
struct PaymentIntent {
    id: String,
    status: String,
    amount: u64,
    #[serde(default)]
    amount_received: u64,
    currency: String,
    #[serde(default)]
    livemode: bool,
    #[serde(default)]
    created: Option<u64>,
    #[serde(default)]
    metadata: Option<Value>,
    #[serde(default)]
    last_payment_error: Option<LastError>,
}

#[derive(Deserialize)]
struct LastError {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    decline_code: Option<String>,
}

#[derive(Deserialize)]
struct Found {
    data: Vec<PaymentIntent>,
}

impl TokenCharger {
    /// Charges to the account of `client`.
    #[must_use]
    pub fn new(client: StripeClient) -> Self {
        Self {
            client: client.with_version(HeaderValue::from_static(PREVIEW)),
            param: TokenParam::default(),
        }
    }

    /// Sends the token in this parameter.
    #[must_use]
    pub fn token_param(mut self, param: TokenParam) -> Self {
        self.param = param;
        self
    }

    /// Speaks another (preview) version of the API.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for what is no version.
    pub fn api_version(mut self, version: &str) -> Result<Self> {
        let version = HeaderValue::from_str(version)
            .map_err(|_| Error::config("the version of Stripe's API cannot be sent"))?;
        self.client = self.client.with_version(version);
        Ok(self)
    }

    /// Whether `amount` can be charged: a currency that Stripe knows, and not less than its minimum.
    #[must_use]
    pub fn can_charge(&self, amount: &Amount) -> bool {
        super::money::minimum_of(amount.unit())
            .is_some_and(|least| amount.covers(&least) == Some(true))
    }

    /// Charges `order` to `token`. May be called again with the same order at any time: at most one charge comes of it.
    ///
    /// Write down that it is being charged before you call, and the outcome before anything is served. `facts` go along as
    /// metadata, for the seller's eyes in his dashboard; they must be the same on each call, and hold no secret.
    pub async fn charge_granted_token(
        &self,
        order: &PaymentOrder,
        token: &GrantedToken,
        facts: &[(&str, &str)],
    ) -> TokenCharge {
        let Some(currency) = currency_of(order.amount.unit()) else {
            return TokenCharge::Failed {
                payment_intent: None,
                code: "currency_not_supported".to_owned(),
            };
        };
        let mut form = Form::new()
            .with("amount", order.amount.value().to_string())
            .with("currency", currency)
            .with("confirm", "true")
            .with("automatic_payment_methods[enabled]", "true")
            .with("automatic_payment_methods[allow_redirects]", "never")
            .with(self.param.name(), &token.0)
            .with("description", cut(&order.description, LONGEST_FACT))
            .with("metadata[machine_payment]", "true")
            .with(&format!("metadata[{ORDER}]"), &order.idempotency_key);
        for (name, value) in facts.iter().take(MOST_FACTS) {
            let name = cut(name, LONGEST_NAME);
            form = form.with(&format!("metadata[{name}]"), cut(value, LONGEST_FACT));
        }
        let key = format!("spt_{}", order.idempotency_key);
        let asked = self.client.post(&["payment_intents"], &form, &key).await;
        self.judge(asked, order, currency)
    }

    /// How the charge of `order` stands, by the reference that [`charge_granted_token`](Self::charge_granted_token) gave.
    pub async fn look_up_charge(&self, order: &PaymentOrder, payment_intent: &str) -> TokenCharge {
        let Some(currency) = currency_of(order.amount.unit()) else {
            return TokenCharge::Unknown(RailError::invalid(
                "Stripe: an order in no currency of it",
            ));
        };
        let path = ["payment_intents", payment_intent];
        let asked = self.client.get(&path, &Form::new()).await;
        self.judge(asked, order, currency)
    }

    /// The charge of `order`, if Stripe finds one by the order's key: for a restart that knows neither reference nor token.
    /// Stripe's search runs some seconds to a minute behind, so `None` is not "never charged".
    ///
    /// # Errors
    ///
    /// A [`RailError`] if nobody can tell.
    pub async fn find_charge(
        &self,
        order: &PaymentOrder,
    ) -> Result<Option<TokenCharge>, RailError> {
        let Some(currency) = currency_of(order.amount.unit()) else {
            return Ok(None);
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !order.idempotency_key.bytes().all(plain) {
            return Err(RailError::invalid(
                "Stripe: a key that cannot be searched for",
            ));
        }
        let query = format!("metadata['{ORDER}']:'{}'", order.idempotency_key);
        let query = Form::new().with("query", query).with("limit", "10");
        let path = ["payment_intents", "search"];
        let found: Found = self
            .client
            .get(&path, &query)
            .await
            .map_err(StripeError::into_rail)?;
        // A newer attempt that failed must not hide an older one that did not.
        let found = found.data.into_iter();
        let judged = found.map(|intent| self.judge(Ok(intent), order, currency));
        Ok(judged.min_by_key(|charge| match charge {
            TokenCharge::Succeeded { .. } => 0,
            TokenCharge::Processing { .. } => 1,
            TokenCharge::Unknown(_) => 2,
            TokenCharge::RequiresAction { .. } => 3,
            TokenCharge::Failed { .. } => 4,
        }))
    }

    fn judge(
        &self,
        asked: Result<PaymentIntent, StripeError>,
        order: &PaymentOrder,
        currency: &str,
    ) -> TokenCharge {
        let intent = match asked {
            Ok(intent) => intent,
            Err(StripeError(Cause::Declined(decline))) => {
                let id = decline.payment_intent.as_ref();
                let id = id.and_then(|intent| intent["id"].as_str());
                return TokenCharge::Failed {
                    payment_intent: id.map(str::to_owned),
                    code: decline.code,
                };
            }
            Err(StripeError(Cause::Refused { code, .. })) => {
                return TokenCharge::Failed {
                    payment_intent: None,
                    code,
                };
            }
            Err(error) => return TokenCharge::Unknown(error.into_rail()),
        };
        let lies = |what| TokenCharge::Unknown(StripeError::invalid(what).into_rail());
        if intent.livemode != self.client.is_live() {
            return lies("it mixes test and live mode up");
        }
        if intent.amount != order.amount.value() || intent.currency != currency {
            return lies("the charge is for another amount than was ordered");
        }
        let key = intent
            .metadata
            .as_ref()
            .and_then(|facts| facts[ORDER].as_str());
        if key != Some(&order.idempotency_key) {
            return lies("the charge is one for another order");
        }
        let payment_intent = intent.id;
        match intent.status.as_str() {
            "succeeded" if intent.amount_received == intent.amount => {
                let mut settlement = Settlement::new(order.amount.clone(), payment_intent);
                settlement.settled_at = intent.created.map(Timestamp::from_secs);
                TokenCharge::Succeeded { settlement }
            }
            "succeeded" => lies("less arrived than was charged"),
            "processing" => TokenCharge::Processing {
                payment_intent,
                until: under_way_until(intent.created.unwrap_or_default()),
            },
            "requires_action" | "requires_confirmation" => {
                TokenCharge::RequiresAction { payment_intent }
            }
            "canceled" | "requires_payment_method" => {
                let last = intent.last_payment_error;
                let code = last.and_then(|error| error.decline_code.or(error.code));
                TokenCharge::Failed {
                    payment_intent: Some(payment_intent),
                    code: code.unwrap_or(intent.status),
                }
            }
            _ => lies("the charge is in a state that is not known"),
        }
    }
}
