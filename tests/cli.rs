//! The binary as its users meet it: a relay, a server and clients, each in a process of its own.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

#[path = "support/binary.rs"]
mod binary;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use binary::{Relay, Scratch, Server, mini_mcp};

#[test]
fn a_paid_call_over_three_processes_in_the_clear_and_encrypted() {
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let ledger = scratch.path("books.db").display().to_string();
    let server = Server::start(
        &scratch,
        &relay,
        &["--price", "tool:add=10 sat", "--ledger", &ledger],
    );
    assert_eq!(server.ready["priced"], 1);
    assert_eq!(server.ready["relays"], json!([relay.url]));
    assert_eq!(server.ready["pubkey"].as_str().map(str::len), Some(64));

    for (n, mode) in ["disabled", "required", "optional"].into_iter().enumerate() {
        let words = [
            "tool:add",
            "a=1",
            "b=2",
            "--budget",
            "10 sats",
            "--encryption",
            mode,
        ];
        let called = server.call(&scratch, mode, &words);
        assert_eq!(called.text(), "3", "{mode}");
        assert_eq!(called.last["paid"], json!({"amount": 10, "unit": "sats"}));
        assert_eq!(scratch.executions(), n + 1);
        let events: Vec<&str> = called
            .lines
            .iter()
            .filter_map(|line| line["event"].as_str())
            .collect();
        assert!(
            events.contains(&"payment_required") && events.contains(&"payment_sent"),
            "{events:?}"
        );
    }

    let mut command = scratch.tollkeeper("server");
    command.args(["ledger", "list", "--json", "--ledger", &ledger]);
    let rows = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert_eq!(rows.lines().count(), 3, "{rows}");
    for row in rows.lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        assert_eq!(
            (&row["state"], &row["settled"]),
            (&json!("delivered"), &json!(10))
        );
        let id = row["id"].as_str().unwrap();
        for (id, flags, said) in [
            (&id[..8], &[][..], "Now: done; the answer"),
            (id, &["--json"], "\"history\""),
        ] {
            let mut command = scratch.tollkeeper("server");
            command
                .args(["ledger", "show", id, "--ledger", &ledger])
                .args(flags);
            let told = String::from_utf8(command.output().unwrap().stdout).unwrap();
            assert!(told.contains(said), "{told}");
        }
    }
    the_books_add_up(&scratch, &ledger);
    let mut command = scratch.tollkeeper("server");
    command.args(["ledger", "show", "00000000", "--ledger", &ledger]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
}

/// Three paid calls of 10 sats, added up and written out.
fn the_books_add_up(scratch: &Scratch, ledger: &str) {
    let ledger_says = |words: &[&str]| {
        let mut command = scratch.tollkeeper("server");
        command.args(["ledger"]).args(words);
        command.args(["--ledger", ledger]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let report = ledger_says(&["report", "--json", "--by", "capability,client,rail,day"]);
    let lines: Vec<Value> = report
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let total = lines.iter().find(|line| line["event"] == "total").unwrap();
    let expected = [
        ("payments", 3),
        ("amount", 30),
        ("delivered", 3),
        ("owed", 0),
    ];
    for (figure, value) in expected {
        assert_eq!(total[figure], value, "{report}");
    }
    let group = lines
        .iter()
        .find(|line| line["event"] == "revenue")
        .unwrap();
    assert_eq!(
        (&group["capability"], &group["rail"]),
        (&json!("tool:add"), &json!("fake"))
    );
    assert_eq!(group["day"].as_str().map(str::len), Some(10));
    assert!(ledger_says(&["report"]).contains("30 sats  3 payments, 3 delivered"));
    assert!(ledger_says(&["report", "--until", "2020-01-01"]).contains("nothing has come in"));
    let exported = ledger_says(&["export"]);
    assert_eq!(exported.lines().count(), 3);
    for line in exported.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&line["state"], &line["rail"]),
            (&json!("delivered"), &json!("fake"))
        );
        assert!(line["reference"].is_string() && line["delivered_at"].is_string());
    }
    let csv = ledger_says(&["export", "--format", "csv"]);
    assert_eq!(csv.lines().count(), 4);
    assert!(csv.starts_with("id,quoted_at,state,"));
}

#[test]
fn free_calls_prompts_and_resources_need_no_money() {
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let server = Server::start(&scratch, &relay, &["--ledger", "memory"]);
    let called = server.call(&scratch, "a", &["tool:echo", "text=12"]);
    assert_eq!(called.text(), "12");
    assert_eq!(called.last["paid"], json!({"amount": 0, "unit": "sats"}));
    let called = server.call(&scratch, "a", &["prompt:greet", "who=1"]);
    assert_eq!(
        called.last["result"]["messages"][0]["content"]["text"],
        "Greet 1"
    );
    let called = server.call(&scratch, "a", &["resource:mini://one"]);
    assert_eq!(
        called.last["result"]["contents"][0]["text"],
        "read mini://one"
    );

    let failed = server.call(&scratch, "a", &["tool:nonesuch"]);
    assert_eq!(failed.code, Some(1));
    assert_eq!(failed.last["event"], "error");
    assert_eq!(failed.last["code"], -32602);
    assert_eq!(
        failed.last["data"]["spent"],
        json!({"amount": 0, "unit": "sats"})
    );
}

#[test]
fn nothing_is_paid_beyond_the_budget() {
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let server = Server::start(
        &scratch,
        &relay,
        &["--price", "tool:add=10 sat", "--ledger", "memory"],
    );
    for budget in [
        &[][..],
        &["--budget", "9 sats"],
        &["--budget", "5 usd"],
        &["--budget", "20 sats", "--per-call", "9 sats"],
    ] {
        let words = [&["tool:add", "a=1", "b=2"][..], budget].concat();
        let called = server.call(&scratch, "a", &words);
        assert_eq!(called.code, Some(1), "{budget:?} {called:?}");
        assert_eq!(called.last["data"]["spent"]["amount"], 0, "{budget:?}");
        assert!(
            called
                .lines
                .iter()
                .all(|line| line["event"] != "payment_sent"),
            "{budget:?}"
        );
    }
}

#[test]
fn a_call_that_cannot_succeed_is_refused_before_a_price_is_named() {
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let flags = ["--price", "tool:*=10 sat", "--ledger", "memory"];
    let server = Server::start(&scratch, &relay, &flags);
    for (words, said) in [
        (&["tool:nonesuch"][..], "there is no such tool"),
        (&["tool:add", "a=1"], "the argument \"b\" is missing"),
        (
            &["tool:add", "a=1", "b=two"],
            "the argument \"b\" wants the type number",
        ),
    ] {
        let called = server.call(&scratch, "a", &[words, &["--budget", "10 sats"]].concat());
        assert_eq!(called.code, Some(1), "{called:?}");
        assert_eq!(called.last["data"]["spent"]["amount"], 0, "{called:?}");
        assert_eq!(called.last["code"], -32602, "{called:?}");
        let message = called.last["message"].as_str().unwrap_or_default();
        assert!(message.contains(said), "{called:?}");
    }
    assert_eq!(scratch.executions(), 0);
    let flags = [&flags[..], &["--check-calls", "false"]].concat();
    let server = Server::start(&scratch, &relay, &flags);
    let called = server.call(&scratch, "a", &["tool:nonesuch", "--budget", "10 sats"]);
    assert_eq!(called.last["code"], -32602);
    assert_eq!(called.last["data"]["spent"]["amount"], 10);
}

#[test]
fn a_crash_of_the_child_gives_the_paid_call_back() {
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let server = Server::start(
        &scratch,
        &relay,
        &["--price", "tool:crash=3 sat", "--ledger", "memory"],
    );
    let once = format!("once={}", scratch.path("crashed").display());

    let crashed = server.call(&scratch, "a", &["tool:crash", &once, "--budget", "3 sats"]);
    assert_eq!(crashed.code, Some(1));
    assert_eq!(crashed.last["code"], -32000);
    assert_eq!(
        crashed.last["data"]["spent"],
        json!({"amount": 3, "unit": "sats"})
    );

    // The child is restarted, and the same call is served for the money that is there already.
    let again = server.call(&scratch, "a", &["tool:crash", &once]);
    assert_eq!(again.text(), "survived");
    assert_eq!(again.last["paid"]["amount"], 0);
}

#[test]
fn what_was_paid_survives_a_kill_and_a_new_price_list() {
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let once = format!("once={}", scratch.path("crashed").display());
    let server = Server::start(&scratch, &relay, &["--price", "tool:crash=3 sat"]);
    let crashed = server.call(&scratch, "a", &["tool:crash", &once, "--budget", "3 sats"]);
    assert_eq!(crashed.last["data"]["spent"]["amount"], 3);
    // Killed without a word.
    drop(server);

    let server = Server::start(&scratch, &relay, &["--price", "tool:*=50 sat"]);
    let again = server.call(&scratch, "a", &["tool:crash", &once]);
    assert_eq!(again.text(), "survived");
    assert_eq!(again.last["paid"]["amount"], 0);
    // That was the one execution which the money was for.
    let third = server.call(&scratch, "a", &["tool:crash", &once]);
    assert_eq!(third.code, Some(1), "{third:?}");
}

#[test]
fn the_demo_balances() {
    let scratch = Scratch::new();
    let output = scratch
        .tollkeeper("a")
        .args(["demo", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let expected = r#"{"event":"summary","free_calls":2,"paid_calls":3,"rejected_calls":1,"settled_sats":27,"executions":5,"ledger_open":0}"#;
    assert_eq!(text.lines().last(), Some(expected));
    let output = scratch.tollkeeper("a").arg("demo").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("payment_required") && !text.contains('\u{1b}'));
}

#[test]
fn a_program_that_is_no_server_is_a_failure_with_1() {
    let scratch = Scratch::new();
    let words = ["serve", "--relay", "ws://127.0.0.1:1", "--", "true"];
    let output = scratch.tollkeeper("a").args(words).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
}

/// Starts a session by hand and calls the slow tool under the ids that every client uses.
fn call_slow(client: &mut binary::Running, until: &str, label: &str) {
    client.ask(0, "initialize", &json!({
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"},
    }));
    client.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    client.say(&json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "slow", "arguments": {"until": until, "label": label}, "_meta": {"progressToken": 1}},
    }));
}

#[test]
fn equal_ids_and_progress_tokens_of_two_clients_do_not_cross() {
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let server = Server::start(&scratch, &relay, &["--ledger", "memory"]);
    let until = scratch.path("go").display().to_string();
    let mut clients = ["one", "two"].map(|label| (server.connect(&scratch, label, &[]), label));
    for (client, label) in &mut clients {
        call_slow(client, &until, label);
    }
    let mut seen = Vec::new();
    for (client, _) in &clients {
        seen.push(
            client
                .until(|line| line["method"] == "notifications/progress")
                .0,
        );
    }
    scratch.write("go", "");
    for ((client, label), first) in clients.iter().zip(seen) {
        let (answer, progress) = client.until(|line| line["id"] == 1);
        assert_eq!(answer["result"]["content"][0]["text"], *label);
        for progress in progress.iter().chain([&first]) {
            assert_eq!(progress["params"]["progressToken"], 1);
            assert_eq!(progress["params"]["message"], *label);
        }
    }
}

#[test]
fn a_client_cancels_its_own_call_only() {
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let server = Server::start(&scratch, &relay, &["--ledger", "memory"]);
    let until = scratch.path("go").display().to_string();
    let mut one = server.connect(&scratch, "one", &[]);
    let mut two = server.connect(&scratch, "two", &[]);
    call_slow(&mut one, &until, "one");
    call_slow(&mut two, &until, "two");
    for client in [&one, &two] {
        client.until(|line| line["method"] == "notifications/progress");
    }
    two.say(
        &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}),
    );
    // What is asked after the cancellation is answered after it.
    two.ask(2, "ping", &json!({}));
    let echo = json!({"name": "echo", "arguments": {"text": "after"}});
    two.ask(3, "tools/call", &echo);
    scratch.write("go", "");
    let (answer, _) = one.until(|line| line["id"] == 1);
    assert_eq!(answer["result"]["content"][0]["text"], "one");
}

#[test]
fn updates_of_a_resource_reach_its_subscriber_and_nobody_else() {
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let server = Server::start(&scratch, &relay, &["--ledger", "memory"]);
    let [mut one, mut two] = ["one", "two"].map(|home| server.connect(&scratch, home, &[]));
    for client in [&mut one, &mut two] {
        client.ask(0, "initialize", &json!({
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"},
        }));
        client.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    }
    let subscribed = one.ask(1, "resources/subscribe", &json!({"uri": "mini://one"}));
    assert_eq!(subscribed["result"], json!({}));
    two.say(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "touch", "arguments": {}}}));
    let (update, _) = one.until(|line| line["method"] == "notifications/resources/updated");
    assert_eq!(update["params"]["uri"], "mini://one");
    let (_, before) = two.until(|line| line["id"] == 1);
    assert_eq!(before, [] as [Value; 0]);
    let pong = two.ask(2, "ping", &json!({}));
    assert_eq!(pong["result"], json!({}));
}

#[test]
fn a_client_without_a_session_is_served_and_stdin_ends_connect() {
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let server = Server::start(
        &scratch,
        &relay,
        &["--price", "tool:add=2 sat", "--ledger", "memory"],
    );
    let mut client = server.connect(&scratch, "a", &["--budget", "2 sats"]);
    client.say(&json!({
        "jsonrpc": "2.0", "id": "x", "method": "tools/call",
        "params": {"name": "add", "arguments": {"a": 1, "b": 1}},
    }));
    client.say(&json!(["not", "a", "message"]));
    client.close_stdin();
    let (answer, before) = client.until(|line| line["id"] == "x");
    assert_eq!(answer["result"]["content"][0]["text"], "2");
    assert_eq!(before[0]["error"]["code"], -32600);
    assert!(client.wait().success());
    assert_eq!(client.next(), None);
}

#[test]
fn an_isolated_child_belongs_to_one_client() {
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let server = Server::start(
        &scratch,
        &relay,
        &["--ledger", "memory", "--isolate", "--max-children", "1"],
    );
    let pid = |home: &str| server.call(&scratch, home, &["tool:pid"]).text().to_owned();
    let first = pid("one");
    assert_eq!(pid("one"), first);
    // There is room for one: the idle child of the first client makes way.
    let second = pid("two");
    assert_ne!(second, first);
    assert_eq!(pid("two"), second);
    assert_ne!(pid("one"), first);
}

#[test]
fn secrets_come_from_the_environment_and_go_to_no_child() {
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let secret = "0000000000000000000000000000000000000000000000000000000000000003";
    let mut command = scratch.tollkeeper("server");
    command
        .env("TOLLKEEPER_SECRET_KEY", secret)
        .env("NWC_CONNECTION", "nostr+walletconnect://x?secret=y");
    let server = Server::start_with(command, &relay, &["--ledger", "memory"]);
    assert_eq!(
        server.ready["pubkey"],
        "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9"
    );
    for name in ["TOLLKEEPER_SECRET_KEY", "NWC_CONNECTION"] {
        let called = server.call(&scratch, "a", &["tool:env", &format!("name={name}")]);
        assert_eq!(called.text(), "(unset)");
    }
}

#[test]
fn a_key_is_kept_beside_the_ledger() {
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let ledger = scratch.path("shop/books.db").display().to_string();
    let pubkey = |_| {
        let server = Server::start(&scratch, &relay, &["--ledger", &ledger]);
        server.ready["pubkey"].clone()
    };
    assert_eq!(pubkey(1), pubkey(2));
    assert!(scratch.path("shop/books.key").is_file());
}

#[test]
fn sigterm_ends_serve_in_time_with_a_call_under_way() {
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let mut server = Server::start(&scratch, &relay, &["--ledger", "memory"]);
    let child: u32 = server
        .call(&scratch, "a", &["tool:pid"])
        .text()
        .parse()
        .unwrap();
    let mut client = server.connect(&scratch, "a", &[]);
    call_slow(
        &mut client,
        &scratch.path("never").display().to_string(),
        "x",
    );
    client.until(|line| line["method"] == "notifications/progress");

    let asked = Instant::now();
    server.running.terminate();
    assert_eq!(server.running.wait().code(), Some(0));
    assert!(
        asked.elapsed() < Duration::from_secs(4),
        "{:?}",
        asked.elapsed()
    );
    // The caller hears of it, and the child is gone.
    let (answer, _) = client.until(|line| line["id"] == 1);
    assert_eq!(answer["error"]["code"], -32000);
    let alive = std::process::Command::new("kill")
        .args(["-0", &child.to_string()])
        .output()
        .unwrap();
    assert!(!alive.status.success(), "the child outlived its gateway");
}

#[test]
fn check_names_rules_without_match_and_what_is_free() {
    let scratch = Scratch::new();
    let check = |prices: &[&str]| {
        let mut command = scratch.tollkeeper("a");
        command.args(["check", "--json"]);
        for price in prices {
            command.args(["--price", price]);
        }
        let output = command.arg("--").args(mini_mcp()).output().unwrap();
        let lines: Vec<Value> = String::from_utf8(output.stdout)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (output.status.code(), lines)
    };
    let (code, lines) = check(&[
        "tool:*=1 sat",
        "tool:add=2 sat",
        "resource:mini://item/*=3 sat",
    ]);
    assert_eq!(code, Some(0), "{lines:?}");
    let status = |name: &str| {
        let line = lines
            .iter()
            .find(|line| line["capability"] == name)
            .unwrap();
        (
            line["status"].clone(),
            line["rules"][0]["capability"].clone(),
        )
    };
    assert_eq!(status("tool:add"), (json!("priced"), json!("tool:add")));
    assert_eq!(status("tool:touch"), (json!("priced"), json!("tool:*")));
    assert_eq!(status("prompt:greet"), (json!("free"), Value::Null));
    assert_eq!(status("resource:mini://item/{id}").0, "priced");

    let (_, lines) = check(&["tool:*=1 sat", "tool:add=2 sat, on_failure=keep"]);
    let policy = |name: &str| {
        let line = lines
            .iter()
            .find(|line| line["capability"] == name)
            .unwrap();
        line["rules"][0]["on_failure"].clone()
    };
    assert_eq!(
        (policy("tool:add"), policy("tool:touch")),
        (json!("keep"), json!("restore"))
    );

    let (code, lines) = check(&["tool:nonesuch=1 sat"]);
    assert_eq!(code, Some(1));
    assert_eq!(lines.last().unwrap()["rules_without_match"], 1);
}

#[test]
fn inspect_shows_prices_and_ways_of_paying() {
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let server = Server::start(
        &scratch,
        &relay,
        &["--ledger", "memory", "--price", "tool:add=5-9 sat"],
    );
    let mut command = scratch.tollkeeper("a");
    command.args([
        "inspect",
        "--json",
        server.npub(),
        "--relay",
        &relay.url,
        "--relay",
        "ws://127.0.0.1:1",
        "--timeout",
        "30",
    ]);
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let lines: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["server_info"]["name"], "mini-mcp");
    assert_eq!(lines[0]["pmis"], json!(["fake"]));
    assert_eq!(
        lines[0]["payment_interactions"],
        json!(["transparent", "explicit_gating"])
    );
    let price = |name: &str| {
        let line = lines
            .iter()
            .find(|line| line["capability"] == name)
            .unwrap();
        line["price"].clone()
    };
    assert_eq!(
        price("tool:add"),
        json!({"min": 5, "max": 9, "unit": "sats"})
    );
    assert_eq!(price("tool:touch"), Value::Null);
    let health: Vec<Value> = lines
        .iter()
        .filter(|line| line["event"] == "relay")
        .cloned()
        .collect();
    assert_eq!(
        health,
        [
            json!({"event": "relay", "relay": relay.url, "state": "ready"}),
            json!({"event": "relay", "relay": "ws://127.0.0.1:1", "state": "down"}),
        ]
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn wrong_usage_ends_with_2_and_names_what_is_wrong() {
    let scratch = Scratch::new();
    let config = scratch.write(
        "bad.toml",
        "relays = [\"ws://127.0.0.1:1\"]\nrelay_urls = []\n",
    );
    let config = config.display().to_string();
    let relay = ["--relay", "ws://127.0.0.1:1"];
    let serve = |flags: &[&'static str]| -> Vec<String> {
        let words = ["serve"].iter().chain(flags).chain(&["--", "true"]);
        words.map(|word| (*word).to_owned()).collect()
    };
    let call = |flags: &[&'static str]| -> Vec<String> {
        let words = ["call"].iter().chain(flags).chain(&relay);
        words.map(|word| (*word).to_owned()).collect()
    };
    let npub = "npub10xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqpkge6d";
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>()
    };
    for (words, named) in [
        (serve(&[]), "relays"),
        (serve(&["--relay", "http://x"]), "relays"),
        (
            serve(&["--relay", "ws://127.0.0.1:1", "--price", "tool:a=1 sat"]),
            "--allow-fake",
        ),
        (
            serve(&["--relay", "ws://127.0.0.1:1", "--price", "tool:a=0 sat"]),
            "tool:a",
        ),
        (
            serve(&["--relay", "ws://127.0.0.1:1", "--price", "tool:a=9-1 sat"]),
            "--price",
        ),
        (
            serve(&["--relay", "ws://127.0.0.1:1", "--price", "tool:a"]),
            "--price",
        ),
        (
            serve(&[
                "--relay",
                "ws://127.0.0.1:1",
                "--allow-fake",
                "--price",
                "tool:a*b=1 sat",
                "--price",
                "tool:a*c=1 sat",
                "--price",
                "tool:a*=1sat",
            ]),
            "tool:a*",
        ),
        (
            serve(&["--relay", "ws://127.0.0.1:1", "--payment-ttl", "0"]),
            "payment_ttl",
        ),
        (serve(&["--encryption", "maybe"]), "--encryption"),
        (serve(&["--max-children", "0"]), "max_children"),
        (serve(&["--nonesuch"]), "--nonesuch"),
        (serve(&["--secret-key", "x"]), "--secret-key"),
        (words(&["serve", "--relay", "ws://127.0.0.1:1"]), "CMD"),
        (
            words(&["serve", "--config", &config, "--", "true"]),
            "relay_urls",
        ),
        (
            words(&[
                "serve",
                "--ledger",
                "memory",
                "--relay",
                "ws://127.0.0.1:1",
                "--",
                "/nonexistent",
            ]),
            "/nonexistent",
        ),
        (call(&["npub1x", "tool:a"]), "SERVER"),
        (words(&["call", npub, "tool:a"]), "relays"),
        (call(&[npub, "add"]), "CAPABILITY"),
        (call(&[npub, "tool:add", "a"]), "KEY=VALUE"),
        (call(&[npub, "tool:add", "--budget", "10"]), "--budget"),
        (
            call(&[npub, "tool:add", "--payment-interaction", "x"]),
            "--payment-interaction",
        ),
        (words(&["relay", "--listen", "0.0.0.0:0"]), "--listen"),
        (
            words(&["ledger", "list", "--ledger", "nonesuch.db"]),
            "--ledger",
        ),
        (words(&["--log", "a=b=c", "relay"]), "--log"),
        (words(&["nonesuch"]), "nonesuch"),
    ] {
        let output = scratch.tollkeeper("a").args(&words).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains(named), "{words:?} must name {named}: {said}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
}

#[test]
fn a_server_that_is_not_there_is_a_failure_with_1() {
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let mut command = scratch.tollkeeper("a");
    let nobody = "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9";
    command.args([
        "call",
        nobody,
        "tool:a",
        "--json",
        "--timeout",
        "1",
        "--relay",
        &relay.url,
    ]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let last: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(last["event"], "error");
    assert_eq!(last["data"]["spent"]["amount"], 0);
}
