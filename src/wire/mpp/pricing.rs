//! Prices in `tools/list`: `x-mpp-pricing` at the top of a tool and in its `_meta`, because many clients drop what they do not
//! know at the top; and the payment-info offers of MPP's discovery.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::super::{meta_of, raw};
use crate::payment::{Amount, PriceModel, PricedCapability, Unit};

/// The key of a tool's price.
pub const PRICING_KEY: &str = "x-mpp-pricing";

/// The key of the offers in a tool's `_meta`.
pub const PAYMENT_INFO_KEY: &str = "org.paymentauth/payment-info";

/// Currency and unit as `x-mpp-pricing` names them: `usd` and `cent`.
#[must_use]
pub fn currency_and_unit(unit: &Unit) -> (String, String) {
    let label = unit.as_str();
    if *unit == Unit::SATS {
        return ("btc".to_owned(), "sat".to_owned());
    }
    match label.split_once('-') {
        // "cents" is the plural; a single one is the unit.
        Some((currency, minor)) => {
            let one = minor.strip_suffix('s').unwrap_or(minor);
            (currency.to_owned(), one.to_owned())
        }
        None => (label.to_owned(), label.to_owned()),
    }
}

/// What `x-mpp-pricing` says of `priced`.
#[must_use]
pub fn pricing(priced: &PricedCapability) -> Value {
    let (currency, unit) = currency_and_unit(priced.price.unit());
    let mut pricing = json!({ "model": priced.model.as_str(), "currency": currency, "unit": unit });
    match &priced.model {
        PriceModel::Metered(metering) => {
            pricing["amount"] = metering.price.value().into();
            pricing["per"] = metering.per.into();
            pricing["max_amount"] = priced.price.max().value().into();
        }
        _ => {
            pricing["amount"] = priced.price.min().value().into();
            if priced.price.max() != priced.price.min() {
                pricing["max_amount"] = priced.price.max().value().into();
            }
        }
    }
    pricing
}

/// The offer of `amount` by `method` for `intent`.
#[must_use]
pub fn offer((method, intent): (&str, &str), amount: &Amount, description: Option<&str>) -> Value {
    let (currency, unit) = currency_and_unit(amount.unit());
    // MPP counts lightning in the currency "sat".
    let currency = if *amount.unit() == Unit::SATS {
        unit
    } else {
        currency
    };
    let mut offer = json!({
        "intent": intent, "method": method, "amount": amount.value().to_string(), "currency": currency,
    });
    if let Some(description) = description {
        offer["description"] = description.into();
    }
    offer
}

/// What a list says about one of its tools.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ToolPrice {
    /// [`PRICING_KEY`].
    pub pricing: Value,
    /// [`PAYMENT_INFO_KEY`]; left out if empty.
    pub offers: Vec<Value>,
}

impl ToolPrice {
    /// A price with the ways in which it can be paid by challenge.
    #[must_use]
    pub fn new(pricing: Value, offers: Vec<Value>) -> Self {
        Self { pricing, offers }
    }
}

/// The result of `tools/list` with what `price_of` says of each tool, by its name. Everything else keeps its text. `None` if
/// nothing is added, or it is no list.
#[must_use]
pub fn with_prices(
    result: &RawValue,
    price_of: impl Fn(&str) -> Option<ToolPrice>,
) -> Option<Box<RawValue>> {
    let mut result: BTreeMap<String, Box<RawValue>> = serde_json::from_str(result.get()).ok()?;
    let listed = result.get("tools")?;
    let tools: Vec<Box<RawValue>> = serde_json::from_str(listed.get()).ok()?;
    let mut any = false;
    let tools: Vec<Box<RawValue>> = tools
        .into_iter()
        .map(|tool| match priced(&tool, &price_of) {
            Some(priced) => {
                any = true;
                priced
            }
            None => tool,
        })
        .collect();
    if !any {
        return None;
    }
    result.insert("tools".to_owned(), raw(&tools).ok()?);
    raw(&result).ok()
}

fn priced(tool: &RawValue, price_of: &impl Fn(&str) -> Option<ToolPrice>) -> Option<Box<RawValue>> {
    let mut fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(tool.get()).ok()?;
    let name: String = serde_json::from_str(fields.get("name")?.get()).ok()?;
    let ToolPrice { pricing, offers } = price_of(&name)?;
    let mut meta: Map<String, Value> = meta_of(Some(tool)).unwrap_or_default();
    meta.insert(PRICING_KEY.to_owned(), pricing.clone());
    if !offers.is_empty() {
        meta.insert(PAYMENT_INFO_KEY.to_owned(), json!({ "offers": offers }));
    }
    fields.insert("_meta".to_owned(), raw(&meta).ok()?);
    fields.insert(PRICING_KEY.to_owned(), raw(&pricing).ok()?);
    raw(&fields).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_reads_as_the_guide_writes_it() {
        for (entry, expected) in [
            (
                "tool:a=0.05 usd",
                json!({"model": "per_call", "amount": 5, "currency": "usd", "unit": "cent"}),
            ),
            (
                "tool:a=10-50 sat",
                json!({"model": "per_call", "amount": 10, "max_amount": 50, "currency": "btc", "unit": "sat"}),
            ),
            (
                "tool:a=7 points",
                json!({"model": "per_call", "amount": 7, "currency": "points", "unit": "points"}),
            ),
        ] {
            assert_eq!(pricing(&entry.parse().unwrap()), expected, "{entry}");
        }
    }

    #[test]
    fn only_priced_tools_are_changed() {
        let result = raw(&json!({"tools": [
            {"name": "a", "_meta": {"x": 1}}, {"name": "b", "n": 1.0}, {"title": "nameless"}
        ], "nextCursor": "c"}))
        .unwrap();
        let price = |name: &str| (name == "a").then(|| ToolPrice::new(json!(1), vec![json!(2)]));
        let added = with_prices(&result, price).unwrap();
        let meta =
            json!({"org.paymentauth/payment-info": {"offers": [2]}, "x": 1, "x-mpp-pricing": 1});
        let expected = json!({"nextCursor": "c", "tools": [
            {"_meta": meta, "name": "a", "x-mpp-pricing": 1}, {"n": 1.0, "name": "b"}, {"title": "nameless"},
        ]});
        let added: Value = serde_json::from_str(added.get()).unwrap();
        assert_eq!(added, expected);
        assert!(with_prices(&result, |_| None).is_none());
        for odd in [json!([]), json!({}), json!({"tools": 1})] {
            assert!(with_prices(&raw(&odd).unwrap(), price).is_none());
        }
    }
}
