//! JSON that means the same to everybody, or is refused.
//!
//! What is priced must not read differently to the gate and to the handler behind it: with `{"name":"free","name":"paid"}`
//! one parser sees the first, the other the last. Repeated keys and lone surrogates are therefore refused. Numbers that
//! JavaScript peers would round are noted, so that no price or identity is ever tied to one (N-88).

use std::cell::Cell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};

/// The largest integer that JSON peers which count in doubles read exactly: 2^53 - 1.
const SAFE_INTEGER: u64 = 9_007_199_254_740_991;

/// A value read by [`parse_strict`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StrictJson {
    /// The value.
    pub value: Value,
    /// Whether some number in it is beyond ±(2^53 - 1), where peers round differently.
    pub has_unsafe_number: bool,
}

/// Reads JSON text that must not be ambiguous.
///
/// # Errors
///
/// [`ErrorKind::Wire`](crate::ErrorKind::Wire) for a repeated key, a lone surrogate, a number that no double can hold, and
/// whatever is not JSON.
pub fn parse_strict(text: &str) -> Result<StrictJson> {
    let unsafe_number = Cell::new(false);
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Strict(&unsafe_number)
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|source| Error::wire("ambiguous or malformed JSON").with_source(source))?;
    Ok(StrictJson {
        value,
        has_unsafe_number: unsafe_number.get(),
    })
}

#[derive(Clone, Copy)]
struct Strict<'a>(&'a Cell<bool>);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        if value.unsigned_abs() > SAFE_INTEGER {
            self.0.set(true);
        }
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        if value > SAFE_INTEGER {
            self.0.set(true);
        }
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        #[expect(clippy::cast_precision_loss, reason = "2^53 - 1 is exact")]
        if value.abs() > SAFE_INTEGER as f64 {
            self.0.set(true);
        }
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(self)?;
            if object.insert(key, value).is_some() {
                return Err(de::Error::custom("repeated key"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for text in [
            r#"{"name":"free","name":"paid"}"#,
            r#"{"a":{"b":1,"b":1}}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":1e400}"#,
            "{} {}",
            "",
        ] {
            assert!(parse_strict(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_beyond_doubles_are_noted() {
        for (text, noted) in [
            ("[9007199254740991, -9007199254740991, 0.5, 1e10]", false),
            ("9007199254740992", true),
            ("-9007199254740993", true),
            ("18446744073709551616", true),
            ("{\"a\":[1e300]}", true),
        ] {
            assert_eq!(
                parse_strict(text).unwrap().has_unsafe_number,
                noted,
                "{text}"
            );
        }
    }
}
