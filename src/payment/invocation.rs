//! One call of a capability.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ClientPubkey, RequestEventId};

/// The canonical identity of an invocation (CEP-8): SHA-256 over the canonical JSON of method and params without
/// `_meta`. Together with the client's key it says "the same call again".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InvocationIdentity(RequestEventId);

impl InvocationIdentity {
    /// From the digest.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(RequestEventId::from_bytes(bytes))
    }

    /// The digest.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl fmt::Display for InvocationIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for InvocationIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InvocationIdentity({})", self.0.short())
    }
}

/// One priced request, as [`ResolvePrice`](super::ResolvePrice) sees it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Invocation {
    /// Who calls.
    pub client: ClientPubkey,
    /// The event that carried the request.
    pub event: RequestEventId,
    /// The MCP method.
    pub method: String,
    /// The tool, prompt or URI that the request names, as it was sent.
    pub name: Option<String>,
    /// The params; `null` if there were none.
    pub params: Value,
    /// The same call again has the same identity.
    pub identity: InvocationIdentity,
    /// What the entitlements said that do not cover the call, by their names: a licence that has run out, the free calls
    /// that are used up. A price may depend on it.
    pub entitlements: Map<String, Value>,
}

impl Invocation {
    /// An invocation from its parts.
    #[must_use]
    pub fn new(
        client: ClientPubkey,
        event: RequestEventId,
        method: String,
        name: Option<String>,
        params: Value,
        identity: InvocationIdentity,
    ) -> Self {
        Self {
            client,
            event,
            method,
            name,
            params,
            identity,
            entitlements: Map::new(),
        }
    }
}

/// Leaves the params out: they belong to the caller.
impl fmt::Debug for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation")
            .field("client", &self.client)
            .field("event", &self.event)
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}
