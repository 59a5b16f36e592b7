//! Which wallet takes or makes Lightning payments. There is one: two would be two answers to one question.

use std::path::{Path, PathBuf};

use super::file::Rails;
use super::lnbits::{self, Side};
use super::wallet::{self, Wallet};
use crate::gateway::args::{LnbitsWebhookArgs, WalletArgs};
use crate::gateway::exit::{Failure, Outcome};
use crate::rails::lightning::lnbits::LnbitsConfig;

/// A Lightning wallet of one kind or another.
#[derive(Debug, Clone)]
pub(in crate::gateway) enum LightningWallet {
    /// One that is reached over relays.
    Nwc(Wallet),
    /// One of an LNbits server.
    Lnbits(LnbitsConfig),
}

/// The wallet that a seller is paid by, if there is one. Unless it is `asked_for` by something that has a price, it must be
/// named by the config file or by a flag: what the environment holds may be meant for another command.
pub(super) fn selling(
    args: &WalletArgs,
    webhook: &LnbitsWebhookArgs,
    rails: &Rails,
    asked_for: bool,
    resolve: impl Fn(&Path) -> PathBuf,
) -> Outcome<Option<LightningWallet>> {
    let named = rails.lightning_nwc.is_some()
        || rails.lightning_lnbits.is_some()
        || names_nwc(args)
        || names_lnbits(args);
    if !named && !asked_for {
        return Ok(None);
    }
    let section = rails.lightning_lnbits.as_ref();
    match pick(args, rails, Side::Selling, resolve)? {
        Some(LightningWallet::Lnbits(config)) => {
            let config = lnbits::with_webhook(config, webhook, section)?;
            Ok(Some(LightningWallet::Lnbits(config)))
        }
        other => Ok(other),
    }
}

/// The wallet that a buyer pays with, if there is one.
pub(super) fn paying(args: &WalletArgs) -> Outcome<Option<LightningWallet>> {
    pick(args, &Rails::default(), Side::Paying, Path::to_path_buf)
}

fn pick(
    args: &WalletArgs,
    rails: &Rails,
    side: Side,
    resolve: impl Fn(&Path) -> PathBuf,
) -> Outcome<Option<LightningWallet>> {
    let nwc = || wallet::wallet(args, rails.lightning_nwc.as_ref(), &resolve);
    let lnbits = || {
        let section = rails.lightning_lnbits.as_ref();
        lnbits::lnbits(
            &args.lnbits,
            section,
            side,
            args.lightning_network,
            &resolve,
        )
    };
    // A flag beats whatever else there is.
    let (nwc, lnbits) = match (names_nwc(args), names_lnbits(args)) {
        (true, false) => (nwc()?, None),
        (false, true) => (None, lnbits()?),
        _ => (nwc()?, lnbits()?),
    };
    match (nwc, lnbits) {
        (None, None) => Ok(None),
        (Some(nwc), None) => Ok(Some(LightningWallet::Nwc(nwc))),
        (None, Some(lnbits)) => Ok(Some(LightningWallet::Lnbits(lnbits))),
        (Some(_), Some(_)) => Err(Failure::usage(format!(
            "rails.lightning_nwc and rails.lightning_lnbits: both an NWC wallet (NWC_CONNECTION, --nwc-connection-file or \
             connection_file) and an LNbits wallet (LNBITS_URL with {}, --lnbits-url or url) are configured, and both would \
             be Lightning; leave one out",
            side.variable()
        ))),
    }
}

fn names_nwc(args: &WalletArgs) -> bool {
    args.nwc_connection_file.is_some()
}

fn names_lnbits(args: &WalletArgs) -> bool {
    args.lnbits.lnbits_url.is_some() || args.lnbits.lnbits_key_file.is_some()
}
