//! A price that depends on the call: by the length of the text, free for one client, refused beyond a limit.
//!
//! `cargo run --example dynamic_price`

#![expect(clippy::print_stdout, reason = "an example talks")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tollkeeper::client::{ClientPayments, with_client_payments};
use tollkeeper::payment::{Amount, PriceDecision, PricedCapability, Quote, Unit};
use tollkeeper::rails::fake::{FakeHandler, FakeProcessor};
use tollkeeper::server::{PaidServer, ServerPayments, with_server_payments};
use tollkeeper::transport::{Outbound, ServerTransport, memory};
use tollkeeper::wire::{Message, Payload, Request, Response, raw};
use tollkeeper::{ClientPubkey, Error, Invocation, Result};

/// One sat per word, up to 50; the friend of the house pays nothing.
async fn price(call: Invocation, _listed: PricedCapability) -> Result<PriceDecision> {
    let friend = ClientPubkey::from_bytes([7; 32]);
    if call.client == friend {
        return Ok(PriceDecision::Waive);
    }
    let text = call.params["arguments"]["text"]
        .as_str()
        .unwrap_or_default();
    match text.split_whitespace().count() as u64 {
        words @ 1..=50 => {
            let amount = Amount::new(words, Unit::SATS)?;
            Ok(Quote::new(amount)
                .with_description(format!("translate {words} words"))
                .into())
        }
        _ => Ok(PriceDecision::reject("between 1 and 50 words, please")),
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let transport = memory::server();
    let payments = ServerPayments::builder()
        .price("tool:translate=1-50 sat".parse()?)
        .processor(FakeProcessor::new())
        .resolve_price(price)
        .build()?;
    let server = with_server_payments(Arc::clone(&transport) as _, payments).await?;
    tokio::spawn(handle(server));

    for (who, key) in [("a stranger", 1), ("the friend", 7)] {
        let payments = ClientPayments::builder()
            .handler(FakeHandler::new())
            .budget("100 sats".parse()?)
            .build()?;
        let client = with_client_payments(
            transport.client(ClientPubkey::from_bytes([key; 32])),
            payments,
        );
        for text in ["good morning", "good morning my dear friend", ""] {
            let params = json!({"name": "translate", "arguments": {"text": text}});
            let outcome = client
                .call(
                    Request::new(1, "tools/call", &params)?,
                    Duration::from_secs(10),
                )
                .await?;
            let paid = outcome
                .paid
                .map_or_else(|| "nothing".to_owned(), |amount| amount.to_string());
            match outcome.response.error() {
                Some(error) => println!("{who} asks for {text:?}: {}", error.message),
                None => println!("{who} asks for {text:?} and pays {paid}"),
            }
        }
    }
    Ok(())
}

/// The MCP server behind the gate: it never sees a call that was not paid for.
async fn handle(server: Arc<PaidServer>) -> Result<(), Error> {
    while let Some(inbound) = server.recv().await {
        if let Message::Request(request) = inbound.message {
            let result = raw(&json!({"content": [{"type": "text", "text": "guten Morgen"}]}))?;
            let response = Response {
                id: request.id,
                payload: Payload::Result(result),
            };
            server
                .send(&inbound.origin.reply_to, Outbound::new(response))
                .await?;
        }
    }
    Ok(())
}
