//! What a server can decide that `serve` has no flag for: rejection, waiver, one kind of wrap only.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tollkeeper::payment::{Invocation, PriceDecision, PricedCapability, Quote};
use tollkeeper::rails::fake::FakeProcessor;
use tollkeeper::server::{ServerPayments, with_server_payments};
use tollkeeper::transport::nostr::{
    DevRelay, EncryptionMode, GiftWrapMode, NostrKeys, NostrServerTransport,
};
use tollkeeper::transport::{Inbound, Outbound, ServerTransport};
use tollkeeper::wire::{Message, Payload, Response, raw};

use crate::sdk::Sdk;

/// A shop in this process.
struct Shop {
    runtime: tokio::runtime::Runtime,
    relay: DevRelay,
    pubkey: String,
}

impl Shop {
    /// Sells `add`; what its argument `verdict` says is what becomes of the price.
    fn open(encryption: EncryptionMode, gift_wrap: GiftWrapMode) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (relay, pubkey) = runtime.block_on(async {
            let relay = DevRelay::start(0).await.unwrap();
            let keys = NostrKeys::generate();
            let pubkey = keys.server_pubkey().to_string();
            let transport = NostrServerTransport::builder(keys)
                .relays([relay.url()])
                .encryption(encryption)
                .gift_wrap(gift_wrap)
                .connect()
                .await
                .unwrap();
            let payments = ServerPayments::builder()
                .price("tool:add=7 sat".parse().unwrap())
                .processor(FakeProcessor::new().settling_after(Duration::from_millis(100)))
                .resolve_price(decide);
            let server = with_server_payments(transport, payments.build().unwrap());
            tokio::spawn(serve(server.await.unwrap()));
            (relay, pubkey)
        });
        Self {
            runtime,
            relay,
            pubkey,
        }
    }

    fn config(&self) -> Value {
        json!({ "server": self.pubkey, "relays": [self.relay.url()], "pay": { "pmi": "fake" } })
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        self.relay.shutdown();
    }
}

async fn decide(
    invocation: Invocation,
    listed: PricedCapability,
) -> tollkeeper::Result<PriceDecision> {
    let verdict = invocation.params["arguments"]["verdict"].as_str();
    Ok(match verdict {
        Some("reject") => PriceDecision::reject("not today"),
        Some("waive") => PriceDecision::Waive,
        _ => Quote::new(listed.price.min()).into(),
    })
}

async fn serve(server: Arc<dyn ServerTransport>) {
    while let Some(Inbound {
        message, origin, ..
    }) = server.recv().await
    {
        let Message::Request(request) = message else {
            continue;
        };
        let result = match request.method.as_str() {
            "initialize" => json!({
                "protocolVersion": "2025-06-18",
                "capabilities": { "tools": {} },
                "serverInfo": { "name": "shop", "version": "1" },
            }),
            "tools/list" => {
                json!({ "tools": [{ "name": "add", "inputSchema": { "type": "object" } }] })
            }
            _ => json!({ "content": [{ "type": "text", "text": "done" }] }),
        };
        let response = Response {
            id: request.id,
            payload: Payload::Result(raw(&result).unwrap()),
        };
        server
            .send(&origin.reply_to, Outbound::new(response))
            .await
            .unwrap();
    }
}

#[test]
fn a_rejection_and_a_waiver_reach_the_sdk() {
    let Some(sdk) = Sdk::get() else { return };
    let shop = Shop::open(EncryptionMode::Optional, GiftWrapMode::Optional);
    for encryption in ["disabled", "optional"] {
        let mut config = shop.config();
        config["encryption"] = encryption.into();
        let mut client = sdk.client(config);
        client.connect();

        let rejected = client.call("add", json!({ "verdict": "reject" }));
        assert_eq!(rejected.code(), -32000);
        assert!(
            rejected.message().ends_with("Payment rejected: not today"),
            "{rejected:?}"
        );
        assert!(rejected.reports("paid").is_empty());

        let waived = client.call("add", json!({ "verdict": "waive" }));
        assert_eq!(waived.text(), "done");
        // The error behind the rejection (N-72) is news of nothing to the SDK, which made one of its own.
        assert!(waived.notifications().is_empty(), "{waived:?}");
        assert!(waived.reports("paid").is_empty(), "{waived:?}");

        let paid = client.call("add", json!({}));
        assert_eq!(paid.text(), "done");
        assert_eq!(paid.reports("paid").len(), 1, "{paid:?}");
    }
}

#[test]
fn a_server_of_one_kind_of_wrap_serves_the_sdk() {
    let Some(sdk) = Sdk::get() else { return };
    for (gift_wrap, theirs) in [
        (GiftWrapMode::Persistent, "persistent"),
        (GiftWrapMode::Ephemeral, "ephemeral"),
    ] {
        let shop = Shop::open(EncryptionMode::Required, gift_wrap);
        for (mode, stateless) in [(theirs, false), (theirs, true)] {
            let mut config = shop.config();
            config["giftWrap"] = mode.into();
            config["stateless"] = stateless.into();
            let mut client = sdk.client(config);
            client.connect();
            let paid = client.call("add", json!({}));
            assert_eq!(paid.text(), "done");
            assert_eq!(paid.reports("paid").len(), 1, "{mode}: {paid:?}");
        }
    }
    // The SDK begins with a stored wrap, whatever it would rather use (N-113).
    let shop = Shop::open(EncryptionMode::Required, GiftWrapMode::Persistent);
    let mut client = sdk.client(shop.config());
    client.connect();
    assert_eq!(client.call("add", json!({})).text(), "done");
}
