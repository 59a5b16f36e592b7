//! Puts the frames of others together.
//!
//! A transfer belongs to one author and one token, so nobody can end, abort or fill another's (D-30). What is kept is
//! bounded per transfer, per author and in all; at a limit the author's own oldest transfer makes room, and across authors
//! one in which nothing happens. Frames may come in any order behind their start: they are signed, their places are in
//! them, and the digest of the start is that of the whole.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;
use nostr::{EventId, PublicKey};
use tokio::time::Instant;

use crate::wire::{FrameKind, OversizedFrame, oversized_digest};

/// A transfer in which nothing happens for so long is given up.
const IDLE: Duration = Duration::from_secs(60);
/// A transfer that takes so long is given up.
const LASTS: Duration = Duration::from_secs(300);
/// A transfer in which nothing happens for so long may have to make room for another author's.
const STALE: Duration = Duration::from_secs(10);
/// How far apart start and end may be dated, in seconds.
const SPAN: u64 = 600;
const MOST_CHUNKS: u64 = 10_000;
/// What a piece takes beside its text.
const PIECE: usize = 64;
/// Transfers whose end is remembered.
const ENDED: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);

/// How much may be under way.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Limits {
    /// Bytes of one message.
    pub(in super::super) message: usize,
    /// Bytes in all.
    pub(in super::super) bytes: usize,
    /// Transfers of one author.
    pub(in super::super) per_author: usize,
    /// Transfers in all.
    pub(in super::super) transfers: usize,
}

/// Which transfer a frame belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in super::super) struct Key {
    pub(in super::super) author: PublicKey,
    /// The request that is answered, if it is an answer.
    pub(in super::super) about: Option<EventId>,
    pub(in super::super) token: String,
}

/// A frame as it came, with what the end wants to know later of the first and the last of a transfer.
pub(in super::super) struct Placed<C> {
    pub(in super::super) frame: OversizedFrame,
    pub(in super::super) event: EventId,
    /// By the author's clock.
    pub(in super::super) created_at: u64,
    /// Not sent before, as far as is known.
    pub(in super::super) fresh: bool,
    pub(in super::super) context: C,
}

/// What a frame led to.
#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Step<C> {
    /// More is needed, or it was of no use.
    Nothing,
    /// A transfer began.
    Begun,
    /// The other side takes what is sent to it in pieces, or not.
    Answered(bool),
    /// The message is whole.
    Whole { text: String, start: C, end: C },
    /// The transfer is over, and this is why.
    Refused(&'static str),
}

#[derive(Debug)]
struct Transfer<C> {
    start: EventId,
    dated: u64,
    place: u64,
    digest: String,
    total_bytes: usize,
    total_chunks: u64,
    chunks: BTreeMap<u64, String>,
    bytes: usize,
    end: Option<(u64, EventId, C)>,
    context: C,
    begun: Instant,
    last: Instant,
}

/// See the [module](self).
#[derive(Debug)]
pub(in super::super) struct Reassembly<C> {
    limits: Limits,
    transfers: HashMap<Key, Transfer<C>>,
    bytes: usize,
    /// By the event of the start, that of the end: a start that is replayed does not get another one, and the message
    /// another id.
    ended: LruCache<EventId, EventId>,
}

impl<C> Reassembly<C> {
    pub(in super::super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            transfers: HashMap::new(),
            bytes: 0,
            ended: LruCache::new(ENDED),
        }
    }

    /// Takes a frame whose author is verified.
    pub(in super::super) fn take(&mut self, key: Key, placed: Placed<C>, now: Instant) -> Step<C> {
        let Placed {
            frame,
            event,
            created_at,
            fresh,
            context,
        } = placed;
        match frame.kind {
            FrameKind::Accept => return Step::Answered(true),
            FrameKind::Abort { .. } => {
                if self.is_current(&key, created_at) {
                    self.forget(&key);
                }
                return Step::Answered(false);
            }
            FrameKind::Start {
                completion_mode,
                digest,
                total_bytes,
                total_chunks,
            } => {
                let transfer = Transfer {
                    start: event,
                    dated: created_at,
                    place: frame.progress,
                    digest,
                    total_bytes: usize::try_from(total_bytes).unwrap_or(usize::MAX),
                    total_chunks,
                    chunks: BTreeMap::new(),
                    bytes: 0,
                    end: None,
                    context,
                    begun: now,
                    last: now,
                };
                return if completion_mode == "render" {
                    self.begin(key, transfer, fresh)
                } else {
                    Step::Refused("an unknown completion mode")
                };
            }
            FrameKind::Chunk { data } => {
                if !self.is_current(&key, created_at) {
                    return Step::Nothing;
                }
                if let Err(why) = self.place(&key, frame.progress, data, now) {
                    self.forget(&key);
                    return Step::Refused(why);
                }
            }
            FrameKind::End => {
                if !self.is_current(&key, created_at) {
                    return Step::Nothing;
                }
                if let Some(transfer) = self.transfers.get_mut(&key) {
                    transfer.last = now;
                    transfer.end = Some((frame.progress, event, context));
                }
            }
        }
        self.finish(&key)
    }

    fn begin(&mut self, key: Key, transfer: Transfer<C>, fresh: bool) -> Step<C> {
        let now = transfer.begun;
        if transfer.total_bytes > self.limits.message || transfer.total_chunks > MOST_CHUNKS {
            return Step::Refused("the message is too large");
        }
        if transfer.total_chunks == 0 || transfer.total_bytes < transfer.total_chunks as usize {
            return Step::Refused("a message of nothing");
        }
        if let Some(open) = self.transfers.get(&key) {
            // A copy, or somebody who replays an old start, ends nothing. The author may begin anew.
            if open.start == transfer.start || !fresh || transfer.dated < open.dated {
                return Step::Nothing;
            }
            self.forget(&key);
        }
        self.expire(now);
        let own = |other: &Key| other.author == key.author;
        if self.transfers.keys().filter(|other| own(other)).count() >= self.limits.per_author {
            self.forget_stalest(own);
        }
        if self.transfers.len() >= self.limits.transfers && !self.make_room(now) {
            return Step::Refused("too many messages at once");
        }
        self.transfers.insert(key, transfer);
        Step::Begun
    }

    /// Whether there is a transfer to which a frame of that date can belong: one that is older was replayed.
    fn is_current(&self, key: &Key, created_at: u64) -> bool {
        self.transfers.get(key).is_some_and(|transfer| {
            (transfer.dated..=transfer.dated.saturating_add(SPAN)).contains(&created_at)
        })
    }

    fn place(
        &mut self,
        key: &Key,
        place: u64,
        data: String,
        now: Instant,
    ) -> Result<(), &'static str> {
        let bytes = data.len();
        while self.bytes + bytes + PIECE > self.limits.bytes {
            if !self.make_room_beside(key, now) {
                return Err("too much at once");
            }
        }
        let transfer = self.transfers.get_mut(key).ok_or("no transfer")?;
        transfer.last = now;
        // One place may be left free, for the accept.
        if !(1..=transfer.total_chunks + 1).contains(&place.wrapping_sub(transfer.place)) {
            return Err("a piece beyond the message");
        }
        if let Some(known) = transfer.chunks.get(&place) {
            return if *known == data {
                Ok(())
            } else {
                Err("two pieces for one place")
            };
        }
        if transfer.bytes + bytes > transfer.total_bytes
            || transfer.chunks.len() as u64 >= transfer.total_chunks
        {
            return Err("more than was announced");
        }
        transfer.bytes += bytes;
        self.bytes += bytes + PIECE;
        transfer.chunks.insert(place, data);
        Ok(())
    }

    /// The message, if nothing is missing.
    fn finish(&mut self, key: &Key) -> Step<C> {
        let Some(transfer) = self.transfers.get(key) else {
            return Step::Nothing;
        };
        if transfer.end.is_none() || transfer.chunks.len() as u64 != transfer.total_chunks {
            return Step::Nothing;
        }
        let Some(transfer) = self.forget(key) else {
            return Step::Nothing;
        };
        let Some((end_place, end, end_context)) = transfer.end else {
            return Step::Nothing;
        };
        let places = transfer.chunks.keys();
        let (first, last) = (places.clone().next(), places.clone().next_back());
        let in_a_row = first.zip(last).is_some_and(|(first, last)| {
            last - first + 1 == transfer.total_chunks && *last < end_place
        });
        if !in_a_row {
            return Step::Refused("a gap in the message");
        }
        let text: String = transfer.chunks.into_values().collect();
        if text.len() != transfer.total_bytes || oversized_digest(&text) != transfer.digest {
            return Step::Refused("the digest is another one");
        }
        if *self.ended.get_or_insert(transfer.start, || end) != end {
            return Step::Refused("the message had another end");
        }
        Step::Whole {
            text,
            start: transfer.context,
            end: end_context,
        }
    }

    fn forget(&mut self, key: &Key) -> Option<Transfer<C>> {
        let transfer = self.transfers.remove(key)?;
        self.bytes -= transfer.bytes + PIECE * transfer.chunks.len();
        Some(transfer)
    }

    fn expire(&mut self, now: Instant) {
        let over: Vec<Key> = self
            .transfers
            .iter()
            .filter(|(_, transfer)| {
                now.duration_since(transfer.last) > IDLE
                    || now.duration_since(transfer.begun) > LASTS
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in over {
            self.forget(&key);
        }
    }

    /// The transfer among those that `may` go in which nothing has happened for longest.
    fn stalest(&self, may: impl Fn(&Key) -> bool) -> Option<(Key, Instant)> {
        let open = self.transfers.iter().filter(|(key, _)| may(key));
        open.min_by_key(|(_, transfer)| transfer.last)
            .map(|(key, transfer)| (key.clone(), transfer.last))
    }

    fn forget_stalest(&mut self, may: impl Fn(&Key) -> bool) {
        if let Some((key, _)) = self.stalest(may) {
            self.forget(&key);
        }
    }

    fn make_room(&mut self, now: Instant) -> bool {
        self.make_room_among(now, |_| true)
    }

    fn make_room_beside(&mut self, key: &Key, now: Instant) -> bool {
        self.make_room_among(now, |other| other != key)
    }

    fn make_room_among(&mut self, now: Instant, may: impl Fn(&Key) -> bool) -> bool {
        match self.stalest(may) {
            Some((key, last)) if now.duration_since(last) > STALE => {
                self.forget(&key);
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use nostr::Keys;

    use super::*;
    use crate::wire::ProgressToken;

    const LIMITS: Limits = Limits {
        message: 1000,
        bytes: 2000,
        per_author: 3,
        transfers: 6,
    };

    struct Peer {
        author: PublicKey,
        events: u8,
        dated: u64,
    }

    impl Peer {
        fn new() -> Self {
            Self {
                author: Keys::generate().public_key(),
                events: 0,
                dated: 1000,
            }
        }

        fn say(
            &mut self,
            to: &mut Reassembly<u8>,
            token: &str,
            place: u64,
            kind: FrameKind,
            now: Instant,
        ) -> Step<u8> {
            self.events += 1;
            let mut event = [self.events; 32];
            event[..8].copy_from_slice(&self.author.to_bytes()[..8]);
            let key = Key {
                author: self.author,
                about: None,
                token: token.to_owned(),
            };
            let placed = Placed {
                frame: OversizedFrame::new(ProgressToken::new(token), place, kind),
                event: EventId::from_byte_array(event),
                created_at: self.dated,
                fresh: true,
                context: self.events,
            };
            to.take(key, placed, now)
        }
    }

    fn start(text: &str, chunks: u64) -> FrameKind {
        FrameKind::Start {
            completion_mode: "render".into(),
            digest: oversized_digest(text),
            total_bytes: text.len() as u64,
            total_chunks: chunks,
        }
    }

    fn chunk(data: &str) -> FrameKind {
        FrameKind::Chunk { data: data.into() }
    }

    fn whole(text: &str, start: u8, end: u8) -> Step<u8> {
        Step::Whole {
            text: text.into(),
            start,
            end,
        }
    }

    #[test]
    fn pieces_in_any_order_behind_their_start_become_the_message() {
        let now = Instant::now();
        // With and without a place for the accept; the end may overtake.
        for first in [2, 3] {
            for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0], [2, 0, 1]] {
                let (mut all, mut peer) = (Reassembly::new(LIMITS), Peer::new());
                let frames = [
                    (first, chunk("ab")),
                    (first + 1, chunk("cd")),
                    (first + 2, FrameKind::End),
                ];
                assert_eq!(
                    peer.say(&mut all, "1", 1, start("abcd", 2), now),
                    Step::Begun
                );
                let mut last = Step::Nothing;
                let mut end = 0;
                for at in order {
                    let (place, kind) = frames[at].clone();
                    if kind == FrameKind::End {
                        end = peer.events + 1;
                    }
                    last = peer.say(&mut all, "1", place, kind, now);
                }
                assert_eq!(last, whole("abcd", 1, end));
                assert_eq!((all.bytes, all.transfers.len()), (0, 0));
            }
        }
    }

    #[test]
    fn one_author_cannot_touch_another_ones_transfer() {
        let now = Instant::now();
        let mut all = Reassembly::new(LIMITS);
        let (mut good, mut bad) = (Peer::new(), Peer::new());
        good.say(&mut all, "1", 1, start("abcd", 2), now);
        for n in 0..64 {
            bad.say(&mut all, &n.to_string(), 1, start("xxxx", 2), now);
        }
        bad.say(&mut all, "1", 2, chunk("xx"), now);
        bad.say(&mut all, "1", 5, FrameKind::Abort { reason: None }, now);
        good.say(&mut all, "1", 2, chunk("ab"), now);
        good.say(&mut all, "1", 3, chunk("cd"), now);
        let end = good.events + 1;
        let last = good.say(&mut all, "1", 4, FrameKind::End, now);
        assert_eq!(last, whole("abcd", 1, end));
        assert!(all.transfers.len() <= LIMITS.per_author);
    }

    #[test]
    fn strangers_cannot_make_it_grow_and_only_idle_transfers_make_room() {
        let now = Instant::now();
        let mut all = Reassembly::new(LIMITS);
        let mut peers: Vec<Peer> = (0..10).map(|_| Peer::new()).collect();
        let begun: Vec<_> = peers
            .iter_mut()
            .map(|peer| peer.say(&mut all, "1", 1, start("abcd", 2), now))
            .collect();
        assert_eq!(begun[5], Step::Begun);
        assert_eq!(begun[6], Step::Refused("too many messages at once"));
        let later = now + STALE * 2;
        assert_eq!(
            peers[0].say(&mut all, "1", 2, chunk("ab"), later),
            Step::Nothing
        );
        let late = peers[9].say(&mut all, "1", 1, start("abcd", 2), later);
        assert_eq!(late, Step::Begun);
        assert_eq!(all.transfers.len(), LIMITS.transfers);
        peers[0].say(&mut all, "1", 3, chunk("cd"), later);
        assert!(matches!(
            peers[0].say(&mut all, "1", 4, FrameKind::End, later),
            Step::Whole { .. }
        ));
    }

    #[test]
    fn bytes_are_bounded_by_what_was_announced_and_in_all() {
        let now = Instant::now();
        let mut all = Reassembly::new(LIMITS);
        let mut peer = Peer::new();
        assert_eq!(
            peer.say(&mut all, "1", 1, start(&"x".repeat(1001), 2), now),
            Step::Refused("the message is too large")
        );
        peer.say(&mut all, "1", 1, start("abcd", 2), now);
        assert_eq!(
            peer.say(&mut all, "1", 2, chunk("abcde"), now),
            Step::Refused("more than was announced")
        );
        for token in ["1", "2", "3"] {
            peer.say(&mut all, token, 1, start(&"x".repeat(1000), 2), now);
        }
        let piece = "x".repeat(900);
        peer.say(&mut all, "1", 2, chunk(&piece), now);
        peer.say(&mut all, "2", 2, chunk(&piece), now);
        assert_eq!(
            peer.say(&mut all, "3", 2, chunk(&piece), now),
            Step::Refused("too much at once")
        );
        assert_eq!(all.bytes, 1800 + 2 * PIECE);
        assert_eq!(
            peer.say(&mut all, "4", 1, start("ab", 1), now + IDLE * 2),
            Step::Begun
        );
        assert_eq!(
            (all.bytes, all.transfers.len()),
            (0, 1),
            "idle ones are forgotten"
        );
    }

    #[test]
    fn what_is_not_whole_is_not_a_message() {
        let now = Instant::now();
        let refused = |frames: &[(u64, FrameKind)]| {
            let (mut all, mut peer) = (Reassembly::new(LIMITS), Peer::new());
            let mut last = Step::Nothing;
            for (place, kind) in frames {
                last = peer.say(&mut all, "1", *place, kind.clone(), now);
            }
            assert_eq!(all.bytes, 0);
            matches!(last, Step::Refused(_))
        };
        let abcd = (1, start("abcd", 2));
        assert!(refused(&[
            abcd.clone(),
            (2, chunk("ab")),
            (4, chunk("cd")),
            (5, FrameKind::End)
        ]));
        assert!(refused(&[
            abcd.clone(),
            (2, chunk("ab")),
            (3, chunk("xx")),
            (4, FrameKind::End)
        ]));
        assert!(refused(&[abcd.clone(), (2, chunk("ab")), (2, chunk("xx"))]));
        assert!(refused(&[abcd.clone(), (9, chunk("ab"))]));
        assert!(refused(&[abcd, (1, chunk("ab"))]));
        assert!(refused(&[(1, start("", 0))]));
    }

    #[test]
    fn replayed_frames_change_nothing() {
        let now = Instant::now();
        let (mut all, mut peer) = (Reassembly::new(LIMITS), Peer::new());
        let key = Key {
            author: peer.author,
            about: None,
            token: "1".into(),
        };
        let replay = |kind, event: u8, created_at, fresh| Placed {
            frame: OversizedFrame::new(ProgressToken::new("1"), 1, kind),
            event: EventId::from_byte_array([event; 32]),
            created_at,
            fresh,
            context: event,
        };
        peer.say(&mut all, "1", 1, start("abcd", 1), now);
        // Another start: an older one, and one that was seen before. A piece and an abort from before.
        for old in [
            replay(start("xx", 1), 100, 999, true),
            replay(start("xx", 1), 101, 1000, false),
            replay(chunk("old!"), 102, 999, true),
            replay(FrameKind::Abort { reason: None }, 103, 999, true),
        ] {
            all.take(key.clone(), old, now);
        }
        peer.say(&mut all, "1", 2, chunk("abcd"), now);
        assert_eq!(
            peer.say(&mut all, "1", 3, FrameKind::End, now),
            whole("abcd", 1, 3)
        );
        // The same start again, with an end of another transfer: the message does not get another id.
        let event = |n: u8| {
            let mut event = [n; 32];
            event[..8].copy_from_slice(&peer.author.to_bytes()[..8]);
            EventId::from_byte_array(event)
        };
        let again = |place, kind, event| Placed {
            frame: OversizedFrame::new(ProgressToken::new("1"), place, kind),
            event,
            created_at: 1000,
            fresh: false,
            context: 0,
        };
        assert_eq!(
            all.take(key.clone(), again(1, start("abcd", 1), event(1)), now),
            Step::Begun
        );
        all.take(key.clone(), again(2, chunk("abcd"), event(2)), now);
        assert_eq!(
            all.take(key, again(3, FrameKind::End, event(77)), now),
            Step::Refused("the message had another end")
        );
    }
}
