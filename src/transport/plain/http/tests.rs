//! As clients and strangers use it, over real sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{HttpServerTransport, HttpSettings};
use crate::transport::plain::PlainKey;
use crate::transport::{Inbound, Outbound, ServerTransport};
use crate::wire::{ErrorObject, Message, Notification, Payload, Response, raw};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}"#;

async fn transport() -> Arc<HttpServerTransport> {
    let mut settings = HttpSettings::new(SocketAddr::from(([127, 0, 0, 1], 0)));
    settings.hosts = vec!["pay.example".to_owned()];
    settings.identity_header = Some("x-user".to_owned());
    let key = PlainKey::derived_from(b"test");
    HttpServerTransport::bind(settings, key).await.unwrap()
}

/// What came back.
#[derive(Debug)]
struct Said {
    status: u16,
    head: String,
    body: String,
}

impl Said {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

async fn begin(to: &HttpServerTransport, line: &str, headers: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to.address()).await.unwrap();
    let host = if headers.contains("host:") {
        ""
    } else {
        "host: localhost\r\n"
    };
    let head = format!(
        "{line} HTTP/1.1\r\n{host}connection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

async fn rest(mut stream: TcpStream) -> Said {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Said {
        status: head[9..12].parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

async fn ask(to: &HttpServerTransport, line: &str, headers: &str, body: &str) -> Said {
    rest(begin(to, line, headers, body).await).await
}

/// Answers the next request, and gives what it was.
async fn answer_one(transport: &HttpServerTransport) -> Inbound {
    let inbound = transport.recv().await.unwrap();
    answer(transport, &inbound, json!({ "ok": true }))
        .await
        .unwrap();
    inbound
}

async fn answer(
    transport: &HttpServerTransport,
    to: &Inbound,
    result: Value,
) -> crate::error::Result<()> {
    let Message::Request(request) = &to.message else {
        panic!("not a request")
    };
    let response = Response {
        id: request.id.clone(),
        payload: Payload::Result(raw(&result).unwrap()),
    };
    let outbound = Outbound::new(response);
    transport.send(&to.origin.reply_to, outbound).await
}

async fn post(transport: &HttpServerTransport, headers: &str, body: &str) -> (Said, Inbound) {
    tokio::join!(
        ask(transport, "POST /mcp", headers, body),
        answer_one(transport)
    )
}

async fn session(transport: &HttpServerTransport) -> String {
    let (said, _) = post(transport, "", INITIALIZE).await;
    said.header("mcp-session-id").unwrap().to_owned()
}

#[tokio::test]
async fn a_request_is_answered_on_its_connection() {
    let transport = transport().await;
    let (said, inbound) = post(&transport, "", PING).await;
    assert_eq!(said.status, 200);
    assert_eq!(said.header("content-type"), Some("application/json"));
    assert_eq!(
        serde_json::from_str::<Value>(&said.body).unwrap(),
        json!({ "jsonrpc": "2.0", "id": 1, "result": { "ok": true } })
    );
    let origin = &inbound.origin;
    assert!(origin.confidential && origin.answers_only && !origin.redelivered);
    let note = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let (said, _) = tokio::join!(ask(&transport, "POST /mcp", "", note), transport.recv());
    assert_eq!(said.status, 202);
}

#[tokio::test]
async fn what_is_not_for_us_is_refused_and_never_comes_in() {
    let transport = transport().await;
    let page = "origin: http://evil.example\r\n";
    let name = "host: evil.example\r\n";
    for (line, headers, body, status) in [
        ("POST /mcp", name, PING, 403),
        ("POST /mcp", page, PING, 403),
        ("POST /mcp", "origin: null\r\n", PING, 403),
        ("POST /other", "", PING, 404),
        ("PUT /mcp", "", PING, 405),
        ("POST /mcp", "", "nonsense", 400),
        ("POST /mcp", "", "[]", 400),
        ("POST /mcp", "accept: text/html\r\n", PING, 406),
        ("POST /mcp", "mcp-session-id: 00\r\n", PING, 404),
        ("GET /mcp", "accept: text/event-stream\r\n", "", 400),
        ("GET /mcp", "accept: application/json\r\n", "", 406),
        ("DELETE /mcp", "", "", 404),
    ] {
        let said = ask(&transport, line, headers, body).await;
        assert_eq!(said.status, status, "{line} {headers}: {said:?}");
        assert_eq!(said.header("access-control-allow-origin"), None);
    }
    let long = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#,
        "x".repeat(5 << 20)
    );
    let mut stream = TcpStream::connect(transport.address()).await.unwrap();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        long.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // It may hang up before it has read all of it.
    let _ = stream.write_all(long.as_bytes()).await;
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    assert!(text.is_empty() || text.starts_with(b"HTTP/1.1 413"));

    let ours = "host: pay.example\r\norigin: https://pay.example\r\n";
    let (said, inbound) = post(&transport, ours, PING).await;
    assert_eq!(said.status, 200);
    let allowed = said.header("access-control-allow-origin");
    assert_eq!(allowed, Some("https://pay.example"));
    // It is the first that came in.
    assert!(matches!(inbound.message, Message::Request(_)));
}

#[tokio::test]
async fn a_client_is_who_a_proxy_says_else_what_it_shows_else_its_session() {
    let transport = transport().await;
    let (one, other) = (session(&transport).await, session(&transport).await);
    let who = async |headers: &str| post(&transport, headers, PING).await.1.origin;
    let in_session = |id: &str| format!("mcp-session-id: {id}\r\n");

    let a = who(&in_session(&one)).await;
    assert_eq!(a.client, who(&in_session(&one)).await.client);
    assert_ne!(a.client, who(&in_session(&other)).await.client);
    assert_ne!(who("").await.client, who("").await.client);

    let bearer = "authorization: Bearer a-secret-of-its-own\r\n";
    let b = who(&(in_session(&one) + bearer)).await;
    assert_eq!(b.client, who(bearer).await.client);
    assert_ne!(b.client, a.client);
    assert_eq!(b.tokens[0].reveal(), "a-secret-of-its-own");
    // What belongs to a session belongs to whoever can prove its payment.
    assert!(a.bearer && !b.bearer);

    let ann = who(&format!("{bearer}x-user: ann\r\n")).await;
    assert_eq!(ann.client, who("X-User: ann\r\n").await.client);
    assert_ne!(ann.client, who("x-user: bob\r\n").await.client);
    assert_ne!(ann.client, b.client);
}

#[tokio::test]
async fn the_same_request_again_is_the_same_event_and_other_words_are_not() {
    let transport = transport().await;
    let id = format!("mcp-session-id: {}\r\n", session(&transport).await);
    let (_, first) = post(&transport, &id, PING).await;
    let (_, again) = post(&transport, &id, PING).await;
    assert_eq!(first.origin.event, again.origin.event);
    assert!(!first.origin.redelivered && again.origin.redelivered);
    let (_, other) = post(&transport, &id, &PING.replace("ping", "pong")).await;
    assert_ne!(first.origin.event, other.origin.event);
    let (_, next) = post(&transport, &id, &PING.replace(":1", ":2")).await;
    assert_ne!(first.origin.event, next.origin.event);
    // Without a session nothing tells a repetition from a second request.
    let (_, free) = post(&transport, "", PING).await;
    let (_, second) = post(&transport, "", PING).await;
    assert_ne!(free.origin.event, second.origin.event);
}

#[tokio::test]
async fn a_request_that_comes_again_meanwhile_is_executed_once() {
    let transport = transport().await;
    let id = format!("mcp-session-id: {}\r\n", session(&transport).await);
    let lost = begin(&transport, "POST /mcp", &id, PING).await;
    let inbound = transport.recv().await.unwrap();
    drop(lost);
    let again = begin(&transport, "POST /mcp", &id, PING).await;
    // It does not come in a second time.
    let nothing = tokio::time::timeout(Duration::from_millis(200), transport.recv()).await;
    assert!(nothing.is_err());
    answer(&transport, &inbound, json!({})).await.unwrap();
    assert_eq!(rest(again).await.status, 200);
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_is_not_delivered() {
    let transport = transport().await;
    let lost = begin(&transport, "POST /mcp", "", PING).await;
    let inbound = transport.recv().await.unwrap();
    drop(lost);
    // Until the connection is seen to be gone, an answer may still be taken for it.
    while transport.shared.exchanges.waits_for(&inbound.origin.event) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(answer(&transport, &inbound, json!({})).await.is_err());
}

#[tokio::test]
async fn what_comes_before_the_answer_makes_it_a_stream() {
    let transport = transport().await;
    let asked = begin(&transport, "POST /mcp", "", PING).await;
    let inbound = transport.recv().await.unwrap();
    let progress = Notification::new("notifications/progress", &json!({ "progress": 1 })).unwrap();
    let to = &inbound.origin.reply_to;
    let progress = Outbound::new(Message::from(progress));
    transport.send(to, progress.clone()).await.unwrap();
    let accepted = Notification::new("notifications/payment_accepted", &json!({})).unwrap();
    let accepted = Outbound::new(Message::from(accepted));
    transport.send(to, accepted).await.unwrap();
    answer(&transport, &inbound, json!({ "n": 1 }))
        .await
        .unwrap();
    let said = rest(asked).await;
    assert_eq!(said.header("content-type"), Some("text/event-stream"));
    let events: Vec<&str> = said
        .body
        .lines()
        .filter(|l| l.starts_with("data:"))
        .collect();
    assert_eq!(events.len(), 2, "{said:?}");
    assert!(events[0].contains("progress") && events[1].contains("result"));

    // A client that reads no streams gets the answer alone.
    let asked = begin(
        &transport,
        "POST /mcp",
        "accept: application/json\r\n",
        PING,
    )
    .await;
    let inbound = transport.recv().await.unwrap();
    transport
        .send(&inbound.origin.reply_to, progress)
        .await
        .unwrap();
    answer(&transport, &inbound, json!({})).await.unwrap();
    let said = rest(asked).await;
    assert_eq!(said.header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn listeners_hear_what_is_for_them_until_the_session_ends() {
    let transport = transport().await;
    let (one, other) = (session(&transport).await, session(&transport).await);
    let listen = |id: &str| format!("accept: text/event-stream\r\nmcp-session-id: {id}\r\n");
    let hears = begin(&transport, "GET /mcp", &listen(&one), "").await;
    let too = begin(&transport, "GET /mcp", &listen(&other), "").await;
    while transport.shared.listeners.count() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let head = format!("mcp-session-id: {one}\r\n");
    let client = post(&transport, &head, PING).await.1.origin.client;
    let changed = |what: &str| {
        let method = format!("notifications/{what}/list_changed");
        Message::from(Notification::new(&method, &json!({})).unwrap())
    };
    transport
        .notify(Some(&client), changed("tools"))
        .await
        .unwrap();
    transport.notify(None, changed("prompts")).await.unwrap();
    assert_eq!(ask(&transport, "DELETE /mcp", &head, "").await.status, 204);
    assert_eq!(ask(&transport, "POST /mcp", &head, PING).await.status, 404);
    let heard = rest(hears).await.body;
    assert!(
        heard.contains("tools") && heard.contains("prompts"),
        "{heard}"
    );
    transport.close().await;
    let heard = rest(too).await.body;
    assert!(
        !heard.contains("tools") && heard.contains("prompts"),
        "{heard}"
    );
    assert!(transport.recv().await.is_none());
}

#[tokio::test]
async fn a_missing_licence_has_the_status_that_verifiers_give_it() {
    let transport = transport().await;
    let asked = begin(&transport, "POST /mcp", "", PING).await;
    let inbound = transport.recv().await.unwrap();
    let data = json!({ "httpStatus": 401, "error": "invalid_token", "reason": "expired" });
    let error = ErrorObject::new(-32041, "Licence required").with_data(&data);
    let response = Response::from_error(1.into(), &error);
    let to = &inbound.origin.reply_to;
    transport.send(to, Outbound::new(response)).await.unwrap();
    let said = rest(asked).await;
    assert_eq!(said.status, 401);
    assert!(said.header("www-authenticate").is_some());
    assert_eq!(
        serde_json::from_str::<Value>(&said.body).unwrap(),
        json!({ "error": "invalid_token", "reason": "expired" })
    );
}
