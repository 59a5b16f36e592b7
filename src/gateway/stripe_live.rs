//! Whether money may be taken by Stripe. A live key needs that to be said once for each key and ledger, so that nobody takes money
//! by mistake; the ledger remembers it, by a hash of the key.

use super::config::{LedgerPlace, StripeSettings};
use super::exit::{Failure, Outcome};
use super::wire_up;
use crate::ledger::PurchaseBooks;
use crate::payment::{Clock, SystemClock, Timestamp};

/// Says since when money may be taken with `books`, and remembers it if it is said now; `None` for a test key.
pub(super) async fn allow(
    stripe: &StripeSettings,
    books: &dyn PurchaseBooks,
) -> Outcome<Option<Timestamp>> {
    if !stripe.config.is_live() {
        return Ok(None);
    }
    let account = account(stripe);
    if stripe.live_said {
        return Ok(Some(books.allow_live(&account, SystemClock.now()).await?));
    }
    let since = books.live_since(&account).await?;
    since.map(Some).ok_or_else(never_said)
}

/// The same for who only looks: the ledger at `place` is neither made nor written to.
pub(super) async fn look(stripe: &StripeSettings, place: &LedgerPlace) -> Outcome<String> {
    if !stripe.config.is_live() {
        return Ok("test mode, not money".to_owned());
    }
    let since = match wire_up::purchases_at(place).await? {
        Some(books) => books.live_since(&account(stripe)).await?,
        None => None,
    };
    match since {
        Some(since) => Ok(format!("live, as was said on {}", since.to_date())),
        None if stripe.live_said => Ok("live, which the ledger will remember".to_owned()),
        None => Err(never_said()),
    }
}

fn account(stripe: &StripeSettings) -> String {
    format!("stripe:{}", stripe.config.key_fingerprint())
}

fn never_said() -> Failure {
    Failure::usage(
        "rails.stripe.live: the key is a live one, which moves money, and this ledger has not been told so yet: say so once \
         (live = true, or --stripe-live)",
    )
}
