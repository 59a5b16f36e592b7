//! A real `call` against a real `serve`, killed at every write to its books, at every message and on both sides of the
//! payment; then the same call is made again, as a person would make it, and the books are balanced.
//!
//! Whatever was killed when: the wallet is asked to pay for the call once and no more, the tool runs once and no more, and
//! the second run has the result.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is a test")]
#![allow(clippy::print_stdout, reason = "it tells how much was tried")]

#[allow(dead_code, reason = "shared with tests/cli.rs, which uses all of it")]
#[path = "support/binary.rs"]
mod binary;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use binary::{Called, Relay, Scratch, Server};

/// No run has more points of one kind.
const MOST: usize = 20;

struct Shop {
    scratch: Scratch,
    relay: Relay,
    server: Server,
}

impl Shop {
    fn open() -> Self {
        let scratch = Scratch::new();
        std::fs::create_dir(scratch.path("till")).unwrap();
        let relay = Relay::start(&scratch);
        let mut command = scratch.tollkeeper("server");
        command.env("TOLLKEEPER_CRASH_TILL", scratch.path("till"));
        let ledger = scratch.path("books.db").display().to_string();
        let flags = ["--price", "tool:add=7 sat", "--ledger", &ledger];
        let server = Server::start_with(command, &relay, &flags);
        Self {
            scratch,
            relay,
            server,
        }
    }

    /// `call` from `home`, which dies at `death`, if it gets there.
    fn call(&self, home: &str, a: usize, flags: &[&str], death: Option<&str>) -> Called {
        let mut command = self.command(home, a, flags);
        if let Some(death) = death {
            command.env("TOLLKEEPER_CRASH_AT", death);
        }
        let output = command.output().unwrap();
        let lines: Vec<Value> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        Called {
            code: output.status.code(),
            last: lines.last().cloned().unwrap_or_default(),
            lines,
        }
    }

    fn command(&self, home: &str, a: usize, flags: &[&str]) -> Command {
        let mut command = self.scratch.tollkeeper(home);
        command
            .args(["call", self.server.npub(), "tool:add", "b=1", "--json"])
            .args(["--relay", &self.relay.url, "--timeout", "30"])
            .args(["--allow-fake", "--budget", "7 sats"])
            .arg(format!("a={a}"))
            .args(flags)
            .env("TOLLKEEPER_CRASH_PURSE", self.scratch.path("till"));
        command
    }

    /// How often the wallet was asked to pay.
    fn asked(&self) -> usize {
        lines(&self.scratch.path("till/asked"))
    }
}

fn lines(file: &Path) -> usize {
    std::fs::read_to_string(file).map_or(0, |text| text.lines().count())
}

/// Kills at the first point of each kind, at the second, and so on until a run no longer comes to the point.
fn kill_everywhere(flags: &[&str], kinds: &[(&str, usize)]) {
    let shop = Shop::open();
    let (mut deaths, mut calls) = (0, 0);
    for (kind, least) in kinds {
        let mut reached = 0;
        for n in 1..=MOST {
            calls += 1;
            let death = format!("{kind}:{n}");
            // A home of its own for each: what one run leaves behind is for the next to find, not for another story.
            let home = format!("buyer-{calls}");
            let died = shop.call(&home, calls, flags, Some(&death));
            if died.code == Some(0) {
                assert_eq!(died.text(), (calls + 1).to_string());
                break;
            }
            assert_eq!(died.code, None, "{death}: {died:?}");
            reached = n;
            deaths += 1;

            if died.last["event"] == "result" {
                // It had told the result before it died: the same again would be another call.
                assert!(kind.starts_with("write"), "{death}");
            } else {
                let again = shop.call(&home, calls, flags, None);
                assert_eq!(again.text(), (calls + 1).to_string(), "{death}");
            }
            assert_eq!(shop.asked(), calls, "{death}: paid once for each call");
            assert_eq!(shop.scratch.executions(), calls, "{death}: executed once");
        }
        assert!(reached >= *least, "{kind}: only {reached} points");
    }
    assert_eq!((shop.asked(), shop.scratch.executions()), (calls, calls));
    println!("{calls} calls, {deaths} kills");
}

const POINTS: [(&str, usize); 6] = [
    ("pay-before", 1),
    ("pay-after", 1),
    ("write-before", 3),
    ("write-after", 3),
    ("send-before", 3),
    ("send-after", 3),
];

#[test]
fn a_transparent_call_is_paid_once_whenever_the_client_dies() {
    kill_everywhere(&[], &POINTS);
}

#[test]
fn a_gated_call_is_paid_once_whenever_the_client_dies() {
    let flags = ["--pay", "--payment-interaction", "explicit_gating"];
    kill_everywhere(&flags, &POINTS);
}
