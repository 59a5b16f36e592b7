//! The real binary between programs that others wrote: MCP servers from npm and PyPI are sold over a relay from npm, and
//! bought by `call`, by the official Python and npm clients through `connect`, and by an rmcp client.
//!
//! `tests/real/setup` installs them, once; these tests run it when need be. Where that cannot be done, for want of a
//! network say, they are skipped and say so, but not in CI, where a test that did not run is a test that failed.

#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[allow(
    dead_code,
    reason = "shared with tests/cli.rs, which brings its own relay and server"
)]
#[path = "support/binary.rs"]
mod binary;
#[allow(dead_code, reason = "shared with the tests of real wallets")]
#[path = "support/counterparts.rs"]
mod counterparts;

use std::process::Command;
use std::time::{Duration, Instant};

use rmcp::model::CallToolRequestParams;
use rmcp::service::{RunningService, ServiceError};
use rmcp::{RoleClient, ServiceExt};
use serde_json::{Value, json};
use tollkeeper::client::{ClientPayments, with_client_payments};
use tollkeeper::rails::fake::FakeHandler;
use tollkeeper::transport::nostr::{NostrClientTransport, NostrKeys, parse_server};
use tollkeeper::transport::rmcp::RmcpClientTransport;

use binary::{Called, PATIENCE, Running, Scratch};
use counterparts::{Counterparts, Relay};

/// The price of a sum, and of everything else that begins like it.
const PRICES: [&str; 4] = [
    "--price",
    "tool:get-sum=21 sat",
    "--price",
    "tool:get-*=5 sat",
];

/// A `serve` that is ready.
struct Shop<'a> {
    running: Running,
    ready: Value,
    scratch: &'a Scratch,
    relay: String,
}

impl<'a> Shop<'a> {
    fn open(scratch: &'a Scratch, relay: &Relay, flags: &[&str], goods: &[String]) -> Self {
        let mut command = scratch.tollkeeper("shop");
        command
            .args(["serve", "--json", "--allow-fake", "--relay", &relay.url])
            .args(["--ledger", &books_of(scratch)])
            .args(flags)
            .arg("--")
            .args(goods);
        let running = Running::start(command);
        let ready = running.next().expect("serve must become ready");
        assert_eq!(ready["event"], "ready");
        assert_eq!(ready["relays"], json!([relay.url]));
        Self {
            running,
            ready,
            scratch,
            relay: relay.url.clone(),
        }
    }

    fn npub(&self) -> &str {
        self.ready["npub"].as_str().unwrap()
    }

    /// `tollkeeper WORD` for this shop, from `home`.
    fn buyer(&self, home: &str, word: &str, flags: &[&str]) -> Command {
        let mut command = self.scratch.tollkeeper(home);
        command
            .args([
                word,
                self.npub(),
                "--relay",
                &self.relay,
                "--timeout",
                "30",
                "--allow-fake",
            ])
            .args(flags);
        command
    }

    fn call(&self, home: &str, words: &[&str]) -> Called {
        let output = self
            .buyer(home, "call", words)
            .arg("--json")
            .output()
            .unwrap();
        let lines: Vec<Value> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).expect("call --json prints JSON only"))
            .collect();
        Called {
            code: output.status.code(),
            last: lines.last().cloned().unwrap_or_default(),
            lines,
        }
    }

    /// What a script of ours reports that buys `plan` through `connect`.
    fn buy(&self, mut script: Command, plan: &Value, flags: &[&str]) -> Value {
        let connect = self.buyer("unused", "connect", flags);
        script
            .arg(plan.to_string())
            .arg(connect.get_program())
            .args(connect.get_args());
        let mut running = Running::start(script);
        let report = running.next().expect("the buyer must report");
        assert!(running.wait().success());
        report
    }

    /// The books, while the shop is open.
    fn books(&self) -> Vec<Value> {
        let books = books_of(self.scratch);
        let mut command = self.scratch.tollkeeper("shop");
        let output = command
            .args(["ledger", "list", "--json", "--ledger", &books])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Waits until the books show that `count` paid calls were served, and returns those that do.
    ///
    /// What was offered and declined is of no interest: the fake rail settles it all the same, sooner or later.
    fn delivered(&self, count: usize) -> Vec<Value> {
        let until = Instant::now() + PATIENCE;
        loop {
            let books = self.books();
            let delivered: Vec<Value> = books
                .iter()
                .filter(|row| row["state"] == "delivered")
                .cloned()
                .collect();
            if delivered.len() >= count {
                return delivered;
            }
            assert!(Instant::now() < until, "{books:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn books_of(scratch: &Scratch) -> String {
    scratch.path("books.db").display().to_string()
}

fn sats(amount: u64) -> Value {
    json!({ "amount": amount, "unit": "sats" })
}

fn assert_refused(called: &Called) {
    assert_eq!(called.code, Some(1), "{called:?}");
    assert_eq!(called.last["event"], "error", "{called:?}");
    assert_eq!(called.last["data"]["spent"], sats(0), "{called:?}");
    assert!(
        called
            .lines
            .iter()
            .all(|line| line["event"] != "payment_sent"),
        "{called:?}"
    );
}

/// Free, paid, without hope, too dear: what a call can be, under one mode of encryption.
fn sell_everything(encryption: &str) {
    let Some(real) = Counterparts::get() else {
        return;
    };
    let scratch = Scratch::new();
    let relay = real.relay(&scratch);
    let flags = [&PRICES[..], &["--encryption", encryption]].concat();
    let shop = Shop::open(&scratch, &relay, &flags, &real.everything());
    assert_eq!(shop.ready["priced"], 2);
    let call =
        |words: &[&str]| shop.call("buyer", &[words, &["--encryption", encryption]].concat());

    let free = call(&["tool:echo", "message=hi"]);
    assert_eq!(free.text(), "Echo: hi");
    assert_eq!(free.last["paid"], sats(0));
    assert_eq!(shop.books(), [Value::Null; 0]);

    let sum = ["tool:get-sum", "a=2", "b=3", "--budget"];
    let paid = call(&[&sum[..], &["21 sats"]].concat());
    assert_eq!(paid.text(), "The sum of 2 and 3 is 5.");
    assert_eq!(paid.last["paid"], sats(21));
    let books = shop.delivered(1);
    assert_eq!(books.len(), 1);
    assert_eq!(books[0]["capability"], "tool:get-sum");
    assert_eq!(
        (&books[0]["settled"], &books[0]["unit"]),
        (&json!(21), &json!("sats"))
    );

    // What cannot succeed is not even quoted.
    let unknown = call(&["tool:get-nothing", "--budget", "100 sats"]);
    assert_refused(&unknown);
    let message = unknown.last["message"].as_str().unwrap();
    assert!(message.contains("tool"), "{unknown:?}");
    assert_refused(&call(&["tool:get-sum", "a=2", "--budget", "100 sats"]));
    assert_eq!(shop.books(), books);

    assert_refused(&call(&[&sum[..], &["20 sats"]].concat()));
    assert_refused(&call(&["tool:get-sum", "a=2", "b=3"]));
}

#[test]
fn server_everything_is_sold_in_the_clear() {
    sell_everything("disabled");
}

#[test]
fn server_everything_is_sold_encrypted() {
    sell_everything("required");
}

#[test]
fn a_clock_from_pypi_is_sold() {
    let Some(real) = Counterparts::get() else {
        return;
    };
    let scratch = Scratch::new();
    let relay = real.relay(&scratch);
    let shop = Shop::open(
        &scratch,
        &relay,
        &["--price", "tool:convert_time=3 sat"],
        &real.time(),
    );
    for encryption in ["disabled", "required"] {
        let call =
            |words: &[&str]| shop.call("buyer", &[words, &["--encryption", encryption]].concat());
        let free = call(&["tool:get_current_time", "timezone=Asia/Tokyo"]);
        assert!(free.text().contains("Asia/Tokyo"), "{free:?}");

        let noon = [
            "tool:convert_time",
            "source_timezone=UTC",
            "time=\"12:00\"",
            "target_timezone=Asia/Tokyo",
            "--budget",
        ];
        let paid = call(&[&noon[..], &["3 sats"]].concat());
        assert!(paid.text().contains("T21:00:00+09:00"), "{paid:?}");
        assert_eq!(paid.last["paid"], sats(3));
        assert_eq!(shop.delivered(1)[0]["settled"], 3);
        assert_refused(&call(&[&noon[..], &["2 sats"]].concat()));
    }
}

/// What an official client buys through `connect`, launched as a desktop host launches it.
fn bought_by(interpreter: fn(&Counterparts) -> String, script: &str) {
    let Some(real) = Counterparts::get() else {
        return;
    };
    let scratch = Scratch::new();
    let relay = real.relay(&scratch);
    let shop = Shop::open(&scratch, &relay, &PRICES, &real.everything());
    let sum = |a: i64| json!({ "name": "get-sum", "arguments": { "a": a, "b": 3 } });
    // The budget is for two sums.
    let plan = json!([
        { "name": "echo", "arguments": { "message": "é\u{20ac}\n\"{" } },
        sum(2),
        { "name": "get-nothing", "arguments": {} },
        sum(40),
        sum(7),
        { "name": "echo", "arguments": { "message": "still here" } },
    ]);
    let script = real.script(&scratch, &interpreter(real), script, "buyer");
    let report = shop.buy(script, &plan, &["--budget", "50 sats"]);

    assert!(
        report["server"]["name"]
            .as_str()
            .is_some_and(|name| name.contains("everything")),
        "{report}"
    );
    let tools = report["tools"].as_array().unwrap();
    for tool in ["echo", "get-sum"] {
        assert!(tools.contains(&json!(tool)), "{report}");
    }
    let calls = report["calls"].as_array().unwrap();
    let text = |at: usize| {
        calls[at]["result"]["content"][0]["text"]
            .as_str()
            .unwrap_or_else(|| panic!("{report}"))
    };
    assert_eq!(text(0), "Echo: é\u{20ac}\n\"{");
    assert_eq!(text(1), "The sum of 2 and 3 is 5.");
    assert!(calls[2]["error"]["code"].is_i64(), "{report}");
    assert_eq!(text(3), "The sum of 40 and 3 is 43.");
    assert!(calls[4]["error"]["code"].is_i64(), "{report}");
    assert_eq!(text(5), "Echo: still here");
    shop.delivered(2);
    // Two were bought, a third was offered and declined, and nothing was asked for a tool that does not exist.
    let sold: Vec<Value> = shop
        .books()
        .iter()
        .map(|row| row["capability"].clone())
        .collect();
    assert_eq!(sold, ["tool:get-sum"; 3]);
}

#[test]
fn the_official_python_client_buys_through_connect() {
    bought_by(Counterparts::python, "buyer.py");
}

#[test]
fn the_official_npm_client_buys_through_connect() {
    bought_by(|_| "node".to_owned(), "buyer.mjs");
}

/// The person behind the official Python client is asked, and only a yes pays.
#[test]
fn the_official_python_client_asks_its_person_before_paying() {
    let Some(real) = Counterparts::get() else {
        return;
    };
    let scratch = Scratch::new();
    let relay = real.relay(&scratch);
    let shop = Shop::open(&scratch, &relay, &PRICES, &real.everything());
    for (n, (answer, paid)) in [("accept", true), ("decline", false), ("cancel", false)]
        .into_iter()
        .enumerate()
    {
        let plan = json!([
            { "name": "get-sum", "arguments": { "a": n, "b": 3 } },
            { "name": "echo", "arguments": { "message": "still here" } },
        ]);
        let mut script = real.script(&scratch, &real.python(), "buyer.py", answer);
        script.env("BUYER_ANSWER", answer);
        let flags = ["--budget", "50 sats", "--ask-above", "20 sats"];
        let report = shop.buy(script, &plan, &flags);
        let asked = report["asked"][0].as_str().unwrap();
        assert!(asked.contains("21 sats for tool:get-sum"), "{report}");
        assert_eq!(report["prices"]["get-sum"]["min"], 21, "{report}");
        assert_eq!(report["spending"]["budget"]["left"], sats(50));
        // The fake rail settles by itself, so the call may be served all the same; what matters is who was paid.
        assert_eq!(
            report["calls"][1]["result"]["content"][0]["text"],
            "Echo: still here"
        );
        let mut spending = scratch.tollkeeper(answer);
        let output = spending
            .args(["spending", "list", "--json"])
            .output()
            .unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            lines.lines().count(),
            usize::from(paid),
            "{answer}: {lines}"
        );
    }
}

/// One call, with its result as JSON.
async fn rmcp_call(
    client: &RunningService<RoleClient, ()>,
    name: &'static str,
    arguments: Value,
) -> Result<Value, ServiceError> {
    let arguments = arguments.as_object().cloned().unwrap();
    let called = client
        .call_tool(CallToolRequestParams::new(name).with_arguments(arguments))
        .await?;
    Ok(serde_json::to_value(called).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_rmcp_client_buys_over_the_relay() {
    let Some(real) = Counterparts::get() else {
        return;
    };
    let scratch = Scratch::new();
    let relay = real.relay(&scratch);
    let shop = Shop::open(&scratch, &relay, &PRICES, &real.everything());

    let (server, _) = parse_server(shop.npub()).unwrap();
    let transport =
        NostrClientTransport::builder(NostrKeys::generate(), server).relays([relay.url.clone()]);
    let payments = ClientPayments::builder()
        .handler(FakeHandler::new())
        .budget("30 sats".parse().unwrap());
    let paid = with_client_payments(
        transport.connect().await.unwrap(),
        payments.build().unwrap(),
    );
    let client = ().serve(RmcpClientTransport::new(paid.clone())).await.unwrap();

    let tools = client.list_all_tools().await.unwrap();
    assert!(tools.iter().any(|tool| tool.name == "get-sum"), "{tools:?}");
    let echo = rmcp_call(&client, "echo", json!({ "message": "hi" }))
        .await
        .unwrap();
    assert_eq!(echo["content"][0]["text"], "Echo: hi");
    let sum = rmcp_call(&client, "get-sum", json!({ "a": 2, "b": 3 }))
        .await
        .unwrap();
    assert_eq!(sum["content"][0]["text"], "The sum of 2 and 3 is 5.");
    for (name, arguments) in [
        ("get-nothing", json!({})),
        ("get-sum", json!({ "a": 4, "b": 5 })),
    ] {
        let refused = rmcp_call(&client, name, arguments).await.unwrap_err();
        assert!(
            matches!(refused, ServiceError::McpError(_)),
            "{name}: {refused:?}"
        );
    }
    assert_eq!(shop.delivered(1)[0]["settled"], 21);
    client.cancel().await.unwrap();
}

/// An MCP session by hand, up to the first call.
fn introduce(client: &mut Running) {
    let who = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "test", "version": "0" } });
    let introduced = client.ask(0, "initialize", &who);
    assert!(
        introduced["result"]["serverInfo"].is_object(),
        "{introduced}"
    );
    client.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
}

/// A tool of server-everything that reports progress and takes its time.
fn long_call(seconds: u32, steps: u32) -> Value {
    json!({
        "name": "trigger-long-running-operation",
        "arguments": { "duration": seconds, "steps": steps },
        "_meta": { "progressToken": 1 },
    })
}

#[test]
fn two_clients_at_the_same_time_get_their_own_answers_under_equal_ids() {
    let Some(real) = Counterparts::get() else {
        return;
    };
    let scratch = Scratch::new();
    let relay = real.relay(&scratch);
    let price = ["--price", "tool:trigger-long-running-operation=4 sat"];
    let shop = Shop::open(&scratch, &relay, &price, &real.everything());
    let mut clients = [2u32, 3].map(|steps| {
        let connect = shop.buyer(
            &format!("buyer-{steps}"),
            "connect",
            &["--budget", "4 sats"],
        );
        (Running::start(connect), steps)
    });
    for (client, _) in &mut clients {
        introduce(client);
    }
    for (client, steps) in &mut clients {
        client.say(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": long_call(2, *steps) }));
    }
    for (client, steps) in &clients {
        let (answer, before) = client.until(|line| line["id"] == 1);
        let text = answer["result"]["content"][0]["text"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"));
        assert!(text.contains(&format!("Steps: {steps}")), "{text}");
        let progress: Vec<&Value> = before
            .iter()
            .filter(|line| line["method"] == "notifications/progress")
            .collect();
        let of_the_tool = progress
            .iter()
            .filter(|line| line["params"]["total"] == *steps)
            .count();
        assert_eq!(of_the_tool, *steps as usize, "{before:?}");
        assert!(
            progress
                .iter()
                .all(|line| line["params"]["progressToken"] == 1),
            "{before:?}"
        );
    }
    let books = shop.delivered(2);
    assert_ne!(books[0]["client"], books[1]["client"]);
}

/// Starts a paid call that takes a while, and waits until the money was accepted.
fn pay_for_a_long_call(shop: &Shop<'_>) -> Running {
    let words = [&LONG[..], &["--budget", "8 sats", "--json"]].concat();
    let buyer = Running::start(shop.buyer("buyer", "call", &words));
    buyer.until(|line| line["event"] == "payment_accepted");
    buyer
}

const LONG: [&str; 3] = [
    "tool:trigger-long-running-operation",
    "duration=4",
    "steps=2",
];

#[test]
fn sigterm_ends_serve_in_time_and_the_paid_call_is_served_after_the_restart() {
    let Some(real) = Counterparts::get() else {
        return;
    };
    let scratch = Scratch::new();
    let relay = real.relay(&scratch);
    let price = ["--price", "tool:trigger-long-running-operation=8 sat"];
    let mut shop = Shop::open(&scratch, &relay, &price, &real.everything());
    let buyer = pay_for_a_long_call(&shop);

    let asked = Instant::now();
    shop.running.terminate();
    assert_eq!(shop.running.wait().code(), Some(0));
    assert!(
        asked.elapsed() < Duration::from_secs(4),
        "{:?}",
        asked.elapsed()
    );
    let (told, _) = buyer.until(|line| line["event"] == "error" || line["event"] == "result");
    assert_eq!(told["event"], "error", "{told}");
    assert_eq!(told["data"]["spent"], sats(8));

    // A changed price does not touch what was paid for.
    let price = ["--price", "tool:trigger-long-running-operation=9 sat"];
    let again = Shop::open(&scratch, &relay, &price, &real.everything());
    assert_eq!(again.npub(), shop.npub());
    let served = again.call("buyer", &LONG);
    assert!(served.text().contains("Steps: 2"), "{served:?}");
    assert_eq!(served.last["paid"], sats(0));
    again.delivered(1);
    // One payment was one execution: the next costs the new price.
    assert_refused(&again.call("buyer", &[&LONG[..], &["--budget", "8 sats"]].concat()));
}

#[test]
fn sigkill_loses_nothing_that_was_paid_for() {
    let Some(real) = Counterparts::get() else {
        return;
    };
    let scratch = Scratch::new();
    let relay = real.relay(&scratch);
    let price = ["--price", "tool:trigger-long-running-operation=8 sat"];
    let mut shop = Shop::open(&scratch, &relay, &price, &real.everything());
    let buyer = pay_for_a_long_call(&shop);
    shop.running.kill();
    drop(buyer);

    let again = Shop::open(&scratch, &relay, &price, &real.everything());
    assert_eq!(again.npub(), shop.npub());
    let books = again.books();
    assert_eq!(
        (books.len(), &books[0]["settled"]),
        (1, &json!(8)),
        "{books:?}"
    );
    let served = again.call("buyer", &LONG);
    assert!(served.text().contains("Steps: 2"), "{served:?}");
    assert_eq!(served.last["paid"], sats(0));
    again.delivered(1);
    assert_refused(&again.call("buyer", &LONG));
}
