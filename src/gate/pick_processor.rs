//! Which payment method? The client's order of preference decides (N-54).

use std::sync::Arc;

use super::Gate;
use super::convert::can_charge;
use crate::payment::{Amount, PaymentInteraction, PaymentProcessor, Pmi};

impl Gate {
    /// The first of the client's methods that is supported and can charge `amount`, by itself or at a rate; for a client that
    /// lists none, the first of the server's. `None`: they have no method in common, and nothing may be minted (N-56).
    ///
    /// A client that waits for its result while it pays (transparent) gets a method that takes a person only if it asks for it.
    pub(super) fn pick_processor(
        &self,
        wanted: &[Pmi],
        interaction: PaymentInteraction,
        amount: &Amount,
    ) -> Option<&Arc<dyn PaymentProcessor>> {
        let explicit = interaction == PaymentInteraction::ExplicitGating;
        let mut able = self.processors.iter().filter(|processor| {
            let in_time = explicit || !processor.takes_a_person() || !wanted.is_empty();
            in_time && can_charge(&***processor, self.rates.as_deref(), amount)
        });
        if wanted.is_empty() {
            return able.next();
        }
        let able: Vec<_> = able.collect();
        wanted.iter().find_map(|pmi| {
            able.iter()
                .find(|processor| processor.pmi() == pmi)
                .copied()
        })
    }

    pub(super) fn processor(&self, pmi: &Pmi) -> Option<&Arc<dyn PaymentProcessor>> {
        self.processors
            .iter()
            .find(|processor| processor.pmi() == pmi)
    }

    /// The methods on offer, for the text of a refusal.
    pub(super) fn supported_pmis(&self) -> String {
        let names: Vec<&str> = self
            .processors
            .iter()
            .filter(|processor| processor.mandates().is_none())
            .map(|processor| processor.pmi().as_str())
            .collect();
        names.join(", ")
    }
}
