//! Who is it? What a request shows, in the order of how much it proves.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};

use super::super::identity::KnownBy;
use super::Shared;
use super::session::Session;
use crate::payment::{BearerToken, ClientPubkey};

/// The shortest secret that a client is known by, in characters: strangers must not choose the same.
const SECRET: usize = 16;

/// The header that carries a session's id.
pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// The header by which a client names a request, so that it is the same when it is sent again.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The longest such name.
const LONGEST_KEY: usize = 255;

/// Who makes a request.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) client: ClientPubkey,
    /// It is the same client in every session.
    pub(super) vouched_for: bool,
    /// What it presents.
    pub(super) tokens: Vec<BearerToken>,
    pub(super) session: Option<Session>,
    /// How it names the request.
    pub(super) request_name: Option<Vec<u8>>,
}

impl Shared {
    /// Who makes a request with these headers; `None` if it names a session that is not there.
    ///
    /// A client is known by what a proxy has verified; else by the secret that it shows, which is the same in every session; else by its
    /// session. One that shows nothing at all is somebody new each time: it can only use what a credential of its own proves.
    pub(super) fn caller(&self, peer: IpAddr, headers: &HeaderMap) -> Option<Caller> {
        let session = match headers.get(SESSION) {
            None => None,
            Some(id) => Some(self.sessions.find(id.to_str().ok()?)?),
        };
        Some(self.known(peer, headers, session))
    }

    pub(super) fn known(
        &self,
        peer: IpAddr,
        headers: &HeaderMap,
        session: Option<Session>,
    ) -> Caller {
        let bearer = bearer(headers);
        let header = self.settings.identity_header.as_ref();
        let verified = header
            .filter(|_| self.settings.trusts(peer))
            .and_then(|name| only(headers, name));
        let secret = bearer.as_ref().filter(|it| it.reveal().len() >= SECRET);
        let client = if let Some(name) = verified {
            self.key.client(KnownBy::Proxy, name)
        } else if let Some(secret) = secret {
            self.key.client(KnownBy::Bearer, secret.reveal().as_bytes())
        } else if let Some(session) = &session {
            self.key.client(KnownBy::Session, session.name())
        } else {
            self.key.client(KnownBy::Nothing, &self.fresh.number())
        };
        Caller {
            client,
            vouched_for: verified.is_some() || secret.is_some(),
            tokens: bearer.into_iter().collect(),
            session,
            request_name: only(headers, IDEMPOTENCY_KEY.as_str())
                .filter(|name| name.len() <= LONGEST_KEY)
                .map(<[u8]>::to_vec),
        }
    }
}

/// What a header holds that is there once: a proxy that appends to what its client sent must not let it pose as another.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let only = values.next().map(HeaderValue::as_bytes)?;
    (values.next().is_none() && !only.is_empty()).then_some(only)
}

fn bearer(headers: &HeaderMap) -> Option<BearerToken> {
    let shown = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = shown.split_once(' ')?;
    let bearer = scheme.eq_ignore_ascii_case("bearer");
    bearer.then(|| BearerToken::new(token.trim())).flatten()
}
