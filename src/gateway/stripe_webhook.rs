//! Where Stripe's webhooks arrive: signed, written down, answered; acted upon after that. Plain HTTP on an address of your
//! choice: put what terminates TLS in front of it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::exit::{Failure, Outcome};
use crate::entitlement::stripe::Desk;
use crate::payment::{Clock, SystemClock};
use crate::rails::stripe::{WebhookEvent, WebhookSecrets};

/// Where Stripe is told to send them.
const PATH: &str = "/stripe/webhooks";
/// Connections that are served at a time; further ones wait in the queue of the system.
const AT_ONCE: usize = 64;
/// The longest event: an invoice with many lines.
const LONGEST: usize = 1024 * 1024;
/// How long a connection may take to say something.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may live: whoever sends one byte a second must not keep a place.
const LIFETIME: Duration = Duration::from_secs(60);

/// What hears them.
struct Ear {
    secrets: Option<WebhookSecrets>,
    desk: Arc<Desk>,
}

/// Listens on `address`, and serves until `stop`.
pub(super) async fn serve(
    address: SocketAddr,
    secrets: Option<WebhookSecrets>,
    desk: Arc<Desk>,
    stop: CancellationToken,
) -> Outcome<SocketAddr> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::usage(format!(
            "--stripe-webhook: cannot listen on {address}: {error}"
        ))
    })?;
    let bound = listener
        .local_addr()
        .map_err(|error| Failure::failed(format!("--stripe-webhook: {error}")))?;
    let ear = Arc::new(Ear { secrets, desk });
    tokio::spawn(async move {
        stop.run_until_cancelled(accept(listener, ear)).await;
    });
    Ok(bound)
}

async fn accept(listener: TcpListener, ear: Arc<Ear>) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of sockets, say: it passes.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let ear = Arc::clone(&ear);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let ear = Arc::clone(&ear);
                async move { Ok::<_, Infallible>(ear.answer(request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            // Cut off in the middle of an event, Stripe sends it again.
            let _ = tokio::time::timeout(LIFETIME, connection).await;
            drop(permit);
        });
    }
}

impl Ear {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (status, body) = self.hear(request).await;
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = status;
        let json = hyper::header::HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response
    }

    async fn hear(&self, request: Request<Incoming>) -> (StatusCode, Value) {
        if request.uri().path() != PATH {
            return (StatusCode::NOT_FOUND, json!({ "error": "not_found" }));
        }
        if request.method() != Method::POST {
            let body = json!({ "error": "method_not_allowed" });
            return (StatusCode::METHOD_NOT_ALLOWED, body);
        }
        // Without a secret nobody can tell who sends this.
        let Some(secrets) = &self.secrets else {
            return (
                StatusCode::SERVICE_UNAVAILABLE,
                json!({ "error": "no_secret" }),
            );
        };
        let refused = |why: &str| {
            tracing::warn!(why, "a webhook is refused");
            let body = json!({ "error": format!("Webhook Error: {why}") });
            (StatusCode::BAD_REQUEST, body)
        };
        let header = request.headers().get("stripe-signature");
        let header = header
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        if header.is_none() {
            return refused("there is no signature");
        }
        let body = Limited::new(request.into_body(), LONGEST).collect();
        let Ok(Ok(body)) = tokio::time::timeout(PATIENCE, body).await else {
            return refused("the body is too long, or does not come");
        };
        // The bytes as they came: what was parsed and written again has another signature.
        let body = body.to_bytes();
        if let Err(why) = secrets.verify(header.as_deref(), &body, SystemClock.now()) {
            return refused(why);
        }
        let received = (StatusCode::OK, json!({ "received": true }));
        let event = match WebhookEvent::parse(&body) {
            Ok(Some(event)) => event,
            Ok(None) => return received,
            Err(why) => return refused(why),
        };
        match self.desk.take_in(event).await {
            Ok(()) => received,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a webhook could not be written down; Stripe sends it again"
                );
                let body = json!({ "error": "unavailable" });
                (StatusCode::INTERNAL_SERVER_ERROR, body)
            }
        }
    }
}
