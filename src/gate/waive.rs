//! Must this call be paid for at all? Asks the entitlements in their order, before anything that stands for money is touched.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Gate;
use super::door::Knock;
use super::open_calls::Covered;
use super::resolve_price::guarded;
use crate::error::{Error, Result};
use crate::ledger::FreeCall;
use crate::payment::{Cover, Entitled, Entitlement, EntitlementClaim, Refusal, Sale, WhenUnknown};
use crate::transport::Outbound;
use crate::wire::{
    ENTITLEMENT_KEY, ErrorObject, Payload, PaymentOption, PaymentPendingData, PaymentRequiredData,
    Response, SERVER_ERROR_CODE, meta_of, method, raw, with_meta,
};

impl Gate {
    /// Lets `knock` through if an entitlement covers it. Gives it back if it has to be paid for, or is refused, which it says
    /// then: what is paid for already is served all the same.
    ///
    /// An entitlement that fails, panics or takes too long does not cover the call; whether the call then costs something
    /// or is refused is the entitlement's own rule.
    pub(super) async fn waive(
        self: &Arc<Self>,
        mut knock: Box<Knock>,
        answered: bool,
    ) -> Result<Option<Box<Knock>>> {
        if self.entitlements.is_empty() {
            return Ok(Some(knock));
        }
        let waivable = knock.listed.waivable;
        if waivable && self.was_let_through(&knock, answered).await? {
            self.refuse_repeated(&knock.request.id, &knock.origin).await;
            return Ok(None);
        }
        let claim = Arc::new(self.claim_of(&mut knock, answered));
        for entitlement in &self.entitlements {
            match self.examine(entitlement, &claim).await {
                // Nothing but money buys it; who may not buy may not buy this either.
                Entitled::Covered(_) | Entitled::Sold(_) | Entitled::NotCovered(_) if !waivable => {
                }
                Entitled::Covered(cover) => {
                    self.let_through(knock, entitlement, cover, answered).await;
                    return Ok(None);
                }
                Entitled::NotCovered(said) => {
                    let said = said.map(|said| (entitlement.name().to_owned(), said));
                    knock.invocation.entitlements.extend(said);
                }
                Entitled::Refused(refusal) => {
                    knock.refusal = Some(refusal);
                    break;
                }
                Entitled::Sold(sale) => {
                    knock.refusal = Some(demand_for(*sale));
                    break;
                }
                Entitled::Unknown(error) => {
                    tracing::warn!(
                        request_event_id = %knock.origin.event, client_pubkey = knock.origin.client.short(),
                        entitlement = entitlement.name(), error = &error as &dyn std::error::Error,
                        "an entitlement cannot tell"
                    );
                    if entitlement.when_unknown() == WhenUnknown::Refuse {
                        let text = format!(
                            "The {} cannot be checked now, retry later",
                            entitlement.name()
                        );
                        knock.refusal = Some(Refusal::new(SERVER_ERROR_CODE, text));
                        break;
                    }
                }
            }
        }
        Ok(Some(knock))
    }

    /// Whether this very event was let through before. It has its answer, and nobody is asked to pay for it now.
    async fn was_let_through(&self, knock: &Knock, answered: bool) -> Result<bool> {
        let event = &knock.origin.event;
        let known = self.journal.holds(event);
        Ok(known || answered && self.ledger.free_call(event).await?.is_some())
    }

    fn claim_of(&self, knock: &mut Knock, answered: bool) -> EntitlementClaim {
        let tokens = std::mem::take(&mut knock.shown.tokens);
        let mut claim = EntitlementClaim::new(
            (*knock.invocation).clone(),
            Arc::clone(&knock.listed),
            self.clock.now(),
        )
        .with_tokens(tokens);
        claim.exposed = knock.shown.exposed;
        claim.nameless = knock.origin.bearer;
        claim.answered = answered;
        claim
    }

    async fn examine(
        &self,
        entitlement: &Arc<dyn Entitlement>,
        claim: &Arc<EntitlementClaim>,
    ) -> Entitled {
        let (asked, claim) = (Arc::clone(entitlement), Arc::clone(claim));
        let limit = self.settings.entitlement_timeout;
        guarded(limit, "an entitlement", async move {
            asked.examine(&claim).await
        })
        .await
        .unwrap_or_else(Entitled::Unknown)
    }

    /// Forwards a call that is covered, once: another copy of it, or a replay, has its answer already.
    async fn let_through(
        self: &Arc<Self>,
        mut knock: Box<Knock>,
        entitlement: &Arc<dyn Entitlement>,
        cover: Cover,
        answered: bool,
    ) {
        let by = entitlement.name();
        let now = self.clock.now();
        if answered || !self.journal.first_time(knock.origin.event, now) {
            return self.refuse_repeated(&knock.request.id, &knock.origin).await;
        }
        tracing::debug!(
            request_event_id = %knock.origin.event, client_pubkey = knock.origin.client.short(),
            capability = %knock.listed.capability, entitlement = by, why = cover.why, "not to be paid for"
        );
        self.free_calls.note(FreeCall {
            event: knock.origin.event,
            client: knock.origin.client,
            capability: knock.listed.capability.to_string(),
            by: by.to_owned(),
            why: cover.why,
            at: now,
        });
        if let Some(claims) = cover.claims
            && let Err(error) = tell_handler(&mut knock, by, &claims)
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the handler is not told why a call is free"
            );
        }
        let covered = cover.memo.map(|memo| {
            Arc::new(Covered {
                by: Arc::clone(entitlement),
                memo,
            })
        });
        self.forward_covered(knock.request, knock.origin, knock.negotiated, covered)
            .await;
    }

    /// Refuses a call that an entitlement refuses.
    pub(super) async fn refuse_call(&self, knock: &Knock, refusal: &Refusal) -> Result<()> {
        // Nobody who sends this again later shall get what its author pays for meanwhile (D-12).
        self.ledger
            .note_answered(&knock.origin.event, self.clock.now())
            .await?;
        let as_result = refusal.as_result.as_ref();
        if let Some(result) = as_result.filter(|_| knock.request.method == method::TOOLS_CALL) {
            let payload = Payload::Result(raw(result)?);
            let id = knock.request.id.clone();
            let outbound = Outbound::new(Response { id, payload });
            self.send(&knock.origin.reply_to, outbound).await;
            return Ok(());
        }
        let mut error = ErrorObject::new(refusal.code, refusal.message.clone());
        if let Some(data) = &refusal.data {
            error = error.with_data(data);
        }
        self.answer_error(&knock.request.id, &knock.origin.reply_to, &error)
            .await;
        Ok(())
    }
}

/// How long a client that has paid waits before it asks again, in seconds.
const RETRY_AFTER: u64 = 5;

/// The demand for what an entitlement sells, in the words of explicit gating: whoever cannot read them sees an error that
/// says what to do.
fn demand_for(sale: Sale) -> Refusal {
    let mut option = PaymentOption::new(sale.amount.value(), sale.pay_req, sale.pmi);
    option.description = Some(sale.description);
    option.ttl = Some(sale.ttl.as_secs().max(1));
    option.meta = (!sale.meta.is_empty()).then_some(sale.meta);
    let error = if sale.pending {
        PaymentPendingData::new(RETRY_AFTER, Vec::new()).to_error()
    } else {
        PaymentRequiredData::new(vec![option]).to_error()
    };
    let mut refusal = Refusal::new(error.code, error.message.clone());
    refusal.data = error
        .data
        .as_deref()
        .and_then(|data| serde_json::from_str(data.get()).ok());
    refusal.as_result = sale.as_result;
    refusal
}

/// Writes into the request why it is free. What the client wrote there was taken out at the door.
fn tell_handler(knock: &mut Knock, by: &str, claims: &Map<String, Value>) -> Result<(), Error> {
    let mut meta = meta_of(knock.request.params.as_deref()).unwrap_or_default();
    let told = json!({ "by": by, "claims": claims });
    meta.insert(ENTITLEMENT_KEY.to_owned(), told);
    // Cloned, so that a failure leaves the request as it was.
    knock.request.params = with_meta(knock.request.params.clone(), &meta)?;
    Ok(())
}
