//! Prices, where the host lists them: in the description, for the model, and in `_meta`, for programs.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::payment::PriceRange;
use crate::wire::{method, raw};

/// The key in `_meta`.
const META: &str = "tollkeeper/price";

type Fields = BTreeMap<String, Box<RawValue>>;

/// The result of a list method with the prices of what it lists. What has no price stays as it is, byte for byte.
pub(super) fn with_prices(
    list: &str,
    result: &RawValue,
    price_of: impl Fn(&str) -> Option<PriceRange>,
) -> Option<Box<RawValue>> {
    let (key, name_key, used_with) = method::listing(list)?;
    let mut fields: Fields = serde_json::from_str(result.get()).ok()?;
    let items: Vec<Box<RawValue>> = serde_json::from_str(fields.get(key)?.get()).ok()?;
    let mut changed = false;
    let items: Vec<Box<RawValue>> = items
        .into_iter()
        .map(|item| match priced(&item, name_key, used_with, &price_of) {
            Some(priced) => {
                changed = true;
                priced
            }
            None => item,
        })
        .collect();
    if !changed {
        return None;
    }
    fields.insert(key.to_owned(), raw(&items).ok()?);
    raw(&fields).ok()
}

fn priced(
    item: &RawValue,
    name_key: &str,
    used_with: &str,
    price_of: &impl Fn(&str) -> Option<PriceRange>,
) -> Option<Box<RawValue>> {
    let mut fields: Fields = serde_json::from_str(item.get()).ok()?;
    let text = |fields: &Fields, key: &str| -> Option<String> {
        serde_json::from_str(fields.get(key)?.get()).ok()
    };
    let name = text(&fields, name_key)?;
    let key = if used_with == method::RESOURCES_READ {
        "uri"
    } else {
        "name"
    };
    let price = price_of(&method::notation(used_with, Some(&json!({ key: name }))))?;
    let said = text(&fields, "description").unwrap_or_default();
    let space = if said.is_empty() { "" } else { "\n\n" };
    let description = format!("{said}{space}Price: {price} per call.");
    let mut meta: Map<String, Value> = fields
        .get("_meta")
        .and_then(|meta| serde_json::from_str(meta.get()).ok())
        .unwrap_or_default();
    meta.insert(
        META.to_owned(),
        json!({"min": price.min().value(), "max": price.max().value(), "unit": price.unit()}),
    );
    fields.insert("description".to_owned(), raw(&description).ok()?);
    fields.insert("_meta".to_owned(), raw(&meta).ok()?);
    raw(&fields).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_costs_something_says_so_and_the_rest_is_left_alone() {
        let result = RawValue::from_string(
            r#"{"tools":[{"name":"a","description":"Adds.","inputSchema":{"max":9007199254740993}},{"name":"b"},{"name":"c","_meta":{"x":1}}],"nextCursor":"n"}"#.to_owned(),
        )
        .unwrap();
        let price = |notation: &str| {
            ["tool:a", "tool:c"]
                .contains(&notation)
                .then(|| "5-9 sat".parse().unwrap())
        };
        let shown = with_prices("tools/list", &result, price).unwrap();
        let shown = shown.get();
        assert!(shown.contains(r#""description":"Adds.\n\nPrice: 5 sats to 9 sats per call.""#));
        assert!(shown.contains(r#"{"name":"b"}"#));
        assert!(shown.contains("9007199254740993"), "{shown}");
        assert!(shown.contains(r#""nextCursor":"n""#));
        let shown: Value = serde_json::from_str(shown).unwrap();
        let meta = json!({"x": 1, "tollkeeper/price": {"min": 5, "max": 9, "unit": "sats"}});
        assert_eq!(shown["tools"][2]["_meta"], meta);
        assert!(with_prices("tools/list", &result, |_| None).is_none());
        assert!(with_prices("tools/call", &result, price).is_none());
    }
}
