//! The least that a paid call can cost: the cryptography that the protocol asks of a server, and nothing else.

use std::hint::black_box;
use std::time::Duration;

use nostr::nips::nip44::{self, Version};
use nostr::secp256k1::Message;
use nostr::{EventBuilder, JsonUtil, Keys, Kind, SecretKey, Tag};
use serde::Serialize;

use crate::clients::MESSAGE;
use crate::process::thread_time;

/// What one operation takes on a core, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Floor {
    pub(crate) sign_us: f64,
    pub(crate) verify_us: f64,
    /// A fresh key, encryption, and the signature of the wrap.
    pub(crate) wrap_us: f64,
    pub(crate) unwrap_us: f64,
    /// Three signatures and one verification.
    pub(crate) plain_us: f64,
    /// The same, three wraps, and one that is opened.
    pub(crate) encrypted_us: f64,
}

/// Measured on both cores at once, because that is how a server has them under load.
pub(crate) fn floor(rounds: u32) -> Floor {
    let other = std::thread::spawn(move || measure(rounds));
    let mine = measure(rounds);
    let other = other.join().expect("the other core");
    let mean = |a: f64, b: f64| (a + b) / 2.0;
    Floor {
        sign_us: mean(mine.sign_us, other.sign_us),
        verify_us: mean(mine.verify_us, other.verify_us),
        wrap_us: mean(mine.wrap_us, other.wrap_us),
        unwrap_us: mean(mine.unwrap_us, other.unwrap_us),
        plain_us: mean(mine.plain_us, other.plain_us),
        encrypted_us: mean(mine.encrypted_us, other.encrypted_us),
    }
}

fn measure(rounds: u32) -> Floor {
    let (server, client) = (Keys::generate(), Keys::generate());
    let content =
        r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"done"}]}}"#;
    let event = EventBuilder::new(Kind::from(MESSAGE), content)
        .tags([Tag::public_key(client.public_key())])
        .sign_with_keys(&server)
        .expect("a signature");
    let json = event.as_json();
    let digest = Message::from_digest(event.id.to_bytes());
    let each = |mut work: Box<dyn FnMut()>| {
        let began = thread_time();
        for _ in 0..rounds {
            work();
        }
        micros(thread_time().saturating_sub(began)) / f64::from(rounds)
    };
    let signer = server.clone();
    let sign_us = each(Box::new(move || {
        black_box(signer.sign_schnorr(black_box(&digest)));
    }));
    let verify_us = each(Box::new(move || {
        assert!(black_box(&event).verify_signature())
    }));
    let to = client.public_key();
    let inner = json.clone();
    let wrap_us = each(Box::new(move || {
        let once = Keys::new(SecretKey::generate());
        black_box(nip44::encrypt(once.secret_key(), &to, &inner, Version::V2).expect("encrypted"));
        black_box(once.sign_schnorr(&digest));
    }));
    let sealed = nip44::encrypt(server.secret_key(), &to, &json, Version::V2).expect("encrypted");
    let from = server.public_key();
    let unwrap_us = each(Box::new(move || {
        black_box(nip44::decrypt(client.secret_key(), &from, &sealed).expect("decrypted"));
    }));
    let plain_us = 3.0 * sign_us + verify_us;
    Floor {
        sign_us,
        verify_us,
        wrap_us,
        unwrap_us,
        plain_us,
        encrypted_us: plain_us + 3.0 * wrap_us + unwrap_us,
    }
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
