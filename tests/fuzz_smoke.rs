//! The properties of the fuzz targets, held for a few seconds against generated and damaged texts.
//!
//! The targets in `fuzz/` look deeper, but need a nightly compiler; this runs everywhere, on every change.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/properties.rs"]
mod properties;

use nostr_sdk::nips::nip44::{self, Version};
use nostr_sdk::{Event, EventBuilder, JsonUtil, Keys, Kind, Tag};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::string::string_regex;
use tollkeeper::transport::nostr::{NostrKeys, read_frame};

/// What a stranger might start from.
const SEEDS: &[&str] = &[
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add","arguments":{"a":1,"b":-2.5e3},"_meta":{"progressToken":"x"}}}"#,
    r#"{"jsonrpc":"2.0","id":"é\u20ac\n","method":"resources/read","params":{"uri":"private://a/../b?c#d"}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/payment_required","params":{"amount":7,"pay_req":"lnbc1","pmi":"bitcoin-lightning-bolt11","ttl":300,"_meta":{"k":[1.5,null]}}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/payment_accepted","params":{"amount":9007199254740991,"pmi":"fake"}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/payment_rejected","params":{"pmi":"fake","message":"no"}}"#,
    r#"{"jsonrpc":"2.0","id":-9223372036854775808,"error":{"code":-32042,"message":"Payment Required","data":{"payment_options":[{"amount":1,"pay_req":"x","pmi":"fake"}]}}}"#,
    r#"{"jsonrpc":"2.0","id":3,"result":{"content":[{"type":"text","text":"]}\\\"{["}],"isError":false}}"#,
    r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},null,1e308,-0,0.1,9007199254740993,"\ud83d\ude00"]"#,
];

/// Pieces that parsers stumble over.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    ":",
    ",",
    "null",
    "-",
    "0",
    "1e999",
    "18446744073709551616",
    "\\ud800",
    "\u{0}",
    "\u{feff}",
    "\"id\":null,",
    "\"id\":1.0,",
    "\"jsonrpc\":\"1.0\",",
    "\"_meta\":{},",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
];

#[derive(Debug, Clone)]
enum Damage {
    Cut(Index, Index),
    Repeat(Index, Index),
    Insert(Index, &'static str),
    Replace(Index, char),
    Splice(Index, Index, &'static str),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<(Index, Index)>().prop_map(|(a, b)| Damage::Cut(a, b)),
        any::<(Index, Index)>().prop_map(|(a, b)| Damage::Repeat(a, b)),
        (any::<Index>(), select(PIECES)).prop_map(|(at, piece)| Damage::Insert(at, piece)),
        any::<(Index, char)>().prop_map(|(at, c)| Damage::Replace(at, c)),
        (any::<Index>(), any::<Index>(), select(SEEDS))
            .prop_map(|(a, b, seed)| Damage::Splice(a, b, seed)),
    ]
}

fn damaged(seed: &str, all: &[Damage]) -> String {
    let mut text: Vec<char> = seed.chars().collect();
    for damage in all {
        let at = |index: &Index| index.index(text.len() + 1);
        let span = |a: &Index, b: &Index| at(a).min(at(b))..at(a).max(at(b));
        match damage {
            Damage::Cut(a, b) => drop(text.drain(span(a, b))),
            Damage::Repeat(a, b) => {
                let span = span(a, b);
                let copy = text[span.clone()].to_vec();
                text.splice(span.start..span.start, copy);
            }
            Damage::Insert(index, piece) => {
                let at = at(index);
                text.splice(at..at, piece.chars());
            }
            Damage::Replace(index, c) if !text.is_empty() => {
                let at = index.index(text.len());
                text[at] = *c;
            }
            Damage::Replace(..) => {}
            Damage::Splice(a, b, seed) => {
                let (cut, other) = (at(a), seed.chars().collect::<Vec<_>>());
                text.truncate(cut);
                text.extend(&other[b.index(other.len())..]);
            }
        }
        // Repeats grow fast, and size is not what is tested here.
        text.truncate(20_000);
    }
    text.into_iter().collect()
}

/// Seeds with up to six kinds of damage; the fewer the likelier, so that much of it is still understood.
fn junk() -> impl Strategy<Value = String> {
    (select(SEEDS), vec(damage(), 0..6)).prop_map(|(seed, damage)| damaged(seed, &damage))
}

/// Any JSON text that is well formed, with hostile strings and numbers.
fn json() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        string_regex(r#""(_meta|name|uri|a|\\u00e9|\\ud83d\\ude00|é)""#).unwrap(),
    ];
    let number = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>()
            .prop_filter("finite", |n| n.is_finite())
            .prop_map(|n| n.to_string()),
        string_regex("-?(0|[1-9][0-9]{0,19})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?").unwrap(),
    ];
    let leaf = prop_oneof![
        select(&["null", "true", "false"][..]).prop_map(str::to_owned),
        number,
        text.clone(),
    ];
    leaf.prop_recursive(6, 64, 8, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(|items| format!("[{}]", items.join(" ,\n"))),
            vec((text.clone(), inner), 0..8).prop_map(|fields| {
                let fields: Vec<String> = fields
                    .iter()
                    .map(|(key, value)| format!("{key}\t: {value}"))
                    .collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

/// An event as an honest client would send it to `to`.
fn event(author: &Keys, to: &Keys, content: &str) -> Event {
    EventBuilder::new(Kind::from(25910), content)
        .tag(Tag::public_key(to.public_key()))
        .sign_with_keys(author)
        .unwrap()
}

fn wrapped(inner: &str, to: &Keys) -> Event {
    let ephemeral = Keys::generate();
    let sealed =
        nip44::encrypt(ephemeral.secret_key(), &to.public_key(), inner, Version::V2).unwrap();
    EventBuilder::new(Kind::from(21059), sealed)
        .tag(Tag::public_key(to.public_key()))
        .sign_with_keys(&ephemeral)
        .unwrap()
}

fn frame(event: &Event) -> String {
    format!(r#"["EVENT","s",{}]"#, event.as_json())
}

fn ours() -> (NostrKeys, Keys) {
    let keys = Keys::generate();
    (
        NostrKeys::parse(&keys.secret_key().to_secret_hex()).unwrap(),
        keys,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_messages_are_refused_or_passed_on_as_understood(text in junk()) {
        properties::message(&text);
        properties::strict(&text);
    }

    #[test]
    fn any_params_have_one_meaning_and_one_identity(text in json()) {
        properties::strict(&text);
        properties::message(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{text}}}"#));
        properties::message(&format!(r#"{{"jsonrpc":"2.0","id":{text},"method":"ping"}}"#));
        properties::message(&format!(r#"{{"jsonrpc":"2.0","method":"notifications/payment_required","params":{text}}}"#));
    }

    #[test]
    fn any_demand_is_refused_or_possible(amount in json(), ttl in json(), meta in json()) {
        properties::notification(&format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/payment_required","params":{{"amount":{amount},"pay_req":"x","pmi":"fake","ttl":{ttl},"_meta":{meta}}}}}"#
        ));
        properties::notification(&format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/payment_required","params":{{"amount":{amount},"pay_req":"x","pmi":"fake"}}}}"#
        ));
    }

    #[test]
    fn any_price_tag_is_refused_or_possible(
        name in select(&["cap", "pmi", "payment_interaction", "change", ""][..]),
        capability in any::<String>(),
        price in prop_oneof![string_regex("[0-9]{0,20}(-[0-9]{0,20})?").unwrap(), any::<String>()],
        unit in prop_oneof![select(&["sats", "usd-cents"][..]).prop_map(str::to_owned), any::<String>()],
        more in vec(any::<String>(), 0..2),
    ) {
        let mut parts = vec![name.to_owned(), capability, price, unit];
        parts.extend(more);
        properties::cap_tag(&parts);
        parts.truncate(2);
        properties::cap_tag(&parts);
    }
}

proptest! {
    // Each case signs and encrypts.
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_frames_of_a_relay_crash_nothing_and_forge_nothing(damage in vec(damage(), 1..5), seed in select(SEEDS), sealed: bool) {
        let (keys, own) = ours();
        let author = Keys::generate();
        let inner = event(&author, &own, seed);
        let event = if sealed { wrapped(&inner.as_json(), &own) } else { inner };
        let honest = frame(&event);
        let taken = |frame: &str| read_frame(&keys, frame).map(|message| message.to_json());
        let damaged = damaged(&honest, &damage);
        properties::inbound(&keys, &damaged);
        // A signature covers all of it: damage that still gets through changed nothing that counts.
        if let Some(message) = taken(&damaged) {
            prop_assert_eq!(Some(message), taken(&honest));
        }
    }

    #[test]
    fn junk_inside_a_wrap_crashes_nothing(damage in vec(damage(), 0..5), seed in select(SEEDS)) {
        let (keys, own) = ours();
        let author = Keys::generate();
        let text = event(&author, &own, seed).as_json();
        let outer = wrapped(&damaged(&text, &damage).chars().chain([' ']).collect::<String>(), &own);
        properties::inbound(&keys, &frame(&outer));
        // Signed junk is junk.
        let content = damaged(seed, &damage);
        properties::inbound(&keys, &frame(&event(&author, &own, &content)));
    }
}

/// Without this, the properties above could hold because nothing is ever let in.
#[test]
fn honest_frames_are_let_in_plain_and_wrapped() {
    let (keys, own) = ours();
    let author = Keys::generate();
    for seed in &SEEDS[..7] {
        let plain = event(&author, &own, seed);
        assert!(read_frame(&keys, &frame(&plain)).is_some(), "{seed}");
        let wrap = wrapped(&plain.as_json(), &own);
        assert!(read_frame(&keys, &frame(&wrap)).is_some(), "{seed}");
        let (stranger, _) = ours();
        assert!(read_frame(&stranger, &frame(&plain)).is_none());
        assert!(read_frame(&stranger, &frame(&wrap)).is_none());
    }
}

#[test]
fn depth_bombs_are_refused_before_they_are_walked() {
    for bomb in ["[", "{\"a\":", "[{\"a\":"] {
        let text = bomb.repeat(100_000);
        properties::message(&text);
        properties::strict(&text);
        let inside = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{text}"#);
        properties::message(&inside);
    }
}
