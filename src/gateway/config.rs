//! What is sold, for how much, and under which rules: flags beat the environment, which beats the file.
//!
//! Every mistake is found here, before anything is started, and names the key and what it wants.

mod entitlements;
mod file;
mod goods;
mod ledger;
mod lightning;
mod listen;
mod lnbits;
mod mpp;
mod pricing;
mod publishing;
mod rates;
mod stripe;
mod wallet;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::args::{CheckArgs, SellingArgs, ServeArgs, WalletArgs};
use super::child::Isolation;
use super::exit::{Failure, Outcome};
use crate::entitlement::stripe::Plan;
use crate::ledger::OpenLimits;
use crate::payment::{OnFailure, PaymentInteractionPolicy, PriceModel, PricedCapability};
use crate::transport::nostr::EncryptionMode;
use crate::transport::plain::http::HttpSettings;

pub(super) use self::entitlements::{Entitling, IssuerSettings, LicenceSettings, VerifyAt, client};
use self::file::{Fake, File};
pub(super) use self::goods::{BalanceSettings, SaleSettings};
pub(super) use self::ledger::LedgerPlace;
pub(super) use self::lightning::LightningWallet;
pub(super) use self::mpp::MppSettings;
pub(super) use self::publishing::Publishing;
pub(super) use self::rates::{Rates, RatesSection, rates};
pub(super) use self::stripe::{PlanSettings, StripeSettings, TokenSettings};

/// Where relays are named if no flag names them.
const RELAYS: &str = "TOLLKEEPER_RELAYS";
const DISCOVERY_RELAYS: &str = "TOLLKEEPER_DISCOVERY_RELAYS";
/// The longest that an offer may stand: a day.
const LONGEST_TTL: u64 = 24 * 60 * 60;
const DEFAULT_TTL: u64 = 600;
const DEFAULT_CHILDREN: usize = 32;
/// How long a child of one client may have nothing to do.
const CHILD_IDLE: Duration = Duration::from_secs(600);

/// What `serve` and `check` both work with.
#[derive(Debug)]
pub(super) struct Selling {
    pub(super) prices: Vec<PricedCapability>,
    pub(super) interaction: PaymentInteractionPolicy,
    pub(super) payment_ttl: Duration,
    pub(super) limits: OpenLimits,
    /// How many offers one client may ask for in a minute.
    pub(super) offers_per_minute: Option<u32>,
    /// What lets calls through without paying.
    pub(super) entitling: Entitling,
    /// How clients pay ahead, if they may.
    pub(super) balance: Option<BalanceSettings>,
    /// How licences are sold, if they are.
    pub(super) licence_sale: Option<SaleSettings>,
    /// The fake rail was allowed: how long its money travels.
    pub(super) fake: Option<Duration>,
    /// The wallet that takes payments by Lightning.
    pub(super) wallet: Option<LightningWallet>,
    /// At which rates prices in other money are charged.
    pub(super) rates: Rates,
    /// How offers are put to clients of MPP.
    pub(super) mpp: MppSettings,
    /// How Stripe is used, if it is.
    pub(super) stripe: Option<StripeSettings>,
    /// What its prices sell, once Stripe was asked for them.
    pub(super) plans: Vec<Plan>,
}

/// What `serve` works with.
#[derive(Debug)]
pub(super) struct Serving {
    pub(super) selling: Selling,
    pub(super) relays: Vec<String>,
    /// Serve the program that started this one.
    pub(super) stdio: bool,
    /// Serve over HTTP.
    pub(super) listen: Option<HttpSettings>,
    pub(super) encryption: EncryptionMode,
    pub(super) ledger: LedgerPlace,
    pub(super) key_by_flag: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) check_calls: bool,
    pub(super) isolation: Option<Isolation>,
    /// Where revocations and verification of our own licences are served.
    pub(super) licence_http: Option<SocketAddr>,
    pub(super) publishing: Publishing,
}

/// Reads what `check` needs.
pub(super) fn selling(args: &SellingArgs) -> Outcome<Selling> {
    let file = File::read(args.config.as_deref())?;
    merge_selling(args, &file)
}

/// The ledger that `check` is to look into.
pub(super) fn ledger(args: &CheckArgs) -> Outcome<LedgerPlace> {
    let file = File::read(args.selling.config.as_deref())?;
    LedgerPlace::find(args.ledger.as_deref(), &file)
}

/// Reads what `serve` needs.
pub(super) fn serving(args: &ServeArgs) -> Outcome<Serving> {
    let file = File::read(args.selling.config.as_deref())?;
    let selling = merge_selling(&args.selling, &file)?;
    if !selling.prices.is_empty()
        && selling.fake.is_none()
        && selling.wallet.is_none()
        && selling.stripe.is_none()
    {
        return Err(Failure::usage(
            "rails: something has a price, but there is no way to be paid: set NWC_CONNECTION to the connection of a \
             Lightning wallet (nostr+walletconnect://…), or LNBITS_URL and LNBITS_INVOICE_KEY, or have [rails.stripe], or say \
             --allow-fake for a trial without money",
        ));
    }
    let ledger = LedgerPlace::find(args.ledger.as_deref(), &file)?;
    let most = at_least_one("max_children", args.max_children.or(file.max_children))?;
    let listen = file.listen.read(args.listen)?;
    let stdio = args.stdio || file.stdio.unwrap_or(false);
    let named = file.relays.as_deref().unwrap_or_default();
    let relays = match stdio || listen.is_some() {
        true => known_relays(&args.relays, RELAYS, named)?,
        false => relays(&args.relays, named)?,
    };
    if stdio && args.json {
        return Err(Failure::usage(
            "--json: cannot be used with stdio, where stdout belongs to the client",
        ));
    }
    let isolate = args.isolate || file.isolate.unwrap_or(false);
    if most.is_some() && !isolate {
        return Err(Failure::usage(
            "max_children: counts the servers of single clients, which are started with isolate only",
        ));
    }
    let publishing = publishing::publishing(args, &file, &relays)?;
    Ok(Serving {
        selling,
        relays,
        stdio,
        listen,
        encryption: args.encryption.or(file.encryption).unwrap_or_default(),
        key_by_flag: args.secret_key_file.clone(),
        key_file: file.path(file.secret_key_file.as_deref()),
        ledger,
        check_calls: args.check_calls.or(file.check_calls).unwrap_or(true),
        isolation: isolate.then_some(Isolation {
            most: most.unwrap_or(DEFAULT_CHILDREN),
            idle: CHILD_IDLE,
        }),
        licence_http: file.licence_http,
        publishing,
    })
}

/// The wallet that a client pays with, if it has one.
pub(super) fn paying_wallet(args: &WalletArgs) -> Outcome<Option<LightningWallet>> {
    lightning::paying(args)
}

/// The relays to use: those of the flags, else those of the environment, else `otherwise`.
pub(super) fn relays(flags: &[String], otherwise: &[String]) -> Outcome<Vec<String>> {
    let relays = known_relays(flags, RELAYS, otherwise)?;
    if relays.is_empty() {
        return Err(Failure::usage(format!(
            "relays: at least one is needed: --relay URL, {RELAYS} or relays = [\"wss://…\"] in the config file; or --stdio or \
             --listen ADDRESS for clients without Nostr"
        )));
    }
    Ok(relays)
}

/// The relays that a client is told of, which may be none: those of the flags, else those of the environment, else
/// `otherwise`.
pub(super) fn client_relays(flags: &[String], otherwise: &[String]) -> Outcome<Vec<String>> {
    known_relays(flags, RELAYS, otherwise)
}

/// The relays to ask where a server is found, which may be none.
pub(super) fn discovery_relays(flags: &[String]) -> Outcome<Vec<String>> {
    known_relays(flags, DISCOVERY_RELAYS, &[])
}

fn known_relays(flags: &[String], variable: &str, otherwise: &[String]) -> Outcome<Vec<String>> {
    let set = std::env::var(variable).unwrap_or_default();
    let set: Vec<String> = set
        .split([',', ' ', '\n'])
        .filter(|url| !url.is_empty())
        .map(str::to_owned)
        .collect();
    let relays = [flags, &set, otherwise]
        .into_iter()
        .find(|relays| !relays.is_empty());
    addresses("relays", relays.unwrap_or_default())
}

fn addresses(key: &str, relays: &[String]) -> Outcome<Vec<String>> {
    for relay in relays {
        let address = relay
            .strip_prefix("wss://")
            .or_else(|| relay.strip_prefix("ws://"));
        if address.is_none_or(|address| address.is_empty() || address.contains(char::is_whitespace))
        {
            return Err(Failure::usage(format!(
                "{key}: {relay:?} must be an address that begins with wss:// or ws://"
            )));
        }
    }
    Ok(relays.to_vec())
}

fn merge_selling(args: &SellingArgs, file: &File) -> Outcome<Selling> {
    let ttl = args.payment_ttl.or(file.payment_ttl).unwrap_or(DEFAULT_TTL);
    if !(1..=LONGEST_TTL).contains(&ttl) {
        return Err(Failure::usage(format!(
            "payment_ttl: {ttl} must be a number of seconds from 1 to {LONGEST_TTL}"
        )));
    }
    if file.rails.fake.is_some() && !args.allow_fake {
        return Err(Failure::usage(
            "rails.fake: the fake rail is not money and must be allowed by --allow-fake",
        ));
    }
    let limits = OpenLimits::default();
    let per_client = args.pending_per_client.or(file.limits.pending_per_client);
    let total = args.pending_total.or(file.limits.pending_total);
    let prices = merge_prices(file.prices()?, &args.prices);
    needs_no_account(&prices, file)?;
    let rates = rates(&args.rates, &file.rates)?;
    // A wallet in the environment of a server that sells nothing is left alone, unless it is asked for by name.
    let wallet = lightning::selling(
        &args.wallet,
        &args.lnbits_webhook,
        &file.rails,
        !prices.is_empty(),
        |path| file.resolve(path),
    )?;
    Ok(Selling {
        prices,
        interaction: args
            .payment_interaction
            .or(file.payment_interaction)
            .unwrap_or(PaymentInteractionPolicy::Optional),
        payment_ttl: Duration::from_secs(ttl),
        limits: OpenLimits::new(
            at_least_one("limits.pending_per_client", per_client)?.unwrap_or(limits.per_client),
            at_least_one("limits.pending_total", total)?.unwrap_or(limits.total),
        ),
        offers_per_minute: match file.limits.offers_per_minute {
            Some(0) => {
                return Err(Failure::usage(
                    "limits.offers_per_minute: must be at least 1",
                ));
            }
            pace => pace,
        },
        entitling: entitlements::merge(args, file)?,
        balance: file
            .balance
            .as_ref()
            .map(|written| written.read())
            .transpose()?,
        licence_sale: file
            .licence_sale
            .as_ref()
            .map(|written| written.read())
            .transpose()?,
        fake: match (&file.rails.fake, args.allow_fake) {
            (_, false) => None,
            (Some(fake), true) => Some(fake.travels()?),
            (None, true) => Some(Fake::default().travels()?),
        },
        wallet,
        rates,
        mpp: MppSettings {
            enabled: args.mpp.unwrap_or(file.mpp.enabled),
            realm: args.mpp_realm.clone().or_else(|| file.mpp.realm.clone()),
            ..file.mpp
        },
        stripe: stripe::stripe(&args.stripe, file.rails.stripe.as_ref())?,
        plans: Vec::new(),
    })
}

/// A price on the command line replaces that of the same capability in the file. It does not replace the whole list:
/// then everything else would be free.
fn merge_prices(
    mut prices: Vec<PricedCapability>,
    flags: &[PricedCapability],
) -> Vec<PricedCapability> {
    prices.retain(|price| flags.iter().all(|flag| flag.capability != price.capability));
    prices.extend(flags.iter().cloned());
    prices
}

/// What is given back to an account needs accounts.
fn needs_no_account(prices: &[PricedCapability], file: &File) -> Outcome {
    if file.balance.is_some() {
        return Ok(());
    }
    for price in prices {
        let why = match (&price.model, price.on_failure) {
            (PriceModel::Metered(_), _) => "model: a price by use gives back what was not used",
            (_, OnFailure::Credit) => "on_failure: a call that fails is credited",
            _ => continue,
        };
        return Err(Failure::usage(format!(
            "price ({}): {why} to the client's account: have [balance]",
            price.capability
        )));
    }
    Ok(())
}

fn at_least_one(key: &str, value: Option<usize>) -> Outcome<Option<usize>> {
    match value {
        Some(0) => Err(Failure::usage(format!("{key}: must be at least 1"))),
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests;
