//! What a server sells itself: licences of its own and money paid ahead, through the real binary.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/binary.rs"]
mod binary;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use binary::{Called, Relay, Scratch, Server};

const CONFIG: &str = r#"
    ledger = "books.db"
    [[price]]
    capability = "tool:add"
    amount = 10
    [licence_sale]
    amount = 1000
    days = 30
    covers = ["tool:add"]
    [balance]
    min_top_up = 20
    max_top_up = 100
    most = 150
"#;

struct Shop {
    scratch: Scratch,
    relay: Relay,
}

impl Shop {
    fn new() -> Self {
        let scratch = Scratch::new();
        let relay = Relay::start(&scratch);
        scratch.write("shop.toml", CONFIG);
        Self { scratch, relay }
    }

    fn serve(&self) -> Server {
        let config = self.scratch.path("shop.toml").display().to_string();
        Server::start(&self.scratch, &self.relay, &["--config", &config])
    }

    fn buy(&self, server: &Server, home: &str, words: &[&str]) -> Called {
        let words = [words, &["--budget", "10000 sats"]].concat();
        server.call(&self.scratch, home, &words)
    }

    /// The entries for one tool.
    fn entries(&self, capability: &str) -> Vec<Value> {
        let all = self.books(&["ledger", "list"]);
        let of = all.into_iter();
        of.filter(|entry| entry["capability"] == capability)
            .collect()
    }

    /// What a command about the books prints, as JSON lines.
    fn books(&self, words: &[&str]) -> Vec<Value> {
        let ledger = self.scratch.path("books.db").display().to_string();
        let mut command = self.scratch.tollkeeper("server");
        command.args(words).args(["--json", "--ledger", &ledger]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {said}");
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines = lines.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// What an HTTP server on loopback answers: the status and the body.
fn http(address: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

#[test]
fn verifiers_of_others_can_ask_about_our_licences() {
    let shop = Shop::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    shop.scratch.write(
        "shop.toml",
        &format!("licence_http = \"{address}\"\n{CONFIG}"),
    );
    let server = shop.serve();
    let server_id = server.ready["pubkey"].as_str().unwrap();
    let bought = shop.buy(&server, "a", &["tool:buy_licence"]);
    let id = bought.last["result"]["structuredContent"]["id"]
        .as_str()
        .unwrap();
    let verify = |token: &str, server_id: &str| {
        let body = json!({"token": token, "serverId": server_id}).to_string();
        http(&address, "POST", "/api/mcp/licenses/verify", &body).1
    };
    let good = verify(bought.text(), server_id);
    assert_eq!(
        (&good["ok"], &good["claims"]["jti"]),
        (&json!(true), &json!(id))
    );
    assert_eq!(
        verify(bought.text(), "other"),
        json!({"ok": false, "error": "server_mismatch"})
    );
    assert_eq!(verify("x.y.z", server_id)["error"], "invalid_token");
    let revoked = |since: &str| {
        let path = format!("/api/mcp/licenses/revoked?since={since}&serverId={server_id}");
        http(&address, "GET", &path, "").1
    };
    let nothing = revoked("2026-01-01T00:00:00.000Z");
    assert_eq!(nothing, json!({"revocations": [], "nextCursor": "0"}));
    shop.books(&["licence", "revoke", id]);
    let page = revoked("0");
    assert_eq!(
        (&page["revocations"][0]["id"], &page["nextCursor"]),
        (&json!(id), &json!("1"))
    );
    assert!(
        page["revocations"][0]["expiresAt"]
            .as_str()
            .unwrap()
            .ends_with('Z')
    );
    assert_eq!(revoked("1"), json!({"revocations": [], "nextCursor": "1"}));
    until(|| verify(bought.text(), server_id)["error"] == "revoked");
    assert_eq!(http(&address, "GET", "/", "").0, 404);
    assert_eq!(
        http(&address, "POST", "/api/mcp/licenses/verify", "{").0,
        400
    );
}

fn until(mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_licence_is_bought_used_rotated_and_taken_back() {
    let shop = Shop::new();
    let mut server = shop.serve();
    // In the clear nothing is sold that hands out a secret.
    let refused = shop.buy(
        &server,
        "a",
        &["tool:buy_licence", "--encryption", "disabled"],
    );
    assert_eq!(refused.last["code"], -32602, "{refused:?}");
    assert_eq!(refused.last["data"]["spent"]["amount"], 0);

    let bought = shop.buy(&server, "a", &["tool:buy_licence"]);
    assert_eq!(bought.last["paid"]["amount"], 1000);
    let file = shop
        .scratch
        .write("a.licence", bought.text())
        .display()
        .to_string();
    let with_licence = |server: &Server, home: &str| {
        let [a, b] = binary::three();
        let words = ["tool:add", &a, &b, "--licence-file", &file];
        server.call(&shop.scratch, home, &words)
    };
    assert_eq!(with_licence(&server, "a").text(), "3");
    // Bound to the key that paid for it.
    assert_eq!(with_licence(&server, "thief").code, Some(1));

    // A key that signs from now on: what was sold before still counts, and so does what is sold after, without a restart.
    shop.books(&["licence", "rotate"]);
    assert_eq!(with_licence(&server, "a").text(), "3");
    let second = shop.buy(&server, "b", &["tool:buy_licence"]);
    let newer = shop
        .scratch
        .write("b.licence", second.text())
        .display()
        .to_string();
    let words = ["tool:add", "a=2", "b=2", "--licence-file", &newer];
    assert_eq!(server.call(&shop.scratch, "b", &words).text(), "4");

    // Taken back by hand: within seconds, and after a restart at once.
    let listed = shop.books(&["licence", "list"]);
    let id = bought.last["result"]["structuredContent"]["id"]
        .as_str()
        .unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!(shop.books(&["licence", "revoke", id])[0]["id"], id);
    until(|| with_licence(&server, "a").code == Some(1));
    server.running.kill();
    let server = shop.serve();
    assert_eq!(with_licence(&server, "a").code, Some(1));
    assert_eq!(server.call(&shop.scratch, "b", &words).text(), "4");

    // Given by hand.
    let key = shop.books(&["ledger", "list"])[0]["client"]
        .as_str()
        .unwrap()
        .to_owned();
    let given = &shop.books(&["licence", "issue", "--client", &key, "--covers", "tool:*"])[0];
    let file = shop
        .scratch
        .write("given", given["licence"].as_str().unwrap());
    let file = file.display().to_string();
    let words = ["tool:add", "a=5", "b=5", "--licence-file", &file];
    assert_eq!(server.call(&shop.scratch, "a", &words).text(), "10");
}

#[test]
fn money_paid_ahead_pays_for_calls_and_survives_sigkill() {
    let shop = Shop::new();
    let mut server = shop.serve();
    for (amount, code) in [("19", -32602), ("101", -32602), ("\"x\"", -32602)] {
        let word = format!("amount={amount}");
        let refused = shop.buy(&server, "a", &["tool:top_up", &word]);
        assert_eq!(refused.last["code"], code, "{amount}");
    }
    let paid = shop.buy(&server, "a", &["tool:top_up", "amount=25"]);
    assert_eq!(paid.last["paid"]["amount"], 25);
    let balance = json!({"amount": 25, "unit": "sats"});
    assert_eq!(paid.last["result"]["structuredContent"]["balance"], balance);

    let call = |server: &Server, a: u32| {
        let a = format!("a={a}");
        server.call(&shop.scratch, "a", &["tool:add", &a, "b=0"])
    };
    let first = call(&server, 1);
    assert_eq!(first.text(), "1");
    assert_eq!(
        first.last["paid"]["amount"], 0,
        "nothing beyond what was paid ahead"
    );
    server.running.kill();
    let server = shop.serve();
    assert_eq!(call(&server, 2).text(), "2");
    assert_eq!(
        call(&server, 3).code,
        Some(1),
        "5 sats are left, a call costs 10"
    );
    let told = server.call(&shop.scratch, "a", &["tool:balance"]);
    assert_eq!(told.text(), "you have 5 sats");
    let movements = told.last["result"]["structuredContent"]["movements"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!(movements, 3);
    // No more than may be on an account.
    for amount in ["100", "40"] {
        let word = format!("amount={amount}");
        assert_eq!(
            shop.buy(&server, "a", &["tool:top_up", &word]).code,
            Some(0)
        );
    }
    let refused = shop.buy(&server, "a", &["tool:top_up", "amount=20"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert_eq!(refused.last["data"]["spent"]["amount"], 0);

    let accounts = shop.books(&["ledger", "balance"]);
    assert_eq!(accounts[0]["amount"], 145);
    let client = accounts[0]["client"].as_str().unwrap();
    let statement = shop.books(&["ledger", "balance", "--client", client]);
    let kinds: Vec<&str> = statement
        .iter()
        .map(|m| m["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["top_up", "draw", "draw", "top_up", "top_up"]);
}

/// The shop dies right before and right after each write of a top-up and of the call that it pays for.
#[cfg(feature = "testing")]
#[test]
fn wherever_the_shop_dies_a_top_up_is_credited_once() {
    for kind in ["write-before", "write-after"] {
        for nth in 1..=6 {
            let shop = Shop::new();
            let mut command = shop.scratch.tollkeeper("server");
            command.env("TOLLKEEPER_CRASH_AT", format!("{kind}:{nth}"));
            let config = shop.scratch.path("shop.toml").display().to_string();
            let server = Server::start_with(command, &shop.relay, &["--config", &config]);
            let words = ["tool:top_up", "amount=25", "--budget", "1000 sats"];
            let first = server.call_briefly(&shop.scratch, "a", &words);
            assert_ne!(first.code, Some(2), "{first:?}");
            drop(server);
            let server = shop.serve();
            // Whoever got no answer asks again; the payment stands, whichever request it is claimed by.
            let words = ["tool:top_up", "amount=25"];
            let again = shop.buy(&server, "a", &words);
            assert_eq!(again.code, Some(0), "{kind}:{nth} {first:?} {again:?}");
            // Whatever was paid is credited once, and what the first start left open is too, once it has been served.
            let credited = || shop.books(&["ledger", "balance"])[0]["amount"].clone();
            let settled = || -> i64 {
                let entries = shop.entries("tool:top_up").into_iter();
                entries
                    .filter(|entry| entry["authorization"] == false)
                    .filter_map(|entry| entry["settled"].as_i64())
                    .sum()
            };
            until(|| credited() == settled());
            let credited = credited();
            assert!(credited == 25 || credited == 50, "{kind}:{nth} {credited}");
        }
    }
}

/// The shop dies right before and right after each write of calls that an account pays, of which the second fails and is given
/// back. What is left is the sum of its movements, and every draw is one execution, one right to one, or back on the account.
#[cfg(feature = "testing")]
#[test]
fn wherever_the_shop_dies_accounts_add_up() {
    let priced = "[[price]]\ncapability = \"tool:count\"\namount = 10\n\
        [[price]]\ncapability = \"tool:crash\"\namount = 10\non_failure = \"credit\"\n";
    for kind in ["write-before", "write-after"] {
        for nth in 1..=4 {
            let case = format!("{kind}:{nth}");
            let shop = Shop::new();
            shop.scratch
                .write("shop.toml", &format!("{CONFIG}{priced}"));
            let server = shop.serve();
            shop.buy(&server, "a", &["tool:top_up", "amount=60"]);
            drop(server);
            let mut command = shop.scratch.tollkeeper("server");
            command.env("TOLLKEEPER_CRASH_AT", &case);
            let config = shop.scratch.path("shop.toml").display().to_string();
            let server = Server::start_with(command, &shop.relay, &["--config", &config]);
            let call =
                |server: &Server, tool: &str| server.call_briefly(&shop.scratch, "a", &[tool]);
            assert_ne!(call(&server, "tool:count").code, Some(2), "{case}");
            call(&server, "tool:crash");
            drop(server);
            let at_death = shop.scratch.executions();
            assert!(at_death <= 1, "{case}");
            let server = shop.serve();
            // What was being executed comes back while the shop opens.
            let at_work = |entry: &Value| entry["state"] == "claimed";
            until(|| !shop.entries("tool:count").iter().any(at_work));
            // Whoever got no answer asks again, and has what he paid for without paying more.
            let before = shop.entries("tool:count");
            let again = call(&server, "tool:count");
            assert_eq!(again.code, Some(0), "{case} {again:?}");
            assert_eq!(again.last["paid"]["amount"], 0);
            let counted = shop.entries("tool:count");
            let authorized = before.iter().any(|entry| entry["authorization"] == true);
            assert_eq!(
                counted.len(),
                before.len() + usize::from(!authorized),
                "{case}"
            );
            assert!(
                counted.iter().all(|entry| entry["state"] == "delivered"),
                "{case}"
            );
            // One for each draw, and one more only where it died while the first was at work (see what is not promised).
            let executions = shop.scratch.executions();
            let interrupted = usize::from(authorized && at_death == 1);
            assert_eq!(executions, counted.len() + interrupted, "{case}");

            let crashed = shop.entries("tool:crash");
            let owed = crashed
                .iter()
                .filter(|entry| entry["authorization"] == true)
                .count();
            let client = shop.books(&["ledger", "balance"])[0]["client"].clone();
            let client = client.as_str().unwrap();
            let statement = shop.books(&["ledger", "balance", "--client", client]);
            let of = |kind: &str| statement.iter().filter(|m| m["kind"] == kind).count();
            let back = of("given_back");
            assert_eq!(of("draw"), counted.len() + crashed.len(), "{case}");
            assert_eq!(
                back + owed,
                crashed.len(),
                "{case}: {crashed:?} {statement:?}"
            );
            let mut left = 0;
            for movement in &statement {
                left += movement["on"].as_i64().unwrap() - movement["off"].as_i64().unwrap();
                assert_eq!(movement["left"], left, "{case}: {statement:?}");
            }
            let drawn = 10 * (of("draw") - back);
            assert_eq!(left, 60 - i64::try_from(drawn).unwrap(), "{case}");
            assert_eq!(
                shop.books(&["ledger", "balance"])[0]["amount"],
                left,
                "{case}"
            );
        }
    }
}

#[test]
fn a_call_that_failed_is_credited_and_lists_and_books_tell_what_is_left() {
    let shop = Shop::new();
    let config = shop.scratch.path("shop.toml").display().to_string();
    // By a flag, too.
    let flags = [
        "--config",
        &config,
        "--price",
        "tool:crash=10 sat, on_failure=credit",
        "--price",
        "tool:add=10 sat",
    ];
    let server = Server::start(&shop.scratch, &shop.relay, &flags);
    shop.buy(&server, "a", &["tool:top_up", "amount=25"]);
    let crashed = server.call(&shop.scratch, "a", &["tool:crash"]);
    assert_eq!(crashed.code, Some(1), "{crashed:?}");
    assert_eq!(
        server.call(&shop.scratch, "a", &["tool:balance"]).text(),
        "you have 25 sats"
    );
    let added = server.call(&shop.scratch, "a", &["tool:add", "a=1", "b=1"]);
    assert_eq!(added.text(), "2");
    let mut host = server.connect(&shop.scratch, "a", &[]);
    let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}});
    host.ask(1, "initialize", &hello);
    let listed = host.ask(2, "tools/list", &json!({}));
    let left = json!([{"amount": 15, "unit": "sats"}]);
    assert_eq!(
        listed["result"]["_meta"]["tollkeeper/balances"], left,
        "{listed}"
    );
    // Somebody who never paid ahead is told nothing.
    let mut other = server.connect(&shop.scratch, "b", &[]);
    other.ask(1, "initialize", &hello);
    let listed = other.ask(2, "tools/list", &json!({}));
    assert_eq!(
        listed["result"]["_meta"]["tollkeeper/balances"],
        Value::Null
    );

    let drawn = &shop.entries("tool:add")[0];
    let ledger = shop.scratch.path("books.db").display().to_string();
    let mut command = shop.scratch.tollkeeper("server");
    let id = &drawn["id"].as_str().unwrap()[..8];
    command.args(["ledger", "show", id, "--ledger", &ledger]);
    let story = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(
        story.contains("10 sats went off the client's account"),
        "{story}"
    );
    assert!(!story.contains("the client asked to pay"), "{story}");
    let mut command = shop.scratch.tollkeeper("server");
    command.args(["check", "--json", "--config", &config]);
    let checked = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let mut last = checked
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let last = last.rfind(|line| line["event"] == "entitlement").unwrap();
    assert_eq!(last["name"], "balance", "the account comes last");
}

#[test]
fn a_public_licence_is_verified_by_anybody_and_its_revocation_is_published() {
    let shop = Shop::new();
    let config = CONFIG.replace("[licence_sale]", "[licence_sale]\npublic = true");
    shop.scratch.write("shop.toml", &config);
    let server = shop.serve();
    let bought = shop.buy(&server, "a", &["tool:buy_licence"]);
    assert_eq!(bought.last["paid"]["amount"], 1000);
    let id = bought.last["result"]["structuredContent"]["id"]
        .as_str()
        .unwrap();
    assert!(bought.text().starts_with("nostr.") && id.starts_with("np_"));
    let file = shop.scratch.write("a.licence", bought.text());
    let file = file.display().to_string();
    let shown = |server: &Server, home: &str| {
        let [a, b] = binary::three();
        let words = ["tool:add", &a, &b, "--licence-file", &file];
        server.call(&shop.scratch, home, &words)
    };
    assert_eq!(shown(&server, "a").text(), "3");
    assert_eq!(shown(&server, "thief").code, Some(1));

    // Anybody: another home, no ledger, no key, no relay.
    let verify = |flags: &[&str]| {
        let mut command = shop.scratch.tollkeeper("stranger");
        command
            .args(["licence", "verify", &file, "--json"])
            .args(flags);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code(), told, said)
    };
    let (code, told, said) = verify(&["--server", server.npub()]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!((&told["id"], &told["revoked"]), (&json!(id), &Value::Null));
    assert_eq!(told["server"], server.ready["pubkey"]);
    assert_eq!(told["capabilities"], json!(["tool:add"]));
    let client = told["client"].as_str().unwrap();
    assert_eq!(verify(&["--client", client]).0, Some(0));
    assert_eq!(verify(&["--client", &"1".repeat(64)]).0, Some(1));
    assert_eq!(verify(&["--server", client]).0, Some(1));
    let relay = ["--relay", shop.relay.url.as_str()];
    assert_eq!(verify(&relay).1["revoked"], false);

    // Taken back while the server is down: told to the relays when it is up again, and refused at once.
    drop(server);
    shop.books(&["licence", "revoke", id]);
    let server = shop.serve();
    assert_eq!(shown(&server, "a").code, Some(1));
    until(|| verify(&relay).0 == Some(1));
    assert!(verify(&relay).2.contains("revoked"));
    // By hand, and taken back while it runs.
    let given = &shop.books(&["licence", "issue", "--public", "--client", client])[0];
    std::fs::write(&file, given["licence"].as_str().unwrap()).unwrap();
    assert_eq!(shown(&server, "a").text(), "3");
    shop.books(&["licence", "revoke", given["id"].as_str().unwrap()]);
    until(|| shown(&server, "a").code == Some(1));
    until(|| verify(&relay).0 == Some(1));
    // Forged: another name in it.
    let other = given["licence"].as_str().unwrap();
    std::fs::write(&file, format!("{}AAAA", &other[..other.len() - 4])).unwrap();
    assert_eq!(verify(&[]).0, Some(1));
    std::fs::write(&file, "eyJ.e30.x").unwrap();
    assert_eq!(verify(&[]).0, Some(2));
}

#[test]
fn mistakes_are_found_at_the_start_and_our_tools_are_listed() {
    let shop = Shop::new();
    let config = |text: &str| shop.scratch.write("bad.toml", text).display().to_string();
    for (text, named) in [
        ("[balance]\nmin_top_up = 5\nmax_top_up = 4", "balance"),
        (
            "[balance]\nmin_top_up = 5\nmax_top_up = 9\nmost = 4",
            "balance.most",
        ),
        ("[licence_sale]\namount = 0", "licence_sale"),
        (
            "[licence_sale]\namount = 1\ncovers = [\"x\"]",
            "licence_sale.covers",
        ),
    ] {
        let mut command = shop.scratch.tollkeeper("server");
        command.args(["check", "--config", &config(text)]);
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(named), "{said}");
    }
    let clash = config(
        "[balance]\nmin_top_up = 5\nmax_top_up = 9\ntop_up_tool = \"add\"\nbalance_tool = \"b\"",
    );
    let mut command = shop.scratch.tollkeeper("server");
    command
        .args([
            "serve",
            "--allow-fake",
            "--relay",
            &shop.relay.url,
            "--config",
            &clash,
            "--",
        ])
        .args(binary::mini_mcp());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));

    let server = shop.serve();
    let mut host = server.connect(&shop.scratch, "a", &[]);
    let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}});
    host.ask(1, "initialize", &hello);
    let listed = host.ask(2, "tools/list", &json!({}));
    let names: Vec<&str> = listed["result"]["tools"]
        .as_array()
        .expect("tools")
        .iter()
        .filter_map(|tool| tool["name"].as_str())
        .collect();
    assert_eq!(names[..3], ["top_up", "balance", "buy_licence"]);
    assert!(names.contains(&"add"));
}
