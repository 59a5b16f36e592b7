//! Caps: per call, per hour, per day and in total; for everything, for a server, for a capability.

use std::time::Duration;

use super::{Case, Facts, Policy};
use crate::client::event::DeclineReason;
use crate::client::ledger::{AttemptState, BooksStand, Tally, Used};
use crate::payment::{Amount, CapabilityPattern, MAX_AMOUNT, Unit};

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How much may be spent. The hour and the day are the last 60 minutes and the last 24 hours, at any moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Limits {
    /// For one call, all its payments together.
    pub per_call: Option<Amount>,
    /// In any hour.
    pub per_hour: Option<Amount>,
    /// In any day.
    pub per_day: Option<Amount>,
    /// Ever.
    pub total: Option<Amount>,
}

impl Limits {
    pub(super) fn amounts(&self) -> impl Iterator<Item = &Amount> {
        [&self.per_call, &self.per_hour, &self.per_day, &self.total]
            .into_iter()
            .flatten()
    }
}

/// One limit that applies to a payment.
#[derive(Debug, Clone)]
pub(super) struct Cap {
    /// Its name in the policy.
    rule: String,
    limit: Amount,
    /// What counts against it; for one call, nothing but the call's own payments does.
    pub(super) tally: Tally,
    per_call: bool,
}

/// All limits that apply to a payment.
pub(super) fn caps(policy: &Policy, facts: &Facts) -> Vec<Cap> {
    let mut caps = Vec::new();
    let everything = Tally::default();
    let at_server = Tally {
        server: Some(facts.server),
        ..Tally::default()
    };
    // A name that is no pattern is counted with everything: more than it should be, never less.
    let for_capability = Tally {
        capability: CapabilityPattern::new(&facts.capability).ok(),
        ..Tally::default()
    };
    add(&mut caps, "", &policy.limits, &everything, facts);
    add(
        &mut caps,
        "each_server.",
        &policy.each_server,
        &at_server,
        facts,
    );
    add(
        &mut caps,
        "each_capability.",
        &policy.each_capability,
        &for_capability,
        facts,
    );
    for (server, limits) in &policy.servers {
        if *server == facts.server {
            let name = format!("server {}.", server.short());
            add(&mut caps, &name, limits, &at_server, facts);
        }
    }
    for (pattern, limits) in &policy.capabilities {
        if pattern.matches(&facts.capability) {
            let tally = Tally {
                capability: Some(pattern.clone()),
                ..Tally::default()
            };
            let name = format!("capability {}.", pattern.as_str());
            add(&mut caps, &name, limits, &tally, facts);
        }
    }
    caps
}

fn add(caps: &mut Vec<Cap>, scope: &str, limits: &Limits, tally: &Tally, facts: &Facts) {
    let windows = [
        ("per_call", &limits.per_call, None),
        ("per_hour", &limits.per_hour, Some(HOUR)),
        ("per_day", &limits.per_day, Some(DAY)),
        ("total", &limits.total, None),
    ];
    for (word, limit, window) in windows {
        let Some(limit) = limit else { continue };
        let per_call = word == "per_call";
        let mut tally = tally.clone();
        // Nothing is later than now, so for one call nothing is added up that is not needed.
        tally.since = match window {
            Some(window) => Some(facts.now.minus(window)),
            None => per_call.then(|| facts.now.plus(DAY * 36_500)),
        };
        caps.push(Cap {
            rule: format!("{scope}{word}"),
            limit: limit.clone(),
            tally,
            per_call,
        });
    }
}

pub(super) fn check(case: &Case, stand: &BooksStand) -> Result<(), DeclineReason> {
    for (at, cap) in case.caps.iter().enumerate() {
        let unit = cap.limit.unit();
        let Some(amount) = case.facts.amount_in(unit) else {
            return Err(DeclineReason::NoRate {
                rule: cap.rule.clone(),
                asked: case.facts.amount.clone(),
                limit: cap.limit.clone(),
            });
        };
        let used = used(case, stand, at);
        if used.saturating_add(amount.value()) > cap.limit.value() {
            return Err(DeclineReason::AboveLimit {
                rule: cap.rule.clone(),
                asked: case.facts.amount.clone(),
                limit: cap.limit.clone(),
                left: of(cap.limit.value().saturating_sub(used), unit),
            });
        }
    }
    Ok(())
}

/// What is left under the tightest limit in the unit of the payment once it is made.
pub(super) fn left(case: &Case, stand: &BooksStand) -> Option<Amount> {
    let unit = case.facts.amount.unit();
    (0..case.caps.len())
        .filter(|at| case.caps[*at].limit.unit() == unit && !case.caps[*at].per_call)
        .map(|at| {
            case.caps[at]
                .limit
                .value()
                .saturating_sub(used(case, stand, at))
                .saturating_sub(case.facts.amount.value())
        })
        .min()
        .map(|left| of(left, unit))
}

/// What counts against the cap at `at`, in its unit.
fn used(case: &Case, stand: &BooksStand, at: usize) -> u64 {
    let cap = &case.caps[at];
    let in_unit = |used: &Used| value_in(case, used, cap.limit.unit());
    if cap.per_call {
        let own = stand.same_call.iter().filter(|attempt| {
            attempt.new.call == case.facts.call && attempt.state != AttemptState::Refused
        });
        return own
            .map(|attempt| {
                in_unit(&Used::new(
                    attempt.amount().clone(),
                    attempt.new.worth.clone(),
                ))
            })
            .fold(0, u64::saturating_add);
    }
    // Books that do not say how they stand leave nothing to spend.
    stand.used.get(at).map_or(u64::MAX, |used| {
        used.iter().map(in_unit).fold(0, u64::saturating_add)
    })
}

/// A sum in `unit`: as it is, as it was valued then, or valued as this payment is now, rounded up. What cannot be
/// compared does not count: it was never held against this limit.
fn value_in(case: &Case, used: &Used, unit: &Unit) -> u64 {
    if used.amount.unit() == unit {
        return used.amount.value();
    }
    if let Some(worth) = used.worth.as_ref().filter(|worth| worth.unit() == unit) {
        return worth.value();
    }
    let (now, facts) = (case.facts.amount_in(unit), &case.facts);
    match now {
        Some(worth) if used.amount.unit() == facts.amount.unit() && facts.amount.value() > 0 => {
            let scaled = u128::from(used.amount.value())
                .saturating_mul(u128::from(worth.value()))
                .div_ceil(u128::from(facts.amount.value()));
            u64::try_from(scaled).unwrap_or(u64::MAX)
        }
        _ => 0,
    }
}

fn of(value: u64, unit: &Unit) -> Amount {
    Amount::new(value.min(MAX_AMOUNT), unit.clone()).unwrap_or_else(|_| Amount::zero(unit.clone()))
}
