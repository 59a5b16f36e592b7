//! A rail of one's own: prepaid vouchers, which the operator of the server has sold before.
//!
//! A rail is two small traits. All guarantees (nobody passes unpaid, nobody pays twice, nobody who paid is turned away)
//! are the gate's; the rail only makes payment requests, and says what became of them.
//!
//! `cargo run --example custom_rail`

#![expect(clippy::print_stdout, reason = "an example talks")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use tollkeeper::client::{ClientPayments, with_client_payments};
use tollkeeper::payment::{
    Amount, PayOutcome, PayReq, PaymentHandler, PaymentOrder, PaymentProcessor, PaymentProof,
    PaymentRequest, Pmi, RailError, Settlement, SettlementStatus, Unit,
};
use tollkeeper::server::{ServerPayments, with_server_payments};
use tollkeeper::transport::{Outbound, ServerTransport, memory};
use tollkeeper::wire::{Message, Payload, Request, Response, raw};
use tollkeeper::{Error, Result};

/// Where vouchers are redeemed: what was asked for, and what was paid. A real one is a service with a database.
#[derive(Debug, Default)]
struct VoucherOffice {
    orders: Mutex<HashMap<String, (Amount, bool)>>,
}

impl VoucherOffice {
    /// The same order again changes nothing: that is what the idempotency key is for.
    fn order(&self, order: &PaymentOrder) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders
            .entry(order.idempotency_key.clone())
            .or_insert((order.amount.clone(), false));
    }

    fn redeem(&self, key: &str) -> bool {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders
            .get_mut(key)
            .is_some_and(|(_, paid)| !std::mem::replace(paid, true))
    }

    fn look_up(&self, key: &str) -> Option<(Amount, bool)> {
        self.orders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }
}

#[derive(Debug)]
struct VoucherProcessor {
    pmi: Pmi,
    office: Arc<VoucherOffice>,
}

#[async_trait::async_trait]
impl PaymentProcessor for VoucherProcessor {
    fn pmi(&self) -> &Pmi {
        &self.pmi
    }

    fn accepts(&self, unit: &Unit) -> bool {
        *unit == Unit::SATS
    }

    async fn create_payment_required(
        &self,
        order: &PaymentOrder,
    ) -> Result<PaymentRequest, RailError> {
        self.office.order(order);
        let key = order.idempotency_key.clone();
        Ok(PaymentRequest::new(
            self.pmi.clone(),
            order.amount.clone(),
            PayReq::new(&key),
            key,
        ))
    }

    async fn lookup_payment(
        &self,
        request: &PaymentRequest,
    ) -> Result<SettlementStatus, RailError> {
        match self.office.look_up(&request.reference) {
            Some((amount, true)) => Ok(SettlementStatus::Settled(Settlement::new(
                amount, "voucher",
            ))),
            Some((_, false)) => Ok(SettlementStatus::Pending),
            None => Err(RailError::unknown("no such order")),
        }
    }
}

#[derive(Debug)]
struct VoucherHandler {
    pmi: Pmi,
    office: Arc<VoucherOffice>,
}

#[async_trait::async_trait]
impl PaymentHandler for VoucherHandler {
    fn pmi(&self) -> &Pmi {
        &self.pmi
    }

    async fn handle(
        &self,
        request: &PaymentRequest,
        _cancel: &CancellationToken,
    ) -> Result<PayOutcome, RailError> {
        if self.office.redeem(request.pay_req.as_str()) {
            Ok(PayOutcome::Paid(PaymentProof::new("voucher")))
        } else {
            Ok(PayOutcome::Refused)
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let office = Arc::new(VoucherOffice::default());
    let pmi: Pmi = "example-voucher".parse()?;
    let (transport, client) = memory::pair();

    let payments = ServerPayments::builder()
        .price("tool:add=3 sat".parse()?)
        .processor(VoucherProcessor {
            pmi: pmi.clone(),
            office: Arc::clone(&office),
        })
        .build()?;
    let server = with_server_payments(transport, payments).await?;
    tokio::spawn(async move {
        while let Some(inbound) = server.recv().await {
            if let Message::Request(request) = inbound.message {
                let response = Response {
                    id: request.id,
                    payload: Payload::Result(raw(&json!({"sum": 5}))?),
                };
                server
                    .send(&inbound.origin.reply_to, Outbound::new(response))
                    .await?;
            }
        }
        Ok::<_, Error>(())
    });

    let payments = ClientPayments::builder()
        .handler(VoucherHandler { pmi, office })
        .budget("10 sats".parse()?)
        .build()?;
    let client = with_client_payments(client, payments);
    let params = json!({"name": "add", "arguments": {"a": 2, "b": 3}});
    let outcome = client
        .call(
            Request::new(1, "tools/call", &params)?,
            Duration::from_secs(20),
        )
        .await?;
    let paid = outcome
        .paid
        .ok_or_else(|| Error::config("nothing was paid"))?;
    let result = outcome
        .response
        .result()
        .ok_or_else(|| Error::config("no result"))?;
    println!("paid {paid} by voucher, got {}", result.get());
    Ok(())
}
