//! Use that is charged: written down when a call has succeeded, before its result leaves, and reported from the books until
//! Stripe has it. The name of each report is the event of the request, so reporting twice counts once.

use std::sync::PoisonError;

use serde::Deserialize;

use super::desk::Desk;
use crate::error::Result;
use crate::ledger::{Reported, Usage};
use crate::payment::Delivery;
use crate::rails::stripe::MeterReport;

/// How many reports are made in one round.
const AT_ONCE: usize = 100;
/// How much use may wait to be written down while the books cannot be written.
const UNWRITTEN: usize = 10_000;

/// What was noted when the call was covered.
#[derive(Deserialize)]
struct Memo {
    meter: String,
    customer: String,
    value: u64,
    from: Option<String>,
}

impl Desk {
    /// Writes down what the call of `delivery` used. The result leaves in any case: what cannot be written now is tried again.
    pub(super) async fn note_use(&self, delivery: &Delivery) {
        let Some(usage) = usage_of(delivery) else {
            return;
        };
        if usage.value == 0 {
            return;
        }
        match self.books.note_usage(usage.clone()).await {
            Ok(_) => self.work.notify_one(),
            Err(error) => {
                tracing::error!(
                    request_event_id = %usage.event, error = &error as &dyn std::error::Error,
                    "use could not be written down; it is tried again"
                );
                let mut unwritten = self
                    .unwritten
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                if unwritten.len() < UNWRITTEN {
                    unwritten.push(usage);
                }
            }
        }
    }

    /// Writes down what could not be written before.
    pub(super) async fn write_again(&self) -> Result<()> {
        loop {
            let first = {
                let unwritten = self
                    .unwritten
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                unwritten.last().cloned()
            };
            let Some(usage) = first else { return Ok(()) };
            self.books.note_usage(usage.clone()).await?;
            let mut unwritten = self
                .unwritten
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            unwritten.retain(|waiting| waiting.event != usage.event);
        }
    }

    /// Reports what was not reported yet. Returns whether there may be more.
    pub(super) async fn report(&self) -> Result<bool> {
        let due = self.books.unreported(AT_ONCE).await?;
        let more = due.len() == AT_ONCE;
        for usage in due {
            let identifier = usage.event.to_string();
            let what = (usage.meter.as_str(), usage.customer.as_str(), usage.value);
            let how = match self.client.report_use(what, &identifier, usage.at).await? {
                MeterReport::Taken => Reported::Taken,
                MeterReport::Refused(why) => {
                    tracing::error!(
                        request_event_id = %usage.event, meter = usage.meter, why,
                        "Stripe will not take a report of use; it is not charged"
                    );
                    Reported::Refused(why)
                }
            };
            self.books.reported(&usage.event, how).await?;
        }
        Ok(more)
    }
}

fn usage_of(delivery: &Delivery) -> Option<Usage> {
    let memo = Memo::deserialize(&delivery.memo).ok()?;
    let value = match &memo.from {
        None => memo.value,
        Some(pointer) => counted(delivery.result.get(), pointer).unwrap_or_else(|| {
            tracing::warn!(
                request_event_id = %delivery.event, meter = memo.meter,
                "the result does not say how much was used; the fixed value counts"
            );
            memo.value
        }),
    };
    Some(Usage {
        event: delivery.event,
        meter: memo.meter,
        customer: memo.customer,
        value,
        at: delivery.at,
    })
}

fn counted(result: &str, pointer: &str) -> Option<u64> {
    let result: serde_json::Value = serde_json::from_str(result).ok()?;
    result.pointer(pointer)?.as_u64()
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::RawValue};

    use super::*;
    use crate::payment::{ClientPubkey, RequestEventId, Timestamp};

    #[test]
    fn use_is_what_the_result_says_or_a_fixed_number() {
        let result = json!({ "content": [], "_meta": { "tollkeeper/usage": { "tokens": 37 } }, "n": -1, "x": 1.5 });
        for (from, value) in [
            (None, 2),
            (Some("/_meta/tollkeeper~1usage/tokens"), 37),
            (Some("/nowhere"), 2),
            (Some("/n"), 2),
            (Some("/x"), 2),
        ] {
            let delivery = Delivery {
                event: RequestEventId::from_bytes([1; 32]),
                client: ClientPubkey::from_bytes([2; 32]),
                memo: json!({ "meter": "m", "customer": "cus_1", "value": 2, "from": from }),
                result: RawValue::from_string(result.to_string()).unwrap(),
                at: Timestamp::from_secs(7),
            };
            let usage = usage_of(&delivery).unwrap();
            assert_eq!(
                (usage.value, usage.customer.as_str()),
                (value, "cus_1"),
                "{from:?}"
            );
        }
    }
}
