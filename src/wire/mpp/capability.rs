//! What both ends say about payments when a session is opened: `capabilities.experimental.payment`.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::super::raw;

/// Whether the params of an `initialize` request declare that the client pays by challenge, in the shape of the draft or in the
/// one that some write.
#[must_use]
pub fn declares_payment(params: Option<&RawValue>) -> bool {
    let declared = |params: &RawValue| -> Option<bool> {
        let params: Value = serde_json::from_str(params.get()).ok()?;
        let payment = params
            .get("capabilities")?
            .get("experimental")?
            .get("payment")?;
        Some(payment.is_object())
    };
    params.and_then(declared).unwrap_or(false)
}

/// `{"methods":{"lightning":{"intents":["charge"]}}}`.
#[must_use]
pub fn payment_capability<'a>(methods: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
    let mut listed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (method, intent) in methods {
        let intents = listed.entry(method).or_default();
        if !intents.contains(&intent) {
            intents.push(intent);
        }
    }
    let methods: Map<String, Value> = listed
        .into_iter()
        .map(|(method, intents)| (method.to_owned(), json!({ "intents": intents })))
        .collect();
    json!({ "methods": methods })
}

/// The result of `initialize` with `capability` under `capabilities.experimental.payment`; `None` if it has no room for it.
#[must_use]
pub fn with_payment_capability(result: &RawValue, capability: Value) -> Option<Box<RawValue>> {
    let mut result: BTreeMap<String, Box<RawValue>> = serde_json::from_str(result.get()).ok()?;
    let mut capabilities: Map<String, Value> = match result.get("capabilities") {
        Some(capabilities) => serde_json::from_str(capabilities.get()).ok()?,
        None => Map::new(),
    };
    let experimental = capabilities
        .entry("experimental")
        .or_insert_with(|| json!({}));
    experimental
        .as_object_mut()?
        .insert("payment".to_owned(), capability);
    result.insert("capabilities".to_owned(), raw(&capabilities).ok()?);
    raw(&result).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &Value) -> Box<RawValue> {
        raw(value).unwrap()
    }

    #[test]
    fn both_shapes_of_the_declaration_are_read() {
        for payment in [
            json!({"methods": {"lightning": {"intents": ["charge"]}}}),
            json!({"methods": ["x"], "intents": ["y"]}),
            json!({}),
        ] {
            let params = json!({"capabilities": {"experimental": {"payment": payment}}});
            assert!(declares_payment(Some(&text(&params))));
        }
        for other in [
            json!({}),
            json!({"capabilities": {"experimental": {}}}),
            json!([]),
        ] {
            assert!(!declares_payment(Some(&text(&other))));
        }
        assert!(!declares_payment(None));
    }

    #[test]
    fn the_capability_is_added_to_what_is_there() {
        let capability = payment_capability([
            ("stripe", "charge"),
            ("lightning", "charge"),
            ("stripe", "charge"),
        ]);
        let result = text(
            &json!({"capabilities": {"tools": {}, "experimental": {"x": 1}}, "serverInfo": {"v": 1.0}}),
        );
        let added = with_payment_capability(&result, capability).unwrap();
        let methods =
            json!({"lightning": {"intents": ["charge"]}, "stripe": {"intents": ["charge"]}});
        let experimental = json!({"x": 1, "payment": {"methods": methods}});
        // The order of keys is serde_json's affair, and hangs on its features.
        assert_eq!(
            serde_json::from_str::<Value>(added.get()).unwrap(),
            json!({"capabilities": {"tools": {}, "experimental": experimental}, "serverInfo": {"v": 1.0}})
        );
        assert!(with_payment_capability(&text(&json!([])), json!({})).is_none());
    }
}
