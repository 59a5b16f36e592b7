//! Where Stripe's webhooks arrive: signed, written down, answered; acted upon after that. Plain HTTP on an address of your
//! choice: put what terminates TLS in front of it.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::exit::Outcome;
use super::http_desk::{self, Said};
use crate::entitlement::stripe::Desk;
use crate::payment::{Clock, SystemClock};
use crate::rails::stripe::{WebhookEvent, WebhookSecrets};

/// Where Stripe is told to send them.
const PATH: &str = "/stripe/webhooks";
/// The longest event: an invoice with many lines.
const LONGEST: usize = 1024 * 1024;

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
    let ear = Ear { secrets, desk };
    http_desk::open(
        "rails.stripe.webhook (--stripe-webhook)",
        address,
        ear,
        stop,
    )
    .await
}

impl http_desk::Desk for Ear {
    async fn answer(&self, request: Request<Incoming>) -> Said {
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
        // The bytes as they came: what was parsed and written again has another signature.
        let Some(body) = http_desk::body(request, LONGEST).await else {
            return refused("the body is too long, or does not come");
        };
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
