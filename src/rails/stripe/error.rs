//! What Stripe says when it does not do as asked, and what may be told of it.

use std::error::Error as StdError;
use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, ErrorKind};
use crate::payment::RailError;
use crate::rails::http::{Answer, HttpError};

/// Why Stripe did not do as asked. Its own sentences are left out: they repeat what was sent.
pub struct StripeError(pub(super) Cause);

#[derive(Debug)]
pub(super) enum Cause {
    /// No answer.
    Http(HttpError),
    /// It does not know the key (401), or the key may not do this (403).
    Key(u16),
    /// It is asked too often (429), or is at work under the same idempotency key (409).
    Busy(u16),
    /// There is nothing of that name.
    NotFound,
    /// The same idempotency key was used for something else before.
    OtherOrder,
    /// The bank or Stripe said no to this payment.
    Declined(Box<Decline>),
    /// It says no, with a code of its own: nothing was done.
    Refused { code: String, param: String },
    /// It leads to somewhere else, where the key must not go.
    Redirects,
    /// Another status; what was done is not known.
    Status(u16),
    /// An answer that cannot be right.
    Invalid(&'static str),
}

/// A payment that was declined.
#[derive(Debug)]
pub(super) struct Decline {
    /// The code, such as `card_declined` or `insufficient_funds`.
    pub(super) code: String,
    /// The payment that it was, as Stripe describes it.
    pub(super) payment_intent: Option<Value>,
}

#[derive(Deserialize)]
struct Body {
    error: Said,
}

#[derive(Deserialize)]
struct Said {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    decline_code: Option<String>,
    #[serde(default)]
    param: Option<String>,
    #[serde(default)]
    payment_intent: Option<Value>,
}

impl StripeError {
    pub(super) const fn invalid(what: &'static str) -> Self {
        Self(Cause::Invalid(what))
    }

    /// What an answer that is no success means.
    pub(super) fn of(answer: &Answer) -> Self {
        let said = serde_json::from_slice::<Body>(&answer.body).ok();
        let said = said.map(|body| body.error);
        Self(match (answer.status, said) {
            (300..400, _) if answer.location.is_some() => Cause::Redirects,
            (status @ (401 | 403), Some(_)) => Cause::Key(status),
            (429, _) => Cause::Busy(429),
            (400 | 409, Some(said)) if said.kind == "idempotency_error" => Cause::OtherOrder,
            (409, _) => Cause::Busy(409),
            (404, Some(_)) => Cause::NotFound,
            (402, Some(said)) => Cause::Declined(Box::new(Decline {
                code: word(said.decline_code.or(said.code)),
                payment_intent: said.payment_intent,
            })),
            (status @ 400..500, Some(said)) if status != 408 => Cause::Refused {
                code: word(said.code.or(Some(said.kind))),
                param: word(said.param),
            },
            (status, _) => Cause::Status(status),
        })
    }

    /// Whether nothing can have been done, because Stripe never took the question on.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        matches!(
            self.0,
            Cause::Http(HttpError::NotSent(_))
                | Cause::Key(_)
                | Cause::Busy(429)
                | Cause::NotFound
                | Cause::Refused { .. }
        )
    }

    /// Whether the same question may be answered otherwise in a moment.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self.0 {
            Cause::Http(HttpError::TooLarge(_)) => false,
            Cause::Http(_) | Cause::Busy(_) => true,
            Cause::Status(status) => status >= 500 || status == 408,
            _ => false,
        }
    }

    /// Whether there is nothing of that name.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self.0, Cause::NotFound)
    }

    /// Whether it is about the key itself.
    #[must_use]
    pub fn is_about_the_key(&self) -> bool {
        matches!(self.0, Cause::Key(_))
    }

    /// As rails say it.
    pub(super) fn into_rail(self) -> RailError {
        let text = format!("Stripe: {self}");
        match &self.0 {
            Cause::Invalid(_) | Cause::OtherOrder => RailError::invalid(text),
            Cause::Key(_) | Cause::Refused { .. } | Cause::Declined(_) => RailError::refused(text),
            _ => RailError::unknown(text).with_source(self),
        }
    }
}

impl From<StripeError> for Error {
    fn from(error: StripeError) -> Self {
        let kind = match error.0 {
            Cause::Key(_) => ErrorKind::Config,
            _ => ErrorKind::Rail,
        };
        Self::new(kind, format!("Stripe: {error}")).with_source(error)
    }
}

impl fmt::Display for StripeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Cause::Http(error) => error.fmt(f),
            Cause::Key(403) => f.write_str("this key may not do that"),
            Cause::Key(_) => f.write_str("it does not know this key"),
            Cause::Busy(409) => f.write_str("it is at work on the same order already"),
            Cause::Busy(_) => f.write_str("it is asked more often than it allows"),
            Cause::NotFound => f.write_str("it knows nothing of that name"),
            Cause::OtherOrder => {
                f.write_str("the same idempotency key was used for something else before")
            }
            Cause::Declined(decline) => write!(f, "the payment was declined ({})", decline.code),
            Cause::Refused { code, param } if param.is_empty() => write!(f, "it says no ({code})"),
            Cause::Refused { code, param } => write!(f, "it says no ({code}, {param})"),
            Cause::Redirects => f.write_str(
                "it redirects, which is not followed: give the address that it leads to",
            ),
            Cause::Status(status) => write!(f, "it answered with status {status}"),
            Cause::Invalid(what) => f.write_str(what),
        }
    }
}

impl fmt::Debug for StripeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StripeError({self})")
    }
}

impl StdError for StripeError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0 {
            Cause::Http(error) => Some(error),
            _ => None,
        }
    }
}

impl From<HttpError> for StripeError {
    fn from(error: HttpError) -> Self {
        Self(Cause::Http(error))
    }
}

/// A code or the name of a parameter: short, and of plain letters, else nothing.
fn word(text: Option<String>) -> String {
    let legal =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'[' | b']' | b'-');
    text.filter(|text| text.len() <= 64 && text.bytes().all(legal))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> StripeError {
        StripeError::of(&Answer {
            status,
            location: None,
            body: body.as_bytes().to_vec(),
        })
    }

    #[test]
    fn what_is_certain_and_what_may_pass_is_told_apart() {
        let said = |kind: &str| format!(r#"{{"error":{{"type":"{kind}","code":"x"}}}}"#);
        for (status, body, certain, may_pass) in [
            (400, said("invalid_request_error"), true, false),
            (400, said("idempotency_error"), false, false),
            (401, said("invalid_request_error"), true, false),
            (402, said("card_error"), false, false),
            (403, said("invalid_request_error"), true, false),
            (404, said("invalid_request_error"), true, false),
            (409, said("idempotency_error"), false, false),
            (409, said("invalid_request_error"), false, true),
            (429, said("rate_limit_error"), true, true),
            (500, said("api_error"), false, true),
            (503, String::new(), false, true),
            // A proxy's.
            (404, "<html>".to_owned(), false, false),
            (403, "<html>".to_owned(), false, false),
            (302, String::new(), false, false),
        ] {
            let error = answer(status, &body);
            let told = (error.is_certain(), error.may_pass());
            assert_eq!(told, (certain, may_pass), "{status} {body}: {error:?}");
        }
    }

    #[test]
    fn its_sentences_are_not_repeated() {
        let body = r#"{"error":{"type":"invalid_request_error","code":"c_1","param":"a[b]",
            "message":"Invalid API Key provided: sk_live_5ec7e7"}}"#;
        for status in [400, 401, 402, 403, 404] {
            let error = answer(status, body);
            let printed = format!("{error} {error:?} {:?}", Error::from(answer(status, body)));
            assert!(!printed.contains("5ec7e7"), "{printed}");
        }
        assert!(answer(400, body).to_string().contains("c_1, a[b]"));
        let odd = r#"{"error":{"type":"x","code":"sk_live 5ec7e7\n"}}"#;
        assert!(!answer(400, odd).to_string().contains("5ec7e7"));
    }
}
