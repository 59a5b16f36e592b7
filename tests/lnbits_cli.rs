//! Selling and buying over LNbits as users meet it: the binary with an address and a key, against an LNbits on loopback.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]
#![allow(dead_code, reason = "of what the tests share, this one needs a part")]

#[path = "support/binary.rs"]
mod binary;
#[path = "support/fake_lnbits.rs"]
mod fake_lnbits;
#[path = "support/http_service.rs"]
mod http_service;

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tokio::task::spawn_blocking;
use tollkeeper::transport::nostr::DevRelay;

use binary::{Running, Scratch, mini_mcp};
use fake_lnbits::{ADMIN_KEY, FakeLnbits, INVOICE_KEY, Prank, Question};
use http_service::{HttpService, Reply};

/// A relay, and one LNbits whose one wallet is both the seller's and the buyer's.
struct World {
    scratch: Scratch,
    relay: DevRelay,
    lnbits: FakeLnbits,
}

impl World {
    async fn new() -> Self {
        Self {
            scratch: Scratch::new(),
            relay: DevRelay::start(0).await.unwrap(),
            lnbits: FakeLnbits::start().await,
        }
    }

    fn seller(&self, flags: &[&str]) -> Command {
        let mut command = self.scratch.tollkeeper("seller");
        command
            .env("LNBITS_URL", self.lnbits.url())
            .env("LNBITS_INVOICE_KEY", INVOICE_KEY)
            .stdin(Stdio::null())
            .args(["serve", "--json", "--relay", &self.relay.url()])
            .args(["--log", "trace,tollkeeper=trace"])
            .args(flags);
        command
    }

    fn buyer(&self, npub: &str) -> Command {
        let mut command = self.scratch.tollkeeper("buyer");
        command
            .env("LNBITS_URL", self.lnbits.url())
            .env("LNBITS_ADMIN_KEY", ADMIN_KEY)
            .stdin(Stdio::null())
            .args(["call", npub, "tool:add", "a=1", "b=2"])
            .args(["--relay", &self.relay.url(), "--timeout", "30", "--json"])
            .args(["--budget", "100 sats", "--log", "trace,tollkeeper=trace"]);
        command
    }
}

async fn run(mut command: Command) -> Output {
    spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

/// A server that has begun, with what it writes to stderr in a file.
async fn ready(mut command: Command, log: &std::path::Path) -> (Running, String) {
    let log = std::fs::File::create(log).unwrap();
    command.arg("--").args(mini_mcp());
    spawn_blocking(move || {
        let server = Running::start_logging(command, log);
        let ready = server.next().expect("serve must become ready");
        let npub = ready["npub"].as_str().unwrap().to_owned();
        (server, npub)
    })
    .await
    .unwrap()
}

fn last_line(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap_or("null")).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What is secret in all of this: keys, preimages, invoices.
fn nothing_secret_in(text: &str) {
    for secret in [INVOICE_KEY, ADMIN_KEY, "lnbc"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_priced_in_dollars_is_paid_in_sats_and_no_secret_is_written_anywhere() {
    let world = World::new().await;
    let flags = [
        "--price",
        "tool:add=0.05 usd",
        "--rate",
        "usd=65000",
        "--rate-margin",
        "1%",
    ];
    let log = world.scratch.path("serve.log");
    let (server, npub) = ready(world.seller(&flags), &log).await;
    let bought = run(world.buyer(&npub)).await;
    assert_eq!(bought.status.code(), Some(0), "{}", said(&bought));
    let result = last_line(&bought);
    assert_eq!(result["event"], "result");
    assert_eq!(result["paid"]["amount"], 78);
    assert_eq!(result["paid"]["unit"], "sats");
    assert_eq!(world.lnbits.payments(), 1);

    // Every library writes what it can into these logs.
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.contains("TRACE"), "the log must hold everything: {log}");
    nothing_secret_in(&log);
    nothing_secret_in(&said(&bought));

    let ledger = |words: &[&str]| {
        let mut command = world.scratch.tollkeeper("seller");
        command.arg("ledger").args(words).arg("--json");
        command
    };
    let row = last_line(&run(ledger(&["list"])).await);
    assert_eq!(row["amount"], 78);
    let id = row["id"].as_str().unwrap().to_owned();
    let shown = last_line(&run(ledger(&["show", &id])).await);
    assert_eq!(shown["meta"]["tollkeeper/price"]["amount"], 5);
    assert_eq!(
        shown["meta"]["tollkeeper/rate"]["from"]["amount"],
        6_500_000
    );
    spawn_blocking(move || drop(server)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_wrong_end_the_start_with_what_is_wrong() {
    let world = World::new().await;
    let price = ["--price", "tool:add=10 sat"];
    let mut command = world.seller(&price);
    command.env("LNBITS_INVOICE_KEY", "00112233445566778899aabbccddeeff");
    command.arg("--").args(mini_mcp());
    let output = run(command).await;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("does not know this key"));
    assert!(!said(&output).contains("00112233445566778899aabbccddeeff"));

    world.lnbits.prank(
        Question::Wallet,
        Prank::Reply(Reply::Redirect(307, "/first_install".to_owned())),
    );
    let mut command = world.seller(&price);
    command.arg("--").args(mini_mcp());
    let output = run(command).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("/first_install"),
        "{}",
        said(&output)
    );

    // The buyer's key cannot pay.
    let log = world.scratch.path("serve.log");
    let (server, npub) = ready(world.seller(&price), &log).await;
    let mut command = world.buyer(&npub);
    command.env("LNBITS_ADMIN_KEY", INVOICE_KEY);
    let output = run(command).await;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("admin key"));
    nothing_secret_in(&said(&output));
    assert_eq!(world.lnbits.payments(), 0);
    spawn_blocking(move || drop(server)).await.unwrap();
}

/// Two wallets for one payment method: which one was meant is not guessed.
#[tokio::test(flavor = "multi_thread")]
async fn two_lightning_wallets_are_refused_by_name_unless_a_flag_decides() {
    let world = World::new().await;
    let uri = format!(
        "nostr+walletconnect://{}?relay=ws://127.0.0.1:1&secret={}",
        "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
        "01".repeat(32)
    );
    let price = ["--price", "tool:add=10 sat"];
    let mut command = world.seller(&price);
    command
        .env("NWC_CONNECTION", &uri)
        .arg("--")
        .args(mini_mcp());
    let output = run(command).await;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    for name in [
        "rails.lightning_nwc",
        "rails.lightning_lnbits",
        "NWC_CONNECTION",
        "LNBITS_INVOICE_KEY",
    ] {
        assert!(said(&output).contains(name), "{name}: {}", said(&output));
    }
    assert!(!said(&output).contains("0101"));

    let mut command =
        world.buyer("npub10xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqpkge6d");
    command.env("NWC_CONNECTION", &uri);
    let output = run(command).await;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(
        said(&output).contains("LNBITS_ADMIN_KEY"),
        "{}",
        said(&output)
    );

    // A flag is a decision.
    let key = world
        .scratch
        .write("lnbits.key", &format!("{INVOICE_KEY}\n"));
    let key = key.display().to_string();
    let flags = [&price[..], &["--lnbits-key-file", &key]].concat();
    let log = world.scratch.path("serve.log");
    let mut command = world.seller(&flags);
    command
        .env("NWC_CONNECTION", &uri)
        .env_remove("LNBITS_INVOICE_KEY");
    let (server, _) = ready(command, &log).await;
    spawn_blocking(move || drop(server)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn check_shows_what_prices_are_in_sats() {
    let world = World::new().await;
    let rates = HttpService::answering(|asked| {
        assert_eq!(asked.path, "/v1?token=secret");
        Reply::Answer(200, r#"{"EUR":50000,"GBP":1}"#.to_owned())
    })
    .await;
    let config = format!(
        r#"
        [[price]]
        capability = "tool:add"
        amount = 5
        max_amount = 50
        unit = "usd-cents"
        [[price]]
        capability = "tool:other"
        amount = 1
        unit = "eur-cents"
        [[price]]
        capability = "tool:cheap"
        amount = 3
        [rates]
        margin = "1%"
        [rates.usd]
        fixed = "65000"
        [rates.eur]
        url = "{0}/v1?token=secret#/EUR"
        between = ["20000", "200000"]
        [rails.lightning_lnbits]
        url = "{1}"
        "#,
        rates.url(),
        world.lnbits.url()
    );
    let file = world
        .scratch
        .write("shop.toml", &config)
        .display()
        .to_string();
    let check = |flags: &[&str]| {
        let mut command = world.scratch.tollkeeper("seller");
        command
            .env("LNBITS_INVOICE_KEY", INVOICE_KEY)
            .args(["check", "--config", &file])
            .args(flags);
        command
    };
    let output = run(check(&[])).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}{}", said(&output));
    for line in [
        "paid by  bitcoin-lightning-bolt11  (LNbits at 127.0.0.1",
        "1 bitcoin = 65000.00 usd  (fixed, margin 1%)",
        "tool:add  0.05 usd to 0.50 usd  is 78 sats to 777 sats",
        "1 bitcoin = 50000.00 eur  (seen now, margin 1%)",
        "tool:other  0.01 eur  is 21 sats",
        "tool:cheap  3 sats",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("secret"));
    nothing_secret_in(&text);

    let output = run(check(&["--json"])).await;
    let lines: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let converted: Vec<&Value> = lines
        .iter()
        .filter(|line| line["event"] == "converted")
        .collect();
    assert_eq!(converted.len(), 2);
    assert_eq!(converted[0]["charged"]["most"]["amount"], 777);

    // Without a rate that can be believed, nothing would be sold: that is said, and is no success.
    let output = run(check(&["--rate-between", "eur=60000-70000"])).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("eur-cents"), "{}", said(&output));
    // And a price for which there is no rate at all does not start.
    let mut command = world.seller(&["--price", "tool:add=0.05 gbp"]);
    command.arg("--").args(mini_mcp());
    let output = run(command).await;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("gbp-pence"), "{}", said(&output));
}
