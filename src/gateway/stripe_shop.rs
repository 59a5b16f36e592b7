//! What is sold by Stripe, ready to be served: its plans with their prices, the page for single calls, and who keeps the books.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::config::{PlanSettings, Selling, StripeSettings, TokenSettings};
use super::exit::{Failure, Outcome};
use super::stripe_webhook;
use super::wire_up::Books;
use crate::entitlement::stripe::{Desk, DeskSettings, Plan, StripePlans};
use crate::error::{Error, Result};
use crate::payment::{Entitlement, PaymentProcessor};
use crate::rails::stripe::{
    PlanMode, SharedTokenProcessor, StripeCheckout, StripeClient, StripeError, StripePrice,
    TokenCharger, currency_of,
};

/// How long a start waits for Stripe to tell a price that the config does not.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_secs(1);

/// What Stripe sells here.
pub(super) struct StripeShop {
    desk: Arc<Desk>,
    pub(super) plans: Arc<dyn Entitlement>,
    /// The page for single calls, if they are sold.
    pub(super) checkout: Option<Arc<dyn PaymentProcessor>>,
    /// Shared payment tokens, if they are taken.
    pub(super) tokens: Option<Arc<dyn PaymentProcessor>>,
}

/// The plans of `settings`, with what Stripe knows of their prices.
pub(super) async fn plans(settings: &StripeSettings) -> Outcome<Vec<Plan>> {
    let client = StripeClient::new(&settings.config)?;
    let mut plans = Vec::new();
    for (at, plan) in settings.plans.iter().enumerate() {
        let named = |what: String| {
            Failure::usage(format!(
                "rails.stripe.plan number {} ({}): {what}",
                at + 1,
                plan.price
            ))
        };
        let price = price_of(&client, plan, &named).await?;
        plans.push(plan_of(plan, price).map_err(|error| named(error.to_string()))?);
    }
    Ok(plans)
}

/// The price of `plan`: as Stripe says, held against the config. While Stripe cannot be reached, as the config says, if it says
/// everything.
async fn price_of(
    client: &StripeClient,
    plan: &PlanSettings,
    wrong: &impl Fn(String) -> Failure,
) -> Outcome<(PlanMode, crate::payment::Amount)> {
    let told = plan.mode.zip(plan.amount.clone());
    match ask_for_price(client, &plan.price, told.is_none()).await {
        Ok(price) => {
            let mode = agreed_mode(plan.mode, price.mode);
            let mode = mode.ok_or_else(|| wrong("mode: the price charges otherwise".to_owned()))?;
            let amount = match (plan.amount.clone(), price.amount) {
                (Some(told), Some(found)) if told != found => {
                    let what = format!("amount: the config says {told}, and Stripe {found}");
                    return Err(wrong(what));
                }
                (told, found) => found.or(told),
            };
            let amount = amount.ok_or_else(|| {
                wrong(
                    "amount: the price is a scale; say what buyers are to see as the price of one"
                        .to_owned(),
                )
            })?;
            Ok((mode, amount))
        }
        Err(error) if error.may_pass() => match told {
            Some((mode, amount)) => {
                tracing::error!(
                    price = plan.price,
                    error = &error as &dyn std::error::Error,
                    "Stripe does not answer; the price is as the config says"
                );
                Ok((mode, amount))
            }
            None => Err(Failure::failed(format!(
                "rails.stripe.plan: Stripe cannot be asked for the price {}: {error}; with mode, amount and unit in the \
                 config the server starts without it",
                plan.price
            ))),
        },
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// What the price is; the config's "subscription" leaves open whether it is metered.
fn agreed_mode(told: Option<PlanMode>, found: PlanMode) -> Option<PlanMode> {
    match (told, found) {
        (None, found) => Some(found),
        (Some(PlanMode::Subscription), PlanMode::Metered) => Some(PlanMode::Metered),
        (Some(told), found) => (told == found).then_some(found),
    }
}

async fn ask_for_price(
    client: &StripeClient,
    id: &str,
    patient: bool,
) -> Result<StripePrice, StripeError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.price(id).await {
            Err(error) if patient && error.may_pass() && Instant::now() < deadline => {
                tracing::warn!(
                    price = id,
                    error = &error as &dyn std::error::Error,
                    "waiting for Stripe to tell a price"
                );
                sleep(PAUSE).await;
            }
            answered => return answered,
        }
    }
}

fn plan_of(
    settings: &PlanSettings,
    (mode, amount): (PlanMode, crate::payment::Amount),
) -> Result<Plan> {
    if mode == PlanMode::Metered && settings.meter.is_none() {
        return Err(Error::config(
            "meterEvent: the price is metered; say which event is counted",
        ));
    }
    let first = settings.capabilities.first().map(ToString::to_string);
    // What is bought for good is bought for each tool; a subscription is good for all that its price sells.
    let name = match (&settings.name, mode) {
        (Some(name), _) => name.clone(),
        (None, PlanMode::Payment) => first.unwrap_or_default(),
        (None, _) => settings.price.clone(),
    };
    let price = (settings.price.as_str(), mode, amount);
    let capabilities = settings.capabilities.clone();
    let mut plan = Plan::new(&name, capabilities, price, &settings.success_url)?
        .quantity(settings.quantity)
        .former_prices(settings.former_prices.clone())
        .past_due_counts(settings.past_due_counts);
    if let Some(meter) = &settings.meter {
        plan = plan.meter(meter.clone());
    }
    if let Some(url) = &settings.cancel_url {
        plan = plan.cancel_url(url)?;
    }
    if let Some(reason) = &settings.reason {
        plan = plan.reason(reason);
    }
    Ok(plan)
}

impl StripeShop {
    /// What `selling` sells by Stripe, with `books`; `None` if it does not. Asks Stripe whether it knows the key.
    pub(super) async fn open(selling: &Selling, books: &Books) -> Outcome<Option<Self>> {
        let Some(settings) = &selling.stripe else {
            return Ok(None);
        };
        let client = StripeClient::new(&settings.config)?;
        greet(&client).await?;
        let desk_settings = DeskSettings {
            page_ttl: settings.page_ttl,
            limits: selling.limits,
            as_result: settings.as_result,
            ..DeskSettings::default()
        };
        let purchases = Arc::clone(&books.purchases);
        let mut desk = Desk::new(client.clone(), purchases, selling.plans.clone())
            .settings(desk_settings)
            .with_ledger(Arc::clone(&books.ledger))
            .with_licences(Arc::clone(&books.licences));
        let tokens = settings
            .tokens
            .as_ref()
            .map(|tokens| shared_tokens(client.clone(), tokens))
            .transpose()?;
        let checkout = match (&settings.success_url, sells_calls(selling)) {
            (Some(url), true) => {
                let mut checkout = StripeCheckout::new(client, url)?;
                if let Some(url) = &settings.cancel_url {
                    checkout = checkout.cancel_url(url)?;
                }
                desk = desk.with_hints(checkout.hints());
                Some(Arc::new(checkout) as Arc<dyn PaymentProcessor>)
            }
            _ => None,
        };
        let desk = Arc::new(desk);
        Ok(Some(Self {
            plans: Arc::new(StripePlans::new(Arc::clone(&desk))?),
            desk,
            checkout,
            tokens,
        }))
    }

    /// Keeps the books true and hears webhooks, from now on until `stop`.
    pub(super) async fn keep(
        &self,
        settings: &StripeSettings,
        stop: &CancellationToken,
    ) -> Outcome {
        tokio::spawn(Arc::clone(&self.desk).keep(stop.clone()));
        let Some(address) = settings.webhook else {
            tracing::warn!(
                "no webhook of Stripe is listened for (--stripe-webhook): payments are found by asking, which takes longer"
            );
            return Ok(());
        };
        let secrets = settings.webhook_secrets.clone();
        if secrets.is_none() {
            tracing::error!(
                "STRIPE_WEBHOOK_SECRET is not set: every webhook is answered with 503 until it is"
            );
        }
        let desk = Arc::clone(&self.desk);
        let bound = stripe_webhook::serve(address, secrets, desk, stop.clone()).await?;
        tracing::info!(address = %bound, "listening for the webhooks of Stripe");
        Ok(())
    }
}

/// Shared payment tokens as a way of paying by challenge.
fn shared_tokens(
    client: StripeClient,
    settings: &TokenSettings,
) -> Result<Arc<dyn PaymentProcessor>> {
    let charger = TokenCharger::new(client).token_param(settings.param);
    let mut tokens = SharedTokenProcessor::new(charger, &settings.profile)?;
    if let Some(types) = &settings.types {
        tokens = tokens.payment_method_types(types.clone())?;
    }
    Ok(Arc::new(tokens))
}

/// Whether single calls are sold at a price in money that Stripe takes.
fn sells_calls(selling: &Selling) -> bool {
    let in_currency = |unit: &crate::payment::Unit| currency_of(unit).is_some();
    let top_up = selling.balance.as_ref().map(|b| b.range.unit());
    let licence = selling.licence_sale.as_ref().map(|s| s.price.unit());
    let calls = selling.prices.iter().map(|price| price.price.unit());
    calls.chain(top_up).chain(licence).any(in_currency)
}

/// An answer that no is final; silence may pass.
async fn greet(client: &StripeClient) -> Outcome {
    match client.check_key().await {
        Ok(()) => {
            tracing::info!(live = client.is_live(), "Stripe knows the key");
            Ok(())
        }
        Err(error) if error.is_about_the_key() => Err(Failure::usage(format!(
            "STRIPE_SECRET_KEY: Stripe: {error}"
        ))),
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "Stripe does not answer; until it does, nothing can be bought by it"
            );
            Ok(())
        }
    }
}
