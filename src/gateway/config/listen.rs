//! `[listen]`: how clients without Nostr reach the server.

use std::net::SocketAddr;

use serde::Deserialize;

use crate::gateway::exit::{Failure, Outcome};
use crate::transport::plain::http::HttpSettings;

/// The section as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Listen {
    pub(super) address: Option<SocketAddr>,
    path: Option<String>,
    hosts: Vec<String>,
    trusted_proxies: Vec<String>,
    identity_header: Option<String>,
}

impl Listen {
    /// What to listen on, if anything: `flag` beats the file.
    pub(super) fn read(&self, flag: Option<SocketAddr>) -> Outcome<Option<HttpSettings>> {
        let wrong = |key: &str, error: &dyn std::fmt::Display| {
            Failure::usage(format!("listen.{key}: {error}"))
        };
        let Some(address) = flag.or(self.address) else {
            return Ok(None);
        };
        let mut settings = HttpSettings::new(address);
        if let Some(path) = &self.path {
            settings = settings
                .with_path(path)
                .map_err(|error| wrong("path", &error))?;
        }
        if let Some(name) = &self.identity_header {
            settings = settings
                .with_identity_header(name)
                .map_err(|error| wrong("identity_header", &error))?;
        }
        settings.hosts.clone_from(&self.hosts);
        for proxy in &self.trusted_proxies {
            let proxy = proxy
                .parse()
                .map_err(|error| wrong("trusted_proxies", &error))?;
            settings.trusted_proxies.push(proxy);
        }
        Ok(Some(settings))
    }
}
