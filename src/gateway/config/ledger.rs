//! Where money is remembered: a file, a database, or nowhere.

use std::path::{Path, PathBuf};

use super::file::File;
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::secrets;
#[cfg(feature = "postgres")]
use crate::ledger::PostgresConfig;

/// Where money is remembered.
#[derive(Debug)]
pub(in crate::gateway) enum LedgerPlace {
    /// Nowhere that survives.
    Memory,
    /// In this file.
    File(PathBuf),
    /// In this database, which other instances may share.
    #[cfg(feature = "postgres")]
    Postgres(Box<PostgresConfig>),
}

impl LedgerPlace {
    /// The file that is used unless another one is named, in the working directory.
    pub(in crate::gateway) fn default_file() -> PathBuf {
        PathBuf::from("tollkeeper.db")
    }

    /// Where the key is kept unless another file is named: beside the ledger.
    pub(in crate::gateway) fn key_file(&self) -> Option<PathBuf> {
        match self {
            Self::File(file) => Some(file.with_extension("key")),
            _ => None,
        }
    }

    /// Whether other processes may serve from it.
    pub(in crate::gateway) fn is_shared(&self) -> bool {
        !matches!(self, Self::Memory | Self::File(_))
    }

    /// The place that the flag names, else the environment, else the config file, else the default.
    pub(super) fn find(flag: Option<&Path>, file: &File) -> Outcome<Self> {
        match Self::named(flag)? {
            Some(place) => Ok(place),
            None => match file.path(file.ledger.as_deref()) {
                Some(path) => read(&path, "ledger"),
                None => Ok(Self::File(Self::default_file())),
            },
        }
    }

    /// The place that the flag names, else the environment.
    pub(in crate::gateway) fn named(flag: Option<&Path>) -> Outcome<Option<Self>> {
        if let Some(word) = flag {
            refuse_password(word)?;
            return read(word, "--ledger").map(Some);
        }
        let named = secrets::read(secrets::LEDGER)?.map(PathBuf::from);
        named.map(|word| read(&word, secrets::LEDGER)).transpose()
    }
}

/// Whether this names a database and not a file.
pub(super) fn is_database(word: &Path) -> bool {
    word.to_str()
        .is_some_and(|word| word.starts_with("postgres://") || word.starts_with("postgresql://"))
}

/// Everybody on the machine sees the words of a command line.
fn refuse_password(word: &Path) -> Outcome {
    let authority = word
        .to_str()
        .and_then(|word| word.split_once("://"))
        .map(|(_, rest)| rest);
    let user = authority.and_then(|rest| rest.split(['/', '?']).next()?.rsplit_once('@'));
    let in_options = authority.is_some_and(|rest| rest.contains("password="));
    if is_database(word) && (in_options || user.is_some_and(|(user, _)| user.contains(':'))) {
        return Err(Failure::usage(format!(
            "--ledger: a password on the command line can be read by others; put it into PGPASSWORD, or the whole URL into {}",
            secrets::LEDGER
        )));
    }
    Ok(())
}

fn read(word: &Path, key: &str) -> Outcome<LedgerPlace> {
    match word {
        word if word.as_os_str() == "memory" => Ok(LedgerPlace::Memory),
        word if is_database(word) => database(word, key),
        word => Ok(LedgerPlace::File(word.to_owned())),
    }
}

#[cfg(feature = "postgres")]
fn database(word: &Path, key: &str) -> Outcome<LedgerPlace> {
    let url = word.to_str().unwrap_or_default();
    let config =
        PostgresConfig::parse(url).map_err(|error| Failure::usage(format!("{key}: {error}")))?;
    let password = secrets::read(secrets::PGPASSWORD)?.filter(|_| !config.has_password());
    let config = match password {
        Some(password) => config.password(&password),
        None => config,
    };
    Ok(LedgerPlace::Postgres(Box::new(config)))
}

#[cfg(not(feature = "postgres"))]
fn database(_: &Path, key: &str) -> Outcome<LedgerPlace> {
    Err(Failure::usage(format!(
        "{key}: this build keeps no ledger in PostgreSQL; a build with the feature postgres does"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_on_the_command_line_is_refused_and_not_repeated() {
        for url in [
            "postgres://toll:sesame@127.0.0.1/toll",
            "postgresql://toll:sesame@127.0.0.1/toll?sslmode=disable",
            "postgres://127.0.0.1/toll?user=toll&password=sesame",
        ] {
            let refused = LedgerPlace::named(Some(Path::new(url))).unwrap_err();
            let said = format!("{refused:?}");
            assert!(
                said.contains("PGPASSWORD") && said.contains("TOLLKEEPER_LEDGER"),
                "{said}"
            );
            assert!(!said.contains("sesame"), "{said}");
        }
    }

    #[test]
    fn what_is_named_is_a_file_a_database_or_nothing_that_lasts() {
        let named = |word: &str| LedgerPlace::named(Some(Path::new(word))).unwrap().unwrap();
        assert!(matches!(named("memory"), LedgerPlace::Memory));
        assert!(matches!(named("books.db"), LedgerPlace::File(_)));
        #[cfg(feature = "postgres")]
        {
            assert!(named("postgres://toll@127.0.0.1:5433/toll").is_shared());
            let wrong =
                LedgerPlace::named(Some(Path::new("postgres://127.0.0.1:port"))).unwrap_err();
            assert!(format!("{wrong:?}").contains("--ledger: must be postgres://"));
        }
    }
}
