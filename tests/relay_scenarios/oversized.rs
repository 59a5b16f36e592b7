//! Requests and results in pieces (CEP-22), paid for, with strangers beside them.

use nostr_sdk::prelude::{Event, Keys};
use serde_json::{Value, json};
use tollkeeper::wire::{FrameKind, Message, OversizedFrame, ProgressToken, oversized_digest};

use super::raw::{Heard, Raw, Via, tag};
use super::world::{PMI, World};

/// The frames of `text`, as a client signs them: what introduces it is on the first only.
fn frames(client: &mut Raw<'_>, token: &str, text: &str, pieces: usize) -> Vec<Event> {
    let chars: Vec<char> = text.chars().collect();
    let data: Vec<String> = chars
        .chunks(chars.len().div_ceil(pieces))
        .map(|piece| piece.iter().collect())
        .collect();
    let mut kinds = vec![FrameKind::Start {
        completion_mode: "render".into(),
        digest: oversized_digest(text),
        total_bytes: text.len() as u64,
        total_chunks: data.len() as u64,
    }];
    kinds.extend(data.into_iter().map(|data| FrameKind::Chunk { data }));
    kinds.push(FrameKind::End);
    let introduction = client.tags.clone();
    let events = (1..)
        .zip(kinds)
        .map(|(progress, kind)| {
            let event = frame(client, token, progress, kind);
            client.tags.clear();
            event
        })
        .collect();
    client.tags = introduction;
    events
}

fn frame(client: &Raw<'_>, token: &str, progress: u64, kind: FrameKind) -> Event {
    let frame = OversizedFrame::new(ProgressToken::new(token), progress, kind);
    client.sign(&Message::from(frame.to_notification().unwrap()).to_json())
}

fn call(id: &Value, tool: &str, token: &Value, bytes: usize) -> String {
    json!({
        "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": {
            "name": tool,
            "arguments": { "text": "x".repeat(bytes) },
            "_meta": { "progressToken": token },
        },
    })
    .to_string()
}

/// Waits for the end of the answer in pieces to `request`, as often as it was asked for, and puts it together. The tools
/// say what they were told, so that large requests have large answers.
async fn got(client: &Raw<'_>, request: &Event, times: usize) -> Value {
    let is = |heard: &Heard, kind: &str| heard.json["params"]["cvm"]["frameType"] == kind;
    client.wait(request, times, |heard| is(heard, "end")).await;
    let heard = client.about(request);
    let starts = heard.iter().rposition(|heard| is(heard, "start")).unwrap();
    let text: String = heard[starts..]
        .iter()
        .filter_map(|heard| heard.json["params"]["cvm"]["data"].as_str())
        .collect();
    serde_json::from_str(&text).unwrap()
}

/// N-6, N-117 to N-121, C-24
#[tokio::test]
async fn a_request_in_pieces_is_paid_for_like_any_other() {
    for via in Via::ALL {
        let world = World::start().await;
        let mut a = world.client(via).await;
        // The payment method is on the start only, as the reference SDK has it.
        let pieces = frames(
            &mut a,
            "7",
            &call(&json!("one"), "add", &json!(7), 50_000),
            4,
        );
        for piece in &pieces {
            a.send(piece).await;
        }
        let request = pieces.last().unwrap();
        let required = a.required(request).await;
        assert_eq!(required.offer()["pmi"], PMI);
        assert_eq!(world.tools.executions("add"), 0);
        a.pay(&required).await;
        assert_eq!(got(&a, request, 1).await["id"], "one");
        let executed = &world.tools.executions_of("add")[0];
        assert!(executed.params.len() > 50_000);
        assert!(executed.params.contains(r#""progressToken":7"#));
        let accept = a
            .heard()
            .into_iter()
            .find(|heard| heard.json["params"]["cvm"]["frameType"] == "accept")
            .unwrap();
        assert_eq!(accept.tag_names(), ["p"]);
        assert_eq!(accept.carrier, via.kind());
    }
}

/// N-121: the mode of the start counts as well.
#[tokio::test]
async fn d_31_a_request_in_pieces_is_gated_explicitly_if_its_start_says_so() {
    let world = World::start().await;
    let mut a = world.client(Via::Ephemeral).await.explicit();
    let text = call(&json!(1), "add", &json!("t"), 50_000);
    let pieces = frames(&mut a, "t", &text, 3);
    for piece in &pieces {
        a.send(piece).await;
    }
    let required = a.error(pieces.last().unwrap(), -32042).await;
    assert_eq!(
        required.tags("payment_interaction"),
        [["payment_interaction", "explicit_gating"]]
    );
    a.pay(&required).await;
    a.wait(pieces.last().unwrap(), 1, |heard| {
        heard.is("payment_accepted")
    })
    .await;
    // The same params under another token and in other pieces: the same call.
    let again = frames(&mut a, "u", &call(&json!(2), "add", &json!("u"), 50_000), 7);
    for piece in &again {
        a.send(piece).await;
    }
    got(&a, again.last().unwrap(), 1).await;
    assert_eq!(world.tools.executions("add"), 1);
}

/// N-66, N-67: sending all the frames again is sending the request again.
#[tokio::test]
async fn the_same_frames_again_are_the_same_request() {
    for via in [Via::Plain, Via::Ephemeral] {
        let world = World::start().await;
        let mut a = world.client(via).await;
        let pieces = frames(&mut a, "1", &call(&json!(1), "add", &json!(1), 50_000), 3);
        let request = pieces.last().unwrap();
        for piece in &pieces {
            a.send(piece).await;
        }
        let required = a.required(request).await;
        for piece in &pieces {
            a.send(piece).await;
        }
        let again = a
            .wait(request, 2, |heard| heard.is("payment_required"))
            .await;
        assert_eq!(required.pay_req(), again.pay_req());
        a.pay(&required).await;
        got(&a, request, 1).await;
        for piece in &pieces {
            a.send(piece).await;
        }
        got(&a, request, 2).await;
        assert_eq!(world.tools.executions("add"), 1);
        assert_eq!(world.entries().await.len(), 1);
    }
}

/// C-38
#[tokio::test]
async fn d_30_strangers_cannot_touch_or_crowd_out_a_transfer() {
    let world = World::start().await;
    let mut a = world.client(Via::Plain).await;
    let mut m = Raw::connect(&world, Keys::generate(), Via::Plain).await;
    let pieces = frames(&mut a, "5", &call(&json!(1), "free", &json!(5), 50_000), 3);
    a.send(&pieces[0]).await;
    for token in 0..64 {
        let start = frames(&mut m, &token.to_string(), &"y".repeat(1000), 2);
        m.send(&start[0]).await;
    }
    for kind in [
        FrameKind::Chunk { data: "z".into() },
        FrameKind::Abort { reason: None },
    ] {
        let stray = frame(&m, "5", 2, kind);
        m.send(&stray).await;
    }
    for piece in &pieces[1..] {
        a.send(piece).await;
    }
    got(&a, pieces.last().unwrap(), 1).await;
    assert_eq!(world.tools.executions("free"), 1);
}

/// N-119, C-32: a notification, a broken digest, a batch, and too much.
#[tokio::test]
async fn what_is_in_pieces_is_held_to_the_same_rules() {
    let world = World::start().await;
    let mut a = world.client(Via::Plain).await;
    let notification =
        json!({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "add"}}).to_string();
    let batch = format!("[{}]", call(&json!(1), "add", &json!(1), 10));
    for (token, text) in [("1", &notification), ("2", &batch)] {
        for piece in frames(&mut a, token, text, 2) {
            a.send(&piece).await;
        }
    }
    let text = call(&json!(1), "add", &json!(3), 10);
    let mut broken = frames(&mut a, "3", &text, 2);
    broken[1] = frame(
        &a,
        "3",
        2,
        FrameKind::Chunk {
            data: "?".repeat(text.len().div_ceil(2)),
        },
    );
    for piece in &broken {
        a.send(piece).await;
    }
    let huge = FrameKind::Start {
        completion_mode: "render".into(),
        digest: oversized_digest("x"),
        total_bytes: 1 << 40,
        total_chunks: 9000,
    };
    a.send(&frame(&a, "4", 1, huge)).await;
    world.quiet().await;
    assert_eq!(world.tools.executions("add"), 0);
    assert_eq!(world.entries().await.len(), 0);
    let told: Vec<Value> = a
        .heard()
        .iter()
        .filter(|heard| heard.json["params"]["cvm"]["frameType"] == "abort")
        .map(|heard| heard.json["params"]["progressToken"].clone())
        .collect();
    assert_eq!(told, ["3", "4"]);
}

/// N-122: the result comes in pieces to a client that says that it takes them, and has a token.
#[tokio::test]
async fn a_large_paid_result_comes_in_pieces_and_can_be_had_again() {
    for via in Via::ALL {
        let world = World::start().await;
        let mut a = world.client(via).await;
        a.tags.push(tag(&["support_oversized_transfer"]));
        let params = json!({ "name": "big", "arguments": {}, "_meta": { "progressToken": "t" } });
        let request = a.request(json!(1), "tools/call", params);
        a.send(&request).await;
        let required = a.required(&request).await;
        a.pay(&required).await;
        let result = got(&a, &request, 1).await;
        assert_eq!(result["id"], 1);
        let text = result["result"]["content"][0]["text"].as_str().unwrap();
        assert_eq!(text.len(), 400 * 1024);
        assert!(
            a.about(&request)
                .iter()
                .all(|heard| heard.carrier == via.kind() && heard.event.content.len() < 48_000)
        );
        // Lost on the way? The same event gets it again (T-22).
        a.send(&request).await;
        got(&a, &request, 2).await;
        assert_eq!(world.tools.executions("big"), 1);
    }
}

/// N-123: without leave to send pieces, what was paid for stays paid for.
#[tokio::test]
async fn a_large_result_without_a_token_gives_the_right_back() {
    let world = World::start().await;
    let mut a = world.client(Via::Plain).await;
    let big = |client: &Raw<'_>, id: i64, meta: Value| {
        let params = json!({ "name": "big", "arguments": {}, "_meta": meta });
        client.request(json!(id), "tools/call", params)
    };
    let lost = big(&a, 1, json!({}));
    a.send(&lost).await;
    let required = a.required(&lost).await;
    a.pay(&required).await;
    a.error(&lost, -32000).await;
    // The same call by a client that can take it costs nothing more.
    a.tags.push(tag(&["support_oversized_transfer"]));
    let again = big(&a, 2, json!({ "progressToken": 9 }));
    a.send(&again).await;
    assert_eq!(got(&a, &again, 1).await["id"], 2);
    assert_eq!(world.entries().await.len(), 1);
}
