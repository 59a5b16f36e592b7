//! The hook that decides what one call costs.

use std::future::Future;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::metering::reservation;
use super::{Amount, Invocation, PriceModel, PricedCapability};
use crate::error::Error;

/// Decides, for each priced request, what it costs: a quote, a rejection or a waiver.
///
/// Any `Fn(Invocation, PricedCapability) -> Future<Output = Result<PriceDecision, Error>>` is one:
///
/// ```
/// # use tollkeeper::{Error, Invocation, PriceDecision, PricedCapability, Quote, ResolvePrice};
/// fn takes(_: impl ResolvePrice) {}
/// takes(|call: Invocation, listed: PricedCapability| async move {
///     if call.params.to_string().len() > 10_000 {
///         return Ok(PriceDecision::reject("too long"));
///     }
///     Ok::<_, Error>(Quote::new(listed.price.min()).into())
/// });
/// ```
///
/// Keep it fast: it has a time limit. It may be asked several times for one call.
#[async_trait]
pub trait ResolvePrice: Send + Sync {
    /// What `invocation` costs, given the entry of the price list that it matched.
    ///
    /// # Errors
    ///
    /// An error is a failure of the server, not a rejection: nothing is charged, and the client gets a generic error.
    async fn resolve_price(
        &self,
        invocation: &Invocation,
        capability: &PricedCapability,
    ) -> Result<PriceDecision, Error>;
}

/// The outcome of [`ResolvePrice`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum PriceDecision {
    /// It costs this much.
    Quote(Quote),
    /// It is not for sale to this client; the message is for the client to read.
    Reject {
        /// Why, in words for the client.
        message: Option<String>,
    },
    /// It costs nothing, this time.
    Waive,
}

impl PriceDecision {
    /// A rejection that says why.
    pub fn reject(message: impl Into<String>) -> Self {
        Self::Reject {
            message: Some(message.into()),
        }
    }
}

/// How much a call costs, and what the client is told with it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Quote {
    /// The price: at least 1, inside the advertised range, in its unit.
    pub amount: Amount,
    /// What is bought, for the buyer to read; the price list's description if `None`.
    pub description: Option<String>,
    /// Anything more, sent along as `_meta`.
    pub meta: Option<Map<String, Value>>,
}

impl Quote {
    /// A quote of `amount`.
    #[must_use]
    pub fn new(amount: Amount) -> Self {
        Self {
            amount,
            description: None,
            meta: None,
        }
    }

    /// Says what is bought.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Sends `meta` along as `_meta`.
    #[must_use]
    pub fn with_meta(mut self, meta: Map<String, Value>) -> Self {
        self.meta = Some(meta);
        self
    }
}

impl From<Quote> for PriceDecision {
    fn from(quote: Quote) -> Self {
        Self::Quote(quote)
    }
}

/// Charges what the price list says: the price, or the minimum of a range; of a price by use, what the call may use at most.
#[derive(Debug, Clone, Copy, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "nothing to add: it follows the list"
)]
pub struct StaticPrice;

#[async_trait]
impl ResolvePrice for StaticPrice {
    async fn resolve_price(
        &self,
        invocation: &Invocation,
        capability: &PricedCapability,
    ) -> Result<PriceDecision, Error> {
        if let PriceModel::Metered(metering) = &capability.model {
            return reservation(metering, invocation).map(Into::into);
        }
        Ok(Quote::new(capability.price.min()).into())
    }
}

#[async_trait]
impl<F, Fut> ResolvePrice for F
where
    F: Fn(Invocation, PricedCapability) -> Fut + Send + Sync,
    Fut: Future<Output = Result<PriceDecision, Error>> + Send,
{
    async fn resolve_price(
        &self,
        invocation: &Invocation,
        capability: &PricedCapability,
    ) -> Result<PriceDecision, Error> {
        self(invocation.clone(), capability.clone()).await
    }
}

/// Object safety is part of the contract.
const _: fn(&dyn ResolvePrice) = |_| {};
