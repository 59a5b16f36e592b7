//! A call that was paid for before, and never answered here, is asked for again rather than paid again.
//!
//! The server may have executed it while this client was gone. It keeps what it answered for the request that was paid for,
//! by the event of that request; so that very event is sent once more (N-68).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::channel::Shared;
use super::event::Earlier;
use super::ledger::AttemptFilter;
use super::pay::Paying;
use super::{intercept, keep_alive};
use crate::transport::Prepared;

/// Older events are not let in by a server (its window is ten minutes).
const TOO_OLD: Duration = Duration::from_secs(9 * 60);

/// How long the answer may take before the call is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is looked whether it has come already.
const LOOK: Duration = Duration::from_millis(250);

/// Asks for what `earlier` paid for. `true` if that ended the call.
pub(super) async fn fetch(shared: &Arc<Shared>, paying: &Paying, earlier: &Earlier) -> bool {
    let listed = shared
        .payments
        .ledger
        .list(&AttemptFilter::one(earlier.attempt))
        .await;
    let Some(attempt) = listed.ok().and_then(|mut listed| listed.pop()) else {
        return false;
    };
    let age = shared.payments.clock.now().since(attempt.new.at);
    let (event, signed) = attempt.last_request();
    if signed.is_empty() || age > TOO_OLD || event == paying.event {
        return false;
    }
    tracing::info!(request_event_id = %event, "asks for what was paid for before");
    let prepared = Prepared::new(event, signed.to_owned());
    if !shared
        .calls
        .replace(paying.id, prepared.event, &prepared.signed)
    {
        return true;
    }
    shared
        .calls
        .with(paying.id, |call| call.attempts.push(earlier.attempt));
    keep_alive::during(shared, paying.id, PATIENCE);
    if shared.transport.publish(&prepared).await.is_err() {
        return false;
    }
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until && !paying.ended.is_cancelled() {
        // It may have come before it was asked for.
        if let Some((response, signed)) = shared.strays.take(&event) {
            intercept::answered(shared, Some(event), response, &[], Some(signed)).await;
        }
        let _ = tokio::time::timeout(LOOK, paying.ended.cancelled()).await;
    }
    paying.ended.is_cancelled()
}
