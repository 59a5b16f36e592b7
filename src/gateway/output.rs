//! The owner of stdout. Results go through here and nothing else does; all the rest goes to stderr.
//!
//! Whoever reads our stdout may stop at any time (`tollkeeper … | head`). That is not an error of ours, so it ends in
//! silence.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

/// Writes one line of text.
pub(super) fn line(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Writes one JSON object on one line.
pub(super) fn json(value: &impl Serialize) {
    if let Ok(text) = serde_json::to_string(value) {
        line(&text);
    }
}

/// Writes the last words of a run that did not end well, to stderr.
pub(super) fn complain(message: &str) {
    let _ = writeln!(io::stderr().lock(), "error: {message}");
}

/// Writes a remark for people, to stderr.
pub(super) fn remark(message: &str) {
    let _ = writeln!(io::stderr().lock(), "{message}");
}

/// Colours, where somebody looks who did not ask for none (<https://no-color.org>).
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint(bool);

impl Paint {
    pub(super) fn stdout() -> Self {
        Self(io::stdout().is_terminal() && wants_colour())
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.wrap("2", text)
    }

    pub(super) fn red(self, text: &str) -> String {
        self.wrap("31", text)
    }

    pub(super) fn green(self, text: &str) -> String {
        self.wrap("32", text)
    }

    pub(super) fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Whether colour is welcome at all.
pub(super) fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Text of the other side, made harmless for a terminal: no control characters but line breaks and tabs.
pub(super) fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => c,
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_the_other_side_do_not_reach_the_terminal() {
        assert_eq!(harmless("a\x1b[31mb\r\nc"), "a\u{fffd}[31mb\u{fffd}\nc");
    }
}
