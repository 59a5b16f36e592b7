//! LNbits's websocket: one connection per wallet, on which it says what is paid. It is opened again whenever it ends.
//!
//! The invoice key is a part of its address. The handshake is therefore made here, on the HTTP client, which prints no
//! addresses, and not by the websocket library, which can write whole requests into a log.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use reqwest::header::{CONNECTION, UPGRADE};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::api::Api;
use super::config::ApiKey;
use super::error::ApiError;
use super::hints::{Hints, of_websocket};
use crate::rails::http::{HttpError, Upgraded};

const ACCEPT: &str = "sec-websocket-accept";
/// The longest message: a payment is a few kilobytes.
const LONGEST: usize = 256 * 1024;
/// How long opening may take.
const OPENING: Duration = Duration::from_secs(10);
/// How often a sign of life is asked for.
const PING: Duration = Duration::from_secs(30);
/// After how long a silence the connection counts as dead.
const SILENCE: Duration = Duration::from_secs(75);
/// How long until it is opened again, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Listens until it is dropped.
pub(super) async fn listen(api: Api, key: ApiKey, hints: Hints) {
    let mut pause = PAUSES.0;
    loop {
        match timeout(OPENING, open(&api, &key)).await {
            Ok(Ok(socket)) => {
                tracing::debug!(host = api.host(), "listening to LNbits");
                let opened = Instant::now();
                read(socket, &hints).await;
                if opened.elapsed() > PAUSES.1 {
                    pause = PAUSES.0;
                }
                tracing::debug!(host = api.host(), "LNbits ended the websocket");
            }
            Ok(Err(error)) => {
                tracing::debug!(host = api.host(), %error, "LNbits opens no websocket; payments are found by look-ups");
            }
            Err(_) => tracing::debug!(host = api.host(), "LNbits opens no websocket in time"),
        }
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(PAUSES.1);
    }
}

type Socket = WebSocketStream<Upgraded>;

async fn open(api: &Api, key: &ApiKey) -> Result<Socket, ApiError> {
    let nonce = generate_key();
    let request = api
        .http()
        .get(api.url(&["ws", key.reveal()]))
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", &nonce);
    let response = request
        .send()
        .await
        .map_err(|error| ApiError::Http(HttpError::of(error)))?;
    if response.status().as_u16() != 101 {
        return Err(ApiError::Status(response.status().as_u16(), String::new()));
    }
    let accepted = response.headers().get(ACCEPT);
    if accepted.map(|value| value.as_bytes())
        != Some(derive_accept_key(nonce.as_bytes()).as_bytes())
    {
        return Err(ApiError::Invalid(
            "it answers the websocket's handshake wrongly",
        ));
    }
    let stream = response
        .upgrade()
        .await
        .map_err(|error| ApiError::Http(HttpError::of(error)))?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(LONGEST))
        .max_frame_size(Some(LONGEST));
    Ok(WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await)
}

/// Reads until the connection ends or dies.
async fn read(mut socket: Socket, hints: &Hints) {
    let mut heard = Instant::now();
    let mut ping = tokio::time::interval_at(heard + PING, PING);
    loop {
        tokio::select! {
            next = socket.next() => {
                heard = Instant::now();
                match next {
                    Some(Ok(Message::Text(text))) => {
                        if let Some(hash) = of_websocket(&text) {
                            hints.may_be_paid(hash);
                        }
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    // The library answers pings by itself.
                    Some(Ok(_)) => {}
                }
            }
            _ = ping.tick() => {
                let sent = timeout(OPENING, socket.send(Message::Ping(Vec::new().into()))).await;
                if heard.elapsed() > SILENCE || !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
        }
    }
}
