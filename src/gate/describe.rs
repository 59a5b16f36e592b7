//! What a client is told about prices before it asks for one: with the answer to `initialize`, and with each list of tools.

use super::Gate;
use super::open_calls::OpenCall;
use super::price_list::Listed;
use crate::payment::PricedCapability;
use crate::transport::Outbound;
use crate::wire::mpp::{
    ToolPrice, offer, payment_capability, pricing, with_payment_capability, with_prices,
};
use crate::wire::{Message, Payload, method};

impl Gate {
    /// Writes into the answer of `call` what it costs, if that is the place for it. An answer that has no room leaves as it is.
    pub(super) fn describe(&self, call: &OpenCall, outbound: &mut Outbound) {
        let Message::Response(response) = &mut outbound.message else {
            return;
        };
        let Payload::Result(result) = &mut response.payload else {
            return;
        };
        let described = match call.method.as_str() {
            method::INITIALIZE if self.challenges.is_some() => {
                let capability = payment_capability(self.ways_to_prove());
                with_payment_capability(result, capability)
            }
            method::TOOLS_LIST if self.prices.prices_method(method::TOOLS_CALL) => {
                with_prices(result, |name| self.price_of(name))
            }
            _ => None,
        };
        if let Some(described) = described {
            *result = described;
        }
    }

    /// The ways of paying that challenges are made for, each with its intent.
    fn ways_to_prove(&self) -> impl Iterator<Item = (&str, &str)> {
        self.processors
            .iter()
            .filter_map(|processor| match processor.proofs() {
                Some(proofs) => Some(proofs.method()),
                None => Some(processor.mandates()?.method()),
            })
    }

    fn price_of(&self, tool: &str) -> Option<ToolPrice> {
        let Listed::Priced(listed) = self.prices.find(method::TOOLS_CALL, Some(tool)) else {
            return None;
        };
        Some(ToolPrice::new(pricing(&listed), self.offers_of(&listed)))
    }

    /// What each way of paying by challenge would ask for; without those that need a rate of exchange first.
    fn offers_of(&self, listed: &PricedCapability) -> Vec<serde_json::Value> {
        if self.challenges.is_none() {
            return Vec::new();
        }
        let amount = listed.price.min();
        let able = self.processors.iter().filter_map(|processor| {
            if let Some(mandates) = processor.mandates() {
                mandates.terms(&amount)?;
                return Some(offer(
                    mandates.method(),
                    &amount,
                    listed.description.as_deref(),
                ));
            }
            let method = processor.proofs()?.method();
            processor
                .accepts(amount.unit())
                .then(|| offer(method, &amount, listed.description.as_deref()))
        });
        able.collect()
    }
}
