//! A client that handles the three payment notifications itself, without the paying client: what CEP-8 looks like on
//! the wire.
//!
//! `cargo run --example raw_notifications`

#![expect(clippy::print_stdout, reason = "an example talks")]

use std::sync::Arc;

use serde_json::json;
use tollkeeper::payment::Pmi;
use tollkeeper::rails::fake::FakeProcessor;
use tollkeeper::server::{ServerPayments, with_server_payments};
use tollkeeper::transport::nostr::{
    DevRelay, NostrClientTransport, NostrKeys, NostrServerTransport,
};
use tollkeeper::transport::{ClientTransport, Introduction, Outbound, ServerTransport};
use tollkeeper::wire::{Message, Payload, PaymentNotification, Request, Response, raw};
use tollkeeper::{Error, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let relay = DevRelay::start(0).await?;
    let transport = NostrServerTransport::builder(NostrKeys::generate())
        .relays([relay.url()])
        .connect()
        .await?;
    let server_key = transport.server();
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
                    payload: Payload::Result(raw(&json!({"sum": 5}))?),
                };
                server
                    .send(&inbound.origin.reply_to, Outbound::new(response))
                    .await?;
            }
        }
        Ok::<_, Error>(())
    });

    let client = NostrClientTransport::builder(NostrKeys::generate(), server_key)
        .relays([relay.url()])
        .connect()
        .await?;
    let request = Request::new(
        "my-id",
        "tools/call",
        &json!({"name": "add", "arguments": {"a": 2, "b": 3}}),
    )?;
    // The payment methods that this client could pay by travel with each request.
    let introduction = Introduction::new(vec!["fake".parse::<Pmi>()?], None);
    let prepared = client.prepare(&request.into(), &introduction).await?;
    client.publish(&prepared).await?;
    println!("asked in event {}", prepared.event.short());

    while let Some(inbound) = client.recv().await {
        // Whatever is about another request is not for us; whatever is about none is never paid for.
        if inbound.in_reply_to != Some(prepared.event) {
            continue;
        }
        match inbound.message {
            Message::Notification(notification) => {
                match PaymentNotification::read(&notification)? {
                    Some(PaymentNotification::Required(demand)) => {
                        println!("payment_required: {} by {}", demand.amount, demand.pmi);
                        // Here a wallet would decode `demand.pay_req`, compare it with `demand.amount`, and pay.
                        // The fake rail settles by itself.
                    }
                    Some(PaymentNotification::Accepted(accepted)) => {
                        println!("payment_accepted: {}", accepted.amount)
                    }
                    Some(PaymentNotification::Rejected(rejected)) => {
                        println!("payment_rejected: {:?}", rejected.message)
                    }
                    None => println!("{}", notification.method),
                }
            }
            Message::Response(response) => {
                println!(
                    "response to {}: {}",
                    response.id,
                    response.result().map_or("an error", |result| result.get())
                );
                break;
            }
            Message::Request(_) => {}
        }
    }
    Ok(())
}
