//! What a paid server needs to know, checked before it starts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::gate::{ChallengeIssuer, GateSettings, PriceList, can_charge, direct_of};
use crate::ledger::{BALANCE, Ledger, MemoryLedger, OpenLimits};
use crate::payment::{
    CheckCall, Clock, Entitlement, Margin, OnFailure, PaymentInteractionPolicy, PaymentObserver,
    PaymentProcessor, PricedCapability, RateSource, ResolvePrice, StaticPrice, SystemClock,
};

/// How a server is paid. Made by [`ServerPayments::builder`].
pub struct ServerPayments {
    pub(super) prices: PriceList,
    pub(super) resolver: Arc<dyn ResolvePrice>,
    pub(super) check: Option<Arc<dyn CheckCall>>,
    pub(super) entitlements: Vec<Arc<dyn Entitlement>>,
    pub(super) processors: Vec<Arc<dyn PaymentProcessor>>,
    pub(super) rates: Option<Arc<dyn RateSource>>,
    pub(super) challenges: Option<ChallengeIssuer>,
    pub(super) observers: Vec<Arc<dyn PaymentObserver>>,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) settings: GateSettings,
}

impl ServerPayments {
    /// Starts with no prices, no way of being paid, and these defaults:
    ///
    /// | setting | default |
    /// |---|---|
    /// | [`ledger`](ServerPaymentsBuilder::ledger) | in memory: for trials only, it forgets money with the process |
    /// | [`resolve_price`](ServerPaymentsBuilder::resolve_price) | the listed price, the minimum of a range |
    /// | [`interaction`](ServerPaymentsBuilder::interaction) | transparent, explicit gating for those who ask |
    /// | [`payment_ttl`](ServerPaymentsBuilder::payment_ttl) | 600 s |
    /// | [`rates`](ServerPaymentsBuilder::rates) | none: prices must be in a unit that a way of being paid charges |
    /// | [`rate_max_age`](ServerPaymentsBuilder::rate_max_age) | 10 minutes |
    /// | [`rate_margin`](ServerPaymentsBuilder::rate_margin) | none |
    /// | [`limits`](ServerPaymentsBuilder::limits) | 20 open offers per client, 10,000 in all |
    pub fn builder() -> ServerPaymentsBuilder {
        ServerPaymentsBuilder {
            prices: Vec::new(),
            resolver: Arc::new(StaticPrice),
            check: None,
            entitlements: Vec::new(),
            processors: Vec::new(),
            rates: None,
            challenges: None,
            observers: Vec::new(),
            ledger: None,
            clock: Arc::new(SystemClock),
            settings: GateSettings::default(),
        }
    }
}

impl fmt::Debug for ServerPayments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerPayments")
            .field("prices", &self.prices.entries().len())
            .field("processors", &self.processors)
            .field("ledger", &self.ledger)
            .finish_non_exhaustive()
    }
}

/// Builds [`ServerPayments`].
#[must_use]
pub struct ServerPaymentsBuilder {
    prices: Vec<PricedCapability>,
    resolver: Arc<dyn ResolvePrice>,
    check: Option<Arc<dyn CheckCall>>,
    entitlements: Vec<Arc<dyn Entitlement>>,
    processors: Vec<Arc<dyn PaymentProcessor>>,
    rates: Option<Arc<dyn RateSource>>,
    challenges: Option<ChallengeIssuer>,
    observers: Vec<Arc<dyn PaymentObserver>>,
    ledger: Option<Arc<dyn Ledger>>,
    clock: Arc<dyn Clock>,
    settings: GateSettings,
}

impl ServerPaymentsBuilder {
    /// Prices one capability.
    pub fn price(mut self, price: PricedCapability) -> Self {
        self.prices.push(price);
        self
    }

    /// Prices several.
    pub fn prices(mut self, prices: impl IntoIterator<Item = PricedCapability>) -> Self {
        self.prices.extend(prices);
        self
    }

    /// Adds a way of being paid, behind those added before.
    pub fn processor(mut self, processor: impl PaymentProcessor + 'static) -> Self {
        self.processors.push(Arc::new(processor));
        self
    }

    /// Adds a way of being paid that is shared or boxed already.
    pub fn shared_processor(mut self, processor: Arc<dyn PaymentProcessor>) -> Self {
        self.processors.push(processor);
        self
    }

    /// Charges prices that are in other money at these rates, by methods that are paid in sats.
    ///
    /// Rounded up to the sat. A rate that is older than [`rate_max_age`](Self::rate_max_age) quotes nothing.
    pub fn rates(mut self, rates: Arc<dyn RateSource>) -> Self {
        self.rates = Some(rates);
        self
    }

    /// How old a rate may be. Those set by hand do not age.
    pub fn rate_max_age(mut self, most: Duration) -> Self {
        self.settings.rate_max_age = most;
        self
    }

    /// What is added to a converted price, for the time between the quote and the exchange.
    pub fn rate_margin(mut self, margin: Margin) -> Self {
        self.settings.rate_margin = margin;
        self
    }

    /// Tells `observer` of payments, beside the calls.
    pub fn observer(mut self, observer: impl PaymentObserver + 'static) -> Self {
        self.observers.push(Arc::new(observer));
        self
    }

    /// Puts offers as challenges of MPP, too, beside the options of CEP-8, and takes credentials for them. Only ways of being paid
    /// that can check a [proof](crate::payment::CheckProof) take part.
    pub fn challenges(mut self, issuer: ChallengeIssuer) -> Self {
        self.challenges = Some(issuer);
        self
    }

    /// Decides the price of each call.
    pub fn resolve_price(mut self, resolver: impl ResolvePrice + 'static) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }

    /// Keeps clients from paying for calls that cannot succeed.
    pub fn check_call(mut self, check: impl CheckCall + 'static) -> Self {
        self.check = Some(Arc::new(check));
        self
    }

    /// Lets calls through without paying. Asked behind those added before: the first that covers a call, or refuses it, ends
    /// the questions.
    pub fn entitlement(mut self, entitlement: impl Entitlement + 'static) -> Self {
        self.entitlements.push(Arc::new(entitlement));
        self
    }

    /// The same for one that is shared or boxed already.
    pub fn shared_entitlement(mut self, entitlement: Arc<dyn Entitlement>) -> Self {
        self.entitlements.push(entitlement);
        self
    }

    /// Keeps the books.
    pub fn ledger(mut self, ledger: Arc<dyn Ledger>) -> Self {
        self.ledger = Some(ledger);
        self
    }

    /// Which lifecycles are accepted.
    pub fn interaction(mut self, policy: PaymentInteractionPolicy) -> Self {
        self.settings.interaction = policy;
        self
    }

    /// How long an offer stands: the `ttl` on the wire, and the expiry asked of the wallet. 1 s to 24 h.
    pub fn payment_ttl(mut self, ttl: Duration) -> Self {
        self.settings.payment_ttl = ttl;
        self
    }

    /// How many offers may be open at a time.
    pub fn limits(mut self, limits: OpenLimits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// Lets clients pay ahead: a call is paid from its client's account if there is enough on it.
    pub fn balances(mut self, allowed: bool) -> Self {
        self.settings.balances = allowed;
        self
    }

    /// Shows handlers who calls, as `params._meta.clientPubkey` (CEP-16).
    pub fn inject_client_pubkey(mut self, inject: bool) -> Self {
        self.settings.inject_client_pubkey = inject;
        self
    }

    /// The clock that the books are kept by; for tests.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Every other number and rule, for those that need them.
    pub fn settings(mut self, change: impl FnOnce(&mut GateSettings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Checks everything that can be checked beforehand.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), naming the entry: prices that tie, prices in a unit that no
    /// processor can charge, two processors for one payment method, two entitlements of one name, a `payment_ttl` out of
    /// range.
    pub fn build(self) -> Result<ServerPayments> {
        let prices = PriceList::new(self.prices)?;
        for (at, processor) in self.processors.iter().enumerate() {
            if self.processors[..at]
                .iter()
                .any(|before| before.pmi() == processor.pmi())
            {
                return Err(Error::config(format!(
                    "two processors for the payment method {}",
                    processor.pmi()
                )));
            }
        }
        check_direct(&self.processors)?;
        if self.processors.iter().any(|p| p.pmi().as_str() == BALANCE) {
            return Err(Error::config(format!(
                "the payment method {BALANCE} is what calls are paid by from an account"
            )));
        }
        for entry in prices.entries() {
            if entry.on_failure == OnFailure::Credit && !self.settings.balances {
                return Err(Error::config(format!(
                    "{} is to be credited on failure, but clients have no accounts here",
                    entry.capability
                )));
            }
        }
        if prices.has_metered() && !self.settings.balances {
            return Err(Error::config(
                "a price by use gives back what was not used, but clients have no accounts here",
            ));
        }
        for (at, entitlement) in self.entitlements.iter().enumerate() {
            let name = entitlement.name();
            if self.entitlements[..at].iter().any(|e| e.name() == name) {
                return Err(Error::config(format!("two entitlements are called {name}")));
            }
        }
        for entry in prices.entries().iter().filter(|entry| entry.by_call) {
            let unit = entry.price.unit();
            let (least, rates) = (entry.price.min(), self.rates.as_deref());
            let able =
                |processor: &Arc<dyn PaymentProcessor>| can_charge(&**processor, rates, &least);
            if !self.processors.iter().any(able) {
                let small = self.processors.iter().find(|p| p.accepts(unit));
                if let Some(processor) = small {
                    return Err(Error::config(format!(
                        "{} costs {least}, which is less than {} can charge: raise the price, add another way of being \
                         paid, or sell it from money paid ahead",
                        entry.capability,
                        processor.pmi()
                    )));
                }
                return Err(Error::config(format!(
                    "{} is priced in {unit}, which no configured way of being paid can charge, and for which there is no \
                     rate to sats",
                    entry.capability
                )));
            }
        }
        let ttl = self.settings.payment_ttl;
        if !(Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&ttl) {
            return Err(Error::config(
                "payment_ttl must be from 1 second to 24 hours",
            ));
        }
        let ledger = self.ledger.unwrap_or_else(|| Arc::new(MemoryLedger::new()));
        Ok(ServerPayments {
            prices,
            resolver: self.resolver,
            check: self.check,
            entitlements: self.entitlements,
            processors: self.processors,
            rates: self.rates,
            challenges: self.challenges,
            observers: self.observers,
            ledger,
            clock: self.clock,
            settings: self.settings,
        })
    }
}

/// Refuses methods for money that comes with the request whose names do not say so, or are taken.
fn check_direct(processors: &[Arc<dyn PaymentProcessor>]) -> Result<()> {
    for (at, direct) in processors.iter().map(direct_of).enumerate() {
        let Some(direct) = direct else { continue };
        if !direct.is_direct() {
            return Err(Error::config(format!(
                "the payment method {direct} is for money that comes with the request: its name must end in -direct"
            )));
        }
        let mut before = processors.iter().take(at);
        let taken = before.any(|before| direct_of(before) == Some(direct));
        if taken || processors.iter().any(|other| other.pmi() == direct) {
            return Err(Error::config(format!(
                "two processors for the payment method {direct}"
            )));
        }
    }
    Ok(())
}

impl fmt::Debug for ServerPaymentsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerPaymentsBuilder")
            .field("prices", &self.prices)
            .field("processors", &self.processors)
            .finish_non_exhaustive()
    }
}
