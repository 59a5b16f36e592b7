//! The five tags of CEP-8: `cap`, `pmi`, `payment_interaction`, `direct_payment`, `change`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::payment::{Amount, Capability, PaymentInteraction, Pmi, PriceRange, Unit};

/// Names of the tags.
const CAP: &str = "cap";
const PMI: &str = "pmi";
const PAYMENT_INTERACTION: &str = "payment_interaction";
const CHANGE: &str = "change";

/// A Nostr tag: a list of strings of which the first is its name.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tag(Vec<String>);

impl Tag {
    pub(super) const DIRECT_PAYMENT: &'static str = "direct_payment";

    /// A tag from its parts.
    pub fn new(parts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(parts.into_iter().map(Into::into).collect())
    }

    /// All parts, the name first.
    #[must_use]
    pub fn parts(&self) -> &[String] {
        &self.0
    }

    /// The parts, the name first.
    #[must_use]
    pub fn into_parts(self) -> Vec<String> {
        self.0
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// The first value after the name.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        self.0.get(1).map(String::as_str)
    }

    /// `["pmi", <pmi>]` (N-24).
    #[must_use]
    pub fn pmi(pmi: &Pmi) -> Self {
        Self::new([PMI, pmi.as_str()])
    }

    /// `["payment_interaction", <word>]` (N-26, N-37).
    #[must_use]
    pub fn payment_interaction(interaction: PaymentInteraction) -> Self {
        Self::new([PAYMENT_INTERACTION, interaction.as_str()])
    }

    /// `["direct_payment", <pmi>, <payload>]` (N-102). The payload is money: only under encryption.
    #[must_use]
    pub fn direct_payment(pmi: &Pmi, payload: &str) -> Self {
        Self::new([Self::DIRECT_PAYMENT, pmi.as_str(), payload])
    }

    /// `["change", <pmi>, <payload>]` (N-104). The payload is money: only under encryption.
    #[must_use]
    pub fn change(pmi: &Pmi, payload: &str) -> Self {
        Self::new([CHANGE, pmi.as_str(), payload])
    }

    /// The payment methods that `tags` list, in order; what is not a legal identifier is passed over, and so is all
    /// beyond the first 32.
    pub fn pmis<'a>(tags: impl IntoIterator<Item = &'a Self>) -> Vec<Pmi> {
        const MOST: usize = 32;
        let mut pmis: Vec<Pmi> = Vec::new();
        for tag in tags {
            if tag.name() == PMI
                && let Some(pmi) = tag.value().and_then(|value| value.parse().ok())
                && pmis.len() < MOST
                && !pmis.contains(&pmi)
            {
                pmis.push(pmi);
            }
        }
        pmis
    }

    /// The payment interaction that `tags` ask for: the first such tag counts (N-38), an unknown word is transparent
    /// (N-46).
    pub fn interaction<'a>(tags: impl IntoIterator<Item = &'a Self>) -> Option<PaymentInteraction> {
        let tag = tags
            .into_iter()
            .find(|tag| tag.name() == PAYMENT_INTERACTION)?;
        Some(
            tag.value()
                .and_then(|word| word.parse().ok())
                .unwrap_or_default(),
        )
    }
}

/// Shows the name only: `direct_payment` and `change` carry money, and any tag may carry what is nobody's business.
impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Tag({}, {} values)",
            self.name(),
            self.0.len().saturating_sub(1)
        )
    }
}

/// `["cap", "tool:<name>" | "prompt:<name>" | "resource:<uri>", "<price>" | "<min>-<max>", "<unit>"]` (N-17, N-18).
///
/// A hint: what is charged is the amount in the payment message (N-23).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CapTag {
    /// What is sold, in the notation of CEP-8.
    pub capability: String,
    /// For how much.
    pub price: PriceRange,
}

impl CapTag {
    /// The tag of a named capability; `None` for a method-level price, which CEP-8 cannot express (N-21).
    #[must_use]
    pub fn new(capability: &Capability, price: &PriceRange) -> Option<Self> {
        let capability = capability.cep8_notation()?;
        Some(Self {
            capability,
            price: price.clone(),
        })
    }

    /// As a tag, always with four elements.
    #[must_use]
    pub fn to_tag(&self) -> Tag {
        let (min, max) = (self.price.min().value(), self.price.max().value());
        let price = if min == max {
            min.to_string()
        } else {
            format!("{min}-{max}")
        };
        Tag::new([CAP, &self.capability, &price, self.price.unit().as_str()])
    }

    /// Reads a tag; `None` for any other tag and for one that breaks the format.
    #[must_use]
    pub fn from_tag(tag: &Tag) -> Option<Self> {
        let [name, capability, price, unit] = tag.parts() else {
            return None;
        };
        if name != CAP {
            return None;
        }
        let (min, max) = price.split_once('-').unwrap_or((price, price));
        let unit: Unit = unit.parse().ok()?;
        let amount = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            Amount::new(plain.then(|| digits.parse().ok())??, unit.clone()).ok()
        };
        let price = PriceRange::new(amount(min)?, amount(max)?).ok()?;
        Some(Self {
            capability: capability.clone(),
            price,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pmis_keep_their_order_and_drop_nonsense() {
        let tags = [
            Tag::new(["pmi", "b"]),
            Tag::new(["pmi", "B!"]),
            Tag::new(["pmi"]),
            Tag::new(["pmi", "a"]),
        ];
        let pmis: Vec<String> = Tag::pmis(&tags).iter().map(ToString::to_string).collect();
        assert_eq!(pmis, ["b", "a"]);
    }

    #[test]
    fn the_first_interaction_counts_and_an_unknown_one_is_transparent() {
        let tags = [
            Tag::new(["payment_interaction", "transparent"]),
            Tag::new(["payment_interaction", "explicit_gating"]),
        ];
        assert_eq!(
            Tag::interaction(&tags),
            Some(PaymentInteraction::Transparent)
        );
        assert_eq!(
            Tag::interaction(&tags[1..]),
            Some(PaymentInteraction::ExplicitGating)
        );
        assert_eq!(
            Tag::interaction(&[Tag::new(["payment_interaction", "bogus"])]),
            Some(PaymentInteraction::Transparent)
        );
        assert_eq!(Tag::interaction(&[Tag::new(["p", "x"])]), None);
    }

    #[test]
    fn cap_tags_round_trip_and_nonsense_is_none() {
        for parts in [
            ["cap", "tool:add", "7", "sats"],
            ["cap", "resource:private://*", "1-50", "usd-cents"],
        ] {
            let tag = Tag::new(parts);
            assert_eq!(CapTag::from_tag(&tag).unwrap().to_tag(), tag);
        }
        for parts in [
            ["cap", "tool:add", "0", "sats"],
            ["cap", "tool:add", "-5", "sats"],
            ["cap", "tool:add", "1.5", "sats"],
            ["cap", "tool:add", "9-1", "sats"],
            ["cap", "tool:add", "1", ""],
        ] {
            assert_eq!(CapTag::from_tag(&Tag::new(parts)), None, "{parts:?}");
        }
    }

    #[test]
    fn debug_never_shows_a_value() {
        let pmi: Pmi = "cashu-direct".parse().unwrap();
        assert!(!format!("{:?}", Tag::direct_payment(&pmi, "cashuAtoken")).contains("cashuA"));
    }
}
