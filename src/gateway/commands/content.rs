//! The result of a call as text for people.

use serde_json::Value;

use crate::gateway::output::harmless;

/// What a tool, a prompt or a resource returned: its text as it is, and one line for everything that is not text.
pub(super) fn as_text(result: &Value) -> String {
    let parts = ["content", "contents", "messages"]
        .into_iter()
        .find_map(|key| result.get(key)?.as_array());
    let Some(parts) = parts.filter(|parts| !parts.is_empty()) else {
        let bare = result.get("structuredContent").unwrap_or(result);
        return serde_json::to_string_pretty(bare).unwrap_or_default();
    };
    let lines: Vec<String> = parts.iter().map(part).collect();
    lines.join("\n")
}

fn part(part: &Value) -> String {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(harmless);
    if let Some(content) = part.get("content").filter(|content| content.is_object()) {
        // A message of a prompt: who says what.
        let role = text(part, "role").unwrap_or_default();
        return format!("{role}: {}", self::part(content));
    }
    if let Some(resource) = part.get("resource") {
        return self::part(resource);
    }
    if let Some(text) = text(part, "text") {
        return text;
    }
    let kind = text(part, "type").unwrap_or_else(|| "data".to_owned());
    let what = text(part, "mimeType")
        .or_else(|| text(part, "uri"))
        .unwrap_or_default();
    let data = part
        .get("data")
        .or_else(|| part.get("blob"))
        .and_then(Value::as_str);
    let size = data
        .map(|data| format!(", {} bytes of base64", data.len()))
        .unwrap_or_default();
    format!("[{kind} {what}{size}]")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_is_shown_and_the_rest_is_named() {
        for (result, shown) in [
            (
                json!({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}),
                "a\nb",
            ),
            (
                json!({"content": [{"type": "image", "mimeType": "image/png", "data": "AAAA"}]}),
                "[image image/png, 4 bytes of base64]",
            ),
            (
                json!({"contents": [{"uri": "a:b", "text": "c\u{1b}[0m"}]}),
                "c\u{fffd}[0m",
            ),
            (
                json!({"messages": [{"role": "user", "content": {"type": "text", "text": "hi"}}]}),
                "user: hi",
            ),
            (json!({"content": [], "structuredContent": 1}), "1"),
        ] {
            assert_eq!(as_text(&result), shown);
        }
    }
}
