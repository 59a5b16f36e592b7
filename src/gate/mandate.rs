//! The client presents a mandate by a credential: the server charges it.
//!
//! The charge is named by the challenge, so one challenge is one charge. The offer that it is an alternative to ends first: the
//! client pays one of them; if it pays both, it has paid for two calls. What else there is to a charge is in
//! [`charge`](super::charge).

use std::sync::Arc;
use std::time::Duration;

use super::Gate;
use super::charge::{Fate, Mandate, Opening};
use super::credential::Presentation;
use super::demand::offer_ends;
use super::door::Knock;
use crate::error::Result;
use crate::ledger::{Entry, EntryState, NewEntry, Transition};
use crate::payment::{PaymentInteraction, PaymentProcessor, RequestEventId};
use crate::wire::mpp::Problem;

impl Gate {
    /// The rail that charges mandates of this method.
    pub(super) fn charger(&self, method: &str, intent: &str) -> Option<&Arc<dyn PaymentProcessor>> {
        let mut processors = self.processors.iter();
        processors.find(|processor| {
            let mandates = processor.mandates();
            mandates.is_some_and(|mandates| mandates.method() == (method, intent))
        })
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
        let mandate = Mandate {
            proof: presentation.proof.clone(),
            rail,
            renewed_for: Duration::ZERO,
        };
        match self.ledger.get(&id).await? {
            Some(charge) => self.go_on(knock, presentation, charge, &mandate).await,
            None => self.begin(knock, presentation, id, &mandate).await,
        }
    }

    /// Nothing was charged for the challenge yet: ends the offer, and writes the charge down.
    async fn begin(
        self: &Arc<Self>,
        knock: Box<Knock>,
        presentation: Presentation,
        id: RequestEventId,
        mandate: &Mandate,
    ) -> Result<Option<Box<Knock>>> {
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
        let new = self.charge_entry(id, &knock, &presentation, mandate);
        let challenge = &presentation.challenge;
        match self.open_charge(&knock, new).await? {
            Opening::Charge(charge) => self.go_on(knock, presentation, charge, mandate).await,
            Opening::Paid(entry) => self.forward_proven(knock, challenge, entry).await,
            Opening::Full => {
                self.refuse_at_capacity(&knock).await;
                Ok(None)
            }
            Opening::Busy => {
                self.refuse_credential(&knock, Problem::Unsettled, Some(challenge))
                    .await
            }
        }
    }

    /// The charge is on the books, from now or from before: takes it further.
    async fn go_on(
        self: &Arc<Self>,
        knock: Box<Knock>,
        presentation: Presentation,
        charge: Entry,
        mandate: &Mandate,
    ) -> Result<Option<Box<Knock>>> {
        let problem = match self.take_further(charge, mandate).await? {
            Fate::Paid(entry, settlement) => {
                let charged = Presentation {
                    entry: *entry,
                    ..presentation
                };
                return self.serve_proven(knock, charged, settlement).await;
            }
            Fate::Refused => return Ok(Some(knock.after(Problem::Declined))),
            Fate::GivenUp => return Ok(Some(knock.after(Problem::Expired))),
            // Another mandate for a challenge that has one.
            Fate::OfAnother => Problem::Used,
            Fate::Unsettled => Problem::Unsettled,
        };
        self.refuse_credential(&knock, problem, Some(&presentation.challenge))
            .await
    }

    fn charge_entry(
        &self,
        id: RequestEventId,
        knock: &Knock,
        presentation: &Presentation,
        mandate: &Mandate,
    ) -> NewEntry {
        let now = self.clock.now();
        let offer = &presentation.entry;
        NewEntry {
            id,
            client: offer.client,
            identity: offer.identity,
            capability: offer.capability.clone(),
            interaction: PaymentInteraction::ExplicitGating,
            pmi: mandate.rail.pmi().clone(),
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
