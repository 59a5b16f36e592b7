//! `check`: which rule prices what, and what is left free, before anybody can call it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::in_sats;
use crate::gate::{Listed as Price, PriceList};
use crate::gateway::args::CheckArgs;
use crate::gateway::child::{Catalogue, ChildCommand, Children, Listed};
use crate::gateway::config::{LightningWallet, Selling};
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::output::{self, Paint, harmless};
use crate::gateway::{config, stripe_live, stripe_shop, wire_up};
use crate::ledger::BALANCE;
use crate::payment::{
    BITCOIN_LIGHTNING_BOLT11, CapabilityPattern, FAKE, OnFailure, PricedCapability,
    STRIPE_CHECKOUT_URL, STRIPE_SPT_DIRECT,
};

pub(super) async fn run(args: &CheckArgs) -> Outcome {
    let mut selling = config::selling(&args.selling)?;
    let mut stripe_mode = None;
    if let Some(stripe) = &selling.stripe {
        stripe_mode = Some(stripe_live::look(stripe, &config::ledger(args)?).await?);
        selling.plans = stripe_shop::plans(stripe).await?;
    }
    let prices = wire_up::price_list(&selling)?;
    print_entitlements(&selling, args.json);
    print_rails(&selling, stripe_mode.as_deref(), args.json);
    let Some(command) = ChildCommand::new(&args.command) else {
        without_server(&prices, args.json);
        return in_sats::print(&selling, &prices, args.json).await;
    };
    let children = Children::start(command, None).await?;
    let catalogue = Arc::clone(&children.catalogue().borrow());
    children.stop().await;
    let verdict = hold_against(&prices, &catalogue);
    verdict.print(args.json);
    let converted = in_sats::print(&selling, &prices, args.json).await;
    verdict.outcome().and(converted)
}

/// The ways of being paid, by what is configured: nobody is asked.
fn print_rails(selling: &Selling, stripe_mode: Option<&str>, as_json: bool) {
    let mut rails = Vec::new();
    match &selling.wallet {
        None => {}
        Some(LightningWallet::Nwc(wallet)) => {
            let (name, network) = (wallet.connection.wallet(), wallet.network);
            rails.push((
                BITCOIN_LIGHTNING_BOLT11,
                format!("NIP-47 wallet {name}, {network}"),
            ));
        }
        Some(LightningWallet::Lnbits(config)) => {
            rails.push((
                BITCOIN_LIGHTNING_BOLT11,
                format!("LNbits at {}", config.host()),
            ));
        }
    }
    if let Some(mode) = stripe_mode {
        rails.push((STRIPE_CHECKOUT_URL, format!("Stripe, {mode}")));
        let stripe = selling.stripe.as_ref();
        if stripe.is_some_and(|stripe| stripe.tokens.is_some()) {
            let by = format!("Stripe, {mode}; a token that comes with the call, encrypted");
            rails.push((STRIPE_SPT_DIRECT, by));
        }
    }
    if selling.fake.is_some() {
        rails.push((FAKE, "settles by itself, not money".to_owned()));
    }
    for (pmi, by) in &rails {
        if as_json {
            output::json(&json!({ "event": "rail", "pmi": pmi, "by": by }));
        } else {
            output::line(&format!("paid by  {pmi}  ({by})"));
        }
    }
    if rails.is_empty() && !selling.prices.is_empty() {
        output::remark(
            "there is no way to be paid yet: set NWC_CONNECTION, or LNBITS_URL and LNBITS_INVOICE_KEY, or have [rails.stripe], or say --allow-fake for a trial",
        );
    }
}

/// What may let a priced call through without paying, in the order in which it is asked.
fn print_entitlements(selling: &Selling, as_json: bool) {
    let mut asked = selling.entitling.described();
    if !selling.plans.is_empty() {
        let what = format!("what was bought at Stripe: {} plans", selling.plans.len());
        asked.push(("stripe", what));
    }
    if let Some(balance) = &selling.balance {
        let unit = balance.range.unit();
        let what = format!("the account of the client, where the price is in {unit} and covered");
        asked.push((BALANCE, what));
    }
    for (position, (name, what)) in asked.into_iter().enumerate() {
        if as_json {
            output::json(&json!({
                "event": "entitlement",
                "position": position + 1,
                "name": name,
                "what": what,
            }));
        } else {
            output::line(&format!("entitlement {}  {name}: {what}", position + 1));
        }
    }
}

/// Without a server there is only the list itself to check, and that is done.
fn without_server(prices: &PriceList, as_json: bool) {
    for entry in prices.entries() {
        if as_json {
            let mut line = rule(entry);
            line["event"] = "rule".into();
            output::json(&line);
        } else {
            output::line(&format!("{}  {}", entry.capability, terms(entry)));
        }
    }
    if !as_json {
        output::remark(
            "the rules are sound; to see what they price, add -- and the command of the server",
        );
    }
}

/// A rule for a program.
fn rule(entry: &PricedCapability) -> Value {
    json!({
        "capability": entry.capability.to_string(),
        "price": entry.price.to_string(),
        "on_failure": entry.on_failure.as_str(),
    })
}

/// Price and policy for people; the usual policy goes without saying.
fn terms(entry: &PricedCapability) -> String {
    match entry.on_failure {
        OnFailure::Restore => entry.price.to_string(),
        other => format!("{}, on failure {}", entry.price, other.as_str()),
    }
}

/// What is listed, with the rules that price it; then the rules that price nothing.
struct Verdict<'a> {
    listed: Vec<(&'a Listed, Priced)>,
    idle: Vec<Arc<PricedCapability>>,
}

enum Priced {
    Free,
    By(Arc<PricedCapability>),
    /// A template of which some instances are priced and others not, or not alike.
    InPart(Vec<Arc<PricedCapability>>),
    Unclear,
}

fn hold_against<'a>(prices: &PriceList, catalogue: &'a Catalogue) -> Verdict<'a> {
    let listed: Vec<(&Listed, Priced)> = catalogue
        .items()
        .iter()
        .map(|listed| (listed, price_of(prices, listed)))
        .collect();
    let idle = prices
        .entries()
        .iter()
        .filter(|entry| {
            let used = listed.iter().any(|(_, priced)| match priced {
                Priced::By(by) => Arc::ptr_eq(by, entry),
                Priced::InPart(by) => by.iter().any(|by| Arc::ptr_eq(by, entry)),
                Priced::Free | Priced::Unclear => false,
            });
            // A price on a whole method needs no item that is listed, only a server that knows the method.
            let whole = entry.capability.name.is_none()
                || crate::wire::method::listing(&list_of(&entry.capability.method)).is_none();
            // What the server sells itself is not on the child's lists.
            let own = !entry.waivable;
            !(own || used || whole && catalogue.declares(&entry.capability.method))
        })
        .cloned()
        .collect();
    Verdict { listed, idle }
}

/// The method that lists what `method` uses.
fn list_of(method: &str) -> String {
    format!("{}/list", method.split('/').next().unwrap_or_default())
}

fn price_of(prices: &PriceList, listed: &Listed) -> Priced {
    let of_template = if listed.is_template() {
        overlapping(prices, listed)
    } else {
        Vec::new()
    };
    match prices.find(listed.method, Some(&listed.name)) {
        Price::Priced(entry) if of_template.len() <= 1 => Priced::By(entry),
        Price::Free if of_template.is_empty() => Priced::Free,
        Price::Ambiguous => Priced::Unclear,
        Price::Priced(_) | Price::Free => Priced::InPart(of_template),
    }
}

/// The rules that price some instance of a URI template.
fn overlapping(prices: &PriceList, listed: &Listed) -> Vec<Arc<PricedCapability>> {
    let mut pattern = String::new();
    let mut in_braces = false;
    for c in listed.name.chars() {
        match c {
            '{' => {
                in_braces = true;
                pattern.push('*');
            }
            '}' => in_braces = false,
            c if !in_braces => pattern.push(c),
            _ => {}
        }
    }
    let Ok(pattern) = CapabilityPattern::new(&pattern) else {
        return Vec::new();
    };
    prices
        .entries()
        .iter()
        .filter(|entry| {
            let name = entry.capability.name.as_ref();
            entry.capability.method == listed.method
                && name.is_some_and(|name| name.overlaps(&pattern))
        })
        .cloned()
        .collect()
}

impl Verdict<'_> {
    fn print(&self, as_json: bool) {
        if as_json {
            self.print_json();
        } else {
            self.print_text();
        }
    }

    fn print_json(&self) {
        let mut free = 0;
        for (listed, priced) in &self.listed {
            let (status, rules) = match priced {
                Priced::Free => ("free", Vec::new()),
                Priced::By(entry) => ("priced", vec![rule(entry)]),
                Priced::InPart(entries) => {
                    ("in_part", entries.iter().map(|entry| rule(entry)).collect())
                }
                Priced::Unclear => ("refused", Vec::new()),
            };
            free += usize::from(status == "free");
            output::json(&json!({
                "event": "capability",
                "capability": listed.notation(),
                "status": status,
                "rules": rules,
            }));
        }
        for entry in &self.idle {
            output::json(&json!({ "event": "rule_without_match", "rule": rule(entry) }));
        }
        output::json(&json!({
            "event": "summary",
            "listed": self.listed.len(),
            "free": free,
            "rules_without_match": self.idle.len(),
        }));
    }

    fn print_text(&self) {
        let paint = Paint::stdout();
        let width = self
            .listed
            .iter()
            .map(|(listed, _)| listed.notation().chars().count())
            .max()
            .unwrap_or(0)
            .min(60);
        for (listed, priced) in &self.listed {
            let what = match priced {
                Priced::Free => paint.yellow("free"),
                Priced::By(entry) => {
                    paint.green(&format!("{}  by {}", terms(entry), entry.capability))
                }
                Priced::InPart(entries) => {
                    let rules: Vec<String> = entries
                        .iter()
                        .map(|entry| format!("{} by {}", terms(entry), entry.capability))
                        .collect();
                    paint.yellow(&format!("in part: {}", rules.join(", ")))
                }
                Priced::Unclear => paint.red("refused: its spellings have different prices"),
            };
            output::line(&format!("{:width$}  {what}", harmless(&listed.notation())));
        }
        for entry in &self.idle {
            let text = format!("{} prices nothing that the server lists", entry.capability);
            output::line(&paint.red(&text));
        }
    }

    fn outcome(&self) -> Outcome {
        if self.idle.is_empty() {
            return Ok(());
        }
        let rules: Vec<String> = self
            .idle
            .iter()
            .map(|entry| entry.capability.to_string())
            .collect();
        Err(Failure::failed(format!(
            "price: these rules match nothing: {}",
            rules.join(", ")
        )))
    }
}
