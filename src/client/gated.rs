//! Explicit gating, paid for by this client: the offer is paid within the policy, and the call is sent again as a new
//! event, until it is served or there is a reason to give up (N-97 to N-101).

use std::sync::Arc;
use std::time::Duration;

use super::calls::{CallId, Phase};
use super::channel::Shared;
use super::event::DeclineReason;
use super::ledger::Heard;
use super::pay::{Ending, Paying, decide_and_pay};
use super::{decline, keep_alive, owed};
use crate::error::Result;
use crate::payment::RequestEventId;
use crate::wire::{PaymentOption, PaymentPendingData, PaymentRequiredData, Response};

/// How often one call is sent again.
const MOST_RETRIES: u32 = 15;

/// The longest wait between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How long a call is waited for beyond a pause.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether the error that answers the request `event` is dealt with here. If not, it goes to the caller as it is.
pub(super) fn takes(
    shared: &Arc<Shared>,
    id: CallId,
    event: RequestEventId,
    response: &Response,
    signed: &str,
) -> bool {
    if !shared.payments.pay_gated {
        return false;
    }
    let Some(error) = response.error() else {
        return false;
    };
    let seen = shared.calls.with(id, |call| {
        let phase = call.payment.borrow().phase;
        (
            call.current == event,
            phase,
            call.retries,
            call.attempts.is_empty(),
        )
    });
    let Some((current, phase, retries, unpaid)) = seen else {
        return false;
    };
    let offered = PaymentRequiredData::read(&error).map(|data| data.payment_options);
    let pending = PaymentPendingData::read(&error);
    if offered.is_none() && pending.is_none() {
        return false;
    }
    if !current || matches!(phase, Phase::Checking | Phase::Paying) {
        // A former request, or one that is being paid for already.
        return true;
    }
    if retries >= MOST_RETRIES {
        return false;
    }
    let step = match (offered, pending) {
        (Some(options), _) => Step::Pay(options),
        // The first answer was lost, or it is another run's offer: pending, and nothing was paid by this call.
        (None, Some(pending)) if unpaid && !pending.payment_options.is_empty() => {
            Step::Pay(pending.payment_options)
        }
        (None, Some(pending)) => Step::Wait(pause(pending.retry_after, retries)),
        (None, None) => return false,
    };
    shared.calls.with(id, |call| {
        call.payment
            .send_modify(|payment| payment.phase = Phase::Checking);
    });
    let (shared, signed) = (Arc::clone(shared), signed.to_owned());
    tokio::spawn(async move { step.take(&shared, id, signed).await });
    true
}

enum Step {
    Pay(Vec<PaymentOption>),
    Wait(Duration),
}

impl Step {
    async fn take(self, shared: &Arc<Shared>, id: CallId, signed: String) {
        match self {
            Self::Pay(options) => pay(shared, id, options, signed).await,
            Self::Wait(pause) => again(shared, id, pause).await,
        }
    }
}

/// The wait that a server asks for, longer with each try: 1, 1.5, 2.25, … times as long, 10 s at most.
fn pause(retry_after: u64, retries: u32) -> Duration {
    let asked = Duration::from_secs(retry_after.max(1)).min(LONGEST_PAUSE);
    let growth = 1.5f64.powi(i32::try_from(retries.min(20)).unwrap_or(20));
    asked.mul_f64(growth).min(LONGEST_PAUSE)
}

/// Pays one of `options`, then sends the call again.
async fn pay(shared: &Arc<Shared>, id: CallId, options: Vec<PaymentOption>, signed: String) {
    let known = |option: &PaymentOption| {
        let handlers = &shared.payments.handlers;
        handlers
            .iter()
            .position(|handler| *handler.pmi() == option.pmi)
    };
    // The order of this client's wallets decides; an offer for none of them is declined by its first.
    let option = options
        .iter()
        .min_by_key(|option| known(option).unwrap_or(usize::MAX))
        .filter(|option| option.amount > 0)
        .cloned();
    let Some(paying) = Paying::of(shared, id, option, signed) else {
        return;
    };
    match decide_and_pay(shared, &paying).await {
        // Also when nobody knows whether it was paid: if it was, the server serves the call.
        Ok(Ending::Paid | Ending::Unknown) => again(shared, id, Duration::ZERO).await,
        Ok(Ending::NobodyWaits) => {}
        Err(reason) => {
            if let DeclineReason::MaxPayments { last, .. } = &reason
                && owed::fetch(shared, &paying, last).await
            {
                return;
            }
            paying.decline(shared, &reason).await;
        }
    }
}

/// Sends the call again after `pause`, as a new event (N-98).
async fn again(shared: &Arc<Shared>, id: CallId, pause: Duration) {
    keep_alive::during(shared, id, pause + PATIENCE);
    let Some(ended) = shared.calls.with(id, |call| call.ended.clone()) else {
        return;
    };
    tokio::select! {
        () = ended.cancelled() => return,
        () = tokio::time::sleep(pause) => {}
    }
    if let Err(error) = resend(shared, id).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a call was not sent again"
        );
        decline::failed(shared, id, "The server cannot be reached").await;
    }
}

async fn resend(shared: &Arc<Shared>, id: CallId) -> Result<()> {
    let Some(request) = shared.calls.with(id, |call| call.request.clone()) else {
        return Ok(());
    };
    // The lifecycle is said again: a server that has forgotten the session must not take this for a transparent call.
    let prepared = shared.prepare(&request, true).await?;
    let attempts = shared.calls.with(id, |call| {
        call.retries += 1;
        call.attempts.clone()
    });
    for attempt in attempts.unwrap_or_default() {
        // The books know which request was the last, should this process die while it is being served.
        let heard = Heard::Retried(prepared.event, prepared.signed.clone());
        if let Err(error) = shared.payments.ledger.note(attempt, heard).await {
            tracing::error!(%attempt, error = &error as &dyn std::error::Error, "a retry was not written down");
        }
    }
    if !shared.calls.replace(id, prepared.event, &prepared.signed) {
        return Ok(());
    }
    shared.calls.with(id, |call| {
        call.payment.send_modify(|payment| {
            payment.phase = if payment.cost_something() {
                Phase::Decided
            } else {
                Phase::None
            };
        });
    });
    shared.transport.publish(&prepared).await
}
