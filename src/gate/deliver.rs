//! The handler answered: write it down, then send it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;

use super::Gate;
use super::log::log_money;
use super::open_calls::OpenCall;
use super::price_list::Listed;
use super::resolve_price::guarded;
use super::write_later::Unwritten;
use crate::error::{ErrorKind, Result};
use crate::ledger::{Applied, Entry, GiveBack, Transition};
use crate::payment::{CapabilityPattern, Delivery, OnFailure, RequestEventId};
use crate::transport::{Outbound, ReplyTo};
use crate::wire::mpp::with_receipt;
use crate::wire::{CapTag, ErrorObject, Message, Response, SERVER_ERROR_CODE, Tag, method};

/// The most `cap` tags on one list response: a longer one would not fit into an event.
const MOST_CAP_TAGS: usize = 300;

impl Gate {
    /// Sends what the handler says about one request. A response ends the call: for a paid one it is in the ledger before
    /// it leaves, so that whatever happens to the message, the same event gets the same answer again.
    ///
    /// # Errors
    ///
    /// As [`ServerTransport::send`](crate::transport::ServerTransport::send).
    pub async fn deliver(self: &Arc<Self>, to: &ReplyTo, mut outbound: Outbound) -> Result<()> {
        let Message::Response(response) = &outbound.message else {
            return self.transport.send(to, outbound).await;
        };
        let Some(call) = self.open_calls.get(&to.event) else {
            // Answered before, or never asked: one request has one answer.
            tracing::debug!(request_event_id = %to.event, "dropped an answer that nobody waits for");
            return Ok(());
        };
        let mut tags = self.tags_for(&call, response);
        outbound.tags.append(&mut tags);
        self.describe(&call, &mut outbound);
        let Some(entry) = call.paid_by else {
            // Taken out before: of two answers one is counted.
            if self.open_calls.remove(&to.event).is_some() {
                self.tell_cover(to, &call, &outbound).await;
            }
            self.list_what_is_left(&call, &mut outbound).await;
            return self.send_free(to, &call, outbound).await;
        };
        if let Some(receipt) = &call.receipt {
            outbound.message = with_receipt(outbound.message, receipt);
        }
        if outbound.handler_lost {
            match self.on_failure(&entry).await {
                OnFailure::Keep => self.finish(&entry, &outbound.message).await,
                // An account of nobody in particular would be nobody's.
                OnFailure::Credit if !call.bearer => {
                    self.give_back(&entry, &outbound.message).await
                }
                _ => self.restore(&entry, "the handler was lost").await,
            }
            self.open_calls.remove(&to.event);
            return self.transport.send(to, outbound).await;
        }
        if !self.transport.can_carry(to, &outbound) {
            self.restore(&entry, "the result is too large for the transport")
                .await;
            self.open_calls.remove(&to.event);
            return self.transport.send(to, too_large(&call, true)).await;
        }
        match self.unused(&entry, &outbound.message).await {
            None => self.finish(&entry, &outbound.message).await,
            Some(unused) => self.finish_metered(&entry, &outbound.message, unused).await,
        }
        self.open_calls.remove(&to.event);
        self.transport.send(to, outbound).await
    }

    /// Tells the entitlement that covered `call`, if it wants to know, that it has succeeded.
    async fn tell_cover(&self, to: &ReplyTo, call: &OpenCall, outbound: &Outbound) {
        let (Some(covered), Message::Response(response)) = (&call.covered, &outbound.message)
        else {
            return;
        };
        let Some(result) = response.result().filter(|result| succeeded(call, result)) else {
            return;
        };
        if outbound.handler_lost {
            return;
        }
        let delivery = Delivery {
            event: to.event,
            client: call.client,
            memo: covered.memo.clone(),
            result: result.to_owned(),
            at: self.clock.now(),
        };
        let covered = Arc::clone(covered);
        let told = guarded(
            self.settings.entitlement_timeout,
            "an entitlement that counts",
            async move { covered.by.delivered(&delivery).await },
        )
        .await;
        if let Err(error) = told {
            tracing::error!(
                request_event_id = %to.event, error = &error as &dyn std::error::Error,
                "it could not be told that a call has succeeded"
            );
        }
    }

    async fn send_free(&self, to: &ReplyTo, call: &OpenCall, outbound: Outbound) -> Result<()> {
        match self.transport.send(to, outbound).await {
            Err(error) if error.kind() == ErrorKind::TooLarge => {
                self.transport.send(to, too_large(call, false)).await
            }
            sent => sent,
        }
    }

    /// Writes the delivery down. Even if that fails the answer goes out: it was paid for, and is written down when it can be.
    async fn finish(self: &Arc<Self>, entry: &RequestEventId, message: &Message) {
        let json = message.to_json();
        let response = (json.len() <= self.settings.stored_response_bytes).then_some(json);
        let deliver = Transition::Deliver { response };
        match self
            .ledger
            .apply(entry, vec![deliver.clone()], self.clock.now())
            .await
        {
            Ok(Applied::Moved(entry)) => log_money(&entry, "delivered"),
            Ok(Applied::Already(_)) => {}
            Ok(Applied::Refused(entry)) => {
                tracing::warn!(entry = %entry.id, state = entry.state.as_str(), "a delivery changed nothing");
            }
            Err(error) => {
                tracing::error!(
                    %entry, error = &error as &dyn std::error::Error, "a delivery could not be written down; it is tried again"
                );
                self.write_later(*entry, Unwritten::Move(deliver));
            }
        }
    }

    /// What becomes of the payment of `entry` when its handler was lost, as the price list says.
    async fn on_failure(&self, entry: &RequestEventId) -> OnFailure {
        let Ok(Some(Entry { capability, .. })) = self.ledger.get(entry).await else {
            return OnFailure::default();
        };
        let mut entries = self.prices.entries().iter();
        entries
            .find(|entry| entry.capability.to_string() == capability)
            .map_or_else(OnFailure::default, |entry| entry.on_failure)
    }

    /// Ends the call, and puts what was paid for it onto the client's account. If that cannot be written now, it is
    /// when it can be.
    async fn give_back(self: &Arc<Self>, entry: &RequestEventId, message: &Message) {
        let json = message.to_json();
        let response = (json.len() <= self.settings.stored_response_bytes).then_some(json);
        let back = GiveBack {
            response,
            unused: None,
        };
        let now = self.clock.now();
        match self.ledger.give_back(entry, back.clone(), now).await {
            Ok(Applied::Moved(entry)) => {
                log_money(&entry, "failed; what was paid is on the client's account");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(
                    %entry, error = &error as &dyn std::error::Error,
                    "what was paid for a failed call could not be given back; it is tried again"
                );
                self.write_later(*entry, Unwritten::GiveBack(back));
            }
        }
    }

    /// The tags that a response calls for: `cap` for what a list lists (N-20), and the disclosure of the interaction.
    fn tags_for(&self, call: &OpenCall, response: &Response) -> Vec<Tag> {
        let mut tags: Vec<Tag> = call
            .disclose
            .map(Tag::payment_interaction)
            .into_iter()
            .collect();
        if let Some(result) = response.result() {
            tags.extend(
                self.cap_tags_for(&call.method, result)
                    .iter()
                    .map(CapTag::to_tag),
            );
        }
        tags
    }

    /// The prices of the capabilities in a list result. Lists are recognised by the method that was asked, not by the
    /// shape of the result: a tool may well return something called `tools` (C-10).
    #[must_use]
    pub fn cap_tags_for(&self, list_method: &str, result: &RawValue) -> Vec<CapTag> {
        let Some((list_key, name_key, used_with)) = method::listing(list_method) else {
            return Vec::new();
        };
        if !self.prices.prices_method(used_with) {
            return Vec::new();
        }
        let lists: BTreeMap<String, &RawValue> =
            serde_json::from_str(result.get()).unwrap_or_default();
        let items: Option<Vec<Value>> = lists
            .get(list_key)
            .and_then(|list| serde_json::from_str(list.get()).ok());
        let mut tags: Vec<CapTag> = Vec::new();
        for name in items
            .iter()
            .flatten()
            .filter_map(|item| item.get(name_key)?.as_str())
        {
            for tag in self.cap_tags_of(list_method, used_with, name) {
                if tags.len() < MOST_CAP_TAGS && !tags.contains(&tag) {
                    tags.push(tag);
                }
            }
        }
        tags
    }

    fn cap_tags_of(&self, list_method: &str, used_with: &str, name: &str) -> Vec<CapTag> {
        if list_method == method::RESOURCE_TEMPLATES_LIST {
            // A template stands for many URIs: every entry that could price one of them is of interest.
            let Ok(template) = CapabilityPattern::new(&template_as_pattern(name)) else {
                return Vec::new();
            };
            let entries = self
                .prices
                .entries()
                .iter()
                .filter(|entry| entry.capability.method == used_with);
            return entries
                .filter(|entry| {
                    entry
                        .capability
                        .name
                        .as_ref()
                        .is_none_or(|pattern| pattern.overlaps(&template))
                })
                .filter_map(|entry| CapTag::new(&entry.capability, &entry.price))
                .collect();
        }
        let Listed::Priced(entry) = self.prices.find(used_with, Some(name)) else {
            return Vec::new();
        };
        let mut capability = entry.capability.clone();
        capability.name = CapabilityPattern::literal(name);
        CapTag::new(&capability, &entry.price).into_iter().collect()
    }
}

/// Whether the handler did what was asked. A tool may say as a result that it failed.
fn succeeded(call: &OpenCall, result: &RawValue) -> bool {
    #[derive(serde::Deserialize)]
    struct ToolResult {
        #[serde(rename = "isError", default)]
        is_error: bool,
    }
    if call.method != method::TOOLS_CALL {
        return true;
    }
    serde_json::from_str::<ToolResult>(result.get()).is_ok_and(|result| !result.is_error)
}

/// `private://{id}/x` → `private://*/x`.
fn template_as_pattern(template: &str) -> String {
    let mut pattern = String::new();
    let mut inside = false;
    for c in template.chars() {
        match c {
            '{' => {
                inside = true;
                pattern.push('*');
            }
            '}' => inside = false,
            c if !inside => pattern.push(c),
            _ => {}
        }
    }
    pattern
}

fn too_large(call: &OpenCall, paid: bool) -> Outbound {
    let text = if paid {
        "The result is too large for this transport; your payment stands for another call with the same params"
    } else {
        "The result is too large for this transport"
    };
    Outbound::new(Response::from_error(
        call.id.clone(),
        &ErrorObject::new(SERVER_ERROR_CODE, text),
    ))
}
