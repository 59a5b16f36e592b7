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
    // A price in a unit that the payment cannot be compared with is no price that was kept.
    match facts.amount_in(advertised.unit()) {
        Some(amount) if advertised.max().covers(amount) == Some(true) => Ok(()),
        _ => Err(DeclineReason::AboveAdvertised {
            asked: facts.amount.clone(),
            advertised: advertised.clone(),
        }),
    }
}
