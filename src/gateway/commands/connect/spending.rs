//! `tollkeeper://spending`: what an agent may still spend, so that it can plan.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::ClientPayments;
use crate::client::ledger::{AttemptFilter, AttemptState, Tally};
use crate::gateway::commands::spending::{by_unit, money, row};
use crate::payment::{Amount, Clock, SystemClock};

/// The resource.
pub(super) const URI: &str = "tollkeeper://spending";

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// As a list shows it.
pub(super) fn listed() -> Value {
    json!({
        "uri": URI,
        "name": "spending",
        "title": "Budget and spending",
        "description": "What may still be spent on paid calls, what was spent, and what is held for payments whose outcome \
                        is not known yet.",
        "mimeType": "application/json",
    })
}

/// As it is read.
pub(super) async fn read(payments: &ClientPayments) -> Value {
    let text = serde_json::to_string_pretty(&standing(payments).await).unwrap_or_default();
    json!({ "contents": [{ "uri": URI, "mimeType": "application/json", "text": text }] })
}

async fn standing(payments: &ClientPayments) -> Value {
    let amount = |amount: &Amount| json!({"amount": amount.value(), "unit": amount.unit()});
    let budget = payments.budget().spending();
    let used = budget.spent.checked_add(&budget.reserved);
    let left = used
        .and_then(|used| budget.total.checked_sub(&used))
        .unwrap_or_else(|| Amount::zero(budget.total.unit().clone()));
    let policy = payments.policy();
    let mut standing = json!({
        "budget": {
            "total": amount(&budget.total),
            "spent": amount(&budget.spent),
            "held": amount(&budget.reserved),
            "left": amount(&left),
        },
        "limits": {
            "per_call": policy.limits.per_call.as_ref().map(amount),
            "per_hour": policy.limits.per_hour.as_ref().map(amount),
            "per_day": policy.limits.per_day.as_ref().map(amount),
            "total": policy.limits.total.as_ref().map(amount),
            "ask_above": policy.ask_above.as_ref().map(amount),
            "max_payments": policy.max_payments,
        },
    });
    let ledger = payments.ledger();
    if !ledger.has_books() {
        return standing;
    }
    let now = SystemClock.now();
    let since = |window: Option<Duration>| Tally {
        since: window.map(|window| now.minus(window)),
        ..Tally::default()
    };
    let tallies = vec![since(Some(HOUR)), since(Some(DAY)), since(None)];
    if let Ok(sums) = ledger.used(tallies).await {
        for (at, name) in ["last_hour", "last_day", "ever"].into_iter().enumerate() {
            standing["spent"][name] = money(&by_unit(sums.get(at))).into();
        }
    }
    let held = AttemptFilter::states(&[AttemptState::Unknown]);
    if let Ok(held) = ledger.list(&held).await {
        standing["unknown"] = held.iter().map(row).collect();
    }
    standing
}
