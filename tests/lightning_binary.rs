//! The whole of Lightning with nothing but the binary: a relay, two wallets, a shop and a buyer, each a process of its own.
//! What is printed is read, and what must not be seen anywhere is looked for everywhere.

#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, reason = "shared with the other tests of the binary")]
#[path = "support/binary.rs"]
mod binary;

use std::fs;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use binary::{Called, PATIENCE, Relay, Running, Scratch, mini_mcp};

/// What every wallet holds at first, in sats.
const BALANCE: &str = "1000 sats";

struct Market {
    scratch: Scratch,
    relay: Relay,
    wallets: Running,
    seller: String,
    buyer: String,
}

impl Market {
    fn open(faults: &[&str]) -> Self {
        let scratch = Scratch::new();
        let relay = Relay::start(&scratch);
        let mut command = scratch.tollkeeper("wallets");
        command
            .args(["wallet", "fake", "--json", "--balance", BALANCE])
            .args(["--relay", &relay.url, "--dir"])
            .arg(scratch.path("wallets"));
        for fault in faults {
            command.args(["--fault", fault]);
        }
        let wallets = Running::start_logging(command, log_file(&scratch, "wallets.log"));
        let ready = wallets.next().expect("the wallets must become ready");
        assert_eq!(ready["event"], "ready");
        let uri = |at: usize, name: &str| {
            let wallet = &ready["wallets"][at];
            assert_eq!(wallet["name"], name);
            assert_eq!(wallet["balance"], json!({"amount": 1000, "unit": "sats"}));
            let text = fs::read_to_string(wallet["file"].as_str().unwrap()).unwrap();
            text.trim().to_owned()
        };
        Self {
            seller: uri(0, "seller"),
            buyer: uri(1, "buyer"),
            scratch,
            relay,
            wallets,
        }
    }

    fn shop(&self) -> Running {
        let mut command = self.scratch.tollkeeper("shop");
        command
            .env("NWC_CONNECTION", &self.seller)
            .args(["serve", "--json", "--lightning-network", "regtest"])
            .args([
                "--relay",
                &self.relay.url,
                "--price",
                "tool:add=21 sat",
                "--ledger",
            ])
            .arg(self.scratch.path("books.db"))
            .arg("--")
            .args(mini_mcp());
        Running::start_logging(command, log_file(&self.scratch, "shop.log"))
    }

    fn buyer(&self, npub: &str, words: &[&str]) -> Command {
        let mut command = self.scratch.tollkeeper("buyer");
        command
            .env("NWC_CONNECTION", &self.buyer)
            .args([
                "call",
                npub,
                "tool:add",
                "--json",
                "--lightning-network",
                "regtest",
            ])
            .args(["--relay", &self.relay.url, "--timeout", "30"])
            .args(words);
        command
    }

    fn call(&self, npub: &str, words: &[&str]) -> Called {
        let output = self.buyer(npub, words).output().unwrap();
        self.assert_no_secret(&String::from_utf8_lossy(&output.stderr), "call's stderr");
        let text = String::from_utf8(output.stdout).unwrap();
        self.assert_no_secret(&text, "call's stdout");
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        Called {
            code: output.status.code(),
            last: lines.last().cloned().unwrap_or_default(),
            lines,
        }
    }

    fn ledger(&self) -> Vec<Value> {
        let mut command = self.scratch.tollkeeper("shop");
        command
            .args(["ledger", "list", "--json", "--ledger"])
            .arg(self.scratch.path("books.db"));
        let output = command.output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        self.assert_no_secret(&text, "the list of the ledger");
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Neither the secrets of the connections nor an invoice stand in `text`.
    fn assert_no_secret(&self, text: &str, place: &str) {
        for uri in [&self.seller, &self.buyer] {
            let (_, after) = uri.split_once("secret=").unwrap();
            let secret = after.split('&').next().unwrap();
            assert_eq!(secret.len(), 64);
            assert!(!text.contains(secret), "a wallet's secret is in {place}");
        }
        assert!(!text.contains("lnbcrt"), "an invoice is in {place}");
    }

    /// What lists of processes and the environment of the server that is sold could show.
    fn assert_nothing_is_shown_by(&self, process: &Running) {
        let mut seen = vec![process.id()];
        seen.extend(children_of(process.id()));
        for id in seen {
            let Ok(line) = fs::read(format!("/proc/{id}/cmdline")) else {
                continue;
            };
            let line = String::from_utf8_lossy(&line).into_owned();
            assert!(!line.contains("walletconnect"), "{line}");
            self.assert_no_secret(&line, "a command line");
            if id != process.id() {
                let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
                let environment = String::from_utf8_lossy(&environment).into_owned();
                self.assert_no_secret(&environment, "the environment of a child");
            }
        }
    }
}

fn log_file(scratch: &Scratch, name: &str) -> fs::File {
    fs::File::create(scratch.path(name)).unwrap()
}

fn children_of(parent: u32) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|id: &u32| {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            // The name in brackets may hold anything; behind it come the state and the parent.
            let rest = stat.rsplit(')').next().unwrap_or_default();
            rest.split_whitespace().nth(1) == Some(&parent.to_string())
        })
        .collect()
}

#[test]
fn a_call_is_paid_from_one_wallet_to_the_other() {
    let market = Market::open(&[]);
    let mut shop = market.shop();
    let ready = shop.next().expect("serve must become ready");
    assert_eq!(ready["priced"], 1);
    let npub = ready["npub"].as_str().unwrap();

    let paid = market.call(npub, &["a=2", "b=3", "--budget", "21 sats"]);
    assert_eq!(paid.text(), "5");
    assert_eq!(paid.last["paid"], json!({"amount": 21, "unit": "sats"}));
    let events: Vec<&str> = paid
        .lines
        .iter()
        .map(|line| line["event"].as_str().unwrap())
        .collect();
    assert_eq!(events.first(), Some(&"payment_required"), "{events:?}");
    assert_eq!(events.last(), Some(&"result"), "{events:?}");
    for event in ["payment_sent", "payment_accepted"] {
        assert!(events.contains(&event), "{events:?}");
    }
    assert_eq!(market.scratch.executions(), 1);

    // Too dear, and without a budget: nothing is paid.
    for budget in [&["--budget", "20 sats"][..], &[]] {
        let refused = market.call(npub, &[&["a=2", "b=3"], budget].concat());
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert_eq!(refused.last["event"], "error");
        assert_eq!(
            refused.last["data"]["spent"],
            json!({"amount": 0, "unit": "sats"})
        );
    }
    assert_eq!(market.scratch.executions(), 1);
    let ledger = market.ledger();
    let delivered = ledger.iter().filter(|row| row["state"] == "delivered");
    let delivered: Vec<&Value> = delivered.collect();
    assert_eq!(delivered.len(), 1, "{ledger:?}");
    assert_eq!(delivered[0]["settled"], 21);
    assert_eq!(delivered[0]["pmi"], "bitcoin-lightning-bolt11");

    if cfg!(target_os = "linux") {
        assert_eq!(children_of(shop.id()).len(), 1, "the server that is sold");
    }
    market.assert_nothing_is_shown_by(&shop);
    market.assert_nothing_is_shown_by(&market.wallets);
    shop.terminate();
    assert_eq!(shop.wait().code(), Some(0));
    for log in ["shop.log", "wallets.log"] {
        let text = fs::read_to_string(market.scratch.path(log)).unwrap();
        market.assert_no_secret(&text, log);
    }
    let said = fs::read_to_string(market.scratch.path("wallets.log")).unwrap();
    assert!(said.contains("NOT MONEY"), "{said}");
    assert!(said.contains("settled"), "{said}");
}

#[test]
fn a_serve_that_is_killed_before_the_money_arrives_serves_for_it_afterwards() {
    // The money takes three seconds to arrive.
    let market = Market::open(&["buyer:hold=3"]);
    let mut shop = market.shop();
    let ready = shop.next().expect("serve must become ready");
    let npub = ready["npub"].as_str().unwrap().to_owned();
    let words = ["a=2", "b=3", "--budget", "42 sats"];
    let call = Running::start(market.buyer(&npub, &words));
    call.until(|line| line["event"] == "payment_required");
    shop.kill();
    let shop = market.shop();
    let again = shop.next().expect("serve must become ready");
    assert_eq!(again["npub"], npub.as_str());
    let until = Instant::now() + PATIENCE;
    let settled = loop {
        let settled: Vec<Value> = market
            .ledger()
            .into_iter()
            .filter(|row| !row["settled"].is_null())
            .collect();
        if !settled.is_empty() {
            break settled;
        }
        assert!(Instant::now() < until, "{:?}", market.ledger());
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert_eq!(settled.len(), 1);
    drop(call);
    // Whoever paid may ask again, and is not asked for money again.
    let served = market.call(&npub, &words);
    assert_eq!(served.text(), "5");
    let total: u64 = market
        .ledger()
        .iter()
        .filter_map(|row| row["settled"].as_u64())
        .sum();
    let executions = market.scratch.executions();
    assert_eq!(total, 21 * executions as u64, "one payment, one execution");
}

#[test]
fn the_wallets_print_what_connects_with_them_unless_told_otherwise() {
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let mut command = scratch.tollkeeper("wallets");
    command.args(["wallet", "fake", "--relay", &relay.url]);
    let mut wallets = Running::start_logging(command, log_file(&scratch, "log"));
    for name in ["seller", "buyer"] {
        let line = wallets.next().unwrap();
        let line = line.as_str().unwrap().to_owned();
        let (first, uri) = line.split_once("  ").unwrap();
        assert_eq!(first.trim(), name);
        assert!(uri.trim().starts_with("nostr+walletconnect://"), "{uri}");
    }
    wallets.terminate();
    assert_eq!(wallets.wait().code(), Some(0));
    assert_eq!(wallets.next(), None);
    let said = fs::read_to_string(scratch.path("log")).unwrap();
    assert!(
        said.contains("NOT MONEY") && !said.contains("walletconnect"),
        "{said}"
    );
}

#[test]
fn what_is_wrong_is_named() {
    let scratch = Scratch::new();
    let run = |words: &[&str]| {
        let mut command = scratch.tollkeeper("wallets");
        command.args(["wallet", "fake"]).args(words);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let relay = ["--relay", "ws://127.0.0.1:1"];
    for (words, named) in [
        (&[][..], "--relay"),
        (&["--relay", "http://x"], "relays"),
        (&["--balance", "5 usd"], "--balance"),
        (&["--balance", "2100000000000001 sats"], "sats together"),
        (&["--fault", "nobody:mute=all"], "--fault"),
        (&["--fault", "mute"], "--fault"),
        (&["--fault", "seller:invoice=ugly"], "--fault"),
        (&["--network", "litecoin"], "--network"),
    ] {
        let words = match words.first() {
            None | Some(&"--relay") => words.to_vec(),
            Some(_) => [&relay[..], words].concat(),
        };
        let (code, said) = run(&words);
        assert_eq!(code, Some(2), "{words:?}: {said}");
        assert!(said.contains(named), "{words:?}: {said}");
    }
}
