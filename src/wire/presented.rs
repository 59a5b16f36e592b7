//! What a client presents with a request, such as a licence: taken out, so that nothing behind the gate sees, keeps or
//! logs it.

use serde_json::value::RawValue;

use super::{Tag, meta_of, with_meta};
use crate::payment::BearerToken;

/// Keys of `params._meta`. The first is the one that we write.
const KEYS: [&str; 4] = [
    "tollkeeper/licence",
    "tollkeeper/license",
    "licence",
    "license",
];

/// Names of the tag. The first is the one that we write.
const TAGS: [&str; 2] = ["licence", "license"];

/// The key of `params._meta` under which the handler is told why a call was free. A client cannot write it.
pub const ENTITLEMENT_KEY: &str = "tollkeeper/entitlement";

/// The key of `result._meta` under which a handler says what a call used: `{"tokens": 7}` or `{"results": 3}`.
pub const USAGE_KEY: &str = "tollkeeper/usage";

/// The key of a quote's `_meta` under which the client is told why an entitlement does not cover its call.
pub const ENTITLEMENTS_KEY: &str = "tollkeeper/entitlements";

/// Takes tokens out of `params._meta`. Everything else keeps its text; a `_meta` that held nothing else goes with them.
#[must_use]
pub fn take_tokens(params: Option<Box<RawValue>>) -> (Option<Box<RawValue>>, Vec<BearerToken>) {
    let Some(text) = params.as_deref().map(RawValue::get) else {
        return (params, Vec::new());
    };
    // Nearly all have none: a search is cheaper than a parse.
    if !text.contains("licen") && !text.contains(ENTITLEMENT_KEY) {
        return (params, Vec::new());
    }
    let Some(mut meta) = meta_of(params.as_deref()) else {
        return (params, Vec::new());
    };
    let before = meta.len();
    meta.remove(ENTITLEMENT_KEY);
    let taken: Vec<_> = KEYS.iter().filter_map(|key| meta.remove(*key)).collect();
    if meta.len() == before {
        return (params, Vec::new());
    }
    let tokens = taken
        .iter()
        .filter_map(|value| BearerToken::new(value.as_str()?))
        .take(BearerToken::MOST)
        .collect();
    // A map of strings and values is always JSON; if it were not, what is left of it must not go on.
    (with_meta(params, &meta).unwrap_or_default(), tokens)
}

impl Tag {
    /// `["licence", <token>]`. A secret: only under encryption.
    #[must_use]
    pub fn licence(token: &BearerToken) -> Self {
        Self::new([TAGS[0], token.reveal()])
    }

    /// The tokens that `tags` carry.
    pub fn tokens<'a>(tags: impl IntoIterator<Item = &'a Self>) -> Vec<BearerToken> {
        tags.into_iter()
            .filter(|tag| TAGS.contains(&tag.name()))
            .filter_map(|tag| BearerToken::new(tag.value()?))
            .take(BearerToken::MOST)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(text: &str) -> (String, Vec<String>) {
        let (params, tokens) = take_tokens(Some(RawValue::from_string(text.to_owned()).unwrap()));
        let tokens = tokens.iter().map(|token| token.reveal().to_owned());
        (params.unwrap().get().to_owned(), tokens.collect())
    }

    #[test]
    fn tokens_are_taken_out_and_the_rest_keeps_its_text() {
        for key in KEYS {
            let text = format!(r#"{{"a":1.0,"_meta":{{"{key}":"x.y.z","progressToken":7}}}}"#);
            let (params, tokens) = taken(&text);
            assert_eq!(params, r#"{"_meta":{"progressToken":7},"a":1.0}"#);
            assert_eq!(tokens, ["x.y.z"]);
        }
    }

    #[test]
    fn what_is_no_token_is_taken_out_all_the_same() {
        let (params, tokens) = taken(r#"{"_meta":{"license":{"secret":"x"}}}"#);
        assert_eq!((params.as_str(), tokens.len()), ("{}", 0));
        let (params, _) = taken(r#"{"_meta":{"tollkeeper/entitlement":{"by":"me"}}}"#);
        assert_eq!(params, "{}");
    }

    #[test]
    fn other_params_are_not_touched() {
        for text in [
            r#"{"name":"license","_meta":{"b":1,"a":2}}"#,
            r#"{"arguments":{"_meta":{"license":"x"}}}"#,
            r#"["license"]"#,
            "{}",
        ] {
            assert_eq!(taken(text), (text.to_owned(), Vec::new()));
        }
        assert!(take_tokens(None).0.is_none());
    }

    #[test]
    fn both_spellings_of_the_tag_count() {
        let token = BearerToken::new("x.y.z").unwrap();
        for tag in [Tag::licence(&token), Tag::new(["license", "x.y.z"])] {
            assert_eq!(Tag::tokens([&tag]), std::slice::from_ref(&token));
            assert!(!format!("{tag:?}").contains("x.y.z"));
        }
        assert!(Tag::tokens([&Tag::new(["licence"]), &Tag::new(["x", "y"])]).is_empty());
    }
}
