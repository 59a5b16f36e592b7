//! The environment variables that hold secrets. They are read here and nowhere else, and no child inherits them.

use std::env;

use crate::error::{Error, Result};

/// The Nostr secret key, as nsec or hex.
pub(super) const SECRET_KEY: &str = "TOLLKEEPER_SECRET_KEY";
/// The wallet's NIP-47 connection URI.
pub(super) const NWC_CONNECTION: &str = "NWC_CONNECTION";

/// What an issuer of licences signs with, without the name of the key.
pub(super) const AICOACH_SIGNING_SECRET: &str = "AICOACH_SIGNING_SECRET";
/// What an issuer of licences wants to see before it tells its signing secret.
pub(super) const AICOACH_API_KEY: &str = "AICOACH_API_KEY";
/// A buyer's licence.
pub(super) const LICENCE_TOKEN: &str = "MCP_LICENSE_TOKEN";

/// The key of an LNbits wallet that makes invoices.
pub(super) const LNBITS_INVOICE_KEY: &str = "LNBITS_INVOICE_KEY";
/// The key of an LNbits wallet that pays.
pub(super) const LNBITS_ADMIN_KEY: &str = "LNBITS_ADMIN_KEY";

/// What challenges are signed with: one secret, or several with spaces between, of which the first signs.
pub(super) const MPP_SECRET_KEY: &str = "MPP_SECRET_KEY";
/// The secret key of a Stripe account.
pub(super) const STRIPE_SECRET_KEY: &str = "STRIPE_SECRET_KEY";
/// What Stripe signs its webhooks with; several while one replaces the other.
pub(super) const STRIPE_WEBHOOK_SECRET: &str = "STRIPE_WEBHOOK_SECRET";

/// All of them.
pub(super) const ENVIRONMENT: [&str; 10] = [
    SECRET_KEY,
    NWC_CONNECTION,
    LNBITS_INVOICE_KEY,
    LNBITS_ADMIN_KEY,
    AICOACH_SIGNING_SECRET,
    AICOACH_API_KEY,
    LICENCE_TOKEN,
    MPP_SECRET_KEY,
    STRIPE_SECRET_KEY,
    STRIPE_WEBHOOK_SECRET,
];

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
