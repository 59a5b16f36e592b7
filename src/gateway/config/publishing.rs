//! What a server publishes about itself on its relays.

use super::addresses;
use super::file::File;
use crate::gateway::args::ServeArgs;
use crate::gateway::exit::{Failure, Outcome};
use crate::transport::nostr::{Profile, ServerInfo};

/// What is published.
#[derive(Debug)]
pub(in crate::gateway) struct Publishing {
    /// What it offers.
    pub(in crate::gateway) announce: bool,
    /// On which relays it is found.
    pub(in crate::gateway) relay_list: bool,
    /// Where that is published beside its own relays.
    pub(in crate::gateway) bootstrap_relays: Vec<String>,
    pub(in crate::gateway) profile: Option<Profile>,
    /// How it introduces itself.
    pub(in crate::gateway) info: ServerInfo,
}

/// Reads what of it is wanted.
pub(super) fn publishing(args: &ServeArgs, file: &File, relays: &[String]) -> Outcome<Publishing> {
    let announce = args.announce || file.announce.unwrap_or(false);
    let relay_list = args.relay_list.or(file.relay_list).unwrap_or(announce);
    let profile = match file.profile.clone() {
        None => args.profile.then(Profile::default),
        given => given,
    };
    let wanted = [
        ("announce", announce),
        ("relay_list", relay_list),
        ("profile", profile.is_some()),
    ];
    if let Some((key, _)) = wanted.iter().find(|(_, it)| *it && relays.is_empty()) {
        return Err(Failure::usage(format!(
            "{key}: is published on relays, and there are none: name them with relays (--relay)"
        )));
    }
    let info = ServerInfo::new(
        args.name.clone().or(file.name.clone()),
        args.about.clone().or(file.about.clone()),
        args.website.clone().or(file.website.clone()),
        args.picture.clone().or(file.picture.clone()),
    );
    let bootstrap_relays = [
        args.bootstrap_relays.as_slice(),
        file.bootstrap_relays.as_deref().unwrap_or_default(),
    ];
    let bootstrap_relays = bootstrap_relays.into_iter().find(|list| !list.is_empty());
    Ok(Publishing {
        announce,
        relay_list,
        bootstrap_relays: addresses("bootstrap_relays", bootstrap_relays.unwrap_or_default())?,
        profile: profile.map(|profile| profile.or(&info)),
        info,
    })
}
