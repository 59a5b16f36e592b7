//! Licences over a relay: they open the gate for their holder, and for nobody who saw, copied, forged or kept them.

use std::sync::Arc;
use std::time::Duration;

use nostr_sdk::JsonUtil as _;
use nostr_sdk::prelude::Keys;
use serde_json::{Value, json};
use tollkeeper::client::{ClientPayments, with_client_payments};
use tollkeeper::entitlement::licence::{
    FeedPage, Issuer, Key, Keyring, LicenceSigner, LicenceTerms, Licences, RevocationFeed,
};
use tollkeeper::ledger::{MemoryLedger, Revocation};
use tollkeeper::payment::{BearerToken, ClientPubkey, Clock, SystemClock};
use tollkeeper::transport::nostr::{EncryptionMode, NostrClientTransport, NostrKeys, parse_server};
use tollkeeper::wire::Request;

use super::raw::{Raw, Via, tag};
use super::world::{SOON, World};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn signer(secret: &[u8]) -> LicenceSigner {
    LicenceSigner::new("shop", "srv", 1, Key::new(secret).unwrap()).unwrap()
}

fn terms(id: &str) -> LicenceTerms {
    LicenceTerms::new(id, "purchase", SystemClock.now())
}

fn licence(terms: &LicenceTerms) -> String {
    signer(SECRET).sign(terms).unwrap().reveal().to_owned()
}

fn key_of(keys: &Keys) -> ClientPubkey {
    keys.public_key().to_hex().parse().unwrap()
}

/// A feed that says once that this licence was taken back.
#[derive(Debug)]
struct Revokes(&'static str);

#[async_trait::async_trait]
impl RevocationFeed for Revokes {
    async fn page(&self, _since: &str) -> tollkeeper::Result<FeedPage> {
        Ok(FeedPage {
            revoked: vec![Revocation {
                id: self.0.to_owned(),
                expires_at: SystemClock.now().plus(Duration::from_secs(1000)),
            }],
            ..FeedPage::default()
        })
    }
}

async fn world() -> World {
    let keys = Keyring::new().with("srv:1", Key::new(SECRET).unwrap());
    let issuer = Issuer::builder("shop", "srv")
        .keys(keys)
        .most_clients(1)
        .feed(Arc::new(Revokes("taken-back")))
        .start(Arc::new(MemoryLedger::new()))
        .await
        .unwrap();
    issuer.read_feed().await.unwrap();
    World::builder()
        .payments(move |payments| payments.entitlement(Licences::new(vec![issuer])))
        .start()
        .await
}

fn with_licence(client: &Raw<'_>, key: &str, token: &str) -> nostr_sdk::Event {
    let params = json!({"name": "add", "arguments": {"a": 1}, "_meta": {key: token}});
    client.request(json!(1), "tools/call", params)
}

/// What was said beside the price.
async fn said(client: &Raw<'_>, call: &nostr_sdk::Event) -> Value {
    let required = client.required(call).await;
    required.json["params"]["_meta"]["tollkeeper/entitlements"]["licence"].clone()
}

#[tokio::test]
async fn a_licence_opens_the_gate_from_the_params_and_from_a_tag() {
    let world = world().await;
    for via in [Via::Persistent, Via::Ephemeral] {
        for key in ["tollkeeper/licence", "license"] {
            let a = world.client(via).await;
            let token = licence(&terms("1").held_by(key_of(&a.keys)));
            let call = with_licence(&a, key, &token);
            a.send(&call).await;
            a.result(&call).await;
        }
        for name in ["licence", "license"] {
            let mut a = world.client(via).await;
            let token = licence(&terms("2").held_by(key_of(&a.keys)));
            a.tags.push(tag(&[name, &token]));
            let call = a.call(json!(1), "add", json!({"a": 1}));
            a.send(&call).await;
            a.result(&call).await;
        }
    }
    assert_eq!((world.rail.minted(), world.tools.executions("add")), (0, 8));
    for execution in world.tools.executions_of("add") {
        assert!(!execution.params.contains("eyJ"), "{}", execution.params);
        assert!(execution.params.contains("tollkeeper/entitlement"));
    }
}

#[tokio::test]
async fn a_licence_on_initialize_counts_for_the_session() {
    let world = world().await;
    let a = world.client(Via::Ephemeral).await;
    let token = licence(&terms("1").held_by(key_of(&a.keys)));
    let params = json!({"protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": {"name": "x", "version": "1"}, "_meta": {"tollkeeper/licence": token}});
    let hello = a.request(json!(0), "initialize", params);
    a.send(&hello).await;
    a.response(&hello).await;
    let call = a.call(json!(1), "add", json!({}));
    a.send(&call).await;
    a.result(&call).await;
    let b = world.client(Via::Ephemeral).await;
    let call = b.call(json!(1), "add", json!({}));
    b.send(&call).await;
    b.required(&call).await;
}

#[tokio::test]
async fn what_should_not_count_does_not_and_says_why() {
    let world = world().await;
    let stranger = signer(b"another secret of 32 bytes......");
    let elsewhere = LicenceSigner::new("shop", "other", 1, Key::new(SECRET).unwrap()).unwrap();
    let a = world.client(Via::Ephemeral).await;
    let own = key_of(&a.keys);
    let long_ago = SystemClock.now().minus(Duration::from_secs(400 * 86_400));
    for (token, error, reason) in [
        (licence(&terms("taken-back").held_by(own)), "revoked", None),
        (
            licence(&LicenceTerms::new("1", "p", long_ago).held_by(own)),
            "invalid_token",
            Some("jwt expired"),
        ),
        (
            stranger
                .sign(&terms("1").held_by(own))
                .unwrap()
                .reveal()
                .to_owned(),
            "invalid_token",
            Some("invalid signature"),
        ),
        (
            elsewhere
                .sign(&terms("1").held_by(own))
                .unwrap()
                .reveal()
                .to_owned(),
            "server_mismatch",
            None,
        ),
        (
            licence(&terms("1").held_by(key_of(&Keys::generate()))),
            "invalid_token",
            Some("not the holder of this licence"),
        ),
        (
            "not-a-token".to_owned(),
            "invalid_token",
            Some("jwt malformed"),
        ),
    ] {
        let client = Raw::connect(&world, a.keys.clone(), Via::Ephemeral).await;
        let call = with_licence(&client, "tollkeeper/licence", &token);
        client.send(&call).await;
        let said = said(&client, &call).await;
        assert_eq!(said["error"], error, "{said}");
        assert_eq!(said["reason"].as_str(), reason, "{said}");
    }
    let client = world.client(Via::Ephemeral).await.explicit();
    let call = with_licence(
        &client,
        "tollkeeper/licence",
        &licence(&terms("taken-back")),
    );
    client.send(&call).await;
    let error = client.error(&call, -32042).await;
    assert_eq!(
        error.json["error"]["data"]["licence"],
        json!({"error": "revoked"})
    );
    assert_eq!(world.tools.executions("add"), 0);
}

/// A thief has the token, or the whole encrypted request.
#[tokio::test]
async fn another_client_cannot_use_it() {
    let world = world().await;
    let buyer = world.client(Via::Ephemeral).await;
    // Without a holder in it, the first client that comes with it is the one.
    for token in [
        licence(&terms("held").held_by(key_of(&buyer.keys))),
        licence(&terms("bearer")),
    ] {
        let call = with_licence(&buyer, "tollkeeper/licence", &token);
        buyer.send(&call).await;
        buyer.result(&call).await;
        let thief = world.client(Via::Ephemeral).await;
        let stolen = with_licence(&thief, "tollkeeper/licence", &token);
        thief.send(&stolen).await;
        assert_eq!(said(&thief, &stolen).await["error"], "invalid_token");
        // The buyer's own event, sent again by the thief: it was answered, and is not executed again.
        thief.send(&call).await;
    }
    world.quiet().await;
    assert_eq!(world.tools.executions("add"), 2);
}

#[tokio::test]
async fn in_the_clear_it_does_not_count_and_our_client_does_not_send_it() {
    let world = world().await;
    let a = world.client(Via::Plain).await;
    let token = licence(&terms("1").held_by(key_of(&a.keys)));
    let call = with_licence(&a, "tollkeeper/licence", &token);
    a.send(&call).await;
    assert_eq!(
        said(&a, &call).await,
        json!({"error": "invalid_token", "reason": "sent in the clear"})
    );
    assert_eq!(world.tools.executions("add"), 0);

    let (server, _) = parse_server(&world.keys.public_key().to_hex()).unwrap();
    for (encryption, sent) in [
        (EncryptionMode::Disabled, false),
        (EncryptionMode::Optional, true),
    ] {
        let keys = NostrKeys::generate();
        let own = Keys::parse(&keys.reveal_secret_hex()).unwrap();
        let token = licence(&terms("ours").held_by(key_of(&own)));
        let transport = NostrClientTransport::builder(keys, server)
            .relays([world.relay.url()])
            .encryption(encryption)
            .connect()
            .await
            .unwrap();
        let payments = ClientPayments::builder()
            .licence(BearerToken::new(&token).unwrap())
            .build()
            .unwrap();
        let client = with_client_payments(transport, payments);
        let request = Request::new(1, "tools/call", &json!({"name": "add"})).unwrap();
        let outcome = client.call(request, SOON).await;
        assert_eq!(outcome.is_ok(), sent);
        if let Ok(outcome) = outcome {
            assert!(outcome.response.result().is_some() && outcome.paid.is_none());
        }
        // Nothing that the relay saw shows it.
        let seen: String = world
            .relay
            .events()
            .iter()
            .map(|event| event.as_json())
            .collect();
        assert!(!seen.contains(&token));
    }
    assert_eq!(world.rail.minted(), 1);
}
