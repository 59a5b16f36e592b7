//! How the demo is told: one line per thing that happens, as it happens, with its amount and the request that it is about.

use serde_json::{Value, json};

use super::super::call::payment_line;
use super::tally::Tally;
use crate::client::PaymentEvent;
use crate::gate::PriceList;
use crate::gateway::output::{self, Paint, harmless};
use crate::payment::RequestEventId;

pub(super) struct Story {
    as_json: bool,
    paint: Paint,
}

impl Story {
    pub(super) fn new(as_json: bool) -> Self {
        Self {
            as_json,
            paint: Paint::stdout(),
        }
    }

    pub(super) fn relay(&self, url: &str) {
        if self.as_json {
            output::json(&json!({ "event": "relay", "url": url }));
        } else {
            output::line(&format!("relay   {url}"));
        }
    }

    pub(super) fn server(&self, npub: &str, prices: &PriceList) {
        if self.as_json {
            output::json(
                &json!({ "event": "server", "npub": npub, "priced": prices.entries().len() }),
            );
            return;
        }
        output::line(&format!("server  {npub}"));
        for entry in prices.entries() {
            output::line(&format!(
                "        {:14} {}",
                entry.capability.to_string(),
                entry.price
            ));
        }
        output::line(
            "client  with a budget of 100 sats (play money: the fake rail settles by itself)",
        );
    }

    pub(super) fn call(&self, tool: &str, arguments: &Value) {
        if self.as_json {
            output::json(&json!({ "event": "call", "tool": tool, "arguments": arguments }));
        } else {
            output::line(&format!(
                "\n{} {}",
                self.paint.bold(&format!("→ {tool}")),
                self.paint.dim(&arguments.to_string())
            ));
        }
    }

    pub(super) fn payment(&self, event: &PaymentEvent) {
        if self.as_json {
            output::json(&payment_line(event));
            return;
        }
        let paint = self.paint;
        let (what, amount, about) = match event {
            PaymentEvent::Required {
                event, amount, pmi, ..
            } => (
                paint.yellow("← payment_required"),
                format!("{amount} by {pmi}"),
                event,
            ),
            PaymentEvent::Paid { event, amount } => {
                (paint.bold("  paid            "), amount.to_string(), event)
            }
            PaymentEvent::Accepted { event, amount } => (
                paint.green("← payment_accepted"),
                format!("{amount} sats"),
                event,
            ),
            PaymentEvent::Rejected { event, message } => {
                let why = harmless(message.as_deref().unwrap_or_default());
                (paint.red("← payment_rejected"), why, event)
            }
            PaymentEvent::Declined { event, reason } => {
                (paint.red("  declined        "), reason.to_string(), event)
            }
            PaymentEvent::Unknown { event, amount } => {
                (paint.red("  outcome unknown "), amount.to_string(), event)
            }
        };
        output::line(&self.about(&what, &amount, *about));
    }

    pub(super) fn result(&self, text: &str) {
        if self.as_json {
            output::json(&json!({ "event": "result", "text": text }));
        } else {
            output::line(&format!(
                "{} {text}",
                self.paint.green("← result          ")
            ));
        }
    }

    pub(super) fn error(&self, message: &str) {
        if self.as_json {
            output::json(&json!({ "event": "error", "message": message }));
        } else {
            output::line(&format!(
                "{} {}",
                self.paint.red("← error           "),
                harmless(message)
            ));
        }
    }

    pub(super) fn summary(&self, tally: &Tally) {
        if self.as_json {
            output::json(tally);
            return;
        }
        output::line(&format!(
            "\n{} free calls, {} paid calls, {} rejected, {} sats settled; {} executions, {} entries of the ledger left open",
            tally.free_calls,
            tally.paid_calls,
            tally.rejected_calls,
            tally.settled_sats,
            tally.executions,
            tally.ledger_open,
        ));
    }

    /// A line about one request, named by the first digits of its event id.
    fn about(&self, what: &str, amount: &str, event: RequestEventId) -> String {
        let request = self.paint.dim(&format!("request {}", event.short()));
        format!("{what} {amount:<22} {request}")
    }
}
