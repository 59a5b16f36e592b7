//! Never above the price that the server itself has advertised.

use super::{Advertised, Case};
use crate::client::event::DeclineReason;

pub(super) fn check(case: &Case) -> Result<(), DeclineReason> {
    let (rule, facts) = (case.policy.advertised, &case.facts);
    if rule == Advertised::Off {
        return Ok(());
    }
    let Some(advertised) = &facts.advertised else {
        return match rule {
            Advertised::Required => Err(DeclineReason::NotAdvertised),
            _ => Ok(()),
        };
    };
    // A price in other money counts at a rate; without one it is no price that was kept.
    let most = match advertised.unit() == facts.amount.unit() {
        true => Some(advertised.max()),
        false => facts.advertised_at_rate.clone(),
    };
    match most.and_then(|most| most.covers(&facts.amount)) {
        Some(true) => Ok(()),
        Some(false) => Err(DeclineReason::AboveAdvertised {
            asked: facts.amount.clone(),
            advertised: advertised.clone(),
        }),
        None => Err(DeclineReason::NoRate {
            rule: "advertised".to_owned(),
            asked: facts.amount.clone(),
            limit: advertised.max(),
        }),
    }
}
