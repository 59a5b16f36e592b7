//! What clients present: taken out of each message at the door, and remembered for the session if it came with
//! `initialize`, because many clients can add to that and to nothing else.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::journal::is_fresh;
use crate::payment::{BearerToken, ClientPubkey, Timestamp};
use crate::transport::Origin;
use crate::wire::mpp::take_credential;
use crate::wire::{DirectPayment, Request, method, take_tokens};

/// The most sessions that are remembered. Whoever comes beyond that presents a token with each call.
const MOST: usize = 10_000;

/// How long a session without a call is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Default)]
pub(super) struct Presented {
    sessions: Mutex<HashMap<ClientPubkey, (Timestamp, Vec<BearerToken>)>>,
}

/// What counts for one request.
#[derive(Clone, Default)]
pub(super) struct Shown {
    pub(super) tokens: Vec<BearerToken>,
    /// Something was presented where others could read it.
    pub(super) exposed: bool,
    /// A proof of payment, as it came.
    pub(super) credential: Option<Value>,
    /// It came where others could read it.
    pub(super) credential_exposed: bool,
    /// Money that came along.
    pub(super) direct: Vec<DirectPayment>,
}

/// Leaves the credential out: it holds a proof of payment.
impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown")
            .field("tokens", &self.tokens.len())
            .field("credential", &self.credential.is_some())
            .finish_non_exhaustive()
    }
}

impl Presented {
    /// Takes what is presented out of `request` and its origin.
    pub(super) fn take(&self, request: &mut Request, origin: &mut Origin, now: Timestamp) -> Shown {
        let (params, mut tokens) = take_tokens(request.params.take());
        let (params, credential) = take_credential(params);
        request.params = params;
        tokens.append(&mut origin.tokens);
        tokens.truncate(BearerToken::MOST);
        let exposed = !tokens.is_empty() && !origin.confidential;
        if exposed {
            tracing::warn!(
                client_pubkey = origin.client.short(),
                "a licence was sent in the clear; it does not count, and should be revoked"
            );
            tokens.clear();
        }
        let begins = request.method == method::INITIALIZE;
        let genuine = !origin.redelivered && is_fresh(origin.created_at, now);
        if begins && genuine {
            self.remember(origin.client, &tokens, now);
        }
        if tokens.is_empty() && !begins {
            tokens = self.of_session(origin, now);
        }
        Shown {
            tokens,
            exposed,
            credential_exposed: credential.is_some() && !origin.confidential,
            credential,
            // Nobody behind the gate sees what was meant for it.
            direct: std::mem::take(&mut origin.direct_payments),
        }
    }

    fn remember(&self, client: ClientPubkey, tokens: &[BearerToken], now: Timestamp) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.is_empty() {
            sessions.remove(&client);
            return;
        }
        if sessions.len() >= MOST && !sessions.contains_key(&client) {
            sessions.retain(|_, (since, _)| now.since(*since) <= REMEMBERED_FOR / 2);
        }
        if sessions.len() < MOST || sessions.contains_key(&client) {
            sessions.insert(client, (now, tokens.to_vec()));
        }
    }

    fn of_session(&self, origin: &Origin, now: Timestamp) -> Vec<BearerToken> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        match sessions.get_mut(&origin.client) {
            Some((since, tokens)) if now.since(*since) <= REMEMBERED_FOR => {
                *since = now;
                tokens.clone()
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::payment::RequestEventId;

    const NOW: Timestamp = Timestamp::from_secs(10_000);

    fn take(presented: &Presented, method: &str, token: Option<&str>, origin: &Origin) -> Shown {
        let params = token.map_or(json!({}), |t| json!({"_meta": {"tollkeeper/licence": t}}));
        let mut request = Request::new(1, method, &params).unwrap();
        let shown = presented.take(&mut request, &mut origin.clone(), NOW);
        assert!(!request.params.unwrap().get().contains("licence"));
        shown
    }

    fn origin(n: u8, confidential: bool) -> Origin {
        let event = RequestEventId::from_bytes([n; 32]);
        let mut origin = Origin::new(ClientPubkey::from_bytes([n; 32]), event, NOW);
        origin.confidential = confidential;
        origin
    }

    #[test]
    fn what_came_with_initialize_counts_for_the_session_of_that_client() {
        let presented = Presented::default();
        let (a, b) = (origin(1, true), origin(2, true));
        take(&presented, "initialize", Some("x"), &a);
        assert_eq!(take(&presented, "tools/call", None, &a).tokens.len(), 1);
        assert_eq!(take(&presented, "tools/call", None, &b).tokens.len(), 0);
        let mut replay = a.clone();
        replay.redelivered = true;
        take(&presented, "initialize", None, &replay);
        assert_eq!(take(&presented, "tools/call", None, &a).tokens.len(), 1);
        take(&presented, "initialize", None, &a);
        assert_eq!(take(&presented, "tools/call", None, &a).tokens.len(), 0);
    }

    #[test]
    fn what_others_could_read_is_taken_out_and_does_not_count() {
        let presented = Presented::default();
        let shown = take(&presented, "initialize", Some("x"), &origin(1, false));
        assert!(shown.exposed && shown.tokens.is_empty());
        let shown = take(&presented, "tools/call", None, &origin(1, true));
        assert!(!shown.exposed && shown.tokens.is_empty());
    }
}
