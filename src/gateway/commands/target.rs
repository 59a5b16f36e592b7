//! What `call` calls: `tool:NAME`, `prompt:NAME` or `resource:URI`, with `key=value` arguments.

use serde_json::{Map, Value, json};

use crate::gateway::exit::{Failure, Outcome};
use crate::wire::method;

/// A method with the params of one call.
#[derive(Debug, PartialEq)]
pub(super) struct Target {
    pub(super) method: &'static str,
    pub(super) params: Value,
    /// The method that lists such things.
    pub(super) list: &'static str,
}

impl Target {
    pub(super) fn parse(capability: &str, arguments: &[String]) -> Outcome<Self> {
        let wrong = || {
            Failure::usage(format!(
                "CAPABILITY: {capability:?} must be tool:NAME, prompt:NAME or resource:URI"
            ))
        };
        let (kind, name) = capability.split_once(':').ok_or_else(wrong)?;
        if name.is_empty() {
            return Err(wrong());
        }
        match kind {
            "tool" => Ok(Self {
                method: method::TOOLS_CALL,
                params: json!({ "name": name, "arguments": read(arguments, json_or_text)? }),
                list: method::TOOLS_LIST,
            }),
            // MCP has no other arguments for prompts than text.
            "prompt" => Ok(Self {
                method: method::PROMPTS_GET,
                params: json!({ "name": name, "arguments": read(arguments, text)? }),
                list: method::PROMPTS_LIST,
            }),
            "resource" if arguments.is_empty() => Ok(Self {
                method: method::RESOURCES_READ,
                params: json!({ "uri": name }),
                list: method::RESOURCES_LIST,
            }),
            "resource" => Err(Failure::usage("KEY=VALUE: a resource takes no arguments")),
            _ => Err(wrong()),
        }
    }

    /// What is called, in CEP-8's notation.
    pub(super) fn notation(&self) -> String {
        method::notation(self.method, Some(&self.params))
    }
}

fn read(arguments: &[String], value_of: fn(&str) -> Value) -> Outcome<Map<String, Value>> {
    let mut read = Map::new();
    for argument in arguments {
        let (key, value) = argument
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| {
                Failure::usage(format!(
                    "KEY=VALUE: {argument:?} must be a name, '=' and a value"
                ))
            })?;
        if read.insert(key.to_owned(), value_of(value)).is_some() {
            return Err(Failure::usage(format!("KEY=VALUE: {key:?} is given twice")));
        }
    }
    Ok(read)
}

fn json_or_text(value: &str) -> Value {
    serde_json::from_str(value).unwrap_or_else(|_| text(value))
}

fn text(value: &str) -> Value {
    value.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(capability: &str, arguments: &[&str]) -> Outcome<Target> {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        Target::parse(capability, &arguments)
    }

    #[test]
    fn arguments_are_json_where_they_parse_as_json() {
        let target = parse(
            "tool:add",
            &["a=1", "b=\"1\"", "c=x=y", "d=[1,{}]", "e=", "f=true"],
        )
        .unwrap();
        let arguments = json!({"a": 1, "b": "1", "c": "x=y", "d": [1, {}], "e": "", "f": true});
        assert_eq!(
            target.params,
            json!({"name": "add", "arguments": arguments})
        );
        let prompt = parse("prompt:p", &["a=1"]).unwrap();
        assert_eq!(prompt.params["arguments"], json!({"a": "1"}));
        let resource = parse("resource:a://b:c", &[]).unwrap();
        assert_eq!(resource.params, json!({"uri": "a://b:c"}));
    }

    #[test]
    fn what_cannot_be_called_is_wrong_usage() {
        for (capability, arguments) in [
            ("add", &[][..]),
            ("tool:", &[]),
            ("method:x", &[]),
            ("tool:x", &["a"]),
            ("tool:x", &["=1"]),
            ("tool:x", &["a=1", "a=2"]),
            ("resource:x", &["a=1"]),
        ] {
            let failure = parse(capability, arguments).unwrap_err();
            assert_eq!(
                failure.exit_code(),
                std::process::ExitCode::from(2),
                "{capability}"
            );
        }
    }
}
