//! Keeps the caller of a call alive while its payment settles (N-77).
//!
//! MCP callers give up on a request that shows no sign of life. While a payment is under way they get progress
//! notifications made here, which never go on the wire.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, interval};

use super::calls::CallId;
use super::channel::Shared;
use crate::wire::{Notification, method};

/// The time between two signs of life: well inside the 60 s that MCP SDKs wait.
const EVERY: Duration = Duration::from_secs(20);

/// Gives signs of life for a call during `wait`, if its caller asked for progress, and has whoever waits for it wait as
/// long.
pub(super) fn during(shared: &Arc<Shared>, id: CallId, wait: Duration) {
    let until = Instant::now() + wait;
    let started = shared.calls.with(id, |call| {
        call.deadline.send_if_modified(|deadline| match deadline {
            Some(at) if *at < until => {
                *at = until;
                true
            }
            _ => false,
        });
        let running = call.alive_until.is_some();
        call.alive_until = call.alive_until.max(Some(until));
        let token = call.progress_token.clone().filter(|_| !running)?;
        Some((token, call.ended.clone()))
    });
    let Some(Some((token, ended))) = started else {
        return;
    };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let mut ticks = interval(EVERY);
        // Progress must increase, and must stay below what the server itself will report: fractions of one.
        let mut progress = 0.0f64;
        loop {
            tokio::select! {
                () = ended.cancelled() => return,
                tick = ticks.tick() => if is_over(&shared, id, tick) { return },
            }
            progress += (1.0 - progress) / 100.0;
            let params = json!({"progressToken": token, "progress": progress, "message": "waiting for the payment"});
            let Ok(notification) = Notification::new(method::PROGRESS, &params) else {
                return;
            };
            if shared.to_caller.send(notification.into()).await.is_err() {
                return;
            }
        }
    });
}

/// Whether the time of a call is over; a later payment then starts anew.
fn is_over(shared: &Shared, id: CallId, now: Instant) -> bool {
    let over = shared.calls.with(id, |call| {
        let over = call.alive_until.is_none_or(|until| now >= until);
        if over {
            call.alive_until = None;
        }
        over
    });
    over.unwrap_or(true)
}
