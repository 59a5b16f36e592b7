//! What prices in other money are in sats, right now: what `check` says of rates.

use serde_json::json;

use crate::gate::PriceList;
use crate::gateway::config::Selling;
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::{output, wire_up};
use crate::payment::{Amount, Rate, Unit};

/// Prints the rate of each currency and what is charged at it. The last thing to do: it fails where a price could not be
/// charged now.
pub(super) async fn print(selling: &Selling, prices: &PriceList, as_json: bool) -> Outcome {
    let units: Vec<Unit> = prices
        .units()
        .into_iter()
        .filter(|unit| selling.rates.cover(unit))
        .collect();
    if units.is_empty() {
        return Ok(());
    }
    let Some(source) = wire_up::rates(&selling.rates).await? else {
        return Ok(());
    };
    let mut missing = Vec::new();
    for unit in &units {
        match source.rate(unit, &Unit::SATS).await {
            Ok(rate) => print_rate(selling, prices, &rate, as_json)?,
            Err(error) => missing.push(error.to_string()),
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format!("rates: {}", missing.join("; "))))
}

fn print_rate(selling: &Selling, prices: &PriceList, rate: &Rate, as_json: bool) -> Outcome {
    let margin = selling.rates.margin;
    let seen = rate.seen().map(|at| at.as_secs());
    if as_json {
        output::json(&json!({
            "event": "rate",
            "from": money(rate.from()),
            "to": money(rate.to()),
            "margin_basis_points": margin.basis_points(),
            "seen_at": seen,
        }));
    } else {
        let kind = if seen.is_some() { "seen now" } else { "fixed" };
        output::line(&format!("{rate}  ({kind}, margin {margin})"));
    }
    let entries = prices.entries().iter();
    for entry in entries.filter(|entry| entry.price.unit() == rate.from().unit()) {
        let (least, most) = (entry.price.min(), entry.price.max());
        let charged = (rate.convert(&least, margin)?, rate.convert(&most, margin)?);
        if as_json {
            output::json(&json!({
                "event": "converted",
                "capability": entry.capability.to_string(),
                "price": entry.price.to_string(),
                "charged": { "least": money(&charged.0), "most": money(&charged.1) },
            }));
        } else if charged.0 == charged.1 {
            output::line(&format!(
                "{}  {}  is {}",
                entry.capability, entry.price, charged.0
            ));
        } else {
            output::line(&format!(
                "{}  {}  is {} to {}",
                entry.capability, entry.price, charged.0, charged.1
            ));
        }
    }
    Ok(())
}

fn money(amount: &Amount) -> serde_json::Value {
    json!({ "amount": amount.value(), "unit": amount.unit() })
}
