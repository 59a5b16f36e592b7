//! What a restart finds in the ledger, and what becomes of it.
//!
//! | found | because the process ended | becomes |
//! |---|---|---|
//! | `Quoted` | before a payment request was on the books; nothing has left | `Abandoned` |
//! | `Issued`, its request waiting, the offer standing | before the money came | watched, and served when it comes |
//! | `Issued` or `Expired`, watched | at any time | watched until its grace is over |
//! | `Settled`, its request waiting | between settlement and forward | forwarded if the client can still be waiting, else an authorization |
//! | `Claimed` | while the handler worked, or before its answer was kept | restored: an authorization |

use std::sync::Arc;
use std::time::Duration;

use super::Gate;
use super::demand::offer_ends;
use crate::error::Result;
use crate::ledger::{Applied, Entry, EntryFilter, EntryState, Transition};
use crate::transport::{Inbound, Origin, ReplyTo};
use crate::wire::Message;

/// How many rows are read at a time.
const PAGE: usize = 500;

/// Offers that ended are asked about once at a start, however old: they may have been paid while nobody looked. At this
/// pace they take a twentieth of the look-ups, so that younger ones do not wait behind years of them.
const FORMER_OFFERS_EVERY: Duration = Duration::from_secs(1);

impl Gate {
    /// Resolves every unfinished entry. Must end before new work is taken; the handler must be taking calls meanwhile,
    /// because paid ones are forwarded.
    ///
    /// # Errors
    ///
    /// When the ledger cannot be read or written: a gate that cannot keep books must not let anything in.
    pub async fn recover(self: &Arc<Self>) -> Result<()> {
        if let Some(instances) = self.ledger.instances() {
            // The entries of the living are theirs.
            instances.join().await?;
            return self.take_over().await;
        }
        self.remember_let_in().await?;
        let states = [
            EntryState::Quoted,
            EntryState::Issued,
            EntryState::Settled,
            EntryState::Claimed,
            EntryState::Expired,
        ];
        let mut filter = EntryFilter::new(states.to_vec(), PAGE);
        let (mut recovered, mut former) = (0usize, 0u32);
        loop {
            let page = self.ledger.list(&filter).await?;
            let Some(last) = page.last() else { break };
            filter = filter.after(last);
            for entry in page {
                recovered += 1;
                self.recover_one(entry, &mut former).await?;
            }
        }
        if recovered > 0 {
            tracing::info!(entries = recovered, "recovered the ledger");
        }
        Ok(())
    }

    /// Resolves an entry that nobody looks after. `former` counts the offers among them that have ended.
    pub(super) async fn recover_one(
        self: &Arc<Self>,
        entry: Entry,
        former: &mut u32,
    ) -> Result<()> {
        if entry.state != EntryState::Expired {
            return self.recover_entry(entry).await;
        }
        let first_lookup = FORMER_OFFERS_EVERY * *former;
        self.watcher.watch_after(&entry, Some(first_lookup)).await;
        *former = former.saturating_add(1);
        Ok(())
    }

    async fn recover_entry(self: &Arc<Self>, entry: Entry) -> Result<()> {
        let now = self.clock.now();
        match entry.state {
            EntryState::Quoted => {
                let reason = "the process ended before a payment request was made".to_owned();
                self.ledger
                    .apply(&entry.id, vec![Transition::Abandon { reason }], now)
                    .await?;
            }
            EntryState::Issued => {
                if let Some(inbound) = self.waiting_request(&entry) {
                    self.waiting.put_back(entry.id, inbound);
                }
                self.watcher.watch(&entry).await;
            }
            EntryState::Settled if entry.waiting => self.recover_settled(entry).await?,
            EntryState::Claimed => {
                self.restore(&entry.id, "the process ended while it was executed")
                    .await
            }
            _ => {}
        }
        Ok(())
    }

    async fn recover_settled(self: &Arc<Self>, entry: Entry) -> Result<()> {
        let now = self.clock.now();
        let Some(inbound) = self.waiting_request(&entry) else {
            let reason = "its request no longer waits".to_owned();
            self.ledger
                .apply(&entry.id, vec![Transition::Detach { reason }], now)
                .await?;
            return Ok(());
        };
        let serve = vec![Transition::Serve];
        if let Applied::Moved(entry) = self.ledger.apply(&entry.id, serve, now).await? {
            let gate = Arc::clone(self);
            self.in_a_task(Box::pin(async move { gate.serve(&entry, inbound).await }))
                .await;
        }
        Ok(())
    }

    /// The request of `entry` from the books, if its client can still be waiting for it.
    fn waiting_request(&self, entry: &Entry) -> Option<Inbound> {
        if !entry.waiting
            || offer_ends(entry).plus(self.settings.settlement_grace) <= self.clock.now()
        {
            return None;
        }
        let message = Message::parse(entry.request.as_deref()?).ok()?;
        let mut origin = Origin::new(entry.client, entry.id, entry.quoted_at);
        origin.reply_to = ReplyTo::new(entry.client, entry.id, entry.route.clone());
        Some(Inbound::new(message, origin))
    }
}
