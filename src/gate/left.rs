//! What is left on a client's accounts, told beside what it asked for: with each call that they pay, and with each list.

use serde_json::{Map, Value, json};

use super::Gate;
use super::open_calls::OpenCall;
use super::settle::NOTICE_TIMEOUT;
use crate::error::Result;
use crate::ledger::Entry;
use crate::payment::Amount;
use crate::transport::{Outbound, ReplyTo};
use crate::wire::{
    ENTITLEMENTS_KEY, Message, Payload, PaymentAcceptedParams, PaymentNotification, meta_of,
    method, with_meta,
};

/// Where `_meta` of `payment_accepted` says what is left on the account that paid.
const LEFT: &str = "tollkeeper/balance";

/// Where `_meta` of a list says what is left on each account of the client.
const ACCOUNTS: &str = "tollkeeper/balances";

impl Gate {
    /// Tells the client that its account has paid, what is left on it, and why nothing else let the call through: whoever shows a
    /// licence that does not count any more should not wonder where the money goes.
    pub(super) async fn tell_what_is_left(
        &self,
        entry: &Entry,
        left: &Amount,
        said: &Map<String, Value>,
    ) {
        let reply_to = ReplyTo::new(entry.client, entry.id, entry.route.clone());
        let mut params = PaymentAcceptedParams::new(entry.amount.value(), entry.pmi.clone());
        let mut meta = Map::from_iter([(LEFT.to_owned(), money(left))]);
        if !said.is_empty() {
            meta.insert(ENTITLEMENTS_KEY.to_owned(), said.clone().into());
        }
        params.meta = Some(meta);
        let accepted = PaymentNotification::Accepted(params);
        let told = self.tell(&reply_to, &accepted);
        // A courtesy: it does not hold up what it is about.
        if tokio::time::timeout(NOTICE_TIMEOUT, told).await.is_err() {
            tracing::warn!(entry = %entry.id, "payment_accepted is taking long; serving the call without it");
        }
    }

    /// Writes into a list what its reader has. The list leaves without it if that cannot be told.
    pub(super) async fn list_what_is_left(&self, call: &OpenCall, outbound: &mut Outbound) {
        if !self.settings.balances || method::listing(&call.method).is_none() {
            return;
        }
        let Message::Response(response) = &mut outbound.message else {
            return;
        };
        let Payload::Result(result) = &mut response.payload else {
            return;
        };
        let told = async {
            let accounts = self.accounts_of(call).await?;
            if accounts.is_empty() {
                return Ok(None);
            }
            let mut meta = meta_of(Some(result)).unwrap_or_default();
            meta.insert(ACCOUNTS.to_owned(), accounts.into());
            with_meta(Some(result.clone()), &meta)
        };
        match told.await {
            Ok(Some(told)) => *result = told,
            Ok(None) => {}
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a list does not say what is left"
            ),
        }
    }

    /// What is on the accounts of who calls, in the units of the price list.
    async fn accounts_of(&self, call: &OpenCall) -> Result<Vec<Value>> {
        let mut accounts = Vec::new();
        for unit in self.prices.units() {
            let account = self.ledger.account(&call.client, &unit).await?;
            accounts.extend(account.map(|account| money(&account.amount)));
        }
        Ok(accounts)
    }
}

fn money(amount: &Amount) -> Value {
    json!({ "amount": amount.value(), "unit": amount.unit() })
}
