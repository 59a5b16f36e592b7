//! Sats: the SDK's own NWC handler and processor, against the rail of this crate and two wallets that settle each other's
//! invoices (`tollkeeper wallet fake`).

use serde_json::{Value, json};

use crate::binary::{Relay, Running, Scratch, mini_mcp};
use crate::sdk::{Sdk, buyer};

struct Wallets {
    _running: Running,
    connections: Value,
}

impl Wallets {
    fn open(scratch: &Scratch, relay: &Relay, flags: &[&str]) -> Self {
        let mut command = scratch.tollkeeper("wallets");
        command
            .args(["wallet", "fake", "--json", "--relay", &relay.url])
            .args(flags);
        let running = Running::start(command);
        let ready = running.next().expect("the wallets must become ready");
        Self {
            _running: running,
            connections: ready["wallets"].clone(),
        }
    }

    fn connection(&self, name: &str) -> &str {
        let mut wallets = self.connections.as_array().unwrap().iter();
        let wallet = wallets.find(|wallet| wallet["name"] == name).unwrap();
        wallet["connection"].as_str().unwrap()
    }
}

/// The SDK pays invoices of ours, with and without the wallet telling of money that came.
fn the_sdk_pays(faults: &[&str]) {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let wallets = Wallets::open(&scratch, &relay, faults);
    let mut command = scratch.tollkeeper("server");
    command
        .env("NWC_CONNECTION", wallets.connection("seller"))
        .args(["serve", "--json", "--relay", &relay.url])
        .args(["--price", "tool:add=7 sat"])
        .args(["--lightning-network", "regtest", "--"])
        .args(mini_mcp());
    let shop = Running::start(command);
    let ready = shop.next().expect("serve must become ready");
    for encryption in ["optional", "disabled"] {
        let config = json!({
            "server": ready["pubkey"], "relays": [relay.url], "encryption": encryption,
            "pay": { "nwc": true, "limit": 7 },
        });
        let mut client = sdk.client_with(config, Some(wallets.connection("buyer")));
        client.connect();
        let before = scratch.executions();
        for n in 1..=2 {
            let done = client.call("add", json!({ "a": 2, "b": 3 }));
            assert_eq!(done.text(), "5");
            assert_eq!(
                done.notifications().first(),
                Some(&"notifications/payment_required")
            );
            assert_eq!(scratch.executions(), before + n);
        }
    }
}

#[test]
fn the_nwc_handler_of_the_sdk_pays_for_what_serve_sells() {
    the_sdk_pays(&[]);
}

#[test]
fn it_is_served_although_the_wallet_tells_of_nothing() {
    the_sdk_pays(&["--fault", "notifications=none"]);
}

#[test]
fn the_nwc_processor_of_the_sdk_is_paid_by_call() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let wallets = Wallets::open(&scratch, &relay, &[]);
    let price =
        json!({ "method": "tools/call", "name": "add", "amount": 7, "currencyUnit": "sats" });
    let config = json!({ "relays": [relay.url], "nwc": true, "prices": [price] });
    let server = sdk.server_with(config, Some(wallets.connection("seller")));
    for encryption in ["optional", "disabled"] {
        let mut command = buyer(&scratch, &server.pubkey, &[&relay.url], "call");
        let output = command
            .env("NWC_CONNECTION", wallets.connection("buyer"))
            .args([
                "--json",
                "--encryption",
                encryption,
                "--lightning-network",
                "regtest",
            ])
            .args(["tool:add", "a=2", "b=3", "--budget", "7 sats"])
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let last = said.lines().last().unwrap_or_default();
        let last: Value = serde_json::from_str(last).unwrap_or_else(|_| {
            panic!("{said}{}", String::from_utf8_lossy(&output.stderr));
        });
        assert_eq!(last["result"]["content"][0]["text"], "5", "{said}");
        assert_eq!(last["paid"]["amount"], 7, "{said}");
        server.report("executed");
    }
}
