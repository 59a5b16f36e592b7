//! The config file as it is written: TOML, in which every key is known.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::entitlements::Entitlements;
use super::goods::{Balance, LicenceSale};
use super::listen::Listen;
use super::lnbits::LightningLnbits;
use super::mpp::MppSettings;
use super::pricing::{Counted, Model, Pricing};
use super::rates::RatesSection;
use super::stripe::StripeSection;
use crate::error::Result;
use crate::gateway::exit::{Failure, Outcome};
use crate::payment::{
    Amount, Capability, OnFailure, PaymentInteractionPolicy, PricedCapability, Unit,
};
use crate::transport::nostr::{EncryptionMode, Profile};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) relays: Option<Vec<String>>,
    pub(super) encryption: Option<EncryptionMode>,
    pub(super) payment_interaction: Option<PaymentInteractionPolicy>,
    pub(super) ledger: Option<PathBuf>,
    pub(super) payment_ttl: Option<u64>,
    pub(super) secret_key_file: Option<PathBuf>,
    pub(super) check_calls: Option<bool>,
    pub(super) isolate: Option<bool>,
    pub(super) max_children: Option<usize>,
    pub(super) announce: Option<bool>,
    pub(super) relay_list: Option<bool>,
    pub(super) bootstrap_relays: Option<Vec<String>>,
    pub(super) profile: Option<Profile>,
    pub(super) name: Option<String>,
    pub(super) about: Option<String>,
    pub(super) website: Option<String>,
    pub(super) picture: Option<String>,
    pub(super) stdio: Option<bool>,
    pub(super) listen: Listen,
    price: Vec<Price>,
    pricing: Pricing,
    pub(super) mpp: MppSettings,
    pub(super) limits: Limits,
    pub(super) rails: Rails,
    pub(super) entitlements: Entitlements,
    pub(super) balance: Option<Balance>,
    pub(super) licence_sale: Option<LicenceSale>,
    pub(super) licence_http: Option<SocketAddr>,
    pub(super) rates: RatesSection,
    #[serde(skip)]
    folder: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    capability: String,
    amount: Option<i64>,
    max_amount: Option<i64>,
    #[serde(default = "sats")]
    unit: String,
    description: Option<String>,
    #[serde(default)]
    on_failure: OnFailure,
    model: Option<Model>,
    per: Option<u64>,
    most: Option<u64>,
    argument: Option<String>,
}

fn sats() -> String {
    Unit::SATS.as_str().to_owned()
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) pending_per_client: Option<usize>,
    pub(super) pending_total: Option<usize>,
    pub(super) offers_per_minute: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Rails {
    pub(super) fake: Option<Fake>,
    pub(super) lightning_nwc: Option<LightningNwc>,
    pub(super) lightning_lnbits: Option<LightningLnbits>,
    pub(super) stripe: Option<StripeSection>,
}

/// Keys of a NIP-47 wallet. Its connection is a secret and stands elsewhere.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LightningNwc {
    pub(super) connection_file: Option<PathBuf>,
    pub(super) network: Option<String>,
}

/// Keys of the rail for trials.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Fake {
    settles_after_ms: Option<u64>,
}

impl Fake {
    /// How long its money travels unless told otherwise: long enough for a client to write down that it pays, and to pay, first, as
    /// with real money.
    const TRAVELS: u64 = 250;

    /// The longest that it may: a minute.
    const LONGEST: u64 = 60_000;

    /// How long its money travels.
    pub(super) fn travels(&self) -> Outcome<Duration> {
        let millis = self.settles_after_ms.unwrap_or(Self::TRAVELS);
        if millis > Self::LONGEST {
            let longest = Self::LONGEST;
            return Err(Failure::usage(format!(
                "rails.fake.settles_after_ms: {millis} must be a number of milliseconds up to {longest}"
            )));
        }
        Ok(Duration::from_millis(millis))
    }
}

impl File {
    /// Reads `path`; without one, everything is left to flags and defaults.
    pub(super) fn read(path: Option<&Path>) -> Outcome<Self> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("--config: cannot read {shown}: {error}")))?;
        let mut file: Self = toml::from_str(&text)
            .map_err(|error| Failure::usage(format!("--config: {shown}: {error}")))?;
        path.parent()
            .unwrap_or(Path::new(""))
            .clone_into(&mut file.folder);
        Ok(file)
    }

    /// A path of the file, which is relative to the file.
    pub(super) fn resolve(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// The same for one that may not be there. The word `memory` is no path.
    pub(super) fn path(&self, path: Option<&Path>) -> Option<PathBuf> {
        let path = path?;
        Some(
            if path.as_os_str() == "memory" || super::ledger::is_database(path) {
                path.to_owned()
            } else {
                self.folder.join(path)
            },
        )
    }

    /// The price list.
    pub(super) fn prices(&self) -> Outcome<Vec<PricedCapability>> {
        let mut prices: Vec<PricedCapability> = self
            .price
            .iter()
            .enumerate()
            .map(|(at, price)| {
                price.read().map_err(|error| {
                    let (number, capability) = (at + 1, &price.capability);
                    Failure::usage(format!("price number {number} ({capability}): {error}"))
                })
            })
            .collect::<Outcome<_>>()?;
        prices.extend(self.pricing.prices()?);
        Ok(prices)
    }
}

impl Price {
    fn read(&self) -> Result<PricedCapability> {
        let unit: Unit = self.unit.parse()?;
        // "sat" and "usd" are labels, too, but of units that nobody is paid in.
        let (meant, _) = Unit::from_word(&self.unit)?;
        if meant != unit {
            return Err(crate::Error::config(format!(
                "unit: {unit:?} must be the smallest unit, of which amounts are whole numbers: {meant}"
            )));
        }
        let capability: Capability = self.capability.parse()?;
        let amount = |key: &str, value: Option<i64>| {
            let value = value
                .and_then(|value| u64::try_from(value).ok())
                .filter(|value| *value > 0);
            let wanted =
                || crate::Error::config(format!("{key} must be a whole number of at least 1"));
            Amount::new(value.ok_or_else(wanted)?, unit.clone())
        };
        let min = amount("amount", self.amount)?;
        let max = match self.max_amount {
            None => min.clone(),
            some => amount("max_amount", some)?,
        };
        let counted = Counted {
            model: self.model,
            per: self.per,
            most: self.most,
            argument: self.argument.clone(),
        };
        let priced = counted
            .price(capability, min, max)?
            .with_on_failure(self.on_failure);
        Ok(match &self.description {
            Some(description) => priced.with_description(description),
            None => priced,
        })
    }
}
