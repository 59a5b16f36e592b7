//! `call`: one call of a remote server, paid if the budget allows.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::target::Target;
use super::{content, session};
use crate::client::policy::Advertised;
use crate::client::{
    CallOutcome, DeclineReason, PaidClient, PaymentEvent, Spending, with_client_payments,
};
use crate::gateway::args::CallArgs;
use crate::gateway::exit::{Failure, Outcome, with_causes};
use crate::gateway::output::{self, harmless};
use crate::gateway::terminal::Terminal;
use crate::gateway::{shutdown, wire_up};
use crate::payment::Amount;
use crate::transport::MessageChannel;
use crate::wire::{
    ErrorObject, Message, Notification, PaymentRequiredData, Request, SERVER_ERROR_CODE, method,
    raw,
};

/// The most pages that are read of a list.
const MOST_PAGES: i64 = 100;

pub(super) async fn run(args: &CallArgs) -> Outcome {
    let target = Target::parse(&args.capability, &args.arguments)?;
    let stop = shutdown::requested()?;
    let report = Report {
        as_json: args.json,
        nothing: Amount::zero(args.paying.budget.unit().clone()),
    };
    let paying = wire_up::client_payments(&args.paying, Terminal::find(), report.on_payment());
    let payments = tokio::select! {
        payments = paying => payments,
        () = stop.cancelled() => Err(Failure::failed("interrupted")),
    };
    let payments = match payments {
        Ok(payments) => payments,
        Err(failure) if args.json && !failure.is_usage() => {
            return report.failed(failure.message());
        }
        Err(failure) => return Err(failure),
    };
    let budget = payments.budget().clone();
    let called = async {
        let transport = wire_up::client_transport(&args.server).await?;
        let client = with_client_payments(wire_up::behind_the_payer(transport)?, payments);
        let outcome = Call::new(&client, Duration::from_secs(args.server.link.timeout))
            .run(&target)
            .await;
        let told = match outcome {
            Ok(outcome) => report.outcome(&outcome),
            Err(error) => report.failed(&with_causes(&error)),
        };
        // What was told is written down before the end: otherwise the next run would ask for it again.
        client.close().await;
        Outcome::Ok(told)
    };
    let called = tokio::select! {
        called = called => called,
        () = stop.cancelled() => return report.interrupted(&budget.spending()),
    };
    match called {
        Ok(told) => told,
        // Wrong usage is told to people, whatever the output is.
        Err(failure) if args.json && !failure.is_usage() => report.failed(failure.message()),
        Err(failure) => Err(failure),
    }
}

/// One session with one call in it.
struct Call<'a> {
    client: &'a Arc<PaidClient>,
    patience: Duration,
    id: i64,
}

impl<'a> Call<'a> {
    fn new(client: &'a Arc<PaidClient>, patience: Duration) -> Self {
        Self {
            client,
            patience,
            id: wire_up::first_request_id(),
        }
    }

    async fn run(&self, target: &Target) -> crate::Result<CallOutcome> {
        let introduced = session::open(self.client, self.id, self.patience).await?;
        if introduced.response.result().is_none() {
            return Ok(introduced);
        }
        if self.client.payments().policy().advertised == Advertised::Required {
            self.see_prices(target).await?;
        }
        let mut params = target.params.clone();
        params["_meta"] = json!({ "progressToken": self.id + 1 });
        let request = Request {
            id: (self.id + 1).into(),
            method: target.method.to_owned(),
            params: Some(raw(&params)?),
        };
        let calling = self.client.call(request, self.patience);
        tokio::pin!(calling);
        loop {
            tokio::select! {
                biased;
                outcome = &mut calling => return outcome,
                Some(message) = self.client.recv() => show_progress(&message),
            }
        }
    }
    /// Has the server list what is called, so that its advertised price is known.
    async fn see_prices(&self, target: &Target) -> crate::Result<()> {
        let mut cursor = None;
        for page in 2..MOST_PAGES {
            let params =
                cursor.map_or_else(|| json!({}), |cursor: String| json!({"cursor": cursor}));
            let request = Request::new(self.id + page, target.list, &params)?;
            let listed = self.client.call(request, self.patience).await?;
            let next = listed
                .response
                .result()
                .and_then(|result| serde_json::from_str::<Page>(result.get()).ok())
                .and_then(|page| page.next_cursor);
            if next.is_none() || self.client.advertised(&target.notation()).is_some() {
                break;
            }
            cursor = next;
        }
        Ok(())
    }
}

/// What of a list matters here: whether there is more of it.
#[derive(serde::Deserialize)]
struct Page {
    #[serde(rename = "nextCursor")]
    next_cursor: Option<String>,
}

fn show_progress(message: &Message) {
    let Message::Notification(Notification {
        method,
        params: Some(params),
    }) = message
    else {
        return;
    };
    if method != method::PROGRESS {
        return;
    }
    let Ok(params) = serde_json::from_str::<Value>(params.get()) else {
        return;
    };
    let text = params
        .get("message")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let number = |key: &str| params.get(key).map(ToString::to_string);
    tracing::info!(
        progress = number("progress"),
        total = number("total"),
        "{}",
        harmless(text)
    );
}

/// What is printed, and how the run ends.
struct Report {
    as_json: bool,
    nothing: Amount,
}

impl Report {
    /// Tells of payments while the call is under way.
    fn on_payment(&self) -> impl Fn(&PaymentEvent) + Send + Sync + 'static {
        let as_json = self.as_json;
        move |event| {
            if as_json {
                output::json(&payment_line(event));
            } else if let Some(remark) = payment_remark(event) {
                output::remark(&remark);
            }
        }
    }

    fn outcome(&self, outcome: &CallOutcome) -> Outcome {
        let Some(result) = outcome.response.result() else {
            let error = outcome.response.error().unwrap_or_else(|| {
                ErrorObject::new(SERVER_ERROR_CODE, "The server's error cannot be read")
            });
            return self.error(&error, outcome.paid.as_ref(), outcome.unknown.as_ref());
        };
        if self.as_json {
            let paid = self.money(outcome.paid.as_ref());
            // The result stays as the server wrote it.
            output::json(&Done {
                event: "result",
                result,
                paid,
                unknown: outcome
                    .unknown
                    .as_ref()
                    .map(|amount| self.money(Some(amount))),
            });
        } else {
            let result: Value = serde_json::from_str(result.get()).unwrap_or_default();
            output::line(&content::as_text(&result));
        }
        Ok(())
    }

    fn failed(&self, message: &str) -> Outcome {
        self.error(&ErrorObject::new(SERVER_ERROR_CODE, message), None, None)
    }

    /// Stopped by a signal. What was being paid stays on the books.
    fn interrupted(&self, spending: &Spending) -> Outcome {
        let some = |amount: &Amount| (amount.value() > 0).then(|| amount.clone());
        let error = ErrorObject::new(SERVER_ERROR_CODE, "interrupted");
        let (paid, unknown) = (some(&spending.spent), some(&spending.reserved));
        self.error(&error, paid.as_ref(), unknown.as_ref())
    }

    fn error(
        &self,
        error: &ErrorObject,
        paid: Option<&Amount>,
        unknown: Option<&Amount>,
    ) -> Outcome {
        if !self.as_json {
            // Somebody else may want to pay it.
            let offered = PaymentRequiredData::read(error);
            for option in offered.iter().flat_map(|offered| &offered.payment_options) {
                let (pmi, pay_req) = (
                    harmless(option.pmi.as_str()),
                    harmless(option.pay_req.as_str()),
                );
                output::remark(&format!(
                    "to be paid by {pmi}, {}: {pay_req}",
                    option.amount
                ));
            }
            let mut message = format!("{} ({})", harmless(&error.message), error.code);
            if let Some(paid) = paid {
                message.push_str(&format!("; {paid} were paid"));
            }
            if let Some(unknown) = unknown {
                message.push_str(&format!(
                    "; nobody knows yet whether {unknown} were paid: they stay reserved and the same call is not paid \
                     again until that is known ('tollkeeper spending' shows it, 'tollkeeper spending resolve' asks the \
                     wallet)"
                ));
            }
            return Err(Failure::failed(message));
        }
        let said = error
            .data
            .as_ref()
            .and_then(|data| serde_json::from_str(data.get()).ok());
        let mut data = match said {
            Some(Value::Object(data)) => data,
            Some(other) => Map::from_iter([("data".to_owned(), other)]),
            None => Map::new(),
        };
        // What this client spent is not for the server to say.
        data.insert("spent".to_owned(), self.money(paid));
        data.remove("unknown");
        if unknown.is_some() {
            data.insert("unknown".to_owned(), self.money(unknown));
        }
        output::json(&Failed {
            event: "error",
            code: error.code,
            message: &error.message,
            data,
        });
        Err(Failure::reported())
    }

    fn money(&self, amount: Option<&Amount>) -> Value {
        let amount = amount.unwrap_or(&self.nothing);
        json!({ "amount": amount.value(), "unit": amount.unit() })
    }
}

#[derive(serde::Serialize)]
struct Done<'a> {
    event: &'static str,
    result: &'a serde_json::value::RawValue,
    paid: Value,
    /// What may have been paid beside it, if the wallet's answer was lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<Value>,
}

#[derive(serde::Serialize)]
struct Failed<'a> {
    event: &'static str,
    code: i64,
    message: &'a str,
    data: Map<String, Value>,
}

/// A payment event as a line for machines.
pub(super) fn payment_line(event: &PaymentEvent) -> Value {
    let money = |amount: &Amount| json!({ "amount": amount.value(), "unit": amount.unit() });
    match event {
        PaymentEvent::Required {
            event,
            amount,
            pmi,
            description,
        } => json!({
            "event": "payment_required", "request": event, "price": money(amount), "pmi": pmi, "description": description,
        }),
        PaymentEvent::Paid { event, amount } => {
            json!({ "event": "payment_sent", "request": event, "paid": money(amount) })
        }
        PaymentEvent::Unknown { event, amount } => {
            json!({ "event": "payment_unknown", "request": event, "held": money(amount) })
        }
        PaymentEvent::Accepted { event, amount } => {
            json!({ "event": "payment_accepted", "request": event, "amount": amount })
        }
        PaymentEvent::Rejected { event, message } => {
            json!({ "event": "payment_rejected", "request": event, "message": message })
        }
        PaymentEvent::Declined { event, reason } => {
            json!({ "event": "payment_declined", "request": event, "rule": reason.rule(), "reason": reason.to_string() })
        }
    }
}

/// The same for people.
pub(super) fn payment_remark(event: &PaymentEvent) -> Option<String> {
    Some(match event {
        PaymentEvent::Required {
            amount,
            description,
            ..
        } => {
            let what = description
                .as_deref()
                .map(|text| format!(" for {}", harmless(text)));
            format!("the server asks for {amount}{}", what.unwrap_or_default())
        }
        PaymentEvent::Paid { amount, .. } => format!("paid {amount}"),
        PaymentEvent::Unknown { amount, .. } => {
            format!("nobody knows whether {amount} were paid; the budget keeps them reserved")
        }
        PaymentEvent::Rejected { message, .. } => {
            let why = message
                .as_deref()
                .map(|text| format!(": {}", harmless(text)));
            format!("the server refuses{}", why.unwrap_or_default())
        }
        PaymentEvent::Declined { reason, .. } => {
            let flag = match reason {
                DeclineReason::AboveBudget { .. } => "; --budget AMOUNT allows more",
                _ => "",
            };
            format!("not paid: {reason} (rule: {}{flag})", reason.rule())
        }
        _ => return None,
    })
}
