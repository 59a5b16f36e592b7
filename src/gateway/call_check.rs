//! Whoever asks for what cannot be served is told so before a price is named, and is not charged for an error.
//!
//! The server's own lists are the measure: a tool or prompt that is not on them, or arguments that it does not take, cannot
//! succeed. Nothing is forwarded for it either, so that a list that lags behind gives nothing away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};
use tokio::sync::watch;

use super::child::Catalogue;
use super::input_schema::Arguments;
use crate::payment::{CheckCall, Invocation};
use crate::wire::method;

/// Measures calls by what the server lists.
#[derive(Debug)]
pub(super) struct ListedCalls {
    catalogue: watch::Receiver<Arc<Catalogue>>,
    compiled: Mutex<Compiled>,
}

/// The input schemas that calls have been measured by so far; `None` for one that cannot be used.
#[derive(Debug, Default)]
struct Compiled {
    catalogue: Arc<Catalogue>,
    tools: HashMap<String, Option<Arc<Arguments>>>,
}

impl ListedCalls {
    /// Measures by `catalogue` as it is at the time of the call.
    pub(super) fn new(catalogue: watch::Receiver<Arc<Catalogue>>) -> Self {
        Self {
            catalogue,
            compiled: Mutex::default(),
        }
    }

    fn objection_to_tool(&self, catalogue: &Arc<Catalogue>, call: &Invocation) -> Option<String> {
        // A server that does not list its tools is not measured by its list.
        catalogue.tools().next()?;
        let name = call.name.as_deref()?;
        let Some(tool) = catalogue.tool(name) else {
            return Some("there is no such tool".to_owned());
        };
        let schema = tool.item.get("inputSchema")?;
        let none = Value::Object(Map::new());
        let arguments = call.params.get("arguments").unwrap_or(&none);
        match self.arguments_of(catalogue, name, schema) {
            Some(taken) => taken.objection(arguments),
            None => missing(
                schema
                    .get("required")?
                    .as_array()?
                    .iter()
                    .filter_map(Value::as_str),
                arguments,
            ),
        }
    }

    /// The compiled input schema of a tool.
    fn arguments_of(
        &self,
        catalogue: &Arc<Catalogue>,
        tool: &str,
        schema: &Value,
    ) -> Option<Arc<Arguments>> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&compiled.catalogue, catalogue) {
            *compiled = Compiled {
                catalogue: Arc::clone(catalogue),
                tools: HashMap::new(),
            };
        }
        if let Some(known) = compiled.tools.get(tool) {
            return known.clone();
        }
        let arguments = Arguments::of(schema).map(Arc::new);
        if let Err(why) = &arguments {
            tracing::warn!(
                tool,
                why,
                "the tool's input schema cannot be used; only missing arguments are refused"
            );
        }
        let arguments = arguments.ok();
        compiled.tools.insert(tool.to_owned(), arguments.clone());
        arguments
    }
}

impl CheckCall for ListedCalls {
    fn objection(&self, invocation: &Invocation) -> Option<String> {
        let catalogue = Arc::clone(&self.catalogue.borrow());
        match invocation.method.as_str() {
            method::TOOLS_CALL => self.objection_to_tool(&catalogue, invocation),
            method::PROMPTS_GET => objection_to_prompt(&catalogue, invocation),
            _ => None,
        }
    }
}

fn objection_to_prompt(catalogue: &Catalogue, call: &Invocation) -> Option<String> {
    catalogue.prompts().next()?;
    let name = call.name.as_deref()?;
    let Some(prompt) = catalogue.prompts().find(|prompt| prompt.name == name) else {
        return Some("there is no such prompt".to_owned());
    };
    let listed = prompt.item.get("arguments")?.as_array()?.iter();
    let required = listed.filter(|argument| argument.get("required") == Some(&Value::Bool(true)));
    let none = Value::Null;
    missing(
        required.filter_map(|argument| argument.get("name")?.as_str()),
        call.params.get("arguments").unwrap_or(&none),
    )
}

/// The first of `required` that `arguments` lack.
fn missing<'a>(mut required: impl Iterator<Item = &'a str>, arguments: &Value) -> Option<String> {
    let name = required.find(|name| arguments.get(name).is_none())?;
    Some(format!("the argument {name:?} is missing"))
}
