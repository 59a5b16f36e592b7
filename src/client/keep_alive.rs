//! Keeps the caller of a call alive while its payment settles (N-77).
//!
//! MCP callers give up on a request that shows no sign of life. While a payment is under way they get progress
//! notifications made here, which never go on the wire.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, interval};

use super::channel::Shared;
use crate::payment::RequestEventId;
use crate::wire::{Notification, method};

/// The time between two signs of life: well inside the 60 s that MCP SDKs wait.
const EVERY: Duration = Duration::from_secs(20);

/// Starts signs of life for the call `event`, at most for `wait`, if its caller asked for progress.
pub(super) fn start(shared: &Arc<Shared>, event: &RequestEventId, wait: Duration) {
    let Some(Some((token, ended))) = shared.calls.with(event, |call| {
        let token = call.progress_token.clone()?;
        Some((token, call.ended.clone()))
    }) else {
        return;
    };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let until = Instant::now() + wait;
        let mut ticks = interval(EVERY);
        // Progress must increase, and must stay below what the server itself will report: fractions of one.
        let mut progress = 0.0f64;
        loop {
            tokio::select! {
                () = ended.cancelled() => return,
                tick = ticks.tick() => if tick >= until { return },
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
