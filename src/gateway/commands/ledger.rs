//! `ledger`: the books, for people and for programs. What could be spent or belongs to a buyer is left out.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::gateway::args::{LedgerCommand, LedgerFile};
use crate::gateway::config::LedgerPlace;
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::{output, wire_up};
use crate::ledger::{Entry, EntryFilter, EntryState, Ledger};
use crate::payment::RequestEventId;

/// Entries that are read at a time.
const PAGE: usize = 500;

pub(super) async fn run(command: &LedgerCommand) -> Outcome {
    match command {
        LedgerCommand::List { file, state } => list(file, state).await,
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

async fn show(id: &RequestEventId, file: &LedgerFile) -> Outcome {
    let ledger = open(file)?;
    let Some(entry) = ledger.get(id).await? else {
        return Err(Failure::failed(format!("there is no entry {id}")));
    };
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
    if file.json {
        output::json(&shown);
    } else if let Ok(text) = serde_json::to_string_pretty(&shown) {
        output::line(&text);
    }
    Ok(())
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
    wire_up::ledger(&LedgerPlace::File(file))
}
