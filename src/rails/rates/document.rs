//! One number in a JSON document, digit by digit: a rate must not pass through a floating-point number.

use serde::de::{Deserialize, IgnoredAny};
use serde_json::value::RawValue;

use crate::error::{Error, ErrorKind, Result};

/// The number, or the text that is a number, to which `pointer` (RFC 6901) leads in `document`.
///
/// # Errors
///
/// [`ErrorKind::Price`] if it leads nowhere, or to something else. The document is not repeated.
pub(super) fn number_at(document: &[u8], pointer: &Pointer) -> Result<String> {
    let wrong = |what: String| Error::new(ErrorKind::Price, what);
    let text =
        std::str::from_utf8(document).map_err(|_| wrong("the answer is no text".to_owned()))?;
    // The whole of it must be JSON, so that half an answer is none.
    let mut reader = serde_json::Deserializer::from_str(text);
    IgnoredAny::deserialize(&mut reader)
        .and_then(|_| reader.end())
        .map_err(|_| wrong("the answer is no JSON".to_owned()))?;
    let mut found = text.trim();
    for step in &pointer.0 {
        found = step_into(found, step)
            .ok_or_else(|| wrong(format!("the answer has nothing at {pointer}")))?;
    }
    let number = match serde_json::from_str::<String>(found) {
        Ok(text) => text.trim().to_owned(),
        Err(_) => found.to_owned(),
    };
    if number.len() > 40 || !number.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(wrong(format!(
            "the answer has no positive number at {pointer}"
        )));
    }
    Ok(number)
}

fn step_into<'a>(json: &'a str, step: &str) -> Option<&'a str> {
    if json.starts_with('{') {
        let object: std::collections::BTreeMap<String, &'a RawValue> =
            serde_json::from_str(json).ok()?;
        return object.get(step).map(|value| value.get());
    }
    let at: usize = step.parse().ok()?;
    let array: Vec<&'a RawValue> = serde_json::from_str(json).ok()?;
    array.get(at).map(|value| value.get())
}

/// Where in a document: a JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pointer(Vec<String>);

impl Pointer {
    /// Reads `/data/0/price`; the empty text is the whole document.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self(Vec::new()));
        }
        let steps = text.strip_prefix('/')?.split('/');
        let steps = steps.map(|step| step.replace("~1", "/").replace("~0", "~"));
        Some(Self(steps.collect()))
    }
}

impl std::fmt::Display for Pointer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("its top");
        }
        self.0
            .iter()
            .try_for_each(|step| write!(f, "/{}", step.replace('~', "~0").replace('/', "~1")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(document: &str, pointer: &str) -> Option<String> {
        number_at(document.as_bytes(), &Pointer::parse(pointer).unwrap()).ok()
    }

    #[test]
    fn the_shapes_of_known_services_are_read_digit_by_digit() {
        for (document, pointer, number) in [
            // LNbits: /api/v1/rate/USD
            (
                r#"{"rate":1538.4615384615386,"price":65000.0}"#,
                "/price",
                "65000.0",
            ),
            // mempool: /api/v1/prices
            (
                r#"{"time":1763737440,"USD":65000,"EUR":60000}"#,
                "/USD",
                "65000",
            ),
            // Coinbase: /v2/prices/BTC-USD/spot
            (
                r#"{"data":{"amount":"65000.125","base":"BTC","currency":"USD"}}"#,
                "/data/amount",
                "65000.125",
            ),
            (
                r#" {"a/b":[{"~":0.1000000000000000055511151231257827}]} "#,
                "/a~1b/0/~0",
                "0.1000000000000000055511151231257827",
            ),
            ("65000.00", "", "65000.00"),
        ] {
            assert_eq!(at(document, pointer).as_deref(), Some(number));
        }
    }

    #[test]
    fn what_is_not_there_or_is_no_number_is_an_error() {
        for (document, pointer) in [
            ("", ""),
            ("{", ""),
            (r#"{"USD":65000"#, "/USD"),
            (r#"{"USD":65000}{"#, "/USD"),
            (r#"{"USD":65000}"#, "/EUR"),
            (r#"{"USD":65000}"#, "/USD/0"),
            (r#"{"USD":null}"#, "/USD"),
            (r#"{"USD":-1}"#, "/USD"),
            (r#"{"USD":true}"#, "/USD"),
            (r#"{"USD":{"a":1}}"#, "/USD"),
            (r#"{"USD":""}"#, "/USD"),
            (r#"{"USD":"NaN"}"#, "/USD"),
            ("[1,2]", "/2"),
            ("[1,2]", "/-"),
            ("\u{feff}1", ""),
            ("<html>429</html>", "/USD"),
        ] {
            assert_eq!(at(document, pointer), None, "{document} {pointer}");
        }
        assert!(number_at(&[0xff, 0xfe], &Pointer::parse("").unwrap()).is_err());
        assert_eq!(Pointer::parse("USD"), None);
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(at(&deep, "/0"), None);
    }
}
