//! What servers offer, with its price, as `inspect` and `discover` show it.

use serde_json::{Value, json};

use crate::gateway::output::{self, Paint, harmless};
use crate::payment::PriceRange;
use crate::wire::{CapTag, Tag, method};

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
    let prices: Vec<CapTag> = tags.iter().filter_map(CapTag::from_tag).collect();
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
                price: price_of(&prices, &notation),
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

/// The advertised price: that of this very name first, else that of the pattern that it fits with the longest prefix.
fn price_of(prices: &[CapTag], notation: &str) -> Option<PriceRange> {
    let fits = |cap: &&CapTag| {
        let capability = cap.capability.parse::<crate::payment::Capability>().ok();
        let name = notation.split_once(':').map(|(_, name)| name);
        let kind = |text: &str| text.split(':').next().map(str::to_owned);
        kind(&cap.capability) == kind(notation)
            && capability
                .and_then(|capability| capability.name)
                .zip(name)
                .is_some_and(|(pattern, name)| pattern.matches(name))
    };
    let exact = prices.iter().find(|cap| cap.capability == notation);
    let best = exact.or_else(|| {
        prices
            .iter()
            .filter(fits)
            .max_by_key(|cap| cap.capability.find('*').unwrap_or(usize::MAX))
    });
    best.map(|cap| cap.price.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_price_of_a_name_is_that_of_the_most_specific_tag() {
        let tags = [
            ["tool:*", "1"],
            ["tool:a*", "2"],
            ["tool:ab", "3"],
            ["prompt:ab", "4"],
        ];
        let prices: Vec<CapTag> = tags
            .iter()
            .filter_map(|[capability, price]| {
                CapTag::from_tag(&Tag::new(["cap", capability, price, "sats"]))
            })
            .collect();
        for (notation, price) in [
            ("tool:ab", Some(3)),
            ("tool:ac", Some(2)),
            ("tool:b", Some(1)),
            ("resource:ab", None),
        ] {
            let found = price_of(&prices, notation).map(|price| price.min().value());
            assert_eq!(found, price, "{notation}");
        }
    }
}
