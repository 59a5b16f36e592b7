//! `params._meta`: read and written without touching the rest of the params.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::jsonrpc::raw;
use crate::error::Result;

/// The `_meta` object of `params`, if there is one.
#[must_use]
pub fn meta_of(params: Option<&RawValue>) -> Option<Map<String, Value>> {
    // Most params have none: a search is cheaper than a parse.
    let text = params?.get();
    if !text.contains("_meta") {
        return None;
    }
    let object: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
    serde_json::from_str(object.get("_meta")?.get()).ok()
}

/// `params` with `meta` as its `_meta`, without one if `meta` is empty; every other field keeps its text. Params that are
/// absent become an object, params that are an array have no room for `_meta` and stay as they are.
///
/// # Errors
///
/// When `meta` cannot be written as JSON.
pub fn with_meta(
    params: Option<Box<RawValue>>,
    meta: &Map<String, Value>,
) -> Result<Option<Box<RawValue>>> {
    let mut object: BTreeMap<String, Box<RawValue>> = match params.as_deref() {
        None => BTreeMap::new(),
        Some(text) => match serde_json::from_str(text.get()) {
            Ok(object) => object,
            Err(_) => return Ok(params),
        },
    };
    if meta.is_empty() {
        object.remove("_meta");
    } else {
        object.insert("_meta".to_owned(), raw(meta)?);
    }
    raw(&object).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn only_meta_changes() {
        let before =
            params(r#"{"name":"a","arguments":{"x":1.0,"big":9007199254740993},"_meta":{"k":1}}"#);
        let mut meta = meta_of(Some(&before)).unwrap();
        assert_eq!(meta["k"], 1);
        meta.insert("new".into(), true.into());
        let after = with_meta(Some(before), &meta).unwrap().unwrap();
        assert_eq!(
            after.get(),
            r#"{"_meta":{"k":1,"new":true},"arguments":{"x":1.0,"big":9007199254740993},"name":"a"}"#
        );
    }

    #[test]
    fn params_without_room_are_left_alone() {
        assert_eq!(meta_of(Some(&params("[1]"))), None);
        assert_eq!(meta_of(Some(&params(r#"{"a":"_meta"}"#))), None);
        assert_eq!(
            with_meta(Some(params("[1]")), &Map::new())
                .unwrap()
                .unwrap()
                .get(),
            "[1]"
        );
        assert_eq!(with_meta(None, &Map::new()).unwrap().unwrap().get(), "{}");
    }
}
