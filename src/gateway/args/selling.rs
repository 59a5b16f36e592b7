//! What is typed after `serve` and `check`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::wallet::WalletArgs;
use crate::payment::Margin;
use crate::payment::PaymentInteractionPolicy;
use crate::payment::PricedCapability;
use crate::transport::nostr::EncryptionMode;

#[derive(Debug, Args)]
pub(in crate::gateway) struct ServeArgs {
    #[command(flatten)]
    pub(in crate::gateway) selling: SellingArgs,
    /// A relay to be reached on; may be repeated [env: TOLLKEEPER_RELAYS]
    #[arg(long = "relay", value_name = "URL")]
    pub(in crate::gateway) relays: Vec<String>,
    /// Offer the server on stdin and stdout too, to the program that starts this one
    #[arg(long, conflicts_with = "json")]
    pub(in crate::gateway) stdio: bool,
    /// Offer the server over HTTP too (MCP's Streamable HTTP), at http://ADDRESS/mcp
    #[arg(long, value_name = "ADDRESS")]
    pub(in crate::gateway) listen: Option<SocketAddr>,
    /// Which messages may be in the clear: optional, required or disabled
    #[arg(long, value_name = "MODE")]
    pub(in crate::gateway) encryption: Option<EncryptionMode>,
    /// The file of the ledger, postgres://USER@HOST/DATABASE, or "memory" for a trial that forgets [env: TOLLKEEPER_LEDGER]
    /// [default: tollkeeper.db]
    #[arg(long, value_name = "FILE")]
    pub(in crate::gateway) ledger: Option<PathBuf>,
    /// A file with the secret key (nsec or hex); made beside the ledger if there is none
    #[arg(long, value_name = "FILE")]
    pub(in crate::gateway) secret_key_file: Option<PathBuf>,
    /// Refuse calls that cannot succeed (no such tool, an argument missing) instead of charging for them [default: true]
    #[arg(long, value_name = "BOOL")]
    pub(in crate::gateway) check_calls: Option<bool>,
    /// One child per client instead of one for all
    #[arg(long)]
    pub(in crate::gateway) isolate: bool,
    /// How many children may run at a time with --isolate
    #[arg(long, value_name = "N")]
    pub(in crate::gateway) max_children: Option<usize>,
    /// Announce the server, its capabilities and its prices on the relays
    #[arg(long)]
    pub(in crate::gateway) announce: bool,
    /// Publish on which relays the server is found [default: as --announce]
    #[arg(long, value_name = "BOOL")]
    pub(in crate::gateway) relay_list: Option<bool>,
    /// A relay to publish the announcement on as well; may be repeated
    #[arg(long = "bootstrap-relay", value_name = "URL")]
    pub(in crate::gateway) bootstrap_relays: Vec<String>,
    /// Publish a profile (kind 0) with the name and what else is announced
    #[arg(long)]
    pub(in crate::gateway) profile: bool,
    /// The name that is announced
    #[arg(long)]
    pub(in crate::gateway) name: Option<String>,
    /// What is announced about the server
    #[arg(long)]
    pub(in crate::gateway) about: Option<String>,
    /// The web site that is announced
    #[arg(long, value_name = "URL")]
    pub(in crate::gateway) website: Option<String>,
    /// The picture that is announced
    #[arg(long, value_name = "URL")]
    pub(in crate::gateway) picture: Option<String>,
    /// Print JSON, one object per line
    #[arg(long)]
    pub(in crate::gateway) json: bool,
    /// The MCP server to sell, with its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(in crate::gateway) command: Vec<String>,
}

/// What `serve` and `check` both need to know.
#[derive(Debug, Args)]
pub(in crate::gateway) struct SellingArgs {
    /// A config file in TOML; flags override it
    #[arg(long, value_name = "FILE")]
    pub(in crate::gateway) config: Option<PathBuf>,
    /// A price, such as 'tool:search=10 sat' or 'tool:search=10 sat, on_failure=keep'; may be repeated
    #[arg(long = "price", value_name = "CAPABILITY=AMOUNT")]
    pub(in crate::gateway) prices: Vec<PricedCapability>,
    /// How clients may pay: optional (as they ask) or transparent (only)
    #[arg(long, value_name = "POLICY", value_parser = policy)]
    pub(in crate::gateway) payment_interaction: Option<PaymentInteractionPolicy>,
    /// How long an offer stands, in seconds
    #[arg(long, value_name = "SECS")]
    pub(in crate::gateway) payment_ttl: Option<u64>,
    /// How many offers one client may have open
    #[arg(long, value_name = "N")]
    pub(in crate::gateway) pending_per_client: Option<usize>,
    /// How many offers may be open in all
    #[arg(long, value_name = "N")]
    pub(in crate::gateway) pending_total: Option<usize>,
    /// A client that pays nothing (npub or hex); may be repeated
    #[arg(long = "allow-client", value_name = "KEY")]
    pub(in crate::gateway) allow_clients: Vec<String>,
    /// A client that cannot buy (npub or hex); may be repeated
    #[arg(long = "deny-client", value_name = "KEY")]
    pub(in crate::gateway) deny_clients: Vec<String>,
    /// How many calls each client has free in a day
    #[arg(long, value_name = "N")]
    pub(in crate::gateway) free_per_day: Option<u32>,
    #[command(flatten)]
    pub(in crate::gateway) wallet: WalletArgs,
    #[command(flatten)]
    pub(in crate::gateway) lnbits_webhook: LnbitsWebhookArgs,
    #[command(flatten)]
    pub(in crate::gateway) rates: RateArgs,
    /// Put offers as challenges of MPP, too, and take credentials for them [default: true]
    #[arg(long, value_name = "BOOL")]
    pub(in crate::gateway) mpp: Option<bool>,
    /// In whose name challenges are made [default: nostr: and the server's key]
    #[arg(long, value_name = "REALM")]
    pub(in crate::gateway) mpp_realm: Option<String>,
    #[command(flatten)]
    pub(in crate::gateway) stripe: StripeArgs,
    /// Take the fake rail, which settles by itself and is not money
    #[arg(long)]
    pub(in crate::gateway) allow_fake: bool,
}

/// How Stripe is used, beside the section rails.stripe of the config file.
#[derive(Debug, Args)]
pub(in crate::gateway) struct StripeArgs {
    /// Listen here for the webhooks of Stripe, under /stripe/webhooks [env: STRIPE_WEBHOOK_SECRET, what they are signed with]
    #[arg(long, value_name = "ADDRESS")]
    pub(in crate::gateway) stripe_webhook: Option<SocketAddr>,
    /// Take a live key in STRIPE_SECRET_KEY, which moves money
    #[arg(long)]
    pub(in crate::gateway) stripe_live: bool,
}

/// Where LNbits may say that something was paid.
#[derive(Debug, Args)]
pub(in crate::gateway) struct LnbitsWebhookArgs {
    /// Listen here for a webhook of LNbits; without one, its websocket and look-ups do
    #[arg(long, value_name = "ADDRESS")]
    pub(in crate::gateway) lnbits_webhook_listen: Option<SocketAddr>,
    /// The address under which LNbits reaches that
    #[arg(long, value_name = "URL")]
    pub(in crate::gateway) lnbits_webhook_url: Option<String>,
}

/// At which rates prices in other money are charged in sats.
#[derive(Debug, Args)]
pub(in crate::gateway) struct RateArgs {
    /// What one bitcoin costs, such as 'usd=65000', or where that is written: 'usd=https://…#/USD', with a JSON pointer
    /// behind the #; may be repeated
    #[arg(long = "rate", value_name = "CURRENCY=RATE")]
    pub(in crate::gateway) rates: Vec<String>,
    /// What to believe of a rate from the web, such as 'usd=20000-200000'; may be repeated
    #[arg(long, value_name = "CURRENCY=LEAST-MOST")]
    pub(in crate::gateway) rate_between: Vec<String>,
    /// How old a rate from the web may be, in seconds; with an older one nothing is quoted [default: 600]
    #[arg(long, value_name = "SECS")]
    pub(in crate::gateway) rate_max_age: Option<u64>,
    /// What to add to a converted price, such as '1.5%' [default: 0%]
    #[arg(long, value_name = "PERCENT")]
    pub(in crate::gateway) rate_margin: Option<Margin>,
}

#[derive(Debug, Args)]
pub(in crate::gateway) struct CheckArgs {
    #[command(flatten)]
    pub(in crate::gateway) selling: SellingArgs,
    /// Print JSON, one object per line
    #[arg(long)]
    pub(in crate::gateway) json: bool,
    /// The MCP server to hold the prices against, with its arguments
    #[arg(last = true, value_name = "CMD")]
    pub(in crate::gateway) command: Vec<String>,
}

fn policy(word: &str) -> Result<PaymentInteractionPolicy, String> {
    match word {
        "optional" => Ok(PaymentInteractionPolicy::Optional),
        "transparent" => Ok(PaymentInteractionPolicy::Transparent),
        _ => Err("must be optional or transparent".to_owned()),
    }
}
