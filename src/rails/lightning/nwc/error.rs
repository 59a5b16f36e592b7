//! What can come of a request to a wallet other than its result.

use std::fmt;

use crate::payment::RailError;

/// Characters of a wallet's own words that are kept for the log.
const WORDS: usize = 200;
/// A word that is longer may be an invoice, a preimage or a token.
const WORD: usize = 40;

/// Why there is no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NwcError {
    /// Nothing was sent.
    NotSent(&'static str),
    /// It may have been sent, and no answer came.
    Silent,
    /// The wallet said no.
    Said(Code, String),
    /// The wallet answered with something that cannot be right.
    Garbage(&'static str),
}

/// The error codes of NIP-47.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    RateLimited,
    NotImplemented,
    InsufficientBalance,
    QuotaExceeded,
    Restricted,
    Unauthorized,
    UnsupportedEncryption,
    PaymentFailed,
    NotFound,
    Internal,
    Other,
}

const CODES: [(&str, Code); 10] = [
    ("RATE_LIMITED", Code::RateLimited),
    ("NOT_IMPLEMENTED", Code::NotImplemented),
    ("INSUFFICIENT_BALANCE", Code::InsufficientBalance),
    ("QUOTA_EXCEEDED", Code::QuotaExceeded),
    ("RESTRICTED", Code::Restricted),
    ("UNAUTHORIZED", Code::Unauthorized),
    ("UNSUPPORTED_ENCRYPTION", Code::UnsupportedEncryption),
    ("PAYMENT_FAILED", Code::PaymentFailed),
    ("NOT_FOUND", Code::NotFound),
    ("INTERNAL", Code::Internal),
];

impl Code {
    pub(super) fn parse(text: &str) -> Self {
        let text = text.trim();
        CODES
            .into_iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text))
            .map_or(Self::Other, |(_, code)| code)
    }

    fn name(self) -> &'static str {
        CODES
            .into_iter()
            .find(|(_, code)| *code == self)
            .map_or("OTHER", |(name, _)| name)
    }

    /// The wallet turned the request away before it did anything: what was asked for has not been tried.
    ///
    /// `PAYMENT_FAILED` is not one of them: by NIP-47 it may stand for a time-out, and a payment on its way may arrive
    /// later. Nor is `INTERNAL`, which stands for anything.
    pub(super) fn is_turned_away(self) -> bool {
        match self {
            Self::RateLimited
            | Self::NotImplemented
            | Self::InsufficientBalance
            | Self::QuotaExceeded
            | Self::Restricted
            | Self::Unauthorized
            | Self::UnsupportedEncryption => true,
            Self::PaymentFailed | Self::NotFound | Self::Internal | Self::Other => false,
        }
    }

    /// This connection will not get it, however often it asks.
    pub(super) fn is_for_good(self) -> bool {
        matches!(
            self,
            Self::NotImplemented | Self::Restricted | Self::Unauthorized
        )
    }
}

impl NwcError {
    /// The wallet's no, with what of its words may be logged.
    pub(super) fn said(code: &str, words: &str) -> Self {
        let words: Vec<&str> = words
            .split(|c: char| c.is_whitespace() || c.is_control())
            .filter(|word| !word.is_empty())
            .map(|word| {
                if word.chars().count() > WORD {
                    "…"
                } else {
                    word
                }
            })
            .collect();
        Self::Said(
            Code::parse(code),
            words.join(" ").chars().take(WORDS).collect(),
        )
    }

    pub(super) fn code(&self) -> Option<Code> {
        match self {
            Self::Said(code, _) => Some(*code),
            _ => None,
        }
    }
}

impl fmt::Display for NwcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(why) => write!(f, "nothing was sent to the wallet: {why}"),
            Self::Silent => f.write_str("the wallet did not answer"),
            Self::Said(code, words) if words.is_empty() => {
                write!(f, "the wallet answered {}", code.name())
            }
            Self::Said(code, words) => write!(f, "the wallet answered {}: {words}", code.name()),
            Self::Garbage(what) => write!(f, "the wallet's answer makes no sense: {what}"),
        }
    }
}

/// For requests that move no money.
impl From<NwcError> for RailError {
    fn from(error: NwcError) -> Self {
        let text = error.to_string();
        match error {
            NwcError::NotSent(_) | NwcError::Silent => Self::unknown(text),
            NwcError::Said(code, _) if code.is_turned_away() => Self::refused(text),
            NwcError::Said(..) => Self::unknown(text),
            NwcError::Garbage(_) => Self::invalid(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_tried_counts_as_turned_away() {
        for (text, code, turned_away) in [
            ("RATE_LIMITED", Code::RateLimited, true),
            ("NOT_IMPLEMENTED", Code::NotImplemented, true),
            ("INSUFFICIENT_BALANCE", Code::InsufficientBalance, true),
            ("QUOTA_EXCEEDED", Code::QuotaExceeded, true),
            ("RESTRICTED", Code::Restricted, true),
            ("UNAUTHORIZED", Code::Unauthorized, true),
            ("UNSUPPORTED_ENCRYPTION", Code::UnsupportedEncryption, true),
            ("PAYMENT_FAILED", Code::PaymentFailed, false),
            ("NOT_FOUND", Code::NotFound, false),
            ("INTERNAL", Code::Internal, false),
            ("OTHER", Code::Other, false),
            ("A_CODE_OF_ITS_OWN", Code::Other, false),
            (" rate_limited ", Code::RateLimited, true),
        ] {
            assert_eq!(Code::parse(text), code);
            assert_eq!(code.is_turned_away(), turned_away, "{text}");
        }
    }

    #[test]
    fn a_wallets_words_are_kept_short_and_without_what_may_be_secret() {
        let preimage = "ab".repeat(32);
        let error = NwcError::said(
            "INTERNAL",
            &format!("paid\u{1b}[31m\n{preimage} {}", "x ".repeat(500)),
        );
        let shown = error.to_string();
        assert!(!shown.contains(&preimage) && !shown.contains('\u{1b}') && !shown.contains('\n'));
        assert!(shown.len() < 300, "{shown}");
        assert!(shown.starts_with("the wallet answered INTERNAL: paid"));
    }
}
