//! The hot path in pieces, each of which can be repeated alone: on one thread, with fixed keys, over the memory transport.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use nostr::{EventBuilder, JsonUtil, Keys, Kind, SecretKey, Tag};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tollkeeper::gate::PriceList;
use tollkeeper::ledger::{Applied, Ledger, MemoryLedger, NewEntry, OpenLimits, Opened, Transition};
use tollkeeper::payment::{
    Clock, InvocationIdentity, PayReq, PaymentInteraction, PaymentRequest, PriceDecision,
    PricedCapability, Quote, Settlement, SystemClock,
};
use tollkeeper::rails::fake::FakeProcessor;
use tollkeeper::server::{PaidServer, ServerPayments, with_server_payments};
use tollkeeper::transport::memory::{self, MemoryClient};
use tollkeeper::transport::nostr::{NostrKeys, read_frame};
use tollkeeper::transport::{ClientTransport, Introduction, Outbound, ServerTransport};
use tollkeeper::wire::{
    Message, Payload, Request, Response, invocation_identity, parse_strict, raw,
};
use tollkeeper::{ClientPubkey, Error, Invocation, RequestEventId};

/// What can be repeated.
pub(crate) const PIECES: [&str; 9] = [
    "parse",
    "identity",
    "match",
    "ledger",
    "free_call",
    "waived_call",
    "paid_call",
    "plain_frame",
    "wrapped_frame",
];

const PARAMS: &str = r#"{"name":"paid","arguments":{"text":"a sentence of ordinary length","n":12,"deep":{"a":[1,2,3]}}}"#;

/// Everything that the pieces need.
pub(crate) struct Pieces {
    runtime: Runtime,
}

impl Pieces {
    pub(crate) fn new() -> Self {
        // The clock stands still: no timer of the gate goes off in between.
        let runtime = Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime");
        Self { runtime }
    }

    /// Does `piece` so many times.
    pub(crate) fn run(&self, piece: &str, times: usize) {
        match piece {
            "parse" => parse(times),
            "identity" => identity(times),
            "match" => match_price(times),
            "ledger" => self.runtime.block_on(ledger(times)),
            "free_call" => self.calls("free", times),
            "waived_call" => self.calls("waived", times),
            "paid_call" => self.calls("paid", times),
            "plain_frame" => frames(times, false),
            "wrapped_frame" => frames(times, true),
            other => panic!("{other}: not one of {PIECES:?}"),
        }
    }

    fn calls(&self, tool: &str, times: usize) {
        self.runtime.block_on(async {
            let (server, client) = shop().await;
            for n in 0..times {
                round_trip(&client, &server, tool, n as i64).await;
            }
        });
    }
}

fn parse(times: usize) {
    let text = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{PARAMS}}}"#);
    for _ in 0..times {
        let message = Message::parse(black_box(&text)).expect("a message");
        black_box(message.to_json());
    }
}

fn identity(times: usize) {
    for _ in 0..times {
        let params = parse_strict(black_box(PARAMS)).expect("params");
        black_box(invocation_identity("tools/call", Some(&params)).expect("an identity"));
    }
}

/// Half exact names, half patterns of different prefixes.
pub(crate) fn price_list(entries: usize) -> Vec<PricedCapability> {
    let entry = |n: usize| match n % 2 {
        0 => format!("tool:name_{n:06}=1 sat"),
        _ => format!("tool:prefix_{n:06}_*=1 sat"),
    };
    (0..entries)
        .map(|n| entry(n).parse().expect("a price"))
        .collect()
}

fn match_price(times: usize) {
    let list = PriceList::new(price_list(1000)).expect("a list");
    for _ in 0..times {
        for name in ["name_000004", "prefix_000005_x", "something_else_entirely"] {
            black_box(list.find("tools/call", Some(black_box(name))));
        }
    }
}

/// The steps of a paid call, on the books in memory.
async fn ledger(times: usize) {
    let books = MemoryLedger::new();
    for n in 0..times {
        let new = entry(n);
        let (id, at) = (new.id, new.quoted_at);
        let opened = books.open(new, OpenLimits::new(1000, 1000)).await;
        assert!(matches!(opened, Ok(Opened::New(_))));
        let payment_request = PaymentRequest::new(
            "fake".parse().expect("an identifier"),
            "7 sats".parse().expect("an amount"),
            PayReq::new("fake:x"),
            n.to_string(),
        );
        let watch_until = at.plus(Duration::from_secs(7200));
        let steps = [
            vec![Transition::Issue {
                payment_request,
                watch_until,
            }],
            vec![
                Transition::Settle(Settlement::new("7 sats".parse().expect("an amount"), "x")),
                Transition::Claim { by: id },
            ],
            vec![Transition::Deliver {
                response: Some("{}".to_owned()),
            }],
        ];
        for step in steps {
            let applied = books.apply(&id, step, at).await;
            assert!(matches!(applied, Ok(Applied::Moved(_))));
        }
    }
}

fn entry(n: usize) -> NewEntry {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(n as u64).to_be_bytes());
    let now = SystemClock.now();
    NewEntry {
        id: RequestEventId::from_bytes(id),
        client: ClientPubkey::from_bytes([1; 32]),
        identity: InvocationIdentity::from_bytes(id),
        capability: "tool:paid".to_owned(),
        interaction: PaymentInteraction::Transparent,
        pmi: "fake".parse().expect("an identifier"),
        amount: "7 sats".parse().expect("an amount"),
        description: "tool:paid".to_owned(),
        meta: None,
        request: Some(PARAMS.to_owned()),
        route: "plain".to_owned(),
        deadline: now.plus(Duration::from_secs(600)),
        quoted_at: now,
    }
}

/// A gate with a free, a waived and a paid tool, and a client.
pub(crate) async fn shop() -> (Arc<PaidServer>, Arc<MemoryClient>) {
    let (transport, client) = memory::pair();
    let price = |invocation: Invocation, _: PricedCapability| async move {
        let waived = invocation.name.as_deref() == Some("waived");
        Ok::<_, Error>(match waived {
            true => PriceDecision::Waive,
            false => PriceDecision::Quote(Quote::new("7 sats".parse()?)),
        })
    };
    let payments = ServerPayments::builder()
        .prices(["tool:paid=7 sat", "tool:waived=7 sat"].map(|p| p.parse().expect("a price")))
        .resolve_price(price)
        .processor(FakeProcessor::new())
        .settings(|settings| settings.offers_per_minute = 10_000_000)
        .build()
        .expect("payments");
    let server = with_server_payments(transport as Arc<dyn ServerTransport>, payments)
        .await
        .expect("a server");
    (server, client)
}

/// One call, executed and answered.
pub(crate) async fn round_trip(
    client: &MemoryClient,
    server: &Arc<PaidServer>,
    tool: &str,
    n: i64,
) {
    let params =
        json!({ "name": tool, "arguments": { "text": "a sentence of ordinary length", "n": n } });
    let request = Request::new(n, "tools/call", &params).expect("a request");
    let prepared = client
        .prepare(&request.into(), &Introduction::default())
        .await
        .expect("prepared");
    client.publish(&prepared).await.expect("published");
    let inbound = server.recv().await.expect("a request");
    let Message::Request(request) = inbound.message else {
        panic!("not a request")
    };
    let response = Response {
        id: request.id,
        payload: Payload::Result(raw(&1).expect("json")),
    };
    server
        .send(&inbound.origin.reply_to, Outbound::new(response))
        .await
        .expect("sent");
    loop {
        if let Message::Response(response) = client.recv().await.expect("an answer").message {
            assert!(response.result().is_some(), "{response:?}");
            return;
        }
    }
}

/// A frame of a relay, to the message in it: verified, and decrypted.
fn frames(times: usize, wrapped: bool) {
    let secret = |n: u8| SecretKey::from_slice(&[n; 32]).expect("a key");
    let (client, server) = (Keys::new(secret(1)), Keys::new(secret(2)));
    let own = NostrKeys::parse(&server.secret_key().to_secret_hex()).expect("a key");
    let text = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{PARAMS}}}"#);
    let event = EventBuilder::new(Kind::from(25910), text)
        .tag(Tag::public_key(server.public_key()))
        .sign_with_keys(&client)
        .expect("a signature");
    let carrier = if wrapped {
        let once = Keys::new(secret(3));
        let content = nostr::nips::nip44::encrypt(
            once.secret_key(),
            &server.public_key(),
            event.as_json(),
            nostr::nips::nip44::Version::V2,
        );
        EventBuilder::new(Kind::from(21059), content.expect("encrypted"))
            .tag(Tag::public_key(server.public_key()))
            .sign_with_keys(&once)
            .expect("a signature")
    } else {
        event
    };
    let frame = format!(r#"["EVENT","tollkeeper",{}]"#, carrier.as_json());
    for _ in 0..times {
        assert!(black_box(read_frame(&own, black_box(&frame))).is_some());
    }
}
