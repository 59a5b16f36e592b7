//! How fast one client may call what is priced: a token bucket for each key.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::json;

use super::NOT_ALLOWED_CODE;
use crate::error::{Error, Result};
use crate::payment::{ClientPubkey, Entitled, Entitlement, EntitlementClaim, Refusal, Timestamp};

/// The most buckets. Beyond that, those who are not known yet share one: a stranger with many keys slows himself down.
const MOST: usize = 50_000;

/// Thousandths of a call in a call.
const CALL: u64 = 1000;

/// Refuses calls that come faster than a client may call, paid for or not. It covers nothing, and stands first.
pub struct ClientPace {
    per_minute: u64,
    burst: u64,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    of_client: HashMap<ClientPubkey, Bucket>,
    of_strangers: Option<Bucket>,
}

#[derive(Clone, Copy)]
struct Bucket {
    /// Thousandths of a call.
    level: u64,
    filled_at: Timestamp,
}

impl ClientPace {
    /// `per_minute` calls a minute, and `burst` at once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for numbers that let nothing through.
    pub fn new(per_minute: u32, burst: u32) -> Result<Self> {
        if per_minute == 0 || burst == 0 {
            return Err(Error::config(
                "the pace of a client must be at least 1 a minute and 1 at once",
            ));
        }
        Ok(Self {
            per_minute: per_minute.into(),
            burst: burst.into(),
            buckets: Mutex::default(),
        })
    }

    /// Takes one call; the seconds to wait otherwise.
    fn take(&self, client: ClientPubkey, now: Timestamp) -> Result<(), u64> {
        let full = Bucket {
            level: self.burst * CALL,
            filled_at: now,
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.of_client.len() >= MOST && !buckets.of_client.contains_key(&client) {
            // A full bucket says nothing that a new one would not say.
            buckets
                .of_client
                .retain(|_, bucket| self.refilled(*bucket, now).level < full.level);
            if buckets.of_client.len() >= MOST {
                let shared = buckets.of_strangers.get_or_insert(full);
                return self.take_from(shared, now);
            }
        }
        self.take_from(buckets.of_client.entry(client).or_insert(full), now)
    }

    fn take_from(&self, bucket: &mut Bucket, now: Timestamp) -> Result<(), u64> {
        *bucket = self.refilled(*bucket, now);
        if bucket.level >= CALL {
            bucket.level -= CALL;
            return Ok(());
        }
        Err((CALL - bucket.level)
            .saturating_mul(60)
            .div_ceil(self.per_minute * CALL))
    }

    /// The bucket at `now`. A clock that goes back fills nothing.
    fn refilled(&self, bucket: Bucket, now: Timestamp) -> Bucket {
        let passed = now.as_millis().saturating_sub(bucket.filled_at.as_millis());
        // per_minute calls a minute are per_minute / 60 thousandths a millisecond.
        let refill = passed.saturating_mul(self.per_minute) / 60;
        if refill == 0 {
            return bucket;
        }
        Bucket {
            level: bucket.level.saturating_add(refill).min(self.burst * CALL),
            filled_at: now,
        }
    }
}

#[async_trait]
impl Entitlement for ClientPace {
    fn name(&self) -> &str {
        "pace"
    }

    async fn examine(&self, claim: &EntitlementClaim) -> Entitled {
        match self.take(claim.invocation.client, claim.at) {
            Ok(()) => Entitled::NotCovered(None),
            Err(secs) => Entitled::Refused(
                Refusal::new(NOT_ALLOWED_CODE, "Too many calls, retry later")
                    .with_data(json!({ "retry_after": secs.max(1) })),
            ),
        }
    }
}

impl fmt::Debug for ClientPace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientPace")
            .field("per_minute", &self.per_minute)
            .field("burst", &self.burst)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(10_000);

    fn client(n: u32) -> ClientPubkey {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        ClientPubkey::from_bytes(key)
    }

    #[test]
    fn a_burst_passes_and_then_the_pace_counts() {
        let pace = ClientPace::new(60, 5).unwrap();
        let passed = |now| {
            (0..20)
                .filter(|_| pace.take(client(1), now).is_ok())
                .count()
        };
        assert_eq!(passed(NOW), 5);
        assert_eq!(pace.take(client(1), NOW), Err(1));
        assert_eq!(passed(NOW.plus(Duration::from_secs(3))), 3);
        assert_eq!(passed(Timestamp::from_secs(1)), 0, "a clock that goes back");
        assert_eq!(passed(NOW.plus(Duration::from_secs(3600))), 5);
        assert!(pace.take(client(2), NOW).is_ok(), "others are not slowed");
    }

    #[test]
    fn strangers_cannot_make_it_grow_and_do_not_push_anybody_out() {
        let pace = ClientPace::new(1, 1).unwrap();
        assert!(pace.take(client(0), NOW).is_ok());
        for n in 1..MOST as u32 + 100 {
            let _ = pace.take(client(n), NOW);
        }
        assert!(pace.buckets.lock().unwrap().of_client.len() <= MOST);
        assert!(pace.take(client(0), NOW).is_err());
    }

    #[test]
    fn nothing_is_not_a_pace() {
        assert!(ClientPace::new(0, 1).is_err() && ClientPace::new(1, 0).is_err());
    }
}
