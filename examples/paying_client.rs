//! A client that pays within a budget, over a relay, and says what happens.
//!
//! `cargo run --example paying_client` brings its own relay and server. Against a server of yours:
//! `cargo run --example paying_client -- <npub> <relay url> <tool>`.

#![expect(clippy::print_stdout, reason = "an example talks")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tollkeeper::client::{ClientPayments, PaymentEvent, with_client_payments};
use tollkeeper::payment::ServerPubkey;
use tollkeeper::rails::fake::{FakeHandler, FakeProcessor};
use tollkeeper::server::{ServerPayments, with_server_payments};
use tollkeeper::transport::nostr::{
    DevRelay, NostrClientTransport, NostrKeys, NostrServerTransport, parse_server,
};
use tollkeeper::transport::{Outbound, ServerTransport};
use tollkeeper::wire::{Message, Payload, Request, Response, raw};
use tollkeeper::{Error, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (server, relay, tool, _own) = match args.as_slice() {
        [server, relay, tool] => (parse_server(server)?.0, relay.clone(), tool.clone(), None),
        _ => {
            let relay = DevRelay::start(0).await?;
            (
                start_a_server(&relay.url()).await?,
                relay.url(),
                "add".to_owned(),
                Some(relay),
            )
        }
    };

    let transport = NostrClientTransport::builder(NostrKeys::generate(), server)
        .relays([relay])
        .connect()
        .await?;
    let payments = ClientPayments::builder()
        .handler(FakeHandler::new())
        .budget("20 sats".parse()?)
        .per_call("10 sats".parse()?)
        .on_event(|event| match event {
            PaymentEvent::Required { amount, .. } => println!("asked for {amount}"),
            PaymentEvent::Paid { amount, .. } => println!("paid {amount}"),
            PaymentEvent::Accepted { .. } => println!("accepted"),
            PaymentEvent::Declined { reason, .. } => println!("declined: {reason}"),
            _ => {}
        })
        .build()?;
    let budget = payments.budget().clone();
    let client = with_client_payments(transport, payments);

    for a in 1..=3 {
        let params = json!({"name": tool, "arguments": {"a": a, "b": 3}});
        let outcome = client
            .call(
                Request::new(a, "tools/call", &params)?,
                Duration::from_secs(30),
            )
            .await?;
        match (outcome.response.result(), outcome.response.error()) {
            (Some(result), _) => println!("call {a}: {}", result.get()),
            (_, Some(error)) => println!("call {a}: {}", error.message),
            _ => println!("call {a}: an answer that cannot be read"),
        }
    }
    println!(
        "spent {} of {}",
        budget.spending().spent,
        budget.spending().total
    );
    Ok(())
}

/// A server that sells `add` for 7 sats on the fake rail.
async fn start_a_server(relay: &str) -> Result<ServerPubkey> {
    let transport = NostrServerTransport::builder(NostrKeys::generate())
        .relays([relay.to_owned()])
        .connect()
        .await?;
    let key = transport.server();
    let payments = ServerPayments::builder()
        .price("tool:add=7 sat".parse()?)
        .processor(FakeProcessor::new())
        .build()?;
    let server = with_server_payments(transport as Arc<dyn ServerTransport>, payments).await?;
    tokio::spawn(async move {
        while let Some(inbound) = server.recv().await {
            if let Message::Request(request) = inbound.message {
                let response = Response {
                    id: request.id,
                    payload: Payload::Result(raw(&json!({"done": true}))?),
                };
                server
                    .send(&inbound.origin.reply_to, Outbound::new(response))
                    .await?;
            }
        }
        Ok::<_, Error>(())
    });
    Ok(key)
}
