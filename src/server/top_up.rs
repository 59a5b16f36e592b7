//! Paying ahead: a tool that is bought for any amount, and credits it to the buyer's account; and one that tells what is on
//! it. Any rail that can charge the unit pays for it, also one that is too dear for single calls.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::counter::{Good, Purchase, tool_result};
use crate::error::{Error, Result};
use crate::ledger::{Account, Credit, Ledger, MovementKind, top_up_key};
use crate::payment::{
    Amount, Capability, CapabilityPattern, Clock, Invocation, PriceDecision, PriceRange,
    PricedCapability, Quote, ResolvePrice,
};
use crate::wire::method;

/// How many movements a statement shows.
const STATEMENT: usize = 20;

/// The tool that is bought to pay ahead.
#[derive(Debug, Clone)]
pub struct TopUp {
    name: String,
    range: PriceRange,
    most: u64,
    books: Arc<dyn Ledger>,
    clock: Arc<dyn Clock>,
}

impl TopUp {
    /// A tool `name` that takes amounts in `range`, as long as not more than `most` comes onto an account.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `most` is less than the least top-up.
    pub fn new(
        name: &str,
        range: PriceRange,
        most: u64,
        books: Arc<dyn Ledger>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        if most < range.min().value() {
            return Err(Error::config(
                "the most that may be on an account must be at least the least top-up",
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            range,
            most,
            books,
            clock,
        })
    }

    /// Its entry in the price list.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a name that no tool can have.
    pub fn priced(&self) -> Result<PricedCapability> {
        let name = CapabilityPattern::literal(&self.name)
            .ok_or_else(|| Error::config("the name of a tool must not hold a *"))?;
        let capability = Capability::new(method::TOOLS_CALL, Some(name))?;
        Ok(PricedCapability::new(capability, self.range.clone())
            .with_description("paying ahead")
            .never_waived())
    }

    /// Why these arguments cannot be served; `None` if they can.
    #[must_use]
    pub fn objection(&self, arguments: Option<&Value>) -> Option<String> {
        let (min, max) = (self.range.min().value(), self.range.max().value());
        if amount_in(arguments).is_some_and(|amount| (min..=max).contains(&amount)) {
            return None;
        }
        Some(format!(
            "the argument \"amount\" must be a whole number from {min} to {max}"
        ))
    }

    /// The price of one call: the amount that it asks for.
    async fn price(&self, call: &Invocation) -> Result<PriceDecision> {
        let Some(amount) = amount_in(call.params.get("arguments")) else {
            return Ok(PriceDecision::reject("name an amount"));
        };
        let unit = self.range.unit();
        let account = self.books.account(&call.client, unit).await?;
        let on = account.map_or(0, |account| account.amount.value());
        if on.saturating_add(amount) > self.most {
            let text = format!(
                "at most {} {unit} may be paid ahead; you have {on}",
                self.most
            );
            return Ok(PriceDecision::reject(text));
        }
        Ok(Quote::new(Amount::new(amount, unit.clone())?).into())
    }
}

fn amount_in(arguments: Option<&Value>) -> Option<u64> {
    arguments?.get("amount")?.as_u64()
}

fn account_as_json(account: &Account) -> Value {
    json!({ "balance": { "amount": account.amount.value(), "unit": account.amount.unit() } })
}

#[async_trait]
impl Good for TopUp {
    fn name(&self) -> &str {
        &self.name
    }

    fn tool(&self) -> Value {
        let unit = self.range.unit();
        let (min, max) = (self.range.min().value(), self.range.max().value());
        json!({
            "name": self.name,
            "description": format!("Pays ahead: the amount goes onto your account, and later calls are paid from it. In {unit}."),
            "inputSchema": {
                "type": "object",
                "properties": { "amount": { "type": "integer", "minimum": min, "maximum": max } },
                "required": ["amount"],
            },
        })
    }

    fn is_sold(&self) -> bool {
        true
    }

    /// Credits what was paid, once for each entry.
    async fn hand_over(&self, purchase: &Purchase) -> Result<Value> {
        let unpaid = || Error::ledger("a top-up without its payment");
        let id = purchase.paid_by.ok_or_else(unpaid)?;
        let entry = self.books.get(&id).await?.ok_or_else(unpaid)?;
        // What was paid, not what was asked for; and to whom it belongs, not to whoever calls.
        let credit = Credit {
            client: entry.client,
            amount: entry.price(),
            kind: MovementKind::TopUp,
            key: top_up_key(&id),
            at: self.clock.now(),
        };
        let account = self.books.credit(credit).await?;
        let text = format!("paid ahead; you have {}", account.amount);
        Ok(tool_result(&text, &account_as_json(&account)))
    }
}

/// Prices top-ups by their argument, and everything else as `otherwise` does.
#[derive(Debug)]
pub struct TopUpPrice<R> {
    top_up: TopUp,
    otherwise: R,
}

impl<R> TopUpPrice<R> {
    /// Prices calls of `top_up`, and leaves the others to `otherwise`.
    pub const fn new(top_up: TopUp, otherwise: R) -> Self {
        Self { top_up, otherwise }
    }
}

#[async_trait]
impl<R: ResolvePrice> ResolvePrice for TopUpPrice<R> {
    async fn resolve_price(
        &self,
        call: &Invocation,
        listed: &PricedCapability,
    ) -> Result<PriceDecision, Error> {
        if call.method == method::TOOLS_CALL && call.name.as_deref() == Some(&self.top_up.name) {
            return self.top_up.price(call).await;
        }
        self.otherwise.resolve_price(call, listed).await
    }
}

/// The tool that tells a client what it has, and how it came and went.
#[derive(Debug, Clone)]
pub struct BalanceTool {
    name: String,
    unit: crate::payment::Unit,
    books: Arc<dyn Ledger>,
}

impl BalanceTool {
    /// A tool `name` about accounts in `unit`.
    #[must_use]
    pub fn new(name: &str, unit: crate::payment::Unit, books: Arc<dyn Ledger>) -> Self {
        Self {
            name: name.to_owned(),
            unit,
            books,
        }
    }
}

#[async_trait]
impl Good for BalanceTool {
    fn name(&self) -> &str {
        &self.name
    }

    fn tool(&self) -> Value {
        json!({
            "name": self.name,
            "description": "Tells what you have paid ahead and is left, with the latest movements. Free.",
            "inputSchema": { "type": "object", "properties": {} },
        })
    }

    fn is_sold(&self) -> bool {
        false
    }

    async fn hand_over(&self, purchase: &Purchase) -> Result<Value> {
        let account = self.books.account(&purchase.client, &self.unit).await?;
        let amount = account.map_or_else(|| Amount::zero(self.unit.clone()), |a| a.amount);
        let latest = self
            .books
            .latest_movements(&purchase.client, &self.unit, STATEMENT)
            .await?;
        let movements: Vec<Value> = latest
            .iter()
            .map(|m| {
                json!({
                    "at": m.at.as_secs(), "kind": m.kind.as_str(), "on": m.on, "off": m.off, "left": m.left,
                })
            })
            .collect();
        let data = json!({
            "balance": { "amount": amount.value(), "unit": amount.unit() },
            "movements": movements,
        });
        Ok(tool_result(&format!("you have {amount}"), &data))
    }
}
