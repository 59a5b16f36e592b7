//! What is typed to try things out: `demo`, `relay` and `wallet`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::payment::Amount;
use crate::rails::lightning::Network;
use crate::rails::lightning::fake_wallet::SWITCHES;

#[derive(Debug, Args)]
pub(in crate::gateway) struct DemoArgs {
    /// Print JSON, one object per line
    #[arg(long)]
    pub(in crate::gateway) json: bool,
}

#[derive(Debug, Args)]
pub(in crate::gateway) struct RelayArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7777")]
    pub(in crate::gateway) listen: SocketAddr,
    /// Print JSON, one object per line
    #[arg(long)]
    pub(in crate::gateway) json: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::gateway) enum WalletCommand {
    /// Two Lightning wallets, seller and buyer, that settle each other's invoices; they are not money
    Fake(FakeWalletArgs),
}

#[derive(Debug, Args)]
pub(in crate::gateway) struct FakeWalletArgs {
    /// A relay on which the wallets are reached; may be repeated [env: TOLLKEEPER_RELAYS]
    #[arg(long = "relay", value_name = "URL")]
    pub(in crate::gateway) relays: Vec<String>,
    /// What each wallet holds at first
    #[arg(long, value_name = "AMOUNT", default_value = "100000 sats")]
    pub(in crate::gateway) balance: Amount,
    /// The network of the invoices: regtest, simnet, signet, testnet or mainnet (nobody else can settle them on any)
    #[arg(long, value_name = "NETWORK", default_value = "regtest")]
    pub(in crate::gateway) network: Network,
    /// Write the connection URIs to seller.nwc and buyer.nwc in this folder instead of printing them
    #[arg(long, value_name = "FOLDER")]
    pub(in crate::gateway) dir: Option<PathBuf>,
    /// Let the wallets fail, such as 'seller:mute=make_invoice' or, for both, 'notifications=none'; may be repeated
    #[arg(long = "fault", value_name = "[WALLET:]FAULT", long_help = fault_help())]
    pub(in crate::gateway) faults: Vec<String>,
    /// Print JSON, one object per line
    #[arg(long)]
    pub(in crate::gateway) json: bool,
}

fn fault_help() -> String {
    format!(
        "Let the wallets fail, such as 'seller:mute=make_invoice' or, for both, 'notifications=none'; may be repeated. \
         Faults: {SWITCHES}"
    )
}
