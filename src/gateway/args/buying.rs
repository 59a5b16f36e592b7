//! What is typed by whoever buys: `connect`, `call`, `inspect` and `discover`.

use std::path::PathBuf;

use clap::Args;

use super::selling::RateArgs;
use super::wallet::WalletArgs;
use crate::client::policy::Advertised;
use crate::payment::Amount;
use crate::payment::PaymentInteraction;
use crate::transport::nostr::EncryptionMode;

/// What every command that talks to a server needs to know.
#[derive(Debug, Args)]
pub(in crate::gateway) struct ServerArgs {
    /// The server: npub, nprofile or hex
    pub(in crate::gateway) server: String,
    #[command(flatten)]
    pub(in crate::gateway) link: LinkArgs,
}

/// How a server is reached.
#[derive(Debug, Clone, Args)]
pub(in crate::gateway) struct LinkArgs {
    /// A relay to reach it on; may be repeated [env: TOLLKEEPER_RELAYS]
    #[arg(long = "relay", value_name = "URL")]
    pub(in crate::gateway) relays: Vec<String>,
    /// A relay to ask where the server is found, if no other is known; may be repeated [env: TOLLKEEPER_DISCOVERY_RELAYS]
    #[arg(long = "discovery-relay", value_name = "URL")]
    pub(in crate::gateway) discovery_relays: Vec<String>,
    /// Which messages are encrypted: optional (all that the server allows), required or disabled
    #[arg(long, value_name = "MODE", default_value = "optional")]
    pub(in crate::gateway) encryption: EncryptionMode,
    /// A file with the secret key (nsec or hex); made in TOLLKEEPER_HOME if there is none
    #[arg(long, value_name = "FILE")]
    pub(in crate::gateway) secret_key_file: Option<PathBuf>,
    /// How long to wait for an answer, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(in crate::gateway) timeout: u64,
}

/// What every command that may pay needs to know.
#[derive(Debug, Args)]
pub(in crate::gateway) struct PayingArgs {
    /// The most that this run may spend, such as '100 sats'
    #[arg(long, value_name = "AMOUNT", default_value = "0 sats")]
    pub(in crate::gateway) budget: Amount,
    /// The most that one call may cost [default: the budget]
    #[arg(long, value_name = "AMOUNT")]
    pub(in crate::gateway) per_call: Option<Amount>,
    #[command(flatten)]
    pub(in crate::gateway) policy: PolicyArgs,
    /// Pay what explicit gating offers too, instead of showing the offer
    #[arg(long)]
    pub(in crate::gateway) pay: bool,
    /// How payments are tied to calls: transparent or explicit_gating
    #[arg(long, value_name = "LIFECYCLE")]
    pub(in crate::gateway) payment_interaction: Option<PaymentInteraction>,
    /// A file with a licence of the server; it is only sent encrypted
    #[arg(long, value_name = "FILE")]
    pub(in crate::gateway) licence_file: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::gateway) wallet: WalletArgs,
    /// Pay by the fake rail, which is not money
    #[arg(long)]
    pub(in crate::gateway) allow_fake: bool,
}

/// The policy, beside its file (policy.toml in TOLLKEEPER_HOME), whose keys these flags replace.
#[derive(Debug, Args)]
pub(in crate::gateway) struct PolicyArgs {
    /// The most that may be spent in any hour, by all runs together
    #[arg(long, value_name = "AMOUNT")]
    pub(in crate::gateway) per_hour: Option<Amount>,
    /// The most that may be spent in any day, by all runs together
    #[arg(long, value_name = "AMOUNT")]
    pub(in crate::gateway) per_day: Option<Amount>,
    /// The most that may ever be spent, by all runs together
    #[arg(long, value_name = "AMOUNT")]
    pub(in crate::gateway) total: Option<Amount>,
    /// Ask a person about every payment above this
    #[arg(long, value_name = "AMOUNT")]
    pub(in crate::gateway) ask_above: Option<Amount>,
    /// How long that person has, in seconds; then the answer is no [default: 60]
    #[arg(long, value_name = "SECS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(in crate::gateway) ask_timeout: Option<u64>,
    /// How many payments one call may make until it is answered [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(in crate::gateway) max_payments: Option<u32>,
    /// How many payments in a row a server may take without a result; 0 for any number [default: 3]
    #[arg(long, value_name = "N")]
    pub(in crate::gateway) breaker: Option<u32>,
    /// What advertised prices mean: off, seen (never more, where one was seen) or required [default: seen]
    #[arg(long, value_name = "RULE")]
    pub(in crate::gateway) advertised: Option<Advertised>,
    /// Pay this server only; may be repeated
    #[arg(long = "allow-server", value_name = "SERVER")]
    pub(in crate::gateway) allow: Vec<String>,
    /// Never pay this server; may be repeated
    #[arg(long = "deny-server", value_name = "SERVER")]
    pub(in crate::gateway) deny: Vec<String>,
    #[command(flatten)]
    pub(in crate::gateway) rates: RateArgs,
}

#[derive(Debug, Args)]
pub(in crate::gateway) struct ConnectArgs {
    /// The server: npub, nprofile or hex
    #[arg(
        value_name = "SERVER",
        required_unless_present = "servers",
        conflicts_with = "servers"
    )]
    pub(in crate::gateway) server: Option<String>,
    /// One of several servers, with the name that its tools are prefixed with; may be repeated
    #[arg(long = "server", value_name = "NAME=SERVER")]
    pub(in crate::gateway) servers: Vec<String>,
    #[command(flatten)]
    pub(in crate::gateway) link: LinkArgs,
    #[command(flatten)]
    pub(in crate::gateway) paying: PayingArgs,
}

#[derive(Debug, Args)]
pub(in crate::gateway) struct CallArgs {
    #[command(flatten)]
    pub(in crate::gateway) server: ServerArgs,
    /// What to call: tool:NAME, prompt:NAME or resource:URI
    pub(in crate::gateway) capability: String,
    /// Its arguments: JSON where they parse as JSON, else text
    #[arg(value_name = "KEY=VALUE")]
    pub(in crate::gateway) arguments: Vec<String>,
    #[command(flatten)]
    pub(in crate::gateway) paying: PayingArgs,
    /// Print JSON, one object per line
    #[arg(long)]
    pub(in crate::gateway) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::gateway) struct InspectArgs {
    #[command(flatten)]
    pub(in crate::gateway) server: ServerArgs,
    /// Print JSON, one object per line
    #[arg(long)]
    pub(in crate::gateway) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::gateway) struct DiscoverArgs {
    /// A relay to look on; may be repeated [env: TOLLKEEPER_RELAYS]
    #[arg(long = "relay", value_name = "URL")]
    pub(in crate::gateway) relays: Vec<String>,
    /// How long to wait for the relays, in seconds
    #[arg(long, value_name = "SECS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub(in crate::gateway) timeout: u64,
    /// Print JSON, one object per line
    #[arg(long)]
    pub(in crate::gateway) json: bool,
}
