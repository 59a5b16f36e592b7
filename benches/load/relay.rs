//! The relay of the load program: it passes on what is asked for by a `p` tag, and does nothing else.
//!
//! It verifies and keeps nothing, so that the cores are left to what is measured, and it turns Nagle's algorithm off,
//! which would otherwise be all that is measured. Both servers of a comparison are reached over the same one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::process::{ready, until_stdin_ends};

type Line = mpsc::UnboundedSender<String>;

/// Who asked for what: by recipient, the subscriptions, each with the connection that made it.
#[derive(Default)]
struct Board {
    wanted: HashMap<String, Vec<(u64, String, Line)>>,
    connections: u64,
}

#[derive(Deserialize)]
struct Head<'a> {
    id: &'a str,
    tags: Vec<Vec<String>>,
}

/// Serves until standard input ends.
pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        ready(&json!({ "event": "ready", "url": format!("ws://{address}") }));
        let board = Rc::new(RefCell::new(Board::default()));
        let accept = async {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                let _ = stream.set_nodelay(true);
                tokio::task::spawn_local(connection(stream, Rc::clone(&board)));
            }
        };
        tokio::select! {
            () = accept => {}
            () = until_stdin_ends() => {}
        }
    });
}

async fn connection(stream: TcpStream, board: Rc<RefCell<Board>>) {
    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else {
        return;
    };
    let number = {
        let mut board = board.borrow_mut();
        board.connections += 1;
        board.connections
    };
    let (sink, mut frames) = socket.split();
    let (line, lines) = mpsc::unbounded_channel();
    tokio::task::spawn_local(write(sink, lines));
    while let Some(Ok(frame)) = frames.next().await {
        if let Frame::Text(text) = frame {
            take(&text, number, &line, &board);
        }
    }
    for subscribers in board.borrow_mut().wanted.values_mut() {
        subscribers.retain(|(of, ..)| *of != number);
    }
}

/// Writes what there is with one flush.
async fn write(
    mut sink: SplitSink<WebSocketStream<TcpStream>, Frame>,
    mut lines: mpsc::UnboundedReceiver<String>,
) {
    while let Some(line) = lines.recv().await {
        let mut next = Some(line);
        while let Some(line) = next {
            if sink.feed(Frame::text(line)).await.is_err() {
                return;
            }
            next = lines.try_recv().ok();
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
}

fn take(text: &str, number: u64, line: &Line, board: &RefCell<Board>) {
    let Ok(parts) = serde_json::from_str::<Vec<&RawValue>>(text) else {
        return;
    };
    match parts.as_slice() {
        [word, event] if word.get() == "\"EVENT\"" => {
            let Ok(head) = serde_json::from_str::<Head<'_>>(event.get()) else {
                return;
            };
            let recipients = head.tags.iter().filter_map(|tag| match tag.as_slice() {
                [name, value, ..] if name == "p" => Some(value),
                _ => None,
            });
            let board = board.borrow();
            for (_, subscription, to) in recipients.filter_map(|to| board.wanted.get(to)).flatten()
            {
                let _ = to.send(format!("[\"EVENT\",{subscription},{}]", event.get()));
            }
            let _ = line.send(format!("[\"OK\",\"{}\",true,\"\"]", head.id));
        }
        [word, subscription, filters @ ..] if word.get() == "\"REQ\"" => {
            let mut board = board.borrow_mut();
            for filter in filters {
                let filter: Value = serde_json::from_str(filter.get()).unwrap_or_default();
                for recipient in filter["#p"].as_array().into_iter().flatten() {
                    let recipient = recipient.as_str().unwrap_or_default().to_owned();
                    let subscribers = board.wanted.entry(recipient).or_default();
                    let known = subscribers
                        .iter()
                        .any(|(of, name, _)| *of == number && name == subscription.get());
                    if !known {
                        subscribers.push((number, subscription.get().to_owned(), line.clone()));
                    }
                }
            }
            let _ = line.send(format!("[\"EOSE\",{}]", subscription.get()));
        }
        [word, subscription] if word.get() == "\"CLOSE\"" => {
            for subscribers in board.borrow_mut().wanted.values_mut() {
                subscribers.retain(|(of, name, _)| *of != number || name != subscription.get());
            }
        }
        _ => {}
    }
}
