//! How often one payment is worth a question.

use std::time::Duration;

use crate::payment::Timestamp;

/// Somebody may still be waiting for a payment of this age.
const YOUNG: Duration = Duration::from_secs(600);

/// Whether somebody may still be waiting for a payment that was asked for at `made_at`.
pub(super) fn is_young(made_at: Timestamp, now: Timestamp) -> bool {
    now.since(made_at) < YOUNG
}

/// How long until a payment of that age is looked up next: a tenth of its age, from 1 s to 10 s while it is young, up to
/// 5 min when it is old. `listed`: the rail lists its settlements too, so that half as often is enough.
pub(super) fn pace(made_at: Timestamp, now: Timestamp, listed: bool) -> Duration {
    let most = if is_young(made_at, now) {
        Duration::from_secs(10)
    } else {
        Duration::from_secs(300)
    };
    let alone = (now.since(made_at) / 10).clamp(Duration::from_secs(1), most);
    if listed { alone * 2 } else { alone }
}
