//! The command line as it is typed. Nothing here does I/O; what the words mean together is decided in
//! [`config`](super::config) and in the commands.
//!
//! Secrets have no flags: whoever lists processes would see them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::client::ledger::{AttemptId, AttemptState};
use crate::client::policy::Advertised;
use crate::payment::{
    Amount, Margin, PaymentInteraction, PaymentInteractionPolicy, PricedCapability,
};
use crate::rails::lightning::Network;
use crate::rails::lightning::fake_wallet::SWITCHES;
use crate::transport::nostr::EncryptionMode;

/// Sell any MCP server over Nostr relays, and buy from one.
#[derive(Debug, Parser)]
#[command(name = "tollkeeper", version, about, max_term_width = 100)]
pub(super) struct Cli {
    /// What to log on stderr: a level (error, warn, info, debug, trace) or a filter
    #[arg(long, global = true, value_name = "FILTER", env = "TOLLKEEPER_LOG")]
    pub(super) log: Option<String>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show a paid call end to end in one process: a relay, a paid server, a paying client
    Demo(DemoArgs),
    /// Sell a stdio MCP server
    Serve(Box<ServeArgs>),
    /// Offer a paid remote server as a local stdio MCP server
    Connect(ConnectArgs),
    /// Make one call, paid if the budget allows
    Call(CallArgs),
    /// Show what a server offers, for how much, and how it is paid
    Inspect(InspectArgs),
    /// Show which servers announce themselves on relays, and their prices
    Discover(DiscoverArgs),
    /// Run a relay for development
    Relay(RelayArgs),
    /// Run wallets for development
    Wallet {
        #[command(subcommand)]
        command: WalletCommand,
    },
    /// Show which rule prices what, and what is left free
    Check(CheckArgs),
    /// Issue, list and take back licences of our own
    Licence(LicenceArgs),
    /// Read the books
    Ledger(LedgerArgs),
    /// Show what was spent, and what is held for payments whose outcome is unknown
    Spending(SpendingArgs),
    /// List, verify and hand out receipts of what was paid
    Receipts(ReceiptsArgs),
}

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Print JSON, one object per line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    pub(super) selling: SellingArgs,
    /// A relay to be reached on; may be repeated [env: TOLLKEEPER_RELAYS]
    #[arg(long = "relay", value_name = "URL")]
    pub(super) relays: Vec<String>,
    /// Offer the server on stdin and stdout too, to the program that starts this one
    #[arg(long, conflicts_with = "json")]
    pub(super) stdio: bool,
    /// Offer the server over HTTP too (MCP's Streamable HTTP), at http://ADDRESS/mcp
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Option<SocketAddr>,
    /// Which messages may be in the clear: optional, required or disabled
    #[arg(long, value_name = "MODE")]
    pub(super) encryption: Option<EncryptionMode>,
    /// The file of the ledger, postgres://USER@HOST/DATABASE, or "memory" for a trial that forgets [env: TOLLKEEPER_LEDGER]
    /// [default: tollkeeper.db]
    #[arg(long, value_name = "FILE")]
    pub(super) ledger: Option<PathBuf>,
    /// A file with the secret key (nsec or hex); made beside the ledger if there is none
    #[arg(long, value_name = "FILE")]
    pub(super) secret_key_file: Option<PathBuf>,
    /// Refuse calls that cannot succeed (no such tool, an argument missing) instead of charging for them [default: true]
    #[arg(long, value_name = "BOOL")]
    pub(super) check_calls: Option<bool>,
    /// One child per client instead of one for all
    #[arg(long)]
    pub(super) isolate: bool,
    /// How many children may run at a time with --isolate
    #[arg(long, value_name = "N")]
    pub(super) max_children: Option<usize>,
    /// Announce the server, its capabilities and its prices on the relays
    #[arg(long)]
    pub(super) announce: bool,
    /// Publish on which relays the server is found [default: as --announce]
    #[arg(long, value_name = "BOOL")]
    pub(super) relay_list: Option<bool>,
    /// A relay to publish the announcement on as well; may be repeated
    #[arg(long = "bootstrap-relay", value_name = "URL")]
    pub(super) bootstrap_relays: Vec<String>,
    /// Publish a profile (kind 0) with the name and what else is announced
    #[arg(long)]
    pub(super) profile: bool,
    /// The name that is announced
    #[arg(long)]
    pub(super) name: Option<String>,
    /// What is announced about the server
    #[arg(long)]
    pub(super) about: Option<String>,
    /// The web site that is announced
    #[arg(long, value_name = "URL")]
    pub(super) website: Option<String>,
    /// The picture that is announced
    #[arg(long, value_name = "URL")]
    pub(super) picture: Option<String>,
    /// Print JSON, one object per line
    #[arg(long)]
    pub(super) json: bool,
    /// The MCP server to sell, with its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(super) command: Vec<String>,
}

/// What `serve` and `check` both need to know.
#[derive(Debug, Args)]
pub(super) struct SellingArgs {
    /// A config file in TOML; flags override it
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// A price, such as 'tool:search=10 sat' or 'tool:search=10 sat, on_failure=keep'; may be repeated
    #[arg(long = "price", value_name = "CAPABILITY=AMOUNT")]
    pub(super) prices: Vec<PricedCapability>,
    /// How clients may pay: optional (as they ask) or transparent (only)
    #[arg(long, value_name = "POLICY", value_parser = policy)]
    pub(super) payment_interaction: Option<PaymentInteractionPolicy>,
    /// How long an offer stands, in seconds
    #[arg(long, value_name = "SECS")]
    pub(super) payment_ttl: Option<u64>,
    /// How many offers one client may have open
    #[arg(long, value_name = "N")]
    pub(super) pending_per_client: Option<usize>,
    /// How many offers may be open in all
    #[arg(long, value_name = "N")]
    pub(super) pending_total: Option<usize>,
    /// A client that pays nothing (npub or hex); may be repeated
    #[arg(long = "allow-client", value_name = "KEY")]
    pub(super) allow_clients: Vec<String>,
    /// A client that cannot buy (npub or hex); may be repeated
    #[arg(long = "deny-client", value_name = "KEY")]
    pub(super) deny_clients: Vec<String>,
    /// How many calls each client has free in a day
    #[arg(long, value_name = "N")]
    pub(super) free_per_day: Option<u32>,
    #[command(flatten)]
    pub(super) wallet: WalletArgs,
    #[command(flatten)]
    pub(super) lnbits_webhook: LnbitsWebhookArgs,
    #[command(flatten)]
    pub(super) rates: RateArgs,
    /// Put offers as challenges of MPP, too, and take credentials for them [default: true]
    #[arg(long, value_name = "BOOL")]
    pub(super) mpp: Option<bool>,
    /// In whose name challenges are made [default: nostr: and the server's key]
    #[arg(long, value_name = "REALM")]
    pub(super) mpp_realm: Option<String>,
    #[command(flatten)]
    pub(super) stripe: StripeArgs,
    /// Take the fake rail, which settles by itself and is not money
    #[arg(long)]
    pub(super) allow_fake: bool,
}

/// How Stripe is used, beside the section rails.stripe of the config file.
#[derive(Debug, Args)]
pub(super) struct StripeArgs {
    /// Listen here for the webhooks of Stripe, under /stripe/webhooks [env: STRIPE_WEBHOOK_SECRET, what they are signed with]
    #[arg(long, value_name = "ADDRESS")]
    pub(super) stripe_webhook: Option<SocketAddr>,
    /// Take a live key in STRIPE_SECRET_KEY, which moves money
    #[arg(long)]
    pub(super) stripe_live: bool,
}

/// Which Lightning wallet is paid, or pays.
#[derive(Debug, Args)]
pub(super) struct WalletArgs {
    /// A file with the wallet's NIP-47 connection (nostr+walletconnect://…) [env: NWC_CONNECTION, the connection itself]
    #[arg(long, value_name = "FILE")]
    pub(super) nwc_connection_file: Option<PathBuf>,
    /// The network of the wallet: mainnet, or testnet, signet or regtest, whose coins are not money [default: mainnet]
    #[arg(long, value_name = "NETWORK")]
    pub(super) lightning_network: Option<Network>,
    #[command(flatten)]
    pub(super) lnbits: LnbitsArgs,
}

/// Which LNbits wallet is paid, or pays.
#[derive(Debug, Args)]
pub(super) struct LnbitsArgs {
    /// Where an LNbits server is, whose wallet to use [env: LNBITS_URL]
    #[arg(long, value_name = "URL")]
    pub(super) lnbits_url: Option<String>,
    /// A file with a key of the LNbits wallet: the invoice key to sell, the admin key to buy [env: LNBITS_INVOICE_KEY and
    /// LNBITS_ADMIN_KEY, the keys themselves]
    #[arg(long, value_name = "FILE")]
    pub(super) lnbits_key_file: Option<PathBuf>,
}

/// Where LNbits may say that something was paid.
#[derive(Debug, Args)]
pub(super) struct LnbitsWebhookArgs {
    /// Listen here for a webhook of LNbits; without one, its websocket and look-ups do
    #[arg(long, value_name = "ADDRESS")]
    pub(super) lnbits_webhook_listen: Option<SocketAddr>,
    /// The address under which LNbits reaches that
    #[arg(long, value_name = "URL")]
    pub(super) lnbits_webhook_url: Option<String>,
}

/// At which rates prices in other money are charged in sats.
#[derive(Debug, Args)]
pub(super) struct RateArgs {
    /// What one bitcoin costs, such as 'usd=65000', or where that is written: 'usd=https://…#/USD', with a JSON pointer
    /// behind the #; may be repeated
    #[arg(long = "rate", value_name = "CURRENCY=RATE")]
    pub(super) rates: Vec<String>,
    /// What to believe of a rate from the web, such as 'usd=20000-200000'; may be repeated
    #[arg(long, value_name = "CURRENCY=LEAST-MOST")]
    pub(super) rate_between: Vec<String>,
    /// How old a rate from the web may be, in seconds; with an older one nothing is quoted [default: 600]
    #[arg(long, value_name = "SECS")]
    pub(super) rate_max_age: Option<u64>,
    /// What to add to a converted price, such as '1.5%' [default: 0%]
    #[arg(long, value_name = "PERCENT")]
    pub(super) rate_margin: Option<Margin>,
}

/// What every command that talks to a server needs to know.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// The server: npub, nprofile or hex
    pub(super) server: String,
    #[command(flatten)]
    pub(super) link: LinkArgs,
}

/// How a server is reached.
#[derive(Debug, Clone, Args)]
pub(super) struct LinkArgs {
    /// A relay to reach it on; may be repeated [env: TOLLKEEPER_RELAYS]
    #[arg(long = "relay", value_name = "URL")]
    pub(super) relays: Vec<String>,
    /// A relay to ask where the server is found, if no other is known; may be repeated [env: TOLLKEEPER_DISCOVERY_RELAYS]
    #[arg(long = "discovery-relay", value_name = "URL")]
    pub(super) discovery_relays: Vec<String>,
    /// Which messages are encrypted: optional (all that the server allows), required or disabled
    #[arg(long, value_name = "MODE", default_value = "optional")]
    pub(super) encryption: EncryptionMode,
    /// A file with the secret key (nsec or hex); made in TOLLKEEPER_HOME if there is none
    #[arg(long, value_name = "FILE")]
    pub(super) secret_key_file: Option<PathBuf>,
    /// How long to wait for an answer, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) timeout: u64,
}

/// What every command that may pay needs to know.
#[derive(Debug, Args)]
pub(super) struct PayingArgs {
    /// The most that this run may spend, such as '100 sats'
    #[arg(long, value_name = "AMOUNT", default_value = "0 sats")]
    pub(super) budget: Amount,
    /// The most that one call may cost [default: the budget]
    #[arg(long, value_name = "AMOUNT")]
    pub(super) per_call: Option<Amount>,
    #[command(flatten)]
    pub(super) policy: PolicyArgs,
    /// Pay what explicit gating offers too, instead of showing the offer
    #[arg(long)]
    pub(super) pay: bool,
    /// How payments are tied to calls: transparent or explicit_gating
    #[arg(long, value_name = "LIFECYCLE")]
    pub(super) payment_interaction: Option<PaymentInteraction>,
    /// A file with a licence of the server; it is only sent encrypted
    #[arg(long, value_name = "FILE")]
    pub(super) licence_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) wallet: WalletArgs,
    /// Pay by the fake rail, which is not money
    #[arg(long)]
    pub(super) allow_fake: bool,
}

/// The policy, beside its file (policy.toml in TOLLKEEPER_HOME), whose keys these flags replace.
#[derive(Debug, Args)]
pub(super) struct PolicyArgs {
    /// The most that may be spent in any hour, by all runs together
    #[arg(long, value_name = "AMOUNT")]
    pub(super) per_hour: Option<Amount>,
    /// The most that may be spent in any day, by all runs together
    #[arg(long, value_name = "AMOUNT")]
    pub(super) per_day: Option<Amount>,
    /// The most that may ever be spent, by all runs together
    #[arg(long, value_name = "AMOUNT")]
    pub(super) total: Option<Amount>,
    /// Ask a person about every payment above this
    #[arg(long, value_name = "AMOUNT")]
    pub(super) ask_above: Option<Amount>,
    /// How long that person has, in seconds; then the answer is no [default: 60]
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(super) ask_timeout: Option<u64>,
    /// How many payments one call may make until it is answered [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(super) max_payments: Option<u32>,
    /// How many payments in a row a server may take without a result; 0 for any number [default: 3]
    #[arg(long, value_name = "N")]
    pub(super) breaker: Option<u32>,
    /// What advertised prices mean: off, seen (never more, where one was seen) or required [default: seen]
    #[arg(long, value_name = "RULE")]
    pub(super) advertised: Option<Advertised>,
    /// Pay this server only; may be repeated
    #[arg(long = "allow-server", value_name = "SERVER")]
    pub(super) allow: Vec<String>,
    /// Never pay this server; may be repeated
    #[arg(long = "deny-server", value_name = "SERVER")]
    pub(super) deny: Vec<String>,
    #[command(flatten)]
    pub(super) rates: RateArgs,
}

#[derive(Debug, Args)]
pub(super) struct ConnectArgs {
    /// The server: npub, nprofile or hex
    #[arg(
        value_name = "SERVER",
        required_unless_present = "servers",
        conflicts_with = "servers"
    )]
    pub(super) server: Option<String>,
    /// One of several servers, with the name that its tools are prefixed with; may be repeated
    #[arg(long = "server", value_name = "NAME=SERVER")]
    pub(super) servers: Vec<String>,
    #[command(flatten)]
    pub(super) link: LinkArgs,
    #[command(flatten)]
    pub(super) paying: PayingArgs,
}

#[derive(Debug, Args)]
pub(super) struct CallArgs {
    #[command(flatten)]
    pub(super) server: ServerArgs,
    /// What to call: tool:NAME, prompt:NAME or resource:URI
    pub(super) capability: String,
    /// Its arguments: JSON where they parse as JSON, else text
    #[arg(value_name = "KEY=VALUE")]
    pub(super) arguments: Vec<String>,
    #[command(flatten)]
    pub(super) paying: PayingArgs,
    /// Print JSON, one object per line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    #[command(flatten)]
    pub(super) server: ServerArgs,
    /// Print JSON, one object per line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DiscoverArgs {
    /// A relay to look on; may be repeated [env: TOLLKEEPER_RELAYS]
    #[arg(long = "relay", value_name = "URL")]
    pub(super) relays: Vec<String>,
    /// How long to wait for the relays, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(super) timeout: u64,
    /// Print JSON, one object per line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RelayArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7777")]
    pub(super) listen: SocketAddr,
    /// Print JSON, one object per line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum WalletCommand {
    /// Two Lightning wallets, seller and buyer, that settle each other's invoices; they are not money
    Fake(FakeWalletArgs),
}

#[derive(Debug, Args)]
pub(super) struct FakeWalletArgs {
    /// A relay on which the wallets are reached; may be repeated [env: TOLLKEEPER_RELAYS]
    #[arg(long = "relay", value_name = "URL")]
    pub(super) relays: Vec<String>,
    /// What each wallet holds at first
    #[arg(long, value_name = "AMOUNT", default_value = "100000 sats")]
    pub(super) balance: Amount,
    /// The network of the invoices: regtest, simnet, signet, testnet or mainnet (nobody else can settle them on any)
    #[arg(long, value_name = "NETWORK", default_value = "regtest")]
    pub(super) network: Network,
    /// Write the connection URIs to seller.nwc and buyer.nwc in this folder instead of printing them
    #[arg(long, value_name = "FOLDER")]
    pub(super) dir: Option<PathBuf>,
    /// Let the wallets fail, such as 'seller:mute=make_invoice' or, for both, 'notifications=none'; may be repeated
    #[arg(long = "fault", value_name = "[WALLET:]FAULT", long_help = fault_help())]
    pub(super) faults: Vec<String>,
    /// Print JSON, one object per line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) selling: SellingArgs,
    /// The file of the ledger, or postgres://USER@HOST/DATABASE, which remembers whether a live key of Stripe may be used [env:
    /// TOLLKEEPER_LEDGER] [default: tollkeeper.db]
    #[arg(long, value_name = "FILE")]
    pub(super) ledger: Option<PathBuf>,
    /// Print JSON, one object per line
    #[arg(long)]
    pub(super) json: bool,
    /// The MCP server to hold the prices against, with its arguments
    #[arg(last = true, value_name = "CMD")]
    pub(super) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct LicenceArgs {
    #[command(subcommand)]
    pub(super) command: LicenceCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum LicenceCommand {
    /// Issue a licence to one client, and print it
    Issue {
        #[command(flatten)]
        file: LicenceFile,
        /// The client that alone can use it (npub or hex)
        #[arg(long, value_name = "KEY")]
        client: String,
        /// For how many days
        #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
        /// What it is good for, such as 'tool:*'; may be repeated [default: everything]
        #[arg(long, value_name = "CAPABILITY")]
        covers: Vec<String>,
        /// Sign it with the server's own key, so that anybody can verify it
        #[arg(long)]
        public: bool,
    },
    /// Take a licence back
    Revoke {
        /// Its name
        id: String,
        #[command(flatten)]
        file: LicenceFile,
    },
    /// List the licences that were issued
    List {
        #[command(flatten)]
        file: LicenceFile,
    },
    /// Make a new signing key; licences of earlier keys still count
    Rotate {
        #[command(flatten)]
        file: LicenceFile,
    },
    /// Verify a public licence, of any server: offline, or with a relay also whether it was taken back
    Verify(VerifyLicenceArgs),
}

#[derive(Debug, Args)]
pub(super) struct VerifyLicenceArgs {
    /// The file with the licence
    pub(super) file: PathBuf,
    /// The server that it must be for (npub, nprofile or hex) [default: the one that signed it]
    #[arg(long, value_name = "SERVER")]
    pub(super) server: Option<String>,
    /// The client that it must be for (npub or hex) [default: the one that it names]
    #[arg(long, value_name = "KEY")]
    pub(super) client: Option<String>,
    /// A relay of the server, to ask whether the licence was taken back; may be repeated
    #[arg(long = "relay", value_name = "URL")]
    pub(super) relays: Vec<String>,
    /// How long the relays may take, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) timeout: u64,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct LicenceFile {
    /// The file of the server's ledger [default: tollkeeper.db]
    #[arg(long, value_name = "FILE")]
    pub(super) ledger: Option<PathBuf>,
    /// A file with the server's secret key (nsec or hex) [default: beside the ledger]
    #[arg(long, value_name = "FILE")]
    pub(super) secret_key_file: Option<PathBuf>,
    /// Print JSON, one object per line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct LedgerArgs {
    #[command(subcommand)]
    pub(super) command: LedgerCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum LedgerCommand {
    /// List entries, oldest first
    List {
        #[command(flatten)]
        file: LedgerFile,
        /// Only entries in this state; may be repeated
        #[arg(long, value_name = "STATE", action = ArgAction::Append)]
        state: Vec<crate::ledger::EntryState>,
    },
    /// List priced calls that were not paid for, and why, oldest first
    Free {
        #[command(flatten)]
        file: LedgerFile,
        /// Only this client (npub or hex)
        #[arg(long, value_name = "KEY")]
        client: Option<String>,
    },
    /// List what clients have paid ahead, or how the account of one client moved
    Balance {
        #[command(flatten)]
        file: LedgerFile,
        /// The statement of this client (npub or hex)
        #[arg(long, value_name = "KEY")]
        client: Option<String>,
        /// In this unit
        #[arg(long, value_name = "UNIT", default_value = "sats")]
        unit: crate::payment::Unit,
    },
    /// Add up what came in, by capability, client, rail and day
    Report(ReportArgs),
    /// Write out every priced call, for other programs
    Export(ExportArgs),
    /// Tell the story of one payment, or why a call was free
    Show {
        /// The event id of the request that was to be paid, or of the one that was executed; its first 8 digits are enough
        id: String,
        #[command(flatten)]
        file: LedgerFile,
    },
}

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    #[command(flatten)]
    pub(super) file: LedgerFile,
    /// What to tell apart: capability, client, rail, day; several with commas [default: capability,rail]
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_parser = revenue_by)]
    pub(super) by: Vec<crate::ledger::RevenueBy>,
    /// Only what came in on this day or later, in UTC
    #[arg(long, value_name = "DAY", value_parser = super::commands::day)]
    pub(super) since: Option<crate::payment::Timestamp>,
    /// Only what came in on this day or earlier, in UTC
    #[arg(long, value_name = "DAY", value_parser = super::commands::day)]
    pub(super) until: Option<crate::payment::Timestamp>,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    pub(super) file: LedgerFile,
    /// json (one object per line) or csv
    #[arg(long, value_name = "FORMAT", default_value = "json")]
    pub(super) format: ExportAs,
    /// Only calls of this day or later, in UTC
    #[arg(long, value_name = "DAY", value_parser = super::commands::day)]
    pub(super) since: Option<crate::payment::Timestamp>,
    /// Only calls of this day or earlier, in UTC
    #[arg(long, value_name = "DAY", value_parser = super::commands::day)]
    pub(super) until: Option<crate::payment::Timestamp>,
}

/// How calls are written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ExportAs {
    Json,
    Csv,
}

fn revenue_by(word: &str) -> Result<crate::ledger::RevenueBy, String> {
    let mut all = crate::ledger::RevenueBy::ALL.into_iter();
    all.find(|by| by.as_str() == word)
        .ok_or_else(|| "must be capability, client, rail or day".to_owned())
}

#[derive(Debug, Args)]
pub(super) struct LedgerFile {
    /// The file of the ledger, or postgres://USER@HOST/DATABASE [env: TOLLKEEPER_LEDGER] [default: tollkeeper.db]
    #[arg(long, value_name = "FILE")]
    pub(super) ledger: Option<PathBuf>,
    /// Print JSON, one object per line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct SpendingArgs {
    #[command(subcommand)]
    pub(super) command: Option<SpendingCommand>,
    /// Print JSON, one object per line
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum SpendingCommand {
    /// List payments, oldest first
    List {
        /// Only payments in this state (reserved, paid, refused, unknown); may be repeated
        #[arg(long, value_name = "STATE", action = ArgAction::Append)]
        state: Vec<AttemptState>,
    },
    /// Ask the wallets what became of payments whose outcome is unknown; no money moves
    Resolve {
        #[command(flatten)]
        wallets: WalletsArgs,
    },
    /// Write down what became of a payment that no wallet can tell about
    Decide {
        /// The number of the payment
        payment: AttemptId,
        /// What became of it: paid or refused
        #[arg(value_name = "paid|refused")]
        outcome: AttemptState,
    },
    /// Put up with what a server took without a result: it may be paid again
    Forgive {
        /// The server: npub, nprofile or hex
        server: String,
    },
}

/// Which wallets may be asked.
#[derive(Debug, Args)]
pub(super) struct WalletsArgs {
    #[command(flatten)]
    pub(super) wallet: WalletArgs,
    /// Ask the fake rail, which is not money
    #[arg(long)]
    pub(super) allow_fake: bool,
}

#[derive(Debug, Args)]
pub(super) struct ReceiptsArgs {
    #[command(subcommand)]
    pub(super) command: ReceiptsCommand,
    /// Print JSON, one object per line
    #[arg(long, global = true)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum ReceiptsCommand {
    /// List receipts, oldest first
    List,
    /// Show one receipt, without its proof
    Show {
        /// The number of the payment, or a file
        receipt: String,
    },
    /// Verify receipts offline, and say what is proven and what is not; all of them unless some are named
    Verify {
        /// The number of a payment, or a file
        receipts: Vec<String>,
    },
    /// Print receipts as JSON, to hand out; all of them unless some are named
    Export {
        /// The number of a payment, or a file
        receipts: Vec<String>,
        /// With the proof of payment, which is a secret
        #[arg(long)]
        with_proof: bool,
        /// With what was asked and what was answered
        #[arg(long)]
        with_contents: bool,
    },
}

fn policy(word: &str) -> Result<PaymentInteractionPolicy, String> {
    match word {
        "optional" => Ok(PaymentInteractionPolicy::Optional),
        "transparent" => Ok(PaymentInteractionPolicy::Transparent),
        _ => Err("must be optional or transparent".to_owned()),
    }
}

fn fault_help() -> String {
    format!(
        "Let the wallets fail, such as 'seller:mute=make_invoice' or, for both, 'notifications=none'; may be repeated. \
         Faults: {SWITCHES}"
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_flag_takes_a_secret() {
        fn flags(command: &clap::Command, out: &mut Vec<String>) {
            out.extend(
                command
                    .get_arguments()
                    .filter_map(|arg| arg.get_long().map(str::to_owned)),
            );
            command.get_subcommands().for_each(|sub| flags(sub, out));
        }
        let mut all = Vec::new();
        flags(&Cli::command(), &mut all);
        for flag in all {
            let secret = ["secret-key", "nsec", "nwc", "token", "password"];
            assert!(!secret.contains(&flag.as_str()), "{flag}");
        }
    }
}
