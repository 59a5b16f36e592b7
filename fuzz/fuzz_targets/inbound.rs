//! Any text, as a frame of a relay, as the content of a signed event, and as the inside of a gift wrap.
//!
//! A fuzzer cannot sign, so the last two are signed for it: otherwise it would never get past the first check.
#![no_main]

#[path = "../../tests/support/properties.rs"]
mod properties;

use std::sync::LazyLock;

use nostr::nips::nip44::{self, Version};
use nostr::{Event, EventBuilder, JsonUtil, Keys, Kind, Tag};
use tollkeeper::transport::nostr::NostrKeys;

static AUTHOR: LazyLock<Keys> = LazyLock::new(Keys::generate);
static OWN: LazyLock<(Keys, NostrKeys)> = LazyLock::new(|| {
    let keys = Keys::generate();
    let ours =
        NostrKeys::parse(&keys.secret_key().to_secret_hex()).expect("a key that was just made");
    (keys, ours)
});

fn signed(kind: u16, content: &str) -> Option<Event> {
    let to = Tag::public_key(OWN.0.public_key());
    EventBuilder::new(Kind::from(kind), content)
        .tag(to)
        .sign_with_keys(&AUTHOR)
        .ok()
}

fn sealed(inside: &str) -> Option<Event> {
    signed(
        21059,
        &nip44::encrypt(
            AUTHOR.secret_key(),
            &OWN.0.public_key(),
            inside,
            Version::V2,
        )
        .ok()?,
    )
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    properties::inbound(&OWN.1, text);
    for event in [signed(25910, text), sealed(text)].into_iter().flatten() {
        properties::inbound(&OWN.1, &format!(r#"["EVENT","s",{}]"#, event.as_json()));
    }
});
