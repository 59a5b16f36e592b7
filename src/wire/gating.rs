//! `error.data` of explicit gating (CEP-8): `-32042`, `-32043`, and `-32602` for an unsupported interaction.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    ErrorObject, INVALID_PARAMS_CODE, PAYMENT_PENDING_CODE, PAYMENT_REQUIRED_CODE,
    PaymentRequiredParams,
};
use crate::payment::PaymentInteraction;

/// One of the ways to pay that a `-32042` offers. The fields are those of
/// [`payment_required`](super::PAYMENT_REQUIRED).
pub type PaymentOption = PaymentRequiredParams;

/// `error.data` of Payment Required (N-79 to N-82).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PaymentRequiredData {
    /// What the client should do, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// At least one.
    pub payment_options: Vec<PaymentOption>,
    /// Why nothing that the client has covers the call: `"licence": {"error": "revoked"}`. Anything unknown is here, too.
    #[serde(flatten)]
    pub entitlements: Map<String, Value>,
}

impl PaymentRequiredData {
    /// Offers `payment_options`.
    #[must_use]
    pub fn new(payment_options: Vec<PaymentOption>) -> Self {
        let instructions = "Pay one of the payment options, then send the same request again with exactly the \
                            same method and params.";
        Self {
            instructions: Some(instructions.to_owned()),
            payment_options,
            entitlements: Map::new(),
        }
    }

    /// The error that carries it.
    #[must_use]
    pub fn to_error(&self) -> ErrorObject {
        ErrorObject::new(PAYMENT_REQUIRED_CODE, "Payment Required").with_data(self)
    }

    /// Reads the data of a Payment Required; `None` if the error is anything else, such as MPP's or MCP's use of the same
    /// code, or an offer without options.
    #[must_use]
    pub fn read(error: &ErrorObject) -> Option<Self> {
        if error.code != PAYMENT_REQUIRED_CODE {
            return None;
        }
        let data: Self = serde_json::from_str(error.data.as_ref()?.get()).ok()?;
        (!data.payment_options.is_empty()).then_some(data)
    }
}

/// `error.data` of Payment Pending (N-83 to N-85).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PaymentPendingData {
    /// What the client should do, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// Seconds to wait before asking again, at least 1.
    pub retry_after: u64,
    /// The offer that is still open, for a client that lost the first answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub payment_options: Vec<PaymentOption>,
}

impl PaymentPendingData {
    /// Asks to come back in `retry_after` seconds, and repeats the open offer.
    #[must_use]
    pub fn new(retry_after: u64, payment_options: Vec<PaymentOption>) -> Self {
        let instructions = "A payment for this call is outstanding. Do not pay twice; send the same request again later.";
        Self {
            instructions: Some(instructions.to_owned()),
            retry_after: retry_after.max(1),
            payment_options,
        }
    }

    /// The error that carries it.
    #[must_use]
    pub fn to_error(&self) -> ErrorObject {
        ErrorObject::new(PAYMENT_PENDING_CODE, "Payment Pending").with_data(self)
    }

    /// Reads the data of a Payment Pending; `None` if the error is anything else.
    #[must_use]
    pub fn read(error: &ErrorObject) -> Option<Self> {
        if error.code != PAYMENT_PENDING_CODE {
            return None;
        }
        serde_json::from_str(error.data.as_ref()?.get()).ok()
    }
}

/// `error.data` of a refused payment interaction (N-43).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UnsupportedInteractionData {
    /// What the client asked for.
    pub requested: PaymentInteraction,
    /// What the server does.
    pub supported: Vec<PaymentInteraction>,
}

impl UnsupportedInteractionData {
    /// `requested` is not among `supported`.
    #[must_use]
    pub fn new(requested: PaymentInteraction, supported: Vec<PaymentInteraction>) -> Self {
        Self {
            requested,
            supported,
        }
    }

    /// The error that carries it.
    #[must_use]
    pub fn to_error(&self) -> ErrorObject {
        let message = format!("Unsupported payment_interaction mode: {}", self.requested);
        ErrorObject::new(INVALID_PARAMS_CODE, message).with_data(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::PayReq;

    fn option() -> PaymentOption {
        PaymentOption::new(7, PayReq::new("x"), "fake".parse().unwrap())
    }

    #[test]
    fn the_errors_have_the_shapes_of_cep_8() {
        let error = PaymentRequiredData::new(vec![option()]).to_error();
        assert_eq!(
            (error.code, error.message.as_str()),
            (-32042, "Payment Required")
        );
        assert_eq!(
            PaymentRequiredData::read(&error).unwrap().payment_options,
            [option()]
        );

        let error = PaymentPendingData::new(0, vec![]).to_error();
        assert_eq!(
            (error.code, error.message.as_str()),
            (-32043, "Payment Pending")
        );
        assert_eq!(PaymentPendingData::read(&error).unwrap().retry_after, 1);

        let error = UnsupportedInteractionData::new(
            PaymentInteraction::ExplicitGating,
            vec![PaymentInteraction::Transparent],
        )
        .to_error();
        assert_eq!(error.code, -32602);
        assert_eq!(
            error.data.unwrap().get(),
            r#"{"requested":"explicit_gating","supported":["transparent"]}"#
        );
    }

    #[test]
    fn the_same_code_of_another_protocol_is_not_an_offer() {
        let mpp = ErrorObject::new(-32042, "x").with_data(&serde_json::json!({"challenges": []}));
        assert_eq!(PaymentRequiredData::read(&mpp), None);
        let empty =
            ErrorObject::new(-32042, "x").with_data(&serde_json::json!({"payment_options": []}));
        assert_eq!(PaymentRequiredData::read(&empty), None);
    }
}
