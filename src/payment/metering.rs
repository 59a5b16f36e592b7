//! Prices by use: so much for each token or each result. What a call may use at most is paid for before it runs; what it did not
//! use is given back.

use serde_json::{Map, Value, json};

use super::{Amount, Invocation, PriceRange, Quote};
use crate::error::{Error, Result};

/// What a price is counted by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PriceModel {
    /// A call costs what its price says.
    #[default]
    PerCall,
    /// A call costs what its price says, unless its client has a subscription: an entitlement sees to that.
    Subscription,
    /// A call costs what it used.
    Metered(Metering),
}

impl PriceModel {
    /// The word in `x-mpp-pricing`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::PerCall => "per_call",
            Self::Subscription => "subscription",
            Self::Metered(metering) => match metering.unit {
                MeterUnit::Tokens => "per_token",
                MeterUnit::Results => "per_result",
            },
        }
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MeterUnit {
    /// Tokens, those that went in and those that came out.
    Tokens,
    /// Results.
    Results,
}

impl MeterUnit {
    /// Its name where a handler says what was used.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Results => "results",
        }
    }
}

/// How use is counted and paid for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metering {
    /// What is counted.
    pub unit: MeterUnit,
    /// What [`per`](Self::per) of it cost.
    pub price: Amount,
    /// How many cost the price.
    pub per: u64,
    /// How many a call may use at most.
    pub most: u64,
    /// The argument of the call that says how many it may use, if that is less: `limit`, `max_tokens`.
    pub argument: Option<String>,
}

impl Metering {
    /// `price` for each `per` of `unit`, of which a call uses `most` at most.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if one of them is 0, or if `most` of them cost more than can be counted.
    pub fn new(unit: MeterUnit, price: Amount, per: u64, most: u64) -> Result<Self> {
        if per == 0 || most == 0 || price.value() == 0 {
            return Err(Error::config(
                "a price by use must say how much, for how many, and how many at most: each at least 1",
            ));
        }
        let metering = Self {
            unit,
            price,
            per,
            most,
            argument: None,
        };
        match metering.cost(most) {
            Some(_) => Ok(metering),
            None => Err(Error::config(
                "a price by use must be countable at its most",
            )),
        }
    }

    /// Reads how many a call may use from its argument `name`.
    #[must_use]
    pub fn limited_by(mut self, name: impl Into<String>) -> Self {
        self.argument = Some(name.into());
        self
    }

    /// What `used` cost, rounded up; at least 1, because a call that nothing is asked for needs no price.
    #[must_use]
    pub fn cost(&self, used: u64) -> Option<Amount> {
        let cost = portion(self.price.value(), used, self.per)?;
        Amount::new(cost.max(1), self.price.unit().clone()).ok()
    }

    /// From what one costs to what the most cost.
    ///
    /// # Errors
    ///
    /// None for a metering that was made by [`new`](Self::new).
    pub fn range(&self) -> Result<PriceRange> {
        let of = |used| {
            self.cost(used)
                .ok_or_else(|| Error::config("a price by use must be countable"))
        };
        PriceRange::new(of(1)?, of(self.most)?)
    }

    /// How many `call` may use: what its argument says, at most the most.
    #[must_use]
    pub fn reserved(&self, call: &Invocation) -> u64 {
        let said = self.argument.as_ref().and_then(|name| {
            let arguments = call.params.get("arguments").unwrap_or(&Value::Null);
            arguments.get(name)?.as_u64()
        });
        said.unwrap_or(self.most).clamp(1, self.most)
    }
}

/// Where `_meta` of a quote says what was paid for ahead, and what it is counted by.
pub const RESERVED_META: &str = "tollkeeper/reserved";

/// The price of what `call` may use at most, with what the rest is counted by afterwards.
pub(super) fn reservation(metering: &Metering, call: &Invocation) -> Result<Quote> {
    let reserved = metering.reserved(call);
    let amount = metering
        .cost(reserved)
        .ok_or_else(|| Error::config("a price by use must be countable"))?;
    let told = json!({
        metering.unit.as_str(): reserved, "amount": metering.price.value(), "per": metering.per,
    });
    let meta = Map::from_iter([(RESERVED_META.to_owned(), told)]);
    Ok(Quote::new(amount).with_meta(meta))
}

/// `used / of` of `whole`, rounded up; `None` if it cannot be counted.
#[must_use]
pub fn portion(whole: u64, used: u64, of: u64) -> Option<u64> {
    let product = u128::from(whole) * u128::from(used);
    u64::try_from(product.div_ceil(u128::from(of.max(1)))).ok()
}

#[cfg(test)]
mod tests {
    use super::super::{ClientPubkey, InvocationIdentity, RequestEventId};
    use super::*;

    fn call(arguments: &Value) -> Invocation {
        Invocation::new(
            ClientPubkey::from_bytes([1; 32]),
            RequestEventId::from_bytes([2; 32]),
            "tools/call".into(),
            Some("add".into()),
            json!({ "name": "add", "arguments": arguments }),
            InvocationIdentity::from_bytes([3; 32]),
        )
    }

    #[test]
    fn use_is_rounded_up_and_bounded() {
        let metering =
            Metering::new(MeterUnit::Tokens, "3 sats".parse().unwrap(), 1000, 10_000).unwrap();
        for (used, cost) in [
            (0, 1),
            (1, 1),
            (333, 1),
            (334, 2),
            (1000, 3),
            (1001, 4),
            (10_000, 30),
        ] {
            assert_eq!(metering.cost(used).unwrap().value(), cost, "{used}");
        }
        assert_eq!(metering.range().unwrap().to_string(), "1 sats to 30 sats");
        assert_eq!(metering.cost(u64::MAX), None);
    }

    #[test]
    fn a_call_reserves_what_its_argument_says_and_no_more_than_the_most() {
        let metering = Metering::new(MeterUnit::Results, "2 sats".parse().unwrap(), 1, 50).unwrap();
        assert_eq!(metering.reserved(&call(&json!({"limit": 5}))), 50);
        let metering = metering.limited_by("limit");
        for (argument, reserved) in [
            (json!({"limit": 5}), 5),
            (json!({"limit": 500}), 50),
            (json!({"limit": 0}), 1),
            (json!({"limit": -5}), 50),
            (json!({"limit": "5"}), 50),
            (json!({}), 50),
            (json!(null), 50),
        ] {
            assert_eq!(metering.reserved(&call(&argument)), reserved, "{argument}");
        }
    }

    #[test]
    fn nothing_is_priced_by_nothing() {
        let sats = |n: u64| Amount::new(n, super::super::Unit::SATS).unwrap();
        for (price, per, most) in [
            (0, 1, 1),
            (1, 0, 1),
            (1, 1, 0),
            (u64::MAX >> 12, 1, 1 << 20),
        ] {
            assert!(Metering::new(MeterUnit::Results, sats(price), per, most).is_err());
        }
    }
}
