//! `ledger`: the books, for people and for programs. What could be spent or belongs to a buyer is left out.

mod export;
pub(in crate::gateway) mod report;
mod story;

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::gateway::args::{LedgerCommand, LedgerFile};
use crate::gateway::config::LedgerPlace;
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::{config, output, wire_up};
use crate::ledger::{Entry, EntryFilter, EntryState, FreeCall, FreeCallFilter, Ledger};
use crate::payment::{RequestEventId, Unit};

/// Entries that are read at a time.
const PAGE: usize = 500;

pub(super) async fn run(command: &LedgerCommand) -> Outcome {
    match command {
        LedgerCommand::List { file, state } => list(file, state).await,
        LedgerCommand::Free { file, client } => free(file, client.as_deref()).await,
        LedgerCommand::Balance { file, client, unit } => match client {
            Some(client) => statement(file, client, unit).await,
            None => balances(file).await,
        },
        LedgerCommand::Report(args) => report::run(args).await,
        LedgerCommand::Export(args) => export::run(args).await,
        LedgerCommand::Show { id, file } => show(id, file).await,
    }
}

async fn list(file: &LedgerFile, states: &[EntryState]) -> Outcome {
    let ledger = open(file)?;
    let mut filter = EntryFilter::new(states.to_vec(), PAGE);
    loop {
        let entries = ledger.list(&filter).await?;
        for entry in &entries {
            if file.json {
                output::json(&row(entry));
            } else {
                output::line(&format!(
                    "{}  {:9}  {:>14}  {}  {}  client {}",
                    entry.id.short(),
                    entry.state.as_str(),
                    entry.amount.to_string(),
                    entry.pmi,
                    entry.capability,
                    entry.client.short(),
                ));
            }
        }
        match entries.last() {
            Some(last) if entries.len() == PAGE => filter = filter.after(last),
            _ => return Ok(()),
        }
    }
}

async fn show(id: &str, file: &LedgerFile) -> Outcome {
    let ledger = open(file)?;
    let entry = match find(&*ledger, id).await? {
        Found::Entry(entry) => *entry,
        Found::Free(call) => {
            print_free(&call, file.json);
            return Ok(());
        }
    };
    if !file.json {
        for line in story::tell(&entry) {
            output::line(&line);
        }
        return Ok(());
    }
    let mut shown = row(&entry);
    shown["description"] = entry.description.clone().into();
    shown["deadline"] = entry.deadline.as_secs().into();
    shown["claimed_by"] = json!(entry.claimed_by);
    // What the price was, and at which rate it was converted.
    shown["meta"] = entry
        .meta
        .as_deref()
        .and_then(|meta| serde_json::from_str(meta).ok())
        .unwrap_or_default();
    shown["history"] = entry
        .history
        .iter()
        .map(|moment| {
            json!({
                "at_ms": moment.at.as_millis(),
                "state": moment.state.as_str(),
                "note": moment.note,
            })
        })
        .collect();
    output::json(&shown);
    Ok(())
}

async fn balances(file: &LedgerFile) -> Outcome {
    let ledger = open(file)?;
    let mut after = None;
    loop {
        let accounts = ledger.accounts(after, PAGE).await?;
        for account in &accounts {
            if file.json {
                output::json(&json!({
                    "event": "account",
                    "client": account.client,
                    "amount": account.amount.value(),
                    "unit": account.amount.unit(),
                    "touched_at": account.touched_at.as_secs(),
                }));
            } else {
                output::line(&format!("{}  {}", account.client, account.amount));
            }
        }
        match accounts.last() {
            Some(last) if accounts.len() == PAGE => {
                after = Some((last.client, last.amount.unit().clone()));
            }
            _ => return Ok(()),
        }
    }
}

async fn statement(file: &LedgerFile, client: &str, unit: &Unit) -> Outcome {
    let client = config::client("--client", client)?;
    let ledger = open(file)?;
    let mut after = 0;
    loop {
        let movements = ledger.movements(&client, unit, after, PAGE).await?;
        for movement in &movements {
            let (kind, on, off) = (movement.kind.as_str(), movement.on, movement.off);
            if file.json {
                output::json(&json!({
                    "event": "movement",
                    "number": movement.number,
                    "kind": kind,
                    "key": movement.key,
                    "on": on,
                    "off": off,
                    "left": movement.left,
                    "unit": unit,
                    "at": movement.at.as_secs(),
                }));
            } else {
                let change = if off > 0 {
                    format!("-{off}")
                } else {
                    format!("+{on}")
                };
                let left = movement.left;
                output::line(&format!("{kind:10}  {change:>12}  {left:>12} {unit}"));
            }
        }
        match movements.last() {
            Some(last) if movements.len() == PAGE => after = last.number,
            _ => return Ok(()),
        }
    }
}

async fn free(file: &LedgerFile, client: Option<&str>) -> Outcome {
    let ledger = open(file)?;
    let mut filter = FreeCallFilter::new(PAGE);
    filter.client = client
        .map(|text| config::client("--client", text))
        .transpose()?;
    loop {
        let calls = ledger.free_calls(&filter).await?;
        for call in &calls {
            print_free(call, file.json);
        }
        match calls.last() {
            Some(last) if calls.len() == PAGE => filter = filter.after(last),
            _ => return Ok(()),
        }
    }
}

/// Why a call was not to be paid for.
fn print_free(call: &FreeCall, as_json: bool) {
    if as_json {
        output::json(&json!({
            "event": "free_call",
            "id": call.event,
            "client": call.client,
            "capability": call.capability,
            "by": call.by,
            "why": call.why,
            "at": call.at.as_secs(),
        }));
    } else {
        output::line(&format!(
            "{}  free       {}  by {}: {}  client {}",
            call.event.short(),
            call.capability,
            call.by,
            output::harmless(&call.why),
            call.client.short(),
        ));
    }
}

/// The shortest beginning of an id that is looked for: what `list` shows.
const SHORTEST: usize = 8;

/// What an id leads to.
enum Found {
    Entry(Box<Entry>),
    Free(FreeCall),
}

/// The entry that a request opened or was executed for, or why it was free, by the request's event id or the beginning of it.
async fn find(ledger: &dyn Ledger, id: &str) -> Outcome<Found> {
    let id = id.to_ascii_lowercase();
    if id.len() < SHORTEST || id.len() > 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::usage(format!(
            "ID: {id:?} must be an event id in hex, or at least its first {SHORTEST} digits"
        )));
    }
    if let Ok(event) = id.parse::<RequestEventId>() {
        if let Some(call) = ledger.free_call(&event).await? {
            return Ok(Found::Free(call));
        }
        if let Some(entry) = ledger.get(&event).await? {
            return Ok(Found::Entry(Box::new(entry)));
        }
    }
    let is_it = |event: &RequestEventId| event.to_string().starts_with(&id);
    let mut found: Vec<Entry> = Vec::new();
    let mut filter = EntryFilter::new(Vec::new(), PAGE);
    loop {
        let page = ledger.list(&filter).await?;
        let last = page.last().cloned();
        found.extend(
            page.into_iter()
                .filter(|entry| is_it(&entry.id) || entry.claimed_by.as_ref().is_some_and(is_it)),
        );
        match last {
            Some(last) if found.len() < 2 => filter = filter.after(&last),
            _ => break,
        }
    }
    let mut free: Vec<FreeCall> = Vec::new();
    let mut filter = FreeCallFilter::new(PAGE);
    loop {
        let page = ledger.free_calls(&filter).await?;
        let last = page.last().cloned();
        free.extend(page.into_iter().filter(|call| is_it(&call.event)));
        match last {
            Some(last) if free.len() < 2 => filter = filter.after(&last),
            _ => break,
        }
    }
    if found.len() + free.len() > 1 {
        return Err(Failure::failed(format!(
            "several entries begin with {id}; give more digits, which `ledger list --json` and `ledger free --json` show"
        )));
    }
    let found = found.pop().map(|entry| Found::Entry(Box::new(entry)));
    found
        .or_else(|| free.pop().map(Found::Free))
        .ok_or_else(|| Failure::failed(format!("there is no entry {id}")))
}

fn row(entry: &Entry) -> Value {
    let settled = entry.settlement.as_ref();
    json!({
        "id": entry.id,
        "state": entry.state.as_str(),
        "capability": entry.capability,
        "client": entry.client,
        "pmi": entry.pmi,
        "payment_interaction": entry.interaction.as_str(),
        "amount": entry.amount.value(),
        "unit": entry.amount.unit(),
        "settled": settled.map(|settled| settled.amount.value()),
        "authorization": entry.is_authorization(),
        "quoted_at": entry.quoted_at.as_secs(),
        "updated_at": entry.updated_at().as_secs(),
    })
}

fn open(args: &LedgerFile) -> Outcome<Arc<dyn Ledger>> {
    let file: PathBuf = match &args.ledger {
        Some(file) => file.clone(),
        None => LedgerPlace::default_file(),
    };
    // Opening would make an empty one, and its answer would be a lie.
    if !file.is_file() {
        return Err(Failure::usage(format!(
            "--ledger: there is no ledger at {}",
            file.display()
        )));
    }
    Ok(wire_up::books_at(&LedgerPlace::File(file))?.ledger)
}
