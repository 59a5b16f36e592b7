//! Why a credential is not taken, on the wire.
//!
//! Clients of the protocol may pay again when an answer carries challenges, up to three times for one call. So challenges go
//! out only with an answer that is about money that cannot have moved. CEP-8 reads the code of a failed verification as
//! "pending"; a client tells them apart by `retry_after`, which a failed verification never carries.

use serde_json::{Map, Value, json};

use super::super::{ErrorObject, INVALID_PARAMS_CODE, PAYMENT_PENDING_CODE, PaymentRequiredData};
use super::Challenge;

/// The code of a credential that was not accepted. CEP-8 has the same number for Payment Pending: the shape tells.
pub const VERIFICATION_FAILED_CODE: i64 = -32043;

const TYPES: &str = "https://paymentauth.org/problems/";

/// What is wrong with a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// It is no credential, or its proof is not one of this method.
    Malformed,
    /// It came where others could read it.
    Exposed,
    /// Its challenge is not ours, or was changed.
    Unknown,
    /// Its challenge is for another call.
    OtherCall,
    /// Its challenge was given to another client.
    OtherClient,
    /// Its challenge has expired, and nothing was paid.
    Expired,
    /// Its proof does not prove the payment.
    NotPaid,
    /// What it lets be charged was refused; nothing was taken.
    Declined,
    /// Its method is not on offer.
    UnknownMethod,
    /// It was used, and what it bought is no longer kept.
    Used,
    /// It is being used right now.
    InUse,
    /// Whether the payment was made is not known yet.
    Unsettled,
}

impl Problem {
    /// The word for programs.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed-credential",
            Self::Exposed => "credential-exposed",
            Self::Unknown => "invalid-challenge",
            Self::OtherCall => "challenge-for-another-call",
            Self::OtherClient => "challenge-for-another-client",
            Self::Expired => "payment-expired",
            Self::NotPaid => "verification-failed",
            Self::Declined => "payment-declined",
            Self::UnknownMethod => "method-unsupported",
            Self::Used => "credential-replayed",
            Self::InUse => "credential-in-use",
            Self::Unsettled => "payment-unsettled",
        }
    }

    /// The kind of problem, in the protocol's own list.
    const fn kind(self) -> &'static str {
        match self {
            Self::Malformed | Self::Exposed => "malformed-credential",
            Self::Unknown | Self::OtherCall | Self::OtherClient | Self::Used | Self::InUse => {
                "invalid-challenge"
            }
            Self::Expired => "payment-expired",
            Self::NotPaid | Self::Declined | Self::Unsettled => "verification-failed",
            Self::UnknownMethod => "method-unsupported",
        }
    }

    const fn detail(self) -> &'static str {
        match self {
            Self::Malformed => "The credential cannot be read",
            Self::Exposed => {
                "The credential came unencrypted, where others could read it; nothing was used up: send it encrypted"
            }
            Self::Unknown => "The challenge is not one of this server",
            Self::OtherCall => "The challenge is for another call; what was paid for stands",
            Self::OtherClient => "The challenge was given to another client",
            Self::Expired => "The challenge has expired and was not paid",
            Self::NotPaid => "The proof does not prove the payment",
            Self::Declined => "The payment was declined; nothing was taken",
            Self::UnknownMethod => "This way of paying is not on offer",
            Self::Used => "The credential was used, and its result is no longer kept",
            Self::InUse => {
                "The call that this credential pays for is being executed; do not pay again, send it again later"
            }
            Self::Unsettled => {
                "Whether the payment was made is not known yet; do not pay again, send the same request again later"
            }
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Malformed | Self::Exposed => "Malformed Credential",
            Self::Unknown | Self::OtherCall | Self::OtherClient | Self::Used | Self::InUse => {
                "Invalid Challenge"
            }
            Self::Expired => "Payment Expired",
            Self::NotPaid | Self::Declined | Self::Unsettled => "Verification Failed",
            Self::UnknownMethod => "Method Unsupported",
        }
    }

    const fn code(self) -> i64 {
        match self {
            Self::Malformed | Self::Exposed => INVALID_PARAMS_CODE,
            Self::InUse | Self::Unsettled => PAYMENT_PENDING_CODE,
            _ => VERIFICATION_FAILED_CODE,
        }
    }

    const fn status(self, offers: bool) -> u16 {
        match self {
            Self::Malformed | Self::Exposed | Self::UnknownMethod => 400,
            _ if offers => 402,
            _ => 403,
        }
    }

    /// The error that says so about the challenge `id`, without an offer to pay.
    #[must_use]
    pub fn to_error(self, id: Option<&str>) -> ErrorObject {
        self.error(id, Map::new())
    }

    /// The error that says so, and offers to pay after all. Only where nothing can have been paid.
    #[must_use]
    pub fn with_offer(
        self,
        options: &PaymentRequiredData,
        challenges: &[Challenge],
    ) -> ErrorObject {
        let mut data = Map::new();
        let listed: Vec<Value> = listed(challenges);
        data.insert("challenges".to_owned(), listed.into());
        if let Ok(options) = serde_json::to_value(&options.payment_options) {
            data.insert("payment_options".to_owned(), options);
        }
        self.error(challenges.first().map(|first| first.id.as_str()), data)
    }

    fn error(self, id: Option<&str>, mut data: Map<String, Value>) -> ErrorObject {
        let status = self.status(!data.is_empty());
        data.insert("httpStatus".to_owned(), status.into());
        let failure = json!({ "reason": self.reason(), "detail": self.detail() });
        data.insert("failure".to_owned(), failure);
        data.insert(
            "problem".to_owned(),
            problem(self.kind(), self.title(), status, self.detail(), id),
        );
        if matches!(self, Self::InUse | Self::Unsettled) {
            data.insert("retry_after".to_owned(), 2.into());
        }
        let message = match self.code() {
            INVALID_PARAMS_CODE => "Invalid payment credential",
            PAYMENT_PENDING_CODE if data.contains_key("retry_after") => "Payment Pending",
            _ => "Payment Verification Failed",
        };
        ErrorObject::new(self.code(), message).with_data(&data)
    }
}

/// What `-32042` says beside `payment_options`, for clients that pay by challenge.
pub fn with_challenges(data: &mut PaymentRequiredData, challenges: &[Challenge]) {
    let Some(first) = challenges.first() else {
        return;
    };
    let detail = "Pay one of the challenges, then repeat the request with its credential";
    let problem = problem(
        "payment-required",
        "Payment Required",
        402,
        detail,
        Some(&first.id),
    );
    let more = &mut data.entitlements;
    more.insert("httpStatus".to_owned(), 402.into());
    more.insert("challenges".to_owned(), listed(challenges).into());
    more.insert("problem".to_owned(), problem);
}

fn listed(challenges: &[Challenge]) -> Vec<Value> {
    let values = challenges.iter().map(serde_json::to_value);
    values.filter_map(Result::ok).collect()
}

fn problem(kind: &str, title: &str, status: u16, detail: &str, id: Option<&str>) -> Value {
    let mut problem = json!({
        "type": format!("{TYPES}{kind}"), "title": title, "status": status, "detail": detail,
    });
    if let Some(id) = id {
        problem["challengeId"] = id.into();
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::super::super::PaymentPendingData;
    use super::*;

    const ALL: [Problem; 12] = [
        Problem::Declined,
        Problem::Malformed,
        Problem::Exposed,
        Problem::Unknown,
        Problem::OtherCall,
        Problem::OtherClient,
        Problem::Expired,
        Problem::NotPaid,
        Problem::UnknownMethod,
        Problem::Used,
        Problem::InUse,
        Problem::Unsettled,
    ];

    fn data(error: &ErrorObject) -> Value {
        serde_json::from_str(error.data.as_ref().unwrap().get()).unwrap()
    }

    #[test]
    fn a_refusal_offers_nothing_to_pay() {
        for problem in ALL {
            let error = problem.to_error(Some("id"));
            let data = data(&error);
            for key in ["challenges", "payment_options", "elicitations"] {
                assert!(data.get(key).is_none(), "{problem:?} {key}");
            }
            assert_eq!(data["failure"]["reason"], problem.reason());
            assert_eq!(data["problem"]["challengeId"], "id");
            let pending = PaymentPendingData::read(&error).is_some();
            assert_eq!(
                pending,
                matches!(problem, Problem::InUse | Problem::Unsettled)
            );
        }
    }

    #[test]
    fn an_offer_after_a_failure_is_no_pending() {
        let challenge = Challenge::new("r", "m", "charge", Map::new());
        let options = PaymentRequiredData::new(Vec::new());
        let error = Problem::NotPaid.with_offer(&options, &[challenge]);
        assert_eq!(error.code, -32043);
        assert!(PaymentPendingData::read(&error).is_none());
        let data = data(&error);
        assert_eq!(data["httpStatus"], 402);
        assert_eq!(data["challenges"][0]["method"], "m");
    }
}
