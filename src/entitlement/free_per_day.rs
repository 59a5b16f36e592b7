//! Some calls a day for nothing, for each client. Counted in the ledger: a restart gives nobody another round.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;

use crate::error::{Error, Result};
use crate::ledger::{FreeCall, FreeCalls, FreeLimits, FreeSpend};
use crate::payment::{Cover, Entitled, Entitlement, EntitlementClaim};

const NAME: &str = "free_per_day";

/// Lets the first calls of each client's day (UTC) through.
///
/// A key costs nothing to make, so whoever wants more makes another key: the limit that counts against those is the one
/// for all clients together.
#[derive(Debug, Clone)]
pub struct FreePerDay {
    books: Arc<dyn FreeCalls>,
    limits: FreeLimits,
}

impl FreePerDay {
    /// At most `limits` a day, counted in `books`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for limits that let nothing through.
    pub fn new(books: Arc<dyn FreeCalls>, limits: FreeLimits) -> Result<Self> {
        if limits.per_client == 0 || limits.total == 0 {
            return Err(Error::config("the free calls of a day must be at least 1"));
        }
        Ok(Self { books, limits })
    }
}

#[async_trait]
impl Entitlement for FreePerDay {
    fn name(&self) -> &str {
        NAME
    }

    async fn examine(&self, claim: &EntitlementClaim) -> Entitled {
        if claim.answered {
            return Entitled::NotCovered(None);
        }
        let most = self.limits.per_client;
        let call = FreeCall {
            event: claim.invocation.event,
            client: claim.invocation.client,
            capability: claim.listed.capability.to_string(),
            by: NAME.to_owned(),
            why: format!("one of {most} of the day"),
            at: claim.at,
        };
        match self.books.spend_free(call, self.limits).await {
            Ok(FreeSpend::Spent { nth }) => {
                Entitled::Covered(Cover::new(format!("free call {nth} of {most} of the day")))
            }
            // Counted when this event was here before; the gate lets each event in once.
            Ok(FreeSpend::Already) => Entitled::Covered(Cover::new("a free call of the day")),
            Ok(FreeSpend::UsedUp) => {
                Entitled::NotCovered(Some(json!({ "used": most, "of": most })))
            }
            Ok(FreeSpend::AllUsedUp) => Entitled::NotCovered(Some(json!({ "error": "used_up" }))),
            Err(error) => Entitled::Unknown(error),
        }
    }
}
