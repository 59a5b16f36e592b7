//! A wall clock that follows Tokio's time, paused or not, and can be set.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::payment::{Clock, SystemClock, Timestamp};

/// Starts at the present and runs with Tokio's clock, so that paused time pauses it and advancing advances it.
/// [`jump`](Self::jump) moves it alone, as an operator or NTP would.
#[derive(Debug)]
pub struct TestClock {
    started: Instant,
    wall: Timestamp,
    offset_millis: AtomicI64,
}

impl TestClock {
    /// A clock that shows the present.
    #[must_use]
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            wall: SystemClock.now(),
            offset_millis: AtomicI64::new(0),
        }
    }

    /// Sets the clock forward.
    pub fn jump(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.offset_millis.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets the clock back.
    pub fn jump_back(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.offset_millis.fetch_sub(millis, Ordering::SeqCst);
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let at = self.wall.plus(self.started.elapsed()).as_millis();
        Timestamp::from_millis(at.saturating_add_signed(self.offset_millis.load(Ordering::SeqCst)))
    }
}
