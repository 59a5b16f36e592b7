//! The feed of revocations and remote verification of our own licences over HTTP, in the shapes that verifiers of such licences
//! expect. Plain HTTP on an address of your choice: put what terminates TLS in front of it.

use std::net::SocketAddr;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::exit::Outcome;
use super::http_desk::{self, Said};
use super::own_licences::OwnLicences;
use crate::entitlement::licence::{Issuer, LicenceError, rfc3339};
use crate::error::Result;
use crate::payment::{BearerToken, Clock, SystemClock};

/// The longest question.
const LONGEST: usize = 16 * 1024;
/// Revocations on one page.
const PAGE: usize = 1000;

/// What is served.
#[derive(Debug)]
struct LicenceDesk {
    own: OwnLicences,
    issuer: Issuer,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Question {
    token: String,
    server_id: Option<String>,
}

/// Listens on `address`, and serves until `stop`.
pub(super) async fn serve(
    address: SocketAddr,
    own: OwnLicences,
    issuer: Issuer,
    stop: CancellationToken,
) -> Outcome<SocketAddr> {
    http_desk::open("licence_http", address, LicenceDesk { own, issuer }, stop).await
}

impl http_desk::Desk for LicenceDesk {
    async fn answer(&self, request: Request<Incoming>) -> Said {
        let path = request.uri().path().trim_end_matches('/').to_owned();
        let answered = match (request.method(), path.as_str()) {
            (&Method::GET, "/api/mcp/licenses/revoked") => {
                self.revoked(request.uri().query().unwrap_or_default())
                    .await
            }
            (&Method::POST, "/api/mcp/licenses/verify") => Ok(self.verify(request).await),
            _ => Ok((StatusCode::NOT_FOUND, json!({ "error": "not_found" }))),
        };
        answered.unwrap_or_else(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the feed of revocations cannot be served"
            );
            let body = json!({ "error": "unavailable" });
            (StatusCode::SERVICE_UNAVAILABLE, body)
        })
    }
}

impl LicenceDesk {
    /// A page of the feed. `since` is a cursor of ours; a moment, with which every reader begins, means from the beginning.
    async fn revoked(&self, query: &str) -> Result<Said> {
        let field = |name: &str| {
            query
                .split('&')
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        };
        if field("serverId").is_some_and(|id| id != self.own.server_id) {
            return Ok((StatusCode::NOT_FOUND, json!({ "error": "server_mismatch" })));
        }
        let after = field("since").and_then(|since| since.parse().ok());
        let after: u64 = after.unwrap_or(0);
        let taken = self.own.books.taken_back(after, PAGE).await?;
        let last = taken
            .iter()
            .filter_map(|licence| licence.revoked)
            .next_back();
        let page: Vec<Value> = taken
            .iter()
            .map(|licence| {
                json!({
                    "id": licence.id,
                    "expiresAt": rfc3339(licence.expires_at),
                    "revokedAt": licence.revoked.map(|(at, _)| rfc3339(at)),
                })
            })
            .collect();
        let next = last.map_or(after, |(_, nth)| nth).to_string();
        let body = json!({ "revocations": page, "nextCursor": next });
        Ok((StatusCode::OK, body))
    }

    async fn verify(&self, request: Request<Incoming>) -> Said {
        let body = http_desk::body(request, LONGEST).await;
        let question = body.and_then(|body| serde_json::from_slice(&body).ok());
        let Some(Question { token, server_id }) = question else {
            return (StatusCode::BAD_REQUEST, json!({ "error": "bad_request" }));
        };
        let refused = |error: &LicenceError| {
            let mut body = error.to_json();
            body["ok"] = false.into();
            (StatusCode::OK, body)
        };
        if server_id.is_some_and(|id| id != self.own.server_id) {
            return refused(&LicenceError::ServerMismatch);
        }
        let Some(token) = BearerToken::new(&token) else {
            return refused(&LicenceError::MissingToken);
        };
        match self.issuer.verify_token(&token, SystemClock.now()).await {
            Ok(Ok(claims)) => (
                StatusCode::OK,
                json!({ "ok": true, "claims": claims.as_map() }),
            ),
            Ok(Err(error)) => refused(&error),
            Err(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                json!({ "ok": false, "error": "unavailable" }),
            ),
        }
    }
}
