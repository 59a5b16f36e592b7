//! What servers offer, with its price, as `inspect` and `discover` show it.

use serde_json::{Value, json};

use crate::client::PriceBoard;
use crate::gateway::output::{self, Paint, harmless};
use crate::payment::PriceRange;
use crate::wire::{Tag, method};

/// One capability with its price.
pub(super) struct Offer {
    notation: String,
    description: Option<String>,
    pub(super) price: Option<PriceRange>,
}

/// What a list result offers; `page` is the result of `list`, whose items are of `kind`, and `tags` came with it.
pub(super) fn offers_of(list: &str, kind: &str, page: &mut Value, tags: &[Tag]) -> Vec<Offer> {
    let Some((key, name, _)) = method::listing(list) else {
        return Vec::new();
    };
    let prices = PriceBoard::default();
    prices.note(tags);
    let items = page.get_mut(key).and_then(Value::as_array_mut);
    items
        .map(std::mem::take)
        .unwrap_or_default()
        .iter()
        .filter_map(|item| {
            let name = item.get(name).and_then(Value::as_str)?;
            let notation = format!("{kind}:{name}");
            let text = |key: &str| item.get(key).and_then(Value::as_str).map(str::to_owned);
            Some(Offer {
                price: prices.price_of(&notation),
                description: text("description").or_else(|| text("title")),
                notation,
            })
        })
        .collect()
}

impl Offer {
    /// As a line for machines.
    pub(super) fn to_json(&self) -> Value {
        let price = self.price.as_ref().map(|price| {
            json!({
                "min": price.min().value(),
                "max": price.max().value(),
                "unit": price.unit(),
            })
        });
        json!({
            "event": "capability",
            "capability": self.notation,
            "description": self.description,
            "price": price,
        })
    }

    /// For people.
    pub(super) fn print(&self, paint: &Paint) {
        let price = match &self.price {
            Some(price) => paint.green(&price.to_string()),
            None => paint.dim("free"),
        };
        let notation = paint.bold(&harmless(&self.notation));
        output::line(&format!("\n{notation}  {price}"));
        if let Some(description) = &self.description {
            let shown = harmless(description);
            let first = shown.lines().next().unwrap_or_default();
            output::line(&format!("  {first}"));
        }
    }
}
