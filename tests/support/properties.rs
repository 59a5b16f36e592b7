//! What holds for every text that a stranger may send. Each function panics where it does not.
//!
//! Shared by the fuzz targets in `fuzz/` and by `tests/fuzz_smoke.rs`, which runs them without a fuzzer.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

use serde_json::{Map, Value, json};
use tollkeeper::payment::MAX_AMOUNT;
use tollkeeper::wire::{
    CapTag, MAX_DEPTH, Message, PaymentNotification, Tag, invocation_identity, meta_of,
    parse_strict, with_meta,
};

/// A message that is understood is passed on as it was understood.
pub fn message(text: &str) {
    let Ok(message) = Message::parse(text) else {
        return;
    };
    let written = message.to_json();
    let again = Message::parse(&written).unwrap();
    assert_eq!(again.to_json(), written);
    match (&message, &again) {
        (Message::Request(before), Message::Request(after)) => {
            assert_eq!(before.id, after.id);
            assert_eq!(before.method, after.method);
            let text = |params: &Option<Box<serde_json::value::RawValue>>| {
                params.as_ref().map(|raw| raw.get().to_owned())
            };
            assert_eq!(text(&before.params), text(&after.params));
        }
        (Message::Notification(before), Message::Notification(after)) => {
            assert_eq!(before.method, after.method)
        }
        (Message::Response(before), Message::Response(after)) => {
            assert_eq!(before.id, after.id);
            assert_eq!(before.result().is_some(), after.result().is_some());
            let _ = before.error();
        }
        _ => unreachable!("the kind of message changed: {written}"),
    }
    assert!(depth(text) <= MAX_DEPTH);
    notification(text);
}

/// What is read strictly has one meaning, and that meaning has one identity.
pub fn strict(text: &str) {
    let Ok(strict) = parse_strict(text) else {
        return;
    };
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), strict.value);
    let identity = invocation_identity("tools/call", Some(&strict));
    assert_eq!(identity.is_err(), strict.has_unsafe_number);
    let Ok(identity) = identity else { return };

    // Another spelling of the same value is the same invocation.
    let respelled = parse_strict(&serde_json::to_string_pretty(&strict.value).unwrap()).unwrap();
    assert_eq!(
        invocation_identity("tools/call", Some(&respelled)).unwrap(),
        identity
    );
    assert_ne!(
        invocation_identity("prompts/get", Some(&strict)).unwrap(),
        identity
    );

    // What is injected for the handler does not make it another invocation.
    if strict.value.is_object() {
        let params = serde_json::value::RawValue::from_string(text.trim().to_owned()).unwrap();
        let _ = meta_of(Some(&params));
        let meta: Map<String, Value> = Map::from_iter([("clientPubkey".to_owned(), json!("ab"))]);
        let injected = with_meta(Some(params), &meta).unwrap().unwrap();
        assert_eq!(meta_of(Some(&injected)), Some(meta));
        let injected = parse_strict(injected.get()).unwrap();
        assert_eq!(
            invocation_identity("tools/call", Some(&injected)).unwrap(),
            identity
        );
    }
}

/// A payment notification that is understood asks for a possible amount, and is written as it was read.
pub fn notification(text: &str) {
    let Ok(Message::Notification(notification)) = Message::parse(text) else {
        return;
    };
    let Ok(read) = PaymentNotification::read(&notification) else {
        assert!(PaymentNotification::is_method(&notification.method));
        return;
    };
    let Some(read) = read else {
        assert!(!PaymentNotification::is_method(&notification.method));
        return;
    };
    if let PaymentNotification::Required(params) = &read {
        assert!((1..=MAX_AMOUNT).contains(&params.amount));
    }
    let Message::Notification(written) = read.to_message().unwrap() else {
        unreachable!("a notification was written as something else");
    };
    assert_eq!(PaymentNotification::read(&written).unwrap(), Some(read));
}

/// A price tag that is understood advertises a possible price, and is written as it was read.
pub fn cap_tag(parts: &[String]) {
    let tag = Tag::new(parts);
    let tags = std::slice::from_ref(&tag);
    assert!(Tag::pmis(tags).len() <= 1);
    let _ = Tag::interaction(tags);
    let Some(cap) = CapTag::from_tag(&tag) else {
        return;
    };
    let (min, max) = (cap.price.min().value(), cap.price.max().value());
    assert!(1 <= min && min <= max && max <= MAX_AMOUNT, "{min}-{max}");
    assert_eq!(CapTag::from_tag(&cap.to_tag()), Some(cap));
}

/// A frame of a hostile relay becomes a message only if somebody signed it for us.
pub fn inbound(keys: &tollkeeper::transport::nostr::NostrKeys, frame: &str) {
    if let Some(message) = tollkeeper::transport::nostr::read_frame(keys, frame) {
        self::message(&message.to_json());
    }
}

/// How deep brackets are nested outside strings.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
