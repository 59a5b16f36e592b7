//! Nothing is paid twice: not the same thing, and not the same call before its first payment brought an answer.

use super::Case;
use crate::client::event::{DeclineReason, Earlier};
use crate::client::ledger::{AnswerState, Attempt, AttemptState, BooksStand};

pub(super) fn check(case: &Case, stand: &BooksStand) -> Result<(), DeclineReason> {
    let own = |attempt: &&Attempt| attempt.new.call == case.facts.call;
    // An unknown outcome first: it can be looked up, and then the rest may look different.
    if let Some(unknown) = stand
        .same_call
        .iter()
        .find(|attempt| attempt.state == AttemptState::Unknown)
    {
        return Err(DeclineReason::EarlierUnknown(Earlier::of(unknown)));
    }
    if let Some(same) = &stand.same_payment {
        return Err(DeclineReason::PaidBefore(Earlier::of(same)));
    }
    // What the wallet is still at may be paid, whatever the server has answered meanwhile.
    let under_way = stand.same_call.iter().find(|attempt| {
        attempt.state == AttemptState::Reserved
            || (!own(attempt) && attempt.answer == AnswerState::Waiting)
    });
    if let Some(other) = under_way {
        return Err(DeclineReason::UnderWay(Earlier::of(other)));
    }
    let made = u32::try_from(stand.same_call.len()).unwrap_or(u32::MAX);
    match stand.same_call.last() {
        Some(last) if made >= case.policy.max_payments => Err(DeclineReason::MaxPayments {
            made,
            limit: case.policy.max_payments,
            last: Earlier::of(last),
        }),
        _ => Ok(()),
    }
}
