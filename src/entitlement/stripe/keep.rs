//! Rounds that keep the books true whatever was lost: webhooks that wait, use that was not reported, pages and subscriptions
//! that nobody has looked at for long. What is asked of Stripe in a round is bounded, however much is open.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::desk::Desk;
use crate::error::Result;
use crate::ledger::{LATEST_WORD, Purchase, PurchaseFilter, PurchaseState, PurchaseWord};
use crate::payment::{RequestEventId, Timestamp};

/// How often there is a round without a reason.
const EVERY: Duration = Duration::from_secs(15);
/// How soon what failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// How long a page that is open is not looked at.
const PAGE_UNSEEN: Duration = Duration::from_secs(60);
/// How long a purchase that counts, or has stopped counting, is not looked at.
const HELD_UNSEEN: Duration = Duration::from_secs(6 * 3600);
/// How many of each are looked at in a round.
const IN_A_ROUND: usize = 10;
/// How long what stands for no money is kept. Longer than Stripe sends a webhook again (three days), and a meter counts its
/// identifiers.
const KEPT: Duration = Duration::from_secs(35 * 86_400);
/// How often it is forgotten.
const TIDIED_EVERY: u32 = 240;

/// How far the rounds have come among what is open, and among what was bought.
type Places = [Option<(Timestamp, RequestEventId)>; 2];

impl Desk {
    /// Keeps the books true until `stop`. Needed once for each server.
    pub async fn keep(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(self.rounds()).await;
    }

    async fn rounds(self: Arc<Self>) {
        let mut nth: u32 = 0;
        let mut places = Places::default();
        loop {
            let pause = match self.round(nth, &mut places).await {
                Ok(true) => Duration::ZERO,
                Ok(false) => EVERY,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "what Stripe has to be asked or told is tried again"
                    );
                    AGAIN
                }
            };
            nth = nth.wrapping_add(1);
            // A reason that came up while it worked is not lost: the permit is kept.
            let _ = tokio::time::timeout(pause, self.work.notified()).await;
        }
    }

    /// One round. Each part is tried whatever became of the others. Returns whether there may be more to do at once.
    async fn round(self: &Arc<Self>, nth: u32, places: &mut Places) -> Result<bool> {
        let treated = self.treat().await;
        let written = self.write_again().await;
        let reported = self.report().await;
        let looked = self.look_around(places).await;
        if nth.is_multiple_of(TIDIED_EVERY) {
            let before = self.clock.now().minus(KEPT);
            while self.books.forget_purchases(before).await? > 0 {}
        }
        written?;
        looked?;
        Ok(treated? | reported?)
    }

    /// Looks at what has not been looked at for long.
    async fn look_around(&self, places: &mut Places) -> Result<()> {
        let now = self.clock.now();
        let rounds = [
            (vec![PurchaseState::Open], PAGE_UNSEEN),
            (
                vec![PurchaseState::Held, PurchaseState::Lapsed],
                HELD_UNSEEN,
            ),
        ];
        let mut failed = None;
        for ((states, unseen), place) in rounds.into_iter().zip(places) {
            let mut filter = PurchaseFilter::new(states, IN_A_ROUND);
            filter.seen_before = Some(now.minus(unseen));
            filter.or_after = Some(now.plus(LATEST_WORD));
            filter.after = *place;
            let page = self.books.purchases(&filter).await?;
            // On from there next time, and from the beginning after the end: what cannot be told of one purchase must not
            // keep the others from being looked at.
            *place = page
                .last()
                .filter(|_| page.len() == IN_A_ROUND)
                .map(|last| (last.made_at, last.id));
            for purchase in page {
                let looked = self.look_at_one(&purchase).await;
                failed = looked.err().or(failed);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    async fn look_at_one(&self, purchase: &Purchase) -> Result<()> {
        let now = self.clock.now();
        if purchase.session.is_none() {
            if purchase.state == PurchaseState::Open && !purchase.is_payable(now) {
                let word = PurchaseWord::new(PurchaseState::Lapsed, "never made", now);
                self.learn(purchase, word).await?;
            }
            return Ok(());
        }
        let ended_unpaid = purchase.state == PurchaseState::Lapsed
            && purchase.subscription.is_none()
            && purchase.payment.is_none();
        match self.plan_of(purchase) {
            Some(plan) if !ended_unpaid => Ok(self.look_at(purchase, plan).await.map(drop)?),
            _ => Ok(()),
        }
    }
}
