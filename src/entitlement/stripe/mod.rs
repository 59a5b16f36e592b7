//! What is sold by a price of Stripe's instead of by the call: a tool for good, a subscription, use that is metered.
//!
//! A client that has none of it is shown a page of Checkout; whoever has is let through by the books alone, without a question
//! to Stripe. The books learn from webhooks, which only say what to look at, and from looking by ourselves: when a client that
//! has a page open calls, and in rounds, so that a webhook that never comes costs no more than a minute or two.

// What is sold, and who sells it.
mod desk;
mod offer;
mod plan;

// What keeps the books true.
mod keep;
mod notices;
mod usage;
mod withdraw;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

pub use desk::{Desk, DeskSettings};
pub use plan::{Meter, Plan};

use self::desk::Seen;
use crate::error::{Error, Result};
use crate::payment::{
    Cover, Delivery, Entitled, Entitlement, EntitlementClaim, Refusal, WhenUnknown,
};

/// What it is called in the config and in the books.
const NAME: &str = "stripe";

/// JSON-RPC error: the server cannot do this now.
const NOT_NOW_CODE: i64 = -32000;

/// Lets those through who have bought what covers the call.
#[derive(Clone)]
pub struct StripePlans {
    desk: Arc<Desk>,
    /// By the capability as the price list has it.
    by_capability: Arc<HashMap<String, Arc<Plan>>>,
}

impl StripePlans {
    /// The plans that `desk` sells.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if two plans sell one capability.
    pub fn new(desk: Arc<Desk>) -> Result<Self> {
        let mut by_capability = HashMap::new();
        for (at, plan) in desk.plans().iter().enumerate() {
            let mut before = desk.plans().iter().take(at);
            if before.any(|other| other.name() == plan.name() && !other.sells_as(plan)) {
                return Err(Error::config(format!(
                    "two plans are called {} and have another price: give one of them another name",
                    plan.name()
                )));
            }
            for capability in plan.capabilities() {
                let name = capability.to_string();
                if by_capability.insert(name, Arc::clone(plan)).is_some() {
                    return Err(Error::config(format!("two plans sell {capability}")));
                }
            }
        }
        Ok(Self {
            desk,
            by_capability: Arc::new(by_capability),
        })
    }
}

#[async_trait]
impl Entitlement for StripePlans {
    fn name(&self) -> &str {
        NAME
    }

    async fn examine(&self, claim: &EntitlementClaim) -> Entitled {
        let capability = claim.listed.capability.to_string();
        let Some(plan) = self.by_capability.get(&capability) else {
            return Entitled::NotCovered(None);
        };
        match self.desk.see(plan, claim).await {
            Ok(Seen::Covered(purchase)) => {
                let cover = Cover::new(format!("{} ({})", plan.name(), purchase.status));
                match plan.memo(&purchase) {
                    Ok(None) => Entitled::Covered(cover),
                    Ok(Some(memo)) => Entitled::Covered(cover.with_memo(memo)),
                    Err(error) => Entitled::Unknown(error),
                }
            }
            Ok(Seen::Offered(sale)) => Entitled::Sold(sale),
            Ok(Seen::Due(status)) => {
                let text = format!("A payment for your subscription is due ({status})");
                Entitled::Refused(Refusal::new(NOT_NOW_CODE, text))
            }
            Ok(Seen::Full) => Entitled::Refused(Refusal::new(
                NOT_NOW_CODE,
                "Payment capacity reached, retry later",
            )),
            Err(error) => Entitled::Unknown(error),
        }
    }

    /// What is sold by a plan is not given away while nobody can tell who has it.
    fn when_unknown(&self) -> WhenUnknown {
        WhenUnknown::Refuse
    }

    async fn delivered(&self, delivery: &Delivery) {
        self.desk.note_use(delivery).await;
    }
}

impl fmt::Debug for StripePlans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StripePlans")
            .field("capabilities", &self.by_capability.len())
            .finish_non_exhaustive()
    }
}
