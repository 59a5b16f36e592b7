//! The feed of revocations and remote verification of our own licences over HTTP, in the shapes that verifiers of such licences
//! expect. Plain HTTP on an address of your choice: put what terminates TLS in front of it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::exit::{Failure, Outcome};
use super::own_licences::OwnLicences;
use crate::entitlement::licence::{Issuer, LicenceError, rfc3339};
use crate::error::Result;
use crate::payment::{BearerToken, Clock, SystemClock};

/// Connections that are served at a time; further ones wait in the queue of the system.
const AT_ONCE: usize = 64;
/// The longest question.
const LONGEST: usize = 16 * 1024;
/// How long a connection may take to ask.
const PATIENCE: Duration = Duration::from_secs(10);
/// Revocations on one page.
const PAGE: usize = 1000;

/// What is served.
#[derive(Debug)]
struct Desk {
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
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::usage(format!("licence_http: cannot listen on {address}: {error}"))
    })?;
    let bound = listener
        .local_addr()
        .map_err(|error| Failure::failed(format!("licence_http: {error}")))?;
    let desk = Arc::new(Desk { own, issuer });
    tokio::spawn(async move {
        stop.run_until_cancelled(accept(listener, desk)).await;
    });
    Ok(bound)
}

async fn accept(listener: TcpListener, desk: Arc<Desk>) {
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
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let desk = Arc::clone(&desk);
                async move { Ok::<_, Infallible>(desk.answer(request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection about licences broke");
            }
            drop(permit);
        });
    }
}

impl Desk {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().trim_end_matches('/').to_owned();
        let answered = match (request.method(), path.as_str()) {
            (&Method::GET, "/api/mcp/licenses/revoked") => {
                self.revoked(request.uri().query().unwrap_or_default())
                    .await
            }
            (&Method::POST, "/api/mcp/licenses/verify") => Ok(self.verify(request).await),
            _ => Ok((StatusCode::NOT_FOUND, json!({ "error": "not_found" }))),
        };
        let (status, body) = answered.unwrap_or_else(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the feed of revocations cannot be served"
            );
            let body = json!({ "error": "unavailable" });
            (StatusCode::SERVICE_UNAVAILABLE, body)
        });
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let json = hyper::header::HeaderValue::from_static("application/json");
        headers.insert(CONTENT_TYPE, json);
        let fresh = hyper::header::HeaderValue::from_static("no-store");
        headers.insert(CACHE_CONTROL, fresh);
        response
    }

    /// A page of the feed. `since` is a cursor of ours; a moment, with which every reader begins, means from the beginning.
    async fn revoked(&self, query: &str) -> Result<(StatusCode, Value)> {
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

    async fn verify(&self, request: Request<Incoming>) -> (StatusCode, Value) {
        let body = Limited::new(request.into_body(), LONGEST).collect();
        let Ok(Ok(body)) = tokio::time::timeout(PATIENCE, body).await else {
            return (StatusCode::BAD_REQUEST, json!({ "error": "bad_request" }));
        };
        let Ok(Question { token, server_id }) = serde_json::from_slice(&body.to_bytes()) else {
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
