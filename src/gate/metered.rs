//! A call with a price by use has run: what it used is charged, and the rest of what was reserved goes onto its client's account.
//!
//! The end of the call and the rest are one write. What was reserved stands in the entry, with what it is counted by, so that a
//! price list that changed meanwhile changes nothing. A handler that does not say what it used has used all of it.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::Gate;
use super::log::log_money;
use super::write_later::Unwritten;
use crate::ledger::{Applied, Entry, GiveBack};
use crate::payment::{Amount, MeterUnit, RESERVED_META, RequestEventId, portion};
use crate::wire::{Message, Payload, USAGE_KEY, meta_of};

impl Gate {
    /// How much of what was paid for `entry` its call did not use; `None` if it is not priced by use.
    pub(super) async fn unused(&self, entry: &RequestEventId, message: &Message) -> Option<Amount> {
        if !self.prices.has_metered() {
            return None;
        }
        let entry = match self.ledger.get(entry).await {
            Ok(entry) => entry?,
            Err(error) => {
                tracing::error!(
                    %entry, error = &error as &dyn std::error::Error,
                    "what a call reserved cannot be read; all of it is charged"
                );
                return None;
            }
        };
        let reserved = reserved(&entry)?;
        let used = usage(message, reserved.unit);
        if used.is_none() {
            tracing::warn!(
                entry = %entry.id, capability = entry.capability,
                "the handler did not say what a call used; all that was reserved is charged"
            );
        }
        Some(rest(&entry.price(), &reserved, used))
    }

    /// Ends a call of which `unused` is given back. Even if that cannot be written now the answer goes out, and both are written
    /// together when they can be.
    pub(super) async fn finish_metered(
        self: &Arc<Self>,
        entry: &RequestEventId,
        message: &Message,
        unused: Amount,
    ) {
        let json = message.to_json();
        let back = GiveBack {
            response: (json.len() <= self.settings.stored_response_bytes).then_some(json),
            unused: Some(unused),
        };
        let now = self.clock.now();
        match self.ledger.give_back(entry, back.clone(), now).await {
            Ok(Applied::Moved(entry)) => {
                log_money(
                    &entry,
                    "delivered; what was not used is on the client's account",
                );
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(
                    %entry, error = &error as &dyn std::error::Error, "a delivery could not be written down; it is tried again"
                );
                self.write_later(*entry, Unwritten::GiveBack(back));
            }
        }
    }
}

/// What was paid for ahead.
struct Reserved {
    unit: MeterUnit,
    price: u64,
    per: u64,
}

fn reserved(entry: &Entry) -> Option<Reserved> {
    let meta: Map<String, Value> = serde_json::from_str(entry.meta.as_deref()?).ok()?;
    let told = meta.get(RESERVED_META)?;
    let units = [MeterUnit::Tokens, MeterUnit::Results];
    let unit = units.into_iter().find(|u| told.get(u.as_str()).is_some())?;
    Some(Reserved {
        unit,
        price: told.get("amount")?.as_u64()?,
        per: told.get("per")?.as_u64()?,
    })
}

/// What the handler says that it used: `{"tokens": 7}`, or `{"input_tokens": 3, "output_tokens": 4}`.
fn usage(message: &Message, unit: MeterUnit) -> Option<u64> {
    let Message::Response(response) = message else {
        return None;
    };
    // An error used what it says, too; it has no place to say so, and then nothing was used.
    let Payload::Result(result) = &response.payload else {
        return Some(0);
    };
    let meta = meta_of(Some(result))?;
    let usage = meta.get(USAGE_KEY)?;
    let number = |name: &str| usage.get(name).and_then(Value::as_u64);
    let name = unit.as_str();
    number(name).or_else(|| {
        let (input, output) = (format!("input_{name}"), format!("output_{name}"));
        match (number(&input), number(&output)) {
            (None, None) => None,
            (input, output) => input.unwrap_or(0).checked_add(output.unwrap_or(0)),
        }
    })
}

/// What is left of `price`: never more than it, and nothing if all of it was used.
fn rest(price: &Amount, reserved: &Reserved, used: Option<u64>) -> Amount {
    let cost = used
        .and_then(|used| portion(reserved.price, used, reserved.per))
        .unwrap_or(u64::MAX);
    let left = price.value().saturating_sub(cost);
    Amount::new(left, price.unit().clone()).unwrap_or_else(|_| Amount::zero(price.unit().clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_is_charged_than_was_reserved_and_never_more_given_back_than_was_paid() {
        let reserved = Reserved {
            unit: MeterUnit::Tokens,
            price: 3,
            per: 1000,
        };
        let price: Amount = "30 sats".parse().unwrap();
        for (used, left) in [
            (Some(0), 30),
            (Some(1), 29),
            (Some(1000), 27),
            (Some(1001), 26),
            (Some(10_000), 0),
            (Some(10_001), 0),
            (Some(u64::MAX), 0),
            (None, 0),
        ] {
            assert_eq!(rest(&price, &reserved, used).value(), left, "{used:?}");
        }
    }

    #[test]
    fn use_is_read_in_one_number_or_in_two() {
        for (text, used) in [
            (r#"{"tokens":7}"#, Some(7)),
            (r#"{"input_tokens":3,"output_tokens":4}"#, Some(7)),
            (r#"{"output_tokens":4}"#, Some(4)),
            (r#"{"results":4}"#, None),
            (r#"{"tokens":-1}"#, None),
            (r#"{"tokens":"7"}"#, None),
            (
                r#"{"input_tokens":18446744073709551615,"output_tokens":1}"#,
                None,
            ),
        ] {
            let text = format!(
                r#"{{"jsonrpc":"2.0","id":1,"result":{{"_meta":{{"{USAGE_KEY}":{text}}}}}}}"#
            );
            let message = Message::parse(&text).unwrap();
            assert_eq!(usage(&message, MeterUnit::Tokens), used, "{text}");
        }
        let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}"#;
        assert_eq!(
            usage(&Message::parse(error).unwrap(), MeterUnit::Tokens),
            Some(0)
        );
    }
}
