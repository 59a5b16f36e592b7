//! An MCP server written with rmcp, sold per tool over a relay.
//!
//! `cargo run --example paid_tool` makes one call to itself and ends. With `-- <relay url>` it serves there until it is
//! stopped.

#![expect(
    clippy::print_stdout,
    clippy::unused_self,
    reason = "an example talks, and tools are methods"
)]

use std::sync::Arc;
use std::time::Duration;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::{ServerHandler, schemars, tool, tool_handler, tool_router};
use serde_json::json;
use tollkeeper::Result;
use tollkeeper::client::{ClientPayments, with_client_payments};
use tollkeeper::rails::fake::{FakeHandler, FakeProcessor};
use tollkeeper::server::{ServerPayments, with_server_payments};
use tollkeeper::transport::ServerTransport;
use tollkeeper::transport::nostr::{
    DevRelay, NostrClientTransport, NostrKeys, NostrServerTransport,
};
use tollkeeper::transport::rmcp::serve_rmcp;
use tollkeeper::wire::Request;

/// The MCP server. It knows nothing of payments.
#[derive(Debug, Clone)]
struct Calculator;

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct Sum {
    a: i64,
    b: i64,
}

#[tool_router]
impl Calculator {
    /// Adds two numbers
    #[tool]
    fn add(&self, Parameters(Sum { a, b }): Parameters<Sum>) -> String {
        (a + b).to_string()
    }
}

#[tool_handler]
impl ServerHandler for Calculator {}

#[tokio::main]
async fn main() -> Result<()> {
    let relay_url = std::env::args().nth(1);
    let own_relay = if relay_url.is_none() {
        Some(DevRelay::start(0).await?)
    } else {
        None
    };
    let relay =
        relay_url.unwrap_or_else(|| own_relay.as_ref().map(DevRelay::url).unwrap_or_default());

    let transport = NostrServerTransport::builder(NostrKeys::generate())
        .relays([relay.clone()])
        .connect()
        .await?;
    let key = transport.server();
    let payments = ServerPayments::builder()
        .price("tool:add=7 sat".parse()?)
        .processor(FakeProcessor::new())
        .build()?;
    let server = with_server_payments(transport as Arc<dyn ServerTransport>, payments).await?;
    println!("selling tool:add for 7 sats as {key} on {relay}");
    let serving = tokio::spawn(serve_rmcp(server, |_client| Calculator));

    if own_relay.is_some() {
        let transport = NostrClientTransport::builder(NostrKeys::generate(), key)
            .relays([relay])
            .connect()
            .await?;
        let payments = ClientPayments::builder()
            .handler(FakeHandler::new())
            .budget("7 sats".parse()?)
            .build()?;
        let client = with_client_payments(transport, payments);
        let call = Request::new(
            1,
            "tools/call",
            &json!({"name": "add", "arguments": {"a": 19, "b": 23}}),
        )?;
        let outcome = client.call(call, Duration::from_secs(30)).await?;
        println!(
            "paid {:?}, got {:?}",
            outcome.paid,
            outcome.response.result().map(|result| result.get())
        );
        return Ok(());
    }
    let _ = serving.await;
    Ok(())
}
