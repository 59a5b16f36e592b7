//! Challenges of MPP: whether they are made, and in whose name.

use serde::Deserialize;

/// The section `[mpp]` as it is written, and as it is used.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::gateway) struct MppSettings {
    /// Put offers as challenges, too, and take credentials.
    pub(in crate::gateway) enabled: bool,
    /// Who asks; `nostr:` and the server's key if it is left out.
    pub(in crate::gateway) realm: Option<String>,
    /// Ask clients that declare MPP and nothing of CEP-8 by an answer rather than by notifications.
    pub(in crate::gateway) implies_gating: bool,
}

impl Default for MppSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            realm: None,
            implies_gating: true,
        }
    }
}
