//! The real binary without relays: sold over a pipe and over HTTP, to clients that know MCP and nothing else.

#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, reason = "shared with tests that use relays")]
#[path = "support/binary.rs"]
mod binary;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use binary::{PATIENCE, Running, Scratch, mini_mcp};

const PAYMENT_REQUIRED: i64 = -32042;
const NOTHING_CHARGED: i64 = -32000;

fn serve(scratch: &Scratch, flags: &[&str]) -> Running {
    let mut command = scratch.tollkeeper("shop");
    command
        .args(["serve", "--allow-fake", "--price", "tool:count=10 sat"])
        .args(["--ledger", &scratch.path("books.db").display().to_string()])
        .args(flags)
        .arg("--")
        .args(mini_mcp());
    Running::start(command)
}

fn initialize() -> Value {
    json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "0" } })
}

fn count() -> Value {
    json!({ "name": "count", "arguments": {} })
}

fn code(answer: &Value) -> Option<i64> {
    answer["error"]["code"].as_i64()
}

/// Calls until what was offered is paid: the fake rail settles by itself.
fn call_until_paid(mut call: impl FnMut(i64) -> Value, from: i64) -> Value {
    let until = Instant::now() + PATIENCE;
    let mut offered = None;
    for id in from.. {
        let answer = call(id);
        if code(&answer) != Some(PAYMENT_REQUIRED) {
            return answer;
        }
        // Until then it is told the same offer again: it is never asked for another payment.
        let payment = answer["error"]["data"]["payment_options"][0]["pay_req"].clone();
        assert!(payment.is_string() && *offered.get_or_insert(payment.clone()) == payment);
        assert!(Instant::now() < until, "never served");
        std::thread::sleep(Duration::from_millis(100));
    }
    unreachable!()
}

#[test]
fn the_program_that_starts_it_buys_over_the_pipe_once_for_each_payment() {
    let scratch = Scratch::new();
    let mut shop = serve(&scratch, &["--stdio"]);
    let introduction = shop.ask(0, "initialize", &initialize());
    assert_eq!(introduction["result"]["serverInfo"]["name"], "mini-mcp");
    let free = json!({ "name": "echo", "arguments": { "text": "free" } });
    assert!(shop.ask(1, "tools/call", &free)["result"].is_object());

    let demand = shop.ask(2, "tools/call", &count());
    assert_eq!(code(&demand), Some(PAYMENT_REQUIRED));
    let option = &demand["error"]["data"]["payment_options"][0];
    assert_eq!(
        (option["amount"].as_u64(), &option["pmi"]),
        (Some(10), &json!("fake"))
    );
    let served = call_until_paid(|id| shop.ask(id, "tools/call", &count()), 3);
    assert!(served["result"].is_object(), "{served}");
    assert_eq!(scratch.executions(), 1);
    // The next one is paid anew.
    assert_eq!(
        code(&shop.ask(100, "tools/call", &count())),
        Some(PAYMENT_REQUIRED)
    );
    assert_eq!(scratch.executions(), 1);

    // The end of the input is the end, in order.
    shop.close_stdin();
    assert!(shop.wait().success());
}

/// A flag beats the environment, and that beats what is beside the ledger.
#[test]
fn the_key_of_the_server_is_the_one_that_was_named_last() {
    let scratch = Scratch::new();
    let of_environment = "11".repeat(32);
    let pubkey = |key_file: Option<&str>, environment: bool| {
        let mut command = scratch.tollkeeper("shop");
        command.args(["serve", "--allow-fake", "--json", "--listen", "127.0.0.1:0"]);
        command.args(["--ledger", &scratch.path("books.db").display().to_string()]);
        if let Some(file) = key_file {
            command.args([
                "--secret-key-file",
                &scratch.path(file).display().to_string(),
            ]);
        }
        if environment {
            command.env("TOLLKEEPER_SECRET_KEY", &of_environment);
        }
        let shop = Running::start({
            command.arg("--").args(mini_mcp());
            command
        });
        shop.next().unwrap()["pubkey"].as_str().unwrap().to_owned()
    };
    let beside = pubkey(None, false);
    let named = pubkey(Some("other.key"), false);
    assert_ne!(beside, named);
    let from_environment = pubkey(None, true);
    assert!(![&beside, &named].contains(&&from_environment));
    assert_eq!(pubkey(Some("other.key"), true), named);
    assert_eq!(pubkey(None, false), beside);
}

/// The server program stops reading before it gives its last answer, and a request that comes in between cannot be written.
#[test]
fn the_last_words_of_a_server_that_reads_no_more_are_an_answer() {
    let scratch = Scratch::new();
    let mut shop = serve(&scratch, &["--stdio"]);
    shop.ask(0, "initialize", &initialize());
    let closed = scratch.path("closed");
    let leave = json!({ "name": "crash", "arguments": { "leaves": closed.display().to_string() } });
    let call = |id: i64, params: &Value| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
    shop.say(&call(1, &leave));
    let until = Instant::now() + PATIENCE;
    while !closed.exists() {
        assert!(Instant::now() < until, "never called");
        std::thread::sleep(Duration::from_millis(5));
    }
    shop.say(&call(
        2,
        &json!({ "name": "echo", "arguments": { "text": "too late" } }),
    ));
    let (last, before) = shop.until(|line| line["id"] == 1);
    assert_eq!(
        last["result"]["content"][0]["text"], "last words",
        "{last} after {before:?}"
    );
}

#[test]
fn what_was_paid_over_the_pipe_is_served_by_the_next_run() {
    let scratch = Scratch::new();
    let mut shop = serve(&scratch, &["--stdio"]);
    shop.ask(0, "initialize", &initialize());
    assert_eq!(
        code(&shop.ask(1, "tools/call", &count())),
        Some(PAYMENT_REQUIRED)
    );
    shop.kill();
    let mut shop = serve(&scratch, &["--stdio"]);
    shop.ask(0, "initialize", &initialize());
    let served = call_until_paid(|id| shop.ask(id, "tools/call", &count()), 1);
    assert!(served["result"].is_object(), "{served}");
    assert_eq!(scratch.executions(), 1);
}

/// A client over HTTP, in one session.
#[derive(Clone, Default)]
struct Client {
    address: String,
    session: Option<String>,
    secret: Option<String>,
    key: Option<String>,
}

impl Client {
    fn new(ready: &Value) -> Self {
        let url = ready["url"].as_str().unwrap();
        let address = url
            .strip_prefix("http://")
            .unwrap()
            .strip_suffix("/mcp")
            .unwrap();
        Self {
            address: address.to_owned(),
            ..Self::default()
        }
    }

    fn post(&mut self, body: &Value) -> Value {
        self.try_post(body).unwrap()
    }

    /// Fails if the server does.
    fn try_post(&mut self, body: &Value) -> std::io::Result<Value> {
        let body = body.to_string();
        let shown = [
            ("mcp-session-id: ", &self.session),
            ("authorization: Bearer ", &self.secret),
            ("idempotency-key: ", &self.key),
        ];
        let shown = shown
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let shown: String = shown
            .map(|(name, value)| format!("{name}{value}\r\n"))
            .collect();
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "POST /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\naccept: application/json\r\n{shown}content-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let cut = || std::io::Error::other("cut off");
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(cut)?;
        let begun = head
            .lines()
            .find_map(|line| line.strip_prefix("mcp-session-id: "));
        if let Some(id) = begun {
            self.session = Some(id.to_owned());
        }
        serde_json::from_str(body).map_err(|_| cut())
    }

    fn ask(&mut self, id: i64, method: &str, params: &Value) -> Value {
        self.post(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
    }
}

#[test]
fn a_session_over_http_outlives_the_server_with_what_it_paid() {
    let scratch = Scratch::new();
    let mut shop = serve(&scratch, &["--json", "--listen", "127.0.0.1:0"]);
    let mut client = Client::new(&shop.next().unwrap());
    client.ask(0, "initialize", &initialize());
    assert!(client.session.is_some());
    assert_eq!(
        code(&client.ask(1, "tools/call", &count())),
        Some(PAYMENT_REQUIRED)
    );
    // Another session has paid nothing, and gets an offer of its own.
    let mut stranger = Client {
        address: client.address.clone(),
        ..Client::default()
    };
    stranger.ask(0, "initialize", &initialize());
    shop.kill();

    let mut shop = serve(&scratch, &["--json", "--listen", "127.0.0.1:0"]);
    let address = Client::new(&shop.next().unwrap()).address;
    client.address.clone_from(&address);
    stranger.address = address;
    let served = call_until_paid(|id| client.ask(id, "tools/call", &count()), 2);
    assert!(served["result"].is_object(), "{served}");
    assert_eq!(scratch.executions(), 1);
    assert_eq!(
        code(&stranger.ask(1, "tools/call", &count())),
        Some(PAYMENT_REQUIRED)
    );
    assert_eq!(scratch.executions(), 1);
    shop.terminate();
    assert!(shop.wait().success());
}

#[test]
fn the_same_post_again_is_answered_again_and_not_charged() {
    let scratch = Scratch::new();
    let shop = serve(&scratch, &["--json", "--listen", "127.0.0.1:0"]);
    let mut client = Client::new(&shop.next().unwrap());
    client.ask(0, "initialize", &initialize());
    let mut last = 0;
    let served = call_until_paid(
        |id| {
            last = id;
            client.ask(id, "tools/call", &count())
        },
        1,
    );
    assert!(served["result"].is_object(), "{served}");
    // Its answer was lost, say: the very same request comes again.
    assert_eq!(client.ask(last, "tools/call", &count()), served);
    assert_eq!(scratch.executions(), 1);
    // A free one is not executed again either; its answer is gone.
    let echo = json!({ "name": "echo", "arguments": { "text": "free" } });
    assert!(client.ask(900, "tools/call", &echo)["result"].is_object());
    assert_eq!(code(&client.ask(900, "tools/call", &echo)), Some(-32600));
}

/// Kills at many moments of a call; the client sends the very same request until it is answered.
#[test]
fn calls_over_http_survive_kills_with_one_payment_each() {
    const KILLED_AFTER: [u64; 10] = [0, 2, 8, 20, 60, 150, 240, 270, 300, 400];
    let scratch = Scratch::new();
    let open = || {
        let shop = serve(&scratch, &["--json", "--listen", "127.0.0.1:0"]);
        let address = Client::new(&shop.next().unwrap());
        (shop, address.address)
    };
    let (mut shop, address) = open();
    let mut client = Client {
        address,
        ..Client::default()
    };
    client.ask(0, "initialize", &initialize());
    for (id, after) in (1..).zip(KILLED_AFTER) {
        let pid = shop.id().to_string();
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(after));
            let kill = std::process::Command::new("kill")
                .args(["-KILL", &pid])
                .status();
            assert!(kill.unwrap().success());
        });
        let request = |id: i64| json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": count() });
        let mut call = request(id);
        let until = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < until, "call {id} is never answered");
            match client.try_post(&call) {
                Ok(answer) if answer["result"].is_object() => break,
                // Killed before there was an invoice: that request is over, and says so.
                Ok(answer) if code(&answer) == Some(NOTHING_CHARGED) => call = request(id + 1000),
                Ok(answer) => assert_eq!(code(&answer), Some(PAYMENT_REQUIRED), "{answer}"),
                Err(_) => {
                    shop.wait();
                    (shop, client.address) = open();
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        killer.join().unwrap();
        // It may have been killed after its answer.
        shop.kill();
        (shop, client.address) = open();
    }
    shop.terminate();
    assert!(shop.wait().success());
    let books = scratch.path("books.db").display().to_string();
    let output = scratch
        .tollkeeper("shop")
        .args(["ledger", "list", "--json", "--ledger", &books])
        .output()
        .unwrap();
    let entries: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (over, paid): (Vec<Value>, Vec<Value>) = entries
        .into_iter()
        .partition(|entry| entry["state"] == "abandoned");
    assert_eq!(paid.len(), KILLED_AFTER.len(), "one payment for each call");
    for entry in paid {
        assert_eq!(entry["state"], "delivered", "{entry}");
    }
    assert!(
        over.iter().all(|entry| entry["settled"].is_null()),
        "{over:?}"
    );
    // A call that was killed while it was executed is executed again; none is executed less than once.
    assert!(scratch.executions() >= KILLED_AFTER.len());
}

/// A call that was offered under an id, paid and sent again under the same: it takes a while, and every repetition waits for it.
#[test]
fn the_same_post_while_it_is_executed_waits_for_the_one_execution() {
    let scratch = Scratch::new();
    let shop = serve(
        &scratch,
        &[
            "--json",
            "--listen",
            "127.0.0.1:0",
            "--price",
            "tool:record=10 sat",
        ],
    );
    let mut client = Client::new(&shop.next().unwrap());
    client.ask(0, "initialize", &initialize());
    let slow = json!({ "name": "record", "arguments": { "call": 1, "ms": 1500 } });
    assert_eq!(
        code(&client.ask(1, "tools/call", &slow)),
        Some(PAYMENT_REQUIRED)
    );
    std::thread::sleep(Duration::from_millis(600));
    let repeated: Vec<_> = (0..3)
        .map(|at| {
            let (mut client, slow) = (client.clone(), slow.clone());
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(300 * at));
                client.ask(1, "tools/call", &slow)
            })
        })
        .collect();
    let answers: Vec<Value> = repeated
        .into_iter()
        .map(|asked| asked.join().unwrap())
        .collect();
    // The answer goes to whoever asked last; the others are told so, and nobody is told to pay or to ask anew.
    assert!(answers[2]["result"].is_object(), "{answers:?}");
    assert!(
        answers
            .iter()
            .all(|answer| code(answer) != Some(PAYMENT_REQUIRED))
    );
    assert_eq!(client.ask(1, "tools/call", &slow), answers[2]);
}

/// Money paid ahead is kept for somebody; a session is nobody.
#[test]
fn paying_ahead_over_http_takes_a_secret_of_ones_own() {
    let scratch = Scratch::new();
    let config = scratch.write(
        "balance.toml",
        "[balance]\nmin_top_up = 10\nmax_top_up = 1000\n",
    );
    let config = config.display().to_string();
    let shop = serve(
        &scratch,
        &["--json", "--listen", "127.0.0.1:0", "--config", &config],
    );
    let mut client = Client::new(&shop.next().unwrap());
    client.ask(0, "initialize", &initialize());
    let top_up = json!({ "name": "top_up", "arguments": { "amount": 25 } });
    let refused = client.ask(1, "tools/call", &top_up);
    assert_eq!(code(&refused), Some(-32602), "{refused}");
    client.secret = Some("a-secret-of-its-own".to_owned());
    let paid = call_until_paid(|id| client.ask(id, "tools/call", &top_up), 2);
    assert!(paid["result"].is_object(), "{paid}");
    // In a new session the same secret is the same client, which pays from what it has: twice 10 of 25.
    let mut again = Client {
        session: None,
        ..client.clone()
    };
    again.ask(0, "initialize", &initialize());
    for id in [1, 2] {
        assert!(again.ask(id, "tools/call", &count())["result"].is_object());
    }
    assert_eq!(
        code(&again.ask(3, "tools/call", &count())),
        Some(PAYMENT_REQUIRED)
    );
    assert_eq!(scratch.executions(), 2);
    // Without a session it names a request itself.
    let paid = call_until_paid(
        |id| {
            again.ask(
                id,
                "tools/call",
                &json!({ "name": "top_up", "arguments": { "amount": 10 } }),
            )
        },
        10,
    );
    assert!(paid["result"].is_object(), "{paid}");
    again.session = None;
    again.key = Some("once".to_owned());
    let first = again.ask(7, "tools/call", &count());
    assert!(first["result"].is_object(), "{first}");
    assert_eq!(again.ask(7, "tools/call", &count()), first);
    assert_eq!(scratch.executions(), 3);
}

#[test]
fn mistakes_name_the_key_and_what_it_wants() {
    let scratch = Scratch::new();
    let complaint = |flags: &[&str], config: &str| {
        let config = scratch.write("c.toml", config).display().to_string();
        let output = scratch
            .tollkeeper("shop")
            .args(["serve", "--config", &config])
            .args(flags)
            .args(["--", "true"])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?} {config}");
        String::from_utf8(output.stderr).unwrap()
    };
    let listen = ["--listen", "127.0.0.1:0"];
    for (flags, config, wanted) in [
        (&[][..], "", "--stdio or --listen"),
        (&["--stdio", "--json"], "", "--json"),
        (&["--json"], "stdio = true", "--json"),
        (&listen, "[listen]\npath = \"mcp\"", "listen.path"),
        (
            &listen,
            "[listen]\ntrusted_proxies = [\"0.0.0.0/0\"]",
            "listen.trusted_proxies",
        ),
        (
            &listen,
            "[listen]\nidentity_header = \"a b\"",
            "listen.identity_header",
        ),
        (&["--listen", "here"], "", "--listen"),
    ] {
        let said = complaint(flags, config);
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
}
