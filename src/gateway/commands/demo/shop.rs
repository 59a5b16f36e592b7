//! What the demo sells: an MCP server on rmcp, as anybody would write one, and its prices. It knows nothing of payments.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{ServerCapabilities, ServerConfig};
use rmcp::{ServerHandler, schemars, tool, tool_handler, tool_router};

use crate::error::{Error, Result};
use crate::payment::{Amount, Invocation, PriceDecision, PricedCapability, Quote, Unit};

/// An MCP server with four tools, which counts what it executes.
#[derive(Debug, Clone, Default)]
pub(super) struct Shop {
    executions: Arc<AtomicUsize>,
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct Numbers {
    a: i64,
    b: i64,
}

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct Text {
    text: String,
}

#[tool_router]
impl Shop {
    /// How often a tool was executed.
    pub(super) fn executions(&self) -> usize {
        self.executions.load(Ordering::SeqCst)
    }

    fn count(&self) {
        self.executions.fetch_add(1, Ordering::SeqCst);
    }

    #[tool(description = "Says hello")]
    fn hello(&self) -> String {
        self.count();
        "Hello!".to_owned()
    }

    #[tool(description = "Adds two numbers")]
    fn add(&self, Parameters(Numbers { a, b }): Parameters<Numbers>) -> String {
        self.count();
        a.saturating_add(b).to_string()
    }

    #[tool(description = "Writes a text backwards")]
    fn reverse(&self, Parameters(Text { text }): Parameters<Text>) -> String {
        self.count();
        text.chars().rev().collect()
    }

    #[tool(description = "Tells a secret")]
    fn secret(&self) -> String {
        self.count();
        "There is none.".to_owned()
    }
}

#[tool_handler]
impl ServerHandler for Shop {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }
}

/// A fixed price, a range, and one that is never for sale. `hello` is free.
pub(super) fn prices() -> Result<Vec<PricedCapability>> {
    [
        "tool:add=7 sats",
        "tool:reverse=1-50 sats",
        "tool:secret=1000 sats",
    ]
    .into_iter()
    .map(str::parse)
    .collect()
}

/// A sat per character of a text, and no secrets for anybody.
pub(super) async fn resolve_price(
    call: Invocation,
    listed: PricedCapability,
) -> Result<PriceDecision, Error> {
    match call.name.as_deref() {
        Some("secret") => Ok(PriceDecision::reject("secrets are not for sale")),
        Some("reverse") => {
            let text = call
                .params
                .pointer("/arguments/text")
                .and_then(|text| text.as_str());
            let length = text.unwrap_or_default().chars().count();
            let sats = u64::try_from(length)
                .unwrap_or(u64::MAX)
                .clamp(1, listed.price.max().value());
            Ok(Quote::new(Amount::new(sats, Unit::SATS)?).into())
        }
        _ => Ok(Quote::new(listed.price.min()).into()),
    }
}
