//! `connect` as an MCP host meets it: prices, spending, questions to the person, errors that say what was spent, and several
//! servers as one.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is a test")]

#[allow(dead_code, reason = "shared with tests/cli.rs, which uses all of it")]
#[path = "support/binary.rs"]
mod binary;

use serde_json::{Value, json};

use binary::{Relay, Running, Scratch, Server};

struct Shop {
    scratch: Scratch,
    relay: Relay,
    server: Server,
}

impl Shop {
    fn open() -> Self {
        let scratch = Scratch::new();
        let relay = Relay::start(&scratch);
        let server = Self::server(&scratch, &relay, "10 sat");
        Self {
            scratch,
            relay,
            server,
        }
    }

    /// With a wallet that is paid only by who really pays.
    fn server(scratch: &Scratch, relay: &Relay, price: &str) -> Server {
        std::fs::create_dir_all(scratch.path("till")).unwrap();
        let mut command = scratch.tollkeeper("server");
        command.env("TOLLKEEPER_CRASH_TILL", scratch.path("till"));
        let key = scratch.path(&format!("{price}.key")).display().to_string();
        let price = format!("tool:add={price}");
        let flags = [
            "--ledger",
            "memory",
            "--price",
            &price,
            "--secret-key-file",
            &key,
        ];
        Server::start_with(command, relay, &flags)
    }

    fn connect(&self, servers: &[&str], flags: &[&str]) -> Running {
        let mut command = self.scratch.tollkeeper("buyer");
        command
            .arg("connect")
            .args(servers)
            .args([
                "--relay",
                &self.relay.url,
                "--timeout",
                "30",
                "--allow-fake",
            ])
            .args(flags)
            .env("TOLLKEEPER_CRASH_PURSE", self.scratch.path("till"));
        Running::start(command)
    }
}

fn introduce(host: &mut Running, capabilities: &Value) -> Value {
    let introduced = host.ask(
        0,
        "initialize",
        &json!({
            "protocolVersion": "2025-06-18", "capabilities": capabilities,
            "clientInfo": {"name": "test", "version": "0"},
        }),
    );
    host.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    introduced["result"].clone()
}

fn add(name: &str, a: u32) -> Value {
    json!({"name": name, "arguments": {"a": a, "b": 1}})
}

fn spending(host: &mut Running, id: u32) -> Value {
    let read = host.ask(
        id,
        "resources/read",
        &json!({"uri": "tollkeeper://spending"}),
    );
    let text = read["result"]["contents"][0]["text"].as_str().unwrap();
    serde_json::from_str(text).unwrap()
}

fn sats(amount: u64) -> Value {
    json!({"amount": amount, "unit": "sats"})
}

#[test]
fn a_host_sees_prices_and_spending_and_errors_say_what_was_spent() {
    let shop = Shop::open();
    let mut host = shop.connect(&[shop.server.npub()], &["--budget", "25 sats"]);
    introduce(&mut host, &json!({}));

    let tools = host.ask(1, "tools/list", &json!({}));
    let tools = tools["result"]["tools"].as_array().unwrap();
    let tool = |name: &str| tools.iter().find(|tool| tool["name"] == name).unwrap();
    let said = tool("add")["description"].as_str().unwrap();
    assert!(said.ends_with("Price: 10 sats per call."), "{said}");
    let meta = json!({"min": 10, "max": 10, "unit": "sats"});
    assert_eq!(tool("add")["_meta"]["tollkeeper/price"], meta);
    assert_eq!(tool("echo")["_meta"], Value::Null);

    let resources = host.ask(2, "resources/list", &json!({}));
    let resources = resources["result"]["resources"].as_array().unwrap();
    assert!(resources.len() > 1, "the server's own too");
    assert_eq!(resources.last().unwrap()["uri"], "tollkeeper://spending");
    let before = spending(&mut host, 3);
    assert_eq!(before["budget"]["left"], sats(25));

    for (id, a) in [(4, 1), (5, 2)] {
        let answer = host.ask(id, "tools/call", &add("add", a));
        assert_eq!(answer["result"]["content"][0]["text"], (a + 1).to_string());
    }
    let refused = host.ask(6, "tools/call", &add("add", 3));
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("more than is left of the budget (5 sats)"),
        "{message}"
    );
    assert_eq!(refused["error"]["data"]["rule"], "budget");
    assert_eq!(refused["error"]["data"]["spent"], sats(0));

    let after = spending(&mut host, 7);
    assert_eq!(after["budget"]["spent"], sats(20));
    assert_eq!(after["budget"]["left"], sats(5));
    assert_eq!(after["spent"]["last_hour"], json!([sats(20)]));
    assert_eq!(after["unknown"], json!([]));
}

#[test]
fn a_person_is_asked_through_the_host_and_only_a_yes_pays() {
    let shop = Shop::open();
    let flags = [
        "--budget",
        "100 sats",
        "--ask-above",
        "5 sats",
        "--ask-timeout",
        "2",
    ];
    let mut host = shop.connect(&[shop.server.npub()], &flags);
    introduce(&mut host, &json!({"elicitation": {}}));
    for (id, (answer, paid)) in [
        (
            Some(json!({"action": "accept", "content": {"pay": true}})),
            true,
        ),
        (
            Some(json!({"action": "accept", "content": {"pay": false}})),
            false,
        ),
        (
            Some(json!({"action": "accept", "content": {"pay": "true"}})),
            false,
        ),
        (Some(json!({"action": "accept"})), false),
        (Some(json!({"action": "decline"})), false),
        (None, false),
    ]
    .into_iter()
    .enumerate()
    {
        let id = id + 1;
        host.say(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": add("add", id as u32)}));
        let (question, _) = host.until(|line| line["method"] == "elicitation/create");
        let message = question["params"]["message"].as_str().unwrap();
        assert!(message.contains("10 sats for tool:add"), "{message}");
        assert!(message.contains("of the budget"), "{message}");
        assert_eq!(
            question["params"]["requestedSchema"]["required"],
            json!(["pay"])
        );
        if let Some(answer) = &answer {
            host.say(&json!({"jsonrpc": "2.0", "id": question["id"], "result": answer}));
        }
        let (answered, before) = host.until(|line| line["id"] == id);
        assert_eq!(
            answered["result"].is_object(),
            paid,
            "{answer:?}: {answered}"
        );
        if !paid {
            assert_eq!(answered["error"]["data"]["rule"], "ask_above");
        }
        if answer.is_none() {
            let taken_back = before
                .iter()
                .find(|line| line["method"] == "notifications/cancelled")
                .cloned()
                .unwrap_or_else(|| {
                    host.until(|line| line["method"] == "notifications/cancelled")
                        .0
                });
            assert_eq!(taken_back["params"]["requestId"], question["id"]);
        }
    }
    assert_eq!(shop.scratch.executions(), 1);

    // A host that cannot ask: nobody agreed.
    let mut host = shop.connect(&[shop.server.npub()], &flags);
    introduce(&mut host, &json!({}));
    let refused = host.ask(1, "tools/call", &add("add", 50));
    assert_eq!(refused["error"]["data"]["rule"], "ask_above");
}

#[test]
fn several_servers_look_like_one_and_share_one_budget() {
    let shop = Shop::open();
    let other = Shop::server(&shop.scratch, &shop.relay, "3 sat");
    let (one, two) = (
        format!("one={}", shop.server.npub()),
        format!("two={}", other.npub()),
    );
    let servers = ["--server", &one, "--server", &two];
    let mut host = shop.connect(&servers, &["--budget", "15 sats"]);
    let introduced = introduce(&mut host, &json!({}));
    assert_eq!(introduced["serverInfo"]["name"], "tollkeeper");
    for capability in ["tools", "prompts", "resources"] {
        assert!(
            introduced["capabilities"][capability].is_object(),
            "{introduced}"
        );
    }

    let tools = host.ask(1, "tools/list", &json!({}));
    let tools = tools["result"]["tools"].as_array().unwrap();
    for (name, price) in [("one_add", 10), ("two_add", 3)] {
        let tool = tools.iter().find(|tool| tool["name"] == name).unwrap();
        assert_eq!(tool["_meta"]["tollkeeper/price"]["min"], price);
    }
    for (id, name, text) in [(2, "one_add", "8"), (3, "two_add", "8")] {
        let answer = host.ask(id, "tools/call", &add(name, 7));
        assert_eq!(answer["result"]["content"][0]["text"], text, "{answer}");
    }
    let refused = host.ask(4, "tools/call", &add("two_add", 8));
    assert_eq!(refused["error"]["data"]["rule"], "budget", "{refused}");
    assert_eq!(spending(&mut host, 5)["budget"]["spent"], sats(13));

    let prompt = host.ask(
        6,
        "prompts/get",
        &json!({"name": "two_greet", "arguments": {"who": "me"}}),
    );
    assert_eq!(
        prompt["result"]["messages"][0]["content"]["text"],
        "Greet me"
    );
    let resources = host.ask(7, "resources/list", &json!({}));
    let uris: Vec<&Value> = resources["result"]["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|resource| &resource["uri"])
        .collect();
    assert!(uris.contains(&&json!("one+mini://one")), "{uris:?}");
    assert!(uris.contains(&&json!("two+mini://one")), "{uris:?}");
    assert!(uris.contains(&&json!("tollkeeper://spending")), "{uris:?}");
    let read = host.ask(8, "resources/read", &json!({"uri": "two+mini://one"}));
    let contents = &read["result"]["contents"][0];
    assert_eq!(
        (&contents["text"], &contents["uri"]),
        (&json!("read mini://one"), &json!("two+mini://one"))
    );

    for (id, name) in [(9, "add"), (10, "three_add"), (11, "")] {
        let wrong = host.ask(id, "tools/call", &add(name, 1));
        assert_eq!(wrong["error"]["code"], -32602, "{wrong}");
        assert!(
            wrong["error"]["message"]
                .as_str()
                .unwrap()
                .contains("one_…")
        );
    }
    assert_eq!(host.ask(12, "ping", &json!({}))["result"], json!({}));
    assert_eq!(
        host.ask(13, "nonesuch", &json!({}))["error"]["code"],
        -32601
    );
    host.close_stdin();
    assert!(host.wait().success());
}

#[test]
fn names_of_servers_are_checked() {
    let scratch = Scratch::new();
    for servers in [
        &["--server", "npub1x"][..],
        &["--server", "A=npub1x"],
        &["--server", "a_b=npub1x"],
        &["--server", "a=npub1x", "--server", "a=npub1y"],
        &["npub1x", "--server", "a=npub1y"],
        &[],
    ] {
        let mut command = scratch.tollkeeper("a");
        let command = command.arg("connect").args(servers);
        let output = command
            .args(["--relay", "ws://127.0.0.1:1"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{servers:?}");
    }
}
