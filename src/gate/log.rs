//! The log of money: one `info` line per change of state, always with the same fields.

use crate::ledger::Entry;

/// Says that `entry` has moved.
pub(super) fn log_money(entry: &Entry, what: &'static str) {
    tracing::info!(
        entry = %entry.id, client_pubkey = entry.client.short(), capability = entry.capability,
        pmi = %entry.pmi, amount = entry.amount.value(), unit = %entry.amount.unit(), state = entry.state.as_str(),
        "{what}"
    );
}
