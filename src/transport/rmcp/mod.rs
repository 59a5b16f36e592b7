//! Serve any [`rmcp`] handler over a [`ServerTransport`](super::ServerTransport), and call through any rmcp client over a
//! [`MessageChannel`](super::MessageChannel).
//!
//! rmcp reads messages into types, so it is kept at this edge: prices, identities and payments are settled on the messages
//! as they came. What rmcp 3.9 does to a message on its way to or from a handler:
//!
//! | kept | lost |
//! |---|---|
//! | `_meta`, tool arguments, exact integers | unknown fields of known params, tools, content blocks and results |
//! | error `data`, unknown methods with object params | unknown fields at the top level |
//! | unknown notifications, unknown result shapes | params of `ping` |
//!
//! Requests that it cannot read at all (array params, fractional ids) are answered with `-32602` here. An rmcp client
//! overwrites `_meta.progressToken` with a counter of its own. Ids and progress tokens of the other side come back to it
//! in their own type, because they never reach rmcp (see [`InFlight`](super::InFlight)).

mod client;
mod guard;
mod server;
mod session;
#[cfg(all(test, feature = "testing"))]
mod tests;

pub use client::RmcpClientTransport;
pub use server::serve_rmcp;

use ::rmcp::service::{RxJsonRpcMessage, ServiceRole, TxJsonRpcMessage};

use crate::error::{Error, Result};
use crate::wire::Message;

/// A message of ours as rmcp reads it.
fn to_rmcp<R: ServiceRole>(message: &Message) -> Result<RxJsonRpcMessage<R>> {
    serde_json::from_str(&message.to_json())
        .map_err(|source| Error::wire("rmcp cannot read this message").with_source(source))
}

/// A message of rmcp as ours.
fn from_rmcp<R: ServiceRole>(message: &TxJsonRpcMessage<R>) -> Result<Message> {
    let json = serde_json::to_string(message).map_err(|source| {
        Error::wire("rmcp made a message that is not JSON").with_source(source)
    })?;
    Message::parse(&json)
}
