//! What a server offers: the four lists, as it gave them to the gateway.
//!
//! `check` holds the price list against it, announcements repeat it, and a call of a tool that is not in it need not be
//! charged for.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tracing::warn;

use super::asker::Asker;
use crate::error::{Error, Result};
use crate::wire::method;

/// How long one page of a list may take.
const PAGE_PATIENCE: Duration = Duration::from_secs(30);
/// Bounds that no honest list meets.
const MOST_PAGES: usize = 1000;
const MOST_ITEMS: usize = 50_000;

/// The lists that MCP has, with the capability that a server declares for each.
const LISTS: [(&str, &str); 4] = [
    (method::TOOLS_LIST, "tools"),
    (method::PROMPTS_LIST, "prompts"),
    (method::RESOURCES_LIST, "resources"),
    (method::RESOURCE_TEMPLATES_LIST, "resources"),
];

/// What a server offers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalogue {
    capabilities: HashSet<String>,
    items: Vec<Listed>,
    /// Where each tool is among the items.
    tools: HashMap<String, usize>,
}

/// One item of one list.
#[derive(Clone)]
pub(crate) struct Listed {
    /// The list that it is on.
    pub(crate) list: &'static str,
    /// The method that it is used with.
    pub(crate) method: &'static str,
    /// Its name, URI or URI template.
    pub(crate) name: String,
    /// All that the server says about it.
    pub(crate) item: Map<String, Value>,
}

impl std::fmt::Debug for Listed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Listed({} {})", self.method, self.name)
    }
}

impl Listed {
    /// The notation of CEP-8.
    pub(crate) fn notation(&self) -> String {
        let kind = match self.method {
            method::TOOLS_CALL => "tool",
            method::PROMPTS_GET => "prompt",
            _ => "resource",
        };
        format!("{kind}:{}", self.name)
    }

    /// Whether the name is a URI template.
    pub(crate) fn is_template(&self) -> bool {
        self.list == method::RESOURCE_TEMPLATES_LIST
    }
}

#[derive(Deserialize)]
struct Page {
    #[serde(rename = "nextCursor", default)]
    next_cursor: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Catalogue {
    /// Asks for every list that the server declares. A list that fails is left empty, and the log says so.
    pub(super) async fn ask(asker: &Asker, introduction: &Value) -> Self {
        let declared = introduction.get("capabilities").and_then(Value::as_object);
        let mut catalogue = Self {
            capabilities: declared
                .map(|declared| declared.keys().cloned().collect())
                .unwrap_or_default(),
            ..Self::default()
        };
        for (list, capability) in LISTS {
            if !catalogue.capabilities.contains(capability) {
                continue;
            }
            match items_of(asker, list).await {
                Ok(items) => catalogue.items.extend(items),
                // Servers that have resources but no templates often refuse to list them.
                Err(error) if list == method::RESOURCE_TEMPLATES_LIST => {
                    tracing::debug!(%error, list, "no list");
                }
                Err(error) => warn!(%error, list, "the server does not list what it offers"),
            }
        }
        catalogue.tools = catalogue
            .items
            .iter()
            .enumerate()
            .filter(|(_, listed)| listed.method == method::TOOLS_CALL)
            .map(|(at, listed)| (listed.name.clone(), at))
            .collect();
        catalogue
    }

    /// Everything that is listed.
    pub(crate) fn items(&self) -> &[Listed] {
        &self.items
    }

    /// The tools.
    pub(crate) fn tools(&self) -> impl Iterator<Item = &Listed> {
        self.items
            .iter()
            .filter(|listed| listed.method == method::TOOLS_CALL)
    }

    /// The prompts.
    pub(crate) fn prompts(&self) -> impl Iterator<Item = &Listed> {
        self.items
            .iter()
            .filter(|listed| listed.method == method::PROMPTS_GET)
    }

    /// The tool of this name.
    pub(crate) fn tool(&self, name: &str) -> Option<&Listed> {
        self.tools.get(name).and_then(|at| self.items.get(*at))
    }

    /// Whether the server declares what `method` belongs to.
    pub(crate) fn declares(&self, method: &str) -> bool {
        let family = method.split('/').next().unwrap_or_default();
        let capability = match family {
            "completion" => "completions",
            other => other,
        };
        self.capabilities.contains(capability)
    }

    /// The result of a list request that lists everything at once, as announcements repeat it; `None` where the server
    /// declares no such list.
    pub(crate) fn as_result(&self, list: &str) -> Option<Value> {
        let (key, ..) = method::listing(list)?;
        if !self.declares(list) {
            return None;
        }
        let items: Vec<&Map<String, Value>> = self
            .items
            .iter()
            .filter(|listed| listed.list == list)
            .map(|listed| &listed.item)
            .collect();
        Some(json!({ key: items }))
    }
}

async fn items_of(asker: &Asker, list: &'static str) -> Result<Vec<Listed>> {
    let Some((key, name, used_with)) = method::listing(list) else {
        return Ok(Vec::new());
    };
    let mut items = Vec::new();
    let mut cursor: Option<String> = None;
    for _ in 0..MOST_PAGES {
        let params = cursor
            .as_ref()
            .map_or_else(|| json!({}), |cursor| json!({ "cursor": cursor }));
        let result = asker.ask(list, &params, PAGE_PATIENCE).await?;
        let mut page: Page = serde_json::from_str(result.get())
            .map_err(|source| Error::wire("the list cannot be read").with_source(source))?;
        let Some(Value::Array(listed)) = page.rest.remove(key) else {
            return Err(Error::wire("the list is not there"));
        };
        for item in listed {
            if let Value::Object(item) = item
                && let Some(name) = item.get(name).and_then(Value::as_str)
            {
                items.push(Listed {
                    list,
                    method: used_with,
                    name: name.to_owned(),
                    item,
                });
            }
        }
        if items.len() > MOST_ITEMS {
            return Err(Error::wire("the list does not end"));
        }
        match page.next_cursor {
            Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
            _ => return Ok(items),
        }
    }
    Err(Error::wire("the list does not end"))
}
