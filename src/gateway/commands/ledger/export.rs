//! `ledger export`: every priced call, one line each: who, what, for how much, by which rail, under which reference, and what
//! became of it. What could be spent is left out: payment requests, proofs, params and results.

use serde_json::{Value, json};

use super::{PAGE, open, report};
use crate::gateway::args::{ExportArgs, ExportAs};
use crate::gateway::exit::Outcome;
use crate::gateway::output;
use crate::ledger::{Entry, EntryState, FreeCall, FreeCallFilter};
use crate::payment::Timestamp;

/// The columns, in their order.
const COLUMNS: [&str; 18] = [
    "id",
    "quoted_at",
    "state",
    "capability",
    "call",
    "client",
    "rail",
    "reference",
    "amount",
    "unit",
    "arrived",
    "settled_at",
    "settlement",
    "executed",
    "delivered_at",
    "took_ms",
    "free_by",
    "why",
];

pub(super) async fn run(args: &ExportArgs) -> Outcome {
    let ledger = open(&args.file)?;
    let as_csv = args.format == ExportAs::Csv;
    let until = args.until.map(|day| day.plus(report::DAY));
    let wanted = |at: Timestamp| {
        args.since.is_none_or(|since| at >= since) && until.is_none_or(|until| at < until)
    };
    if as_csv {
        output::line(&COLUMNS.join(","));
    }
    let print = |line: &Value| {
        if as_csv {
            output::line(&csv(line));
        } else {
            output::json(line);
        }
    };
    report::each_entry(&*ledger, |entry| {
        if wanted(entry.quoted_at) {
            print(&paid(entry));
        }
    })
    .await?;
    let mut filter = FreeCallFilter::new(PAGE);
    loop {
        let calls = ledger.free_calls(&filter).await?;
        for call in calls.iter().filter(|call| wanted(call.at)) {
            print(&free(call));
        }
        match calls.last() {
            Some(last) if calls.len() == PAGE => filter = filter.after(last),
            _ => return Ok(()),
        }
    }
}

fn paid(entry: &Entry) -> Value {
    let at = |state: EntryState| {
        let mut moments = entry.history.iter().rev();
        moments
            .find(|moment| moment.state == state)
            .map(|moment| moment.at)
    };
    let (settled, delivered) = (at(EntryState::Settled), at(EntryState::Delivered));
    let begun = at(EntryState::Claimed);
    let took = delivered
        .zip(begun)
        .map(|(to, from)| u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX));
    let settlement = entry.settlement.as_ref();
    json!({
        "event": "call",
        "id": entry.id,
        "quoted_at": entry.quoted_at.to_rfc3339(),
        "state": entry.state.as_str(),
        "capability": entry.capability,
        // The canonical identity: the same call has the same, and it gives no argument away.
        "call": entry.identity,
        "client": entry.client,
        "rail": entry.pmi,
        "reference": entry.payment_request.as_ref().map(|made| made.reference.as_str()),
        "amount": entry.amount.value(),
        "unit": entry.amount.unit(),
        "arrived": settlement.map(|settled| settled.amount.value()),
        "settled_at": settled.map(Timestamp::to_rfc3339),
        "settlement": settlement.map(|settled| settled.reference.as_str()),
        "executed": entry.claimed_by,
        "delivered_at": delivered.map(Timestamp::to_rfc3339),
        "took_ms": took,
    })
}

fn free(call: &FreeCall) -> Value {
    json!({
        "event": "free_call",
        "id": call.event,
        "quoted_at": call.at.to_rfc3339(),
        "state": "free",
        "capability": call.capability,
        "client": call.client,
        "free_by": call.by,
        "why": call.why,
    })
}

/// One line of RFC 4180. What a spreadsheet would take for a formula is made a text.
fn csv(line: &Value) -> String {
    let field = |column: &&str| {
        let text = match &line[*column] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let text = match text.as_bytes().first() {
            Some(b'=' | b'+' | b'-' | b'@' | b'\t' | b'\r') => format!("'{text}"),
            _ => text,
        };
        if text.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text
        }
    };
    COLUMNS.iter().map(field).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_csv_is_read_in_one_way_only() {
        let line =
            json!({"id": "a", "why": "b, \"c\"\nd", "capability": "=HYPERLINK(1)", "amount": 7});
        let expected = "a,,,'=HYPERLINK(1),,,,,7,,,,,,,,,\"b, \"\"c\"\"\nd\"";
        assert_eq!(csv(&line), expected);
    }
}
