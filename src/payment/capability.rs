//! Capabilities, and what they cost.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::{CapabilityPattern, PriceModel, PriceRange};
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

/// What becomes of the payment when the handler is lost while it works: its process died, its time was up.
///
/// What the handler itself answered, an error included, is a delivery under either. What fails without it, a call that it
/// could not take, a result that cannot be carried, a process of ours that ended, gives the right back under either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnFailure {
    /// The client gets the right to one execution back.
    #[default]
    Restore,
    /// The payment is used up: for what must not run twice for one payment.
    Keep,
    /// What was paid goes onto the client's account: only where clients may pay ahead.
    Credit,
}

impl OnFailure {
    /// The word in the price list.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Restore => "restore",
            Self::Keep => "keep",
            Self::Credit => "credit",
        }
    }
}

impl FromStr for OnFailure {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "restore" => Ok(Self::Restore),
            "keep" => Ok(Self::Keep),
            "credit" => Ok(Self::Credit),
            _ => Err(Error::config(format!(
                "on_failure {word:?} must be restore, keep or credit"
            ))),
        }
    }
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
    /// What becomes of the payment when the handler is lost.
    pub on_failure: OnFailure,
    /// Whether entitlements are asked. Not for what is as good as money: a licence that covers every tool must not buy
    /// another licence.
    pub waivable: bool,
    /// Whether it is sold only where nobody else can read along: for what hands out secrets.
    pub confidential: bool,
    /// What the price is counted by.
    pub model: PriceModel,
    /// Whether single calls are sold. If not, the price is that of what an entitlement sells (a pass, a subscription), and
    /// whoever no entitlement covers is not served.
    pub by_call: bool,
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
            model: PriceModel::PerCall,
            by_call: true,
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

    /// Says what the price is counted by.
    #[must_use]
    pub fn with_model(mut self, model: PriceModel) -> Self {
        self.model = model;
        self
    }

    /// Is not sold by the call: the price is that of what entitles to it.
    #[must_use]
    pub fn not_by_call(mut self) -> Self {
        self.by_call = false;
        self
    }

    /// Has to be paid for by everybody.
    #[must_use]
    pub fn never_waived(mut self) -> Self {
        self.waivable = false;
        self
    }

    /// Says what becomes of the payment when the handler is lost.
    #[must_use]
    pub const fn with_on_failure(mut self, on_failure: OnFailure) -> Self {
        self.on_failure = on_failure;
        self
    }
}

/// What may follow the price.
const ON_FAILURE: &str = ", on_failure=";

/// Reads `tool:search=10 sat` or `tool:search=10 sat, on_failure=keep`, the form of `--price`.
impl FromStr for PricedCapability {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (entry, on_failure) = match text.rsplit_once(ON_FAILURE) {
            Some((entry, word)) => (entry, word.trim().parse()?),
            None => (text, OnFailure::default()),
        };
        let (capability, price) = entry.rsplit_once('=').ok_or_else(|| {
            Error::config(format!(
                "price {text:?} must be CAPABILITY=PRICE, such as 'tool:search=10 sat'"
            ))
        })?;
        let priced = Self::new(capability.trim().parse()?, price.parse()?);
        Ok(priced.with_on_failure(on_failure))
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
        assert_eq!(entry.on_failure, OnFailure::Restore);
    }

    #[test]
    fn a_price_entry_may_say_what_a_failure_costs() {
        for (text, on_failure) in [
            ("tool:a=10 sat, on_failure=keep", OnFailure::Keep),
            ("tool:a=10-20 sat, on_failure=restore", OnFailure::Restore),
        ] {
            let entry: PricedCapability = text.parse().unwrap();
            assert_eq!(entry.on_failure, on_failure, "{text}");
        }
        let wrong = "tool:a=10 sat, on_failure=refund".parse::<PricedCapability>();
        let error = wrong.unwrap_err().to_string();
        assert!(
            error.contains("refund") && error.contains("restore, keep or credit"),
            "{error}"
        );
    }
}
