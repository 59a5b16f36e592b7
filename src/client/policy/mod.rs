//! What may be paid: rules that a person sets and that nothing a model or a server says can change.
//!
//! One file per rule. A [`Case`] asks them in this order, and the first that says no is the one that the refusal names:
//! `servers`, `same_call`, `advertised`, `limits`, `breaker`, `ask_above`. All of them are pure: they see the payment and
//! how the books stand, and nothing else.

mod advertised;
mod ask_above;
mod breaker;
mod case;
mod limits;
mod same_call;
mod servers;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

pub use case::{Case, Facts};
pub use limits::Limits;

use crate::error::{Error, Result};
use crate::payment::{Amount, CapabilityPattern, ServerPubkey, Unit};

/// How long a person has to answer, unless told otherwise.
const ASK_TIMEOUT: Duration = Duration::from_secs(60);

/// The rules. The default has no limits of its own (the budget of a client is beside it), pays once per call, never above
/// a price that the server has advertised, and stops paying a server that took money three times without a result.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Policy {
    /// For everything together.
    pub limits: Limits,
    /// For each server by itself.
    pub each_server: Limits,
    /// For each capability by itself, at all servers together.
    pub each_capability: Limits,
    /// For these servers.
    pub servers: Vec<(ServerPubkey, Limits)>,
    /// For capabilities that match, in CEP-8's notation (`tool:search*`), at all servers together.
    pub capabilities: Vec<(CapabilityPattern, Limits)>,
    /// If any: only these servers are paid.
    pub allow: Vec<ServerPubkey>,
    /// These servers are never paid.
    pub deny: Vec<ServerPubkey>,
    /// How many payments one call may make, also over several tries and runs, until it has an answer.
    pub max_payments: u32,
    /// How many payments in a row a server may take, or perhaps have taken, without a result before it is paid no more; 0 for
    /// any number.
    pub breaker: u32,
    /// What an advertised price means.
    pub advertised: Advertised,
    /// A person is asked about every payment above this.
    pub ask_above: Option<Amount>,
    /// How long that person has; then the answer is no.
    pub ask_timeout: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            each_server: Limits::default(),
            each_capability: Limits::default(),
            servers: Vec::new(),
            capabilities: Vec::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            max_payments: 1,
            breaker: 3,
            advertised: Advertised::default(),
            ask_above: None,
            ask_timeout: ASK_TIMEOUT,
        }
    }
}

impl Policy {
    /// Checks what can be checked beforehand.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), naming the key, for no payment per call, and for limits in more
    /// than one unit that payments would have to be converted to.
    pub fn check(&self) -> Result<()> {
        if self.max_payments == 0 {
            return Err(Error::config(
                "max_payments must be at least 1; to pay nothing, set the budget to 0",
            ));
        }
        if self.ask_timeout.is_zero() {
            return Err(Error::config(
                "ask_timeout must be at least a second: nobody answers at once",
            ));
        }
        let currencies = self.currencies();
        if currencies.len() > 1 {
            let named: Vec<&str> = currencies.iter().map(Unit::as_str).collect();
            return Err(Error::config(format!(
                "limits may be in sats and in one currency, not in {}",
                named.join(" and ")
            )));
        }
        Ok(())
    }

    /// The units other than sats that limits are in.
    #[must_use]
    pub fn currencies(&self) -> Vec<Unit> {
        let mut units = Vec::new();
        let limits = [&self.limits, &self.each_server, &self.each_capability]
            .into_iter()
            .chain(self.servers.iter().map(|(_, limits)| limits))
            .chain(self.capabilities.iter().map(|(_, limits)| limits));
        for amount in limits.flat_map(Limits::amounts).chain(&self.ask_above) {
            let unit = amount.unit();
            if *unit != Unit::SATS && !units.contains(unit) {
                units.push(unit.clone());
            }
        }
        units
    }
}

/// What an advertised price (a `cap` tag, as seen in the server's own lists) means for a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Advertised {
    /// Nothing.
    Off,
    /// Never more than was advertised, where a price was seen.
    #[default]
    Seen,
    /// Never more than was advertised, and nothing for which no price was seen.
    Required,
}

impl FromStr for Advertised {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "off" => Ok(Self::Off),
            "seen" => Ok(Self::Seen),
            "required" => Ok(Self::Required),
            _ => Err(Error::config("must be off, seen or required")),
        }
    }
}

impl fmt::Display for Advertised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Seen => "seen",
            Self::Required => "required",
        })
    }
}
