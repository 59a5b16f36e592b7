//! At which rates prices in other money are charged in sats: set by hand, or asked of a service.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::gateway::args::RateArgs;
use crate::gateway::exit::{Failure, Outcome};
use crate::payment::{Margin, Rate, Unit};
use crate::rails::rates::HttpRateConfig;

/// How old a rate may be, unless said otherwise, at least and at most.
const MAX_AGE: (u64, u64, u64) = (600, 10, 24 * 60 * 60);
/// How often a service is asked, unless that is less than three times in the life of a rate.
const EVERY: u64 = 60;

/// The rates, and how they are used.
#[derive(Debug, Clone)]
pub(in crate::gateway) struct Rates {
    pub(in crate::gateway) fixed: Vec<Rate>,
    pub(in crate::gateway) sources: Vec<HttpRateConfig>,
    pub(in crate::gateway) max_age: Duration,
    pub(in crate::gateway) margin: Margin,
}

impl Rates {
    /// Whether there is a rate from `unit` to sats.
    pub(in crate::gateway) fn cover(&self, unit: &Unit) -> bool {
        self.fixed.iter().any(|rate| rate.from().unit() == unit)
            || self.sources.iter().any(|source| source.unit() == unit)
    }
}

/// `[rates]` of the config file: two keys, and a table for each currency.
#[derive(Debug, Default, Deserialize)]
pub(in crate::gateway) struct RatesSection {
    max_age: Option<u64>,
    margin: Option<String>,
    #[serde(flatten)]
    of: BTreeMap<String, toml::Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RateSection {
    fixed: Option<toml::Value>,
    url: Option<String>,
    between: Option<Vec<toml::Value>>,
    every: Option<u64>,
}

/// Reads flags and file: a flag for a currency replaces what the file says of it.
pub(in crate::gateway) fn rates(args: &RateArgs, section: &RatesSection) -> Outcome<Rates> {
    let (otherwise, least, most) = MAX_AGE;
    let max_age = args.rate_max_age.or(section.max_age).unwrap_or(otherwise);
    if !(least..=most).contains(&max_age) {
        return Err(Failure::usage(format!(
            "rates.max_age: {max_age} must be a number of seconds from {least} to {most}"
        )));
    }
    let margin = match (args.rate_margin, &section.margin) {
        (Some(margin), _) => margin,
        (None, Some(text)) => text
            .parse()
            .map_err(|error| Failure::usage(format!("rates.margin: {error}")))?,
        (None, None) => Margin::default(),
    };
    let mut rates = Rates {
        fixed: Vec::new(),
        sources: Vec::new(),
        max_age: Duration::from_secs(max_age),
        margin,
    };
    for (currency, of) in merge(args, section)? {
        of.read(&currency, &mut rates)
            .map_err(|what| Failure::usage(format!("rates.{currency}: {what}")))?;
    }
    Ok(rates)
}

/// What the file says of each currency, and the flags instead.
fn merge(args: &RateArgs, section: &RatesSection) -> Outcome<BTreeMap<String, RateSection>> {
    let mut all = BTreeMap::new();
    for (currency, value) in &section.of {
        let of: RateSection = value.clone().try_into().map_err(|error| {
            Failure::usage(format!(
                "rates.{currency}: this must be max_age, margin, or a table for a currency: {error}"
            ))
        })?;
        all.insert(currency.clone(), of);
    }
    for text in &args.rates {
        let (currency, rate) = halves("--rate", text, "'usd=65000' or 'usd=https://…#/USD'")?;
        let of = if rate.contains("://") {
            // The bounds of the file stay, for whoever only changes the service.
            let between = all.get(&currency).and_then(|of| of.between.clone());
            RateSection {
                url: Some(rate),
                between,
                ..RateSection::default()
            }
        } else {
            RateSection {
                fixed: Some(toml::Value::String(rate)),
                ..RateSection::default()
            }
        };
        all.insert(currency, of);
    }
    for text in &args.rate_between {
        let wanted = "'usd=20000-200000'";
        let (currency, range) = halves("--rate-between", text, wanted)?;
        let (least, most) = range.split_once('-').ok_or_else(|| {
            Failure::usage(format!("--rate-between: {text:?} must be like {wanted}"))
        })?;
        let of = all.get_mut(&currency).ok_or_else(|| {
            Failure::usage(format!(
                "--rate-between: there is no rate for {currency}: add --rate '{currency}=https://…'"
            ))
        })?;
        let text = |text: &str| toml::Value::String(text.trim().to_owned());
        of.between = Some(vec![text(least), text(most)]);
    }
    Ok(all)
}

/// `usd=65000` → `("usd", "65000")`.
fn halves(flag: &str, text: &str, wanted: &str) -> Outcome<(String, String)> {
    match text.split_once('=') {
        Some((currency, rest)) if !currency.trim().is_empty() && !rest.trim().is_empty() => {
            Ok((currency.trim().to_ascii_lowercase(), rest.trim().to_owned()))
        }
        _ => Err(Failure::usage(format!(
            "{flag}: {text:?} must be like {wanted}"
        ))),
    }
}

impl RateSection {
    /// Adds what it says to `rates`.
    fn read(&self, currency: &str, rates: &mut Rates) -> Result<(), String> {
        match (&self.fixed, &self.url) {
            (Some(fixed), None) => {
                if self.between.is_some() || self.every.is_some() {
                    return Err("between and every belong to a url, not to a fixed rate".to_owned());
                }
                let price = plain("fixed", fixed)?;
                rates.fixed.push(fixed_rate(currency, &price)?);
            }
            (None, Some(url)) => {
                let [least, most] = self.bounds()?;
                let config = HttpRateConfig::new(currency, url, &least, &most)
                    .map_err(|error| error.to_string())?;
                let every = self.every.unwrap_or(EVERY.min(rates.max_age.as_secs() / 3));
                if every == 0 || Duration::from_secs(every) > rates.max_age {
                    return Err(
                        "every must be a number of seconds from 1 to rates.max_age".to_owned()
                    );
                }
                rates.sources.push(config.every(Duration::from_secs(every)));
            }
            _ => {
                return Err(
                    "say either fixed = \"65000\", what one bitcoin costs, or url = \"https://…#/USD\", where that is \
                     written"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }

    /// What is believed of a service. There is no default: what is plausible, the operator knows.
    fn bounds(&self) -> Result<[String; 2], String> {
        let wanted = "between = [\"20000\", \"200000\"] must say what one bitcoin may cost at least and at most (on the \
                      command line: --rate-between); anything else that the service says is not believed";
        match self.between.as_deref() {
            Some([least, most]) => Ok([plain("between", least)?, plain("between", most)?]),
            _ => Err(wanted.to_owned()),
        }
    }
}

fn fixed_rate(currency: &str, price: &str) -> Result<Rate, String> {
    let (unit, decimals) = Unit::from_word(currency).map_err(|error| error.to_string())?;
    if unit == Unit::SATS {
        return Err("sats need no rate".to_owned());
    }
    Rate::of_one_bitcoin(price, &unit, decimals).map_err(|error| error.to_string())
}

/// A number as it is written, digit by digit.
fn plain(key: &str, value: &toml::Value) -> Result<String, String> {
    match value {
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::String(text) => Ok(text.clone()),
        _ => Err(format!(
            "{key} must be a whole number or a text such as \"65000.25\""
        )),
    }
}
