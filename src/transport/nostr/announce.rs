//! Public announcements (CEP-6): what the server is, what it offers, where to find it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use nostr::{Event, JsonUtil};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::config::{MAX_PLAIN_CONTENT, ServerInfo};
use super::outbound;
use super::server::NostrServerTransport;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::{CapTag, Tag};

pub(super) const SERVER: u16 = 11316;
pub(super) const TOOLS: u16 = 11317;
pub(super) const RESOURCES: u16 = 11318;
pub(super) const TEMPLATES: u16 = 11319;
pub(super) const PROMPTS: u16 = 11320;
pub(super) const RELAY_LIST: u16 = 10002;
const PROFILE: u16 = 0;

/// Bytes of `cap` tags on one announcement, at most: with more, relays refuse the event. The tags are hints; the lists
/// themselves carry those of what they list.
const MOST_CAP_BYTES: usize = 48 * 1024;

/// What to announce: each part is the JSON of an MCP result, and left alone if absent.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Announcement {
    /// The result of `initialize`.
    pub initialize: Option<Box<RawValue>>,
    /// The result of `tools/list`.
    pub tools: Option<Box<RawValue>>,
    /// The result of `resources/list`.
    pub resources: Option<Box<RawValue>>,
    /// The result of `resources/templates/list`.
    pub templates: Option<Box<RawValue>>,
    /// The result of `prompts/list`.
    pub prompts: Option<Box<RawValue>>,
}

impl Announcement {
    /// Announces nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// What a server is to people, on Nostr (CEP-23, kind 0). What is absent is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Profile {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its name as it likes to be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// Where to read more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub website: Option<String>,
    /// Address of a picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picture: Option<String>,
    /// Address of a wide picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub banner: Option<String>,
    /// Its name as an address (NIP-05).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nip05: Option<String>,
    /// Where it takes tips (LUD-16).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lud16: Option<String>,
}

impl Profile {
    /// The same, with what `info` says where it says nothing itself.
    #[must_use]
    pub fn or(mut self, info: &ServerInfo) -> Self {
        self.name = self.name.or_else(|| info.name.clone());
        self.about = self.about.or_else(|| info.about.clone());
        self.website = self.website.or_else(|| info.website.clone());
        self.picture = self.picture.or_else(|| info.picture.clone());
        self
    }
}

/// Keeps the times of replaceable events strictly increasing, so that a relay always takes the newer one.
#[derive(Debug, Default)]
pub(super) struct Announcer(Mutex<HashMap<u16, u64>>);

impl Announcer {
    fn next_time(&self, kind: u16, now: u64) -> u64 {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = last.get(&kind).map_or(now, |last| now.max(last + 1));
        last.insert(kind, at);
        at
    }
}

impl NostrServerTransport {
    /// Publishes what `announcement` holds, with the prices of the last
    /// [`advertise`](crate::transport::ServerTransport::advertise). Call it again when the content or the prices change:
    /// the newer announcement replaces the older.
    ///
    /// # Errors
    ///
    /// [`TooLarge`](crate::ErrorKind::TooLarge) for a part that relays do not carry,
    /// [`Transport`](crate::ErrorKind::Transport) if no relay took a part. The parts after the failed one are still
    /// tried.
    pub async fn announce(&self, announcement: &Announcement) -> Result<()> {
        let parts = [
            (SERVER, &announcement.initialize),
            (TOOLS, &announcement.tools),
            (RESOURCES, &announcement.resources),
            (TEMPLATES, &announcement.templates),
            (PROMPTS, &announcement.prompts),
        ];
        let mut outcome = Ok(());
        for (kind, content) in parts {
            let Some(content) = content else { continue };
            let mut tags = if kind == SERVER {
                self.discovery()
            } else {
                Vec::new()
            };
            let payments = self
                .advertisement
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            tags.extend(cap_tags(kind, &payments.caps));
            outcome = outcome.and(
                self.publish_announcement(kind, content.get().to_owned(), &tags)
                    .await,
            );
        }
        outcome
    }

    /// Publishes on which relays the server is found (NIP-65).
    ///
    /// # Errors
    ///
    /// [`Transport`](crate::ErrorKind::Transport) if no relay took it.
    pub async fn publish_relay_list(&self) -> Result<()> {
        let tags: Vec<Tag> = self
            .relays
            .urls()
            .map(|url| Tag::new(["r", url.as_str()]))
            .collect();
        self.publish_announcement(RELAY_LIST, String::new(), &tags)
            .await
    }

    /// Publishes who the server is to people (CEP-23).
    ///
    /// # Errors
    ///
    /// [`Transport`](crate::ErrorKind::Transport) if no relay took it.
    pub async fn publish_profile(&self, profile: &Profile) -> Result<()> {
        let content = serde_json::to_string(profile)
            .map_err(|source| Error::wire("a profile cannot be written").with_source(source))?;
        self.publish_announcement(PROFILE, content, &[]).await
    }

    /// Publishes an event that was signed elsewhere with this server's key, as JSON: where the server serves, and where it is looked
    /// for.
    ///
    /// # Errors
    ///
    /// [`Wire`](crate::ErrorKind::Wire) if it is no such event, [`Transport`](crate::ErrorKind::Transport) if no relay took it.
    pub async fn publish_signed(&self, json: &str) -> Result<()> {
        let event = Event::from_json(json)
            .map_err(|source| Error::wire("it is no signed event").with_source(source))?;
        if event.pubkey != self.settings.keys().public_key() || event.verify().is_err() {
            return Err(Error::wire("it is not signed with the key of this server"));
        }
        self.publish_everywhere(&event).await
    }

    async fn publish_announcement(&self, kind: u16, content: String, tags: &[Tag]) -> Result<()> {
        if content.len() > MAX_PLAIN_CONTENT {
            let text = format!(
                "an announcement of {} bytes is more than relays carry",
                content.len()
            );
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        let at = self
            .announcer
            .next_time(kind, nostr::Timestamp::now().as_secs());
        let event = outbound::sign(self.settings.keys(), kind, content, tags, Some(at));
        self.publish_everywhere(&event).await
    }

    /// Where it is looked for, and where it serves; one place is enough.
    async fn publish_everywhere(&self, event: &Event) -> Result<()> {
        let Some(bootstrap) = &self.bootstrap else {
            return self.relays.publish(event).await;
        };
        let (own, theirs) = tokio::join!(self.relays.publish(event), bootstrap.publish(event));
        own.or(theirs)
    }
}

/// The prices that belong on an announcement of `kind`: all on the server's own, else those of what it lists.
fn cap_tags(kind: u16, caps: &[CapTag]) -> Vec<Tag> {
    let belongs = |cap: &CapTag| match kind {
        SERVER => true,
        TOOLS => cap.capability.starts_with("tool:"),
        RESOURCES | TEMPLATES => cap.capability.starts_with("resource:"),
        PROMPTS => cap.capability.starts_with("prompt:"),
        _ => false,
    };
    let mut bytes = 0;
    caps.iter()
        .filter(|cap| belongs(cap))
        .map(CapTag::to_tag)
        .take_while(|tag| {
            bytes += tag.parts().iter().map(|part| part.len() + 3).sum::<usize>();
            bytes <= MOST_CAP_BYTES
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cap(capability: &str) -> CapTag {
        CapTag::from_tag(&Tag::new(["cap", capability, "1", "sats"])).unwrap()
    }

    #[test]
    fn prices_go_where_their_things_are_listed() {
        let caps = [cap("tool:a"), cap("resource:x://*"), cap("prompt:p")];
        assert_eq!(cap_tags(SERVER, &caps).len(), 3);
        assert_eq!(cap_tags(TOOLS, &caps), [caps[0].to_tag()]);
        assert_eq!(cap_tags(TEMPLATES, &caps), [caps[1].to_tag()]);
        assert_eq!(cap_tags(PROMPTS, &caps), [caps[2].to_tag()]);
    }

    #[test]
    fn an_announcement_stays_small_enough_for_relays() {
        let caps: Vec<CapTag> = (0..10_000)
            .map(|n| cap(&format!("tool:number-{n}")))
            .collect();
        let tags = cap_tags(SERVER, &caps);
        assert!(serde_json::to_string(&tags).unwrap().len() < 60 * 1024);
        assert!(tags.len() > 500);
    }

    #[test]
    fn times_of_replaceable_events_strictly_increase() {
        let announcer = Announcer::default();
        assert_eq!(announcer.next_time(SERVER, 10), 10);
        assert_eq!(announcer.next_time(SERVER, 10), 11);
        assert_eq!(announcer.next_time(TOOLS, 10), 10);
        assert_eq!(announcer.next_time(SERVER, 20), 20);
    }
}
