//! Webhooks: written down first, answered, and acted upon then. What they point at is looked at; what they say is not believed.

use std::sync::Arc;

use super::desk::{Desk, Trouble};
use crate::error::{Error, Result};
use crate::ledger::{Purchase, PurchaseName, PurchaseState, PurchaseWord, RailNotice};
use crate::payment::RequestEventId;
use crate::rails::stripe::{About, WebhookEvent};

/// How many notices are acted upon in one round.
const ROUND: usize = 64;
/// How many at once.
const AT_ONCE: usize = 8;

impl Desk {
    /// Writes `event` down, to be acted upon. Whoever sent it may be told that it was received.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Ledger`](crate::ErrorKind::Ledger) if it could not be written: then it must be sent again.
    pub async fn take_in(&self, event: WebhookEvent) -> Result<()> {
        if event.live != self.client.is_live() {
            tracing::warn!(
                event = event.id,
                kind = event.kind,
                "a webhook of the other mode (test or live) is passed over"
            );
            return Ok(());
        }
        let notice = RailNotice {
            id: event.id,
            kind: event.kind,
            object: event.about.to_word(),
            at: self.clock.now(),
        };
        let (id, kind) = (notice.id.clone(), notice.kind.clone());
        if self.books.take_in(notice).await? {
            tracing::debug!(event = id, kind, "a webhook was taken in");
            self.work.notify_one();
        }
        Ok(())
    }

    /// Acts upon what was taken in. Returns whether there may be more; an error if some have to be tried again.
    pub(super) async fn treat(self: &Arc<Self>) -> Result<bool> {
        let waiting = self.books.untreated(ROUND).await?;
        let more = waiting.len() == ROUND;
        let mut failed = None;
        let mut treating = tokio::task::JoinSet::new();
        let mut waiting = waiting.into_iter();
        loop {
            while treating.len() < AT_ONCE
                && let Some(notice) = waiting.next()
            {
                let desk = Arc::clone(self);
                treating.spawn(async move { desk.treat_one(&notice).await });
            }
            match treating.join_next().await {
                None => break,
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => failed = Some(error),
                Some(Err(_)) => failed = Some(Error::ledger("acting upon a webhook panicked")),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(more),
        }
    }

    async fn treat_one(&self, notice: &RailNotice) -> Result<()> {
        let done = match About::from_word(&notice.object) {
            Some(About::Session(id)) => self.about_session(&id).await,
            Some(About::Subscription(id)) => self.about_subscription(&id).await,
            Some(About::Payment(id)) => self.about_payment(&id).await,
            None => Ok(()),
        };
        match done {
            Ok(()) => {}
            Err(Trouble::Stripe(error)) if error.may_pass() || error.is_about_the_key() => {
                return Err(error.into());
            }
            // Asking again would not help: there is nothing of that name, or it is not what it should be.
            Err(Trouble::Stripe(error)) => tracing::warn!(
                event = notice.id,
                kind = notice.kind,
                error = &error as &dyn std::error::Error,
                "a webhook came to nothing"
            ),
            Err(Trouble::Ours(error)) => return Err(error),
        }
        self.books.treated(&notice.id).await
    }

    async fn about_session(&self, id: &str) -> Result<(), Trouble> {
        match self
            .books
            .purchase(&PurchaseName::Session(id.to_owned()))
            .await?
        {
            Some(purchase) => self.look_again(&purchase).await,
            // The page of a single call, if it is one of ours: the gate looks it up, if it knows it.
            None => {
                if let Some(hints) = &self.hints {
                    hints.may_be_paid(id);
                }
                Ok(())
            }
        }
    }

    async fn about_subscription(&self, id: &str) -> Result<(), Trouble> {
        let name = PurchaseName::Subscription(id.to_owned());
        let known = self.books.purchase(&name).await?;
        let purchase = match known {
            Some(purchase) => Some(purchase),
            None => {
                self.said_to_be(self.client.subscription(id).await?.0)
                    .await?
            }
        };
        match purchase {
            Some(purchase) => self.look_again(&purchase).await,
            None => Ok(()),
        }
    }

    /// A payment was given back, or is wanted back, or was not after all.
    async fn about_payment(&self, id: &str) -> Result<(), Trouble> {
        let name = PurchaseName::Payment(id.to_owned());
        if let Some(purchase) = self.books.purchase(&name).await? {
            return self.look_again(&purchase).await;
        }
        if let Some((subscription, invoice)) = self.client.subscription_paid_by(id).await? {
            return self.about_period(id, &subscription, &invoice).await;
        }
        if let Some(session) = self.client.page_paid_by(id).await? {
            let name = PurchaseName::Session(session);
            if let Some(purchase) = self.books.purchase(&name).await? {
                return self.look_again(&purchase).await;
            }
        }
        // A shared payment token was charged without a page.
        let payment = self.client.payment(id).await?;
        if let (Some(order), Some(how)) = (payment.order, payment.taken_back) {
            self.withdraw(&order, how).await?;
        }
        Ok(())
    }

    /// The payment of one period of a subscription. If it was given back, what is left of that period goes; a period that is
    /// paid for later counts again, because Stripe goes on charging.
    async fn about_period(
        &self,
        payment: &str,
        subscription: &str,
        invoice: &str,
    ) -> Result<(), Trouble> {
        let (said, latest) = self.client.subscription(subscription).await?;
        let name = PurchaseName::Subscription(subscription.to_owned());
        let known = self.books.purchase(&name).await?;
        let purchase = match known {
            Some(purchase) => Some(purchase),
            None => self.said_to_be(said).await?,
        };
        let Some((purchase, plan)) = purchase.as_ref().and_then(|p| Some((p, self.plan_of(p)?)))
        else {
            return Ok(());
        };
        let purchase = self.look_at(purchase, plan).await?;
        if latest.as_deref() != Some(invoice) || purchase.state != PurchaseState::Held {
            return Ok(());
        }
        let asked_at = self.clock.now();
        if let Some(how) = self.client.payment(payment).await?.taken_back {
            let mut word = PurchaseWord::new(PurchaseState::Lapsed, how, asked_at);
            word.withdrawn_until = purchase.held_until.or(Some(asked_at));
            self.learn(&purchase, word).await?;
        }
        Ok(())
    }

    /// The purchase that something of Stripe's says it is of. Looking at it finds out whether that is so.
    async fn said_to_be(&self, id: Option<String>) -> Result<Option<Purchase>, Trouble> {
        match id.and_then(|id| id.parse::<RequestEventId>().ok()) {
            Some(id) => Ok(self.books.purchase(&PurchaseName::Id(id)).await?),
            None => Ok(None),
        }
    }

    async fn look_again(&self, purchase: &Purchase) -> Result<(), Trouble> {
        let Some(plan) = self.plan_of(purchase) else {
            tracing::warn!(
                purchase = %purchase.id, plan = purchase.plan,
                "a webhook is about a plan that is not sold any more; it is passed over"
            );
            return Ok(());
        };
        self.look_at(purchase, plan).await.map(drop)
    }
}
