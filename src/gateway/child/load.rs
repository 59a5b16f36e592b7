//! How many requests a child has to do, for whoever must choose a child to let go or wait until all is done.

use std::sync::Arc;

use tokio::sync::watch;

/// A count that can be waited for.
#[derive(Debug, Clone)]
pub(super) struct Load(Arc<watch::Sender<usize>>);

impl Load {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    /// One more. Said before the request is handed over, so that its end can not come first.
    pub(super) fn add(&self) {
        self.0.send_modify(|load| *load += 1);
    }

    /// One less.
    pub(super) fn done(&self) {
        self.0.send_modify(|load| *load = load.saturating_sub(1));
    }

    pub(super) fn is_idle(&self) -> bool {
        *self.0.borrow() == 0
    }

    /// Waits until there is nothing to do.
    pub(super) async fn idle(&self) {
        let _ = self.0.subscribe().wait_for(|load| *load == 0).await;
    }
}
