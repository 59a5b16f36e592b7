//! Which wallet is meant, by whoever sells and by whoever buys.

use std::path::PathBuf;

use clap::Args;

use crate::rails::lightning::Network;

/// Which Lightning wallet is paid, or pays.
#[derive(Debug, Args)]
pub(in crate::gateway) struct WalletArgs {
    /// A file with the wallet's NIP-47 connection (nostr+walletconnect://…) [env: NWC_CONNECTION, the connection itself]
    #[arg(long, value_name = "FILE")]
    pub(in crate::gateway) nwc_connection_file: Option<PathBuf>,
    /// The network of the wallet: mainnet, or testnet, signet or regtest, whose coins are not money [default: mainnet]
    #[arg(long, value_name = "NETWORK")]
    pub(in crate::gateway) lightning_network: Option<Network>,
    #[command(flatten)]
    pub(in crate::gateway) lnbits: LnbitsArgs,
}

/// Which LNbits wallet is paid, or pays.
#[derive(Debug, Args)]
pub(in crate::gateway) struct LnbitsArgs {
    /// Where an LNbits server is, whose wallet to use [env: LNBITS_URL]
    #[arg(long, value_name = "URL")]
    pub(in crate::gateway) lnbits_url: Option<String>,
    /// A file with a key of the LNbits wallet: the invoice key to sell, the admin key to buy [env: LNBITS_INVOICE_KEY and
    /// LNBITS_ADMIN_KEY, the keys themselves]
    #[arg(long, value_name = "FILE")]
    pub(in crate::gateway) lnbits_key_file: Option<PathBuf>,
}
