//! The buyer's side of the binary, as a person and a script meet it: policy, asking, spending, receipts.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is a test")]

#[allow(dead_code, reason = "shared with tests/cli.rs, which uses all of it")]
#[path = "support/binary.rs"]
mod binary;

#[cfg(feature = "testing")]
use std::process::Command;

use serde_json::{Value, json};

use binary::{Called, Relay, Scratch, Server};

struct Shop {
    scratch: Scratch,
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "kept up"))]
    relay: Relay,
    server: Server,
}

impl Shop {
    fn open() -> Self {
        let scratch = Scratch::new();
        let relay = Relay::start(&scratch);
        // The fake rail settles by itself; what is counted here must have been paid before, also on a busy machine.
        scratch.write("shop.toml", "[rails.fake]\nsettles_after_ms = 1000\n");
        let config = scratch.path("shop.toml").display().to_string();
        let flags = [
            "--config",
            &config,
            "--price",
            "tool:add=10 sat",
            "--ledger",
            "memory",
        ];
        let server = Server::start(&scratch, &relay, &flags);
        Self {
            scratch,
            relay,
            server,
        }
    }

    /// `call tool:add a=N b=1 …` from the home `buyer`.
    fn call(&self, a: u32, flags: &[&str]) -> Called {
        let a = format!("a={a}");
        let words = [&["tool:add", &a, "b=1", "--budget", "100 sats"], flags].concat();
        self.server.call(&self.scratch, "buyer", &words)
    }

    fn policy(&self, text: &str) {
        std::fs::create_dir_all(self.scratch.path("buyer")).unwrap();
        self.scratch.write("buyer/policy.toml", text);
    }

    /// A command of the buyer that talks to no server.
    fn buyer(&self, words: &[&str]) -> (Option<i32>, Vec<Value>) {
        let mut command = self.scratch.tollkeeper("buyer");
        let output = command.args(words).arg("--json").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        (output.status.code(), lines.collect())
    }
}

fn refused(called: &Called) -> &str {
    assert_eq!(called.code, Some(1), "{called:?}");
    assert_eq!(called.last["data"]["spent"]["amount"], 0, "{called:?}");
    called.last["data"]["rule"].as_str().unwrap_or_default()
}

#[test]
fn limits_hold_over_several_runs_and_every_refusal_names_its_rule() {
    let shop = Shop::open();
    shop.policy("[policy]\nper_day = \"25 sats\"\n");
    assert_eq!(shop.call(1, &[]).text(), "2");
    assert_eq!(shop.call(2, &[]).text(), "3");
    let third = shop.call(3, &[]);
    assert_eq!(refused(&third), "per_day");
    let message = third.last["message"].as_str().unwrap();
    assert!(message.contains("(5 sats of 25 sats)"), "{message}");
    let declined = third
        .lines
        .iter()
        .find(|line| line["event"] == "payment_declined")
        .unwrap();
    assert_eq!(declined["rule"], "per_day");
    // A flag replaces the key of the file.
    assert_eq!(shop.call(3, &["--per-day", "30 sats"]).text(), "4");

    assert_eq!(
        refused(&shop.call(4, &["--per-hour", "30 sats"])),
        "per_hour"
    );
    let total = ["--per-day", "1000 sats", "--total", "30 sats"];
    assert_eq!(refused(&shop.call(4, &total)), "total");
    let ask = shop.call(4, &["--per-day", "1000 sats", "--ask-above", "9 sats"]);
    assert_eq!(refused(&ask), "ask_above", "nobody sits at a terminal");
    let server = shop.server.npub().to_owned();
    let more = ["--per-day", "1000 sats"];
    let deny = shop.call(4, &[&more[..], &["--deny-server", &server]].concat());
    assert_eq!(refused(&deny), "deny");
    let other = "f9308a019258c31049344f85f89d5229b531c845836f99b08601f113bce036f9";
    let allow = shop.call(4, &[&more[..], &["--allow-server", other]].concat());
    assert_eq!(refused(&allow), "allow");
    // The price is listed first, and is kept.
    let advertised = [&more[..], &["--advertised", "required"]].concat();
    assert_eq!(shop.call(4, &advertised).text(), "5");

    let (code, lines) = shop.buyer(&["spending"]);
    assert_eq!(code, Some(0));
    assert_eq!(lines[0]["total"], json!([{"amount": 40, "unit": "sats"}]));
    assert_eq!(lines[0]["hour"], lines[0]["total"]);
    assert_eq!(lines.len(), 1, "nothing is held");
}

#[test]
fn a_policy_that_cannot_be_read_pays_nothing() {
    let shop = Shop::open();
    for text in ["[policy]\nper_dya = \"5 sats\"", "[policy]\nper_day = 5"] {
        shop.policy(text);
        let words = ["tool:add", "a=1", "b=1", "--budget", "100 sats"];
        let called = shop.server.call(&shop.scratch, "buyer", &words);
        assert_eq!(called.code, Some(2), "{called:?}");
    }
    assert_eq!(shop.scratch.executions(), 0);
}

#[test]
fn explicit_gating_is_shown_or_paid_for() {
    let shop = Shop::open();
    let explicit = ["--payment-interaction", "explicit_gating"];
    let shown = shop.call(1, &explicit);
    assert_eq!((shown.code, &shown.last["code"]), (Some(1), &json!(-32042)));
    assert!(shown.last["data"]["payment_options"].is_array());
    let paid = shop.call(2, &[&explicit[..], &["--pay"]].concat());
    assert_eq!(paid.text(), "3");
    assert_eq!(paid.last["paid"], json!({"amount": 10, "unit": "sats"}));
}

#[test]
fn receipts_prove_what_they_say_and_a_changed_one_is_found_out() {
    let shop = Shop::open();
    assert_eq!(shop.buyer(&["receipts", "list"]).1, [Value::Null; 0]);
    assert_eq!(shop.call(1, &[]).text(), "2");
    let explicit = ["--payment-interaction", "explicit_gating", "--pay"];
    assert_eq!(shop.call(2, &explicit).text(), "3");

    let (_, listed) = shop.buyer(&["receipts", "list"]);
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(listed[0]["capability"], "tool:add");
    assert_eq!(listed[0]["answer"], "result");

    let (code, verified) = shop.buyer(&["receipts", "verify"]);
    assert_eq!(code, Some(0), "{verified:?}");
    let verdict = |verified: &Value, about: &str| {
        let findings = verified["findings"].as_array().unwrap();
        let found = findings.iter().find(|it| it["about"] == about);
        found.map_or(json!(null), |it| it["verdict"].clone())
    };
    for receipt in &verified {
        for about in ["request", "demand", "acceptance", "response"] {
            let gated_without_acceptance = about == "acceptance" && receipt["payment"] == 2;
            if !gated_without_acceptance {
                assert_eq!(verdict(receipt, about), "proven", "{about} {receipt}");
            }
        }
        // Play money proves nothing.
        assert_eq!(verdict(receipt, "payment"), "not_proven");
    }
    assert_eq!(verdict(&verified[1], "retry"), "proven");

    // Secrets stay here unless asked for.
    let (_, exported) = shop.buyer(&["receipts", "export", "1"]);
    assert_eq!(exported[0]["proof"], Value::Null);
    assert_eq!(exported[0]["request"], Value::Null);
    assert_eq!(
        exported[0]["redacted"],
        json!(["proof", "request", "response"])
    );
    let (_, whole) = shop.buyer(&["receipts", "export", "1", "--with-proof", "--with-contents"]);
    assert!(whole[0]["proof"].is_string() && whole[0]["request"].is_object());
    let (_, shown) = shop.buyer(&["receipts", "show", "1"]);
    assert_eq!(shown[0]["proof"], Value::Null);

    // A copy verifies by itself, as far as it goes; a copy that was changed does not.
    let mut tampered = whole[0].clone();
    for (change, about) in [
        ("/amount", "demand"),
        ("/demand/content", "demand"),
        ("/server", "demand"),
        ("/identity", "request"),
        ("/response/sig", "response"),
        ("/acceptance/tags", "acceptance"),
    ] {
        let kept = tampered.pointer(change).unwrap().clone();
        *tampered.pointer_mut(change).unwrap() = match &kept {
            Value::Number(_) => json!(1),
            Value::Array(_) => json!([]),
            text => json!(text.as_str().unwrap().replace(['1', '7'], "2")),
        };
        let file = shop.scratch.write("copy.json", &tampered.to_string());
        let (code, verified) = shop.buyer(&["receipts", "verify", file.to_str().unwrap()]);
        assert_eq!(code, Some(1), "{change}: {verified:?}");
        assert_eq!(
            verdict(&verified[0], about),
            "wrong",
            "{change}: {verified:?}"
        );
        *tampered.pointer_mut(change).unwrap() = kept;
    }
    let file = shop.scratch.write("copy.json", &exported[0].to_string());
    let (code, verified) = shop.buyer(&["receipts", "verify", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{verified:?}");
    assert_eq!(verdict(&verified[0], "request"), "not_proven");
    assert_eq!(verdict(&verified[0], "demand"), "proven");
    assert_eq!(shop.buyer(&["receipts", "show", "99"]).0, Some(2));
}

#[cfg(feature = "testing")]
/// Runs `words` at a terminal of its own, types `answer` when asked, and returns what was on the screen.
fn at_a_terminal(command: &Command, answer: &str) -> (String, i32) {
    const SCRIPT: &str = r#"
import os, pty, sys
answer, words = sys.argv[1], sys.argv[2:]
screen = bytearray()
child, terminal = pty.fork()
if child == 0:
    os.execvp(words[0], words)
asked = False
while True:
    try:
        read = os.read(terminal, 4096)
    except OSError:
        break
    if not read:
        break
    screen += read
    if not asked and b"[y/N" in screen:
        asked = True
        os.write(terminal, answer.encode() + b"\n") if answer != "silence" else None
status = os.waitpid(child, 0)[1]
sys.stdout.write(screen.decode(errors="replace"))
sys.exit(os.waitstatus_to_exitcode(status))
"#;
    let mut python = Command::new("python3");
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => python.env(name, value),
            None => python.env_remove(name),
        };
    }
    python
        .args(["-c", SCRIPT, answer])
        .arg(command.get_program())
        .args(command.get_args());
    let output = python.output().unwrap();
    let screen = String::from_utf8_lossy(&output.stdout).into_owned();
    (screen, output.status.code().unwrap())
}

/// With a wallet that pays only if it is asked to.
#[cfg(feature = "testing")]
#[test]
fn a_person_at_the_terminal_is_asked_and_only_a_yes_pays() {
    let scratch = Scratch::new();
    let till = scratch.path("till");
    std::fs::create_dir(&till).unwrap();
    let relay = Relay::start(&scratch);
    let mut command = scratch.tollkeeper("server");
    command.env("TOLLKEEPER_CRASH_TILL", &till);
    let flags = ["--price", "tool:add=10 sat", "--ledger", "memory"];
    let server = Server::start_with(command, &relay, &flags);
    let shop = Shop {
        scratch,
        relay,
        server,
    };
    for (a, (answer, paid)) in [("y", true), ("n", false), ("", false), ("silence", false)]
        .into_iter()
        .enumerate()
    {
        let mut command = shop.scratch.tollkeeper("buyer");
        command
            .env("TOLLKEEPER_CRASH_PURSE", &till)
            .args([
                "call",
                shop.server.npub(),
                "tool:add",
                "b=1",
                "--allow-fake",
            ])
            .args(["--relay", &shop.relay.url, "--timeout", "30"])
            .args([
                "--budget",
                "100 sats",
                "--ask-above",
                "5 sats",
                "--ask-timeout",
                "2",
            ])
            .arg(format!("a={a}"));
        let (screen, code) = at_a_terminal(&command, answer);
        assert!(screen.contains("asks for 10 sats for tool:add"), "{screen}");
        assert!(screen.contains("leave 90 sats of the budget"), "{screen}");
        assert_eq!(code == 0, paid, "{answer:?}: {screen}");
        assert_eq!(screen.contains("ask_above"), !paid, "{screen}");
    }
    assert_eq!(shop.scratch.executions(), 1);
}

/// The client dies while the wallet is asked; nobody can tell what became of it.
#[cfg(feature = "testing")]
#[test]
fn an_unknown_outcome_is_shown_held_and_decided() {
    let shop = Shop::open();
    let mut command = shop.scratch.tollkeeper("buyer");
    command
        .args([
            "call",
            shop.server.npub(),
            "tool:add",
            "a=1",
            "b=1",
            "--json",
        ])
        .args([
            "--relay",
            &shop.relay.url,
            "--allow-fake",
            "--budget",
            "100 sats",
        ])
        .env("TOLLKEEPER_CRASH_PURSE", shop.scratch.path("nowhere"))
        .env("TOLLKEEPER_CRASH_AT", "pay-before:1");
    assert_eq!(command.output().unwrap().status.code(), None, "killed");

    let (_, lines) = shop.buyer(&["spending"]);
    assert_eq!(lines[0]["total"], json!([{"amount": 10, "unit": "sats"}]));
    assert_eq!(lines[1]["event"], "held");
    assert_eq!(
        (&lines[1]["state"], &lines[1]["amount"]),
        (&json!("unknown"), &json!(10))
    );
    let note = lines[1]["note"].as_str().unwrap();
    assert!(note.contains("ended before it had an answer"), "{note}");
    let resolves = lines[1]["resolves"].as_str().unwrap();
    assert!(resolves.contains("spending resolve"), "{resolves}");

    // Without a wallet that knows, nothing is paid again for this call.
    let mut command = shop.scratch.tollkeeper("buyer");
    command
        .args([
            "call",
            shop.server.npub(),
            "tool:add",
            "a=1",
            "b=1",
            "--json",
        ])
        .args([
            "--relay",
            &shop.relay.url,
            "--allow-fake",
            "--budget",
            "100 sats",
        ])
        .env("TOLLKEEPER_CRASH_PURSE", shop.scratch.path("nowhere"));
    let output = command.output().unwrap();
    let last = String::from_utf8(output.stdout).unwrap();
    let last: Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
    assert_eq!(last["data"]["rule"], "earlier_unknown", "{last}");

    let (code, _) = shop.buyer(&["spending", "decide", "1", "reserved"]);
    assert_eq!(code, Some(2));
    let (code, lines) = shop.buyer(&["spending", "decide", "1", "refused"]);
    assert_eq!((code, &lines[0]["state"]), (Some(0), &json!("refused")));
    assert_eq!(shop.buyer(&["spending", "decide", "1", "paid"]).0, Some(1));
    assert_eq!(shop.buyer(&["spending"]).1[0]["total"], json!([]));
    assert_eq!(shop.call(1, &[]).text(), "2");
    let (_, lines) = shop.buyer(&["spending", "list"]);
    let states: Vec<&Value> = lines.iter().map(|line| &line["state"]).collect();
    assert_eq!(states, ["refused", "paid"]);
    let (_, lines) = shop.buyer(&["spending", "forgive", shop.server.npub()]);
    assert_eq!(lines[0]["payments"], 0);
}
