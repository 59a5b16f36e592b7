//! Whoever asks for what cannot be served is told so before a price is named, and is not charged for an error.
//!
//! The server's own lists are the measure: a tool that is not on them, or a required argument that is missing, cannot
//! succeed. Nothing is forwarded for it either, so that a list that lags behind gives nothing away.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::child::Catalogue;
use crate::payment::{CheckCall, Invocation};
use crate::wire::method;

/// Measures calls by what the server lists.
#[derive(Debug, Clone)]
pub(super) struct ListedCalls {
    catalogue: watch::Receiver<Arc<Catalogue>>,
}

impl ListedCalls {
    /// Measures by `catalogue` as it is at the time of the call.
    pub(super) fn new(catalogue: watch::Receiver<Arc<Catalogue>>) -> Self {
        Self { catalogue }
    }
}

impl CheckCall for ListedCalls {
    fn objection(&self, invocation: &Invocation) -> Option<String> {
        if invocation.method != method::TOOLS_CALL {
            return None;
        }
        let catalogue = Arc::clone(&self.catalogue.borrow());
        // A server that does not list its tools is not measured by its list.
        catalogue.tools().next()?;
        let Some(tool) = catalogue.tool(invocation.name.as_deref()?) else {
            return Some("there is no such tool".to_owned());
        };
        let required = tool.item.get("inputSchema")?.get("required")?.as_array()?;
        let arguments = invocation.params.get("arguments");
        let missing = required
            .iter()
            .filter_map(Value::as_str)
            .find(|name| arguments.is_none_or(|arguments| arguments.get(name).is_none()))?;
        Some(format!("the argument {missing:?} is missing"))
    }
}
