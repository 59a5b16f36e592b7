//! Who may be paid at all.

use super::Case;
use crate::client::event::DeclineReason;

pub(super) fn check(case: &Case) -> Result<(), DeclineReason> {
    let (policy, server) = (&case.policy, case.facts.server);
    if policy.deny.contains(&server) {
        return Err(DeclineReason::ServerDenied(server));
    }
    if !policy.allow.is_empty() && !policy.allow.contains(&server) {
        return Err(DeclineReason::ServerNotAllowed(server));
    }
    Ok(())
}
