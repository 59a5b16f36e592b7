//! A person is asked about what costs more than a certain amount, after every other rule has agreed.

use super::Case;
use super::limits;
use crate::client::event::DeclineReason;
use crate::client::ledger::BooksStand;

pub(super) fn check(case: &Case, stand: &BooksStand) -> Result<(), DeclineReason> {
    let Some(above) = &case.policy.ask_above else {
        return Ok(());
    };
    let facts = &case.facts;
    // What cannot be compared is asked about.
    let small = facts
        .amount_in(above.unit())
        .is_some_and(|amount| above.covers(amount) == Some(true));
    if small || facts.approved {
        return Ok(());
    }
    Err(DeclineReason::AskFirst {
        asked: facts.amount.clone(),
        above: above.clone(),
        left: limits::left(case, stand),
    })
}
