//! From a message to frames that each fit into an event which relays take.

use nostr::Event;

use super::super::gift_wrap;
use super::super::outbound::Route;
use super::MAX_SENT;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::{FrameKind, Notification, OversizedFrame, ProgressToken, oversized_digest};

/// Where pieces begin if the other side is known to take them.
const FIRST_CHUNK: u64 = 2;
/// Where they begin if it had to say so first: the place before is for its `accept`.
const FIRST_AFTER_ACCEPT: u64 = 3;
/// The most pieces behind an `accept`. The reference SDK 0.11.14 does not count its own `accept`: it takes the place for a
/// gap, and gives up on the piece that is 22 places behind it. More pieces than this go where it expects them.
const MOST_AFTER_ACCEPT: usize = 20;
/// Bytes of an event that every relay takes, as the reference SDK has it.
const EVENT: usize = 48_000;
/// Longest inner event that a wrap of that size holds: NIP-44 pads to steps, and base64 adds a third.
const WRAPPED: usize = 32 * 1024;
/// Bytes of a piece, counted as they are inside the inner event. The rest is for tags, keys, signature and names.
const PIECE: usize = WRAPPED - 3 * 1024;

/// Whether relays may refuse `event` for its size if it goes by `route` as it is.
pub(in super::super) fn is_worth_splitting(event: &Event, route: &Route) -> bool {
    use nostr::JsonUtil;
    // Text in JSON at most doubles, but for control characters, which JSON text does not hold.
    let surely_small = 2 * event.content.len() + 8192 < WRAPPED && event.tags.len() < 32;
    let most = if route.wrap.is_some() { WRAPPED } else { EVENT };
    !surely_small && event.as_json().len() > most
}

/// The frames of `text`, for somebody who is known to take them, or who must accept them first.
///
/// # Errors
///
/// [`TooLarge`](ErrorKind::TooLarge) beyond [`MAX_SENT`].
pub(in super::super) fn split(
    text: &str,
    token: &ProgressToken,
    known: bool,
) -> Result<Vec<Notification>> {
    if text.len() > MAX_SENT {
        let bytes = text.len();
        let text = format!("{bytes} bytes are more than are sent in pieces ({MAX_SENT})");
        return Err(Error::new(ErrorKind::TooLarge, text));
    }
    let pieces = pieces(text);
    let pieces_count = pieces.len();
    let frame = |progress: u64, kind| OversizedFrame::new(token.clone(), progress, kind);
    let mut frames = vec![frame(
        1,
        FrameKind::Start {
            completion_mode: "render".to_owned(),
            digest: oversized_digest(text),
            total_bytes: text.len() as u64,
            total_chunks: pieces.len() as u64,
        },
    )];
    let mut place = if known || pieces_count > MOST_AFTER_ACCEPT {
        FIRST_CHUNK
    } else {
        FIRST_AFTER_ACCEPT
    };
    for piece in pieces {
        let data = piece.to_owned();
        frames.push(frame(place, FrameKind::Chunk { data }));
        place += 1;
    }
    frames.push(frame(place, FrameKind::End));
    frames.iter().map(OversizedFrame::to_notification).collect()
}

fn pieces(text: &str) -> Vec<&str> {
    let (mut pieces, mut from, mut bytes) = (Vec::new(), 0, 0);
    for (at, c) in text.char_indices() {
        let cost = cost(c);
        if bytes + cost > PIECE {
            pieces.push(&text[from..at]);
            (from, bytes) = (at, 0);
        }
        bytes += cost;
    }
    pieces.push(&text[from..]);
    pieces
}

/// Bytes of a character of a text in JSON in JSON.
fn cost(c: char) -> usize {
    match c {
        '"' | '\\' => 4,
        '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 3,
        c if c < ' ' => 7,
        c => c.len_utf8(),
    }
}

const _: () = assert!(WRAPPED <= gift_wrap::MAX_INNER);

#[cfg(test)]
mod tests {
    use nostr::{JsonUtil, Keys};

    use super::super::super::gift_wrap::Wrap;
    use super::super::super::outbound;
    use super::*;
    use crate::wire::{Message, Tag};

    #[test]
    fn every_frame_fits_into_an_event_that_relays_take() {
        let keys = Keys::generate();
        let token = ProgressToken::new("\"".repeat(128));
        for text in [
            "x",
            "\"",
            "\\",
            "é",
            "\u{1f600}",
            "\n",
            "\u{1}",
            "{\"a\":\"\\\"\"}",
        ] {
            let text = text.repeat(200_000 / text.len());
            let frames = split(&text, &token, true).unwrap();
            let mut whole = String::new();
            for frame in &frames {
                if let Some(OversizedFrame {
                    kind: FrameKind::Chunk { data },
                    ..
                }) = OversizedFrame::read(frame).unwrap()
                {
                    whole.push_str(&data);
                }
                let content = Message::from(frame.clone()).to_json();
                let tags = [
                    Tag::new(["p", &"0".repeat(64)]),
                    Tag::new(["e", &"0".repeat(64)]),
                    Tag::new(["nonce", &"0".repeat(16)]),
                ];
                let event = outbound::message(&keys, content, &tags);
                let route = Route::wrapped(Wrap::Ephemeral);
                let wrap = outbound::carrier(event, &keys.public_key(), &route).unwrap();
                assert!(wrap.as_json().len() <= EVENT, "{}", wrap.as_json().len());
            }
            assert_eq!(whole, text);
        }
    }

    #[test]
    fn places_follow_each_other_and_leave_room_for_an_accept() {
        let token = ProgressToken::new("t");
        for (known, first) in [(true, 2), (false, 3)] {
            let frames = split(&"x".repeat(3 * PIECE), &token, known).unwrap();
            let places: Vec<u64> = frames
                .iter()
                .map(|frame| OversizedFrame::read(frame).unwrap().unwrap().progress)
                .collect();
            assert_eq!(places, [1, first, first + 1, first + 2, first + 3]);
        }
        let many = split(&"x".repeat(21 * PIECE), &token, false).unwrap();
        let first = OversizedFrame::read(&many[1]).unwrap().unwrap();
        assert_eq!(first.progress, FIRST_CHUNK);
        assert!(split(&"x".repeat(MAX_SENT + 1), &token, true).is_err());
    }
}
