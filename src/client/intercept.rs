//! What comes from the server: answers go to their caller, payment notifications to the payer, the rest passes.

use std::sync::Arc;

use super::answer::finish;
use super::channel::Shared;
use super::event::PaymentEvent;
use super::ledger::Heard;
use super::{answer, gated, pay};
use crate::payment::RequestEventId;
use crate::transport::ClientInbound;
use crate::wire::{Message, Notification, Payload, PaymentNotification, Response, Tag, method};

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
            tags,
            signed,
            broken,
        }) = inbound
        else {
            break;
        };
        match message {
            Message::Response(response) => {
                let signed = (!broken).then_some(signed);
                answered(&shared, in_reply_to, response, &tags, signed).await;
            }
            Message::Notification(notification) => {
                notified(&shared, in_reply_to, notification, signed).await;
            }
            // This transport carries no requests from server to client (T-16).
            Message::Request(_) => {}
        }
    }
    shared.closing.cancel();
    answer::all_interrupted(&shared);
}

/// An answer is matched by the event it is about, never by the id in its body (N-8). `signed` is the server's own message;
/// `None`: there was one, and it broke on the way.
pub(super) async fn answered(
    shared: &Arc<Shared>,
    in_reply_to: Option<RequestEventId>,
    response: Response,
    tags: &[Tag],
    signed: Option<String>,
) {
    let Some(event) = in_reply_to else {
        tracing::debug!("dropped an answer to nothing");
        return;
    };
    let Some(id) = shared.calls.of_event(&event) else {
        tracing::debug!("an answer to nothing that is open");
        if let Some(signed) = signed {
            shared.strays.keep(event, response, signed);
        }
        return;
    };
    match &response.payload {
        // Prices are believed on the lists that this client asked for, so that a server cannot raise one right before it
        // demands it.
        Payload::Result(_) => {
            let listed = shared
                .calls
                .with(id, |call| method::listing(&call.request.method).is_some());
            if listed == Some(true) {
                shared.prices.note(tags);
            }
        }
        Payload::Error(_) => {
            if let Some(signed) = &signed
                && gated::takes(shared, id, event, &response, signed)
            {
                return;
            }
        }
    }
    let Some(call) = shared.calls.end(id) else {
        return;
    };
    let response = Response {
        id: call.id().clone(),
        payload: response.payload,
    };
    finish(shared, call, response, signed).await;
}

async fn notified(
    shared: &Arc<Shared>,
    in_reply_to: Option<RequestEventId>,
    notification: Notification,
    signed: String,
) {
    if !PaymentNotification::is_method(&notification.method) {
        let _ = shared.to_caller.send(notification.into()).await;
        return;
    }
    // Payment notifications about nothing that is open are dropped, whatever they say (N-11).
    let Some((event, id)) =
        in_reply_to.and_then(|event| Some((event, shared.calls.of_event(&event)?)))
    else {
        tracing::debug!("dropped a payment notification about nothing that is open");
        return;
    };
    match PaymentNotification::read(&notification) {
        Ok(Some(PaymentNotification::Required(params))) => {
            pay::demanded(shared, id, event, Some(params), signed);
        }
        Ok(Some(PaymentNotification::Accepted(params))) => {
            (shared.payments.observer)(&PaymentEvent::Accepted {
                event,
                amount: params.amount,
            });
            accepted(shared, id, signed);
        }
        Ok(Some(PaymentNotification::Rejected(params))) => {
            // The error that ends the request follows (N-72); servers that send none are ended here.
            (shared.payments.observer)(&PaymentEvent::Rejected {
                event,
                message: params.message.clone(),
            });
            super::decline::rejected(shared, id, params.message.as_deref(), signed).await;
        }
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(request_event_id = %event, error = &error as &dyn std::error::Error, "declined a demand that cannot be read");
            pay::demanded(shared, id, event, None, signed);
        }
    }
}

/// Keeps the server's word for the receipt.
fn accepted(shared: &Arc<Shared>, id: super::calls::CallId, signed: String) {
    let attempt = shared.calls.with(id, |call| call.attempts.last().copied());
    let Some(Some(attempt)) = attempt else {
        return;
    };
    let (shared, token) = (Arc::clone(shared), shared.payments.writing.token());
    tokio::spawn(async move {
        let noted = shared
            .payments
            .ledger
            .note(attempt, Heard::Accepted(signed));
        if let Err(error) = noted.await {
            tracing::warn!(%attempt, error = &error as &dyn std::error::Error, "an acceptance was not written down");
        }
        shared.payments.keep_receipt(attempt);
        drop(token);
    });
}
