//! Lists of clients: those who never pay, and those who are not served at any price.

use std::collections::HashSet;
use std::fmt;

use async_trait::async_trait;

use super::NOT_ALLOWED_CODE;
use crate::payment::{ClientPubkey, Cover, Entitled, Entitlement, EntitlementClaim, Refusal};

/// Clients who pay nothing.
#[derive(Clone)]
pub struct AllowedClients(HashSet<ClientPubkey>);

impl AllowedClients {
    /// These clients.
    pub fn new(clients: impl IntoIterator<Item = ClientPubkey>) -> Self {
        Self(clients.into_iter().collect())
    }
}

#[async_trait]
impl Entitlement for AllowedClients {
    fn name(&self) -> &str {
        "allow"
    }

    async fn examine(&self, claim: &EntitlementClaim) -> Entitled {
        if self.0.contains(&claim.invocation.client) {
            return Entitled::Covered(Cover::new("on the list of those who pay nothing"));
        }
        Entitled::NotCovered(None)
    }
}

/// Clients who cannot buy what is priced. What is free stays open to them.
#[derive(Clone)]
pub struct DeniedClients(HashSet<ClientPubkey>);

impl DeniedClients {
    /// These clients.
    pub fn new(clients: impl IntoIterator<Item = ClientPubkey>) -> Self {
        Self(clients.into_iter().collect())
    }
}

#[async_trait]
impl Entitlement for DeniedClients {
    fn name(&self) -> &str {
        "deny"
    }

    async fn examine(&self, claim: &EntitlementClaim) -> Entitled {
        if self.0.contains(&claim.invocation.client) {
            return Entitled::Refused(Refusal::new(
                NOT_ALLOWED_CODE,
                "Not for sale to this client",
            ));
        }
        Entitled::NotCovered(None)
    }
}

impl fmt::Debug for AllowedClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AllowedClients({})", self.0.len())
    }
}

impl fmt::Debug for DeniedClients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeniedClients({})", self.0.len())
    }
}
