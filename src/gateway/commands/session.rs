//! How this program opens an MCP session with a remote server.

use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{CallOutcome, PaidClient};
use crate::error::Result;
use crate::transport::MessageChannel;
use crate::wire::{Notification, Request, method};

/// The version of MCP that is asked for; the server answers with its own.
const PROTOCOL_VERSION: &str = "2025-06-18";

/// The params of `initialize`.
pub(super) fn introduction() -> Value {
    json!({
        "protocolVersion": PROTOCOL_VERSION,
        "capabilities": {},
        "clientInfo": { "name": "tollkeeper", "version": env!("CARGO_PKG_VERSION") },
    })
}

/// What follows the answer to `initialize`.
pub(super) fn initialized() -> Notification {
    Notification {
        method: method::INITIALIZED.to_owned(),
        params: None,
    }
}

/// Opens a session under the request id `id`. Unless the outcome is a result there is none.
pub(super) async fn open(client: &PaidClient, id: i64, patience: Duration) -> Result<CallOutcome> {
    let request = Request::new(id, method::INITIALIZE, &introduction())?;
    let introduced = client.call(request, patience).await?;
    if introduced.response.result().is_some() {
        client.send(initialized().into()).await?;
    }
    Ok(introduced)
}
