//! Finding each other: announcements (CEP-6), lists of relays (CEP-17), prices before anybody is asked.

use serde_json::{Value, json};

use crate::binary::{Relay, Scratch, Server};
use crate::sdk::{Sdk, buyer};

const PRICES: [&str; 4] = [
    "--price",
    "tool:add=7 sat",
    "--price",
    "resource:mini://item/*=4 sat",
];

fn lines(output: &std::process::Output) -> Vec<Value> {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What `discover` finds, once it finds `count` servers and what they offer.
fn discovered(scratch: &Scratch, relay: &Relay, count: usize, offers: usize) -> Vec<Value> {
    let until = std::time::Instant::now() + crate::binary::PATIENCE;
    loop {
        let mut command = scratch.tollkeeper("finder");
        command.args(["discover", "--json", "--relay", &relay.url]);
        let found = lines(&command.output().unwrap());
        let servers = found.iter().filter(|line| line["event"] == "server");
        let servers = servers.count();
        if servers == count && found.len() - servers >= offers {
            return found;
        }
        // Announcements are published behind the readiness.
        assert!(std::time::Instant::now() < until, "{found:?}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn announced_servers_of_both_kinds_are_discovered_with_their_prices() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let relay = Relay::start(&scratch);
    let flags = ["--announce", "--name", "Ours"];
    let ours = Server::start(&scratch, &relay, &[&PRICES[..], &flags].concat());
    let price =
        json!({ "method": "tools/call", "name": "add", "amount": 9, "currencyUnit": "sats" });
    let theirs = sdk.server(json!({ "relays": [relay.url], "announced": true, "prices": [price] }));
    let found = discovered(&scratch, &relay, 2, 15);
    let server = |pubkey: &str| {
        let mut servers = found.iter();
        servers
            .find(|line| line["event"] == "server" && line["pubkey"] == pubkey)
            .unwrap_or_else(|| panic!("{found:?}"))
    };
    let offer = |pubkey: &str, capability: &str| {
        let mut offers = found.iter();
        offers
            .find(|line| line["server"] == pubkey && line["capability"] == capability)
            .unwrap_or_else(|| panic!("{capability}: {found:?}"))["price"]["min"]
            .clone()
    };
    let own = ours.ready["pubkey"].as_str().unwrap();
    assert_eq!(server(own)["name"], "Ours");
    assert_eq!(server(own)["pmis"], json!(["fake"]));
    assert_eq!(offer(own, "tool:add"), 7);
    assert_eq!(offer(own, "tool:echo"), Value::Null);
    assert_eq!(offer(own, "resource:mini://item/{id}"), 4);
    assert_eq!(server(&theirs.pubkey)["name"], "contextvm-server");
    assert_eq!(offer(&theirs.pubkey, "tool:add"), 9);
    assert_eq!(offer(&theirs.pubkey, "tool:echo"), Value::Null);

    let mut command = scratch.tollkeeper("finder");
    command.args(["discover", "--relay", &relay.url]);
    let table = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let row = table.lines().find(|line| line.starts_with("Ours"));
    let row = row.unwrap_or_else(|| panic!("{table}"));
    assert!(
        row.contains(ours.npub()) && row.contains("4 sats to 7 sats"),
        "{table}"
    );
}

/// N-34, N-35: found by the list of relays, each by the other.
#[test]
fn a_server_is_found_by_its_list_of_relays() {
    let Some(sdk) = Sdk::get() else { return };
    let scratch = Scratch::new();
    let (home, bootstrap) = (Relay::start(&scratch), Relay::start(&scratch));
    let flags = ["--relay-list", "true", "--bootstrap-relay", &bootstrap.url];
    let ours = Server::start(&scratch, &home, &[&PRICES[..], &flags].concat());
    // The list is published behind the readiness; a client that asks too early asks on the wrong relay.
    let mut config = json!({
        "server": ours.ready["pubkey"], "relays": [], "discovery": [bootstrap.url], "pay": { "pmi": "fake" },
    });
    let until = std::time::Instant::now() + crate::binary::PATIENCE;
    loop {
        let mut client = sdk.client(config.clone());
        config["stateless"] = true.into();
        client.act("connect", json!({}));
        let call = json!({ "name": "add", "arguments": { "a": 2, "b": 3 }, "timeout": 3000 });
        let done = client.act("call", call);
        if done.last["result"].is_object() {
            assert_eq!(done.text(), "5");
            break;
        }
        assert!(std::time::Instant::now() < until, "{done:?}");
    }

    let theirs = sdk.server(json!({ "relays": [home.url], "bootstrap": [bootstrap.url] }));
    let mut command = buyer(&scratch, &theirs.pubkey, &[], "call");
    command.args([
        "--json",
        "--discovery-relay",
        &bootstrap.url,
        "tool:echo",
        "text=hi",
    ]);
    let called = lines(&command.output().unwrap());
    let last = called.last().unwrap();
    assert_eq!(last["result"]["content"][0]["text"], "hi", "{called:?}");
}

#[test]
fn a_server_of_which_no_relay_is_known_is_wrong_usage_that_says_what_helps() {
    let scratch = Scratch::new();
    let command = &mut buyer(&scratch, &"ab".repeat(32), &[], "call");
    let output = command.args(["tool:x"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--discovery-relay"), "{said}");
}
