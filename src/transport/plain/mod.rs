//! MCP's own transports, stdio and Streamable HTTP, in front of the same gate: for clients that speak no Nostr.
//!
//! Nobody signs anything here, so who a client is comes from where it stands (see [`PlainKey`]), and what is never there is never
//! used: no event that could be sent twice, no payment notifications. Nothing but answers reaches a client, so a price is
//! an error that names what to pay, and the same call is made again when that is paid.

pub mod http;
mod identity;
mod outbound;
mod stdio;

pub use identity::PlainKey;
pub use stdio::StdioServerTransport;
