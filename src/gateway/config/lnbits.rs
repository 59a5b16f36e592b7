//! Which LNbits wallet is used: flags, else the environment, else the config file; its keys from the environment or from
//! files.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::gateway::args::{LnbitsArgs, LnbitsWebhookArgs};
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::{home, secrets};
use crate::rails::lightning::Network;
use crate::rails::lightning::lnbits::LnbitsConfig;

/// Where LNbits is. Not a secret.
const LNBITS_URL: &str = "LNBITS_URL";

/// `[rails.lightning_lnbits]` of the config file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LightningLnbits {
    url: Option<String>,
    invoice_key_file: Option<PathBuf>,
    network: Option<String>,
    webhook_listen: Option<String>,
    webhook_url: Option<String>,
}

/// What the wallet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Makes invoices: the invoice key is enough.
    Selling,
    /// Pays them, which takes the admin key.
    Paying,
}

impl Side {
    pub(super) const fn variable(self) -> &'static str {
        match self {
            Self::Selling => secrets::LNBITS_INVOICE_KEY,
            Self::Paying => secrets::LNBITS_ADMIN_KEY,
        }
    }
}

/// A value, and what it was named by.
struct Named<T> {
    by: String,
    value: T,
}

/// The wallet, if there is one. `resolve` makes a path of the config file one of the machine.
pub(super) fn lnbits(
    args: &LnbitsArgs,
    section: Option<&LightningLnbits>,
    side: Side,
    network: Option<Network>,
    resolve: impl Fn(&Path) -> PathBuf,
) -> Outcome<Option<LnbitsConfig>> {
    let url = url(args, section);
    let key = key(args, section, side, resolve)?;
    let asked_for =
        section.is_some() || args.lnbits_url.is_some() || args.lnbits_key_file.is_some();
    let (url, key) = match (url, key) {
        (Some(url), Some(key)) => (url, key),
        (None, None) if !asked_for => return Ok(None),
        // The address alone, in the environment, may be meant for another command.
        (Some(_), None) if !asked_for => return Ok(None),
        (Some(_), None) => {
            return Err(Failure::usage(format!(
                "rails.lightning_lnbits: {} must hold a key of the LNbits wallet, or --lnbits-key-file{} name a file with it",
                side.variable(),
                match side {
                    Side::Selling => ", or invoice_key_file in the config file,",
                    Side::Paying => "",
                }
            )));
        }
        (None, _) => {
            return Err(Failure::usage(format!(
                "rails.lightning_lnbits.url: {LNBITS_URL}, --lnbits-url or url in the config file must say where LNbits is"
            )));
        }
    };
    let names = format!("{} and {}", url.by, key.by);
    let config = LnbitsConfig::new(&url.value, &key.value)
        .map_err(|error| Failure::usage(format!("{names}: {error}")))?;
    let network = match (
        network,
        section.and_then(|section| section.network.as_deref()),
    ) {
        (Some(network), _) => network,
        (None, Some(text)) => text
            .parse()
            .map_err(|error| Failure::usage(format!("rails.lightning_lnbits.network: {error}")))?,
        (None, None) => Network::default(),
    };
    Ok(Some(config.network(network)))
}

/// Adds the webhook, if one is wanted.
pub(super) fn with_webhook(
    config: LnbitsConfig,
    args: &LnbitsWebhookArgs,
    section: Option<&LightningLnbits>,
) -> Outcome<LnbitsConfig> {
    let listen = match args.lnbits_webhook_listen {
        Some(address) => Some(address),
        None => section
            .and_then(|section| section.webhook_listen.as_deref())
            .map(|text| {
                text.parse::<SocketAddr>().map_err(|_| {
                    Failure::usage(format!(
                        "rails.lightning_lnbits.webhook_listen: {text:?} must be an address such as 127.0.0.1:8099"
                    ))
                })
            })
            .transpose()?,
    };
    let url = args
        .lnbits_webhook_url
        .as_deref()
        .or_else(|| section?.webhook_url.as_deref());
    match (listen, url) {
        (None, None) => Ok(config),
        (Some(listen), Some(url)) => config.webhook(listen, url).map_err(|error| {
            Failure::usage(format!("rails.lightning_lnbits.webhook_url: {error}"))
        }),
        _ => Err(Failure::usage(
            "rails.lightning_lnbits: webhook_listen, where its webhook arrives, and webhook_url, under which LNbits reaches \
             that, must both be given, or neither",
        )),
    }
}

fn url(args: &LnbitsArgs, section: Option<&LightningLnbits>) -> Option<Named<String>> {
    let named = |by: &str, value: String| Named {
        by: by.to_owned(),
        value,
    };
    let set = || {
        std::env::var(LNBITS_URL)
            .ok()
            .filter(|url| !url.trim().is_empty())
    };
    args.lnbits_url
        .clone()
        .map(|url| named("--lnbits-url", url))
        .or_else(|| set().map(|url| named(LNBITS_URL, url)))
        .or_else(|| Some(named("rails.lightning_lnbits.url", section?.url.clone()?)))
}

fn key(
    args: &LnbitsArgs,
    section: Option<&LightningLnbits>,
    side: Side,
    resolve: impl Fn(&Path) -> PathBuf,
) -> Outcome<Option<Named<String>>> {
    if let Some(file) = &args.lnbits_key_file {
        return read("--lnbits-key-file", file).map(Some);
    }
    if let Some(value) = secrets::read(side.variable())? {
        let by = side.variable().to_owned();
        return Ok(Some(Named { by, value }));
    }
    match section.and_then(|section| section.invoice_key_file.as_deref()) {
        Some(file) if side == Side::Selling => {
            read("rails.lightning_lnbits.invoice_key_file", &resolve(file)).map(Some)
        }
        _ => Ok(None),
    }
}

fn read(by: &str, file: &Path) -> Outcome<Named<String>> {
    let shown = file.display();
    let value = std::fs::read_to_string(file)
        .map_err(|error| Failure::usage(format!("{by}: cannot read {shown}: {error}")))?;
    home::warn_if_open_to_others(file);
    Ok(Named {
        by: format!("{by} ({shown})"),
        value,
    })
}
