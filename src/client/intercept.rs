//! What comes from the server: answers go to their caller, payment notifications to the payer, the rest passes.

use std::sync::Arc;

use super::call::Answer;
use super::calls::{Call, Sink};
use super::channel::Shared;
use super::event::PaymentEvent;
use super::pay;
use crate::payment::RequestEventId;
use crate::transport::ClientInbound;
use crate::wire::{Message, Notification, PaymentNotification, Response};

/// Takes messages until the transport or the client closes.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let inbound = tokio::select! {
            inbound = shared.transport.recv() => inbound,
            () = shared.closing.cancelled() => None,
        };
        let Some(ClientInbound {
            message,
            in_reply_to,
            ..
        }) = inbound
        else {
            break;
        };
        match message {
            Message::Response(response) => answered(&shared, in_reply_to, response).await,
            Message::Notification(notification) => {
                notified(&shared, in_reply_to, notification).await
            }
            // This transport carries no requests from server to client (T-16).
            Message::Request(_) => {}
        }
    }
    shared.closing.cancel();
    shared.calls.end_all();
}

/// An answer is matched by the event it is about, never by the id in its body (N-8).
async fn answered(shared: &Shared, in_reply_to: Option<RequestEventId>, response: Response) {
    let Some(call) = in_reply_to.and_then(|event| shared.calls.end(&event)) else {
        tracing::debug!("dropped an answer to nothing that is open");
        return;
    };
    let response = Response {
        id: call.id.clone(),
        payload: response.payload,
    };
    finish(shared, call, response).await;
}

/// Hands the answer of an ended call to whoever waits for it.
pub(super) async fn finish(shared: &Shared, call: Call, response: Response) {
    match call.sink {
        Sink::Channel => {
            let _ = shared.to_caller.send(response.into()).await;
        }
        Sink::Waiter(waiter) => {
            let _ = waiter.send(Answer {
                response,
                payment: call.payment.subscribe(),
            });
        }
    }
}

async fn notified(
    shared: &Arc<Shared>,
    in_reply_to: Option<RequestEventId>,
    notification: Notification,
) {
    if !PaymentNotification::is_method(&notification.method) {
        let _ = shared.to_caller.send(notification.into()).await;
        return;
    }
    // Payment notifications about nothing that is open are dropped, whatever they say (N-11).
    let Some(event) = in_reply_to.filter(|event| shared.calls.with(event, |_| ()).is_some()) else {
        tracing::debug!("dropped a payment notification about nothing that is open");
        return;
    };
    match PaymentNotification::read(&notification) {
        Ok(Some(PaymentNotification::Required(params))) => {
            pay::demanded(shared, event, Some(params)).await
        }
        Ok(Some(PaymentNotification::Accepted(params))) => {
            (shared.payments.observer)(&PaymentEvent::Accepted {
                event,
                amount: params.amount,
            });
        }
        Ok(Some(PaymentNotification::Rejected(params))) => {
            // The error that ends the request follows (N-72); servers that send none are ended here.
            (shared.payments.observer)(&PaymentEvent::Rejected {
                event,
                message: params.message.clone(),
            });
            super::decline::rejected(shared, &event, params.message.as_deref()).await;
        }
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(request_event_id = %event, error = &error as &dyn std::error::Error, "declined a demand that cannot be read");
            pay::demanded(shared, event, None).await;
        }
    }
}
