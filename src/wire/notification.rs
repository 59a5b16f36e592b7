//! The three payment notifications of CEP-8.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Message, Notification};
use crate::error::{Error, Result};
use crate::payment::{MAX_AMOUNT, PayReq, Pmi};

/// The client must pay before the request is executed (N-61).
pub const PAYMENT_REQUIRED: &str = "notifications/payment_required";
/// The money is there; the result follows (N-69).
pub const PAYMENT_ACCEPTED: &str = "notifications/payment_accepted";
/// The request will not be executed (N-71).
pub const PAYMENT_REJECTED: &str = "notifications/payment_rejected";

/// `params` of [`PAYMENT_REQUIRED`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PaymentRequiredParams {
    /// How much, in the unit that the server advertises for the payment method (sats for BOLT11): 1 to 2^53 - 1.
    pub amount: u64,
    /// What the wallet pays.
    pub pay_req: PayReq,
    /// The payment method.
    pub pmi: Pmi,
    /// What is bought, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whole seconds until the server stops accepting this payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    /// Anything more; unknown fields are ignored (N-74).
    #[serde(rename = "_meta", default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<Map<String, Value>>,
}

impl PaymentRequiredParams {
    /// A demand without description, ttl and `_meta`.
    #[must_use]
    pub fn new(amount: u64, pay_req: PayReq, pmi: Pmi) -> Self {
        Self {
            amount,
            pay_req,
            pmi,
            description: None,
            ttl: None,
            meta: None,
        }
    }
}

/// `params` of [`PAYMENT_ACCEPTED`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PaymentAcceptedParams {
    /// How much was accepted.
    pub amount: u64,
    /// The payment method.
    pub pmi: Pmi,
    /// Anything more.
    #[serde(rename = "_meta", default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<Map<String, Value>>,
}

impl PaymentAcceptedParams {
    /// `amount` was accepted by `pmi`.
    #[must_use]
    pub fn new(amount: u64, pmi: Pmi) -> Self {
        Self {
            amount,
            pmi,
            meta: None,
        }
    }
}

/// `params` of [`PAYMENT_REJECTED`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PaymentRejectedParams {
    /// The payment method that was or would have been used.
    pub pmi: Pmi,
    /// The price that was or would have been asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<u64>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl PaymentRejectedParams {
    /// Rejected, for the reason in `message`.
    #[must_use]
    pub fn new(pmi: Pmi, amount: Option<u64>, message: Option<String>) -> Self {
        Self {
            pmi,
            amount,
            message,
        }
    }
}

/// One of the three.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "CEP-8 has these three")]
pub enum PaymentNotification {
    /// [`PAYMENT_REQUIRED`].
    Required(PaymentRequiredParams),
    /// [`PAYMENT_ACCEPTED`].
    Accepted(PaymentAcceptedParams),
    /// [`PAYMENT_REJECTED`].
    Rejected(PaymentRejectedParams),
}

impl PaymentNotification {
    /// The method name.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        match self {
            Self::Required(_) => PAYMENT_REQUIRED,
            Self::Accepted(_) => PAYMENT_ACCEPTED,
            Self::Rejected(_) => PAYMENT_REJECTED,
        }
    }

    /// Whether `method` is one of the three.
    #[must_use]
    pub fn is_method(method: &str) -> bool {
        matches!(
            method,
            PAYMENT_REQUIRED | PAYMENT_ACCEPTED | PAYMENT_REJECTED
        )
    }

    /// As a message, with `"jsonrpc":"2.0"` (N-2).
    ///
    /// # Errors
    ///
    /// When the params cannot be written as JSON.
    pub fn to_message(&self) -> Result<Message> {
        let notification = match self {
            Self::Required(params) => Notification::new(PAYMENT_REQUIRED, params)?,
            Self::Accepted(params) => Notification::new(PAYMENT_ACCEPTED, params)?,
            Self::Rejected(params) => Notification::new(PAYMENT_REJECTED, params)?,
        };
        Ok(Message::Notification(notification))
    }

    /// Reads a notification; `None` if it is not a payment notification at all.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Wire`](crate::ErrorKind::Wire) if it is one, but its params cannot be trusted: a missing field, an
    /// amount that is not a whole number from 1 to 2^53 - 1. A client must decline those (D-37).
    pub fn read(notification: &Notification) -> Result<Option<Self>> {
        fn params<T: serde::de::DeserializeOwned>(notification: &Notification) -> Result<T> {
            let text = notification
                .params
                .as_ref()
                .map_or("{}", |params| params.get());
            serde_json::from_str(text).map_err(|source| {
                Error::wire(format!(
                    "{} has params that cannot be read",
                    notification.method
                ))
                .with_source(source)
            })
        }
        let read = match notification.method.as_str() {
            PAYMENT_REQUIRED => Self::Required(params(notification)?),
            PAYMENT_ACCEPTED => Self::Accepted(params(notification)?),
            PAYMENT_REJECTED => Self::Rejected(params(notification)?),
            _ => return Ok(None),
        };
        let amount = match &read {
            Self::Required(params) => Some(params.amount),
            Self::Accepted(params) => Some(params.amount),
            Self::Rejected(_) => None,
        };
        if amount.is_some_and(|amount| amount == 0 || amount > MAX_AMOUNT) {
            return Err(Error::wire(format!(
                "{} has an impossible amount",
                notification.method
            )));
        }
        Ok(Some(read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_fixed_byte_for_byte() {
        let pmi: Pmi = "fake".parse().unwrap();
        let mut required = PaymentRequiredParams::new(7, PayReq::new("fake:1"), pmi.clone());
        let json = |n: PaymentNotification| n.to_message().unwrap().to_json();
        assert_eq!(
            json(PaymentNotification::Required(required.clone())),
            r#"{"jsonrpc":"2.0","method":"notifications/payment_required","params":{"amount":7,"pay_req":"fake:1","pmi":"fake"}}"#
        );
        required.ttl = Some(300);
        required.description = Some("add".into());
        assert_eq!(
            json(PaymentNotification::Required(required)),
            r#"{"jsonrpc":"2.0","method":"notifications/payment_required","params":{"amount":7,"pay_req":"fake:1","pmi":"fake","description":"add","ttl":300}}"#
        );
        assert_eq!(
            json(PaymentNotification::Accepted(PaymentAcceptedParams::new(
                7,
                pmi.clone()
            ))),
            r#"{"jsonrpc":"2.0","method":"notifications/payment_accepted","params":{"amount":7,"pmi":"fake"}}"#
        );
        assert_eq!(
            json(PaymentNotification::Rejected(PaymentRejectedParams::new(
                pmi,
                Some(7),
                Some("no".into())
            ))),
            r#"{"jsonrpc":"2.0","method":"notifications/payment_rejected","params":{"pmi":"fake","amount":7,"message":"no"}}"#
        );
    }

    #[test]
    fn a_demand_that_cannot_be_trusted_is_an_error_not_a_payment() {
        for amount in [
            "0",
            "-5",
            "1.5",
            "\"5\"",
            "null",
            "9007199254740992",
            "1e999",
        ] {
            let text = format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/payment_required","params":{{"amount":{amount},"pay_req":"x","pmi":"fake"}}}}"#
            );
            if let Ok(Message::Notification(notification)) = Message::parse(&text) {
                assert!(
                    PaymentNotification::read(&notification).is_err(),
                    "{amount}"
                );
            }
        }
    }

    #[test]
    fn unknown_fields_are_ignored_and_other_methods_are_not_ours() {
        let read = |text: &str| match Message::parse(text).unwrap() {
            Message::Notification(notification) => PaymentNotification::read(&notification),
            _ => unreachable!(),
        };
        let known = r#"{"jsonrpc":"2.0","method":"notifications/payment_accepted","params":{"amount":1,"pmi":"fake","new":1,"_meta":{"x":1}}}"#;
        assert!(matches!(
            read(known),
            Ok(Some(PaymentNotification::Accepted(_)))
        ));
        assert!(matches!(
            read(r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{}}"#),
            Ok(None)
        ));
    }
}
