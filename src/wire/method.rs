//! MCP methods: which param names the capability, and the words that more than one module needs.

use serde_json::Value;

/// Calls a tool; `params.name` names it.
pub const TOOLS_CALL: &str = "tools/call";
/// Gets a prompt; `params.name` names it.
pub const PROMPTS_GET: &str = "prompts/get";
/// Reads a resource; `params.uri` names it.
pub const RESOURCES_READ: &str = "resources/read";
/// Subscribes to a resource; `params.uri` names it.
pub const RESOURCES_SUBSCRIBE: &str = "resources/subscribe";
/// Completes an argument; `params.ref` names a prompt or a resource.
pub const COMPLETION_COMPLETE: &str = "completion/complete";
/// Opens a session.
pub const INITIALIZE: &str = "initialize";
/// Asks whether the other side is there.
pub const PING: &str = "ping";
/// Says that a session is open.
pub const INITIALIZED: &str = "notifications/initialized";
/// Lists tools.
pub const TOOLS_LIST: &str = "tools/list";
/// Lists prompts.
pub const PROMPTS_LIST: &str = "prompts/list";
/// Lists resources.
pub const RESOURCES_LIST: &str = "resources/list";
/// Lists resource templates.
pub const RESOURCE_TEMPLATES_LIST: &str = "resources/templates/list";
/// Reports progress of a request, by its progress token.
pub const PROGRESS: &str = "notifications/progress";
/// Says that a request need not be answered any more.
pub const CANCELLED: &str = "notifications/cancelled";

/// Whether what `method` names is a URI, which has more than one spelling.
#[must_use]
pub fn names_a_uri(method: &str) -> bool {
    matches!(method, RESOURCES_READ | RESOURCES_SUBSCRIBE)
}

/// What a request of `method` with `params` names: a tool, a prompt, a URI. `None` for methods that name nothing and for
/// params without a name.
#[must_use]
pub fn capability_name<'a>(method: &str, params: &'a Value) -> Option<&'a str> {
    match method {
        RESOURCES_READ | RESOURCES_SUBSCRIBE => params.get("uri")?.as_str(),
        COMPLETION_COMPLETE => {
            let reference = params.get("ref")?;
            reference
                .get("name")
                .or_else(|| reference.get("uri"))?
                .as_str()
        }
        _ => params.get("name")?.as_str(),
    }
}

/// What a request calls, in CEP-8's notation: `tool:NAME`, `prompt:NAME`, `resource:URI`; `method:METHOD` or
/// `method:METHOD NAME` for the rest.
#[must_use]
pub fn notation(method: &str, params: Option<&Value>) -> String {
    let name = params.and_then(|params| capability_name(method, params));
    match (method, name) {
        (TOOLS_CALL, Some(name)) => format!("tool:{name}"),
        (PROMPTS_GET, Some(name)) => format!("prompt:{name}"),
        (RESOURCES_READ, Some(name)) => format!("resource:{name}"),
        (_, Some(name)) => format!("method:{method} {name}"),
        (_, None) => format!("method:{method}"),
    }
}

/// For the four list methods: the key of the list in the result, the key of each item's name, and the method that the
/// items are used with.
#[must_use]
pub fn listing(method: &str) -> Option<(&'static str, &'static str, &'static str)> {
    match method {
        TOOLS_LIST => Some(("tools", "name", TOOLS_CALL)),
        PROMPTS_LIST => Some(("prompts", "name", PROMPTS_GET)),
        RESOURCES_LIST => Some(("resources", "uri", RESOURCES_READ)),
        RESOURCE_TEMPLATES_LIST => Some(("resourceTemplates", "uriTemplate", RESOURCES_READ)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_method_names_its_capability() {
        assert_eq!(
            capability_name(TOOLS_CALL, &json!({"name": "add"})),
            Some("add")
        );
        assert_eq!(
            capability_name(RESOURCES_READ, &json!({"uri": "a:b", "name": "x"})),
            Some("a:b")
        );
        assert_eq!(
            capability_name(
                COMPLETION_COMPLETE,
                &json!({"ref": {"type": "ref/prompt", "name": "p"}})
            ),
            Some("p")
        );
        assert_eq!(capability_name(TOOLS_CALL, &json!({"name": 1})), None);
        assert_eq!(capability_name(TOOLS_CALL, &Value::Null), None);
    }
}
