//! A client cancels its own request (N-124).

use std::sync::Arc;

use serde::Deserialize;

use super::Gate;
use crate::ledger::Transition;
use crate::transport::Origin;
use crate::wire::{Notification, RequestId};

#[derive(Deserialize)]
struct Cancelled {
    #[serde(rename = "requestId")]
    request_id: RequestId,
}

impl Gate {
    /// Stops a request that waits for its money: nothing more is sent for it, and a payment that still comes is an
    /// authorization. A paid call that is being executed is finished. `false`: the notice is for the handler.
    pub(super) async fn cancel(
        self: &Arc<Self>,
        notification: &Notification,
        origin: &Origin,
    ) -> bool {
        let params = notification
            .params
            .as_ref()
            .map_or("null", |params| params.get());
        let Ok(Cancelled { request_id }) = serde_json::from_str(params) else {
            return false;
        };
        let taken = self.waiting.take_back(&origin.client, &request_id);
        let Some((id, inbound)) = taken.parked else {
            if taken.looked_at || !self.open_calls.cancelled(&origin.client, &request_id) {
                return true;
            }
            self.cancel_elsewhere(origin.client, request_id);
            return false;
        };
        let detach = Transition::Detach {
            reason: "cancelled by the client".to_owned(),
        };
        if let Err(error) = self.ledger.apply(&id, vec![detach], self.clock.now()).await {
            // It waits on: better served than forgotten.
            tracing::error!(entry = %id, error = &error as &dyn std::error::Error, "a cancellation could not be written down");
            self.waiting.put_back(id, inbound);
        }
        true
    }
}
