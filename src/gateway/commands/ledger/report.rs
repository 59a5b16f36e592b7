//! `ledger report`: what came in, by capability, client, rail and day; and what is held for clients.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::{PAGE, open};
use crate::gateway::args::ReportArgs;
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::output::{self, Paint};
use crate::ledger::{Entry, EntryFilter, Ledger, Revenue, RevenueBy, Takings};
use crate::payment::{Timestamp, Unit};

/// How often somebody who waits is told how far it is.
const PROGRESS: Duration = Duration::from_secs(1);

pub(super) async fn run(args: &ReportArgs) -> Outcome {
    let (since, until) = (args.since, args.until.map(|day| day.plus(DAY)));
    if since
        .zip(until)
        .is_some_and(|(since, until)| since >= until)
    {
        return Err(Failure::usage("--until: must not be before --since"));
    }
    let mut by: Vec<RevenueBy> = Vec::new();
    for wanted in &args.by {
        if !by.contains(wanted) {
            by.push(*wanted);
        }
    }
    if by.is_empty() {
        by = vec![RevenueBy::Capability, RevenueBy::Rail];
    }
    let ledger = open(&args.file)?;
    let mut revenue = Revenue::new(by.clone(), since, until);
    each_entry(&*ledger, |entry| revenue.add(entry)).await?;
    let held = held(&*ledger).await?;
    if revenue.has_overflowed() {
        output::remark("there are too many groups to tell apart; the rest is under (others)");
    }
    if args.file.json {
        print_json(&by, &revenue, &held);
    } else {
        print_text(&by, &revenue, &held);
    }
    Ok(())
}

/// A day.
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// Reads the books through, a page at a time.
pub(super) async fn each_entry(ledger: &dyn Ledger, mut each: impl FnMut(&Entry)) -> Outcome {
    let mut filter = EntryFilter::new(Vec::new(), PAGE);
    let (mut read, mut told) = (0usize, Instant::now());
    loop {
        let page = ledger.list(&filter).await?;
        page.iter().for_each(&mut each);
        read += page.len();
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            output::remark(&format!("read {read} entries"));
        }
        match page.last() {
            Some(last) if page.len() == PAGE => filter = filter.after(last),
            _ => return Ok(()),
        }
    }
}

/// What is on the accounts of all clients, by unit.
async fn held(ledger: &dyn Ledger) -> Outcome<BTreeMap<String, (u64, u64)>> {
    let mut held: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut after = None;
    loop {
        let accounts = ledger.accounts(after, PAGE).await?;
        for account in &accounts {
            let (unit, value) = (account.amount.unit(), account.amount.value());
            let of_unit = held.entry(unit.to_string()).or_default();
            of_unit.0 += u64::from(value > 0);
            of_unit.1 = of_unit.1.saturating_add(value);
        }
        match accounts.last() {
            Some(last) if accounts.len() == PAGE => {
                after = Some((last.client, last.amount.unit().clone()));
            }
            _ => return Ok(held),
        }
    }
}

fn figures(unit: &Unit, takings: &Takings) -> Map<String, Value> {
    let figures = json!({
        "unit": unit,
        "payments": takings.payments,
        "amount": takings.amount,
        "delivered": takings.delivered,
        "owed": takings.owed,
        "from_accounts": takings.from_accounts,
        "drawn": takings.drawn,
    });
    match figures {
        Value::Object(figures) => figures,
        _ => Map::new(),
    }
}

fn print_json(by: &[RevenueBy], revenue: &Revenue, held: &BTreeMap<String, (u64, u64)>) {
    for (names, unit, takings) in revenue.groups() {
        let mut line = Map::from_iter([("event".to_owned(), "revenue".into())]);
        for (by, name) in by.iter().zip(names) {
            line.insert(by.as_str().to_owned(), name.as_str().into());
        }
        line.extend(figures(unit, takings));
        output::json(&line);
    }
    for (unit, takings) in revenue.totals() {
        let mut line = Map::from_iter([("event".to_owned(), "total".into())]);
        line.extend(figures(unit, takings));
        output::json(&line);
    }
    for (unit, (accounts, amount)) in held {
        output::json(
            &json!({ "event": "held", "unit": unit, "accounts": accounts, "amount": amount }),
        );
    }
}

fn print_text(by: &[RevenueBy], revenue: &Revenue, held: &BTreeMap<String, (u64, u64)>) {
    let paint = Paint::stdout();
    let lines: Vec<(Vec<String>, String)> = revenue
        .groups()
        .map(|(names, unit, takings)| {
            let names = by.iter().zip(names).map(|(by, name)| shown(*by, name));
            (names.collect(), sentence(unit, takings))
        })
        .collect();
    let width = |column: usize| {
        let widths = lines.iter().map(|(names, _)| names[column].chars().count());
        widths.max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..by.len()).map(width).collect();
    for (names, sentence) in &lines {
        let columns: Vec<String> = names
            .iter()
            .zip(&widths)
            .map(|(name, width)| format!("{name:width$}"))
            .collect();
        output::line(&format!("{}  {sentence}", columns.join("  ")));
    }
    for (unit, takings) in revenue.totals() {
        output::line(&paint.bold(&format!("in all  {}", sentence(unit, takings))));
    }
    if lines.is_empty() {
        output::line("nothing has come in");
    }
    for (unit, (accounts, amount)) in held {
        output::line(&format!(
            "held for clients  {amount} {unit} on {accounts} accounts"
        ));
    }
}

/// A key is long, and its beginning tells it from others.
fn shown(by: RevenueBy, name: &str) -> String {
    match by {
        RevenueBy::Client => name.chars().take(8).collect(),
        _ => output::harmless(name),
    }
}

fn sentence(unit: &Unit, takings: &Takings) -> String {
    let mut sentence = format!(
        "{:>12} {unit}  {} payments, {} delivered",
        takings.amount, takings.payments, takings.delivered
    );
    if takings.owed > 0 {
        sentence += &format!(", {} calls owed", takings.owed);
    }
    if takings.from_accounts > 0 {
        sentence += &format!(
            ", {} calls for {} {unit} from accounts",
            takings.from_accounts, takings.drawn
        );
    }
    sentence
}

/// Reads a day: `2026-11-21`.
pub(in crate::gateway) fn day(text: &str) -> Result<Timestamp, String> {
    let wrong = || "must be a day such as 2026-11-21".to_owned();
    let mut fields = text.split('-').map(|field| field.parse::<u64>().ok());
    let mut field = || fields.next().flatten().ok_or_else(wrong);
    let (year, month, day) = (field()?, field()?, field()?);
    if !(1970..10_000).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return Err(wrong());
    }
    // Nothing is in the books from before the epoch; from there it is counted, and the calendar is asked back.
    let guess = (year - 1970) * 365 + (year - 1969) / 4;
    let (first, wanted) = (
        guess.saturating_sub(40),
        format!("{year:04}-{month:02}-{day:02}"),
    );
    (first..guess + 800)
        .map(|days| Timestamp::from_secs(days * DAY.as_secs()))
        .find(|at| at.to_date() == wanted)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_its_first_moment() {
        for text in [
            "1970-01-01",
            "2000-02-29",
            "2026-11-21",
            "2099-12-31",
            "9999-12-31",
        ] {
            let at = day(text).unwrap();
            assert_eq!(at.to_rfc3339(), format!("{text}T00:00:00Z"));
        }
        for bad in [
            "",
            "2026",
            "2026-02-29",
            "2026-13-01",
            "1969-12-31",
            "x-y-z",
            "2026-04-31",
        ] {
            assert!(day(bad).is_err(), "{bad}");
        }
    }
}
