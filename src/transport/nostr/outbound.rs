//! From a message to a signed event: tags in the order of the reference SDK, the route of an answer, the wrap.

use nostr::{Event, JsonUtil, Keys, Kind, PublicKey, Tag as NostrTag, Tags, Timestamp};

use super::config::{
    EncryptionMode, GiftWrapMode, MAX_PLAIN_CONTENT, MESSAGE, ServerInfo, Settings,
};
use super::event;
use super::gift_wrap::{self, Wrap};
use super::oversized::{self, SUPPORT_OVERSIZED};
use crate::error::{Error, ErrorKind, Result};
use crate::payment::PaymentInteraction;
use crate::transport::{Advertisement, Introduction};
use crate::wire::{ProgressToken, Tag};

const PAYMENT_INTERACTION: &str = "payment_interaction";
const SUPPORT_ENCRYPTION: &str = "support_encryption";
pub(super) const SUPPORT_EPHEMERAL: &str = "support_encryption_ephemeral";

/// Between the wrap of a route and the progress token of its request.
const FRAMES: &str = ";frames=";

/// How a reply travels: decided when the request came in, and readable after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) wrap: Option<Wrap>,
    /// The token under which the reply may come in pieces, if the client takes it so (N-122).
    pub(super) frames: Option<ProgressToken>,
}

impl Route {
    /// The route of the answer to a message that came as `wrap` from a client that takes ephemeral wraps or not (N-111,
    /// N-112).
    pub(super) fn reply(wrap: Option<Wrap>, ephemeral: bool, mode: GiftWrapMode) -> Self {
        wrap.map_or_else(Self::plain, |wrap| {
            Self::wrapped(match mode {
                GiftWrapMode::Ephemeral => Wrap::Ephemeral,
                GiftWrapMode::Persistent => Wrap::Persistent,
                GiftWrapMode::Optional if ephemeral => Wrap::Ephemeral,
                GiftWrapMode::Optional => wrap,
            })
        })
    }

    pub(super) fn plain() -> Self {
        Self {
            wrap: None,
            frames: None,
        }
    }

    pub(super) fn wrapped(wrap: Wrap) -> Self {
        Self {
            wrap: Some(wrap),
            frames: None,
        }
    }

    /// The same, in pieces if need be.
    pub(super) fn in_frames(mut self, token: Option<ProgressToken>) -> Self {
        self.frames = token;
        self
    }

    pub(super) fn to_text(&self) -> String {
        let mut text = match self.wrap {
            None => "plain",
            Some(Wrap::Persistent) => "wrap:1059",
            Some(Wrap::Ephemeral) => "wrap:21059",
        }
        .to_owned();
        if let Some(token) = &self.frames
            && let Ok(token) = serde_json::to_string(token)
        {
            text.push_str(FRAMES);
            text.push_str(&token);
        }
        text
    }

    /// Reads a route. One that nobody wrote is the safest that the settings allow.
    pub(super) fn parse(text: &str, settings: &Settings) -> Self {
        let (wrap, token) = text.split_once(FRAMES).unwrap_or((text, ""));
        let route = match wrap {
            "plain" if settings.encryption.takes_plain() => Self::plain(),
            "wrap:1059" => Self::wrapped(Wrap::Persistent),
            "wrap:21059" => Self::wrapped(Wrap::Ephemeral),
            _ => Self::unknown(settings),
        };
        let token = serde_json::from_str(token).ok();
        route.in_frames(token.filter(|_| settings.oversized))
    }

    /// The route to a client of whom nothing is known.
    pub(super) fn unknown(settings: &Settings) -> Self {
        match (settings.encryption, settings.gift_wrap) {
            (EncryptionMode::Disabled, _) => Self::plain(),
            (_, GiftWrapMode::Ephemeral) => Self::wrapped(Wrap::Ephemeral),
            (_, _) => Self::wrapped(Wrap::Persistent),
        }
    }
}

fn encryption_tags(settings: &Settings) -> impl Iterator<Item = Tag> {
    let wraps = settings.encryption.takes_wraps();
    let ephemeral = wraps && settings.gift_wrap.takes_ephemeral();
    let tags = [(wraps, SUPPORT_ENCRYPTION), (ephemeral, SUPPORT_EPHEMERAL)];
    tags.into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, name)| Tag::new([name]))
}

fn oversized_tag(settings: &Settings) -> Option<Tag> {
    settings.oversized.then(|| Tag::new([SUPPORT_OVERSIZED]))
}

/// Everything that a server tells about itself (N-28, N-29), in the order of the reference SDK.
pub(super) fn discovery(
    info: &ServerInfo,
    settings: &Settings,
    payments: &Advertisement,
) -> Vec<Tag> {
    let described = [
        ("name", &info.name),
        ("about", &info.about),
        ("website", &info.website),
        ("picture", &info.picture),
    ];
    let described = described
        .into_iter()
        .filter_map(|(name, value)| Some(Tag::new([name, value.as_deref()?])));
    let gating = payments
        .explicit_gating
        .then(|| Tag::payment_interaction(PaymentInteraction::ExplicitGating));
    described
        .chain(encryption_tags(settings))
        .chain(payments.pmis.iter().map(Tag::pmi))
        .chain(gating)
        .chain(oversized_tag(settings))
        .collect()
}

/// The tags of a server's message: addresses, introduction if it is due, then what the content calls for.
pub(super) fn server_tags(
    client: &str,
    request: Option<&str>,
    introduction: Vec<Tag>,
    own: Vec<Tag>,
) -> Vec<Tag> {
    let disclosed = own.iter().any(|tag| tag.name() == PAYMENT_INTERACTION);
    let mut tags = vec![Tag::new(["p", client])];
    tags.extend(request.map(|request| Tag::new(["e", request])));
    tags.extend(
        introduction
            .into_iter()
            .filter(|tag| !(disclosed && tag.name() == PAYMENT_INTERACTION)),
    );
    tags.extend(own);
    tags
}

/// The tags of a client's request (N-30, N-37, N-53).
pub(super) fn request_tags(
    server: &str,
    first: bool,
    settings: &Settings,
    introduction: &Introduction,
) -> Vec<Tag> {
    let mut tags = vec![Tag::new(["p", server])];
    if first {
        tags.extend(encryption_tags(settings));
        tags.extend(oversized_tag(settings));
    }
    tags.extend(introduction.pmis.iter().map(Tag::pmi));
    tags.extend(introduction.interaction.map(Tag::payment_interaction));
    tags.extend(introduction.licence.as_ref().map(Tag::licence));
    tags
}

/// Signs an event as it is.
pub(super) fn sign(
    keys: &Keys,
    kind: u16,
    content: String,
    tags: &[Tag],
    at: Option<u64>,
) -> Event {
    let tags = tags.iter().map(|tag| NostrTag::parse(tag.parts()));
    let tags = Tags::from_list(tags.flatten().collect());
    let at = at.map_or_else(Timestamp::now, Timestamp::from);
    event::sign(keys, Kind::from(kind), content, tags, at)
}

/// Signs a direct message.
pub(super) fn message(keys: &Keys, content: String, tags: &[Tag]) -> Event {
    sign(keys, MESSAGE, content, tags, None)
}

/// Refuses a message that cannot travel on `route`.
pub(super) fn check_size(event: &Event, route: &Route) -> Result<()> {
    match route.wrap {
        Some(_) => gift_wrap::check_size(&event.as_json()),
        None if event.content.len() > MAX_PLAIN_CONTENT => {
            let text = format!(
                "{} bytes are more than relays carry ({MAX_PLAIN_CONTENT})",
                event.content.len()
            );
            Err(Error::new(ErrorKind::TooLarge, text))
        }
        None => Ok(()),
    }
}

/// The bytes that tags take in an event, at most.
pub(super) fn tag_bytes(tags: &[Tag]) -> usize {
    let bytes = |tag: &Tag| tag.parts().iter().map(|part| part.len() + 3).sum::<usize>() + 3;
    tags.iter().map(bytes).sum()
}

/// Whether a direct message of at most so many bytes fits into anything, without its being written: nearly all do.
pub(super) fn surely_fits(content: usize, tags: usize) -> bool {
    frame_with(tags) + 2 * content <= gift_wrap::MAX_INNER
}

/// An event without its content, amply; and text in JSON in JSON at most doubles.
fn frame_with(tags: usize) -> usize {
    /// Id, keys, signature, time and the names of the fields.
    const FRAME: usize = 2048;
    FRAME + 2 * tags
}

/// Whether a direct message fits into what `route` carries. Only one that may not is signed to be measured.
pub(super) fn can_carry(keys: &Keys, content: String, tags: &[Tag], route: &Route) -> bool {
    // In pieces, the first has the tags and no content.
    let in_frames = route.frames.is_some()
        && content.len() <= oversized::MAX_SENT
        && frame_with(tag_bytes(tags)) <= gift_wrap::MAX_INNER;
    in_frames
        || surely_fits(content.len(), tag_bytes(tags))
        || check_size(&message(keys, content, tags), route).is_ok()
}

/// The event that goes over the wire: the signed event itself, or a fresh wrap around it.
pub(super) fn carrier(event: Event, recipient: &PublicKey, route: &Route) -> Result<Event> {
    match route.wrap {
        None => check_size(&event, route).map(|()| event),
        Some(kind) => gift_wrap::wrap(&event.as_json(), recipient, kind),
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::NostrKeys;
    use super::*;

    fn names(tags: &[Tag]) -> Vec<&str> {
        tags.iter().map(Tag::name).collect()
    }

    #[test]
    fn the_introduction_has_the_order_of_the_reference_sdk() {
        let info = ServerInfo::new(
            Some("n".into()),
            Some("a".into()),
            Some("w".into()),
            Some("p".into()),
        );
        let settings = Settings::new(NostrKeys::generate());
        let payments = Advertisement::new(
            vec!["x".parse().unwrap(), "y".parse().unwrap()],
            true,
            Vec::new(),
        );
        let tags = server_tags(
            "c",
            Some("r"),
            discovery(&info, &settings, &payments),
            vec![Tag::new(["cap", "x"])],
        );
        assert_eq!(
            names(&tags),
            [
                "p",
                "e",
                "name",
                "about",
                "website",
                "picture",
                "support_encryption",
                "support_encryption_ephemeral",
                "pmi",
                "pmi",
                "payment_interaction",
                "support_oversized_transfer",
                "cap",
            ]
        );
    }

    #[test]
    fn what_can_be_carried_is_told_to_the_byte() {
        let keys = NostrKeys::generate();
        let tags = [Tag::new(["p", "x"]), Tag::new(["cap", "\"\""])];
        for route in [Route::plain(), Route::wrapped(Wrap::Ephemeral)] {
            for text in ["x", "\"", "é"] {
                // Around the point where the quick estimate ends, and where the real limit is.
                for bytes in (30_000..=300_000).step_by(30_011) {
                    let content = text.repeat(bytes / text.len());
                    let event = message(keys.inner(), content.clone(), &tags);
                    let carried = check_size(&event, &route).is_ok();
                    assert_eq!(
                        can_carry(keys.inner(), content.clone(), &tags, &route),
                        carried
                    );
                    let in_frames = route.clone().in_frames(Some(ProgressToken::new("t")));
                    assert!(can_carry(keys.inner(), content, &tags, &in_frames));
                }
            }
        }
    }

    #[test]
    fn a_disclosed_interaction_is_not_said_twice() {
        let settings = Settings::new(NostrKeys::generate());
        let payments = Advertisement::new(Vec::new(), true, Vec::new());
        let own = vec![Tag::payment_interaction(PaymentInteraction::Transparent)];
        let tags = server_tags(
            "c",
            None,
            discovery(&ServerInfo::default(), &settings, &payments),
            own.clone(),
        );
        let said: Vec<_> = tags
            .iter()
            .filter(|tag| tag.name() == PAYMENT_INTERACTION)
            .collect();
        assert_eq!(said, [&own[0]]);
    }

    #[test]
    fn encryption_is_advertised_as_far_as_it_is_accepted() {
        let mut settings = Settings::new(NostrKeys::generate());
        settings.gift_wrap = GiftWrapMode::Persistent;
        assert_eq!(
            encryption_tags(&settings).collect::<Vec<_>>(),
            [Tag::new(["support_encryption"])]
        );
        settings.encryption = EncryptionMode::Disabled;
        assert_eq!(encryption_tags(&settings).count(), 0);
    }

    #[test]
    fn answers_mirror_the_request_within_the_mode() {
        use GiftWrapMode::{Ephemeral, Optional, Persistent};
        let cases = [
            (None, true, Optional, "plain"),
            (Some(Wrap::Persistent), false, Optional, "wrap:1059"),
            (Some(Wrap::Persistent), true, Optional, "wrap:21059"),
            (Some(Wrap::Ephemeral), true, Persistent, "wrap:1059"),
            (Some(Wrap::Persistent), false, Ephemeral, "wrap:21059"),
        ];
        let settings = Settings::new(NostrKeys::generate());
        for (wrap, ephemeral, mode, text) in cases {
            let route = Route::reply(wrap, ephemeral, mode);
            assert_eq!(route.to_text(), text);
            assert_eq!(Route::parse(text, &settings), route);
            let token = Some(ProgressToken::new("a;frames=\"b"));
            let in_frames = route.in_frames(token);
            assert_eq!(Route::parse(&in_frames.to_text(), &settings), in_frames);
        }
    }

    #[test]
    fn requests_carry_payment_methods_always_and_capabilities_once() {
        let settings = Settings::new(NostrKeys::generate());
        let who = Introduction::new(
            vec!["x".parse().unwrap()],
            Some(PaymentInteraction::ExplicitGating),
        );
        assert_eq!(
            names(&request_tags("s", true, &settings, &who)),
            [
                "p",
                "support_encryption",
                "support_encryption_ephemeral",
                "support_oversized_transfer",
                "pmi",
                "payment_interaction"
            ]
        );
        let later = Introduction::new(who.pmis.clone(), None);
        assert_eq!(
            names(&request_tags("s", false, &settings, &later)),
            ["p", "pmi"]
        );
    }
}
