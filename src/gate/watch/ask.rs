//! Questions to a rail, under a time limit.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use super::listing::Listed;
use crate::gate::resolve_price::guarded;
use crate::payment::{
    PaymentProcessor, PaymentRequest, SettlementNotice, SettlementStatus, Timestamp,
};

/// Asks `processor` how `request` stands. Whatever goes wrong is `Unknown`, and is asked again.
pub(in crate::gate) async fn look_up(
    processor: Arc<dyn PaymentProcessor>,
    request: PaymentRequest,
    limit: Duration,
) -> SettlementStatus {
    let pmi = request.pmi.clone();
    let asked = guarded(limit, "lookup_payment", async move {
        processor.lookup_payment(&request).await
    })
    .await;
    let error: Box<dyn StdError> = match asked {
        Ok(Ok(status)) => return status,
        Ok(Err(error)) => error.into(),
        Err(error) => error.into(),
    };
    tracing::warn!(%pmi, error = &*error, "a payment could not be looked up");
    SettlementStatus::Unknown
}

/// Asks `processor` for everything settled of what was made since `made_since`.
pub(super) async fn list_settled(
    processor: Arc<dyn PaymentProcessor>,
    made_since: Timestamp,
    limit: Duration,
) -> (Listed, Vec<SettlementNotice>) {
    let pmi = processor.pmi().clone();
    let asked = guarded(limit, "list_settled", async move {
        processor.list_settled(made_since).await
    })
    .await;
    let error: Box<dyn StdError> = match asked {
        Ok(Ok(Some(notices))) => return (Listed::All, notices),
        Ok(Ok(None)) => return (Listed::Never, Vec::new()),
        Ok(Err(error)) => error.into(),
        Err(error) => error.into(),
    };
    tracing::warn!(%pmi, error = &*error, "settlements could not be listed");
    (Listed::Failed, Vec::new())
}
