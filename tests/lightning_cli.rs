//! Selling and buying for Lightning as users meet it: the binary with a wallet's connection and no config file.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]
#![allow(dead_code, reason = "of what the tests share, this one needs a part")]

#[path = "support/binary.rs"]
mod binary;
#[path = "support/nip47_wallet.rs"]
mod nip47_wallet;

use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tollkeeper::transport::nostr::DevRelay;

use binary::{Running, Scratch, mini_mcp};
use nip47_wallet::{Act, Asked, Books, Style, Wallet, failure};

/// What runs on relays and wallets of its own.
struct World {
    scratch: Scratch,
    relay: DevRelay,
    books: Books,
}

impl World {
    async fn new() -> Self {
        Self {
            scratch: Scratch::new(),
            relay: DevRelay::start(0).await.unwrap(),
            books: Books::default(),
        }
    }

    async fn wallet(
        &self,
        style: Style,
        hook: impl Fn(&Wallet, &Asked) -> Act + Send + Sync + 'static,
    ) -> Wallet {
        Wallet::start(&self.relay.url(), style, Arc::clone(&self.books), hook).await
    }

    async fn honest(&self) -> Wallet {
        self.wallet(Style::default(), |_, _| Act::Honest).await
    }

    /// `tollkeeper` with a wallet.
    fn tollkeeper(&self, home: &str, uri: &str) -> Command {
        let mut command = self.scratch.tollkeeper(home);
        command.env("NWC_CONNECTION", uri).stdin(Stdio::null());
        command
    }

    fn serve(&self, uri: &str) -> Command {
        let mut command = self.tollkeeper("seller", uri);
        command.args([
            "serve",
            "--json",
            "--price",
            "tool:add=10 sat",
            "--relay",
            &self.relay.url(),
        ]);
        command
    }

    fn call(&self, uri: &str, npub: &str, budget: &str) -> Command {
        let mut command = self.tollkeeper("buyer", uri);
        let relay = self.relay.url();
        command.args([
            "call",
            npub,
            "tool:add",
            "a=1",
            "b=2",
            "--relay",
            &relay,
            "--timeout",
            "30",
            "--json",
        ]);
        command.args(["--budget", budget]);
        command
    }
}

async fn run(mut command: Command) -> Output {
    spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

async fn ready(mut command: Command) -> (Running, String) {
    command.arg("--").args(mini_mcp());
    spawn_blocking(move || {
        let server = Running::start(command);
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

fn secret_of(uri: &str) -> &str {
    uri.split("secret=").nth(1).unwrap()
}

/// When the buyer's wallet pays, the seller's is told: they share their books.
fn tells(seller: &Wallet) -> impl Fn(&Wallet, &Asked) -> Act + Send + Sync + 'static {
    let seller = seller.clone();
    move |wallet, asked| {
        if asked.method != "pay_invoice" {
            return Act::Honest;
        }
        let answer = wallet.honestly(asked);
        let invoice = asked.params["invoice"].as_str().unwrap();
        let paid: Vec<String> = {
            let books = wallet.books.lock().unwrap();
            books
                .iter()
                .filter(|(_, row)| row.invoice == invoice && row.settled)
                .map(|(hash, _)| hash.clone())
                .collect()
        };
        paid.iter().for_each(|hash| seller.settle(hash));
        Act::Say(answer)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_all_it_takes_to_sell_and_to_buy() {
    let world = World::new().await;
    let seller = world.honest().await;
    let buyer = world.wallet(Style::default(), tells(&seller)).await;
    let (_server, npub) = ready(world.serve(&seller.uri)).await;
    for n in 1..=2 {
        let called = run(world.call(&buyer.uri, &npub, "10 sats")).await;
        let last = last_line(&called);
        assert_eq!(called.status.code(), Some(0), "{last}");
        assert_eq!(last["result"]["content"][0]["text"], "3");
        assert_eq!(last["paid"], json!({ "amount": 10, "unit": "sats" }));
        assert_eq!(world.scratch.executions(), n);
        let said = String::from_utf8_lossy(&called.stderr).into_owned();
        assert!(!said.contains(secret_of(&buyer.uri)), "{said}");
    }
    assert_eq!(seller.asked("make_invoice")[0].params["amount"], 10_000);
    assert_eq!(buyer.asked("pay_invoice").len(), 2);
    assert!(world.books.lock().unwrap().values().all(|row| row.settled));

    // No budget, no payment, whatever the wallet holds.
    let called = run(world.call(&buyer.uri, &npub, "9 sats")).await;
    assert_eq!(called.status.code(), Some(1));
    assert_eq!(buyer.asked("pay_invoice").len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_without_notifications_is_paid_too() {
    let world = World::new().await;
    let style = Style {
        notifies: None,
        notifications: "",
        ..Style::default()
    };
    let seller = world.wallet(style, |_, _| Act::Honest).await;
    let buyer = world.honest().await;
    let (_server, npub) = ready(world.serve(&seller.uri)).await;
    let called = run(world.call(&buyer.uri, &npub, "10 sats")).await;
    assert_eq!(last_line(&called)["result"]["content"][0]["text"], "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_that_refuses_costs_nothing_and_says_so() {
    let world = World::new().await;
    let seller = world.honest().await;
    let poor = world
        .wallet(Style::default(), |_, asked| match asked.method.as_str() {
            "pay_invoice" => Act::Say(failure("INSUFFICIENT_BALANCE")),
            _ => Act::Honest,
        })
        .await;
    let (_server, npub) = ready(world.serve(&seller.uri)).await;
    let called = run(world.call(&poor.uri, &npub, "10 sats")).await;
    assert_eq!(called.status.code(), Some(1));
    assert_eq!(
        last_line(&called)["data"]["spent"]["amount"],
        0,
        "{}",
        last_line(&called)
    );
    assert_eq!(world.scratch.executions(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_wallet_is_named_at_start() {
    let world = World::new().await;
    let no_lookup = world
        .wallet(
            Style {
                methods: "make_invoice get_info",
                ..Style::default()
            },
            |_, _| Act::Honest,
        )
        .await;
    let regtest = world
        .wallet(
            Style {
                network: "regtest",
                ..Style::default()
            },
            |_, _| Act::Honest,
        )
        .await;
    let nonsense = no_lookup.uri.replace("relay=", "rely=");
    for (uri, named) in [
        (&no_lookup.uri, "lookup_invoice"),
        (&regtest.uri, "regtest"),
        (&nonsense, "relay=wss://"),
    ] {
        let mut serve = world.serve(uri);
        serve.arg("--").args(mini_mcp());
        let output = run(serve).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains("NWC_CONNECTION") && said.contains(named),
            "{said}"
        );
        assert!(!said.contains(secret_of(uri)), "{said}");
    }
    let mut allowed = world.serve(&regtest.uri);
    allowed.args(["--lightning-network", "regtest"]);
    ready(allowed).await;
    let called = run(world.call(&nonsense, &"0".repeat(64), "1 sat")).await;
    assert_eq!(called.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_may_stand_in_a_file_and_check_says_who_is_paid() {
    let world = World::new().await;
    let wallet = world.honest().await;
    let file = world
        .scratch
        .write("wallet.nwc", &format!("{}\n", wallet.uri));
    let config = world.scratch.write(
        "shop.toml",
        "[[price]]\ncapability = \"tool:add\"\namount = 10\n[rails.lightning_nwc]\nconnection_file = \"wallet.nwc\"\n",
    );
    let rails = async |words: Vec<String>| {
        let mut command = world.scratch.tollkeeper("seller");
        command.args(["check", "--json"]).args(words);
        let output = run(command).await;
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert!(!text.contains(secret_of(&wallet.uri)));
        lines
            .into_iter()
            .filter(|line| line["event"] == "rail")
            .collect::<Vec<_>>()
    };
    let price = || ["--price".to_owned(), "tool:add=10 sat".to_owned()];
    let flag = [
        "--nwc-connection-file".to_owned(),
        file.display().to_string(),
    ];
    let by_flag = rails([price().to_vec(), flag.to_vec()].concat()).await;
    let by_config = rails(vec!["--config".to_owned(), config.display().to_string()]).await;
    assert_eq!(by_flag.len(), 1);
    assert_eq!(by_flag[0]["pmi"], "bitcoin-lightning-bolt11");
    assert_eq!(by_flag, by_config);
    assert!(rails(price().to_vec()).await.is_empty());

    let mut serve = world.scratch.tollkeeper("seller");
    serve
        .args(["serve", "--json", "--relay", &world.relay.url(), "--config"])
        .arg(&config);
    ready(serve).await;
}
