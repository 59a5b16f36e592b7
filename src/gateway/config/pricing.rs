//! Prices by tool, as guides to MPP write them: `[pricing] search = { amount = 5, currency = "usd", unit = "cent" }`; and what
//! a price is counted by.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::gateway::exit::{Failure, Outcome};
use crate::payment::{
    Amount, Capability, CapabilityPattern, MeterUnit, Metering, PriceModel, PriceRange,
    PricedCapability, Unit,
};
use crate::wire::method;

/// The section `[pricing]` as it is written: prices by the names of tools.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Pricing(BTreeMap<String, ToolPricing>);

/// One of its prices.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ToolPricing {
    amount: toml::Value,
    currency: String,
    unit: Option<String>,
    description: Option<String>,
    model: Option<Model>,
    per: Option<u64>,
    most: Option<u64>,
    argument: Option<String>,
}

/// What a price is counted by, in both ways of writing one.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) model: Option<Model>,
    /// How many tokens or results cost the amount.
    pub(super) per: Option<u64>,
    /// How many a call may use at most.
    pub(super) most: Option<u64>,
    /// The argument that says how many it may use.
    pub(super) argument: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Model {
    PerCall,
    PerToken,
    PerResult,
    Subscription,
}

impl Pricing {
    pub(super) fn prices(&self) -> Outcome<Vec<PricedCapability>> {
        let read = |(tool, price): (&String, &ToolPricing)| {
            price
                .read(tool)
                .map_err(|error| Failure::usage(format!("pricing.{tool}: {error}")))
        };
        self.0.iter().map(read).collect()
    }
}

impl ToolPricing {
    fn read(&self, tool: &str) -> Result<PricedCapability> {
        let name = CapabilityPattern::literal(tool)
            .ok_or_else(|| Error::config("the name of a tool must not hold a *"))?;
        let capability = Capability::new(method::TOOLS_CALL, Some(name))?;
        let amount = self.amount()?;
        let counted = Counted {
            model: self.model,
            per: self.per,
            most: self.most,
            argument: self.argument.clone(),
        };
        let priced = counted.price(capability, amount.clone(), amount)?;
        Ok(match &self.description {
            Some(description) => priced.with_description(description),
            None => priced,
        })
    }

    /// The amount counts the unit, which is the smallest of the currency if none is named.
    fn amount(&self) -> Result<Amount> {
        let number = match &self.amount {
            toml::Value::Integer(number) => number.to_string(),
            // As it was written: 0.1 is not exact in binary, and its text is.
            toml::Value::Float(number) => number.to_string(),
            toml::Value::String(number) => number.clone(),
            _ => return Err(Error::config("amount must be a number")),
        };
        let currency = self.currency.to_ascii_lowercase();
        let currency = if currency == "btc" { "sat" } else { &currency };
        let (smallest, _) = Unit::from_word(currency)?;
        let unit = self.unit.as_deref().map(str::to_ascii_lowercase);
        let word = match unit.as_deref() {
            None | Some("cent" | "cents" | "pence" | "rappen" | "sat" | "sats" | "minor") => {
                smallest.as_str()
            }
            Some("dollar" | "dollars" | "euro" | "euros" | "major") => currency,
            Some(other) if other == currency => currency,
            Some(other) if *other == *smallest.as_str() => smallest.as_str(),
            Some(_) => {
                return Err(Error::config(
                    "unit must be the smallest of the currency (cent, sat) or the currency itself",
                ));
            }
        };
        let amount: Amount = format!("{number} {word}").parse()?;
        if amount.value() == 0 {
            return Err(Error::config("amount must be at least 1"));
        }
        Ok(amount)
    }
}

impl Counted {
    /// The price of `capability`: from `min` to `max` for a call, or `min` for what it uses.
    pub(super) fn price(
        &self,
        capability: Capability,
        min: Amount,
        max: Amount,
    ) -> Result<PricedCapability> {
        let unit = match self.model {
            Some(Model::PerToken) => MeterUnit::Tokens,
            Some(Model::PerResult) => MeterUnit::Results,
            model => {
                if self.per.is_some() || self.most.is_some() || self.argument.is_some() {
                    return Err(Error::config(
                        "per, most and argument belong to model = \"per_token\" or \"per_result\"",
                    ));
                }
                let priced = PricedCapability::new(capability, PriceRange::new(min, max)?);
                return Ok(match model {
                    Some(Model::Subscription) => priced.with_model(PriceModel::Subscription),
                    _ => priced,
                });
            }
        };
        if min != max {
            return Err(Error::config(
                "max_amount is not for a price by use: most says how many a call may use",
            ));
        }
        let most = self.most.ok_or_else(|| {
            Error::config(format!(
                "most must say how many {} a call may use at most: that much is paid for before it runs",
                unit.as_str()
            ))
        })?;
        let mut metering = Metering::new(unit, min, self.per.unwrap_or(1), most)?;
        if let Some(argument) = &self.argument {
            metering = metering.limited_by(argument);
        }
        let priced = PricedCapability::new(capability, metering.range()?);
        Ok(priced.with_model(PriceModel::Metered(metering)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PricedCapability, String> {
        let pricing: Pricing = toml::from_str(text).map_err(|error| error.to_string())?;
        let prices = pricing
            .prices()
            .map_err(|failure| failure.message().to_owned())?;
        Ok(prices.into_iter().next().unwrap())
    }

    #[test]
    fn the_map_of_the_guide_is_read_as_it_stands() {
        for (text, price) in [
            (
                r#"a = { amount = 5, currency = "usd", unit = "cent" }"#,
                "0.05 usd",
            ),
            (r#"a = { amount = 5, currency = "USD" }"#, "0.05 usd"),
            (
                r#"a = { amount = 0.5, currency = "usd", unit = "dollar" }"#,
                "0.50 usd",
            ),
            (
                r#"a = { amount = "0.5", currency = "eur", unit = "eur" }"#,
                "0.50 eur",
            ),
            (
                r#"a = { amount = 10, currency = "btc", unit = "sat" }"#,
                "10 sats",
            ),
            (r#"a = { amount = 10, currency = "sat" }"#, "10 sats"),
        ] {
            let priced = read(text).unwrap();
            assert_eq!(priced.price.to_string(), price, "{text}");
            assert_eq!(priced.capability.to_string(), "tool:a");
            assert_eq!(priced.model.as_str(), "per_call");
        }
    }

    #[test]
    fn each_model_has_its_words() {
        let tokens = read(
            r#"a = { amount = 3, currency = "sat", model = "per_token", per = 1000, most = 10000, argument = "max_tokens" }"#,
        )
        .unwrap();
        assert_eq!(tokens.model.as_str(), "per_token");
        assert_eq!(tokens.price.to_string(), "1 sats to 30 sats");
        let results =
            read(r#"a = { amount = 2, currency = "sat", model = "per_result", most = 20 }"#);
        assert_eq!(results.unwrap().price.to_string(), "2 sats to 40 sats");
        let subscription =
            read(r#"a = { amount = 5, currency = "usd", model = "subscription" }"#).unwrap();
        assert_eq!(subscription.model, PriceModel::Subscription);
    }

    #[test]
    fn mistakes_name_the_tool_and_what_it_wants() {
        for (text, word) in [
            (r#"a = { amount = 0, currency = "usd" }"#, "at least 1"),
            (r#"a = { amount = -1, currency = "usd" }"#, "pricing.a"),
            (
                r#"a = { amount = 0.001, currency = "usd", unit = "usd" }"#,
                "decimals",
            ),
            (
                r#"a = { amount = 1, currency = "usd", unit = "penny" }"#,
                "unit",
            ),
            (r#"a = { amount = 1, currency = "usd", most = 5 }"#, "model"),
            (
                r#"a = { amount = 1, currency = "usd", model = "per_token" }"#,
                "most",
            ),
            (
                r#"a = { amount = 1, currency = "usd", model = "per_hour" }"#,
                "per_hour",
            ),
            (r#"a = { currency = "usd" }"#, "amount"),
            (r#""a*" = { amount = 1, currency = "usd" }"#, "*"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
