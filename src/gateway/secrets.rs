//! The environment variables that hold secrets. They are read here and nowhere else, and no child inherits them.

use std::env;

use crate::error::{Error, Result};

/// The Nostr secret key, as nsec or hex.
pub(super) const SECRET_KEY: &str = "TOLLKEEPER_SECRET_KEY";
/// The wallet's NIP-47 connection URI.
pub(super) const NWC_CONNECTION: &str = "NWC_CONNECTION";

/// All of them.
pub(super) const ENVIRONMENT: [&str; 2] = [SECRET_KEY, NWC_CONNECTION];

/// The value of `name`, if it is set and not empty.
pub(super) fn read(name: &'static str) -> Result<Option<String>> {
    match env::var(name) {
        Ok(value) if value.trim().is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(env::VarError::NotPresent) => Ok(None),
        // The error would repeat the value, so it is not kept.
        Err(env::VarError::NotUnicode(_)) => {
            Err(Error::config(format!("{name} must be plain text")))
        }
    }
}
