//! What does this call cost? Asks the hook, under a time limit, and believes only a sane answer.

use std::sync::Arc;
use std::time::Duration;

use super::Gate;
use super::door::Knock;
use crate::error::{Error, ErrorKind, Result};
use crate::payment::PriceDecision;

impl Gate {
    /// Asks the hook for the price of `knock`.
    ///
    /// A quote must be at least 1 and inside the advertised range, in its unit. Everything else, a panic and a hook that
    /// does not answer included, is a failure of the server: nothing is minted.
    pub(super) async fn resolve_price(&self, knock: &Knock) -> Result<PriceDecision> {
        let resolver = Arc::clone(&self.resolver);
        let (invocation, listed) = (knock.invocation.clone(), Arc::clone(&knock.listed));
        let decision = guarded(self.settings.price_timeout, "resolve_price", async move {
            resolver.resolve_price(&invocation, &listed).await
        })
        .await??;
        if let PriceDecision::Quote(quote) = &decision
            && !knock.listed.price.contains(&quote.amount)
        {
            return Err(Error::new(
                ErrorKind::Price,
                format!(
                    "quoted {:?} outside the advertised {}",
                    quote.amount, knock.listed.price
                ),
            ));
        }
        Ok(decision)
    }
}

/// Runs code that is not ours: a time limit ends it, and its panic is an error here rather than the end of the request.
pub(super) async fn guarded<T: Send + 'static>(
    limit: Duration,
    what: &'static str,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T> {
    let task = tokio::spawn(work);
    let stop = task.abort_handle();
    match tokio::time::timeout(limit, task).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(_)) => Err(Error::new(ErrorKind::Price, format!("{what} panicked"))),
        Err(_) => {
            stop.abort();
            Err(Error::new(
                ErrorKind::Timeout,
                format!("{what} took longer than {limit:?}"),
            ))
        }
    }
}
