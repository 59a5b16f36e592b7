//! `discover`: which servers announce themselves, and what they ask for what they do. Reads relays, and talks to no server.

use std::time::Duration;

use serde_json::{Value, json};

use super::offer::{Offer, offers_of};
use crate::gateway::args::DiscoverArgs;
use crate::gateway::config;
use crate::gateway::exit::Outcome;
use crate::gateway::output::{self, Paint, harmless};
use crate::payment::{PaymentInteraction, Pmi, PriceRange};
use crate::transport::nostr::{AnnouncedServer, discover};
use crate::wire::{Tag, method};

/// The widest name in the table.
const WIDEST: usize = 40;

pub(super) async fn run(args: &DiscoverArgs) -> Outcome {
    let relays = config::relays(&args.relays, &[])?;
    let servers = discover(&relays, Duration::from_secs(args.timeout)).await?;
    let shown: Vec<Shown> = servers.iter().map(Shown::new).collect();
    if args.json {
        shown.iter().for_each(Shown::print_json);
    } else {
        print_table(&shown);
    }
    Ok(())
}

/// One server, as it is shown.
struct Shown<'a> {
    server: &'a AnnouncedServer,
    introduction: Value,
    offers: Vec<Offer>,
    pmis: Vec<Pmi>,
}

impl<'a> Shown<'a> {
    fn new(server: &'a AnnouncedServer) -> Self {
        let offers = server.lists.iter().flat_map(|list| {
            let kind = match list.method {
                method::TOOLS_LIST => "tool",
                method::PROMPTS_LIST => "prompt",
                _ => "resource",
            };
            // The announcement of the server itself has all prices, where its lists have none of their own.
            let tags = [list.tags.as_slice(), server.tags.as_slice()].concat();
            let mut page = serde_json::from_str(&list.result).unwrap_or_default();
            offers_of(list.method, kind, &mut page, &tags)
        });
        Self {
            introduction: serde_json::from_str(&server.initialize).unwrap_or_default(),
            offers: offers.collect(),
            pmis: Tag::pmis(&server.tags),
            server,
        }
    }

    fn tag(&self, name: &str) -> Option<&str> {
        let mut tags = self.server.tags.iter();
        tags.find(|tag| tag.name() == name)?.value()
    }

    fn has(&self, flag: &str) -> bool {
        self.server.tags.iter().any(|tag| tag.name() == flag)
    }

    fn name(&self) -> Option<&str> {
        let own = || self.introduction.pointer("/serverInfo/name")?.as_str();
        self.tag("name").or_else(own)
    }

    fn print_json(&self) {
        let mut interactions = vec![PaymentInteraction::Transparent];
        if Tag::interaction(&self.server.tags) == Some(PaymentInteraction::ExplicitGating) {
            interactions.push(PaymentInteraction::ExplicitGating);
        }
        output::json(&json!({
            "event": "server",
            "pubkey": self.server.server,
            "npub": self.server.npub,
            "name": self.name(),
            "about": self.tag("about"),
            "website": self.tag("website"),
            "picture": self.tag("picture"),
            "server_info": self.introduction.get("serverInfo"),
            "protocol_version": self.introduction.get("protocolVersion"),
            "pmis": self.pmis,
            "payment_interactions": interactions,
            "encryption": self.has("support_encryption"),
            "oversized_transfer": self.has("support_oversized_transfer"),
            "announced_at": self.server.announced_at.as_secs(),
        }));
        for offer in &self.offers {
            let mut line = offer.to_json();
            line["server"] = self.server.server.to_string().into();
            output::json(&line);
        }
    }

    fn row(&self) -> [String; 5] {
        let name: String = harmless(self.name().unwrap_or("(no name)"))
            .chars()
            .take(WIDEST)
            .collect();
        let priced: Vec<&PriceRange> = self
            .offers
            .iter()
            .filter_map(|offer| offer.price.as_ref())
            .collect();
        let offers = format!("{} of {}", priced.len(), self.offers.len());
        let words: Vec<&str> = self.pmis.iter().map(Pmi::as_str).collect();
        [
            name,
            offers,
            prices(&priced),
            words.join(", "),
            self.server.npub.clone(),
        ]
    }
}

/// From the lowest to the highest price, one unit after the other.
fn prices(priced: &[&PriceRange]) -> String {
    let mut spans: Vec<PriceRange> = Vec::new();
    for price in priced {
        match spans.iter_mut().find(|span| span.unit() == price.unit()) {
            None => spans.push((*price).clone()),
            Some(span) => {
                let lower = price.min().value() < span.min().value();
                let min = if lower { price.min() } else { span.min() };
                let higher = price.max().value() > span.max().value();
                let max = if higher { price.max() } else { span.max() };
                if let Ok(wider) = PriceRange::new(min, max) {
                    *span = wider;
                }
            }
        }
    }
    let spans: Vec<String> = spans.iter().map(ToString::to_string).collect();
    if spans.is_empty() {
        "free".to_owned()
    } else {
        spans.join(", ")
    }
}

fn print_table(shown: &[Shown<'_>]) {
    if shown.is_empty() {
        output::remark("no server announces itself there");
        return;
    }
    let heads = ["NAME", "PRICED", "PRICES", "PAID BY", "SERVER"].map(str::to_owned);
    let rows: Vec<[String; 5]> = shown.iter().map(Shown::row).collect();
    let mut widths = [0; 5];
    for row in std::iter::once(&heads).chain(&rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let paint = Paint::stdout();
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    output::line(&paint.bold(&line(&heads)));
    for row in &rows {
        output::line(&line(row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_a_span_for_each_unit() {
        let price = |min: &str, max: &str| {
            PriceRange::new(min.parse().unwrap(), max.parse().unwrap()).unwrap()
        };
        let all = [
            price("5 sats", "7 sats"),
            price("3 sats", "3 sats"),
            price("0.02 usd", "0.02 usd"),
        ];
        let all: Vec<&PriceRange> = all.iter().collect();
        let shown = prices(&all);
        assert!(shown.starts_with("3 sats to 7 sats, "), "{shown}");
        assert_eq!(prices(&[]), "free");
    }
}
