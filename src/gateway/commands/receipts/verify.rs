//! What a receipt proves, and what it does not. Nobody is asked: everything is in the file.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::client::receipt::Receipt;
use crate::payment::{BITCOIN_LIGHTNING_BOLT11, RequestEventId};
use crate::rails::lightning::{Invoice, Network, Preimage, judge_preimage};
use crate::transport::nostr::{SignedMessage, verify_signed};
use crate::wire::{
    Message, Payload, PaymentNotification, PaymentOption, PaymentPendingData, PaymentRequiredData,
    Response, invocation_identity, method, parse_strict,
};

/// What came of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Proven,
    NotProven,
    Wrong,
}

/// One statement about a receipt.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    pub(super) verdict: Verdict,
    pub(super) about: &'static str,
    pub(super) text: String,
}

/// All statements about a receipt.
pub(super) fn verify(receipt: &Receipt) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    findings.request(receipt);
    let offer = findings.demand(receipt);
    findings.acceptance(receipt);
    findings.response(receipt);
    findings.payment(receipt, offer.as_ref());
    findings.0
}

struct Findings(Vec<Finding>);

impl Findings {
    fn say(&mut self, verdict: Verdict, about: &'static str, text: impl Into<String>) {
        self.0.push(Finding {
            verdict,
            about,
            text: text.into(),
        });
    }

    /// Reads a signed event; says so if it is missing or wrong.
    fn read(
        &mut self,
        about: &'static str,
        event: Option<&RawValue>,
        receipt: &Receipt,
    ) -> Option<SignedMessage> {
        let Some(event) = event else {
            let why = match receipt.redacted.iter().any(|name| name == about) {
                true => "was left out of this copy",
                false => "is not in this receipt",
            };
            self.say(Verdict::NotProven, about, format!("the {about} {why}"));
            return None;
        };
        if event.get().starts_with('[') {
            let text = format!("the {about} was sent in pieces, which are not put together here");
            self.say(Verdict::NotProven, about, text);
            return None;
        }
        match verify_signed(event.get()) {
            Ok(read) => Some(read),
            Err(error) => {
                self.say(Verdict::Wrong, about, format!("the {about}: {error}"));
                None
            }
        }
    }

    /// The buyer asked this server for this call.
    fn request(&mut self, receipt: &Receipt) {
        let server = receipt.server.to_string();
        let first = [("request", &receipt.request, Some(receipt.request_event))];
        let retry = receipt
            .retry_event
            .map(|event| ("retry", &receipt.retry, Some(event)));
        for (about, event, id) in first.into_iter().chain(retry) {
            let Some(read) = self.read(about, event.as_deref(), receipt) else {
                continue;
            };
            if Some(read.id) != id {
                self.say(
                    Verdict::Wrong,
                    about,
                    format!("the {about} is another event than the receipt says"),
                );
            } else if !read.to.contains(&server) {
                self.say(
                    Verdict::Wrong,
                    about,
                    format!("the {about} is addressed to another server"),
                );
            } else if !is_call(&read.message, receipt) {
                self.say(
                    Verdict::Wrong,
                    about,
                    format!("the {about} is another call than the receipt says"),
                );
            } else {
                self.say(
                    Verdict::Proven,
                    about,
                    format!(
                        "{} signed the {about} for {} at this server",
                        short(&read.author),
                        receipt.capability
                    ),
                );
            }
        }
    }

    /// Whether `read` was signed by the server, about one of `events`.
    fn by_server(
        &mut self,
        about: &'static str,
        read: &SignedMessage,
        receipt: &Receipt,
        events: &[RequestEventId],
    ) -> bool {
        if read.author != receipt.server.to_string() {
            self.say(
                Verdict::Wrong,
                about,
                format!("the {about} is signed by somebody else than the server"),
            );
            return false;
        }
        if !read.about.is_some_and(|event| events.contains(&event)) {
            self.say(
                Verdict::Wrong,
                about,
                format!("the {about} is about another request"),
            );
            return false;
        }
        true
    }

    /// The server asked for this amount, for this request.
    fn demand(&mut self, receipt: &Receipt) -> Option<PaymentOption> {
        let read = self.read("demand", receipt.demand.as_deref(), receipt)?;
        if !self.by_server("demand", &read, receipt, &[receipt.request_event]) {
            return None;
        }
        let offers = offers(&read.message);
        let offer = offers
            .into_iter()
            .find(|offer| offer.pmi == receipt.pmi && offer.amount == receipt.amount);
        match &offer {
            Some(_) => self.say(
                Verdict::Proven,
                "demand",
                format!(
                    "the server demanded {} {} by {} for this request",
                    receipt.amount, receipt.unit, receipt.pmi
                ),
            ),
            None => self.say(
                Verdict::Wrong,
                "demand",
                "the demand is for another amount or another payment method",
            ),
        }
        offer
    }

    /// The server said that the money is there.
    fn acceptance(&mut self, receipt: &Receipt) {
        let Some(read) = self.read("acceptance", receipt.acceptance.as_deref(), receipt) else {
            return;
        };
        if !self.by_server("acceptance", &read, receipt, &events(receipt)) {
            return;
        }
        let accepted = match &read.message {
            Message::Notification(notification) => PaymentNotification::read(notification).ok(),
            _ => None,
        };
        match accepted.flatten() {
            Some(PaymentNotification::Accepted(said)) if said.amount >= receipt.amount => self.say(
                Verdict::Proven,
                "acceptance",
                format!(
                    "the server said that it has {} {}",
                    said.amount, receipt.unit
                ),
            ),
            Some(PaymentNotification::Accepted(said)) => self.say(
                Verdict::Wrong,
                "acceptance",
                format!("the server accepted {} only", said.amount),
            ),
            _ => self.say(
                Verdict::Wrong,
                "acceptance",
                "the acceptance says something else",
            ),
        }
    }

    /// The server answered.
    fn response(&mut self, receipt: &Receipt) {
        let Some(read) = self.read("response", receipt.response.as_deref(), receipt) else {
            return;
        };
        if !self.by_server("response", &read, receipt, &events(receipt)) {
            return;
        }
        match &read.message {
            Message::Response(Response {
                payload: Payload::Result(_),
                ..
            }) => self.say(
                Verdict::Proven,
                "response",
                "the server answered this request with the result in this receipt",
            ),
            Message::Response(_) => self.say(
                Verdict::Proven,
                "response",
                "the server answered this request with an error",
            ),
            Message::Notification(said) if said.method == method::PROGRESS => self.say(
                Verdict::NotProven,
                "response",
                "the answer came in pieces: the server signed their digest, and the answer itself is not in this receipt",
            ),
            _ => self.say(
                Verdict::Wrong,
                "response",
                "the response says something else",
            ),
        }
    }

    /// The money moved.
    fn payment(&mut self, receipt: &Receipt, offer: Option<&PaymentOption>) {
        if receipt.pmi.as_str() != BITCOIN_LIGHTNING_BOLT11 {
            let text = match receipt.proof {
                Some(_) => format!(
                    "that money moved: a reference of {} proves nothing by itself",
                    receipt.pmi
                ),
                None => "that money moved: there is no proof in this receipt".to_owned(),
            };
            return self.say(Verdict::NotProven, "payment", text);
        }
        lightning(self, receipt, offer);
    }
}

/// A BOLT11 invoice and its preimage.
fn lightning(findings: &mut Findings, receipt: &Receipt, offer: Option<&PaymentOption>) {
    let about = "payment";
    let Some(offer) = offer else {
        return findings.say(
            Verdict::NotProven,
            about,
            "that money moved: there is no invoice that the server signed",
        );
    };
    let invoice = match Invoice::parse(offer.pay_req.as_str()) {
        Ok(invoice) => invoice,
        Err(error) => return findings.say(Verdict::Wrong, about, format!("the invoice: {error}")),
    };
    if invoice.payment_hash != receipt.payment_id {
        return findings.say(
            Verdict::Wrong,
            about,
            "the invoice has another payment hash than the receipt says",
        );
    }
    if invoice.sats().ok() != Some(receipt.amount) {
        return findings.say(Verdict::Wrong, about, "the invoice asks for another amount");
    }
    if invoice.network != Network::Mainnet {
        let text = format!(
            "the invoice is of {}, whose coins are not money",
            invoice.network
        );
        findings.say(Verdict::NotProven, "network", text);
    }
    match judge_preimage(receipt.proof.as_deref(), &invoice.payment_hash) {
        Preimage::Matches(_) => findings.say(
            Verdict::Proven,
            about,
            format!(
                "the invoice over {} sats was paid: its preimage is in this receipt (who paid it, the preimage does not say)",
                receipt.amount
            ),
        ),
        Preimage::Differs => findings.say(
            Verdict::Wrong,
            about,
            "what is given as preimage does not belong to the invoice",
        ),
        _ if receipt.redacted.iter().any(|name| name == "proof") => findings.say(
            Verdict::NotProven,
            about,
            "that the invoice was paid: the preimage was left out of this copy",
        ),
        _ => findings.say(
            Verdict::NotProven,
            about,
            "that the invoice was paid: the wallet gave no preimage",
        ),
    }
}

/// The requests that an answer may be about.
fn events(receipt: &Receipt) -> Vec<RequestEventId> {
    std::iter::once(receipt.request_event)
        .chain(receipt.retry_event)
        .collect()
}

/// What a demand offers: one thing in a notification, one or more in an error.
fn offers(message: &Message) -> Vec<PaymentOption> {
    match message {
        Message::Notification(notification) => match PaymentNotification::read(notification) {
            Ok(Some(PaymentNotification::Required(offer))) => vec![offer],
            _ => Vec::new(),
        },
        Message::Response(response) => {
            let Some(error) = response.error() else {
                return Vec::new();
            };
            PaymentRequiredData::read(&error)
                .map(|data| data.payment_options)
                .or_else(|| PaymentPendingData::read(&error).map(|data| data.payment_options))
                .unwrap_or_default()
        }
        Message::Request(_) => Vec::new(),
    }
}

/// Whether `message` is the call that the receipt says was paid for.
fn is_call(message: &Message, receipt: &Receipt) -> bool {
    let Message::Request(request) = message else {
        return false;
    };
    let params = request
        .params
        .as_deref()
        .map(|params| parse_strict(params.get()))
        .transpose();
    let Ok(params) = params else {
        return false;
    };
    let value = params.as_ref().map(|params| &params.value);
    invocation_identity(&request.method, params.as_ref())
        .is_ok_and(|identity| identity == receipt.identity)
        && method::notation(&request.method, value) == receipt.capability
}

fn short(author: &str) -> &str {
    author.get(..8).unwrap_or(author)
}
