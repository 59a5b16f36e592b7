//! A server that takes money, or may have taken it, and brings no result is not paid any more.

use super::Case;
use crate::client::event::DeclineReason;
use crate::client::ledger::BooksStand;

pub(super) fn check(case: &Case, stand: &BooksStand) -> Result<(), DeclineReason> {
    let limit = case.policy.breaker;
    if limit == 0 || stand.unserved < limit {
        return Ok(());
    }
    Err(DeclineReason::Breaker {
        payments: stand.unserved,
        limit,
        amounts: stand.unserved_amounts.clone(),
    })
}
