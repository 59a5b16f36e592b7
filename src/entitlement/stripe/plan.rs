//! A plan: what is sold by which price of Stripe's, and what it covers.

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::ledger::Purchase;
use crate::payment::{Amount, Capability, PriceRange, PricedCapability};
use crate::rails::stripe::{Expected, PlanMode, check_return_url};

/// Use that is counted and reported.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made field by field")]
pub struct Meter {
    /// The name of the event that the meter counts.
    pub event: String,
    /// How much one call counts.
    pub value: u64,
    /// Where in the result stands how much it counts instead, as a JSON pointer.
    pub value_from: Option<String>,
}

/// Something that is sold by a price of Stripe's.
#[derive(Debug, Clone)]
pub struct Plan {
    name: String,
    capabilities: Vec<Capability>,
    price: String,
    former_prices: Vec<String>,
    mode: PlanMode,
    /// What one of it costs.
    amount: Amount,
    quantity: u64,
    meter: Option<Meter>,
    pub(super) success_url: String,
    pub(super) cancel_url: Option<String>,
    reason: Option<String>,
    past_due_counts: bool,
}

impl Plan {
    /// `price` (an id of Stripe's), which charges `amount` in `mode`, sells `capabilities`. In the books it is `name`: who has
    /// bought under another name has not bought this.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for an address that cannot be one, or if nothing is sold.
    pub fn new(
        name: &str,
        capabilities: Vec<Capability>,
        (price, mode, amount): (&str, PlanMode, Amount),
        success_url: &str,
    ) -> Result<Self> {
        check_return_url("successUrl", success_url)?;
        if capabilities.is_empty() || name.is_empty() {
            return Err(Error::config("a plan must have a name and sell something"));
        }
        if amount.value() == 0 {
            return Err(Error::config("a price of nothing sells nothing"));
        }
        Ok(Self {
            name: name.to_owned(),
            capabilities,
            price: price.to_owned(),
            former_prices: Vec::new(),
            mode,
            amount,
            quantity: 1,
            meter: None,
            success_url: success_url.to_owned(),
            cancel_url: None,
            reason: None,
            past_due_counts: false,
        })
    }

    /// Sells so many of it at once.
    #[must_use]
    pub fn quantity(mut self, quantity: u64) -> Self {
        self.quantity = quantity.max(1);
        self
    }

    /// Counts use.
    #[must_use]
    pub fn meter(mut self, meter: Meter) -> Self {
        self.meter = Some(meter);
        self
    }

    /// Subscriptions to these prices count as well: what was sold before the price was changed.
    #[must_use]
    pub fn former_prices(mut self, prices: Vec<String>) -> Self {
        self.former_prices = prices;
        self
    }

    /// Shows a way back to whoever does not want to pay.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for an address that cannot be one.
    pub fn cancel_url(mut self, url: &str) -> Result<Self> {
        check_return_url("cancelUrl", url)?;
        self.cancel_url = Some(url.to_owned());
        Ok(self)
    }

    /// Why it has to be paid for, for the buyer to read.
    #[must_use]
    pub fn reason(mut self, reason: &str) -> Self {
        self.reason = Some(reason.to_owned());
        self
    }

    /// Whether a subscription counts while its payment is due and tried again.
    #[must_use]
    pub const fn past_due_counts(mut self, counts: bool) -> Self {
        self.past_due_counts = counts;
        self
    }

    /// Its name in the books.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it sells.
    #[must_use]
    pub fn capabilities(&self) -> &[Capability] {
        &self.capabilities
    }

    /// Its entries in the price list: not sold by the call.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it costs more than can be written.
    pub fn priced(&self) -> Result<Vec<PricedCapability>> {
        let price = PriceRange::fixed(self.listed()?)?;
        let priced = self.capabilities.iter().map(|capability| {
            PricedCapability::new(capability.clone(), price.clone())
                .with_description(self.describe())
                .not_by_call()
        });
        Ok(priced.collect())
    }

    pub(super) const fn mode(&self) -> PlanMode {
        self.mode
    }

    pub(super) fn price(&self) -> &str {
        &self.price
    }

    /// Whether a purchase of `other` is one of this.
    pub(super) fn sells_as(&self, other: &Self) -> bool {
        let of = |plan: &Self| (plan.price.clone(), plan.mode, plan.quantity);
        of(self) == of(other)
    }

    pub(super) const fn how_many(&self) -> u64 {
        self.quantity
    }

    pub(super) const fn counts_past_due(&self) -> bool {
        self.past_due_counts
    }

    /// What it costs: once, each period, or each use.
    pub(super) fn listed(&self) -> Result<Amount> {
        let quantity = match self.mode {
            PlanMode::Metered => 1,
            _ => self.quantity,
        };
        let value = self.amount.value().saturating_mul(quantity);
        Amount::new(value, self.amount.unit().clone())
    }

    /// What must arrive, for what is paid once.
    pub(super) fn due(&self) -> Result<Option<Amount>> {
        match self.mode {
            PlanMode::Payment => self.listed().map(Some),
            _ => Ok(None),
        }
    }

    pub(super) fn describe(&self) -> String {
        let first = self.capabilities.first().map(ToString::to_string);
        self.reason
            .clone()
            .unwrap_or_else(|| first.unwrap_or_else(|| self.name.clone()))
    }

    pub(super) fn is_metered(&self) -> bool {
        self.mode == PlanMode::Metered || self.meter.is_some()
    }

    pub(super) fn expected<'a>(
        &'a self,
        (purchase, client): (&'a str, &'a str),
        amount: Option<&'a Amount>,
    ) -> Expected<'a> {
        Expected {
            purchase,
            client,
            price: &self.price,
            former_prices: &self.former_prices,
            mode: self.mode,
            amount,
        }
    }

    /// What is wanted back when a call that `purchase` covers has succeeded.
    pub(super) fn memo(&self, purchase: &Purchase) -> Result<Option<Value>> {
        let Some(meter) = &self.meter else {
            return Ok(None);
        };
        let customer = purchase.customer.as_deref();
        let customer =
            customer.ok_or_else(|| Error::ledger("a metered purchase without its customer"))?;
        Ok(Some(json!({
            "meter": meter.event, "customer": customer, "value": meter.value, "from": meter.value_from,
        })))
    }
}
