//! `receipts`: what was paid, with everything that both sides signed about it.

mod verify;

use std::path::{Path, PathBuf};

use serde_json::json;

use self::verify::Verdict;
use crate::client::receipt::{Receipt, ReceiptFolder};
use crate::gateway::args::{ReceiptsArgs, ReceiptsCommand};
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::output::{self, Paint, harmless};
use crate::gateway::{home, wire_up};

#[expect(clippy::unused_async, reason = "shaped like every command")]
pub(super) async fn run(args: &ReceiptsArgs) -> Outcome {
    let folder = ReceiptFolder::new(home::folder()?.join(wire_up::RECEIPTS));
    match &args.command {
        ReceiptsCommand::List => {
            for (_, receipt) in wanted(&folder, &[])? {
                list(&receipt, args.json);
            }
            Ok(())
        }
        ReceiptsCommand::Show { receipt } => {
            for (_, receipt) in wanted(&folder, std::slice::from_ref(receipt))? {
                print(&receipt.redacted(false, true), args.json);
            }
            Ok(())
        }
        ReceiptsCommand::Export {
            receipts,
            with_proof,
            with_contents,
        } => {
            for (_, receipt) in wanted(&folder, receipts)? {
                output::json(&receipt.redacted(*with_proof, *with_contents));
            }
            Ok(())
        }
        ReceiptsCommand::Verify { receipts } => verify(&folder, receipts, args.json),
    }
}

/// The receipts that are named, by number or by file; all if none is.
fn wanted(folder: &ReceiptFolder, names: &[String]) -> Outcome<Vec<(PathBuf, Receipt)>> {
    let read = |file: PathBuf| Ok((file.clone(), ReceiptFolder::read(&file)?));
    if names.is_empty() {
        return folder.files().into_iter().map(read).collect();
    }
    names
        .iter()
        .map(|name| {
            let by_number = |file: &PathBuf| {
                let stem = file.file_stem().unwrap_or_default().to_string_lossy();
                stem.rsplit('-').next() == Some(name)
            };
            let file = match Path::new(name).is_file() {
                true => Some(PathBuf::from(name)),
                false => folder.files().into_iter().rfind(by_number),
            };
            let file = file.ok_or_else(|| {
                Failure::usage(format!(
                    "RECEIPT: {name:?} must be the number of a payment that was made, or a file"
                ))
            })?;
            read(file)
        })
        .collect()
}

fn list(receipt: &Receipt, as_json: bool) {
    if as_json {
        output::json(&json!({
            "event": "receipt",
            "payment": receipt.payment,
            "amount": receipt.amount,
            "unit": receipt.unit,
            "capability": receipt.capability,
            "server": receipt.server,
            "request": receipt.request_event,
            "answer": receipt.answer,
            "reserved_at": receipt.reserved_at_ms.as_secs(),
        }));
        return;
    }
    let price = receipt
        .price()
        .map_or_else(|| receipt.amount.to_string(), |price| price.to_string());
    output::line(&format!(
        "{:>6}  {price:>14}  {:11}  {}  server {}",
        receipt.payment.to_string(),
        receipt.answer.as_str(),
        harmless(&receipt.capability),
        receipt.server.short(),
    ));
}

fn print(receipt: &Receipt, as_json: bool) {
    if as_json {
        output::json(receipt);
    } else if let Ok(text) = serde_json::to_string_pretty(receipt) {
        output::line(&harmless(&text));
    }
}

fn verify(folder: &ReceiptFolder, names: &[String], as_json: bool) -> Outcome {
    let paint = Paint::stdout();
    let mut wrong = 0;
    for (file, receipt) in wanted(folder, names)? {
        let findings = verify::verify(&receipt);
        let broken = findings
            .iter()
            .any(|finding| finding.verdict == Verdict::Wrong);
        wrong += usize::from(broken);
        if as_json {
            output::json(&json!({
                "event": "verified",
                "payment": receipt.payment,
                "file": file.display().to_string(),
                "ok": !broken,
                "findings": findings,
            }));
            continue;
        }
        let title = format!("payment {} ({})", receipt.payment, file.display());
        output::line(&paint.bold(&title));
        for finding in findings {
            let word = match finding.verdict {
                Verdict::Proven => paint.green("proven    "),
                Verdict::NotProven => paint.yellow("not proven"),
                Verdict::Wrong => paint.red("WRONG     "),
            };
            output::line(&format!("  {word}  {}", harmless(&finding.text)));
        }
    }
    match wrong {
        0 => Ok(()),
        n => Err(Failure::failed(format!("{n} receipts are wrong"))),
    }
}
