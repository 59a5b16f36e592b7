//! The Nostr transports against relays that work and relays that do not.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is a test")]

#[path = "support/faulty_relay.rs"]
mod faulty_relay;

use std::sync::Arc;
use std::time::Duration;

use faulty_relay::{Answer, FaultyRelay};
use nostr_sdk::prelude::{EventBuilder, JsonUtil, Keys, Kind, Tag as NostrTag, nip44};
use tokio::time::timeout;
use tollkeeper::ErrorKind;
use tollkeeper::payment::PaymentInteraction;
use tollkeeper::transport::nostr::{
    Announcement, DevRelay, EncryptionMode, GiftWrapMode, NostrClientTransport, NostrKeys,
    NostrServerTransport, Profile, ServerInfo, discover, find_relays,
};
use tollkeeper::transport::{
    Advertisement, ClientInbound, ClientTransport, Inbound, Introduction, Outbound, Prepared,
    ServerTransport,
};
use tollkeeper::wire::{CapTag, Message, Notification, Payload, Request, Response, Tag, raw};

const SOON: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_millis(300);

struct Pair {
    server: Arc<NostrServerTransport>,
    client: Arc<NostrClientTransport>,
    server_keys: Keys,
    client_keys: Keys,
}

async fn server(
    relays: &[String],
    encryption: EncryptionMode,
    wrap: GiftWrapMode,
) -> (Arc<NostrServerTransport>, Keys) {
    let keys = NostrKeys::generate();
    let raw_keys = Keys::parse(&keys.reveal_secret_hex()).unwrap();
    let server = NostrServerTransport::builder(keys)
        .relays(relays)
        .encryption(encryption)
        .gift_wrap(wrap)
        .server_info(ServerInfo::new(Some("Test".into()), None, None, None))
        .connect()
        .await
        .unwrap();
    (server, raw_keys)
}

async fn client(
    server: &NostrServerTransport,
    relays: &[String],
    encryption: EncryptionMode,
    wrap: GiftWrapMode,
) -> (Arc<NostrClientTransport>, Keys) {
    let keys = NostrKeys::generate();
    let raw_keys = Keys::parse(&keys.reveal_secret_hex()).unwrap();
    let client = NostrClientTransport::builder(keys, server.server())
        .relays(relays)
        .encryption(encryption)
        .gift_wrap(wrap)
        .connect()
        .await
        .unwrap();
    (client, raw_keys)
}

async fn pair(relays: &[String], encryption: EncryptionMode, wrap: GiftWrapMode) -> Pair {
    let (server, server_keys) =
        server(relays, EncryptionMode::Optional, GiftWrapMode::Optional).await;
    let (client, client_keys) = client(&server, relays, encryption, wrap).await;
    Pair {
        server,
        client,
        server_keys,
        client_keys,
    }
}

fn call(id: i64) -> Message {
    Request::new(
        id,
        "tools/call",
        &serde_json::json!({"name": "add", "n": id}),
    )
    .unwrap()
    .into()
}

fn answer(to: &Inbound) -> Outbound {
    let Message::Request(request) = &to.message else {
        panic!("not a request")
    };
    Outbound::new(Response {
        id: request.id.clone(),
        payload: Payload::Result(raw(&serde_json::json!({"ok": true})).unwrap()),
    })
}

impl Pair {
    async fn ask(&self, message: &Message) -> Prepared {
        let prepared = self
            .client
            .prepare(message, &Introduction::default())
            .await
            .unwrap();
        self.client.publish(&prepared).await.unwrap();
        prepared
    }

    async fn heard(&self) -> Inbound {
        timeout(SOON, self.server.recv()).await.unwrap().unwrap()
    }

    async fn nothing_heard(&self) {
        assert!(timeout(QUIET, self.server.recv()).await.is_err());
    }

    async fn got(&self) -> ClientInbound {
        timeout(SOON, self.client.recv()).await.unwrap().unwrap()
    }
}

/// A plaintext request that is not made by our client.
fn plain_request(from: &Keys, to: &Keys, content: &str) -> nostr_sdk::Event {
    EventBuilder::new(Kind::from(25910), content)
        .tag(NostrTag::public_key(to.public_key()))
        .sign_with_keys(from)
        .unwrap()
}

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add"}}"#;

#[tokio::test]
async fn a_plaintext_call_goes_there_and_back_with_its_tags() {
    let relay = DevRelay::start(0).await.unwrap();
    let pair = pair(
        &[relay.url()],
        EncryptionMode::Disabled,
        GiftWrapMode::Optional,
    )
    .await;
    pair.server.advertise(Advertisement::new(
        vec!["fake".parse().unwrap()],
        true,
        Vec::new(),
    ));
    let introduction = Introduction::new(
        vec!["fake".parse().unwrap()],
        Some(PaymentInteraction::ExplicitGating),
    );
    let prepared = pair.client.prepare(&call(1), &introduction).await.unwrap();
    pair.client.publish(&prepared).await.unwrap();

    let heard = pair.heard().await;
    assert_eq!(
        heard.origin.client.to_string(),
        pair.client_keys.public_key().to_hex()
    );
    assert_eq!(heard.origin.event, prepared.event);
    assert_eq!(heard.origin.pmis.len(), 1);
    assert_eq!(
        heard.origin.interaction,
        Some(PaymentInteraction::ExplicitGating)
    );
    assert_eq!(heard.origin.reply_to.route, "plain");
    assert!(!heard.origin.redelivered);

    let cap = Tag::new(["cap", "tool:add", "1", "sats"]);
    pair.server
        .send(
            &heard.origin.reply_to,
            answer(&heard).with_tags(vec![cap, Tag::new(["x-new", "1"])]),
        )
        .await
        .unwrap();
    let got = pair.got().await;
    assert_eq!(got.in_reply_to, Some(prepared.event));
    let names: Vec<&str> = got.tags.iter().map(Tag::name).collect();
    assert_eq!(
        names,
        [
            "name",
            "support_encryption",
            "support_encryption_ephemeral",
            "pmi",
            "payment_interaction",
            "support_oversized_transfer",
            "cap",
            "x-new"
        ]
    );
    assert!(got.signed.contains("\"sig\""));

    // A known answer is not passed on twice; a new one says nothing about the server any more.
    pair.server
        .send(&heard.origin.reply_to, answer(&heard))
        .await
        .unwrap();
    assert!(pair.got().await.tags.is_empty());
}

/// An independent implementation of the relay protocol, which subscribes from now on as the other SDKs do.
#[tokio::test]
async fn an_independent_client_is_served() {
    let relay = DevRelay::start(0).await.unwrap();
    let (server, server_keys) = server(
        &[relay.url()],
        EncryptionMode::Optional,
        GiftWrapMode::Optional,
    )
    .await;
    let keys = Keys::generate();
    let client = nostr_sdk::Client::new(keys.clone());
    client.add_relay(relay.url()).await.unwrap();
    client.connect().await;
    client.wait_for_connection(SOON).await;
    let mut notifications = client.notifications();
    let filter = nostr_sdk::Filter::new()
        .pubkey(keys.public_key())
        .kinds([Kind::from(25910), Kind::from(1059), Kind::from(21059)])
        .since(nostr_sdk::Timestamp::now());
    client.subscribe(filter, None).await.unwrap();
    tokio::time::sleep(QUIET).await;
    for kind in [25910, 1059, 21059] {
        let inner = plain_request(
            &keys,
            &server_keys,
            &PING.replace("add", &format!("tool-{kind}")),
        );
        let event = if kind == 25910 {
            inner.clone()
        } else {
            wrapped(&inner, &server_keys, kind)
        };
        client.send_event(&event).await.unwrap();
        let heard = timeout(SOON, server.recv()).await.unwrap().unwrap();
        server
            .send(&heard.origin.reply_to, answer(&heard))
            .await
            .unwrap();
        let answered = loop {
            let notification = timeout(SOON, notifications.recv()).await.unwrap().unwrap();
            if let nostr_sdk::RelayPoolNotification::Event { event, .. } = notification {
                break *event;
            }
        };
        assert_eq!(answered.kind.as_u16(), kind);
        let opened = faulty_relay::open(&answered, &keys).unwrap();
        assert!(opened.verify().is_ok());
        assert!(opened.tags.event_ids().any(|id| *id == inner.id));
    }
}

#[tokio::test]
async fn encrypted_calls_are_answered_in_kind_and_both_sides_move_to_ephemeral_wraps() {
    let relay = FaultyRelay::start().await;
    let pair = pair(
        &[relay.url()],
        EncryptionMode::Optional,
        GiftWrapMode::Optional,
    )
    .await;
    for (n, kind) in [(1, 1059), (2, 21059)] {
        pair.ask(&call(n)).await;
        let heard = pair.heard().await;
        // The client says in its first message that it takes ephemeral wraps.
        let route = &heard.origin.reply_to.route;
        assert!(route.starts_with("wrap:21059"), "{route}");
        pair.server
            .send(&heard.origin.reply_to, answer(&heard))
            .await
            .unwrap();
        pair.got().await;
        let request = relay
            .events()
            .into_iter()
            .rfind(|e| faulty_relay::open(e, &pair.server_keys).is_some())
            .unwrap();
        assert_eq!(request.kind.as_u16(), kind);
    }
    assert!(relay.events_of(25910).is_empty(), "nothing in the clear");
}

#[tokio::test]
async fn a_client_that_only_takes_stored_wraps_gets_those() {
    let relay = FaultyRelay::start().await;
    let pair = pair(
        &[relay.url()],
        EncryptionMode::Required,
        GiftWrapMode::Persistent,
    )
    .await;
    pair.ask(&call(1)).await;
    let heard = pair.heard().await;
    assert_eq!(heard.origin.reply_to.route, "wrap:1059");
    // The route is text and works after it was written down.
    let written = serde_json::to_string(&heard.origin.reply_to).unwrap();
    pair.server
        .send(&serde_json::from_str(&written).unwrap(), answer(&heard))
        .await
        .unwrap();
    pair.got().await;
    assert!(relay.events_of(21059).is_empty());
}

#[tokio::test]
async fn modes_keep_out_what_they_do_not_allow() {
    let relay = FaultyRelay::start().await;
    let stranger = Keys::generate();
    for (encryption, wrap, heard) in [
        (
            EncryptionMode::Required,
            GiftWrapMode::Optional,
            [false, true, true],
        ),
        (
            EncryptionMode::Disabled,
            GiftWrapMode::Optional,
            [true, false, false],
        ),
        (
            EncryptionMode::Optional,
            GiftWrapMode::Ephemeral,
            [true, false, true],
        ),
        (
            EncryptionMode::Optional,
            GiftWrapMode::Persistent,
            [true, true, false],
        ),
    ] {
        let (server, keys) = server(&[relay.url()], encryption, wrap).await;
        for (n, kind) in [25910u16, 1059, 21059].into_iter().enumerate() {
            let inner = plain_request(&stranger, &keys, &PING.replace("add", &format!("tool-{n}")));
            let event = if kind == 25910 {
                inner
            } else {
                wrapped(&inner, &keys, kind)
            };
            relay.say(&frame(&event));
            let got = timeout(QUIET, server.recv()).await.is_ok();
            assert_eq!(got, heard[n], "{encryption:?} {wrap:?} {kind}");
        }
    }
}

/// Delivers past any filter, as a relay does that means ill.
fn frame(event: &nostr_sdk::Event) -> String {
    format!(r#"["EVENT","tollkeeper",{}]"#, event.as_json())
}

fn wrapped(inner: &nostr_sdk::Event, to: &Keys, kind: u16) -> nostr_sdk::Event {
    let once = Keys::generate();
    let content = nip44::encrypt(
        once.secret_key(),
        &to.public_key(),
        inner.as_json(),
        nip44::Version::V2,
    )
    .unwrap();
    EventBuilder::new(Kind::from(kind), content)
        .tag(NostrTag::public_key(to.public_key()))
        .sign_with_keys(&once)
        .unwrap()
}

#[tokio::test]
async fn one_event_over_two_relays_arrives_once_and_a_second_sending_as_such() {
    let (a, b) = (FaultyRelay::start().await, FaultyRelay::start().await);
    let urls = [a.url(), b.url()];
    let pair = pair(&urls, EncryptionMode::Disabled, GiftWrapMode::Optional).await;
    a.subscribed(2).await;
    b.subscribed(2).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let prepared = pair.ask(&call(1)).await;
    assert!(!pair.heard().await.origin.redelivered);
    pair.nothing_heard().await;

    pair.client.publish(&prepared).await.unwrap();
    let again = pair.heard().await;
    assert!(again.origin.redelivered);
    assert_eq!(again.origin.event, prepared.event);
    pair.nothing_heard().await;
}

#[tokio::test]
async fn the_same_message_in_another_wrap_is_a_second_sending() {
    let relay = FaultyRelay::start().await;
    let pair = pair(
        &[relay.url()],
        EncryptionMode::Required,
        GiftWrapMode::Optional,
    )
    .await;
    let prepared = pair.ask(&call(1)).await;
    assert!(!pair.heard().await.origin.redelivered);
    pair.client.publish(&prepared).await.unwrap();
    let again = pair.heard().await;
    assert!(again.origin.redelivered);
    assert_eq!(again.origin.event, prepared.event);
}

#[tokio::test]
async fn a_corrupted_copy_does_not_suppress_the_genuine_event() {
    let relay = FaultyRelay::start().await;
    relay.set(|faults| faults.corrupt_first = true);
    for mode in [EncryptionMode::Disabled, EncryptionMode::Required] {
        let pair = pair(&[relay.url()], mode, GiftWrapMode::Optional).await;
        let prepared = pair.ask(&call(1)).await;
        let heard = pair.heard().await;
        assert_eq!(heard.origin.event, prepared.event);
        assert!(!heard.origin.redelivered);
        pair.nothing_heard().await;
    }
}

#[tokio::test]
async fn a_forged_author_is_never_believed() {
    let relay = FaultyRelay::start().await;
    let (server, keys) = server(
        &[relay.url()],
        EncryptionMode::Optional,
        GiftWrapMode::Optional,
    )
    .await;
    let (mallory, victim) = (Keys::generate(), Keys::generate());
    let genuine = plain_request(&mallory, &keys, PING);
    relay.say(&frame(&genuine));
    assert!(timeout(SOON, server.recv()).await.is_ok());
    // The id and signature of a known event under another author.
    let mut forged = genuine.clone();
    forged.pubkey = victim.public_key();
    relay.say(&frame(&forged));
    relay.say(&frame(&wrapped(&forged, &keys, 21059)));
    // The id is right, but the signature is somebody else's; what is genuine still comes through afterwards.
    let claimed = plain_request(&victim, &keys, PING);
    let mut unsigned = claimed.clone();
    unsigned.sig = genuine.sig;
    relay.say(&frame(&unsigned));
    relay.say(&frame(&wrapped(&unsigned, &keys, 1059)));
    assert!(timeout(QUIET, server.recv()).await.is_err());
    relay.say(&frame(&claimed));
    assert!(
        !timeout(SOON, server.recv())
            .await
            .unwrap()
            .unwrap()
            .origin
            .redelivered
    );
    // Addressed to another server.
    let elsewhere = plain_request(&mallory, &Keys::generate(), PING);
    relay.say(&frame(&elsewhere));
    relay.say(&frame(&wrapped(&elsewhere, &keys, 21059)));
    assert!(timeout(QUIET, server.recv()).await.is_err());
}

#[tokio::test]
async fn junk_is_dropped_and_does_not_push_out_what_is_remembered() {
    let relay = FaultyRelay::start().await;
    let pair = pair(
        &[relay.url()],
        EncryptionMode::Optional,
        GiftWrapMode::Optional,
    )
    .await;
    let prepared = pair.ask(&call(1)).await;
    pair.heard().await;
    let carrier = relay.events_of(1059).pop().unwrap();
    for text in [
        "",
        "{}",
        "[",
        "[]",
        r#"["EVENT"]"#,
        r#"["EVENT","x",{}]"#,
        &"[".repeat(2_000_000),
    ] {
        relay.say(text);
    }
    let mut junk = carrier.clone();
    for n in 0..20_000u32 {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        junk.id = nostr_sdk::EventId::from_byte_array(id);
        relay.say(&frame(&junk));
    }
    // Genuinely signed junk.
    let stranger = Keys::generate();
    for content in [
        "[]",
        "{}",
        "null",
        r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
    ] {
        relay.say(&frame(&plain_request(
            &stranger,
            &pair.server_keys,
            content,
        )));
    }
    pair.nothing_heard().await;
    relay.replay(carrier.id);
    let again = timeout(Duration::from_secs(60), pair.server.recv())
        .await
        .unwrap()
        .unwrap();
    assert!(again.origin.redelivered);
    assert_eq!(again.origin.event, prepared.event);
}

#[tokio::test]
async fn the_client_believes_only_its_server_and_no_plaintext_about_a_secret() {
    let relay = FaultyRelay::start().await;
    let pair = pair(
        &[relay.url()],
        EncryptionMode::Optional,
        GiftWrapMode::Optional,
    )
    .await;
    let prepared = pair.ask(&call(1)).await;
    let reply = |from: &Keys| {
        EventBuilder::new(Kind::from(25910), r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)
            .tag(NostrTag::public_key(pair.client_keys.public_key()))
            .tag(NostrTag::parse(["e", &prepared.event.to_string()]).unwrap())
            .sign_with_keys(from)
            .unwrap()
    };
    let (by_mallory, in_the_clear) = (reply(&Keys::generate()), reply(&pair.server_keys));
    relay.inject(&by_mallory);
    relay.inject(&wrapped(&by_mallory, &pair.client_keys, 21059));
    relay.inject(&in_the_clear);
    assert!(timeout(QUIET, pair.client.recv()).await.is_err());
    relay.inject(&wrapped(&in_the_clear, &pair.client_keys, 21059));
    assert_eq!(pair.got().await.in_reply_to, Some(prepared.event));
}

#[tokio::test]
async fn what_cannot_be_carried_is_refused_before_anything_is_sent() {
    let relay = FaultyRelay::start().await;
    let mut pair = pair(
        &[relay.url()],
        EncryptionMode::Optional,
        GiftWrapMode::Optional,
    )
    .await;
    pair.client = NostrClientTransport::builder(NostrKeys::generate(), pair.server.server())
        .relays([relay.url()])
        .oversized_transfer(false)
        .connect()
        .await
        .unwrap();
    let big: Message = Request::new(
        1,
        "tools/call",
        &serde_json::json!({"x": "y".repeat(70_000)}),
    )
    .unwrap()
    .into();
    let refused = pair
        .client
        .prepare(&big, &Introduction::default())
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    pair.ask(&call(1)).await;
    let heard = pair.heard().await;
    let refused = pair
        .server
        .send(&heard.origin.reply_to, Outbound::new(big))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    // The failed message did not use up the introduction.
    pair.server
        .send(&heard.origin.reply_to, answer(&heard))
        .await
        .unwrap();
    assert!(pair.got().await.tags.iter().any(|tag| tag.name() == "name"));
}

#[tokio::test]
async fn a_refusal_is_an_error_and_silence_is_not() {
    let relay = FaultyRelay::start().await;
    let pair = pair(
        &[relay.url()],
        EncryptionMode::Required,
        GiftWrapMode::Persistent,
    )
    .await;
    relay.set(|faults| faults.answer = Answer::Refuse("blocked: no".into()));
    let prepared = pair
        .client
        .prepare(&call(1), &Introduction::default())
        .await
        .unwrap();
    assert_eq!(
        pair.client.publish(&prepared).await.unwrap_err().kind(),
        ErrorKind::Transport
    );
    relay.set(|faults| faults.answer = Answer::Silence);
    pair.client.publish(&prepared).await.unwrap();
    pair.heard().await;
    relay.set(|faults| {
        faults.answer = Answer::Accept;
        faults.next_answers = vec![Answer::Refuse("rate-limited: slow down".into())];
    });
    pair.ask(&call(2)).await;
    pair.heard().await;
}

#[tokio::test]
async fn one_dead_relay_delays_nobody() {
    let relay = FaultyRelay::start().await;
    let urls = ["ws://127.0.0.1:9".to_owned(), relay.url()];
    let started = std::time::Instant::now();
    let pair = pair(&urls, EncryptionMode::Optional, GiftWrapMode::Optional).await;
    pair.ask(&call(1)).await;
    let heard = pair.heard().await;
    pair.server
        .send(&heard.origin.reply_to, answer(&heard))
        .await
        .unwrap();
    pair.got().await;
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn no_relay_at_all_is_an_error_that_names_them() {
    let error = NostrServerTransport::builder(NostrKeys::generate())
        .relays(["ws://127.0.0.1:9"])
        .ready_timeout(QUIET)
        .connect()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:9"));
}

#[tokio::test]
async fn an_answer_waits_for_a_relay_that_is_down() {
    let outage = async |mode, wrap| {
        let relay = FaultyRelay::start().await;
        let pair = pair(&[relay.url()], mode, wrap).await;
        pair.ask(&call(1)).await;
        let heard = pair.heard().await;
        relay.go_down_for(Duration::from_millis(1500));
        tokio::time::sleep(Duration::from_millis(700)).await;
        pair.server
            .send(&heard.origin.reply_to, answer(&heard))
            .await
            .unwrap();
        pair.got().await;
        // Said several times, heard once.
        assert!(
            timeout(Duration::from_secs(4), pair.client.recv())
                .await
                .is_err()
        );
    };
    tokio::join!(
        outage(EncryptionMode::Disabled, GiftWrapMode::Optional),
        outage(EncryptionMode::Required, GiftWrapMode::Ephemeral),
        outage(EncryptionMode::Required, GiftWrapMode::Persistent),
    );
}

#[tokio::test]
async fn a_reconnected_server_hears_again_and_knows_what_it_heard() {
    let relay = FaultyRelay::start().await;
    let pair = pair(
        &[relay.url()],
        EncryptionMode::Required,
        GiftWrapMode::Persistent,
    )
    .await;
    pair.ask(&call(1)).await;
    pair.heard().await;
    relay.disconnect_all();
    pair.nothing_heard().await;
    let missed = pair.ask(&call(2)).await;
    let heard = pair.heard().await;
    assert_eq!(heard.origin.event, missed.event);
    assert!(!heard.origin.redelivered);
    pair.nothing_heard().await;
}

#[tokio::test]
async fn a_half_open_link_is_noticed() {
    let relay = FaultyRelay::start().await;
    let pair = pair(
        &[relay.url()],
        EncryptionMode::Required,
        GiftWrapMode::Persistent,
    )
    .await;
    relay.freeze(true);
    tokio::time::sleep(Duration::from_secs(17)).await;
    relay.freeze(false);
    pair.ask(&call(1)).await;
    pair.heard().await;
}

#[tokio::test]
async fn a_closed_subscription_is_asked_for_again() {
    let relay = FaultyRelay::start().await;
    relay.set(|faults| faults.close_subscriptions = Some((1, "rate-limited: later".into())));
    let (server, _) = server(
        &[relay.url()],
        EncryptionMode::Optional,
        GiftWrapMode::Optional,
    )
    .await;
    relay.set(|faults| faults.require_auth = true);
    let (client, _) = client(
        &server,
        &[relay.url()],
        EncryptionMode::Optional,
        GiftWrapMode::Optional,
    )
    .await;
    let prepared = client
        .prepare(&call(1), &Introduction::default())
        .await
        .unwrap();
    client.publish(&prepared).await.unwrap();
    assert!(timeout(SOON, server.recv()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_burst_arrives_whole_and_in_order() {
    let relay = FaultyRelay::start().await;
    let pair = pair(
        &[relay.url()],
        EncryptionMode::Disabled,
        GiftWrapMode::Optional,
    )
    .await;
    let sending = {
        let client = pair.client.clone();
        tokio::spawn(async move {
            for n in 0..3000 {
                let prepared = client
                    .prepare(&call(n), &Introduction::default())
                    .await
                    .unwrap();
                client.publish(&prepared).await.unwrap();
            }
        })
    };
    for n in 0..3000 {
        let Message::Request(request) = pair.heard().await.message else {
            panic!("not a request")
        };
        assert_eq!(request.id, n.into());
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn notifications_go_to_clients_that_are_initialized() {
    let relay = FaultyRelay::start().await;
    let pair = pair(
        &[relay.url()],
        EncryptionMode::Required,
        GiftWrapMode::Optional,
    )
    .await;
    let changed: Message = Notification {
        method: "notifications/tools/list_changed".into(),
        params: None,
    }
    .into();
    pair.ask(&call(1)).await;
    pair.heard().await;
    pair.server.notify(None, changed.clone()).await.unwrap();
    assert!(timeout(QUIET, pair.client.recv()).await.is_err());
    pair.ask(
        &Notification {
            method: "notifications/initialized".into(),
            params: None,
        }
        .into(),
    )
    .await;
    pair.heard().await;
    pair.server.notify(None, changed).await.unwrap();
    let got = pair.got().await;
    assert_eq!(got.in_reply_to, None);
    assert!(
        relay.events_of(25910).is_empty(),
        "as encrypted as the client speaks"
    );
}

#[tokio::test]
async fn announcements_replace_each_other_and_carry_prices() {
    let relay = FaultyRelay::start().await;
    let (server, _) = server(
        &[relay.url()],
        EncryptionMode::Optional,
        GiftWrapMode::Optional,
    )
    .await;
    let cap = CapTag::from_tag(&Tag::new(["cap", "tool:add", "1-5", "sats"])).unwrap();
    server.advertise(Advertisement::new(
        vec!["fake".parse().unwrap()],
        false,
        vec![cap],
    ));
    let mut announcement = Announcement::new();
    announcement.initialize = Some(raw(&serde_json::json!({"serverInfo": {"name": "x"}})).unwrap());
    announcement.tools = Some(raw(&serde_json::json!({"tools": []})).unwrap());
    announcement.prompts = Some(raw(&serde_json::json!({"prompts": []})).unwrap());
    server.announce(&announcement).await.unwrap();
    server.announce(&announcement).await.unwrap();
    server.publish_relay_list().await.unwrap();

    let names = |kind: u16| -> Vec<String> {
        relay.events_of(kind)[0]
            .tags
            .iter()
            .map(|tag| tag.as_slice()[0].clone())
            .collect()
    };
    assert_eq!(
        names(11316),
        [
            "name",
            "support_encryption",
            "support_encryption_ephemeral",
            "pmi",
            "support_oversized_transfer",
            "cap"
        ]
    );
    assert_eq!(names(11317), ["cap"]);
    assert_eq!(names(11320), [""; 0]);
    assert_eq!(names(10002), ["r"]);
    let times: Vec<_> = relay
        .events_of(11316)
        .iter()
        .map(|event| event.created_at)
        .collect();
    assert!(times[1] > times[0]);
    assert!(relay.events_of(11318).is_empty());
}

#[tokio::test]
async fn a_closed_transport_gives_out_what_it_has_and_still_sends() {
    let relay = FaultyRelay::start().await;
    let pair = pair(
        &[relay.url()],
        EncryptionMode::Optional,
        GiftWrapMode::Optional,
    )
    .await;
    pair.ask(&call(1)).await;
    pair.ask(&call(2)).await;
    let first = pair.heard().await;
    tokio::time::sleep(QUIET).await;
    pair.server.close().await;
    assert!(timeout(SOON, pair.server.recv()).await.unwrap().is_some());
    assert!(timeout(SOON, pair.server.recv()).await.unwrap().is_none());
    pair.server
        .send(&first.origin.reply_to, answer(&first))
        .await
        .unwrap();
    pair.got().await;
}

#[tokio::test]
async fn what_was_sent_last_survives_the_end() {
    let relay = FaultyRelay::start().await;
    for _ in 0..20 {
        let pair = pair(
            &[relay.url()],
            EncryptionMode::Disabled,
            GiftWrapMode::Optional,
        )
        .await;
        let prepared = pair.ask(&call(1)).await;
        pair.client.shutdown().await;
        assert_eq!(pair.heard().await.origin.event, prepared.event);
        assert!(pair.client.publish(&prepared).await.is_err());
    }
}

/// A call whose argument has so many bytes.
fn large_call(id: i64, bytes: usize) -> Message {
    let params = serde_json::json!({"name": "add", "text": "\"é".repeat(bytes / 3)});
    Request::new(id, "tools/call", &params).unwrap().into()
}

/// The answer to a call: its params again.
fn echo(to: &Inbound) -> Outbound {
    let Message::Request(request) = &to.message else {
        panic!("not a request")
    };
    Outbound::new(Response {
        id: request.id.clone(),
        payload: Payload::Result(request.params.clone().unwrap()),
    })
}

#[tokio::test]
async fn large_calls_and_answers_go_in_pieces_over_several_relays() {
    let relays = [FaultyRelay::start().await, FaultyRelay::start().await];
    relays[1].set(|faults| faults.duplicates = 1);
    let urls = relays.each_ref().map(FaultyRelay::url);
    // More than fits, in the clear and encrypted.
    for (encryption, bytes) in [
        (EncryptionMode::Disabled, 270_000),
        (EncryptionMode::Required, 75_000),
    ] {
        let pair = pair(&urls, encryption, GiftWrapMode::Optional).await;
        // The server has not introduced itself at the first, so it is asked whether it takes pieces.
        for n in 1..=2 {
            let asked = large_call(n, bytes);
            let (prepared, heard) = tokio::join!(pair.ask(&asked), pair.heard());
            assert_eq!(heard.origin.event, prepared.event);
            let Message::Request(request) = &heard.message else {
                panic!("not a request")
            };
            assert!(request.params.as_ref().unwrap().get().len() > bytes);
            pair.server
                .send(&heard.origin.reply_to, echo(&heard))
                .await
                .unwrap();
            let got = pair.got().await;
            assert_eq!(got.in_reply_to, Some(prepared.event));
            let Message::Response(response) = &got.message else {
                panic!("not an answer")
            };
            let params = request.params.as_ref().unwrap().get();
            assert_eq!(response.result().unwrap().get(), params);
            // What proves the whole is the start: it is signed, and has the digest.
            assert!(got.signed.contains("sha256:"));

            // Sent again, it is the same request.
            pair.client.publish(&prepared).await.unwrap();
            let again = pair.heard().await;
            assert_eq!(again.origin.event, prepared.event);
            assert!(again.origin.redelivered);
        }
        pair.nothing_heard().await;
    }
    for event in relays[0].events() {
        assert!(event.as_json().len() <= 48_000, "kind {}", event.kind);
    }
}

#[tokio::test]
async fn a_server_that_takes_no_pieces_is_sent_none() {
    let relay = FaultyRelay::start().await;
    let mut pair = pair(
        &[relay.url()],
        EncryptionMode::Optional,
        GiftWrapMode::Optional,
    )
    .await;
    pair.server = NostrServerTransport::builder(NostrKeys::generate())
        .relays([relay.url()])
        .oversized_transfer(false)
        .connect()
        .await
        .unwrap();
    pair.client = NostrClientTransport::builder(NostrKeys::generate(), pair.server.server())
        .relays([relay.url()])
        .connect()
        .await
        .unwrap();
    pair.ask(&call(1)).await;
    let heard = pair.heard().await;
    pair.server
        .send(&heard.origin.reply_to, answer(&heard))
        .await
        .unwrap();
    pair.got().await;
    let refused = pair
        .client
        .prepare(&large_call(2, 300_000), &Introduction::default())
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooLarge);
    // Nor is anything changed in what fits.
    pair.ask(&call(3)).await;
    let Message::Request(request) = pair.heard().await.message else {
        panic!("not a request")
    };
    assert!(!request.params.unwrap().get().contains("progressToken"));
}

/// N-34, N-35: what is published beside the messages, on the server's own relay and where it is looked for.
#[tokio::test]
async fn a_server_is_found_by_what_it_published_and_nobody_else_is_believed() {
    let (home, bootstrap) = (FaultyRelay::start().await, FaultyRelay::start().await);
    let keys = NostrKeys::generate();
    let raw_keys = Keys::parse(&keys.reveal_secret_hex()).unwrap();
    let server = NostrServerTransport::builder(keys)
        .relays([home.url()])
        .bootstrap_relays([bootstrap.url()])
        .server_info(ServerInfo::new(Some("Test".into()), None, None, None))
        .connect()
        .await
        .unwrap();
    server.publish_relay_list().await.unwrap();
    let profile: Profile = serde_json::from_str(r#"{"nip05":"a@example.com"}"#).unwrap();
    let info = ServerInfo::new(Some("Test".into()), None, None, None);
    server.publish_profile(&profile.or(&info)).await.unwrap();
    let mut announcement = Announcement::new();
    announcement.initialize = Some(raw(&serde_json::json!({"serverInfo": {}})).unwrap());
    announcement.tools = Some(raw(&serde_json::json!({"tools": []})).unwrap());
    server.announce(&announcement).await.unwrap();
    for relay in [&home, &bootstrap] {
        let kind = async |kind: u16| {
            let published = relay.wait_for(SOON, |event| event.kind.as_u16() == kind);
            published.await.expect("it is published")
        };
        assert_eq!(kind(10002).await.content, "");
        assert_eq!(
            kind(0).await.content,
            r#"{"name":"Test","nip05":"a@example.com"}"#
        );
        kind(11317).await;
    }
    assert_eq!(bootstrap.subscriptions(), 0, "nothing is listened to there");

    // Somebody says that he is the server, and something else.
    let later = nostr_sdk::Timestamp::from(nostr_sdk::Timestamp::now().as_secs() + 10);
    let mut forged = EventBuilder::new(Kind::from(10002), "")
        .tag(NostrTag::parse(["r", "ws://evil"]).unwrap())
        .custom_created_at(later)
        .sign_with_keys(&Keys::generate())
        .unwrap();
    forged.pubkey = raw_keys.public_key();
    bootstrap.keep(&forged);
    let urls = [bootstrap.url()];
    let found = find_relays(&server.server(), &urls, SOON).await.unwrap();
    assert_eq!(found, [home.url()]);
    let found = discover(&urls, SOON).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].server.to_string(), raw_keys.public_key().to_hex());
    assert_eq!(found[0].lists.len(), 1);
    let stranger = NostrKeys::generate().server_pubkey();
    assert!(
        find_relays(&stranger, &urls, SOON)
            .await
            .unwrap()
            .is_empty()
    );
}

/// A relay that wants to know who asks (NIP-42), as the only one.
#[tokio::test]
async fn a_relay_that_asks_who_is_there_is_told() {
    let relay = FaultyRelay::start().await;
    relay.set(|faults| faults.require_auth = true);
    for encryption in [EncryptionMode::Disabled, EncryptionMode::Required] {
        let pair = pair(&[relay.url()], encryption, GiftWrapMode::Optional).await;
        goes_there_and_back(&pair, 1).await;
    }
}

async fn goes_there_and_back(pair: &Pair, n: i64) {
    let prepared = pair.ask(&call(n)).await;
    let mut heard = pair.heard().await;
    while heard.origin.redelivered {
        heard = pair.heard().await;
    }
    assert_eq!(heard.origin.event, prepared.event);
    pair.server
        .send(&heard.origin.reply_to, answer(&heard))
        .await
        .unwrap();
    assert_eq!(pair.got().await.in_reply_to, Some(prepared.event));
}

/// One relay of two is as bad as relays can be; every call is heard once and answered once, through the other one.
#[tokio::test]
async fn a_hostile_relay_beside_a_good_one_changes_nothing() {
    type Fault = fn(&mut faulty_relay::Faults);
    let faults: [(&str, Fault); 9] = [
        ("refuses", |f| {
            f.answer = Answer::Refuse("blocked: no".into())
        }),
        ("is too small", |f| {
            f.answer = Answer::Refuse("invalid: event too large".into());
        }),
        ("limits the rate", |f| {
            f.answer = Answer::Refuse("rate-limited: slow down".into());
        }),
        ("says nothing", |f| f.answer = Answer::Silence),
        ("loses everything", |f| f.drop_all(|_| true)),
        ("repeats everything", |f| f.duplicates = 3),
        ("is late", |f| f.delay = Duration::from_millis(400)),
        ("lies", |f| f.corrupt_first = true),
        ("closes subscriptions", |f| {
            f.close_subscriptions = Some((usize::MAX, "error: shutting down".into()));
        }),
    ];
    for (what, fault) in faults {
        let (bad, good) = (FaultyRelay::start().await, FaultyRelay::start().await);
        let urls = [bad.url(), good.url()];
        let pair = pair(&urls, EncryptionMode::Optional, GiftWrapMode::Optional).await;
        // Both must be subscribed to, else there is nothing to compare.
        good.subscribed(2).await;
        bad.set(fault);
        for n in 1..=3 {
            let done = timeout(SOON, goes_there_and_back(&pair, n));
            done.await.unwrap_or_else(|_| panic!("a relay that {what}"));
        }
        // What the other relay brings later is the same.
        tokio::time::sleep(QUIET * 2).await;
        assert!(
            timeout(QUIET, pair.client.recv()).await.is_err(),
            "{what}: answered twice"
        );
        while let Ok(heard) = timeout(QUIET, pair.server.recv()).await {
            // A relay that repeats what was published once looks like an author who repeats it; the gate knows the event.
            assert!(heard.unwrap().origin.redelivered, "{what}");
        }
    }
}

/// Its connections last for nothing: it is tried again, ever less often, and used as soon as it behaves.
#[tokio::test]
async fn a_relay_that_comes_and_goes_is_used_while_it_is_there() {
    let relay = FaultyRelay::start().await;
    let pair = pair(
        &[relay.url()],
        EncryptionMode::Optional,
        GiftWrapMode::Optional,
    )
    .await;
    for n in 1..=2 {
        relay.disconnect_all();
        goes_there_and_back(&pair, n).await;
        assert_eq!(
            pair.client.relay_health(SOON).await,
            [(relay.url(), "ready")]
        );
    }
    relay.set(|faults| faults.refuse_for(Duration::from_secs(3600)));
    relay.disconnect_all();
    let health = pair.client.relay_health(Duration::ZERO).await;
    let (_, state) = &health[0];
    assert!(["ready", "down"].contains(state), "{health:?}");
    timeout(SOON, async {
        while pair.client.relay_health(Duration::ZERO).await[0].1 != "down" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
}
