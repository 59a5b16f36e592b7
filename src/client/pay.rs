//! A demand for money: checked, held against the policy, written down, paid. One request is paid for once, whatever the
//! server sends (N-133).

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ask::PaymentQuestion;
use super::budget::Reservation;
use super::calls::{CallId, Payment, Phase};
use super::channel::Shared;
use super::check::check;
use super::event::{DeclineReason, PaymentEvent};
use super::ledger::{AttemptId, AttemptState, NewAttempt, Settled};
use super::policy::{Case, Facts};
use super::{decline, keep_alive, owed, resolve, wallet};
use crate::payment::{
    Amount, BearerToken, InvocationIdentity, PaymentHandler, PaymentInteraction, PaymentRequest,
    RequestEventId,
};
use crate::wire::{ENTITLEMENTS_KEY, PaymentRequiredParams};

/// How long a call is waited for once it is asked to pay and the server does not say how long its offer stands.
const DEFAULT_TTL: Duration = Duration::from_secs(300);

/// What whoever waits for a call is given beyond what it waits for.
const SLACK: Duration = Duration::from_secs(10);

/// How often it is looked whether the same call elsewhere has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The server asks for money for the request `event` of the open call `id`, transparently. `None`: in a way that cannot be
/// read.
///
/// The first demand closes the door: every further one for the same call, with whatever amount or `pay_req`, is ignored.
pub(super) fn demanded(
    shared: &Arc<Shared>,
    id: CallId,
    event: RequestEventId,
    params: Option<PaymentRequiredParams>,
    signed: String,
) {
    let first = shared.calls.with(id, |call| {
        call.current == event
            && call.payment.send_if_modified(|payment| {
                let first = payment.phase == Phase::None;
                if first {
                    payment.phase = Phase::Checking;
                }
                first
            })
    });
    if first != Some(true) {
        tracing::debug!(request_event_id = %event, "ignored a further demand for the same call");
        return;
    }
    let shared = Arc::clone(shared);
    // The wallet may take minutes; other messages must not wait for it.
    tokio::spawn(async move {
        let Some(paying) = Paying::of(&shared, id, params, signed) else {
            return;
        };
        if shared.payments.interaction == Some(PaymentInteraction::ExplicitGating) {
            paying.tell_required(&shared);
            return paying.decline(&shared, &DeclineReason::NotExplicit).await;
        }
        let Err(reason) = decide_and_pay(&shared, &paying).await else {
            return;
        };
        if let DeclineReason::MaxPayments { last, .. } = &reason
            && owed::fetch(&shared, &paying, last).await
        {
            return;
        }
        paying.decline(&shared, &reason).await;
    });
}

/// A call that is being paid for. It may end meanwhile; the payment does not.
pub(super) struct Paying {
    pub(super) id: CallId,
    pub(super) event: RequestEventId,
    pub(super) ended: CancellationToken,
    first: RequestEventId,
    identity: Option<InvocationIdentity>,
    capability: String,
    request: Arc<str>,
    payment: Arc<watch::Sender<Payment>>,
    params: Option<PaymentRequiredParams>,
    demand: String,
    pub(super) ttl: Duration,
}

/// What came of a payment that was allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Paid,
    Unknown,
    /// The call ended before the wallet was asked.
    NobodyWaits,
}

impl Paying {
    /// `None` if the call has ended.
    pub(super) fn of(
        shared: &Shared,
        id: CallId,
        params: Option<PaymentRequiredParams>,
        demand: String,
    ) -> Option<Self> {
        let ttl = params
            .as_ref()
            .and_then(|params| params.ttl)
            .map_or(DEFAULT_TTL, Duration::from_secs)
            .min(shared.payments.longest_wait);
        shared.calls.with(id, |call| Self {
            id,
            event: call.current,
            ended: call.ended.clone(),
            first: call.first,
            identity: call.identity,
            capability: call.capability.clone(),
            request: Arc::clone(&call.signed),
            payment: Arc::clone(&call.payment),
            params,
            demand,
            ttl,
        })
    }

    /// Ends the call unpaid. Until it has ended, that must not open it to another demand.
    pub(super) async fn decline(&self, shared: &Arc<Shared>, reason: &DeclineReason) {
        self.phase(Phase::Checking);
        (shared.payments.observer)(&PaymentEvent::Declined {
            event: self.event,
            reason: reason.clone(),
        });
        decline::declined(shared, self.id, reason).await;
        self.phase(Phase::None);
    }

    /// The row to be written, and the case to be judged, as they are now.
    async fn attempt(
        &self,
        shared: &Shared,
        identity: InvocationIdentity,
        request: &PaymentRequest,
        (approved, refused): (bool, Option<DeclineReason>),
    ) -> (NewAttempt, Case) {
        let (payments, server) = (&shared.payments, shared.transport.server());
        let worths = payments.worths(&request.amount).await;
        let now = payments.clock.now();
        let mut new = NewAttempt::new(
            self.event,
            server,
            identity,
            self.capability.as_str(),
            request.clone(),
            now,
        );
        new.call = self.first;
        new.worth = worths.first().cloned();
        let handler = payments.handler_of(&request.pmi);
        new.wallet = handler.and_then(|handler| handler.wallet());
        new.request = self.request.to_string();
        new.demand.clone_from(&self.demand);
        let mut facts = Facts::new(
            server,
            self.capability.as_str(),
            self.first,
            request.amount.clone(),
            now,
        );
        facts.worths = worths;
        facts.advertised = shared.prices.price_of(&self.capability);
        if let Some(listed) = &facts.advertised
            && listed.unit() != request.amount.unit()
        {
            let unit = request.amount.unit();
            facts.advertised_at_rate = payments.at_most(&listed.max(), unit).await;
        }
        facts.expires_at = request.expires_at;
        facts.approved = approved;
        facts.refused = refused;
        (new, Case::new(Arc::clone(&payments.policy), facts))
    }

    pub(super) fn phase(&self, phase: Phase) {
        self.payment.send_modify(|payment| payment.phase = phase);
    }

    fn tell_required(&self, shared: &Shared) {
        if let Ok((request, _)) = check(&shared.payments.handlers, self.params.clone()) {
            self.tell(shared, &request);
        }
    }

    fn tell(&self, shared: &Shared, request: &PaymentRequest) {
        let description = self.params.as_ref();
        if let (Some(licence), Some(params)) = (&shared.payments.licence, description)
            && let Some(why) = why_unlicensed(params, licence)
        {
            tracing::warn!(why, "the licence that was shown does not count");
        }
        (shared.payments.observer)(&PaymentEvent::Required {
            event: self.event,
            amount: request.amount.clone(),
            pmi: request.pmi.clone(),
            description: description.and_then(|params| params.description.clone()),
        });
    }
}

/// Why the licence that came with the call does not count, in the server's words, of which some are enough; none that repeat the
/// licence.
fn why_unlicensed(params: &PaymentRequiredParams, licence: &BearerToken) -> Option<String> {
    let said = params
        .meta
        .as_ref()?
        .get(ENTITLEMENTS_KEY)?
        .get("licence")?;
    let repeats = |text: &str| {
        let mut parts = licence.reveal().split('.');
        parts.any(|part| part.len() > 8 && text.contains(part))
    };
    let words = ["error", "reason"].map(|word| said.get(word).and_then(Value::as_str));
    let words = words.into_iter().flatten().filter(|text| !repeats(text));
    let words = words.collect::<Vec<_>>().join(": ");
    let plain: String = words
        .chars()
        .filter(|c| !c.is_control())
        .take(200)
        .collect();
    (!plain.is_empty()).then_some(plain)
}

/// Pays what is demanded, if everything agrees.
pub(super) async fn decide_and_pay(
    shared: &Arc<Shared>,
    paying: &Paying,
) -> Result<Ending, DeclineReason> {
    let (request, handler) = check(&shared.payments.handlers, paying.params.clone())?;
    paying.tell(shared, &request);
    let identity = paying.identity.ok_or(DeclineReason::NoIdentity)?;
    if !handler.can_handle(&request).await {
        return Err(DeclineReason::NotHandled);
    }
    let budget = shared.payments.reserve_budget(&request.amount).await;
    if let Err(reason) = &budget
        && !shared.payments.ledger.has_books()
    {
        return Err(reason.clone());
    }
    let reserved = reserve(shared, paying, identity, &request, &budget).await;
    let (attempt, reservation) = match (reserved, budget) {
        (Ok(Some(attempt)), Ok(reservation)) => (attempt, reservation),
        (ended, budget) => {
            if let Ok(reservation) = budget {
                reservation.give_back();
            }
            return match ended {
                Ok(_) => {
                    paying.phase(Phase::None);
                    Ok(Ending::NobodyWaits)
                }
                Err(reason) => Err(reason),
            };
        }
    };
    // Said before it is looked whether the call has ended: whoever ends it now either keeps it from being paid, or sees
    // that it may have been.
    paying
        .payment
        .send_modify(|payment| payment.begin(&request.amount));
    shared
        .calls
        .with(paying.id, |call| call.attempts.push(attempt));
    if paying.ended.is_cancelled() {
        // Answered, cancelled or timed out meanwhile: there is nothing to pay for (N-76).
        let end = Settled::new(
            AttemptState::Refused,
            "the call ended before the wallet was asked",
        );
        if shared.payments.settle(attempt, end).await {
            reservation.give_back();
        }
        paying
            .payment
            .send_modify(|payment| payment.end(&request.amount, false));
        return Ok(Ending::NobodyWaits);
    }
    keep_alive::during(shared, paying.id, paying.ttl);
    ask_the_wallet(shared, paying, &request, handler, (attempt, reservation)).await
}

/// Asks the wallet, once, and waits for what it says. What it says is written down even if nobody waits any more.
async fn ask_the_wallet(
    shared: &Arc<Shared>,
    paying: &Paying,
    request: &PaymentRequest,
    handler: Arc<dyn PaymentHandler>,
    (attempt, reservation): (AttemptId, Reservation),
) -> Result<Ending, DeclineReason> {
    let event = paying.event;
    let amount = request.amount.clone();
    let paid = wallet::pay(shared, handler, request.clone(), attempt, reservation).await;
    match paid {
        AttemptState::Paid => {
            // Told before the call can end: nothing is told of a call after its end.
            (shared.payments.observer)(&PaymentEvent::Paid {
                event,
                amount: amount.clone(),
            });
            paying
                .payment
                .send_modify(|payment| payment.end(&amount, true));
            Ok(Ending::Paid)
        }
        AttemptState::Refused => {
            paying
                .payment
                .send_modify(|payment| payment.end(&amount, false));
            shared
                .calls
                .with(paying.id, |call| call.attempts.retain(|it| *it != attempt));
            Err(DeclineReason::Refused)
        }
        AttemptState::Reserved | AttemptState::Unknown => {
            (shared.payments.observer)(&PaymentEvent::Unknown { event, amount });
            paying.phase(Phase::Decided);
            Ok(Ending::Unknown)
        }
    }
}

/// Writes the payment down, if the policy agrees. `None` if nobody waits for the call any more.
///
/// What stands in the way may go away: an unknown outcome is looked up, the same call elsewhere is waited for, a person is
/// asked. After each of these the policy is asked again.
async fn reserve(
    shared: &Arc<Shared>,
    paying: &Paying,
    identity: InvocationIdentity,
    request: &PaymentRequest,
    budget: &Result<Reservation, DeclineReason>,
) -> Result<Option<AttemptId>, DeclineReason> {
    let payments = &shared.payments;
    let until = tokio::time::Instant::now() + paying.ttl;
    let (mut looked_up, mut approved, mut waiting) = (None, false, false);
    let mut looked_up_all = false;
    loop {
        if paying.ended.is_cancelled() {
            return Ok(None);
        }
        let refused = budget.as_ref().err().cloned();
        let (new, case) = paying
            .attempt(shared, identity, request, (approved, refused))
            .await;
        let reason = match payments.ledger.reserve(new, case).await {
            Ok(Ok(attempt)) => return Ok(Some(attempt)),
            Ok(Err(reason)) => reason,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "nothing is paid: the books cannot be written"
                );
                return Err(DeclineReason::NoBooks);
            }
        };
        match &reason {
            DeclineReason::EarlierUnknown(earlier) if looked_up != Some(earlier.attempt) => {
                looked_up = Some(earlier.attempt);
                keep_alive::during(shared, paying.id, resolve::PATIENCE + SLACK);
                resolve::look_up(payments, earlier.attempt).await;
            }
            DeclineReason::Breaker { .. } if !looked_up_all => {
                looked_up_all = true;
                keep_alive::during(shared, paying.id, resolve::PATIENCE * 2 + SLACK);
                resolve::look_up_at(payments, shared.transport.server()).await;
            }
            DeclineReason::UnderWay(_) if tokio::time::Instant::now() < until => {
                if !waiting {
                    waiting = true;
                    keep_alive::during(shared, paying.id, paying.ttl + SLACK);
                }
                let noted = shared.noted.notified();
                shared.asked.notify_waiters();
                tokio::select! {
                    () = paying.ended.cancelled() => return Ok(None),
                    () = noted => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
            }
            DeclineReason::AskFirst { left, .. } if payments.asker.is_some() => {
                let within = payments.policy.ask_timeout.min(paying.ttl);
                let question = PaymentQuestion {
                    server: shared.transport.server(),
                    capability: paying.capability.clone(),
                    amount: request.amount.clone(),
                    left_of_budget: budget.as_ref().map_or_else(
                        |_| Amount::zero(request.amount.unit().clone()),
                        Reservation::left,
                    ),
                    left_of_policy: left.clone(),
                    within,
                };
                keep_alive::during(shared, paying.id, within + SLACK);
                if !ask(shared, paying, &question).await {
                    let asked = request.amount.clone();
                    return Err(DeclineReason::NotApproved { asked });
                }
                approved = true;
            }
            _ => return Err(reason),
        }
    }
}

/// Whether a person agrees, in time.
async fn ask(shared: &Shared, paying: &Paying, question: &PaymentQuestion) -> bool {
    let Some(asker) = &shared.payments.asker else {
        return false;
    };
    tokio::select! {
        biased;
        () = paying.ended.cancelled() => false,
        answer = tokio::time::timeout(question.within, asker.ask(question)) => answer.unwrap_or(false),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_server_says_why_and_does_not_repeat_the_licence() {
        let licence = BearerToken::new("eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl").unwrap();
        let told = |said: Value| {
            let params = json!({"amount": 1, "pay_req": "x", "pmi": "fake",
                "_meta": {"tollkeeper/entitlements": {"licence": said}}});
            why_unlicensed(&serde_json::from_value(params).unwrap(), &licence)
        };
        let said = told(json!({"error": "invalid_token", "reason": "jwt\u{1b} expired"}));
        assert_eq!(said.unwrap(), "invalid_token: jwt expired");
        assert_eq!(told(json!({"error": "revoked"})).unwrap(), "revoked");
        assert_eq!(told(json!({"reason": "it is eyJzdWIiOi."})), None);
        assert_eq!(told(json!("x")), None);
        let long = told(json!({"error": "x".repeat(10_000)}));
        assert_eq!(long.unwrap().len(), 200);
    }
}
