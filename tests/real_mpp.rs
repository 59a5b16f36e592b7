//! Sold to clients of the Machine Payments Protocol that others wrote: mppx from npm and pympp from PyPI, both around the official
//! MCP clients, over a pipe and over HTTP. They pay real BOLT11 invoices between two development wallets, with Alby's library.
//!
//! `tests/real/setup-mpp` installs them, once; these tests run it when need be. Where that cannot be done they are skipped and
//! say so, but not in CI, where a test that did not run is a test that failed.

#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, reason = "shared with tests that need more of it")]
#[path = "support/binary.rs"]
mod binary;
#[allow(dead_code, reason = "shared with the tests of other counterparts")]
#[path = "support/counterparts.rs"]
mod counterparts;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use binary::{Relay, Running, Scratch, mini_mcp};

const SCRIPTS: &str = "tests/real/mpp";
const RECEIPT: &str = "org.paymentauth/receipt";
const PRICE: u64 = 21;

/// The clients, as installed.
struct Clients {
    folder: PathBuf,
}

impl Clients {
    fn get() -> Option<&'static Self> {
        static INSTALLED: OnceLock<Result<Clients, String>> = OnceLock::new();
        let installed = INSTALLED.get_or_init(|| {
            counterparts::set_up("tests/real/setup-mpp")?;
            let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
            let services = std::env::var_os("TOLLKEEPER_SERVICES")
                .map_or_else(|| checkout.join(".services"), PathBuf::from);
            let folder = services.join("mpp").canonicalize();
            let folder = folder.map_err(|error| error.to_string())?;
            // Node finds packages above a script, so the scripts stand beside them.
            for script in ["buyer.mjs", "wallet.mjs"] {
                let from = checkout.join(SCRIPTS).join(script);
                std::fs::copy(from, folder.join("node").join(script))
                    .map_err(|error| error.to_string())?;
            }
            Ok(Clients { folder })
        });
        match installed {
            Ok(clients) => Some(clients),
            Err(reason) => counterparts::skipped("tests/real/setup-mpp", reason),
        }
    }

    fn node(&self, script: &str) -> String {
        self.folder.join("node").join(script).display().to_string()
    }

    fn mppx(&self) -> Command {
        let mut command = Command::new("node");
        command.arg(self.node("buyer.mjs"));
        command
    }

    fn pympp(&self) -> Command {
        let mut command = Command::new(self.folder.join("python/bin/python"));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(SCRIPTS);
        command
            .arg(script.join("buyer.py"))
            .arg(self.node("wallet.mjs"));
        command
    }
}

/// A relay, two wallets that settle each other's invoices, and a folder.
struct World {
    scratch: Scratch,
    _relay: Relay,
    _wallets: Running,
    seller: String,
    buyer: String,
}

impl World {
    fn new() -> Self {
        let scratch = Scratch::new();
        let relay = Relay::start(&scratch);
        let mut command = scratch.tollkeeper("wallets");
        command.args(["wallet", "fake", "--json", "--relay", &relay.url]);
        let wallets = Running::start(command);
        let ready = wallets.next().expect("the wallets must become ready");
        let connection = |name: &str| {
            let mut named = ready["wallets"].as_array().unwrap().iter();
            let wallet = named.find(|wallet| wallet["name"] == name).unwrap();
            wallet["connection"].as_str().unwrap().to_owned()
        };
        Self {
            seller: connection("seller"),
            buyer: connection("buyer"),
            scratch,
            _relay: relay,
            _wallets: wallets,
        }
    }

    /// `serve` for real invoices. What it is told of the wallet is in the environment.
    fn serve(&self, flags: &[&str]) -> Command {
        let mut command = self.scratch.tollkeeper("shop");
        let books = self.scratch.path("books.db").display().to_string();
        command
            .args([
                "serve",
                "--lightning-network",
                "regtest",
                "--ledger",
                &books,
            ])
            .args(["--price", "tool:count=21 sat", "--price", "tool:add=21 sat"])
            .args(flags)
            .arg("--")
            .args(mini_mcp());
        command
    }

    /// What `buyer` reports that buys `plan` from a server that it starts itself.
    fn buy_over_a_pipe(&self, mut buyer: Command, plan: &Value) -> Value {
        let serve = self.serve(&["--stdio"]);
        // The wallet of the server is in a file: the environment names the buyer's.
        let seller = self.scratch.write("seller.nwc", &self.seller);
        std::fs::set_permissions(&seller, PermissionsExt::from_mode(0o600)).unwrap();
        buyer.arg(plan.to_string()).arg("stdio");
        buyer.arg(serve.get_program());
        let words: Vec<_> = serve.get_args().map(ToOwned::to_owned).collect();
        let (flags, goods) = words.split_at(words.iter().position(|word| word == "--").unwrap());
        buyer
            .args(flags)
            .arg("--nwc-connection-file")
            .arg(seller)
            .args(goods);
        for (name, value) in serve.get_envs() {
            match value {
                Some(value) => buyer.env(name, value),
                None => buyer.env_remove(name),
            };
        }
        buyer.current_dir(self.scratch.path("."));
        self.report(buyer)
    }

    /// The same from a server that listens.
    fn buy_over_http(&self, mut buyer: Command, plan: &Value) -> Value {
        let mut serve = self.serve(&["--json", "--listen", "127.0.0.1:0"]);
        serve.env("NWC_CONNECTION", &self.seller);
        let shop = Running::start(serve);
        let ready = shop.next().expect("serve must become ready");
        buyer.args([&plan.to_string(), "http", ready["url"].as_str().unwrap()]);
        self.report(buyer)
    }

    fn report(&self, mut buyer: Command) -> Value {
        buyer.env("NWC_CONNECTION", &self.buyer);
        let mut running = Running::start(buyer);
        let report = running.next().expect("the buyer must report");
        assert!(running.wait().success());
        report
    }
}

/// A call of a tool that counts how often it is executed.
fn count(n: u64) -> Value {
    json!({ "name": "count", "arguments": { "n": n } })
}

/// Each of `calls` was paid once, and has its result with a receipt for it.
fn assert_bought(world: &World, report: &Value, calls: u64) {
    assert_eq!(report["payments"], calls, "{report}");
    assert_eq!(report["spent"], calls * PRICE, "counted by the wallet");
    let bought = report["calls"].as_array().unwrap();
    assert_eq!(bought.len() as u64, calls);
    let mut references = Vec::new();
    for call in bought {
        assert!(call["result"]["content"].is_array(), "{call}");
        let receipt = &call["receipt"];
        assert_eq!(receipt["status"], "success", "{call}");
        let reference = receipt["reference"].as_str().unwrap().to_owned();
        assert!(!references.contains(&reference));
        references.push(reference);
    }
    assert_eq!(world.scratch.executions() as u64, calls);
}

/// A credential that was used brings its own result again, for no money and in every session, and no other.
fn assert_used_once(report: &Value, sessions: usize) {
    let again = report["again"].as_array().unwrap();
    assert_eq!(again.len(), 1 + sessions);
    let first = &report["calls"][0]["result"]["content"];
    for (at, said) in again.iter().enumerate() {
        if at == 1 {
            assert!(said["error"]["code"].is_i64(), "another call: {said}");
            assert!(said["error"]["data"]["challenges"].is_null(), "{said}");
        } else {
            assert_eq!(&said["result"]["content"], first, "{said}");
            assert!(said["result"]["_meta"][RECEIPT].is_object(), "{said}");
        }
    }
}

#[test]
fn mppx_buys_over_a_pipe_and_pays_once_for_each_call() {
    let Some(clients) = Clients::get() else {
        return;
    };
    let world = World::new();
    let report = world.buy_over_a_pipe(clients.mppx(), &json!([count(1), count(1), count(2)]));
    assert_bought(&world, &report, 3);
    assert_used_once(&report, 1);
    assert_eq!(world.scratch.executions(), 3);
}

#[test]
fn mppx_buys_over_http_and_pays_once_for_each_call() {
    let Some(clients) = Clients::get() else {
        return;
    };
    let world = World::new();
    let report = world.buy_over_http(clients.mppx(), &json!([count(1), count(2)]));
    assert_bought(&world, &report, 2);
    assert_used_once(&report, 2);
    assert_eq!(world.scratch.executions(), 2);
    // Prices are told where this client can see them.
    let tools = report["tools"].as_array().unwrap();
    let priced = tools.iter().find(|tool| tool["name"] == "add").unwrap();
    assert_eq!(
        priced["_meta"]["x-mpp-pricing"]["amount"], PRICE,
        "{priced}"
    );
}

#[test]
fn pympp_buys_over_a_pipe_and_pays_once_for_each_call() {
    let Some(clients) = Clients::get() else {
        return;
    };
    let world = World::new();
    let report = world.buy_over_a_pipe(clients.pympp(), &json!([count(1), count(2)]));
    assert_bought(&world, &report, 2);
}

#[test]
fn pympp_buys_over_http_and_pays_once_for_each_call() {
    let Some(clients) = Clients::get() else {
        return;
    };
    let world = World::new();
    let report = world.buy_over_http(clients.pympp(), &json!([count(1), count(2)]));
    assert_bought(&world, &report, 2);
}

#[test]
fn one_server_is_paid_by_a_client_of_mpp_and_by_one_of_cep_8() {
    let Some(clients) = Clients::get() else {
        return;
    };
    let world = World::new();
    let relay = world._relay.url.clone();
    let mut serve = world.serve(&["--json", "--listen", "127.0.0.1:0", "--relay", &relay]);
    serve.env("NWC_CONNECTION", &world.seller);
    let shop = Running::start(serve);
    let ready = shop.next().expect("serve must become ready");

    let mut buyer = clients.mppx();
    let plan = json!([count(1)]).to_string();
    buyer.args([&plan, "http", ready["url"].as_str().unwrap()]);
    let report = world.report(buyer);
    assert_eq!(
        (&report["payments"], &report["spent"]),
        (&json!(1), &json!(PRICE))
    );

    let output = world
        .scratch
        .tollkeeper("buyer")
        .args(["call", ready["npub"].as_str().unwrap(), "tool:count", "n=1"])
        .args(["--relay", &relay, "--budget", "100 sats", "--json"])
        .args(["--lightning-network", "regtest"])
        .env("NWC_CONNECTION", &world.buyer)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let last: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "result", "{said}");
    assert_eq!(world.scratch.executions(), 2);

    // The books know both, and tell them apart by who paid.
    let books = world.scratch.path("books.db").display().to_string();
    let output = world
        .scratch
        .tollkeeper("shop")
        .args(["ledger", "report", "--json", "--by", "client,rail"])
        .args(["--ledger", &books])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let groups = lines.iter().filter(|line| line["event"] == "revenue");
    let clients: Vec<&Value> = groups.map(|line| &line["client"]).collect();
    assert!(clients.len() == 2 && clients[0] != clients[1], "{said}");
    let total = lines.iter().find(|line| line["event"] == "total").unwrap();
    assert_eq!(
        (&total["payments"], &total["amount"], &total["delivered"]),
        (&json!(2), &json!(2 * PRICE), &json!(2)),
        "{said}"
    );
}
