//! The Nostr key of a server or of a buyer: named by a flag, else in the environment, else in a file, which is made if need be.

use std::path::Path;

use super::args::LinkArgs;
use super::config::{LedgerPlace, Serving};
use super::exit::{Failure, Outcome};
use super::{home, secrets};
use crate::transport::nostr::NostrKeys;

/// The key that `serve` signs with.
pub(super) fn of_server(serving: &Serving) -> Outcome<NostrKeys> {
    let flag = serving.key_by_flag.as_deref();
    at_ledger(flag, serving.key_file.as_deref(), &serving.ledger)
}

/// The key of a server: by a flag, in the environment, in the file of its config, beside its ledger.
pub(super) fn at_ledger(
    flag: Option<&Path>,
    written: Option<&Path>,
    ledger: &LedgerPlace,
) -> Outcome<NostrKeys> {
    if let Some(keys) = from_environment(flag)? {
        return Ok(keys);
    }
    let named = flag.or(written).map(Path::to_owned);
    match named.or_else(|| ledger.key_file()) {
        Some(file) => Ok(home::key(&file)?),
        None if ledger.is_shared() => Err(Failure::usage(format!(
            "secret_key_file: the instances that share a ledger have one key: name its file, or put it into {}",
            secrets::SECRET_KEY
        ))),
        None => {
            tracing::warn!("the key of this run is kept nowhere: the next run has another one");
            Ok(NostrKeys::generate())
        }
    }
}

/// The key that a buyer signs with.
pub(super) fn of_client(args: &LinkArgs) -> Outcome<NostrKeys> {
    let flag = args.secret_key_file.as_deref();
    if let Some(keys) = from_environment(flag)? {
        return Ok(keys);
    }
    let file = match flag {
        Some(file) => file.to_owned(),
        None => home::folder()?.join("client.key"),
    };
    Ok(home::key(&file)?)
}

/// The key of the environment, unless a flag names another one.
fn from_environment(flag: Option<&Path>) -> Outcome<Option<NostrKeys>> {
    if flag.is_some() {
        return Ok(None);
    }
    let Some(text) = secrets::read(secrets::SECRET_KEY)? else {
        return Ok(None);
    };
    NostrKeys::parse(&text).map(Some).map_err(|_| {
        Failure::usage(format!(
            "{} must be nsec1… or 64 hex digits",
            secrets::SECRET_KEY
        ))
    })
}
