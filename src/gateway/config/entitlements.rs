//! What lets calls through without paying, and in which order it is asked.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::file::File;
use crate::gateway::args::SellingArgs;
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::secrets;
use crate::ledger::FreeLimits;
use crate::payment::{Capability, ClientPubkey};
use crate::transport::nostr::parse_server;

/// The order unless another is given. What refuses stands first, what is limited last.
const ORDER: [&str; 5] = ["deny", "pace", "allow", "licence", "free_per_day"];

/// Names the server to AI Coach.
const AICOACH_SERVER_ID: &str = "AICOACH_SERVER_ID";
const AICOACH: &str = "aicoach.pw";
const AICOACH_URL: &str = "https://aicoach.pw";

/// How many free calls there are in all for each that one client has.
const CLIENTS_A_DAY: u32 = 200;

/// The section `[entitlements]` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Entitlements {
    order: Option<Vec<String>>,
    deny: Vec<String>,
    allow: Vec<String>,
    pace: Option<Pace>,
    free_per_day: Option<FreePerDay>,
    licence: Option<Licence>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pace {
    per_minute: u32,
    burst: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FreePerDay {
    calls: u32,
    total: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Licence {
    own: bool,
    required: bool,
    covers: Vec<String>,
    when_unknown: Unknown,
    tell_handler: Option<bool>,
    issuer: Vec<Issuer>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unknown {
    #[default]
    Pay,
    Refuse,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Issuer {
    #[serde(default = "aicoach")]
    name: String,
    server_id: Option<String>,
    url: Option<String>,
    #[serde(default)]
    mode: VerifyAt,
    keys_file: Option<PathBuf>,
    #[serde(default = "five_minutes")]
    poll_every: u64,
    #[serde(default = "a_day")]
    fail_closed_after: u64,
    #[serde(default = "five")]
    max_clients: usize,
    #[serde(default = "a_minute")]
    leeway: u64,
}

/// Where licences are verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::gateway) enum VerifyAt {
    #[default]
    Local,
    Remote,
    LocalThenRemote,
}

fn aicoach() -> String {
    AICOACH.to_owned()
}

const fn five_minutes() -> u64 {
    300
}

const fn a_day() -> u64 {
    86_400
}

const fn a_minute() -> u64 {
    60
}

const fn five() -> usize {
    5
}

/// What lets calls through, in its order.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Entitling {
    pub(in crate::gateway) order: Vec<&'static str>,
    pub(in crate::gateway) deny: Vec<ClientPubkey>,
    pub(in crate::gateway) allow: Vec<ClientPubkey>,
    /// A minute, and at once.
    pub(in crate::gateway) pace: Option<(u32, u32)>,
    pub(in crate::gateway) free_per_day: Option<FreeLimits>,
    pub(in crate::gateway) licence: Option<LicenceSettings>,
}

/// How licences count.
#[derive(Debug)]
pub(in crate::gateway) struct LicenceSettings {
    /// Licences that we issue ourselves count.
    pub(in crate::gateway) own: bool,
    pub(in crate::gateway) required: bool,
    pub(in crate::gateway) refuse_unknown: bool,
    pub(in crate::gateway) tell_handler: bool,
    pub(in crate::gateway) covers: Vec<Capability>,
    pub(in crate::gateway) issuers: Vec<IssuerSettings>,
}

/// One issuer.
#[derive(Debug)]
pub(in crate::gateway) struct IssuerSettings {
    pub(in crate::gateway) name: String,
    pub(in crate::gateway) server_id: String,
    pub(in crate::gateway) url: Option<String>,
    pub(in crate::gateway) mode: VerifyAt,
    pub(in crate::gateway) keys_file: Option<PathBuf>,
    pub(in crate::gateway) poll_every: Duration,
    pub(in crate::gateway) fail_closed_after: Duration,
    pub(in crate::gateway) max_clients: usize,
    pub(in crate::gateway) leeway: Duration,
}

/// Merges flags, environment and file.
pub(super) fn merge(args: &SellingArgs, file: &File) -> Outcome<Entitling> {
    let written = &file.entitlements;
    let mut entitling = Entitling {
        order: Vec::new(),
        deny: clients("entitlements.deny", &written.deny, &args.deny_clients)?,
        allow: clients("entitlements.allow", &written.allow, &args.allow_clients)?,
        pace: pace(written.pace.as_ref())?,
        free_per_day: free_per_day(written.free_per_day.as_ref(), args.free_per_day)?,
        licence: licence(written.licence.as_ref(), file)?,
    };
    entitling.order = order(&entitling, written.order.as_deref())?;
    Ok(entitling)
}

impl Entitling {
    /// What each is, in words, in its order.
    pub(in crate::gateway) fn described(&self) -> Vec<(&'static str, String)> {
        let describe = |name| match name {
            "deny" => format!("{} clients cannot buy", self.deny.len()),
            "allow" => format!("{} clients pay nothing", self.allow.len()),
            "pace" => self.pace.map_or_else(String::new, |(per_minute, burst)| {
                format!("{per_minute} calls a minute for each client, {burst} at once")
            }),
            "free_per_day" => self.free_per_day.map_or_else(String::new, |limits| {
                let FreeLimits {
                    per_client, total, ..
                } = limits;
                format!("{per_client} calls a day for each client, {total} for all")
            }),
            _ => self
                .licence
                .as_ref()
                .map_or_else(String::new, LicenceSettings::described),
        };
        self.order
            .iter()
            .map(|name| (*name, describe(name)))
            .collect()
    }

    fn has(&self, name: &str) -> bool {
        match name {
            "deny" => !self.deny.is_empty(),
            "pace" => self.pace.is_some(),
            "allow" => !self.allow.is_empty(),
            "licence" => self.licence.is_some(),
            _ => self.free_per_day.is_some(),
        }
    }
}

impl LicenceSettings {
    fn described(&self) -> String {
        let own = self.own.then_some("our own");
        let others = self.issuers.iter().map(|issuer| issuer.name.as_str());
        let issuers: Vec<&str> = own.into_iter().chain(others).collect();
        let covers: Vec<String> = self.covers.iter().map(ToString::to_string).collect();
        let what = if covers.is_empty() {
            "everything".to_owned()
        } else {
            covers.join(", ")
        };
        let must = if self.required { ", required" } else { "" };
        format!("licences of {} for {what}{must}", issuers.join(", "))
    }
}

/// The order: as it is written, and then complete, or the usual one.
fn order(entitling: &Entitling, written: Option<&[String]>) -> Outcome<Vec<&'static str>> {
    let Some(written) = written else {
        return Ok(ORDER
            .into_iter()
            .filter(|name| entitling.has(name))
            .collect());
    };
    let mut order = Vec::new();
    for word in written {
        let known = ORDER.into_iter().find(|name| name == word);
        let Some(name) = known.filter(|name| !order.contains(name)) else {
            return Err(Failure::usage(format!(
                "entitlements.order: {word:?} must be one of {}, each once",
                ORDER.join(", ")
            )));
        };
        order.push(name);
    }
    if let Some(missing) = ORDER
        .into_iter()
        .find(|name| entitling.has(name) && !order.contains(name))
    {
        return Err(Failure::usage(format!(
            "entitlements.order: {missing} is set up and must have a place in the order"
        )));
    }
    order.retain(|name| entitling.has(name));
    Ok(order)
}

/// Reads a client's key: npub or hex.
pub(in crate::gateway) fn client(key: &str, text: &str) -> Outcome<ClientPubkey> {
    let (named, _) = parse_server(text).map_err(|_| {
        Failure::usage(format!(
            "{key}: {text:?} must be a public key: npub1… or hex"
        ))
    })?;
    Ok(ClientPubkey::from_bytes(*named.as_bytes()))
}

fn clients(key: &str, file: &[String], flags: &[String]) -> Outcome<Vec<ClientPubkey>> {
    let all = file.iter().chain(flags);
    all.map(|text| client(key, text)).collect()
}

fn pace(written: Option<&Pace>) -> Outcome<Option<(u32, u32)>> {
    let Some(pace) = written else { return Ok(None) };
    let burst = pace.burst.unwrap_or(pace.per_minute);
    if pace.per_minute == 0 || burst == 0 {
        return Err(Failure::usage(
            "entitlements.pace: per_minute and burst must be at least 1",
        ));
    }
    Ok(Some((pace.per_minute, burst)))
}

fn free_per_day(written: Option<&FreePerDay>, flag: Option<u32>) -> Outcome<Option<FreeLimits>> {
    let Some(calls) = flag.or(written.map(|written| written.calls)) else {
        return Ok(None);
    };
    let total = written.and_then(|written| written.total);
    let total = total.unwrap_or(calls.saturating_mul(CLIENTS_A_DAY));
    if calls == 0 || total < calls {
        return Err(Failure::usage(
            "entitlements.free_per_day: calls must be at least 1, and total at least as many",
        ));
    }
    Ok(Some(FreeLimits::new(calls, total)))
}

fn licence(written: Option<&Licence>, file: &File) -> Outcome<Option<LicenceSettings>> {
    let named = std::env::var(AICOACH_SERVER_ID)
        .ok()
        .filter(|id| !id.trim().is_empty());
    let from_environment =
        named.is_some() && secrets::read(secrets::AICOACH_SIGNING_SECRET)?.is_some();
    let sells = file.licence_sale.is_some();
    if written.is_none() && !from_environment && !sells {
        return Ok(None);
    }
    let nothing = Licence::default();
    let written = written.unwrap_or(&nothing);
    let mut issuers = Vec::new();
    for issuer in &written.issuer {
        issuers.push(read_issuer(issuer, named.as_deref(), file)?);
    }
    if let (true, Some(id)) = (issuers.is_empty() && from_environment, &named) {
        issuers.push(IssuerSettings {
            name: AICOACH.to_owned(),
            server_id: id.trim().to_owned(),
            url: Some(AICOACH_URL.to_owned()),
            mode: VerifyAt::Local,
            keys_file: None,
            poll_every: Duration::from_secs(five_minutes()),
            fail_closed_after: Duration::from_secs(a_day()),
            max_clients: five(),
            leeway: Duration::from_secs(a_minute()),
        });
    }
    let own = written.own || sells;
    if issuers.is_empty() && !own {
        return Err(Failure::usage(
            "entitlements.licence: at least one [[entitlements.licence.issuer]] is needed, or own = true",
        ));
    }
    let covers: crate::Result<Vec<Capability>> =
        written.covers.iter().map(|text| text.parse()).collect();
    Ok(Some(LicenceSettings {
        own,
        required: written.required,
        refuse_unknown: written.when_unknown == Unknown::Refuse,
        tell_handler: written.tell_handler.unwrap_or(true),
        covers: covers
            .map_err(|error| Failure::usage(format!("entitlements.licence.covers: {error}")))?,
        issuers,
    }))
}

fn read_issuer(issuer: &Issuer, named: Option<&str>, file: &File) -> Outcome<IssuerSettings> {
    let key = "entitlements.licence.issuer";
    let server_id = issuer.server_id.as_deref().or(named).ok_or_else(|| {
        Failure::usage(format!(
            "{key}.server_id: must name this server as {} does, or {AICOACH_SERVER_ID} must",
            issuer.name
        ))
    })?;
    if issuer.poll_every < 10 {
        return Err(Failure::usage(format!(
            "{key}.poll_every: must be at least 10 seconds"
        )));
    }
    if issuer.fail_closed_after < issuer.poll_every {
        return Err(Failure::usage(format!(
            "{key}.fail_closed_after: must be at least as long as poll_every"
        )));
    }
    if issuer.max_clients == 0 {
        return Err(Failure::usage(format!(
            "{key}.max_clients: must be at least 1"
        )));
    }
    Ok(IssuerSettings {
        name: issuer.name.clone(),
        server_id: server_id.trim().to_owned(),
        url: issuer.url.clone(),
        mode: issuer.mode,
        keys_file: file.path(issuer.keys_file.as_deref()),
        poll_every: Duration::from_secs(issuer.poll_every),
        fail_closed_after: Duration::from_secs(issuer.fail_closed_after),
        max_clients: issuer.max_clients,
        leeway: Duration::from_secs(issuer.leeway),
    })
}
