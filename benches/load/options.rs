//! What to measure, and for how long.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::Process;

const WHAT: [&str; 6] = [
    "compare",
    "durability",
    "latency",
    "memory",
    "sessions",
    "idle",
];

#[derive(Debug)]
pub(crate) struct Options {
    what: Vec<String>,
    pub(crate) seconds: Duration,
    pub(crate) warm_up: Duration,
    pub(crate) rounds: usize,
    pub(crate) in_flight: usize,
    /// The development relay, not the light one.
    dev_relay: bool,
    pub(crate) servers: Vec<String>,
    pub(crate) out: Option<PathBuf>,
    /// How many open offers and sessions a server is given to hold.
    pub(crate) offers: usize,
    pub(crate) sessions: usize,
    pub(crate) idle: Duration,
}

impl Options {
    pub(crate) fn parse(words: &[&str]) -> Self {
        let mut options = Self {
            what: Vec::new(),
            seconds: Duration::from_secs(4),
            warm_up: Duration::from_secs(2),
            rounds: 1,
            in_flight: 32,
            dev_relay: false,
            servers: ["library", "library-sqlite", "serve", "node", "bun"]
                .map(str::to_owned)
                .to_vec(),
            out: None,
            offers: 100_000,
            sessions: 10_000,
            idle: Duration::from_secs(60),
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut next = || words.next().copied().unwrap_or_default();
            match *word {
                "--seconds" => options.seconds = secs(next()),
                "--warm-up" => options.warm_up = secs(next()),
                "--rounds" => options.rounds = number(next()),
                "--in-flight" => options.in_flight = number(next()),
                "--relay" => options.dev_relay = next() == "dev",
                "--servers" => options.servers = next().split(',').map(str::to_owned).collect(),
                "--out" => options.out = Some(next().into()),
                "--offers" => options.offers = number(next()),
                "--sessions" => options.sessions = number(next()),
                "--idle" => options.idle = secs(next()),
                // That it works, in a few seconds.
                "--test" => {
                    options.what = vec!["compare".into(), "latency".into()];
                    options.servers = vec!["library".into(), "library-sqlite".into()];
                    options.seconds = Duration::from_millis(300);
                    options.warm_up = Duration::from_millis(200);
                }
                what if WHAT.contains(&what) => options.what.push(what.to_owned()),
                other => panic!("{other}: not one of {WHAT:?} or an option"),
            }
        }
        options
    }

    pub(crate) fn wants(&self, what: &str) -> bool {
        self.what.is_empty() || self.what.iter().any(|wanted| wanted == what)
    }

    /// A relay of its own for each measurement.
    pub(crate) fn relay(&self) -> Process {
        if self.dev_relay {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tollkeeper"));
            return Process::start(command.args(["relay", "--listen", "127.0.0.1:0", "--json"]));
        }
        Process::role("relay", &Value::Null)
    }

    pub(crate) fn relay_name(&self) -> &'static str {
        if self.dev_relay { "dev" } else { "light" }
    }

    /// What every line says of its circumstances.
    pub(crate) fn setting(&self) -> Value {
        json!({ "relay": self.relay_name(), "seconds": self.seconds.as_secs_f64() })
    }
}

fn secs(text: &str) -> Duration {
    Duration::from_secs_f64(
        text.parse()
            .unwrap_or_else(|_| panic!("{text}: not seconds")),
    )
}

fn number(text: &str) -> usize {
    text.parse()
        .unwrap_or_else(|_| panic!("{text}: not a number"))
}
