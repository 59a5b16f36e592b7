//! What must add up after every test.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;
use tollkeeper::ledger::{Entry, EntryState};
use tollkeeper::testing::{Harness, RailEvent, RawClient};

/// Long enough for everything that is under way, short enough for no deadline.
pub(crate) const SOON: Duration = Duration::from_millis(5);

/// Every settled payment is one execution or one live authorization, and every execution is paid (invariants 1 and 2).
pub(crate) async fn balance(harness: &Harness) {
    tokio::time::sleep(SOON).await;
    let entries = harness.entries().await.unwrap();
    let executed = entries.iter().filter(|entry| is_executed(entry)).count();
    let authorized = entries.iter().filter(|e| e.is_authorization()).count();
    assert_eq!(
        harness.executions(),
        executed,
        "executions are paid: {entries:?}"
    );
    assert_eq!(
        harness.rail.settled(),
        executed + authorized,
        "money is an execution or an authorization: {entries:?}"
    );
    let claimants: HashSet<_> = entries.iter().filter_map(|e| e.claimed_by).collect();
    assert_eq!(claimants.len(), executed, "one claimant each: {entries:?}");
}

fn is_executed(entry: &Entry) -> bool {
    matches!(entry.state, EntryState::Claimed | EntryState::Delivered)
}

/// How many authorizations are live.
pub(crate) async fn authorizations(harness: &Harness) -> usize {
    let entries = harness.entries().await.unwrap();
    entries
        .iter()
        .filter(|entry| entry.is_authorization())
        .count()
}

/// Settles the `nth` payment request, counted from 0.
pub(crate) async fn settle(harness: &Harness, nth: usize) {
    harness.rail.wait_for_minted(nth + 1).await;
    harness.rail.settle(&harness.rail.references()[nth]).await;
}

/// What comes for `client` right now.
pub(crate) async fn now(client: &RawClient) -> Vec<Value> {
    let collected = client.collect(SOON).await.unwrap();
    collected.into_iter().map(|(_, json)| json).collect()
}

/// What `messages` are, in short: the last word of a notification's method, an error's code, or `result`.
pub(crate) fn kinds(messages: &[Value]) -> Vec<String> {
    messages.iter().map(kind).collect()
}

/// As [`kinds`], for one message.
pub(crate) fn kind(message: &Value) -> String {
    if let Some(method) = message["method"].as_str() {
        return method.rsplit('/').next().unwrap_or_default().to_owned();
    }
    match message["error"]["code"].as_i64() {
        Some(code) => code.to_string(),
        None => "result".to_owned(),
    }
}

/// Nothing was asked of the wallet.
pub(crate) fn nothing_minted(harness: &Harness) -> bool {
    !harness
        .rail
        .log()
        .iter()
        .any(|event| matches!(event, RailEvent::Minted(_)))
}
