//! Capabilities, and what they cost.

use std::fmt;
use std::str::FromStr;

use super::{CapabilityPattern, PriceRange};
use crate::error::{Error, Result};

/// What is sold: an MCP method, and which of the things behind it.
///
/// Text form: `tool:NAME`, `prompt:NAME`, `resource:URI` (CEP-8), with `*` in NAME and URI as in [`CapabilityPattern`];
/// `method:METHOD` prices every request of a method, whatever it names.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capability {
    /// The MCP method, for example `tools/call`.
    pub method: String,
    /// The name that the method must carry; `None` prices the whole method.
    pub name: Option<CapabilityPattern>,
}

/// The kinds that CEP-8 has a word for.
const KINDS: [(&str, &str); 3] = [
    ("tool", "tools/call"),
    ("prompt", "prompts/get"),
    ("resource", "resources/read"),
];

impl Capability {
    /// `method` as a whole, or those of its names that match `name`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for an empty method.
    pub fn new(method: &str, name: Option<CapabilityPattern>) -> Result<Self> {
        if method.is_empty() || method.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(Error::config(
                "a method must not be empty and must not hold spaces",
            ));
        }
        Ok(Self {
            method: method.to_owned(),
            name,
        })
    }

    /// The notation of `cap` tags; `None` where CEP-8 has none.
    #[must_use]
    pub fn cep8_notation(&self) -> Option<String> {
        let (kind, _) = KINDS.iter().find(|(_, method)| *method == self.method)?;
        Some(format!("{kind}:{}", self.name.as_ref()?.as_str()))
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.cep8_notation(), &self.name) {
            (Some(notation), _) => f.write_str(&notation),
            (None, None) => write!(f, "method:{}", self.method),
            (None, Some(name)) => write!(f, "method:{} {}", self.method, name.as_str()),
        }
    }
}

impl FromStr for Capability {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::config(format!(
                "capability {text:?} must be tool:NAME, prompt:NAME, resource:URI or method:METHOD"
            ))
        };
        let (kind, name) = text.split_once(':').ok_or_else(wrong)?;
        if kind == "method" {
            let (method, name) = name
                .split_once(' ')
                .map_or((name, None), |(m, n)| (m, Some(n)));
            return Self::new(method, name.map(CapabilityPattern::new).transpose()?)
                .map_err(|_| wrong());
        }
        let (_, method) = KINDS
            .iter()
            .find(|(word, _)| *word == kind)
            .ok_or_else(wrong)?;
        let name = CapabilityPattern::new(name)
            .map_err(|error| Error::config(format!("capability {text:?}: {error}")))?;
        Self::new(method, Some(name))
    }
}

/// What becomes of the payment when an execution fails.
///
/// A failure that is ours (the handler was lost, nothing could be delivered) restores by default. What the handler itself
/// answered, an error included, is a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum OnFailure {
    /// The client gets the right to one execution back.
    #[default]
    Restore,
    /// The payment is used up.
    Keep,
    /// What was paid goes onto the client's account: only where clients may pay ahead.
    Credit,
}

/// A capability with its price: an entry of the price list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PricedCapability {
    /// What is sold.
    pub capability: Capability,
    /// For how much.
    pub price: PriceRange,
    /// What the buyer reads on the payment request.
    pub description: Option<String>,
    /// What becomes of the payment when an execution fails.
    pub on_failure: OnFailure,
    /// Whether entitlements are asked. Not for what is as good as money: a licence that covers every tool must not buy
    /// another licence.
    pub waivable: bool,
    /// Whether it is sold only where nobody else can read along: for what hands out secrets.
    pub confidential: bool,
}

impl PricedCapability {
    /// `capability` for `price`.
    #[must_use]
    pub fn new(capability: Capability, price: PriceRange) -> Self {
        Self {
            capability,
            price,
            description: None,
            on_failure: OnFailure::default(),
            waivable: true,
            confidential: false,
        }
    }

    /// Adds what the buyer reads on the payment request.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Is sold only where nobody else can read along.
    #[must_use]
    pub fn only_encrypted(mut self) -> Self {
        self.confidential = true;
        self
    }

    /// Has to be paid for by everybody.
    #[must_use]
    pub fn never_waived(mut self) -> Self {
        self.waivable = false;
        self
    }
}

/// Reads `tool:search=10 sat`, the form of `--price`.
impl FromStr for PricedCapability {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (capability, price) = text.rsplit_once('=').ok_or_else(|| {
            Error::config(format!(
                "price {text:?} must be CAPABILITY=PRICE, such as 'tool:search=10 sat'"
            ))
        })?;
        Ok(Self::new(capability.trim().parse()?, price.parse()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notation_round_trips() {
        for text in [
            "tool:add",
            "prompt:*",
            "resource:private://*",
            "method:completion/complete",
        ] {
            assert_eq!(text.parse::<Capability>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn mistakes_name_the_entry() {
        for text in ["add", "tool:", "tols:add", "method:", ""] {
            let error = text.parse::<Capability>().unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn a_price_entry_reads_like_a_sentence() {
        let entry: PricedCapability = "resource:q://a?b=c=10-20 sat".parse().unwrap();
        assert_eq!(entry.capability.to_string(), "resource:q://a?b=c");
        assert_eq!(entry.price.to_string(), "10 sats to 20 sats");
    }
}
