//! Who serves, and where: announcements (CEP-6) and lists of relays (CEP-17), read from relays and believed only if their
//! author signed them.

use std::collections::HashMap;
use std::time::Duration;

use nostr::{Event, Filter, JsonUtil, Kind, PublicKey};
use tokio::time::{Instant, timeout_at};

use super::announce::{PROMPTS, RELAY_LIST, RESOURCES, SERVER, TEMPLATES, TOOLS};
use super::keys::{self, NostrKeys};
use crate::error::Result;
use crate::payment::{ServerPubkey, Timestamp};
use crate::relays::{Interest, Relays, Subscription, parse_urls};
use crate::wire::{Tag, method};

/// Events that are looked at, at most: a relay may go on for ever.
const MOST: usize = 20_000;
/// How long the other relays are waited for once one has told everything.
const OTHERS: Duration = Duration::from_secs(3);

/// What a server announces: the newest of each part.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AnnouncedServer {
    /// Its key.
    pub server: ServerPubkey,
    /// Its key as people write it.
    pub npub: String,
    /// When it announced itself, by its own clock.
    pub announced_at: Timestamp,
    /// The tags of its announcement: names, payment methods, what it supports, prices.
    pub tags: Vec<Tag>,
    /// The result of `initialize`, as JSON text.
    pub initialize: String,
    /// What it offers.
    pub lists: Vec<AnnouncedList>,
}

/// One list of capabilities of an announced server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct AnnouncedList {
    /// The method that lists the same, such as `tools/list`.
    pub method: &'static str,
    /// The result of that method, as JSON text.
    pub result: String,
    /// The tags: prices.
    pub tags: Vec<Tag>,
}

/// The servers that announce themselves on `relays`, the newest announcement first.
///
/// Waits until every relay has told everything, for at most `patience`, and a little once one has.
///
/// # Errors
///
/// [`Config`](crate::ErrorKind::Config) for relays that are none, [`Transport`](crate::ErrorKind::Transport) if none
/// answered in time.
pub async fn discover(relays: &[String], patience: Duration) -> Result<Vec<AnnouncedServer>> {
    const LISTS: [(u16, &str); 4] = [
        (TOOLS, method::TOOLS_LIST),
        (PROMPTS, method::PROMPTS_LIST),
        (RESOURCES, method::RESOURCES_LIST),
        (TEMPLATES, method::RESOURCE_TEMPLATES_LIST),
    ];
    let kinds = [SERVER, TOOLS, PROMPTS, RESOURCES, TEMPLATES].map(Kind::from);
    let mut newest = newest(collect(relays, Filter::new().kinds(kinds), patience).await?);
    let authors: Vec<PublicKey> = newest
        .keys()
        .filter(|(_, kind)| *kind == SERVER)
        .map(|(author, _)| *author)
        .collect();
    let mut servers: Vec<AnnouncedServer> = authors
        .into_iter()
        .filter_map(|author| {
            let announced = newest.remove(&(author, SERVER))?;
            let lists = LISTS.iter().filter_map(|(kind, method)| {
                let listed = newest.remove(&(author, *kind))?;
                Some(AnnouncedList {
                    method,
                    tags: tags(&listed),
                    result: listed.content,
                })
            });
            Some(AnnouncedServer {
                server: ServerPubkey::from_bytes(author.to_bytes()),
                npub: keys::npub(&author),
                announced_at: Timestamp::from_secs(announced.created_at.as_secs()),
                lists: lists.collect(),
                tags: tags(&announced),
                initialize: announced.content,
            })
        })
        .collect();
    servers.sort_by_key(|server| std::cmp::Reverse(server.announced_at));
    Ok(servers)
}

/// The relays on which `server` says that it is found, asked on `relays` (CEP-17): those without a mark, else those to
/// read from and to write to. Empty if it says nothing there.
///
/// # Errors
///
/// As [`discover`].
pub async fn find_relays(
    server: &ServerPubkey,
    relays: &[String],
    patience: Duration,
) -> Result<Vec<String>> {
    let author = keys::public_key(server.as_bytes());
    let filter = Filter::new().kind(Kind::from(RELAY_LIST)).author(author);
    let newest = newest(collect(relays, filter, patience).await?);
    Ok(newest
        .get(&(author, RELAY_LIST))
        .map(|event| listed_relays(&tags(event)))
        .unwrap_or_default())
}

/// The events that `author` has published on `relays` under a kind and an identifier (NIP-01, `d`), verified, as JSON.
///
/// # Errors
///
/// As [`discover`].
pub async fn find_events(
    author: &ServerPubkey,
    (kind, identifier): (u16, &str),
    relays: &[String],
    patience: Duration,
) -> Result<Vec<String>> {
    let filter = Filter::new()
        .kind(Kind::from(kind))
        .author(keys::public_key(author.as_bytes()))
        .identifier(identifier);
    let found = collect(relays, filter, patience).await?;
    Ok(found.iter().map(JsonUtil::as_json).collect())
}

fn listed_relays(tags: &[Tag]) -> Vec<String> {
    let marked = |mark: Option<&str>| -> Vec<String> {
        let mut urls = Vec::new();
        for tag in tags.iter().filter(|tag| tag.name() == "r") {
            let own = tag
                .parts()
                .get(2)
                .map(String::as_str)
                .filter(|m| !m.is_empty());
            if let Some(url) = tag.value()
                && own == mark
                && parse_urls(&[url]).is_ok()
                && !urls.iter().any(|known| known == url)
            {
                urls.push(url.to_owned());
            }
        }
        urls
    };
    let unmarked = marked(None);
    if !unmarked.is_empty() {
        return unmarked;
    }
    let mut urls = marked(Some("read"));
    for url in marked(Some("write")) {
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    urls
}

/// What relays have kept, verified.
async fn collect(relays: &[String], filter: Filter, patience: Duration) -> Result<Vec<Event>> {
    let wanted = filter.clone();
    let subscription = Subscription {
        keys: NostrKeys::generate().inner().clone(),
        interests: vec![Interest::Kept(filter)],
    };
    let (relays, mut deliveries) = Relays::spawn(parse_urls(relays)?, &subscription);
    let mut events = Vec::new();
    let mut deadline = Instant::now() + patience;
    {
        let told = async {
            relays.ready(patience).await?;
            relays.all_ready(OTHERS).await;
            Ok(())
        };
        tokio::pin!(told);
        let mut all_told = false;
        let mut delivered = 0;
        while delivered < MOST {
            tokio::select! {
                biased;
                delivery = timeout_at(deadline, deliveries.recv()) => match delivery {
                    Ok(Some(delivery)) => {
                        delivered += 1;
                        let event = delivery.event;
                        // A relay may send what nobody asked for, and what nobody signed.
                        if wanted.match_event(&event, nostr::filter::MatchEventOptions::new()) && event.verify().is_ok() {
                            events.push(event);
                        }
                    }
                    Ok(None) | Err(_) => break,
                },
                outcome = &mut told, if !all_told => {
                    let outcome: Result<()> = outcome;
                    outcome?;
                    all_told = true;
                    // What was told is in the queue already.
                    deadline = Instant::now();
                }
            }
        }
    }
    relays.shutdown().await;
    Ok(events)
}

/// Of each author and kind the newest; of two of one second the one with the lower id (NIP-01).
fn newest(events: Vec<Event>) -> HashMap<(PublicKey, u16), Event> {
    let mut newest: HashMap<(PublicKey, u16), Event> = HashMap::new();
    for event in events {
        let key = (event.pubkey, event.kind.as_u16());
        let newer = newest
            .get(&key)
            .is_none_or(|known| (event.created_at, known.id) > (known.created_at, event.id));
        if newer {
            newest.insert(key, event);
        }
    }
    newest
}

fn tags(event: &Event) -> Vec<Tag> {
    let tags = event.tags.iter();
    tags.map(|tag| Tag::new(tag.as_slice())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_without_a_mark_are_preferred_and_nonsense_is_none() {
        let listed = |tags: &[&[&str]]| {
            let tags: Vec<Tag> = tags
                .iter()
                .map(|tag| Tag::new(tag.iter().copied()))
                .collect();
            listed_relays(&tags)
        };
        assert_eq!(
            listed(&[
                &["r", "wss://a", "read"],
                &["r", "wss://b"],
                &["r", "wss://b", ""],
                &["r", "http://c"],
                &["r"],
                &["x", "wss://d"],
            ]),
            ["wss://b"]
        );
        assert_eq!(
            listed(&[&["r", "wss://a", "write"], &["r", "wss://b", "read"]]),
            ["wss://b", "wss://a"]
        );
        assert!(listed(&[]).is_empty());
    }
}
