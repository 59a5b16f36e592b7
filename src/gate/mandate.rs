//! The client presents a mandate: the server charges it.
//!
//! | what | why |
//! |---|---|
//! | the charge has an entry of its own, named by the challenge | one challenge is one charge, for ever, whoever asks |
//! | the offer that it is an alternative to ends first | the client pays one of them; if it pays both, it has paid for two calls |
//! | the entry is `issued`, with the mandate's digest, before the rail is asked | a crash finds it, and another mandate is not charged for it |
//! | what the rail cannot tell is not a failure | the same credential may ask again; nobody is told to pay anew |

use std::sync::Arc;
use std::time::Duration;

use super::Gate;
use super::credential::Presentation;
use super::demand::offer_ends;
use super::door::Knock;
use super::log::log_money;
use super::resolve_price::guarded;
use super::watch::look_up;
use crate::error::Result;
use crate::ledger::{Applied, Entry, EntryState, NewEntry, Opened, Transition};
use crate::payment::{
    Charged, PayReq, PaymentHappening, PaymentInteraction, PaymentOrder, PaymentProcessor,
    PaymentRequest, RailError, RequestEventId, Settlement, SettlementStatus,
};
use crate::wire::mpp::{Problem, proof_digest};

/// How long a request waits for a charge that was taken on: clients of this kind do not ask again by themselves.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// How often an obstacle is cleared away before the client is told to come back.
const TRIES: usize = 3;

impl Gate {
    /// The rail that charges mandates of this method.
    pub(super) fn charger(&self, method: &str, intent: &str) -> Option<&Arc<dyn PaymentProcessor>> {
        let mut processors = self.processors.iter();
        processors.find(|processor| {
            let mandates = processor.mandates();
            mandates.is_some_and(|mandates| mandates.method() == (method, intent))
        })
    }

    /// Whether `entry` is the charge of a mandate, which nobody can be asked to pay.
    pub(super) fn is_charge(&self, entry: &Entry) -> bool {
        let processor = self.processor(&entry.pmi);
        processor.is_some_and(|processor| processor.mandates().is_some())
    }

    /// Charges the mandate of `presentation`, and serves `knock` by it.
    pub(super) async fn present_mandate(
        self: &Arc<Self>,
        knock: Box<Knock>,
        presentation: Presentation,
        rail: Arc<dyn PaymentProcessor>,
    ) -> Result<Option<Box<Knock>>> {
        let challenge = &presentation.challenge;
        let amount = presentation.entry.price();
        let terms = rail.mandates().and_then(|m| m.terms(&amount));
        let can_be = rail
            .mandates()
            .is_some_and(|m| m.is_mandate(&presentation.proof));
        let (Some(id), Some(terms)) = (challenge.name(), terms) else {
            return self
                .refuse_credential(&knock, Problem::UnknownMethod, Some(challenge))
                .await;
        };
        if terms.request != challenge.request || !can_be {
            return self
                .refuse_credential(&knock, Problem::Malformed, Some(challenge))
                .await;
        }
        let id = RequestEventId::from_bytes(id);
        for _ in 0..TRIES {
            if let Some(charge) = self.ledger.get(&id).await? {
                return self.go_on(knock, presentation, rail, charge).await;
            }
            let offer = &presentation.entry;
            // What the offer is an alternative to may have been paid meanwhile.
            let current = self.ledger.get(&offer.id).await?;
            let current = current.unwrap_or_else(|| offer.clone());
            match (&current.settlement, current.state) {
                (Some(settlement), _) if !presentation.bearer => {
                    let settlement = settlement.clone();
                    let paid = Presentation {
                        entry: current,
                        ..presentation
                    };
                    return self.serve_proven(knock, paid, settlement).await;
                }
                (Some(_), _) => {
                    return self
                        .refuse_credential(&knock, Problem::InUse, Some(&presentation.challenge))
                        .await;
                }
                _ if offer_ends(offer) <= self.clock.now() => {
                    return Ok(Some(knock.after(Problem::Expired)));
                }
                (None, EntryState::Issued) => {
                    let expire = vec![Transition::Expire];
                    self.ledger
                        .apply(&offer.id, expire, self.clock.now())
                        .await?;
                }
                _ => {}
            }
            let new = self.charge_entry(id, &knock, &presentation, &rail);
            match self.ledger.open(new, self.settings.limits).await? {
                Opened::New(charge) | Opened::Exists(charge) if charge.id == id => {
                    return self.go_on(knock, presentation, rail, charge).await;
                }
                // The money for an earlier offer has come in: nobody pays twice.
                Opened::Authorized => {
                    if let Some(entry) = self.claim_oldest(&knock).await? {
                        return self
                            .forward_proven(knock, &presentation.challenge, entry)
                            .await;
                    }
                }
                Opened::Outstanding(other) if !self.is_charge(&other) => {
                    let expire = vec![Transition::Expire];
                    self.ledger
                        .apply(&other.id, expire, self.clock.now())
                        .await?;
                }
                Opened::Full => {
                    self.refuse_at_capacity(&knock).await;
                    return Ok(None);
                }
                _ => break,
            }
        }
        self.refuse_credential(&knock, Problem::Unsettled, Some(&presentation.challenge))
            .await
    }

    /// The charge is on the books, from now or from before: takes it further.
    async fn go_on(
        self: &Arc<Self>,
        knock: Box<Knock>,
        presentation: Presentation,
        rail: Arc<dyn PaymentProcessor>,
        charge: Entry,
    ) -> Result<Option<Box<Knock>>> {
        let mandate = proof_digest(presentation.proof.fields());
        let charge = match charge.state {
            EntryState::Quoted => match self.issue_charge(&charge, &mandate).await? {
                Some(charge) => charge,
                None => {
                    let challenge = Some(&presentation.challenge);
                    return self
                        .refuse_credential(&knock, Problem::Unsettled, challenge)
                        .await;
                }
            },
            _ => charge,
        };
        let request = charge.payment_request.as_ref();
        let other = request.is_some_and(|request| request.pay_req.as_str() != mandate);
        if other {
            // Another mandate for a challenge that has one. What became of the first is not this one's business.
            let challenge = Some(&presentation.challenge);
            return self
                .refuse_credential(&knock, Problem::Used, challenge)
                .await;
        }
        let settlement = match (charge.state, &charge.settlement) {
            // It was given up before the rail was asked.
            (EntryState::Abandoned, _) => return Ok(Some(knock.after(Problem::Expired))),
            (EntryState::Expired, None) => match self.look_up_charge(&charge, &rail).await {
                SettlementStatus::Settled(settlement) => settlement,
                SettlementStatus::Failed => return Ok(Some(knock.after(Problem::Declined))),
                _ => {
                    let challenge = Some(&presentation.challenge);
                    return self
                        .refuse_credential(&knock, Problem::Unsettled, challenge)
                        .await;
                }
            },
            (EntryState::Issued, _) => match self.charge(&charge, &presentation, &rail).await? {
                Charged::Paid(settlement) => settlement,
                Charged::Refused => {
                    let expire = vec![Transition::Expire];
                    self.ledger
                        .apply(&charge.id, expire, self.clock.now())
                        .await?;
                    log_money(&charge, "the charge was refused; nothing was taken");
                    // Should the rail err, the money is found.
                    self.watcher.watch(&charge).await;
                    let reason = Problem::Declined.reason();
                    self.observe(PaymentHappening::Failed, &charge, reason);
                    return Ok(Some(knock.after(Problem::Declined)));
                }
                Charged::Pending | Charged::Unknown(_) => {
                    self.watcher.watch(&charge).await;
                    let challenge = Some(&presentation.challenge);
                    return self
                        .refuse_credential(&knock, Problem::Unsettled, challenge)
                        .await;
                }
            },
            (_, Some(settlement)) => settlement.clone(),
            (_, None) => {
                let challenge = Some(&presentation.challenge);
                return self
                    .refuse_credential(&knock, Problem::Unknown, challenge)
                    .await;
            }
        };
        let charged = Presentation {
            entry: charge,
            ..presentation
        };
        self.serve_proven(knock, charged, settlement).await
    }

    /// What became of a charge whose offer has ended. It is not asked for any more, only looked for.
    async fn look_up_charge(
        &self,
        charge: &Entry,
        rail: &Arc<dyn PaymentProcessor>,
    ) -> SettlementStatus {
        let Some(request) = charge.payment_request.clone() else {
            return SettlementStatus::Unknown;
        };
        match look_up(Arc::clone(rail), request, self.settings.processor_timeout).await {
            SettlementStatus::Settled(settlement) if !covers(&settlement, charge) => {
                SettlementStatus::Unknown
            }
            status => status,
        }
    }

    /// Asks the rail, and again while it has not decided.
    async fn charge(
        &self,
        charge: &Entry,
        presentation: &Presentation,
        rail: &Arc<dyn PaymentProcessor>,
    ) -> Result<Charged> {
        let mut pauses = PAUSES.into_iter();
        loop {
            let order = PaymentOrder::new(
                charge.idempotency_key(),
                charge.amount.clone(),
                charge.description.clone(),
                self.settings.payment_ttl,
            );
            let (asked, mandate) = (Arc::clone(rail), presentation.proof.clone());
            let limit = self.settings.processor_timeout;
            let charged = guarded(limit, "a charge", async move {
                match asked.mandates() {
                    Some(mandates) => mandates.charge(&order, &mandate).await,
                    None => Charged::Unknown(RailError::invalid("the rail charges nothing")),
                }
            });
            let charged = charged.await.unwrap_or_else(|error| {
                Charged::Unknown(RailError::unknown("no answer").with_source(error))
            });
            match charged {
                Charged::Paid(settlement) if !covers(&settlement, charge) => {
                    tracing::error!(entry = %charge.id, "less was charged than was asked for; the call is not served");
                    return Ok(Charged::Unknown(RailError::invalid("less was charged")));
                }
                Charged::Pending => match pauses.next() {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => return Ok(Charged::Pending),
                },
                Charged::Unknown(error) => {
                    tracing::error!(
                        entry = %charge.id, pmi = %charge.pmi, error = &error as &dyn std::error::Error,
                        "whether a mandate was charged is not known; it is asked again"
                    );
                    return Ok(Charged::Unknown(error));
                }
                charged => return Ok(charged),
            }
        }
    }

    /// Writes down that `charge` is about to be asked for by the mandate with this digest.
    async fn issue_charge(&self, charge: &Entry, mandate: &str) -> Result<Option<Entry>> {
        let now = self.clock.now();
        let payment_request = PaymentRequest::new(
            charge.pmi.clone(),
            charge.amount.clone(),
            PayReq::new(mandate),
            charge.idempotency_key(),
        )
        .expiring(charge.deadline);
        let issue = Transition::Issue {
            payment_request,
            watch_until: charge.deadline.plus(self.settings.watch_grace),
        };
        match self.ledger.apply(&charge.id, vec![issue], now).await? {
            Applied::Moved(entry) => {
                log_money(&entry, "a mandate is being charged");
                Ok(Some(entry))
            }
            // Another copy was faster, or what the last process quoted was given up.
            Applied::Already(entry) | Applied::Refused(entry) => {
                Ok((entry.state == EntryState::Issued).then_some(entry))
            }
        }
    }

    fn charge_entry(
        &self,
        id: RequestEventId,
        knock: &Knock,
        presentation: &Presentation,
        rail: &Arc<dyn PaymentProcessor>,
    ) -> NewEntry {
        let now = self.clock.now();
        let offer = &presentation.entry;
        NewEntry {
            id,
            client: offer.client,
            identity: offer.identity,
            capability: offer.capability.clone(),
            interaction: PaymentInteraction::ExplicitGating,
            pmi: rail.pmi().clone(),
            amount: offer.price(),
            description: offer.description.clone(),
            meta: offer.meta.clone(),
            request: None,
            route: knock.origin.reply_to.route.clone(),
            deadline: now.plus(self.settings.payment_ttl),
            quoted_at: now,
        }
    }
}

fn covers(settlement: &Settlement, charge: &Entry) -> bool {
    settlement.amount.covers(&charge.amount) == Some(true)
}
