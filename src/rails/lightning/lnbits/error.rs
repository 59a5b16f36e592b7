//! What LNbits says when it does not do as asked, and what may be told of it.

use std::error::Error as StdError;
use std::fmt;

use serde::Deserialize;

use crate::payment::RailError;
use crate::rails::http::{Answer, HttpError};

/// The status that LNbits gives to a payment, or an invoice, that came to nothing. Proxies give it, too, for anything.
const CAME_TO_NOTHING: u16 = 520;

/// The longest part of an answer that goes into a log.
const LONGEST_DETAIL: usize = 160;
/// Words longer than this are invoices, hashes, keys: nothing for a log.
const LONGEST_WORD: usize = 32;

/// Why LNbits did not do as asked.
#[derive(Debug)]
pub(super) enum ApiError {
    /// No answer.
    Http(HttpError),
    /// It is not set up: everything leads to the page of its first start.
    NotInstalled,
    /// It leads to somewhere else.
    Redirects,
    /// It does not know the key, or the key may not do this.
    Key(u16),
    /// It is asked too often, and turned this away unread.
    Busy,
    /// There is nothing of that name.
    NotFound,
    /// It says no, in its own words: nothing was done.
    Refused(String),
    /// Another status, from LNbits or from something in front of it; what was done is not known.
    Status(u16, String),
    /// An answer that cannot be right.
    Invalid(&'static str),
}

/// The body of an error.
#[derive(Deserialize)]
struct ErrorBody {
    detail: serde_json::Value,
    #[serde(default)]
    status: Option<String>,
}

impl ApiError {
    /// What an answer that is no success means.
    pub(super) fn of(answer: &Answer) -> Self {
        let body: Option<ErrorBody> = serde_json::from_slice(&answer.body).ok();
        let detail = body
            .as_ref()
            .map(|body| tidy(&body.detail))
            .unwrap_or_default();
        match (answer.status, body) {
            (300..400, _) => match &answer.location {
                Some(to) if to.contains("first_install") => Self::NotInstalled,
                _ => Self::Redirects,
            },
            (429, _) => Self::Busy,
            (401 | 403, Some(_)) => Self::Key(answer.status),
            (404, Some(_)) if detail.contains("Wallet") => Self::Key(404),
            (404, Some(_)) => Self::NotFound,
            // Only "failed" is an end: "pending" is under way, "success" was done before.
            (CAME_TO_NOTHING, Some(body)) if body.status.as_deref() == Some("failed") => {
                Self::Refused(detail)
            }
            (400..500, Some(_)) => Self::Refused(detail),
            (status, _) => Self::Status(status, detail),
        }
    }

    /// Whether nothing can have been done, because LNbits never took the request on.
    pub(super) fn is_certain(&self) -> bool {
        matches!(
            self,
            Self::Http(HttpError::NotSent(_)) | Self::Key(_) | Self::Busy
        )
    }

    /// Whether it is no more than an answer that was lost: asking again may help.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(
            self,
            Self::Http(_) | Self::Status(..) | Self::Invalid(_) | Self::Redirects
        )
    }

    /// As rails say it. `host` is where it happened.
    pub(super) fn into_rail(self, host: &str) -> RailError {
        let text = format!("LNbits at {host}: {self}");
        match self {
            Self::Http(error) => RailError::unknown(text).with_source(error),
            Self::Invalid(_) => RailError::invalid(text),
            Self::NotInstalled | Self::Key(_) | Self::Refused(_) => RailError::refused(text),
            Self::Redirects | Self::Busy | Self::NotFound | Self::Status(..) => {
                RailError::unknown(text)
            }
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = |f: &mut fmt::Formatter<'_>, text: &str, detail: &str| match detail {
            "" => f.write_str(text),
            detail => write!(f, "{text}: {detail}"),
        };
        match self {
            Self::Http(error) => error.fmt(f),
            Self::NotInstalled => f.write_str(
                "it is not set up yet: open it in a browser and finish its first start (/first_install)",
            ),
            Self::Redirects => {
                f.write_str("it redirects, which is not followed: give the address that it leads to")
            }
            Self::Key(403) => f.write_str("this key may not do that: paying takes the admin key"),
            Self::Key(_) => f.write_str("it does not know this key"),
            Self::Busy => f.write_str(
                "it is asked more often than it allows (LNBITS_RATE_LIMIT_NO in its settings)",
            ),
            Self::NotFound => f.write_str("it knows nothing of that name"),
            Self::Refused(detail) => with(f, "it says no", detail),
            Self::Status(status, detail) => with(f, &format!("it answered with status {status}"), detail),
            Self::Invalid(what) => f.write_str(what),
        }
    }
}

impl StdError for ApiError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Http(error) => Some(error),
            _ => None,
        }
    }
}

impl From<HttpError> for ApiError {
    fn from(error: HttpError) -> Self {
        Self::Http(error)
    }
}

/// A stranger's words for a log: on one line, of bounded length, without what could be an invoice or a key.
fn tidy(detail: &serde_json::Value) -> String {
    let text = match detail {
        serde_json::Value::String(text) => text.as_str(),
        _ => "the request is not as it wants it",
    };
    let mut tidied = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if tidied.len() + word.len() > LONGEST_DETAIL {
            tidied.push_str(" …");
            break;
        }
        if !tidied.is_empty() {
            tidied.push(' ');
        }
        tidied.push_str(if word.len() > LONGEST_WORD - 1 {
            "…"
        } else {
            word
        });
    }
    tidied
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> ApiError {
        ApiError::of(&Answer {
            status,
            location: None,
            body: body.as_bytes().to_vec(),
        })
    }

    #[test]
    fn only_its_own_clear_no_is_a_no() {
        for (status, body, refused, certain) in [
            (
                520,
                r#"{"detail":"Insufficient balance.","status":"failed"}"#,
                true,
                false,
            ),
            (
                520,
                r#"{"detail":"Payment is still pending.","status":"pending"}"#,
                false,
                false,
            ),
            (
                520,
                r#"{"detail":"Payment already paid.","status":"success"}"#,
                false,
                false,
            ),
            (520, r#"{"detail":"x"}"#, false, false),
            // A proxy's.
            (520, "<html>unknown error</html>", false, false),
            (400, r#"{"detail":"Missing BOLT11 invoice"}"#, true, false),
            (400, "<html>bad request</html>", false, false),
            (500, r#"{"detail":"Unexpected error!"}"#, false, false),
            (502, "", false, false),
            (429, "slow down", false, true),
            (401, r#"{"detail":"No Api Key provided."}"#, false, true),
            (
                403,
                r#"{"detail":"Invoice (or Admin) key required."}"#,
                false,
                true,
            ),
            (404, r#"{"detail":"Wallet not found."}"#, false, true),
            (404, r#"{"detail":"Payment does not exist."}"#, false, false),
            (404, "<html>no such site</html>", false, false),
            (401, "<html>log in</html>", false, false),
        ] {
            let error = answer(status, body);
            assert_eq!(
                (matches!(error, ApiError::Refused(_)), error.is_certain()),
                (refused, certain),
                "{status} {body}: {error:?}"
            );
        }
    }

    #[test]
    fn its_words_reach_the_log_without_what_is_secret() {
        let key = "0123456789abcdef0123456789abcdef";
        let long = format!(
            "{{\"detail\":\"no {key} in\\n\\u001b[31m {} end\"}}",
            "word ".repeat(100)
        );
        let text = answer(400, &long).to_string();
        assert!(!text.contains(key) && !text.contains('\n') && !text.contains('\u{1b}'));
        assert!(text.len() < 250, "{}", text.len());
        let list = answer(400, r#"{"detail":[{"loc":["body"],"msg":"0123"}]}"#).to_string();
        assert!(!list.contains("0123"));
    }

    #[test]
    fn a_server_that_was_never_set_up_says_what_to_do() {
        let error = ApiError::of(&Answer {
            status: 307,
            location: Some("/first_install".to_owned()),
            body: Vec::new(),
        });
        assert!(error.to_string().contains("first_install"));
        let elsewhere = ApiError::of(&Answer {
            status: 301,
            location: Some("https://evil.example.com/?key=0123".to_owned()),
            body: Vec::new(),
        });
        assert!(!elsewhere.to_string().contains("evil"));
    }
}
