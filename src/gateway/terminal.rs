//! Asks whoever sits at the terminal. Without a terminal there is nobody to ask.

use std::io::{BufRead, IsTerminal, Write};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc};

use super::output;
use crate::client::{AskBuyer, PaymentQuestion};

/// A person at a terminal, asked one question at a time.
#[derive(Debug)]
pub(super) struct Terminal {
    /// Lines that were typed. One thread reads them all: a line that answers one question must not answer the next.
    lines: Mutex<mpsc::Receiver<String>>,
}

impl Terminal {
    /// The terminal, if there is one to ask at and to be answered from.
    pub(super) fn find() -> Option<Arc<dyn AskBuyer>> {
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return None;
        }
        let (typed, lines) = mpsc::channel(16);
        std::thread::Builder::new()
            .name("terminal".to_owned())
            .spawn(move || {
                for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                    // What nobody asked for is dropped.
                    let _ = typed.try_send(line);
                }
            })
            .ok()?;
        Some(Arc::new(Self {
            lines: Mutex::new(lines),
        }))
    }
}

#[async_trait]
impl AskBuyer for Terminal {
    async fn ask(&self, question: &PaymentQuestion) -> bool {
        let mut lines = self.lines.lock().await;
        // Typed before the question was asked, so not about it.
        while lines.try_recv().is_ok() {}
        let mut unanswered = Unanswered(true);
        put(question);
        let answer = lines.recv().await;
        unanswered.0 = false;
        answer.is_some_and(|answer| is_yes(&answer))
    }
}

fn put(question: &PaymentQuestion) {
    let mut stderr = std::io::stderr().lock();
    let secs = question.within.as_secs();
    let _ = writeln!(stderr, "{}", words(question))
        .and_then(|()| write!(stderr, "pay {}? [y/N, {secs} s] ", question.amount))
        .and_then(|()| stderr.flush());
}

/// Tells that the time is over, should the question be dropped without an answer.
struct Unanswered(bool);

impl Drop for Unanswered {
    fn drop(&mut self) {
        if self.0 {
            output::remark("\nno answer: not paid");
        }
    }
}

/// The question, for people. Nothing in it was written by the server but the name of what is called.
pub(super) fn words(question: &PaymentQuestion) -> String {
    let policy = question
        .left_of_policy
        .as_ref()
        .map(|left| format!(" and {left} under the policy"));
    format!(
        "the server {} asks for {} for {} (that would leave {} of the budget{})",
        question.server.short(),
        question.amount,
        output::harmless(&question.capability),
        question.left_of_budget,
        policy.unwrap_or_default(),
    )
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        for (answer, yes) in [
            ("y", true),
            (" YES\r", true),
            ("", false),
            ("n", false),
            ("yeah", false),
            ("ja", false),
        ] {
            assert_eq!(is_yes(answer), yes, "{answer:?}");
        }
    }
}
