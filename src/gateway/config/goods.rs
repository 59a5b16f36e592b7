//! What the server sells itself: money paid ahead, and licences of its own.

use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::own_licences::Signed;
use crate::payment::{Amount, Capability, CapabilityPattern, PriceRange, PricedCapability, Unit};
use crate::wire::method;

/// The section `[balance]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Balance {
    #[serde(default = "sats")]
    unit: String,
    min_top_up: u64,
    max_top_up: u64,
    most: Option<u64>,
    lapses_after_days: Option<u32>,
    #[serde(default = "top_up")]
    top_up_tool: String,
    #[serde(default = "balance")]
    balance_tool: String,
}

/// The section `[licence_sale]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LicenceSale {
    amount: u64,
    #[serde(default = "sats")]
    unit: String,
    #[serde(default = "a_year")]
    days: u32,
    #[serde(default)]
    covers: Vec<String>,
    #[serde(default)]
    public: bool,
    #[serde(default = "buy_licence")]
    tool: String,
}

fn sats() -> String {
    Unit::SATS.as_str().to_owned()
}

fn top_up() -> String {
    "top_up".to_owned()
}

fn balance() -> String {
    "balance".to_owned()
}

fn buy_licence() -> String {
    "buy_licence".to_owned()
}

const fn a_year() -> u32 {
    365
}

/// How clients pay ahead.
#[derive(Debug)]
pub(in crate::gateway) struct BalanceSettings {
    pub(in crate::gateway) range: PriceRange,
    pub(in crate::gateway) most: u64,
    pub(in crate::gateway) lapses_after: Option<Duration>,
    pub(in crate::gateway) top_up_tool: String,
    pub(in crate::gateway) balance_tool: String,
}

/// How licences are sold.
#[derive(Debug)]
pub(in crate::gateway) struct SaleSettings {
    pub(in crate::gateway) price: PriceRange,
    pub(in crate::gateway) lives: Duration,
    pub(in crate::gateway) covers: Vec<Capability>,
    pub(in crate::gateway) signed: Signed,
    pub(in crate::gateway) tool: String,
}

impl Balance {
    pub(super) fn read(&self) -> Outcome<BalanceSettings> {
        let range = || -> Result<PriceRange> {
            let unit: Unit = self.unit.parse()?;
            PriceRange::new(
                Amount::new(self.min_top_up, unit.clone())?,
                Amount::new(self.max_top_up, unit)?,
            )
        };
        let range = range().map_err(|error| Failure::usage(format!("balance: {error}")))?;
        let most = self.most.unwrap_or(self.max_top_up.saturating_mul(10));
        if most < self.min_top_up {
            return Err(Failure::usage("balance.most: must be at least min_top_up"));
        }
        if self.top_up_tool == self.balance_tool {
            return Err(Failure::usage(
                "balance.balance_tool: must be another name than top_up_tool",
            ));
        }
        Ok(BalanceSettings {
            range,
            most,
            lapses_after: self.lapses_after_days.map(days),
            top_up_tool: self.top_up_tool.clone(),
            balance_tool: self.balance_tool.clone(),
        })
    }
}

impl LicenceSale {
    pub(super) fn read(&self) -> Outcome<SaleSettings> {
        let price = || -> Result<PriceRange> {
            PriceRange::fixed(Amount::new(self.amount, self.unit.parse()?)?)
        };
        let price = price().map_err(|error| Failure::usage(format!("licence_sale: {error}")))?;
        if self.days == 0 {
            return Err(Failure::usage("licence_sale.days: must be at least 1"));
        }
        let covers: Result<Vec<Capability>> = self.covers.iter().map(|c| c.parse()).collect();
        Ok(SaleSettings {
            price,
            lives: days(self.days),
            covers: covers
                .map_err(|error| Failure::usage(format!("licence_sale.covers: {error}")))?,
            signed: match self.public {
                true => Signed::Publicly,
                false => Signed::Secretly,
            },
            tool: self.tool.clone(),
        })
    }
}

impl SaleSettings {
    /// Its entry in the price list: bought by everybody alike, and told to nobody else.
    pub(in crate::gateway) fn priced(&self) -> Result<PricedCapability> {
        let name = CapabilityPattern::literal(&self.tool)
            .ok_or_else(|| Error::config("the name of a tool must not hold a *"))?;
        let capability = Capability::new(method::TOOLS_CALL, Some(name))?;
        Ok(PricedCapability::new(capability, self.price.clone())
            .with_description("a licence")
            .never_waived()
            .only_encrypted())
    }
}

fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 86_400)
}
