//! Which account of Stripe is paid, and what its prices sell: the section `[rails.stripe]`, in our words and in those of
//! Stripe's agent toolkit. Keys come from the environment alone.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use crate::entitlement::stripe::Meter;
use crate::gateway::args::StripeArgs;
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::secrets;
use crate::payment::{Amount, Capability, CapabilityPattern};
use crate::rails::stripe::{
    PlanMode, StripeConfig, StripeKey, TokenParam, WebhookSecrets, check_return_url,
};
use crate::wire::method;

/// The price of plans that name none. Not a secret.
const STRIPE_PRICE_ID: &str = "STRIPE_PRICE_ID";

/// The Stripe profile that payers grant shared payment tokens to, and the name that guides give it. Not secrets.
const STRIPE_PROFILE_ID: &str = "STRIPE_PROFILE_ID";
const MPP_MERCHANT_ID: &str = "MPP_MERCHANT_ID";

/// `[rails.stripe]` of the config file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct StripeSection {
    live: bool,
    base_url: Option<String>,
    api_version: Option<String>,
    #[serde(alias = "successUrl")]
    success_url: Option<String>,
    #[serde(alias = "cancelUrl")]
    cancel_url: Option<String>,
    webhook: Option<SocketAddr>,
    page_ttl: Option<u64>,
    demand: Demand,
    past_due: PastDue,
    profile: Option<String>,
    spt_param: SptParam,
    payment_method_types: Option<Vec<String>>,
    plan: Vec<PlanSection>,
}

/// How a demand for what a plan sells is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Demand {
    /// As the error -32042 of CEP-8.
    #[default]
    Error,
    /// As the result of a tool, for hosts that show nobody the data of an error.
    ToolResult,
}

/// Which parameter carries a shared payment token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SptParam {
    #[default]
    TopLevel,
    PaymentMethodData,
}

/// Whether a subscription counts whose payment is due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PastDue {
    #[default]
    End,
    Keep,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PlanSection {
    name: Option<String>,
    capability: Option<String>,
    capabilities: Vec<String>,
    /// A tool by its bare name, as the toolkit has it.
    tool: Option<String>,
    #[serde(alias = "priceId")]
    price_id: Option<String>,
    former_prices: Vec<String>,
    #[serde(alias = "successUrl")]
    success_url: Option<String>,
    #[serde(alias = "cancelUrl")]
    cancel_url: Option<String>,
    #[serde(alias = "meterEvent")]
    meter_event: Option<String>,
    value: Option<u64>,
    value_from: Option<String>,
    #[serde(alias = "paymentReason")]
    payment_reason: Option<String>,
    mode: Option<Mode>,
    quantity: Option<u64>,
    amount: Option<u64>,
    unit: Option<String>,
    past_due: Option<PastDue>,
    checkout: Option<CheckoutSection>,
}

/// The toolkit's shape of today: what is handed to Checkout.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckoutSection {
    #[serde(alias = "successUrl")]
    success_url: Option<String>,
    #[serde(alias = "cancelUrl")]
    cancel_url: Option<String>,
    mode: Option<Mode>,
    #[serde(alias = "lineItems")]
    line_items: Vec<LineItem>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LineItem {
    price: String,
    quantity: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Payment,
    Subscription,
}

/// How Stripe is used.
#[derive(Debug)]
pub(in crate::gateway) struct StripeSettings {
    pub(in crate::gateway) config: StripeConfig,
    /// Money may be taken: this start says so.
    pub(in crate::gateway) live_said: bool,
    /// Where whoever has paid for a single call is sent; without it single calls are not sold by Stripe.
    pub(in crate::gateway) success_url: Option<String>,
    pub(in crate::gateway) cancel_url: Option<String>,
    pub(in crate::gateway) webhook: Option<SocketAddr>,
    pub(in crate::gateway) webhook_secrets: Option<WebhookSecrets>,
    pub(in crate::gateway) page_ttl: Duration,
    pub(in crate::gateway) as_result: bool,
    /// How shared payment tokens are taken, if they are.
    pub(in crate::gateway) tokens: Option<TokenSettings>,
    pub(in crate::gateway) plans: Vec<PlanSettings>,
}

/// How shared payment tokens are taken.
#[derive(Debug)]
pub(in crate::gateway) struct TokenSettings {
    /// What payers grant their tokens to.
    pub(in crate::gateway) profile: String,
    pub(in crate::gateway) param: TokenParam,
    pub(in crate::gateway) types: Option<Vec<String>>,
}

/// What is sold by one price. What is not said here is asked of Stripe at the start.
#[derive(Debug)]
pub(in crate::gateway) struct PlanSettings {
    pub(in crate::gateway) name: Option<String>,
    pub(in crate::gateway) capabilities: Vec<Capability>,
    pub(in crate::gateway) price: String,
    pub(in crate::gateway) former_prices: Vec<String>,
    pub(in crate::gateway) mode: Option<PlanMode>,
    pub(in crate::gateway) amount: Option<Amount>,
    pub(in crate::gateway) quantity: u64,
    pub(in crate::gateway) meter: Option<Meter>,
    pub(in crate::gateway) success_url: String,
    pub(in crate::gateway) cancel_url: Option<String>,
    pub(in crate::gateway) reason: Option<String>,
    pub(in crate::gateway) past_due_counts: bool,
}

/// How Stripe is used, if it is: the section asks for it.
pub(super) fn stripe(
    args: &StripeArgs,
    section: Option<&StripeSection>,
) -> Outcome<Option<StripeSettings>> {
    let nothing = StripeSection::default();
    let section = match section {
        Some(section) => section,
        None if args.stripe_webhook.is_some() || args.stripe_live => &nothing,
        None => return Ok(None),
    };
    let wrong = |key: &str, what: &dyn std::fmt::Display| {
        Failure::usage(format!("rails.stripe{key}: {what}"))
    };
    let secret = secrets::read(secrets::STRIPE_SECRET_KEY)?.ok_or_else(|| {
        let what = format!(
            "{} must hold the secret key of the Stripe account (sk_test_… or sk_live_…)",
            secrets::STRIPE_SECRET_KEY
        );
        wrong("", &what)
    })?;
    let key = StripeKey::parse(&secret)
        .map_err(|error| Failure::usage(format!("{}: {error}", secrets::STRIPE_SECRET_KEY)))?;
    let live_said = section.live || args.stripe_live;
    // Whether it was said to an earlier start is in the ledger.
    let live = live_said || key.is_live();
    let mut config = StripeConfig::new(key, live).map_err(|error| wrong(".live", &error))?;
    if let Some(url) = &section.base_url {
        config = config
            .base_url(url)
            .map_err(|error| wrong(".base_url", &error))?;
    }
    if let Some(version) = &section.api_version {
        config = config
            .api_version(version)
            .map_err(|error| wrong(".api_version", &error))?;
    }
    let webhook_secrets = secrets::read(secrets::STRIPE_WEBHOOK_SECRET)?
        .map(|text| WebhookSecrets::parse(&text))
        .transpose()
        .map_err(|error| Failure::usage(format!("{}: {error}", secrets::STRIPE_WEBHOOK_SECRET)))?;
    for (key, url) in [
        ("success_url", &section.success_url),
        ("cancel_url", &section.cancel_url),
    ] {
        if let Some(url) = url {
            check_return_url(key, url).map_err(|error| wrong("", &error))?;
        }
    }
    let page_ttl = section.page_ttl.unwrap_or(3600);
    if !(1800..=86_400).contains(&page_ttl) {
        let what = "must be a number of seconds from 1800 to 86400, as Stripe allows";
        return Err(wrong(".page_ttl", &what));
    }
    let plans = section.plan.iter().enumerate().map(|(at, plan)| {
        plan.read(section)
            .map_err(|what| wrong(&format!(".plan number {}", at + 1), &what))
    });
    Ok(Some(StripeSettings {
        config,
        live_said,
        success_url: section.success_url.clone(),
        cancel_url: section.cancel_url.clone(),
        webhook: args.stripe_webhook.or(section.webhook),
        webhook_secrets,
        page_ttl: Duration::from_secs(page_ttl),
        as_result: section.demand == Demand::ToolResult,
        tokens: section.tokens(),
        plans: plans.collect::<Outcome<_>>()?,
    }))
}

impl StripeSection {
    fn tokens(&self) -> Option<TokenSettings> {
        let set = |name: &str| std::env::var(name).ok();
        let profile = self
            .profile
            .clone()
            .or_else(|| set(STRIPE_PROFILE_ID))
            .or_else(|| set(MPP_MERCHANT_ID))
            .filter(|profile| !profile.trim().is_empty())?;
        Some(TokenSettings {
            profile: profile.trim().to_owned(),
            param: match self.spt_param {
                SptParam::TopLevel => TokenParam::TopLevel,
                SptParam::PaymentMethodData => TokenParam::PaymentMethodData,
            },
            types: self.payment_method_types.clone(),
        })
    }
}

impl PlanSection {
    fn read(&self, section: &StripeSection) -> Result<PlanSettings, String> {
        let capabilities = self.sold()?;
        let checkout = self.checkout.as_ref();
        let item = match checkout.map(|checkout| checkout.line_items.as_slice()) {
            None => None,
            Some([item]) => Some(item),
            Some(_) => return Err("checkout.line_items must hold one price".to_owned()),
        };
        if self.price_id.is_some() && item.is_some() {
            return Err("priceId and checkout.line_items both name a price".to_owned());
        }
        let from_environment = || std::env::var(STRIPE_PRICE_ID).ok();
        let price = self
            .price_id
            .clone()
            .or_else(|| item.map(|item| item.price.clone()))
            .or_else(from_environment)
            .filter(|price| !price.trim().is_empty())
            .ok_or_else(|| {
                format!("priceId, checkout.line_items or {STRIPE_PRICE_ID} must name a price of Stripe's (price_…)")
            })?;
        let success_url = self
            .success_url
            .clone()
            .or_else(|| checkout?.success_url.clone())
            .or_else(|| section.success_url.clone())
            .ok_or("successUrl must say where whoever has paid is sent")?;
        let mode = self.mode.or_else(|| checkout?.mode);
        let mode = mode.map(|mode| match mode {
            Mode::Payment => PlanMode::Payment,
            Mode::Subscription => PlanMode::Subscription,
        });
        let amount = self.amount()?;
        let meter = self.meter()?;
        let past_due = self.past_due.unwrap_or(section.past_due);
        Ok(PlanSettings {
            name: self.name.clone(),
            capabilities,
            price: price.trim().to_owned(),
            former_prices: self.former_prices.clone(),
            mode,
            amount,
            quantity: self
                .quantity
                .or_else(|| item.and_then(|item| item.quantity))
                .unwrap_or(1),
            meter,
            success_url,
            cancel_url: self
                .cancel_url
                .clone()
                .or_else(|| checkout?.cancel_url.clone())
                .or_else(|| section.cancel_url.clone()),
            reason: self.payment_reason.clone(),
            past_due_counts: past_due == PastDue::Keep,
        })
    }

    /// What is sold.
    fn sold(&self) -> Result<Vec<Capability>, String> {
        let named = self.capability.iter().chain(&self.capabilities);
        let mut capabilities = named
            .map(|text| text.parse::<Capability>().map_err(|e| e.to_string()))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(tool) = &self.tool {
            let name = CapabilityPattern::literal(tool);
            let name = name.ok_or("tool: must be the name of a tool, without a *")?;
            let tool = Capability::new(method::TOOLS_CALL, Some(name));
            capabilities.push(tool.map_err(|error| error.to_string())?);
        }
        if capabilities.is_empty() {
            return Err("capability, capabilities or tool must say what is sold".to_owned());
        }
        Ok(capabilities)
    }

    /// What the config says that one costs.
    fn amount(&self) -> Result<Option<Amount>, String> {
        let Some(amount) = self.amount else {
            return Ok(None);
        };
        let unit = self.unit.as_deref().unwrap_or("usd-cents").parse();
        let unit = unit.map_err(|error: crate::Error| format!("unit: {error}"))?;
        let amount = Amount::new(amount, unit).map_err(|error| format!("amount: {error}"))?;
        Ok(Some(amount))
    }

    /// What is counted.
    fn meter(&self) -> Result<Option<Meter>, String> {
        if let Some(pointer) = &self.value_from
            && !pointer.starts_with('/')
        {
            return Err(
                "value_from must be a JSON pointer into the result, such as /structuredContent/tokens".to_owned(),
            );
        }
        if self.meter_event.is_none() && (self.value.is_some() || self.value_from.is_some()) {
            return Err(
                "value and value_from count for a meterEvent, and there is none".to_owned(),
            );
        }
        Ok(self.meter_event.as_ref().map(|event| Meter {
            event: event.clone(),
            value: self.value.unwrap_or(1),
            value_from: self.value_from.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> StripeSection {
        toml::from_str(text).unwrap()
    }

    fn plan(text: &str) -> Result<PlanSettings, String> {
        let section = section(text);
        section.plan[0].read(&section)
    }

    #[test]
    fn both_shapes_of_the_toolkit_say_the_same() {
        let first = plan(
            r#"
            [[plan]]
            tool = "wporg_query_themes"
            priceId = "price_1"
            successUrl = "https://example.com/success"
            meterEvent = "api_usage"
            paymentReason = "Payment required to use the search WordPress.org themes feature"
            "#,
        )
        .unwrap();
        let today = plan(
            r#"
            [[plan]]
            capability = "tool:wporg_query_themes"
            paymentReason = "Payment required to use the search WordPress.org themes feature"
            meterEvent = "api_usage"
            checkout = { success_url = "https://example.com/success", mode = "subscription", line_items = [{ price = "price_1" }] }
            "#,
        )
        .unwrap();
        for settings in [&first, &today] {
            assert_eq!(settings.price, "price_1");
            assert_eq!(settings.success_url, "https://example.com/success");
            assert_eq!(
                settings.capabilities[0].to_string(),
                "tool:wporg_query_themes"
            );
            assert_eq!(settings.meter.as_ref().unwrap().event, "api_usage");
            assert_eq!(settings.quantity, 1);
        }
        assert_eq!(first.reason, today.reason);
        assert_eq!(
            (first.mode, today.mode),
            (None, Some(PlanMode::Subscription))
        );
    }

    #[test]
    fn a_mistake_names_the_key_and_what_it_wants() {
        for (text, named) in [
            ("priceId = \"p\"", "capability"),
            ("tool = \"a\"\npriceId = \"p\"", "successUrl"),
            (
                "tool = \"a\"\nsuccessUrl = \"https://x\"",
                "STRIPE_PRICE_ID",
            ),
            ("tool = \"a*\"\npriceId = \"p\"", "tool"),
            (
                "tool = \"a\"\npriceId = \"p\"\nsuccessUrl = \"https://x\"\nvalue = 2",
                "meterEvent",
            ),
            (
                "tool = \"a\"\npriceId = \"p\"\nsuccessUrl = \"https://x\"\nmeterEvent = \"m\"\nvalue_from = \"tokens\"",
                "value_from",
            ),
            (
                "tool = \"a\"\ncheckout = { success_url = \"https://x\", line_items = [] }",
                "line_items",
            ),
        ] {
            let error = plan(&format!("[[plan]]\n{text}")).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
        assert!(toml::from_str::<StripeSection>("secret_key = \"sk_test_x\"").is_err());
    }
}
