//! Objects of Stripe, as much of each as is needed. What may be an id or the object itself is read either way.

use serde::Deserialize;
use serde_json::{Map, Value};

/// A name of an object, or the object in its place, as `expand` asks.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Ref<T> {
    Id(String),
    Full(Box<T>),
}

impl Ref<Named> {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Id(id) => id,
            Self::Full(named) => &named.id,
        }
    }
}

impl<T> Ref<T> {
    pub(super) fn full(&self) -> Option<&T> {
        match self {
            Self::Id(_) => None,
            Self::Full(object) => Some(object),
        }
    }
}

/// A page of Checkout.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Session {
    pub(super) id: String,
    #[serde(default)]
    pub(super) url: Option<String>,
    pub(super) mode: String,
    pub(super) status: String,
    pub(super) payment_status: String,
    #[serde(default)]
    pub(super) amount_total: Option<u64>,
    #[serde(default)]
    pub(super) currency: Option<String>,
    pub(super) expires_at: u64,
    #[serde(default)]
    pub(super) created: u64,
    #[serde(default)]
    pub(super) livemode: bool,
    #[serde(default)]
    pub(super) metadata: Option<Map<String, Value>>,
    #[serde(default)]
    pub(super) customer: Option<Ref<Named>>,
    #[serde(default)]
    pub(super) payment_intent: Option<Ref<PaymentIntent>>,
    #[serde(default)]
    pub(super) subscription: Option<Ref<Subscription>>,
}

/// Something of which the name is enough.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Named {
    pub(super) id: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct PaymentIntent {
    pub(super) id: String,
    pub(super) status: String,
    #[serde(default)]
    pub(super) latest_charge: Option<Ref<Charge>>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Charge {
    #[serde(default)]
    pub(super) refunded: bool,
    #[serde(default)]
    pub(super) disputed: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Subscription {
    pub(super) id: String,
    pub(super) status: String,
    #[serde(default)]
    pub(super) metadata: Option<Map<String, Value>>,
    /// Before version 2025-03-31.
    #[serde(default)]
    current_period_end: Option<u64>,
    #[serde(default)]
    items: Option<List<Item>>,
    #[serde(default)]
    pub(super) latest_invoice: Option<Ref<Named>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Item {
    #[serde(default)]
    current_period_end: Option<u64>,
    #[serde(default)]
    price: Option<Named>,
}

impl Subscription {
    /// When the period ends that is paid for.
    pub(super) fn period_end(&self) -> Option<u64> {
        let items = self.items.iter().flat_map(|items| &items.data);
        let of_items = items.filter_map(|item| item.current_period_end).min();
        of_items.or(self.current_period_end)
    }

    /// Whether it is one for `price`; `true` where it does not say.
    pub(super) fn is_for(&self, price: &str) -> bool {
        let mut prices = self
            .items
            .iter()
            .flat_map(|items| &items.data)
            .filter_map(|item| item.price.as_ref())
            .peekable();
        prices.peek().is_none() || prices.any(|named| named.id == price)
    }
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct List<T> {
    pub(super) data: Vec<T>,
    #[serde(default)]
    pub(super) has_more: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Price {
    pub(super) id: String,
    pub(super) currency: String,
    #[serde(default)]
    pub(super) active: bool,
    #[serde(default)]
    pub(super) livemode: bool,
    #[serde(default)]
    pub(super) unit_amount: Option<u64>,
    #[serde(default)]
    pub(super) recurring: Option<Recurring>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Recurring {
    #[serde(default)]
    pub(super) usage_type: String,
}

/// Which invoice a payment was for.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct InvoicePayment {
    pub(super) invoice: Ref<Invoice>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Invoice {
    pub(super) id: String,
    #[serde(default)]
    parent: Option<Parent>,
    /// Before version 2025-03-31.
    #[serde(default)]
    subscription: Option<Ref<Named>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Parent {
    #[serde(default)]
    subscription_details: Option<SubscriptionDetails>,
}

#[derive(Debug, Clone, Deserialize)]
struct SubscriptionDetails {
    #[serde(default)]
    subscription: Option<Ref<Named>>,
}

impl Invoice {
    /// The subscription that it is for.
    pub(super) fn subscription(&self) -> Option<&str> {
        let details = self
            .parent
            .as_ref()
            .and_then(|parent| parent.subscription_details.as_ref())
            .and_then(|details| details.subscription.as_ref());
        details.or(self.subscription.as_ref()).map(Ref::id)
    }
}

/// The fact `name` in `metadata`.
pub(super) fn fact<'a>(metadata: &'a Option<Map<String, Value>>, name: &str) -> Option<&'a str> {
    metadata.as_ref()?.get(name)?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_and_objects_are_read_alike() {
        let session = |extra: Value| {
            let mut session = json!({
                "id": "cs_1", "mode": "payment", "status": "complete", "payment_status": "paid", "expires_at": 7,
            });
            session
                .as_object_mut()
                .unwrap()
                .extend(extra.as_object().unwrap().clone());
            serde_json::from_value::<Session>(session).unwrap()
        };
        let by_id = session(json!({ "payment_intent": "pi_1", "subscription": null }));
        assert!(by_id.payment_intent.unwrap().full().is_none());
        let full = session(
            json!({ "payment_intent": { "id": "pi_1", "status": "succeeded",
            "latest_charge": { "id": "ch_1", "refunded": true } }, "customer": "cus_1" }),
        );
        let intent = full.payment_intent.unwrap();
        let charge = intent.full().unwrap().latest_charge.as_ref();
        assert!(charge.unwrap().full().unwrap().refunded);
    }

    #[test]
    fn both_generations_of_subscriptions_and_invoices_are_read() {
        for (written, end) in [
            (
                json!({ "id": "sub_1", "status": "active", "current_period_end": 5 }),
                5,
            ),
            (
                json!({ "id": "sub_1", "status": "active", "items": { "data": [
                    { "current_period_end": 9, "price": { "id": "price_1" } },
                    { "current_period_end": 8, "price": { "id": "price_2" } } ] } }),
                8,
            ),
        ] {
            let subscription: Subscription = serde_json::from_value(written).unwrap();
            assert_eq!(subscription.period_end(), Some(end));
            assert!(subscription.is_for("price_2"));
        }
        for written in [
            json!({ "id": "in_1", "subscription": "sub_1" }),
            json!({ "id": "in_1", "parent": { "subscription_details": { "subscription": "sub_1" } } }),
            json!({ "id": "in_1", "parent": { "subscription_details": { "subscription": { "id": "sub_1" } } } }),
        ] {
            let invoice: Invoice = serde_json::from_value(written).unwrap();
            assert_eq!(invoice.subscription(), Some("sub_1"));
        }
    }
}
