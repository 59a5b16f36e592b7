//! What may be paid: the policy of TOLLKEEPER_HOME, and the flags that replace its keys.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::args::PolicyArgs;
use super::config::{Rates, RatesSection, rates};
use super::exit::{Failure, Outcome};
use crate::client::policy::{Limits, Policy};
use crate::payment::{Amount, CapabilityPattern, ServerPubkey};
use crate::transport::nostr::parse_server;

/// The file, in TOLLKEEPER_HOME.
const FILE: &str = "policy.toml";

/// The longest that a person may take to answer.
const LONGEST_ASK: u64 = 3600;

/// The policy in `home`, with what the flags say instead, and the rates that limits in other money are held by.
pub(super) fn policy(home: &Path, args: &PolicyArgs) -> Outcome<(Policy, Rates)> {
    let path = home.join(FILE);
    let (mut policy, section) = match std::fs::read_to_string(&path) {
        Ok(text) => {
            read(&text).map_err(|wrong| Failure::usage(format!("{}: {wrong}", path.display())))?
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Default::default(),
        // A policy that is there and cannot be read must not be taken for none.
        Err(error) => {
            return Err(Failure::usage(format!(
                "cannot read the policy {}: {error}",
                path.display()
            )));
        }
    };
    apply(&mut policy, args)?;
    policy
        .check()
        .map_err(|error| Failure::usage(format!("policy: {error}")))?;
    Ok((policy, rates(&args.rates, &section)?))
}

fn apply(policy: &mut Policy, args: &PolicyArgs) -> Outcome {
    let replace = |key: &mut Option<Amount>, flag: &Option<Amount>| {
        if flag.is_some() {
            key.clone_from(flag);
        }
    };
    replace(&mut policy.limits.per_hour, &args.per_hour);
    replace(&mut policy.limits.per_day, &args.per_day);
    replace(&mut policy.limits.total, &args.total);
    replace(&mut policy.ask_above, &args.ask_above);
    if let Some(secs) = args.ask_timeout {
        policy.ask_timeout = Duration::from_secs(secs);
    }
    policy.max_payments = args.max_payments.unwrap_or(policy.max_payments);
    policy.breaker = args.breaker.unwrap_or(policy.breaker);
    policy.advertised = args.advertised.unwrap_or(policy.advertised);
    let servers = |flag: &str, texts: &[String]| {
        texts
            .iter()
            .map(|text| server(text).map_err(|wrong| Failure::usage(format!("{flag}: {wrong}"))))
            .collect::<Outcome<Vec<ServerPubkey>>>()
    };
    if !args.allow.is_empty() {
        policy.allow = servers("--allow-server", &args.allow)?;
    }
    // What the file denies stays denied.
    policy.deny.extend(servers("--deny-server", &args.deny)?);
    Ok(())
}

fn server(text: &str) -> Result<ServerPubkey, String> {
    parse_server(text)
        .map(|(server, _)| server)
        .map_err(|error| format!("{text:?}: {error}"))
}

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    policy: Keys,
    rates: RatesSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Keys {
    per_call: Option<String>,
    per_hour: Option<String>,
    per_day: Option<String>,
    total: Option<String>,
    max_payments: Option<u32>,
    breaker: Option<u32>,
    advertised: Option<String>,
    ask_above: Option<String>,
    ask_timeout: Option<u64>,
    allow: Vec<String>,
    deny: Vec<String>,
    each_server: Windows,
    each_capability: Windows,
    server: Vec<OneServer>,
    capability: Vec<OneCapability>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Windows {
    per_call: Option<String>,
    per_hour: Option<String>,
    per_day: Option<String>,
    total: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OneServer {
    server: String,
    per_call: Option<String>,
    per_hour: Option<String>,
    per_day: Option<String>,
    total: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OneCapability {
    capability: String,
    per_call: Option<String>,
    per_hour: Option<String>,
    per_day: Option<String>,
    total: Option<String>,
}

/// Reads the file; the error names the key.
fn read(text: &str) -> Result<(Policy, RatesSection), String> {
    let File {
        policy: keys,
        rates,
    } = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut policy = Policy::default();
    let top = Windows {
        per_call: keys.per_call,
        per_hour: keys.per_hour,
        per_day: keys.per_day,
        total: keys.total,
    };
    policy.limits = limits("policy", &top)?;
    policy.each_server = limits("policy.each_server", &keys.each_server)?;
    policy.each_capability = limits("policy.each_capability", &keys.each_capability)?;
    for one in keys.server {
        let name = format!("policy.server {}", one.server);
        let key = server(&one.server).map_err(|wrong| format!("policy.server: {wrong}"))?;
        let windows = Windows {
            per_call: one.per_call,
            per_hour: one.per_hour,
            per_day: one.per_day,
            total: one.total,
        };
        policy.servers.push((key, limits(&name, &windows)?));
    }
    for one in keys.capability {
        let name = format!("policy.capability {}", one.capability);
        let pattern = capability(&one.capability).map_err(|wrong| format!("{name}: {wrong}"))?;
        let windows = Windows {
            per_call: one.per_call,
            per_hour: one.per_hour,
            per_day: one.per_day,
            total: one.total,
        };
        policy
            .capabilities
            .push((pattern, limits(&name, &windows)?));
    }
    policy.max_payments = keys.max_payments.unwrap_or(policy.max_payments);
    policy.breaker = keys.breaker.unwrap_or(policy.breaker);
    if let Some(word) = keys.advertised {
        policy.advertised = word
            .parse()
            .map_err(|error| format!("policy.advertised: {error}"))?;
    }
    policy.ask_above = amount("policy.ask_above", keys.ask_above.as_deref())?;
    if let Some(secs) = keys.ask_timeout {
        if !(1..=LONGEST_ASK).contains(&secs) {
            return Err(format!(
                "policy.ask_timeout: {secs} must be a number of seconds from 1 to {LONGEST_ASK}"
            ));
        }
        policy.ask_timeout = Duration::from_secs(secs);
    }
    let servers = |key: &str, texts: &[String]| {
        texts
            .iter()
            .map(|text| server(text).map_err(|wrong| format!("{key}: {wrong}")))
            .collect::<Result<Vec<_>, _>>()
    };
    policy.allow = servers("policy.allow", &keys.allow)?;
    policy.deny = servers("policy.deny", &keys.deny)?;
    Ok((policy, rates))
}

/// A pattern of capabilities, in CEP-8's notation.
fn capability(text: &str) -> Result<CapabilityPattern, String> {
    text.parse::<crate::payment::Capability>()
        .and_then(|_| CapabilityPattern::new(text))
        .map_err(|error| error.to_string())
}

fn limits(scope: &str, windows: &Windows) -> Result<Limits, String> {
    let mut limits = Limits::default();
    for (key, text, limit) in [
        ("per_call", &windows.per_call, &mut limits.per_call),
        ("per_hour", &windows.per_hour, &mut limits.per_hour),
        ("per_day", &windows.per_day, &mut limits.per_day),
        ("total", &windows.total, &mut limits.total),
    ] {
        *limit = amount(&format!("{scope}.{key}"), text.as_deref())?;
    }
    Ok(limits)
}

fn amount(key: &str, text: Option<&str>) -> Result<Option<Amount>, String> {
    text.map(|text| text.parse().map_err(|error| format!("{key}: {error}")))
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_reads_as_it_is_written() {
        let (policy, _) = read(
            r#"
            [policy]
            per_call = "50 sats"
            per_day = "2000 sats"
            ask_above = "100 sats"
            ask_timeout = 5
            max_payments = 2
            advertised = "required"
            deny = ["f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9"]
            [policy.each_server]
            per_hour = "300 sats"
            [[policy.capability]]
            capability = "tool:search*"
            total = "900 sats"
            "#,
        )
        .unwrap();
        assert_eq!(policy.limits.per_call, Some("50 sats".parse().unwrap()));
        assert_eq!(
            policy.each_server.per_hour,
            Some("300 sats".parse().unwrap())
        );
        assert!(policy.capabilities[0].0.matches("tool:search-all"));
        assert_eq!((policy.max_payments, policy.breaker), (2, 3));
        assert_eq!(policy.ask_timeout, Duration::from_secs(5));
        assert_eq!(policy.deny.len(), 1);
    }

    #[test]
    fn a_mistake_names_its_key() {
        for (text, named) in [
            ("[policy]\nper_day = \"5\"", "policy.per_day"),
            ("[policy]\nperday = \"5 sats\"", "perday"),
            ("per_day = \"5 sats\"", "per_day"),
            ("[policy]\nadvertised = \"maybe\"", "policy.advertised"),
            ("[policy]\nask_timeout = 0", "policy.ask_timeout"),
            ("[policy]\ndeny = [\"bob\"]", "policy.deny"),
            (
                "[[policy.capability]]\ncapability = \"search\"",
                "policy.capability search",
            ),
            (
                "[[policy.server]]\nserver = \"x\"\nper_day = \"5 sats\"",
                "policy.server",
            ),
        ] {
            let wrong = read(text).unwrap_err();
            assert!(wrong.contains(named), "{text}: {wrong}");
        }
    }
}
