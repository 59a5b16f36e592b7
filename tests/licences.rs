//! Licences as operators and buyers meet them: the real binary, an issuer on loopback, a buyer with a file.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

#[allow(dead_code, reason = "shared with other tests")]
#[path = "support/binary.rs"]
mod binary;
#[path = "support/issuer.rs"]
mod issuer;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollkeeper::entitlement::licence::{Key, LicenceSigner, LicenceTerms};
use tollkeeper::payment::{Clock, SystemClock};

use binary::{Relay, Scratch, Server};
use issuer::FakeIssuer;

const FIRST: &str = "0123456789abcdef0123456789abcdef";
const SECOND: &str = "fedcba9876543210fedcba9876543210";

/// A licence as AI Coach makes them: for whoever holds it.
fn licence(id: &str, version: u32, secret: &str) -> String {
    let key = Key::new(secret.as_bytes()).unwrap();
    let signer = LicenceSigner::new("aicoach.pw", "srv_1", version, key).unwrap();
    let terms = LicenceTerms::new(id, "01HXKY", SystemClock.now());
    signer.sign(&terms).unwrap().reveal().to_owned()
}

fn config(scratch: &Scratch, issuer: &FakeIssuer, more: &str) -> String {
    let text = format!(
        r#"
        [[price]]
        capability = "tool:add"
        amount = 10
        [entitlements.licence]
        [[entitlements.licence.issuer]]
        server_id = "srv_1"
        url = "{}"
        keys_file = "keys.json"
        poll_every = 10
        {more}
        "#,
        issuer.url
    );
    scratch.write("shop.toml", &text).display().to_string()
}

fn serve(scratch: &Scratch, relay: &Relay, config: &str) -> Server {
    let mut command = scratch.tollkeeper("server");
    command.env("AICOACH_API_KEY", "mcp_key");
    let ledger = scratch.path("books.db").display().to_string();
    Server::start_with(command, relay, &["--config", config, "--ledger", &ledger])
}

fn buy(server: &Server, scratch: &Scratch, home: &str, licence: &str) -> binary::Called {
    let file = scratch.write("licence", licence).display().to_string();
    let [a, b] = binary::three();
    server.call(
        scratch,
        home,
        &["tool:add", &a, &b, "--licence-file", &file],
    )
}

/// Tries until it is so: the server hears of it in the background.
fn until(mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Every file that the server or its log left, in one text.
fn everything_in(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_file() && entry.file_name() != "licence" {
            all.extend(std::fs::read(entry.path()).unwrap());
        }
    }
    all
}

#[test]
fn a_licence_of_an_issuer_opens_the_gate_until_it_is_taken_back_and_a_rotation_loses_nobody() {
    let (scratch, issuer) = (Scratch::new(), FakeIssuer::start());
    issuer.set(|known| known.secret = Some(("srv_1:1".to_owned(), FIRST.to_owned())));
    let relay = Relay::start(&scratch);
    let config = config(&scratch, &issuer, "");
    let mut server = serve(&scratch, &relay, &config);
    let old = licence("01HXKZ", 1, FIRST);
    until(|| buy(&server, &scratch, "a", &old).code == Some(0));
    let called = buy(&server, &scratch, "a", &old);
    assert_eq!(called.text(), "3");
    assert_eq!(called.last["paid"]["amount"], 0);
    // The key went to the one who asks for it, and to nobody else.
    assert!(issuer.asked("signing-secret").iter().all(|(_, key)| *key));
    assert!(issuer.asked("revoked").iter().all(|(_, key)| !*key));

    // A rotation: the new key signs at once, and the issuer tells only that one.
    issuer.set(|known| known.secret = Some(("srv_1:2".to_owned(), SECOND.to_owned())));
    let new = licence("01HXKA", 2, SECOND);
    until(|| buy(&server, &scratch, "a", &new).code == Some(0));
    assert_eq!(buy(&server, &scratch, "a", &old).text(), "3");

    // A refund, and then a restart while the issuer cannot be reached: neither the revocation nor a key is forgotten.
    issuer.set(|known| known.revoked.push("01HXKZ".to_owned()));
    until(|| buy(&server, &scratch, "a", &old).code == Some(1));
    server.running.kill();
    issuer.set(|known| known.down = true);
    let server = serve(&scratch, &relay, &config);
    let refused = buy(&server, &scratch, "a", &old);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    until(|| buy(&server, &scratch, "a", &new).code == Some(0));

    // Why it was free, and nowhere a token.
    let mut command = scratch.tollkeeper("server");
    let ledger = scratch.path("books.db").display().to_string();
    command.args(["ledger", "free", "--json", "--ledger", &ledger]);
    let rows = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let first: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    assert_eq!(first["by"], "licence");
    assert_eq!(first["why"], "licence 01HXKZ of aicoach.pw");
    let mut command = scratch.tollkeeper("server");
    let id = first["id"].as_str().unwrap();
    command.args(["ledger", "show", id, "--ledger", &ledger]);
    let shown = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(shown.contains("licence 01HXKZ"), "{shown}");
    drop(server);
    let kept = everything_in(&scratch.path(""));
    for token in [&old, &new] {
        let signature = token.rsplit('.').next().unwrap().as_bytes();
        assert!(
            !kept
                .windows(signature.len())
                .any(|bytes| bytes == signature)
        );
    }
}

#[test]
fn where_a_licence_is_required_money_does_not_help() {
    let (scratch, issuer) = (Scratch::new(), FakeIssuer::start());
    issuer.set(|known| known.secret = Some(("srv_1:1".to_owned(), FIRST.to_owned())));
    let relay = Relay::start(&scratch);
    let config = config(&scratch, &issuer, "");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        text.replace(
            "[entitlements.licence]",
            "[entitlements.licence]\nrequired = true",
        ),
    )
    .unwrap();
    let server = serve(&scratch, &relay, &config);
    let called = server.call(
        &scratch,
        "a",
        &["tool:add", "a=1", "b=2", "--budget", "100 sats"],
    );
    assert_eq!(called.last["code"], -32041, "{called:?}");
    assert_eq!(
        called.last["data"]["licence"],
        json!({"error": "missing_token"})
    );
    assert_eq!(called.last["data"]["spent"]["amount"], 0);
}

#[test]
fn without_a_secret_the_issuer_is_asked() {
    let (scratch, issuer) = (Scratch::new(), FakeIssuer::start());
    let claims = json!({"iss": "aicoach.pw", "sub": "user_42", "aud": "mcp_server:srv_1", "jti": "1", "serverId": "srv_1",
        "scope": "mcp:invoke", "iat": 1_731_000_000, "exp": 4_102_444_800u64});
    issuer.set(|known| known.verdict = json!({"ok": true, "claims": claims}));
    let relay = Relay::start(&scratch);
    let config = config(&scratch, &issuer, "mode = \"remote\"");
    let server = serve(&scratch, &relay, &config);
    let token = licence("1", 9, SECOND);
    assert_eq!(buy(&server, &scratch, "a", &token).text(), "3");
    assert_eq!(buy(&server, &scratch, "a", &token).text(), "3");
    assert_eq!(
        issuer.asked("verify").len(),
        1,
        "a good answer counts for a minute"
    );
    issuer.set(|known| known.verdict = json!({"ok": false, "error": "revoked"}));
    assert_eq!(
        buy(&server, &scratch, "a", &licence("2", 9, SECOND)).code,
        Some(1)
    );
}

#[test]
fn the_environment_of_ai_coach_is_understood() {
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let mut command = scratch.tollkeeper("server");
    command
        .env("AICOACH_SIGNING_SECRET", FIRST)
        .env("AICOACH_SERVER_ID", "srv_1");
    let config = scratch.write(
        "shop.toml",
        "[[price]]\ncapability = \"tool:add\"\namount = 10\n[[entitlements.licence.issuer]]\nname = \"aicoach.pw\"\n",
    );
    let config = config.display().to_string();
    let server = Server::start_with(command, &relay, &["--config", &config]);
    let token = licence("1", 3, FIRST);
    assert_eq!(buy(&server, &scratch, "a", &token).text(), "3");
    assert_eq!(
        buy(&server, &scratch, "a", &licence("1", 3, SECOND)).code,
        Some(1)
    );
}

#[test]
fn the_order_is_shown_by_check_and_mistakes_name_their_key() {
    let scratch = Scratch::new();
    let check = |text: &str, flags: &[&str]| {
        let file = scratch.write("check.toml", text).display().to_string();
        let mut command = scratch.tollkeeper("server");
        command
            .args(["check", "--json", "--config", &file])
            .args(flags);
        command.output().unwrap()
    };
    let key = "1".repeat(64);
    let good = format!(
        r#"
        [entitlements]
        order = ["pace", "deny", "free_per_day", "licence", "allow"]
        deny = ["{key}"]
        [entitlements.pace]
        per_minute = 60
        [entitlements.licence]
        covers = ["tool:*"]
        [[entitlements.licence.issuer]]
        server_id = "srv_1"
        "#
    );
    let output = check(&good, &["--free-per-day", "3", "--allow-client", &key]);
    let text = String::from_utf8(output.stdout).unwrap();
    let names: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["event"] == "entitlement")
        .map(|line| line["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["pace", "deny", "free_per_day", "licence", "allow"]);
    for (text, named) in [
        (
            "[entitlements]\norder = [\"nonsense\"]",
            "entitlements.order",
        ),
        (
            "[entitlements]\norder = [\"deny\", \"deny\"]",
            "entitlements.order",
        ),
        (
            "[entitlements]\norder = []\n[entitlements.free_per_day]\ncalls = 1",
            "free_per_day",
        ),
        ("[entitlements]\nallow = [\"nobody\"]", "entitlements.allow"),
        ("[entitlements.pace]\nper_minute = 0", "entitlements.pace"),
        (
            "[entitlements.free_per_day]\ncalls = 5\ntotal = 4",
            "entitlements.free_per_day",
        ),
        ("[entitlements.licence]", "entitlements.licence.issuer"),
        ("[[entitlements.licence.issuer]]\nname = \"x\"", "server_id"),
        (
            "[[entitlements.licence.issuer]]\nserver_id = \"x\"\npoll_every = 1",
            "poll_every",
        ),
        (
            "[[entitlements.licence.issuer]]\nserver_id = \"x\"\nmax_clients = 0",
            "max_clients",
        ),
        (
            "[entitlements.licence]\ncovers = [\"x\"]\n[[entitlements.licence.issuer]]\nserver_id = \"x\"",
            "covers",
        ),
    ] {
        let output = check(text, &[]);
        assert_eq!(output.status.code(), Some(2), "{text}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(named), "{text}: {said}");
    }
}

#[test]
fn the_free_calls_of_a_day_survive_sigkill() {
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let ledger = scratch.path("books.db").display().to_string();
    let flags = [
        "--price",
        "tool:add=10 sat",
        "--free-per-day",
        "2",
        "--ledger",
        &ledger,
    ];
    let mut server = Server::start(&scratch, &relay, &flags);
    let call = |server: &Server, n: u32| {
        server
            .call(&scratch, "a", &["tool:add", &format!("a={n}"), "b=0"])
            .code
    };
    assert_eq!(call(&server, 1), Some(0));
    server.running.kill();
    let server = Server::start(&scratch, &relay, &flags);
    assert_eq!((call(&server, 2), call(&server, 3)), (Some(0), Some(1)));
}
