//! The demand for what a plan sells, as CEP-8 says it, and as the result of a tool.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::plan::Plan;
use crate::error::{Error, Result};
use crate::ledger::Purchase;
use crate::payment::{PayReq, STRIPE_CHECKOUT_URL, Sale, Timestamp};
use crate::rails::stripe::{PlanMode, currency_of};

/// The demand for `plan`, whose page is that of `purchase`.
pub(super) fn sale(
    plan: &Plan,
    purchase: &Purchase,
    now: Timestamp,
    as_result: bool,
) -> Result<Sale> {
    let amount = plan.listed()?;
    let url = purchase.url.clone().unwrap_or_default();
    let pending = purchase.status == super::desk::PROCESSING;
    if url.is_empty() && !pending {
        return Err(Error::ledger("a page without its address"));
    }
    let mut meta = Map::new();
    let mode = match plan.mode() {
        PlanMode::Payment => "payment",
        PlanMode::Subscription => "subscription",
        PlanMode::Metered => "metered",
    };
    meta.insert("currency".to_owned(), currency_of(amount.unit()).into());
    meta.insert("unit".to_owned(), json!(amount.unit()));
    meta.insert("mode".to_owned(), mode.into());
    meta.insert("session_id".to_owned(), json!(purchase.session));
    meta.insert(
        "expires_at".to_owned(),
        purchase.open_until.as_secs().into(),
    );
    let reason = plan.describe();
    Ok(Sale {
        amount,
        pmi: STRIPE_CHECKOUT_URL.parse()?,
        as_result: as_result.then(|| tool_result(plan, &url, &reason, pending)),
        pay_req: PayReq::new(url),
        description: reason,
        ttl: purchase.open_until.since(now).max(Duration::from_secs(1)),
        meta,
        pending,
    })
}

/// The same as a tool says it, in the shape that the agent toolkit of Stripe uses, but as the error that it is.
fn tool_result(plan: &Plan, url: &str, reason: &str, pending: bool) -> Value {
    let kind = match plan.is_metered() {
        true => "usageBased",
        false => "oneTimeSubscription",
    };
    let data = if pending {
        json!({ "status": "payment_pending", "data": { "paymentType": kind, "paymentReason": reason } })
    } else {
        json!({ "status": "payment_required",
            "data": { "paymentType": kind, "checkoutUrl": url, "paymentReason": reason } })
    };
    json!({
        "content": [{ "type": "text", "text": data.to_string() }], "structuredContent": data, "isError": true,
    })
}
