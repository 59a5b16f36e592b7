//! Which NIP-47 wallet is used, the same way by those who sell and those who buy: a flag that names a file, else the
//! environment, else a file that the config file names.

use std::path::{Path, PathBuf};

use super::file::LightningNwc;
use crate::gateway::args::WalletArgs;
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::{home, secrets};
use crate::rails::lightning::Network;
use crate::rails::lightning::nwc::NwcConnection;

/// A wallet, and the network that it must be on.
#[derive(Debug, Clone)]
pub(in crate::gateway) struct Wallet {
    pub(in crate::gateway) connection: NwcConnection,
    pub(in crate::gateway) network: Network,
}

/// Where a connection is read from.
enum Source {
    File {
        named_by: &'static str,
        file: PathBuf,
    },
    Environment(String),
}

impl Source {
    fn read(self) -> Outcome<NwcConnection> {
        let (name, text) = match self {
            Self::Environment(text) => (secrets::NWC_CONNECTION.to_owned(), text),
            Self::File { named_by, file } => {
                let shown = file.display();
                let text = std::fs::read_to_string(&file).map_err(|error| {
                    Failure::usage(format!("{named_by}: cannot read {shown}: {error}"))
                })?;
                home::warn_if_open_to_others(&file);
                (format!("{named_by}: {shown}"), text)
            }
        };
        text.parse()
            .map_err(|error| Failure::usage(format!("{name}: {error}")))
    }
}

/// The wallet, if there is one. `file` resolves a path of the config file.
pub(in crate::gateway) fn wallet(
    args: &WalletArgs,
    section: Option<&LightningNwc>,
    file: impl Fn(&Path) -> PathBuf,
) -> Outcome<Option<Wallet>> {
    let named = |named_by, file| Source::File { named_by, file };
    let source = match &args.nwc_connection_file {
        Some(path) => Some(named("--nwc-connection-file", path.clone())),
        None => secrets::read(secrets::NWC_CONNECTION)?
            .map(Source::Environment)
            .or_else(|| {
                let path = section?.connection_file.as_deref()?;
                Some(named("rails.lightning_nwc.connection_file", file(path)))
            }),
    };
    let Some(source) = source else {
        return match section {
            None => Ok(None),
            Some(_) => Err(Failure::usage(format!(
                "rails.lightning_nwc: {} must hold the wallet's connection (nostr+walletconnect://…), or connection_file \
                 name a file with it",
                secrets::NWC_CONNECTION
            ))),
        };
    };
    let network = match (
        args.lightning_network,
        section.and_then(|section| section.network.as_deref()),
    ) {
        (Some(network), _) => network,
        (None, Some(text)) => text
            .parse()
            .map_err(|error| Failure::usage(format!("rails.lightning_nwc.network: {error}")))?,
        (None, None) => Network::default(),
    };
    Ok(Some(Wallet {
        connection: source.read()?,
        network,
    }))
}
