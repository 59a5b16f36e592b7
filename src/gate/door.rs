//! The order at the door.
//!
//! Not priced: forwarded. A notification of a priced method: dropped. A priced request: this event has an entry → its
//! current state again; it proves a payment → claimed and forwarded; an entitlement covers it → forwarded; an authorization
//! → claimed and forwarded; an earlier payment that may have been made → to be asked again; else a price is named.

use std::pin::Pin;
use std::sync::Arc;

use super::Gate;
use super::claim::PaidBefore;
use super::journal::is_fresh;
use super::match_price::{PriceMatch, match_price};
use super::negotiate::Negotiated;
use super::presented::Shown;
use crate::error::Result;
use crate::ledger::{Caller, Taken};
use crate::payment::{Invocation, PriceDecision, PricedCapability, Quote, Refusal};
use crate::transport::{Inbound, Origin};
use crate::wire::mpp::{Problem, take_credential};
use crate::wire::{
    ErrorObject, INVALID_PARAMS_CODE, INVALID_REQUEST_CODE, Message, Notification, Request,
    RequestId, SERVER_ERROR_CODE, method, take_tokens,
};

/// Something to do beside the door. Boxed where it is made: handed from function to function, and through the stages of a task,
/// it would be copied as a whole each time, and it is as large as all that may still happen to a request.
pub(super) type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A priced request at the door, with everything that is known about it.
///
/// It is boxed on its way: each stage would otherwise keep room for it in the future of every stage before, and all of that is
/// copied several times before a request is looked at.
#[derive(Debug)]
pub(super) struct Knock {
    pub(super) request: Request,
    pub(super) origin: Origin,
    pub(super) negotiated: Negotiated,
    pub(super) listed: Arc<PricedCapability>,
    pub(super) invocation: Box<Invocation>,
    /// What it presented, as far as nobody has looked at it yet.
    pub(super) shown: Shown,
    /// A charge for the same call by the same client is not decided.
    pub(super) charging: bool,
    /// Why it is not for sale to this client, if it is not.
    pub(super) refusal: Option<Refusal>,
    /// It was here before, whatever came of it.
    pub(super) known: bool,
    /// It was answered before, and not just now: somebody may be replaying it, so it does not touch what a newer request
    /// has paid for (D-12).
    pub(super) replayed: bool,
}

impl Knock {
    /// The same, offered the call after a credential that nothing was paid for.
    pub(super) fn after(mut self: Box<Self>, problem: Problem) -> Box<Self> {
        self.negotiated.failed = Some(problem);
        self
    }

    pub(super) fn caller(&self) -> Caller {
        Caller::new(
            self.origin.client,
            self.origin.event,
            self.invocation.identity,
        )
    }
}

impl Gate {
    /// Takes one message in. Returns when the next one may come: a request that has to wait for anything waits in a task
    /// of its own.
    pub async fn enter(self: &Arc<Self>, inbound: Inbound) {
        let Inbound { message, origin } = inbound;
        match message {
            Message::Request(request) => self.enter_request(request, origin).await,
            Message::Notification(notification) => {
                self.enter_notification(notification, origin).await
            }
            // This transport carries no requests from server to client, so there is nothing to answer (T-16).
            Message::Response(_) => {}
        }
    }

    async fn enter_notification(
        self: &Arc<Self>,
        mut notification: Notification,
        mut origin: Origin,
    ) {
        // A licence is not for the handler, nor is a proof of payment.
        (notification.params, _) = take_tokens(notification.params);
        (notification.params, _) = take_credential(notification.params);
        origin.tokens.clear();
        origin.direct_payments.clear();
        if self.prices.prices_method(&notification.method) {
            tracing::debug!(
                client_pubkey = origin.client.short(),
                "dropped a priced method sent as notification"
            );
            return;
        }
        if !is_fresh(origin.created_at, self.clock.now()) || !self.first_time(&origin) {
            return;
        }
        if notification.method == method::CANCELLED && self.cancel(&notification, &origin).await {
            return;
        }
        self.hand_over(Inbound::new(notification.into(), origin))
            .await;
    }

    async fn enter_request(self: &Arc<Self>, mut request: Request, mut origin: Origin) {
        let now = self.clock.now();
        let shown = self.presented.take(&mut request, &mut origin, now);
        let mut negotiated =
            self.modes
                .negotiate(self.settings.interaction, &request.method, &origin, now);
        self.negotiate_challenges(&mut negotiated, &request, &origin);
        match match_price(&self.prices, &request, &origin) {
            PriceMatch::Free if !is_fresh(origin.created_at, now) => {
                self.refuse_stale(request, origin).await
            }
            PriceMatch::Free if self.is_shared() => {
                self.enter_free_shared(request, origin, negotiated).await;
            }
            PriceMatch::Free => {
                if self.first_time(&origin) {
                    self.forward(request, origin, negotiated, None).await;
                } else if origin.answers_only {
                    let gate = Arc::clone(self);
                    self.in_a_task(Box::pin(async move {
                        gate.refuse_repeated(&request.id, &origin).await
                    }))
                    .await;
                }
            }
            PriceMatch::Refused(why) => self.turn_away(request, origin, why).await,
            PriceMatch::Priced { listed, .. } if listed.confidential && !origin.confidential => {
                let why = "this is only sold over an encrypted connection";
                self.turn_away(request, origin, why).await;
            }
            PriceMatch::Priced { listed, .. } if !listed.waivable && origin.bearer => {
                let why = "what is bought here is kept for its buyer, and nobody vouches for who you are: show a secret of your \
                           own with each request (Authorization: Bearer …, at least 16 characters)";
                self.turn_away(request, origin, why).await;
            }
            PriceMatch::Priced { listed, invocation } => {
                let knock = Box::new(Knock {
                    request,
                    origin,
                    negotiated,
                    listed,
                    invocation,
                    shown,
                    charging: false,
                    refusal: None,
                    known: false,
                    replayed: false,
                });
                self.let_knock(knock).await;
            }
        }
    }

    /// Answers a request that is not sold as it is, and says why.
    async fn turn_away(
        self: &Arc<Self>,
        request: Request,
        origin: Origin,
        why: impl Into<String> + Send,
    ) {
        let error = ErrorObject::new(INVALID_PARAMS_CODE, why);
        let gate = Arc::clone(self);
        self.answer_if_ours(
            origin.event,
            Box::pin(async move {
                gate.answer_error(&request.id, &origin.reply_to, &error)
                    .await;
            }),
        )
        .await;
    }

    /// Deals with a priced request in a task of its own.
    async fn let_knock(self: &Arc<Self>, knock: Box<Knock>) {
        // Before the next message is taken in: it may be the cancellation.
        let event = knock.origin.event;
        self.waiting
            .enter(event, knock.origin.client, &knock.request.id);
        // A copy that had to wait for the ledger would be evaluated after the answer to the other one.
        let is_copy = self.is_shared() && self.waiting.is_beside_another(&event);
        let gate = Arc::clone(self);
        self.in_a_task(Box::pin(async move {
            if !is_copy {
                gate.enter_priced(knock).await;
            }
            gate.waiting.leave(&event);
        }))
        .await;
    }

    async fn enter_priced(self: &Arc<Self>, knock: Box<Knock>) {
        let (id, origin) = (knock.request.id.clone(), knock.origin.clone());
        let Some(taken) = self.take(origin.event).await else {
            return;
        };
        if let Err(error) = self.admit(knock, taken).await {
            // Whatever failed, it failed closed: nothing was forwarded, and what was charged is in the ledger.
            tracing::error!(
                request_event_id = %origin.event, client_pubkey = origin.client.short(),
                error = &error as &dyn std::error::Error, "a priced request could not be handled"
            );
            if self.may_refuse() {
                self.answer_unavailable(&id, &origin.reply_to).await;
            }
        }
    }

    async fn admit(self: &Arc<Self>, mut knock: Box<Knock>, taken: Taken) -> Result<()> {
        let standing = self.ledger.standing(&knock.caller()).await?;
        if let Some(entry) = standing.of_event {
            return Box::pin(self.resume(knock, entry)).await;
        }
        if !is_fresh(knock.origin.created_at, self.clock.now()) {
            // Here, not in one more task: tasks that wait for each other's places would wait for ever.
            self.answer_error(&knock.request.id, &knock.origin.reply_to, &stale())
                .await;
            return Ok(());
        }
        if knock.negotiated.refused {
            self.refuse_interaction(&knock).await;
            return Ok(());
        }
        if !self.check_call(&knock).await? {
            return Ok(());
        }
        let first = self
            .knocked
            .first_time(knock.origin.event, self.clock.now());
        let known = standing.answered || !first || taken == Taken::Inherited;
        knock.known = known;
        knock.replayed = known && !self.is_a_retry(&knock);
        let Some(knock) = Box::pin(self.present(knock)).await? else {
            return Ok(());
        };
        let Some(mut knock) = Box::pin(self.waive(knock, standing.answered)).await? else {
            return Ok(());
        };
        match Box::pin(self.claim(&knock, &standing.of_identity)).await? {
            PaidBefore::Authorization(entry) => return self.forward_claimed(knock, *entry).await,
            PaidBefore::Withheld => return Box::pin(self.refuse_replay(knock)).await,
            PaidBefore::Unsettled(entry) => {
                return Box::pin(self.refuse_unsettled(&knock, &entry)).await;
            }
            PaidBefore::Nothing => {}
        }
        knock.charging = self.has_charge(&standing);
        if let Some(refusal) = &knock.refusal {
            return Box::pin(self.refuse_call(&knock, refusal)).await;
        }
        if !knock.listed.by_call {
            let refusal = Refusal::new(SERVER_ERROR_CODE, "Not for sale by the call");
            return Box::pin(self.refuse_call(&knock, &refusal)).await;
        }
        self.name_price(knock).await
    }

    /// Nothing lets it through but money, or the hook.
    async fn name_price(self: &Arc<Self>, knock: Box<Knock>) -> Result<()> {
        match self.resolve_price(&knock).await {
            Ok(PriceDecision::Quote(quote)) => Box::pin(self.ask_to_pay(knock, quote)).await,
            Ok(PriceDecision::Waive) => Box::pin(self.let_in_waived(knock)).await,
            Ok(PriceDecision::Reject { message }) => {
                self.ledger
                    .note_answered(&knock.origin.event, self.clock.now())
                    .await?;
                Box::pin(self.refuse_by_policy(&knock, message)).await;
                Ok(())
            }
            Err(error) => {
                tracing::error!(
                    request_event_id = %knock.origin.event, capability = %knock.listed.capability,
                    error = &error as &dyn std::error::Error, "no price could be resolved"
                );
                self.refuse_failed(&knock, None).await;
                Ok(())
            }
        }
    }

    /// It costs `quote`: from the account, by what came along, or by an offer.
    async fn ask_to_pay(self: &Arc<Self>, mut knock: Box<Knock>, mut quote: Quote) -> Result<()> {
        knock.charging = self.is_charging(&knock).await?;
        if !knock.charging {
            match Box::pin(self.draw(knock, quote)).await? {
                Some(unpaid) => (knock, quote) = unpaid,
                None => return Ok(()),
            }
        }
        if !knock.shown.direct.is_empty() {
            match Box::pin(self.redeem(knock, quote)).await? {
                Some(unpaid) => (knock, quote) = unpaid,
                None => return Ok(()),
            }
        }
        if knock.charging {
            // It may be paid for already: an offer might make somebody pay twice.
            let undecided = self.answer_undecided::<()>(&knock, Problem::Unsettled);
            return undecided.await.map(drop);
        }
        Box::pin(self.quote(knock, quote)).await
    }

    /// Lets a call in that the price hook waives, once.
    async fn let_in_waived(self: &Arc<Self>, knock: Box<Knock>) -> Result<()> {
        let event = knock.origin.event;
        if self.ledger.note_answered(&event, self.clock.now()).await?
            && self.first_time(&knock.origin)
        {
            let Knock {
                request, origin, ..
            } = *knock;
            self.forward(request, origin, knock.negotiated, None).await;
        } else {
            self.refuse_repeated(&knock.request.id, &knock.origin).await;
        }
        Ok(())
    }

    fn first_time(&self, origin: &Origin) -> bool {
        let now = self.clock.now();
        let first = self.journal.first_time(origin.event, now);
        if first && !self.is_shared() {
            self.scribe.note(origin.event, now);
        }
        first
    }

    /// Says that a request was answered before, where its client cannot have that answer any more but by asking anew. Over relays a
    /// repetition may be anybody's, and is passed over in silence.
    pub(super) async fn refuse_repeated(&self, id: &RequestId, origin: &Origin) {
        if !origin.answers_only {
            return;
        }
        let text = "this request was answered before, and nothing was paid for it; use a new id";
        let error = ErrorObject::new(INVALID_REQUEST_CODE, text);
        self.answer_error(id, &origin.reply_to, &error).await;
    }

    async fn refuse_stale(self: &Arc<Self>, request: Request, origin: Origin) {
        let gate = Arc::clone(self);
        self.answer_if_ours(
            origin.event,
            Box::pin(async move {
                gate.answer_error(&request.id, &origin.reply_to, &stale())
                    .await;
            }),
        )
        .await;
    }

    /// Refuses a request that was answered before and would now use up what a newer one has paid for; unless it only looks like
    /// one because another copy of it is a step ahead, and is claiming that payment for this very event.
    pub(super) async fn refuse_replay(self: &Arc<Self>, knock: Box<Knock>) -> Result<()> {
        if self.waiting.is_beside_another(&knock.origin.event) {
            // The other one answers.
            return Ok(());
        }
        // Read behind that: what a copy that has left has claimed is on the books.
        if let Some(entry) = self.ledger.standing(&knock.caller()).await?.of_event {
            return Box::pin(self.resume(knock, entry)).await;
        }
        let text = "this request was answered before; to use your payment, send the same call as a new request";
        let error = ErrorObject::new(INVALID_REQUEST_CODE, text);
        self.answer_error(&knock.request.id, &knock.origin.reply_to, &error)
            .await;
        Ok(())
    }

    /// Runs `work` beside the door. Waits while too much is being looked at already, which holds the transport back.
    pub(super) async fn in_a_task(self: &Arc<Self>, work: Work) {
        let permit = tokio::select! {
            permit = Arc::clone(&self.admission).acquire_owned() => permit,
            () = self.closing.cancelled() => return,
        };
        self.tasks.spawn(async move {
            work.await;
            drop(permit);
        });
    }
}

fn stale() -> ErrorObject {
    let text = "the request's created_at is more than 10 minutes off the server's clock";
    ErrorObject::new(INVALID_REQUEST_CODE, text)
}
