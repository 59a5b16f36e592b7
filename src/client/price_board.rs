//! The prices that the server has advertised, as far as its lists were seen.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::payment::{Capability, PriceRange};
use crate::wire::{CapTag, Tag};

/// The most names, and the most patterns, whose price is remembered; a server that advertises more is believed about the
/// first.
const MOST: usize = 10_000;
const MOST_PATTERNS: usize = 1000;

/// Advertised prices: the latest word on each capability counts (N-22).
#[derive(Debug, Default)]
pub struct PriceBoard {
    seen: RwLock<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    names: HashMap<String, PriceRange>,
    patterns: Vec<(Capability, CapTag)>,
}

impl PriceBoard {
    /// Notes the prices on a list response, or on an announcement.
    pub fn note(&self, tags: &[Tag]) {
        let mut caps = tags.iter().filter_map(CapTag::from_tag).peekable();
        if caps.peek().is_none() {
            return;
        }
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        for cap in caps {
            seen.note(cap);
        }
    }

    /// The price of a capability in CEP-8's notation: that of this very name first, else that of the pattern that it fits
    /// with the longest prefix.
    #[must_use]
    pub fn price_of(&self, notation: &str) -> Option<PriceRange> {
        self.seen
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .price_of(notation)
    }
}

impl Seen {
    fn note(&mut self, cap: CapTag) {
        if !cap.capability.contains('*') {
            if self.names.len() < MOST || self.names.contains_key(&cap.capability) {
                self.names.insert(cap.capability, cap.price);
            }
            return;
        }
        let Ok(capability) = cap.capability.parse::<Capability>() else {
            return;
        };
        let same = |(_, known): &(Capability, CapTag)| known.capability == cap.capability;
        if let Some(at) = self.patterns.iter().position(same) {
            self.patterns[at] = (capability, cap);
        } else if self.patterns.len() < MOST_PATTERNS {
            self.patterns.push((capability, cap));
        }
    }

    fn price_of(&self, notation: &str) -> Option<PriceRange> {
        if let Some(price) = self.names.get(notation) {
            return Some(price.clone());
        }
        let (kind, name) = notation.split_once(':')?;
        let fits = |(capability, cap): &&(Capability, CapTag)| {
            cap.capability.split(':').next() == Some(kind)
                && capability
                    .name
                    .as_ref()
                    .is_some_and(|pattern| pattern.matches(name))
        };
        let best = self
            .patterns
            .iter()
            .filter(fits)
            .max_by_key(|(_, cap)| cap.capability.find('*'));
        best.map(|(_, cap)| cap.price.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(prices: &[[&str; 2]]) -> Vec<Tag> {
        prices
            .iter()
            .map(|[capability, price]| Tag::new(["cap", capability, price, "sats"]))
            .collect()
    }

    #[test]
    fn the_price_of_a_name_is_that_of_the_most_specific_tag() {
        let board = PriceBoard::default();
        board.note(&tags(&[
            ["tool:*", "1"],
            ["tool:a*", "2"],
            ["tool:ab", "3"],
            ["prompt:ab", "4"],
        ]));
        for (notation, price) in [
            ("tool:ab", Some(3)),
            ("tool:ac", Some(2)),
            ("tool:b", Some(1)),
            ("resource:ab", None),
        ] {
            let found = board.price_of(notation).map(|price| price.min().value());
            assert_eq!(found, price, "{notation}");
        }
    }

    #[test]
    fn the_latest_word_counts_and_there_is_an_end_to_them() {
        let board = PriceBoard::default();
        board.note(&tags(&[["tool:a", "1"]]));
        board.note(&tags(&[["tool:a", "5-9"]]));
        assert_eq!(board.price_of("tool:a").unwrap().max().value(), 9);
        let names: Vec<String> = (0..=MOST).map(|n| format!("tool:{n}")).collect();
        let prices: Vec<[&str; 2]> = names.iter().map(|name| [name.as_str(), "1"]).collect();
        board.note(&tags(&prices));
        assert_eq!(board.price_of(&format!("tool:{MOST}")), None);
        assert_eq!(board.price_of("tool:a").unwrap().max().value(), 9);
    }
}
