//! How fast one client may ask for new offers: a token bucket for each key, in front of the processor (N-125).
//!
//! Caps on open offers bound what is outstanding; this bounds the pace, so that a client that lets every offer expire, or
//! varies its params, cannot keep a wallet busy.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::payment::{ClientPubkey, Timestamp};

/// The most buckets. A full bucket says nothing, so those are dropped first; beyond that, strangers share one.
const MOST: usize = 50_000;

#[derive(Debug, Default)]
pub(super) struct Pace {
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    of_client: HashMap<ClientPubkey, Bucket>,
    of_strangers: Option<Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Thousandths of an offer.
    tokens: u64,
    filled_at: Timestamp,
}

impl Bucket {
    fn take(&mut self, per_minute: u32, now: Timestamp) -> bool {
        let most = u64::from(per_minute) * 1000;
        // per_minute offers a minute are per_minute / 60 thousandths a millisecond.
        let refill =
            now.as_millis().saturating_sub(self.filled_at.as_millis()) * u64::from(per_minute) / 60;
        if refill > 0 {
            self.tokens = self.tokens.saturating_add(refill).min(most);
            self.filled_at = now;
        }
        let has_one = self.tokens >= 1000;
        if has_one {
            self.tokens -= 1000;
        }
        has_one
    }
}

impl Pace {
    /// Whether `client` may have another offer now, at `per_minute` and as many at once.
    pub(super) fn allows(&self, client: ClientPubkey, per_minute: u32, now: Timestamp) -> bool {
        let full = Bucket {
            tokens: u64::from(per_minute) * 1000,
            filled_at: now,
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.of_client.len() >= MOST && !buckets.of_client.contains_key(&client) {
            // A bucket that was not touched for a minute is full again.
            buckets.of_client.retain(|_, bucket| {
                now.as_millis().saturating_sub(bucket.filled_at.as_millis()) < 60_000
            });
            if buckets.of_client.len() >= MOST {
                return buckets
                    .of_strangers
                    .get_or_insert(full)
                    .take(per_minute, now);
            }
        }
        buckets
            .of_client
            .entry(client)
            .or_insert(full)
            .take(per_minute, now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_the_pace_counts() {
        let pace = Pace::default();
        let client = ClientPubkey::from_bytes([1; 32]);
        let mut now = Timestamp::from_secs(1000);
        let allowed = (0..100).filter(|_| pace.allows(client, 60, now)).count();
        assert_eq!(allowed, 60);
        now = now.plus(Duration::from_millis(2500));
        let allowed = (0..100).filter(|_| pace.allows(client, 60, now)).count();
        assert_eq!(allowed, 2);
        assert!(
            pace.allows(ClientPubkey::from_bytes([2; 32]), 60, now),
            "others are not slowed down"
        );
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing_away() {
        let pace = Pace::default();
        let client = ClientPubkey::from_bytes([1; 32]);
        let now = Timestamp::from_secs(10_000);
        while pace.allows(client, 10, now) {}
        assert!(!pace.allows(client, 10, Timestamp::from_secs(1)));
    }
}
