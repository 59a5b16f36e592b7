//! `spending`: what was spent, what is held for payments whose outcome is unknown, and how that is resolved.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::ledger::{
    AnswerState, Attempt, AttemptFilter, AttemptId, AttemptState, BuyerLedger, Settled, Tally, Used,
};
use crate::gateway::args::{SpendingArgs, SpendingCommand};
use crate::gateway::exit::{Failure, Outcome};
use crate::gateway::output::{self, harmless};
use crate::gateway::{home, wire_up};
use crate::payment::{Amount, Clock, SystemClock, Timestamp};
use crate::transport::nostr::parse_server;

/// Payments that are read at a time.
const PAGE: usize = 500;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) async fn run(args: &SpendingArgs) -> Outcome {
    let home = home::folder()?;
    if !home.join(wire_up::BOOKS).is_file() {
        // Looking must not make them.
        return nothing(args);
    }
    let report = Report { as_json: args.json };
    match &args.command {
        None => report.summary(&*wire_up::buyer_ledger(&home)?).await,
        Some(SpendingCommand::List { state }) => {
            report.list(&*wire_up::buyer_ledger(&home)?, state).await
        }
        Some(SpendingCommand::Resolve { wallets }) => {
            let payments = wire_up::look_up_only(&home, wallets).await?;
            for attempt in payments.resolve_unknown().await? {
                report.row(&attempt);
            }
            Ok(())
        }
        Some(SpendingCommand::Decide { payment, outcome }) => {
            decide(home, *payment, *outcome, &report).await
        }
        Some(SpendingCommand::Forgive { server }) => {
            let (server, _) =
                parse_server(server).map_err(|error| Failure::usage(format!("SERVER: {error}")))?;
            let ledger = wire_up::buyer_ledger(&home)?;
            let forgiven = ledger.make_up(&server, None, AnswerState::Forgiven).await?;
            report.forgiven(forgiven);
            Ok(())
        }
    }
}

fn nothing(args: &SpendingArgs) -> Outcome {
    match args.command {
        Some(SpendingCommand::Decide { payment, .. }) => Err(Failure::failed(format!(
            "there is no payment {payment}: nothing was ever paid from here"
        ))),
        None if args.json => {
            output::json(&json!({"event": "spending", "hour": [], "day": [], "total": []}));
            Ok(())
        }
        None => {
            output::line("nothing was ever paid from here");
            Ok(())
        }
        Some(_) => Ok(()),
    }
}

/// A person knows what no wallet could tell.
async fn decide(home: PathBuf, id: AttemptId, outcome: AttemptState, report: &Report) -> Outcome {
    if !matches!(outcome, AttemptState::Paid | AttemptState::Refused) {
        return Err(Failure::usage("OUTCOME: must be paid or refused"));
    }
    let ledger = wire_up::buyer_ledger(&home)?;
    let one = AttemptFilter::one(id);
    let Some(attempt) = ledger.list(&one).await?.pop() else {
        return Err(Failure::failed(format!("there is no payment {id}")));
    };
    if attempt.state != AttemptState::Unknown {
        return Err(Failure::failed(format!(
            "payment {id} is {}, so there is nothing to decide",
            attempt.state.as_str()
        )));
    }
    let end = Settled::new(outcome, "decided by hand");
    ledger.settle(id, end, SystemClock.now()).await?;
    for attempt in ledger.list(&one).await? {
        report.row(&attempt);
    }
    Ok(())
}

struct Report {
    as_json: bool,
}

impl Report {
    async fn summary(&self, ledger: &dyn BuyerLedger) -> Outcome {
        let now = SystemClock.now();
        let since = |window: Option<Duration>| Tally {
            since: window.map(|window| now.minus(window)),
            ..Tally::default()
        };
        let sums = ledger
            .used(vec![since(Some(HOUR)), since(Some(DAY)), since(None)])
            .await?;
        let open = AttemptFilter::states(&[AttemptState::Reserved, AttemptState::Unknown]);
        let held = ledger.list(&open).await?;
        let [hour, day, total] = [0, 1, 2].map(|at| by_unit(sums.get(at)));
        if self.as_json {
            output::json(&json!({
                "event": "spending", "hour": money(&hour), "day": money(&day), "total": money(&total),
            }));
            for attempt in &held {
                let mut line = row(attempt);
                line["event"] = "held".into();
                line["resolves"] = resolves(attempt).into();
                output::json(&line);
            }
            return Ok(());
        }
        for (window, sums) in [("last hour", hour), ("last 24 hours", day), ("ever", total)] {
            output::line(&format!("{window:14}  {}", words(&sums)));
        }
        if held.is_empty() {
            output::line("held            nothing");
        }
        for attempt in &held {
            let age = now.since(attempt.new.at).as_secs();
            output::line(&format!(
                "held            {} for {}, payment {}, {} for {}: {}\n                {}",
                attempt.amount(),
                harmless(&attempt.new.capability),
                attempt.id,
                attempt.state.as_str(),
                ago(age),
                attempt.note,
                resolves(attempt),
            ));
        }
        Ok(())
    }

    async fn list(&self, ledger: &dyn BuyerLedger, states: &[AttemptState]) -> Outcome {
        let mut filter = AttemptFilter::states(states);
        filter.limit = Some(PAGE);
        loop {
            let page = ledger.list(&filter).await?;
            for attempt in &page {
                self.row(attempt);
            }
            match page.last() {
                Some(last) if page.len() == PAGE => filter.after = Some(last.id),
                _ => return Ok(()),
            }
        }
    }

    fn row(&self, attempt: &Attempt) {
        if self.as_json {
            output::json(&row(attempt));
            return;
        }
        output::line(&format!(
            "{:>6}  {:8}  {:>14}  {:11}  {}  server {}",
            attempt.id.to_string(),
            attempt.state.as_str(),
            attempt.amount().to_string(),
            attempt.answer.as_str(),
            harmless(&attempt.new.capability),
            attempt.new.server.short(),
        ));
    }

    fn forgiven(&self, payments: usize) {
        if self.as_json {
            output::json(&json!({"event": "forgiven", "payments": payments}));
        } else {
            output::line(&format!("forgave {payments} payments"));
        }
    }
}

/// How what is held gets free.
fn resolves(attempt: &Attempt) -> &'static str {
    match attempt.state {
        AttemptState::Reserved => {
            "the process that pays is still at it; if it ends without an answer, the wallet is asked"
        }
        _ => {
            "the wallet is asked with the next run that pays, and by 'tollkeeper spending resolve'; if it cannot tell, look \
             there yourself and say 'tollkeeper spending decide NUMBER paid' or 'refused'"
        }
    }
}

fn ago(secs: u64) -> String {
    match secs {
        0..=119 => format!("{secs} s"),
        120..=7199 => format!("{} min", secs / 60),
        7200..=172_799 => format!("{} h", secs / 3600),
        _ => format!("{} days", secs / 86_400),
    }
}

/// One sum per unit.
pub(super) fn by_unit(used: Option<&Vec<Used>>) -> Vec<Amount> {
    let mut sums: Vec<Amount> = Vec::new();
    for one in used.into_iter().flatten() {
        let same = sums.iter_mut().find(|sum| sum.unit() == one.amount.unit());
        match same {
            Some(sum) => *sum = sum.checked_add(&one.amount).unwrap_or_else(|| sum.clone()),
            None => sums.push(one.amount.clone()),
        }
    }
    sums
}

fn words(sums: &[Amount]) -> String {
    if sums.is_empty() {
        return "nothing".to_owned();
    }
    let sums: Vec<String> = sums.iter().map(ToString::to_string).collect();
    sums.join(", ")
}

pub(super) fn money(sums: &[Amount]) -> Vec<Value> {
    sums.iter()
        .map(|sum| json!({ "amount": sum.value(), "unit": sum.unit() }))
        .collect()
}

/// What could be spent, and what was said, is left out.
pub(super) fn row(attempt: &Attempt) -> Value {
    json!({
        "event": "payment",
        "payment": attempt.id,
        "state": attempt.state.as_str(),
        "answer": attempt.answer.as_str(),
        "amount": attempt.amount().value(),
        "unit": attempt.amount().unit(),
        "capability": attempt.new.capability,
        "server": attempt.new.server,
        "request": attempt.new.event,
        "pmi": attempt.new.payment.pmi,
        "reserved_at": attempt.new.at.as_secs(),
        "decided_at": attempt.decided_at.map(Timestamp::as_secs),
        "note": attempt.note,
    })
}
