//! One error for the whole crate: an opaque [`Error`] with a stable [`ErrorKind`].
//!
//! The text is for people and may change; code matches on the kind only. Text that goes to the other side of a
//! connection is never taken from here: replies carry their own fixed wording.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// A [`Result`](std::result::Result) whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in categories that stay stable between versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting, a price entry or an argument that cannot be used as given.
    Config,
    /// A message that is not what JSON-RPC, MCP or CEP-8 allows.
    Wire,
    /// The ledger could not be read or written.
    Ledger,
    /// A ledger entry was asked to make a move that its state does not allow.
    Transition,
    /// The transport could not carry a message.
    Transport,
    /// The message is too large for the transport.
    TooLarge,
    /// The other side of the channel is gone.
    Closed,
    /// A price could not be resolved.
    Price,
    /// A payment rail failed, refused, or gave no usable answer.
    Rail,
    /// A spending limit forbids the payment.
    Budget,
    /// Time ran out.
    Timeout,
}

/// What can go wrong anywhere in Tollkeeper.
///
/// Promised: the [kind](Error::kind) and that [`source`](StdError::source) leads to the cause where there is one.
/// Not promised: the wording, and the type of the source.
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` that says `message`.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// The same error, with its cause kept.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The stable category.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Shorthand for [`ErrorKind::Config`].
    pub fn config(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// Shorthand for [`ErrorKind::Wire`].
    pub fn wire(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Wire, message)
    }

    /// Shorthand for [`ErrorKind::Ledger`].
    pub fn ledger(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Ledger, message)
    }

    /// Shorthand for [`ErrorKind::Transport`].
    pub fn transport(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Transport, message)
    }

    /// Shorthand for [`ErrorKind::Closed`].
    pub fn closed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Closed, message)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.kind)
            .field("message", &self.message);
        if let Some(source) = &self.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_kept_and_the_text_is_not_repeated() {
        let error = Error::ledger("cannot write").with_source("disk full");
        assert_eq!(error.kind(), ErrorKind::Ledger);
        assert_eq!(error.to_string(), "cannot write");
        assert_eq!(
            error.source().map(ToString::to_string).as_deref(),
            Some("disk full")
        );
    }
}
