//! What is the price in money that the payment method takes? A price in dollars becomes sats here, at a rate.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Gate;
use super::resolve_price::guarded;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::PRICE_META;
use crate::payment::{Amount, Margin, PaymentProcessor, Quote, Rate, RateSource, Timestamp, Unit};

/// Where it says at which rate, seen when, with which margin.
const RATE: &str = "tollkeeper/rate";

/// What prices are converted to.
const TARGET: Unit = Unit::SATS;

/// A rate from further in the future than this was seen by a clock that is wrong, and nobody knows how old it is.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// Whether `processor` can charge `amount`, by itself or at a rate.
pub(crate) fn can_charge(
    processor: &dyn PaymentProcessor,
    rates: Option<&dyn RateSource>,
    amount: &Amount,
) -> bool {
    let unit = amount.unit();
    processor.can_charge(amount)
        || (processor.accepts(&TARGET) && rates.is_some_and(|rates| rates.covers(unit, &TARGET)))
}

impl Gate {
    /// `quote` in money that `processor` takes. The advertised range was checked before, on the price as it was named.
    ///
    /// What comes out goes into the entry, and is never computed again: a restart asks for what the client was told. Its
    /// `_meta` keeps the price and the rate, for the client and for the books.
    ///
    /// A rate that is missing, too old or impossible is a failure of the server: nothing is quoted, nothing is minted.
    pub(super) async fn convert(
        &self,
        mut quote: Quote,
        processor: &Arc<dyn PaymentProcessor>,
    ) -> Result<Quote> {
        if processor.accepts(quote.amount.unit()) {
            return Ok(quote);
        }
        let from = quote.amount.unit().clone();
        let rates = self.rates.clone().ok_or_else(|| {
            Error::new(
                ErrorKind::Price,
                format!("there is no rate from {from} to {TARGET}"),
            )
        })?;
        let rate = guarded(self.settings.price_timeout, "a rate", async move {
            rates.rate(&from, &TARGET).await
        })
        .await??;
        check_age(&rate, self.settings.rate_max_age, self.clock.now())?;
        let margin = self.settings.rate_margin;
        let converted = rate.convert(&quote.amount, margin)?;
        if *converted.unit() != TARGET {
            return Err(Error::new(
                ErrorKind::Price,
                format!(
                    "the rate is one to {} instead of {TARGET}",
                    converted.unit()
                ),
            ));
        }
        let price = std::mem::replace(&mut quote.amount, converted);
        let meta = quote.meta.get_or_insert_with(Map::new);
        meta.insert(PRICE_META.to_owned(), money(&price));
        meta.insert(RATE.to_owned(), rate_as_json(&rate, margin));
        Ok(quote)
    }
}

fn check_age(rate: &Rate, most: Duration, now: Timestamp) -> Result<()> {
    let Some(seen) = rate.seen() else {
        return Ok(());
    };
    let wrong = |what: String| Err(Error::new(ErrorKind::Price, what));
    if seen > now.plus(CLOCK_TOLERANCE) {
        return wrong("the rate was seen in the future: has the clock been set back?".to_owned());
    }
    let age = now.since(seen);
    if age > most {
        return wrong(format!(
            "the rate is {} s old, and may be {} s",
            age.as_secs(),
            most.as_secs()
        ));
    }
    Ok(())
}

fn money(amount: &Amount) -> Value {
    json!({ "amount": amount.value(), "unit": amount.unit() })
}

fn rate_as_json(rate: &Rate, margin: Margin) -> Value {
    let mut written = json!({
        "from": money(rate.from()),
        "to": money(rate.to()),
        "margin_basis_points": margin.basis_points(),
    });
    // One that was set by hand was seen at no time.
    if let Some(seen) = rate.seen() {
        written["seen_at"] = seen.as_secs().into();
    }
    written
}
