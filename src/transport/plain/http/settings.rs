//! Where it listens, and whom it believes what.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::error::{Error, Result};

/// How HTTP is served.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpSettings {
    /// Where to listen. Port 0 finds a free one.
    pub address: SocketAddr,
    /// The path that is the server.
    pub path: String,
    /// Names under which the server is reached, beside those of this machine. A browser that was told another name is being
    /// used against its user (DNS rebinding), and is sent away.
    pub hosts: Vec<String>,
    /// Other machines that end TLS in front of this one. This machine is trusted anyway.
    pub trusted_proxies: Vec<TrustedProxy>,
    /// The header in which a proxy says who its client is, after it has verified that. Without one, nobody is believed.
    pub identity_header: Option<String>,
}

impl HttpSettings {
    /// Serves `/mcp` on `address`.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            path: "/mcp".to_owned(),
            hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            identity_header: None,
        }
    }

    /// Another path.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it does not begin with a `/`, or holds what no path holds.
    pub fn with_path(mut self, path: &str) -> Result<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
        if !path.starts_with('/') || !path.bytes().all(plain) {
            return Err(Error::config(
                "a path must begin with / and hold letters, digits and /-_.~ only",
            ));
        }
        path.clone_into(&mut self.path);
        Ok(self)
    }

    /// The header in which a proxy says who its client is.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for what is not the name of a header.
    pub fn with_identity_header(mut self, name: &str) -> Result<Self> {
        let name = hyper::header::HeaderName::from_str(name)
            .map_err(|_| Error::config("not the name of a header"))?;
        self.identity_header = Some(name.as_str().to_owned());
        Ok(self)
    }

    /// Whether `peer` may speak to us in the clear.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        peer.is_loopback() || self.trusted_proxies.iter().any(|proxy| proxy.is(peer))
    }

    /// Whether a client that calls us `host`, with or without a port, means us.
    pub(super) fn is_called(&self, host: &str, bound: SocketAddr) -> bool {
        let name = without_port(host);
        let ours = ["localhost", "127.0.0.1", "[::1]"];
        let ip = bound.ip();
        ours.iter().any(|our| name.eq_ignore_ascii_case(our))
            || self.hosts.iter().any(|our| name.eq_ignore_ascii_case(our))
            || (!ip.is_unspecified() && name.trim_matches(['[', ']']) == ip.to_string())
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') && !name.is_empty() => name,
        _ => host,
    }
}

/// A machine, or a network of them, that is trusted as a proxy: `10.0.0.5`, `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrustedProxy {
    network: IpAddr,
    bits: u8,
}

impl TrustedProxy {
    fn is(&self, peer: IpAddr) -> bool {
        let same = |ours: u128, theirs: u128, width: u32| {
            let rest = width - u32::from(self.bits).min(width);
            ours.checked_shr(rest) == theirs.checked_shr(rest)
        };
        match (self.network, peer) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                same(ours.to_bits().into(), theirs.to_bits().into(), 32)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => same(ours.to_bits(), theirs.to_bits(), 128),
            _ => false,
        }
    }
}

impl FromStr for TrustedProxy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::config("a proxy must be an address, or a network such as 10.0.0.0/8");
        let (network, bits) = match text.split_once('/') {
            Some((network, bits)) => (network, Some(bits)),
            None => (text, None),
        };
        let network: IpAddr = network.parse().map_err(|_| wrong())?;
        let all = if network.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(all), str::parse).map_err(|_| wrong())?;
        // Everybody is not a proxy.
        if bits == 0 || bits > all {
            return Err(wrong());
        }
        Ok(Self { network, bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_addresses_or_networks_but_not_everybody() {
        let is = |proxy: &str, peer: &str| {
            let proxy: TrustedProxy = proxy.parse().unwrap();
            proxy.is(peer.parse().unwrap())
        };
        assert!(is("10.0.0.5", "10.0.0.5") && !is("10.0.0.5", "10.0.0.6"));
        assert!(is("10.0.0.0/8", "10.255.1.2") && !is("10.0.0.0/8", "11.0.0.1"));
        assert!(is("fd00::/8", "fd12::1") && !is("fd00::/8", "fe80::1"));
        for wrong in ["", "x", "0.0.0.0/0", "10.0.0.0/33", "10.0.0.0/x", "::/0"] {
            assert!(wrong.parse::<TrustedProxy>().is_err(), "{wrong}");
        }
        let settings = HttpSettings::new("127.0.0.1:0".parse().unwrap());
        assert!(settings.trusts("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!settings.trusts("192.168.1.2".parse().unwrap()));
    }

    #[test]
    fn a_name_that_is_not_ours_is_not_us() {
        let mut settings = HttpSettings::new("127.0.0.1:0".parse().unwrap());
        settings.hosts = vec!["Pay.example".to_owned()];
        let bound = "10.1.2.3:80".parse().unwrap();
        for ours in [
            "localhost",
            "localhost:8",
            "127.0.0.1:80",
            "[::1]:80",
            "[::1]",
            "pay.example:443",
            "10.1.2.3:80",
        ] {
            assert!(settings.is_called(ours, bound), "{ours}");
        }
        for other in ["evil.example", "evil.example:80", "", ":80", "10.1.2.4"] {
            assert!(!settings.is_called(other, bound), "{other}");
        }
        for path in ["mcp", "/a b", "/a?b", ""] {
            assert!(settings.clone().with_path(path).is_err(), "{path}");
        }
    }
}
