//! What a tool takes, by its input schema: JSON Schema, compiled once.
//!
//! The schema comes from the server that is sold and the arguments come from a stranger, so both are bounded. A schema that
//! cannot be used is no reason to turn a paying client away: its tool is simply not checked. Nothing is ever fetched.

use boon::{
    Compiler, Draft, ErrorKind, Format, InstanceToken, Schemas, UrlLoader, ValidationError,
};
use regex::RegexBuilder;
use serde_json::{Map, Value};

/// The largest schema that is used, as text, in bytes.
const LARGEST: usize = 64 << 10;

/// The most subschemas that one schema may stand for, with what it refers to in its place: one that refers to itself stands
/// for more, and could take for ever on the right arguments.
const MOST_SUBSCHEMAS: usize = 10_000;

/// How deep they may stand in one another.
const DEEPEST: usize = 64;

/// The most memory that one pattern may take when it is compiled: what it costs to match grows with it.
const PATTERN_BYTES: usize = 64 << 10;

/// The largest arguments that are checked, as text, in bytes.
const LARGEST_ARGUMENTS: usize = 256 << 10;

/// The longest answer to a client, in characters.
const LONGEST_OBJECTION: usize = 300;

/// Where the schema lives, as far as the compiler is concerned.
const HERE: &str = "tool:input";

/// Formats are hints: servers differ in what they take for an address or a date, and nobody is turned away for that.
const FORMATS: [&str; 19] = [
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "idn-email",
    "idn-hostname",
    "ipv4",
    "ipv6",
    "iri",
    "iri-reference",
    "json-pointer",
    "period",
    "relative-json-pointer",
    "time",
    "uri",
    "uri-reference",
    "uri-template",
    "uuid",
];

/// The keywords whose value is a schema, a list of schemas, or schemas by name.
const OF_ONE: [&str; 13] = [
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "extends",
];
const OF_MANY: [&str; 5] = ["allOf", "anyOf", "items", "oneOf", "prefixItems"];
const OF_NAMED: [&str; 4] = [
    "dependencies",
    "dependentSchemas",
    "patternProperties",
    "properties",
];

/// What is refused: what these mean depends on more than the schema itself.
const NOT_HERE: [&str; 6] = [
    "$anchor",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$recursiveRef",
    "id",
];

/// The arguments that a tool takes.
pub(super) struct Arguments {
    schemas: Schemas,
    root: boon::SchemaIndex,
}

impl std::fmt::Debug for Arguments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arguments").finish_non_exhaustive()
    }
}

impl Arguments {
    /// Compiles the input schema of a tool.
    ///
    /// # Errors
    ///
    /// Why it cannot be used, for the operator.
    pub(super) fn of(schema: &Value) -> Result<Self, String> {
        if schema.to_string().len() > LARGEST {
            return Err(format!("it is larger than {LARGEST} bytes"));
        }
        Survey {
            root: schema,
            left: MOST_SUBSCHEMAS,
            depth: 0,
        }
        .subschema(schema, true)?;
        let mut compiler = Compiler::new();
        compiler.set_default_draft(Draft::V2020_12);
        compiler.use_loader(Box::new(Nothing));
        for name in FORMATS {
            compiler.register_format(Format {
                name,
                func: |_| Ok(()),
            });
        }
        let mut schemas = Schemas::new();
        compiler
            .add_resource(HERE, schema.clone())
            .map_err(|error| error.to_string())?;
        let root = compiler
            .compile(HERE, &mut schemas)
            .map_err(|error| error.to_string())?;
        Ok(Self { schemas, root })
    }

    /// Why a call with `arguments` cannot succeed, for the client; `None` if it may.
    pub(super) fn objection(&self, arguments: &Value) -> Option<String> {
        if arguments.to_string().len() > LARGEST_ARGUMENTS {
            return None;
        }
        let wrong = self.schemas.validate(arguments, self.root).err()?;
        let text = objection(first_cause(&wrong));
        Some(match text.char_indices().nth(LONGEST_OBJECTION) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        })
    }
}

/// Fetches nothing.
struct Nothing;

impl UrlLoader for Nothing {
    fn load(&self, _url: &str) -> Result<Value, Box<dyn std::error::Error>> {
        Err("it refers to something outside of itself".into())
    }
}

/// Looks through a schema before it is compiled.
struct Survey<'s> {
    root: &'s Value,
    left: usize,
    depth: usize,
}

impl Survey<'_> {
    fn subschema(&mut self, schema: &Value, is_root: bool) -> Result<(), String> {
        self.left = self.left.saturating_sub(1);
        if self.left == 0 || self.depth == DEEPEST {
            return Err(format!(
                "it refers to itself, or stands for more than {MOST_SUBSCHEMAS} schemas or {DEEPEST} inside of one another"
            ));
        }
        self.depth += 1;
        let looked = self.keywords(schema, is_root);
        self.depth -= 1;
        looked
    }

    fn keywords(&mut self, schema: &Value, is_root: bool) -> Result<(), String> {
        let Value::Object(keywords) = schema else {
            return Ok(());
        };
        // A name for the whole of it changes nothing inside.
        let strange = NOT_HERE
            .iter()
            .find(|word| keywords.get(**word).is_some_and(Value::is_string));
        if let Some(word) = strange.filter(|_| !is_root) {
            return Err(format!("it uses {word}"));
        }
        check_patterns(keywords)?;
        for (word, value) in keywords {
            let word = word.as_str();
            match value {
                Value::Array(schemas) if OF_MANY.contains(&word) => {
                    for schema in schemas {
                        self.subschema(schema, false)?;
                    }
                }
                Value::Object(schemas) if OF_NAMED.contains(&word) => {
                    for schema in schemas.values() {
                        self.subschema(schema, false)?;
                    }
                }
                schema if OF_ONE.contains(&word) => self.subschema(schema, false)?,
                Value::String(target) if word == "$ref" => self.reference(target)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn reference(&mut self, target: &str) -> Result<(), String> {
        let elsewhere = || format!("it refers to {target:?}, which is not inside of it");
        let pointer = target
            .strip_prefix('#')
            .filter(|pointer| !pointer.contains('%'));
        let root = self.root;
        let meant = pointer
            .and_then(|pointer| root.pointer(pointer))
            .ok_or_else(elsewhere)?;
        self.subschema(meant, false)
    }
}

/// Every pattern must compile to something small.
fn check_patterns(keywords: &Map<String, Value>) -> Result<(), String> {
    let own = keywords.get("pattern").and_then(Value::as_str);
    let of_names = keywords.get("patternProperties").and_then(Value::as_object);
    for pattern in own
        .into_iter()
        .chain(of_names.into_iter().flat_map(Map::keys).map(String::as_str))
    {
        RegexBuilder::new(pattern)
            .size_limit(PATTERN_BYTES)
            .build()
            .map_err(|_| {
                format!("the pattern {pattern:?} cannot be matched in linear time, or is too large")
            })?;
    }
    Ok(())
}

/// What is wrong first, with the place where it is wrong. Of alternatives none is more wrong than the others.
fn first_cause<'e>(error: &'e ValidationError<'e, 'e>) -> &'e ValidationError<'e, 'e> {
    let mut error = error;
    while !matches!(error.kind, ErrorKind::AnyOf | ErrorKind::OneOf(_)) {
        match error.causes.first() {
            Some(cause) => error = cause,
            None => break,
        }
    }
    error
}

fn objection(error: &ValidationError<'_, '_>) -> String {
    let place = place(error);
    let subject = place.as_ref().map_or_else(
        || "the arguments".to_owned(),
        |place| format!("the argument {place}"),
    );
    let wants = |what: String| {
        format!(
            "{subject} {} {what}",
            if place.is_some() { "wants" } else { "want" }
        )
    };
    match &error.kind {
        ErrorKind::Required { want } => {
            let name = want.first().copied().unwrap_or_default();
            match place {
                None => format!("the argument {name:?} is missing"),
                Some(place) => format!("the argument {place} wants {name:?}, which is missing"),
            }
        }
        ErrorKind::AdditionalProperties { got } => {
            let name = got.first().map_or("", |name| name);
            match place {
                None => format!("there is no argument {name:?}"),
                Some(place) => format!("the argument {place} takes no {name:?}"),
            }
        }
        ErrorKind::Type { want, .. } => {
            let types: Vec<String> = want.iter().map(|it| it.to_string()).collect();
            wants(format!("the type {}", types.join(" or ")))
        }
        ErrorKind::Enum { want } => {
            let values: Vec<String> = want.iter().map(Value::to_string).collect();
            wants(format!("one of {}", values.join(", ")))
        }
        ErrorKind::Const { want } => wants(want.to_string()),
        ErrorKind::Minimum { want, .. } => wants(format!("at least {want}")),
        ErrorKind::Maximum { want, .. } => wants(format!("at most {want}")),
        ErrorKind::ExclusiveMinimum { want, .. } => wants(format!("more than {want}")),
        ErrorKind::ExclusiveMaximum { want, .. } => wants(format!("less than {want}")),
        ErrorKind::MultipleOf { want, .. } => wants(format!("a multiple of {want}")),
        ErrorKind::MinLength { want, .. } => wants(format!("at least {want} characters")),
        ErrorKind::MaxLength { want, .. } => wants(format!("at most {want} characters")),
        ErrorKind::MinItems { want, .. } => wants(format!("at least {want} items")),
        ErrorKind::MaxItems { want, .. } => wants(format!("at most {want} items")),
        ErrorKind::MinProperties { want, .. } => wants(format!("at least {want} members")),
        ErrorKind::MaxProperties { want, .. } => wants(format!("at most {want} members")),
        ErrorKind::Pattern { want, .. } => wants(format!("text that matches {want:?}")),
        ErrorKind::UniqueItems { .. } => wants("items that differ".to_owned()),
        _ => format!("{subject} fit none of what the tool's input schema allows"),
    }
}

/// `"a"` or `"a".b[0]`; `None` for the arguments as a whole.
fn place(error: &ValidationError<'_, '_>) -> Option<String> {
    let mut place: Option<String> = None;
    for token in &error.instance_location.tokens {
        place = Some(match (place, token) {
            (None, InstanceToken::Prop(name)) => format!("{:?}", name.as_ref()),
            (Some(place), InstanceToken::Prop(name)) => format!("{place}.{}", name.escape_debug()),
            (place, InstanceToken::Item(at)) => format!("{}[{at}]", place.unwrap_or_default()),
        });
    }
    place
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn objection_to(schema: &Value, arguments: &Value) -> Option<String> {
        Arguments::of(schema).unwrap().objection(arguments)
    }

    #[test]
    fn an_objection_names_the_argument_and_what_it_wants() {
        let schema = json!({
            "type": "object",
            "properties": {
                "q": {"type": "string", "minLength": 2, "pattern": "^[a-z]+$"},
                "n": {"type": ["integer", "null"], "minimum": 1, "maximum": 10},
                "unit": {"enum": ["C", "F"]},
                "places": {"type": "array", "items": {"$ref": "#/$defs/place"}, "maxItems": 2},
                "either": {"anyOf": [{"type": "string"}, {"type": "boolean"}]},
            },
            "required": ["q"],
            "additionalProperties": false,
            "$defs": {"place": {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]}},
        });
        let arguments = Arguments::of(&schema).unwrap();
        for fits in [
            json!({"q": "ab"}),
            json!({"q": "ab", "n": null, "unit": "F", "places": [{"lat": 1}, {"lat": 2.5}], "either": true}),
            json!({"q": "ab", "n": 3.0}),
        ] {
            assert_eq!(arguments.objection(&fits), None, "{fits}");
        }
        for (wrong, said) in [
            (json!({}), "the argument \"q\" is missing"),
            (json!({"q": 5}), "the argument \"q\" wants the type string"),
            (
                json!({"q": "a"}),
                "the argument \"q\" wants at least 2 characters",
            ),
            (
                json!({"q": "A1"}),
                "the argument \"q\" wants text that matches \"^[a-z]+$\"",
            ),
            (
                json!({"q": "ab", "n": "3"}),
                "the argument \"n\" wants the type null or integer",
            ),
            (
                json!({"q": "ab", "n": 11}),
                "the argument \"n\" wants at most 10",
            ),
            (
                json!({"q": "ab", "unit": "K"}),
                "the argument \"unit\" wants one of \"C\", \"F\"",
            ),
            (json!({"q": "ab", "x": 1}), "there is no argument \"x\""),
            (
                json!({"q": "ab", "places": [{"lat": 1}, {}]}),
                "the argument \"places\"[1] wants \"lat\", which is missing",
            ),
            (
                json!({"q": "ab", "places": [{"lat": "n"}]}),
                "the argument \"places\"[0].lat wants the type number",
            ),
            (
                json!({"q": "ab", "either": 1}),
                "the argument \"either\" fit none of what the tool's input schema allows",
            ),
            (json!([]), "the arguments want the type object"),
        ] {
            assert_eq!(
                arguments.objection(&wrong).as_deref(),
                Some(said),
                "{wrong}"
            );
        }
    }

    #[test]
    fn nothing_in_an_objection_is_long() {
        let name = "x".repeat(5_000);
        let schema = json!({"additionalProperties": false});
        let said = objection_to(&schema, &json!({ name: "y".repeat(5_000) })).unwrap();
        assert!(said.chars().count() <= LONGEST_OBJECTION + 1, "{said}");
    }

    #[test]
    fn formats_are_hints_in_every_draft() {
        for draft in [
            "http://json-schema.org/draft-07/schema#",
            "https://json-schema.org/draft/2020-12/schema",
        ] {
            let schema = json!({"$schema": draft, "properties": {"at": {"type": "string", "format": "date-time"}}});
            assert_eq!(objection_to(&schema, &json!({"at": "tomorrow"})), None);
        }
    }

    #[test]
    fn what_could_take_for_ever_or_lies_elsewhere_is_not_used() {
        let lists = |depth: usize| {
            // Each stands for two of the next: 2^depth in all.
            let mut defs = Map::new();
            for n in 0..depth {
                let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
                defs.insert(format!("d{n}"), json!({"anyOf": [next, next]}));
            }
            defs.insert(format!("d{depth}"), json!({"type": "string"}));
            json!({"$ref": "#/$defs/d0", "$defs": defs})
        };
        assert!(Arguments::of(&lists(5)).is_ok());
        for schema in [
            lists(40),
            json!({"properties": {"next": {"$ref": "#"}}}),
            json!({"$ref": "https://example.com/schema.json"}),
            json!({"$ref": "file:///etc/passwd"}),
            json!({"properties": {"a": {"$id": "https://example.com/a", "$ref": "b"}}}),
            json!({"$schema": "https://example.com/my-draft"}),
            json!({"properties": {"a": {"pattern": "(?=lookahead)"}}}),
            json!({"properties": {"a": {"pattern": "((a{100}){100}){100}"}}}),
            json!({"patternProperties": {"(": {}}}),
            json!({"type": "nonsense"}),
            json!({"description": "x".repeat(LARGEST)}),
        ] {
            let text = schema.to_string();
            assert!(
                Arguments::of(&schema).is_err(),
                "{}",
                &text[..text.len().min(200)]
            );
        }
    }

    #[test]
    fn no_arguments_take_long() {
        let nested = json!({
            "type": "array",
            "items": {"type": "array", "items": {"anyOf": [{"type": "string", "pattern": "^(a+)+$"}, {"type": "number"}]}},
            "uniqueItems": true,
        });
        let schema = json!({"properties": {"x": nested}});
        let row: Vec<String> = (0..100).map(|n| format!("{}{n}", "a".repeat(40))).collect();
        let rows: Vec<Value> = (0..40).map(|n| json!([row, n])).collect();
        let begun = std::time::Instant::now();
        assert!(objection_to(&schema, &json!({ "x": rows })).is_some());
        assert!(begun.elapsed() < std::time::Duration::from_secs(5));
    }
}
