//! The price list: which entry prices which name.
//!
//! Exact beats pattern; among patterns the longest literal prefix wins; an entry without a name prices the rest of its
//! method. Two entries that could both win are refused at start. A look-up costs a hash of the name and one per distinct
//! prefix length, whatever the number of entries.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::payment::{
    CapabilityPattern, PriceModel, PricedCapability, Unit, has_unclear_host, spellings,
};
use crate::wire::{CapTag, method};

/// Prices by method and name.
#[derive(Debug, Clone, Default)]
pub struct PriceList {
    entries: Vec<Arc<PricedCapability>>,
    methods: HashMap<String, MethodPrices>,
    metered: bool,
}

#[derive(Debug, Clone, Default)]
struct MethodPrices {
    whole: Option<Arc<PricedCapability>>,
    exact: HashMap<String, Arc<PricedCapability>>,
    /// Patterns by their literal prefix. Patterns of one prefix do not overlap, so at most one of them matches a name.
    by_prefix: HashMap<String, Vec<(CapabilityPattern, Arc<PricedCapability>)>>,
    /// The lengths that prefixes have, longest first.
    prefix_lengths: Vec<usize>,
    /// Whether a web address has a price of its own.
    prices_the_web: bool,
}

/// How web addresses begin.
const WEB: [&str; 5] = ["http:", "https:", "ws:", "wss:", "ftp:"];

/// What the list says about one name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "callers must handle each of these")]
pub enum Listed {
    /// No entry: free.
    Free,
    /// Priced by this entry.
    Priced(Arc<PricedCapability>),
    /// The name has spellings that different entries price, or that only some entries know: which one the handler will
    /// serve is not certain.
    Ambiguous,
}

impl PriceList {
    /// A list of `entries`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), naming both, if two entries tie.
    pub fn new(entries: Vec<PricedCapability>) -> Result<Self> {
        let mut list = Self::default();
        for entry in entries {
            let entry = Arc::new(entry);
            let prices = list
                .methods
                .entry(entry.capability.method.clone())
                .or_default();
            prices.add(&entry)?;
            list.metered |= matches!(entry.model, PriceModel::Metered(_));
            list.entries.push(entry);
        }
        for prices in list.methods.values_mut() {
            prices.prefix_lengths = prices.by_prefix.keys().map(String::len).collect();
            prices.prefix_lengths.sort_unstable_by(|a, b| b.cmp(a));
            prices.prefix_lengths.dedup();
        }
        Ok(list)
    }

    /// All entries, in the order given.
    #[must_use]
    pub fn entries(&self) -> &[Arc<PricedCapability>] {
        &self.entries
    }

    /// Whether anything of `method` is priced.
    #[must_use]
    pub fn prices_method(&self, method: &str) -> bool {
        self.methods.contains_key(method)
    }

    /// Whether every priced request of `method` must name something: some entry has a name.
    #[must_use]
    pub fn needs_name(&self, method: &str) -> bool {
        self.methods
            .get(method)
            .is_some_and(|prices| !prices.exact.is_empty() || !prices.by_prefix.is_empty())
    }

    /// The entry that prices `name` of `method`.
    ///
    /// URIs are looked up under every spelling that a handler may resolve them to; if those do not agree on one entry the
    /// answer is [`Listed::Ambiguous`].
    #[must_use]
    pub fn find(&self, method: &str, name: Option<&str>) -> Listed {
        let Some(prices) = self.methods.get(method) else {
            return Listed::Free;
        };
        let Some(name) = name else {
            return prices.whole.clone().map_or(Listed::Free, Listed::Priced);
        };
        if !method::names_a_uri(method) {
            return prices
                .find(name)
                .map_or(Listed::Free, |entry| Listed::Priced(Arc::clone(entry)));
        }
        let mut found: Option<&Arc<PricedCapability>> = None;
        let spellings = spellings(name);
        for spelling in &spellings {
            match (prices.find(spelling), found) {
                (None, _) => {}
                (Some(entry), None) => found = Some(entry),
                (Some(entry), Some(before)) if Arc::ptr_eq(entry, before) => {}
                (Some(_), Some(_)) => return Listed::Ambiguous,
            }
        }
        let is_meant = |entry: &Arc<PricedCapability>| {
            let name = entry.capability.name.as_ref();
            name.is_some_and(|name| has_unclear_host(name.as_str()))
        };
        if prices.prices_the_web
            && spellings.iter().any(|form| has_unclear_host(form))
            && !found.is_some_and(is_meant)
        {
            return Listed::Ambiguous;
        }
        found.map_or(Listed::Free, |entry| Listed::Priced(Arc::clone(entry)))
    }

    /// Whether anything is priced by what it uses.
    #[must_use]
    pub const fn has_metered(&self) -> bool {
        self.metered
    }

    /// The `cap` tags of all named entries, in order.
    #[must_use]
    pub fn cap_tags(&self) -> Vec<CapTag> {
        self.entries
            .iter()
            .filter_map(|entry| CapTag::new(&entry.capability, &entry.price))
            .collect()
    }

    /// The units that prices are in, each once.
    #[must_use]
    pub fn units(&self) -> Vec<Unit> {
        let mut units: Vec<Unit> = Vec::new();
        for entry in &self.entries {
            if !units.contains(entry.price.unit()) {
                units.push(entry.price.unit().clone());
            }
        }
        units
    }
}

impl MethodPrices {
    fn add(&mut self, entry: &Arc<PricedCapability>) -> Result<()> {
        let Some(name) = &entry.capability.name else {
            return match self.whole.replace(Arc::clone(entry)) {
                Some(other) => Err(tie(entry, &other)),
                None => Ok(()),
            };
        };
        let forms = if method::names_a_uri(&entry.capability.method) {
            self.prices_the_web |= WEB
                .iter()
                .any(|scheme| name.as_str().to_lowercase().starts_with(scheme));
            spellings(name.as_str())
        } else {
            vec![name.as_str().to_owned()]
        };
        for form in forms {
            self.add_form(&CapabilityPattern::new(&form)?, entry)?;
        }
        Ok(())
    }

    fn add_form(&mut self, form: &CapabilityPattern, entry: &Arc<PricedCapability>) -> Result<()> {
        if form.is_exact() {
            return match self
                .exact
                .insert(form.as_str().to_owned(), Arc::clone(entry))
            {
                Some(other) if !Arc::ptr_eq(&other, entry) => Err(tie(entry, &other)),
                _ => Ok(()),
            };
        }
        let group = self
            .by_prefix
            .entry(form.literal_prefix().to_owned())
            .or_default();
        for (pattern, other) in group.iter() {
            if !Arc::ptr_eq(other, entry) && pattern.overlaps(form) {
                return Err(tie(entry, other));
            }
        }
        group.push((form.clone(), Arc::clone(entry)));
        Ok(())
    }

    fn find(&self, name: &str) -> Option<&Arc<PricedCapability>> {
        self.exact
            .get(name)
            .or_else(|| self.find_pattern(name))
            .or(self.whole.as_ref())
    }

    fn find_pattern(&self, name: &str) -> Option<&Arc<PricedCapability>> {
        self.prefix_lengths
            .iter()
            .filter_map(|length| self.by_prefix.get(name.get(..*length)?))
            .find_map(|group| group.iter().find(|(pattern, _)| pattern.matches(name)))
            .map(|(_, entry)| entry)
    }
}

fn tie(entry: &PricedCapability, other: &PricedCapability) -> Error {
    Error::config(format!(
        "price entries {:?} and {:?} tie: some name would match both, and neither is more specific",
        other.capability.to_string(),
        entry.capability.to_string()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> Result<PriceList> {
        PriceList::new(entries.iter().map(|entry| entry.parse().unwrap()).collect())
    }

    fn price(list: &PriceList, method: &str, name: &str) -> Option<u64> {
        match list.find(method, Some(name)) {
            Listed::Priced(entry) => Some(entry.price.min().value()),
            Listed::Free => None,
            Listed::Ambiguous => Some(u64::MAX),
        }
    }

    #[test]
    fn exact_beats_pattern_and_the_longer_prefix_beats_the_shorter() {
        let list = list(&[
            "tool:*=1 sat",
            "tool:db_*=2 sat",
            "tool:db_drop=3 sat",
            "method:prompts/get=9 sat",
            "prompt:free*=4 sat",
        ])
        .unwrap();
        assert_eq!(price(&list, "tools/call", "add"), Some(1));
        assert_eq!(price(&list, "tools/call", "db_read"), Some(2));
        assert_eq!(price(&list, "tools/call", "db_drop"), Some(3));
        assert_eq!(price(&list, "prompts/get", "freebie"), Some(4));
        assert_eq!(price(&list, "prompts/get", "other"), Some(9));
        assert_eq!(price(&list, "resources/read", "a:b"), None);
    }

    #[test]
    fn ties_are_refused_and_both_are_named() {
        for entries in [
            ["tool:a=1 sat", "tool:a=2 sat"],
            ["tool:a*=1 sat", "tool:a*=1 sat"],
            ["tool:a*b=1 sat", "tool:a*bb=1 sat"],
            ["method:x=1 sat", "method:x=2 sat"],
            ["resource:x://a=1 sat", "resource:x://a/=1 sat"],
        ] {
            let error = list(&entries).unwrap_err().to_string();
            assert!(
                error.contains(entries[0].split('=').next().unwrap()),
                "{error}"
            );
        }
        assert!(
            list(&["tool:a*b=1 sat", "tool:a*c=1 sat"]).is_ok(),
            "these can never both match"
        );
    }

    #[test]
    fn a_price_is_not_dodged_by_spelling() {
        let list = list(&[
            "resource:private://*=5 sat",
            "resource:private://gold=100 sat",
            "resource:x://a/=7 sat",
        ])
        .unwrap();
        assert_eq!(price(&list, "resources/read", "private://a/b?c"), Some(5));
        assert_eq!(price(&list, "resources/read", "privatex://a"), None);
        assert_eq!(price(&list, "resources/read", "private://gold"), Some(100));
        for dodge in ["private://%67old", "private://gold/", "private://./gold"] {
            assert_eq!(
                price(&list, "resources/read", dodge),
                Some(u64::MAX),
                "{dodge}"
            );
        }
        for dodge in ["PRIVATE://x", " private://x", "pri\tvate://x"] {
            assert_eq!(price(&list, "resources/read", dodge), Some(5), "{dodge}");
        }
        assert_eq!(price(&list, "resources/read", " private://gold"), Some(100));
        for form in ["x://a/", "x://a", "X://a"] {
            assert_eq!(price(&list, "resources/read", form), Some(7), "{form}");
        }
    }

    /// A handler that knows URLs reads each of these as the host that has a price, or as another that has one.
    #[test]
    fn a_price_is_not_dodged_by_another_name_of_the_host() {
        let web = list(&[
            "resource:https://example.com/*=5 sat",
            "resource:http://127.0.0.1/*=6 sat",
            "resource:https://exämple.com/*=7 sat",
        ])
        .unwrap();
        let read = |uri| price(&web, "resources/read", uri);
        assert_eq!(read("https://example.com/x"), Some(5));
        assert_eq!(read("http://127.0.0.1/x"), Some(6));
        assert_eq!(
            read("https://exämple.com/x"),
            Some(7),
            "as it is in the list"
        );
        assert_eq!(read("https://example.org/x"), None);
        for dodge in [
            "https://ｅxample.com/x",
            "https://example。com/x",
            "https://xn--exmple-cua.com/x",
            "http://2130706433/x",
            "http://127.1/x",
            "http://[::ffff:127.0.0.1]/x",
        ] {
            assert_eq!(read(dodge), Some(u64::MAX), "{dodge}");
        }
        let other = list(&["resource:private://*=5 sat"]).unwrap();
        assert_eq!(
            price(&other, "resources/read", "https://ｅxample.com/x"),
            None
        );
    }

    #[test]
    fn the_cap_tags_are_the_named_entries() {
        let list = list(&[
            "tool:add=7 sat",
            "method:x=1 sat",
            "resource:private://*=1-5 sat",
        ])
        .unwrap();
        let tags: Vec<Vec<String>> = list
            .cap_tags()
            .iter()
            .map(|tag| tag.to_tag().into_parts())
            .collect();
        assert_eq!(
            tags,
            [
                ["cap", "tool:add", "7", "sats"],
                ["cap", "resource:private://*", "1-5", "sats"]
            ]
        );
    }
}
