//! How a run ends: 0 done, 1 failed at run time, 2 wrong usage or config.

use std::error::Error as _;
use std::fmt::Write as _;
use std::process::ExitCode;

use crate::error::{Error, ErrorKind};

/// A run that did not end well.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    /// What is said about it; empty if everything was said already.
    message: String,
}

/// The outcome of a command.
pub(super) type Outcome<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    /// Wrong usage or config: `message` names the flag or key and what it wants.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self {
            code: 2,
            message: message.into(),
        }
    }

    /// Failed at run time.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self {
            code: 1,
            message: message.into(),
        }
    }

    /// Failed at run time, and the output says how.
    pub(super) fn reported() -> Self {
        Self::failed(String::new())
    }

    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// Whether the mistake is in what was typed or configured.
    pub(super) fn is_usage(&self) -> bool {
        self.code == 2
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = with_causes(&error);
        match error.kind() {
            ErrorKind::Config => Self::usage(message),
            _ => Self::failed(message),
        }
    }
}

/// An error and what led to it, on one line.
pub(super) fn with_causes(error: &Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let text = next.to_string();
        if !message.contains(&text) {
            // Writing to a string cannot fail.
            let _ = write!(message, ": {text}");
        }
        cause = next.source();
    }
    message
}
