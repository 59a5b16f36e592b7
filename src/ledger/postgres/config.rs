//! Where the database is, as a URL, and what of it may be said aloud.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};

use crate::error::{Error, Result};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long the network may be silent about something that was sent.
const SILENCE: Duration = Duration::from_secs(8);

/// Names the file with the certificates that are trusted, as in libpq.
const ROOT_CERTIFICATE: &str = "sslrootcert";

/// A database to keep a ledger in.
///
/// ```
/// # use tollkeeper::ledger::PostgresConfig;
/// let config = PostgresConfig::parse("postgres://toll@127.0.0.1/toll")?.password("from the environment");
/// # Ok::<(), tollkeeper::Error>(())
/// ```
///
/// Connections within one machine are plain. To another one they are encrypted, and its certificate is verified against the
/// roots of the web, or against those in the file that `?sslrootcert=FILE` names; `?sslmode=disable` says that plain is wanted.
#[derive(Clone)]
pub struct PostgresConfig {
    pub(super) client: tokio_postgres::Config,
    pub(super) root_certificate: Option<PathBuf>,
}

impl PostgresConfig {
    /// Reads `postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?OPTIONS]`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if it cannot be read. The text does not repeat the URL.
    pub fn parse(url: &str) -> Result<Self> {
        if !is_postgres(url) {
            return Err(wrong());
        }
        let (url, root_certificate) = without_root_certificate(url);
        let mut client: tokio_postgres::Config = url.parse().map_err(|_| wrong())?;
        let named = client.get_hosts().iter().all(|host| match host {
            Host::Tcp(name) => !name.is_empty(),
            #[cfg(unix)]
            Host::Unix(_) => true,
        });
        if client.get_hosts().is_empty() || !named || client.get_dbname().is_none() {
            return Err(wrong());
        }
        let plain = url.contains("sslmode=disable") || client.get_hosts().iter().all(is_here);
        let asked = url.contains("sslmode=require");
        client
            .ssl_mode(match plain && !asked && root_certificate.is_none() {
                true => SslMode::Disable,
                // Never "prefer": whoever is on the way would say that there is none.
                false => SslMode::Require,
            })
            .application_name("tollkeeper")
            .connect_timeout(CONNECT)
            .tcp_user_timeout(SILENCE)
            .keepalives_idle(SILENCE)
            .keepalives_interval(SILENCE / 4);
        Ok(Self {
            client,
            root_certificate,
        })
    }

    /// Whether the URL names a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.client.get_password().is_some()
    }

    /// Uses this password.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.client.password(password);
        self
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.client.get_ssl_mode() == SslMode::Require
    }
}

/// Whether `text` means a database of this kind.
pub(super) fn is_postgres(text: &str) -> bool {
    text.starts_with("postgres://") || text.starts_with("postgresql://")
}

fn wrong() -> Error {
    Error::config("must be postgres://USER@HOST:PORT/DATABASE")
}

fn is_here(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            let name = name.trim_matches(['[', ']']);
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

/// Takes out the one option that the client library does not know.
fn without_root_certificate(url: &str) -> (String, Option<PathBuf>) {
    let Some((address, options)) = url.split_once('?') else {
        return (url.to_owned(), None);
    };
    let (ours, theirs): (Vec<&str>, Vec<&str>) = options
        .split('&')
        .partition(|option| option.split('=').next() == Some(ROOT_CERTIFICATE));
    let file = ours.first().and_then(|option| option.split_once('='));
    let file = file.map(|(_, file)| PathBuf::from(file));
    (format!("{address}?{}", theirs.join("&")), file)
}

/// Leaves the password out, and everything that could hold one.
impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("hosts", &self.client.get_hosts())
            .field("database", &self.client.get_dbname())
            .field("encrypted", &self.is_encrypted())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> PostgresConfig {
        PostgresConfig::parse(url).unwrap()
    }

    #[test]
    fn to_another_machine_nothing_goes_in_clear_unless_that_is_said() {
        assert!(!parse("postgres://toll@127.0.0.1:5433/toll").is_encrypted());
        assert!(!parse("postgresql://toll@localhost/toll").is_encrypted());
        assert!(parse("postgres://toll@db.example.com/toll").is_encrypted());
        assert!(parse("postgres://toll@db.example.com/toll?sslmode=prefer").is_encrypted());
        assert!(!parse("postgres://toll@db.example.com/toll?sslmode=disable").is_encrypted());
        assert!(parse("postgres://toll@127.0.0.1/toll?sslmode=require").is_encrypted());
        let own =
            parse("postgres://toll@db.example.com/toll?sslrootcert=/etc/ca.pem&sslmode=require");
        assert_eq!(own.root_certificate, Some(PathBuf::from("/etc/ca.pem")));
    }

    #[test]
    fn what_cannot_be_read_is_not_repeated_and_a_password_is_not_printed() {
        for url in [
            "postgres://",
            "postgres:///toll",
            "postgres://toll:sesame@/toll",
            "postgres://toll:sesame@host",
            "mysql://toll:sesame@host/toll",
            "postgres://toll:sesame@host:port/toll",
        ] {
            let said = PostgresConfig::parse(url).unwrap_err();
            assert!(!format!("{said:?}").contains("sesame"), "{said:?}");
        }
        let config = parse("postgres://toll:sesame@127.0.0.1/toll");
        assert!(config.has_password());
        assert!(!format!("{config:?}").contains("sesame"), "{config:?}");
    }
}
