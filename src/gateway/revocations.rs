//! Tells the world which public licences were taken back: one event for each, on the server's relays.
//!
//! `licence revoke` writes into the ledger; this reads it there, so that what is taken back while the server is down is published
//! when it is up again. How far that is done is in the ledger too, for each set of relays: a new relay is told everything.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::own_licences::{OwnLicences, Signed};
use crate::error::Result;
use crate::ledger::{FeedPosition, IssuedLicence};
use crate::payment::{Clock, SystemClock};
use crate::transport::nostr::NostrServerTransport;

/// How often the ledger is asked.
const EVERY: Duration = Duration::from_secs(10);

/// Licences that are read at a time.
const PAGE: usize = 500;

/// Publishes what was and will be taken back, until `stop`.
pub(super) fn publish(
    own: OwnLicences,
    transport: &Arc<NostrServerTransport>,
    relays: &[String],
    stop: &CancellationToken,
) {
    let (transport, stop) = (Arc::clone(transport), stop.clone());
    let mut relays = relays.to_vec();
    relays.sort();
    let place = format!("published to {}", relays.join(" "));
    tokio::spawn(stop.run_until_cancelled_owned(async move {
        loop {
            if let Err(error) = publish_new(&own, &transport, &place).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a revocation could not be published; it is tried again"
                );
            }
            tokio::time::sleep(EVERY).await;
        }
    }));
}

/// Publishes what was taken back since the last time. Twice does no harm: relays keep one event for each licence.
async fn publish_new(
    own: &OwnLicences,
    transport: &NostrServerTransport,
    place: &str,
) -> Result<()> {
    loop {
        let position = own.books.position(place).await?;
        let done: u64 = position.map_or(0, |p| p.cursor.parse().unwrap_or(0));
        let taken = own.books.taken_back(done, PAGE).await?;
        let mut published = done;
        let mut outcome = Ok(());
        for licence in &taken {
            outcome = publish_one(own, transport, licence).await;
            if outcome.is_err() {
                break;
            }
            published = licence.revoked.map_or(published, |(_, nth)| nth);
        }
        if published == done {
            return outcome;
        }
        let position = FeedPosition {
            cursor: published.to_string(),
            read_at: Some(SystemClock.now()),
        };
        own.books.set_position(place, position).await?;
        outcome?;
    }
}

async fn publish_one(
    own: &OwnLicences,
    transport: &NostrServerTransport,
    licence: &IssuedLicence,
) -> Result<()> {
    let Some((at, _)) = licence.revoked else {
        return Ok(());
    };
    let over = licence.expires_at <= SystemClock.now();
    if over || Signed::of(&licence.id) != Signed::Publicly {
        return Ok(());
    }
    let event = own.public.revoke(&licence.id, licence.expires_at, at)?;
    transport.publish_signed(&event).await?;
    tracing::info!(licence = licence.id, "published that it was taken back");
    Ok(())
}
